#!/usr/bin/env python3
"""The rules of docs/style.md that a program can check, as TAP: rules.py SOURCE_ROOT BUILD_ROOT.

Each function below that starts with `rule_` is one test case; it yields a line for each breach.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1])
BUILD = pathlib.Path(sys.argv[2])
SKIPPED_FOLDERS = re.compile(r'^(build|\.)')
GENERATED = re.compile(r'-(data|tables)\.[ch]$')
# Bodies of kernels, written once and included by one file per instruction set: they lean on what that file defines.
BODIES = re.compile(r'^engine/kernels/(vector|x86)/')


def files(*suffixes):
    for folder, names, found in os.walk(ROOT):
        if pathlib.Path(folder) == ROOT:
            names[:] = [n for n in names if not SKIPPED_FOLDERS.match(n)]
        names[:] = sorted(n for n in names if n != '__pycache__')
        for name in sorted(found):
            if name.endswith(suffixes):
                yield (pathlib.Path(folder) / name).relative_to(ROOT)


def text(path):
    return (ROOT / path).read_text(encoding='utf-8')


def without_comments(source):
    """Comments and string contents blanked, lines kept."""
    def blank(match):
        found = match[0]
        if found.startswith('/'):
            return re.sub(r'[^\n]', ' ', found)
        return '"' + ' ' * (len(found) - 2) + '"' if found.startswith('"') else found
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', blank, source, flags=re.S)


def include_table():
    rows = {}
    for line in text(pathlib.Path('docs/style.md')).split('## Who may include whom')[1].splitlines():
        cells = line.strip().strip('|').split('|')
        if len(cells) == 2 and '`' in cells[0]:
            allowed = set(re.findall(r'`([^`]+)`', cells[1]))
            for folder in re.findall(r'`([^`]+)`', cells[0]):
                rows[folder] = allowed if '`' in cells[1] or not cells[1].strip() else None
        elif rows and not line.strip():
            break
    return rows


def row_of(path, rows):
    path = str(path)
    best = [r for r in rows if path == r or path.startswith(r + '/')]
    return max(best, key=len) if best else None


def rule_includes_follow_the_table():
    rows = include_table()
    for path in files('.c', '.h'):
        row = row_of(path, rows)
        if row is None:
            yield '%s: its folder is in no row of the table in docs/style.md' % path
            continue
        if rows[row] is None:
            continue
        for number, line in enumerate(text(path).splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not match:
                continue
            target = match[1]
            if not (ROOT / target).exists():
                if target.endswith(('-data.h', '-texts.h')):
                    continue
                yield '%s:%d: "%s" is not written from the root of the tree' % (path, number, target)
                continue
            theirs = row_of(target, rows)
            if theirs != row and target not in rows[row] and theirs not in rows[row]:
                yield '%s:%d: %s may not include %s' % (path, number, row, target)


def rule_no_folder_depends_on_itself_through_others():
    rows = {k: v for k, v in include_table().items() if v is not None}
    graph = {k: {row_of(t, rows) for t in v} - {k} for k, v in rows.items()}
    # Two folders may name single headers of each other (kernels and kv/layout.h); whole folders may not.
    graph = {k: {t for t in v if t in rows[k]} for k, v in graph.items()}

    def reaches(start, goal, seen):
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in graph.get(start, ()))
    for folder in graph:
        if reaches(folder, folder, set()):
            yield '%s includes itself through others' % folder


def rule_files_are_one_room():
    for path in files('.c', '.h', '.py'):
        n = len(text(path).splitlines())
        limit = 1200
        if path.suffix == '.h' and 'tests' not in path.parts and not BODIES.match(str(path)):
            limit = 300
        if n > limit and not GENERATED.search(path.name):
            yield '%s has %d lines, the limit is %d' % (path, n, limit)


def rule_lines_are_short():
    for path in files('.c', '.h'):
        if GENERATED.search(path.name):
            continue
        fenced = False  # a table that is aligned by hand
        for number, line in enumerate(text(path).splitlines(), 1):
            if 'clang-format o' in line:
                fenced = 'clang-format off' in line
            if len(line) > 120 and not fenced and path.parts[0] != 'tests' and not BODIES.match(str(path)):
                yield '%s:%d: %d columns' % (path, number, len(line))
            if line != line.rstrip() or '\t' in line:
                yield '%s:%d: a tab, or white space at the end' % (path, number)


def rule_no_banned_calls():
    banned = re.compile(r'(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|atof|alloca|strtok|rand|srand|'
                        r'system|popen|tmpnam|mktemp|strncpy|ctime|asctime|gmtime|localtime|setjmp|longjmp)\s*\(')
    for path in files('.c', '.h'):
        if path.parts[0] == 'tests':
            continue
        for number, line in enumerate(without_comments(text(path)).splitlines(), 1):
            match = banned.search(line)
            if match:
                yield '%s:%d: %s()' % (path, number, match[1])


def rule_comments_are_c_comments():
    for path in files('.c', '.h'):
        bare = re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', lambda m: re.sub(r'[^\n]', ' ', m[0]), text(path), flags=re.S)
        for number, line in enumerate(bare.splitlines(), 1):
            if '//' in line:
                yield '%s:%d: // comments do not land' % (path, number)


def rule_no_unfinished_remarks():
    words = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
    for path in files('.c', '.h', '.py', '.md', '.sh', 'meson.build'):
        if path.name == 'rules.py':
            continue
        for number, line in enumerate(text(path).splitlines(), 1):
            if words.search(line):
                yield '%s:%d: %s' % (path, number, line.strip())


def rule_every_file_says_its_licence():
    for path in files('.c', '.h'):
        if not text(path).startswith('/* SPDX-License-Identifier: LGPL-2.1-or-later */\n'):
            yield '%s does not begin with its licence' % path


def rule_headers_guard_themselves():
    for path in files('.h'):
        if '#pragma once' not in text(path):
            yield '%s has no #pragma once' % path


def rule_headers_compile_alone():
    compiler = os.environ.get('RESIDENTD_CC', 'cc').split()
    flags = subprocess.run(['pkg-config', '--cflags', 'json-c', 'libsystemd'], capture_output=True, text=True).stdout.split()
    for path in files('.h'):
        if BODIES.match(str(path)):
            continue
        command = [*compiler, '-std=gnu17', '-D_GNU_SOURCE', '-DRESIDENTD_VERSION=""', '-I', str(ROOT), '-I', str(BUILD), *flags,
                   '-Wall', '-Wextra', '-Werror', '-Wno-unused-parameter', '-Wno-missing-field-initializers', '-Wno-unused-function',
                   '-fsyntax-only', '-include', str(ROOT / path), '-x', 'c', '/dev/null']
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            lines = [l for l in done.stderr.splitlines() if 'error' in l] or done.stderr.splitlines()
            yield '%s: %s' % (path, lines[0] if lines else 'does not compile')


def headers_that_cross_folders():
    crossing = {pathlib.Path('client/libresident/resident.h')}
    for path in files('.c', '.h'):
        if path.parts[0] == 'tests':
            continue
        for target in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text(path), re.M):
            if pathlib.Path(target).parent != path.parent:
                crossing.add(pathlib.Path(target))
    return crossing


def rule_functions_that_cross_folders_have_docstrings():
    prototype = re.compile(r'^(?!static|typedef|#|DEFINE_|extern|_Static|static_assert)[a-z_][\w \*]*?\**(\w+)\([^;{]*\)[^;{]*;', re.M)
    crossing = headers_that_cross_folders()
    for path in files('.h'):
        if path not in crossing or path.parts[0] in ('tests', 'bench') or BODIES.match(str(path)):
            continue
        source = text(path)
        documented = set(re.findall(r'^ \* (\w+)\(\)', source, re.M))
        documented |= set(re.findall(r'\b(\w+)\(\)', ' '.join(re.findall(r'/\*\*\n \* ([^\n]*\n(?: \*[^\n]*\n)?)', source))))
        bare = re.sub(r'/\*.*?\*/', lambda m: re.sub(r'[^\n]', ' ', m[0]), source, flags=re.S)
        for match in prototype.finditer(bare):
            name = match[1]
            if name in documented or any(d.endswith('_') and name.startswith(d) for d in documented):
                continue
            yield '%s: %s() has no docstring' % (path, name)


def archives():
    return sorted(BUILD.glob('**/*.a'))


def rule_no_writable_globals():
    """Objects of ours, not of the tests: no symbol in .data or .bss (constants with relocations, .data.rel.ro, are not
    writable). Sanitizers add their own symbols, so their builds are not looked at: the plain build is."""
    seen = False
    for archive in archives():
        if 'tests' in archive.relative_to(BUILD).parts:
            continue
        listing = subprocess.run(['nm', '-A', '-f', 'sysv', '--defined-only', str(archive)], capture_output=True, text=True).stdout
        if '__asan' in listing or '__odr_asan' in listing or '__sancov' in listing:
            continue
        seen = True
        for line in listing.splitlines():
            cells = [c.strip() for c in line.split('|')]
            if len(cells) == 7 and re.match(r'\.(t?data|t?bss|lbss|ldata)(?!\.rel\.ro)', cells[6]) and cells[3] == 'OBJECT':
                yield '%s is writable' % cells[0].replace(str(BUILD) + '/', '')
    if not seen and os.environ.get('RESIDENTD_SANITIZED') != '1':
        yield 'no archive without sanitizers was found in %s' % BUILD


def symbols(path, *options):
    done = subprocess.run(['nm', *options, str(path)], capture_output=True, text=True)
    return [line.split()[-1] for line in done.stdout.splitlines() if line.split()]


def rule_the_daemon_parses_no_model():
    daemon = BUILD / 'daemon' / 'residentd'
    if not daemon.exists():
        yield '%s was not built' % daemon
    for name in symbols(daemon):
        if re.match(r'(gguf|engine|tokenizer|kernels|chat_template)_|cu[A-Z]', name):
            yield 'residentd holds %s' % name


def rule_the_library_exports_only_its_own():
    libraries = [p for p in BUILD.glob('client/libresident/libresident.so*') if p.is_file() and not p.is_symlink() and not p.name.endswith('.p')]
    if not libraries:
        yield 'libresident.so was not built'
    for library in libraries:
        for name in symbols(library, '-D', '--defined-only'):
            if not name.startswith('resident_') and not name.startswith('LIBRESIDENT_'):
                yield '%s exports %s' % (library.name, name)


def main():
    rules = [(name, rule) for name, rule in globals().items() if name.startswith('rule_')]
    print('1..%d' % len(rules))
    failed = False
    for number, (name, rule) in enumerate(rules, 1):
        breaches = list(rule())
        failed = failed or bool(breaches)
        print('%sok %d - %s' % ('not ' if breaches else '', number, name[5:].replace('_', ' ')))
        for breach in breaches[:40]:
            print('# ' + breach)
        if len(breaches) > 40:
            print('# and %d more' % (len(breaches) - 40))
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
