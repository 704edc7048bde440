#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manuals and the guide: well formed, and saying of the programs what those say of themselves."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import BUILD, SOURCE, Skip, main                                        # noqa: E402

MANUALS = sorted(glob.glob(os.path.join(SOURCE, "packaging", "man", "*.[1-8]")) +
                 glob.glob(os.path.join(BUILD, "packaging", "*.[1-8]")))
PROGRAMS = {
    "residentd.8": "daemon/residentd",
    "residentctl.1": "client/residentctl/residentctl",
    "resident-engine.1": "engine/tool/resident-engine",
}


def text_of(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def source_of(manual):
    return text_of(os.path.join(SOURCE, "packaging", "man", manual))


def help_of(manual):
    return subprocess.run([os.path.join(BUILD, PROGRAMS[manual]), "--help"], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def need(program):
    if not shutil.which(program):
        raise Skip(program + " is not installed")


def mandoc_finds_nothing():
    need("mandoc")
    assert len(MANUALS) >= 7, MANUALS
    done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", *MANUALS], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout


def man_warns_of_nothing():
    need("man")
    for manual in MANUALS:
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", manual], text=True,
                              env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0 and not done.stderr, (manual, done.stderr)


def quotes_end_where_what_they_quote_does():
    """groff's and mandoc's ideas of nested macros differ; a command or a value in quotes is not a sentence."""
    need("man")
    need("mandoc")
    for manual in MANUALS:
        for command in (["man", "-E", "UTF-8", "-l", "-Tutf8"], ["mandoc", "-Tutf8", "-O", "width=80"]):
            text = subprocess.run([*command, manual], text=True, check=True, stdout=subprocess.PIPE,
                                  env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "GROFF_NO_SGR": "1"}).stdout
            text = re.sub(r".\x08|\x1b\[[0-9;]*m", "", text)
            quoted = re.findall(r"‘([^’]*)’", text)
            wrong = [x for x in quoted if re.search(r"‘| (and|or|of|no) |, ", x)] + re.findall(r"’’", text)
            assert not wrong, (manual, command[0], wrong)


def each_program_has_a_manual():
    targets = json.loads(subprocess.run(["meson", "introspect", "--targets", BUILD], check=True, stdout=subprocess.PIPE,
                                        text=True).stdout)
    programs = {os.path.basename(t["filename"][0]) for t in targets if t["type"] == "executable" and t["installed"]}
    named = {os.path.basename(m).rsplit(".", 1)[0] for m in MANUALS}
    assert len(programs) >= 4 and programs <= named, programs - named
    # What is no program: the policy, the protocol, the library.
    assert {"residentd-policy", "residentd-varlink", "libresident"} <= named, named


def manual(name):
    """The text of a built manual as a person sees it."""
    need("man")
    done = subprocess.run(["man", "-E", "UTF-8", "-l", os.path.join(BUILD, "packaging", name)], check=True, text=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": "",
                               "MANPAGER": "cat"}, stdout=subprocess.PIPE)
    return re.sub(r".\x08", "", done.stdout)


def the_protocols_manual_has_each_member():
    text = manual("residentd-varlink.7")
    found = 0
    for path in glob.glob(os.path.join(SOURCE, "client", "varlink", "*.varlink")):
        for kind, name in re.findall(r"^(method|type|error) (\w+)", text_of(path), flags=re.M):
            declared = re.search(r"^%s %s ?\((?:[^()]|\([^()]*\))*\)(?: *\n? *-> *\n? *\([^()]*\))?" % (kind, name), text_of(path),
                                 flags=re.M)[0]
            # Whole, however its lines are broken.
            assert re.sub(r"\s+", "", declared) in re.sub(r"\s+", "", text), declared
            found += 1
    assert found > 50, found


def the_librarys_manual_has_each_function():
    text = manual("libresident.3")
    symbols = re.findall(r"^(?:\w+ )*?(?:struct \w+ |const char |int |void )\**(resident_\w+)\(", text_of(
        os.path.join(SOURCE, "client", "libresident", "resident.h")), flags=re.M)
    assert len(symbols) > 20, symbols
    missing = [s for s in symbols if not re.search(r"^ +.*\b%s\(" % s, text, flags=re.M)]
    assert not missing, missing


def manuals_have_the_long_options_of_help():
    for manual in PROGRAMS:
        said = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", help_of(manual)))
        written = set(re.findall(r"Fl -([a-z][a-z-]+)", source_of(manual)))
        # --version and --help are answered by each program, but not each lists them.
        assert said - written == set(), (manual, "not in the manual", said - written)
        unknown = written - said - {"version", "help"}
        assert unknown == set(), (manual, "not in --help", unknown)


def manuals_have_the_verbs_of_help():
    for manual in ("residentctl.1", "resident-engine.1"):
        said = set(re.findall(r"^  ([a-z]+) ", help_of(manual), flags=re.M)) - {"n"}
        written = set(re.findall(r"^\.It Ic ([a-z]+)", source_of(manual), flags=re.M))
        assert said == written and len(said) >= 7, (manual, said ^ written)


def the_policy_manual_has_each_key():
    with open(os.path.join(SOURCE, "policy", "policy.schema.json"), encoding="utf-8") as f:
        schema = json.load(f)
    written = set(re.findall(r"[a-z_0-9]+", source_of("residentd-policy.5")))
    top = schema["properties"]
    model, quota = schema["$defs"]["model"]["properties"], schema["$defs"]["groupQuota"]["properties"]
    keys = {*top, *top["host"]["properties"], *model, *quota, *model["residency"]["properties"],
            *model["placement"]["properties"], *model["context"]["properties"], *model["limits"]["properties"]}
    missing = sorted(keys - written - {"$schema"})
    assert len(keys) > 40 and not missing, missing


def the_guide_has_each_error():
    guide = text_of(os.path.join(SOURCE, "docs", "admin-guide.md"))
    errors = []
    for path in sorted(glob.glob(os.path.join(SOURCE, "client", "varlink", "*.varlink"))):
        interface = re.search(r"^interface (\S+)", text_of(path), flags=re.M)[1]
        errors += ["%s.%s" % (interface, name) for name in re.findall(r"^error (\w+)", text_of(path), flags=re.M)]
    assert len(errors) >= 18, errors
    # A heading each, and something below it.
    missing = [e for e in errors if not re.search(r"^### `%s`\n\n\S.{40,}" % re.escape(e), guide, flags=re.M)]
    assert not missing, missing


if __name__ == "__main__":
    main([mandoc_finds_nothing, man_warns_of_nothing, quotes_end_where_what_they_quote_does, each_program_has_a_manual,
          the_protocols_manual_has_each_member, the_librarys_manual_has_each_function, manuals_have_the_long_options_of_help,
          manuals_have_the_verbs_of_help, the_policy_manual_has_each_key, the_guide_has_each_error])
