#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""usage: make-man.py HEAD OUT SOURCE...

Writes the manual HEAD with the reference in place of its line '.\\" @REFERENCE@': of interfaces from .varlink files, of
functions from a public header. So what the service says of itself, what the header says, and the manual are one text.
The output is mdoc, as all manuals are."""
import pathlib
import re
import sys


def escape(text):
    """A text line of mdoc: no escapes, no macro."""
    text = text.replace("\\", "\\e")
    return "\\&" + text if text[:1] in (".", "'") else text


def sentences(line):
    """Each on a line of its own, as mdoc wants them; a parameter is named without its sign."""
    return [escape(x) for x in re.sub(r"(?<=[.!?]) +", "\n", re.sub(r"@(?=\w)", "", line.strip())).split("\n")]


def kind_of(line, before):
    if re.match(r" {0,3}- ", line) or (before == "list" and line.startswith("  ")):
        return "list"
    if line.startswith("    "):
        return "code"
    if not line.strip():
        return before if before == "code" else "text"
    return "text"


BEGIN = {"code": ".Bd -literal -offset indent", "list": ".Bl -dash -compact"}
END = {"code": ".Ed", "list": ".El"}


def block(text):
    """Paragraphs of comments: an indented part is code and stays as it is, one that begins with a dash is a list."""
    out, kind = [], "text"

    def turn(to):
        while kind == "code" and out[-1] == "":
            out.pop()
        if kind in END:
            out.append(END[kind])
            if to == "text":
                out.append(".Pp")
        elif out and out[-1] == ".Pp":
            out.pop()
        if to in BEGIN:
            out.append(BEGIN[to])

    for line in text.strip("\n").split("\n"):
        now = kind_of(line, kind)
        if now != kind:
            turn(now)
            kind = now
        if kind == "code":
            out.append(escape(line))
        elif re.match(r" {0,3}- ", line):
            out += [".It"] + sentences(line.strip()[2:])
        elif line.strip():
            out += sentences(line)
        elif out and not out[-1].startswith("."):
            out.append(".Pp")
    while kind == "code" and out[-1] == "":
        out.pop()
    if kind in END:
        out.append(END[kind])
    while out and out[-1] == ".Pp":
        out.pop()
    return out


def argument(text):
    """One argument of a macro."""
    return '"%s"' % escape(text).replace('"', "\\(dq")


# ---- interfaces ----

def wrapped(text):
    """A declaration, broken at its commas."""
    out, line = [], ""
    for word in re.sub(r"\s+", " ", text).split(" "):
        if line and len(line) + len(word) > 66:
            out.append(line)
            line = "    "
        line += word if line in ("", "    ") else " " + word
    return out + [line]


def interface(path):
    out, comment, text = [], [], path.read_text(encoding="utf-8")
    kinds = {"method": ("Methods", []), "type": ("Types", []), "error": ("Errors", [])}
    lines = text.splitlines()
    name, about = re.search(r"^interface (\S+)", text, flags=re.M)[1], None
    i = 0
    while i < len(lines):
        line = lines[i]
        i += 1
        if line.startswith("#"):
            comment.append(line[1:].strip())
            continue
        if line.startswith("interface "):
            about = comment
        elif line.split(" ")[0] in kinds:
            # To the closing bracket of the last list; an arrow announces another.
            while line.count("(") != line.count(")") or (line.startswith("method") and "->" not in line):
                line += " " + lines[i].strip()
                i += 1
            while line.endswith("->"):
                line += " " + lines[i].strip()
                i += 1
            while line.count("(") != line.count(")"):
                line += " " + lines[i].strip()
                i += 1
            kinds[line.split(" ")[0]][1].append((line.split(" ", 1)[1], comment))
        comment = []
    out.append(".Ss " + name)
    out += block("\n".join(about or []))
    for kind, (title, found) in kinds.items():
        if not found:
            continue
        out += [".Pp", title + ":", ".Bl -tag -width Ds"]
        for declaration, about in found:
            out += [".It Sy " + re.match(r"\w+", declaration)[0], ".Bd -literal -compact"]
            out += [escape(x) for x in wrapped(kind + " " + declaration)]
            out += [".Ed"]
            out += block("\n".join(about))
        out += [".El"]
    return out


# ---- a header ----

def comment_text(comment):
    lines = [re.sub(r"^ ?\* ?", "", x) for x in comment.strip().split("\n")]
    return "\n".join(lines).strip("\n")


def declaration_of(text):
    """'.Ft' and '.Fo' for a function, a literal display for all else."""
    text = re.sub(r"\s+", " ", text).strip()
    m = re.match(r"^((?:const )?(?:struct )?\w+ \**)(resident_\w+)\((.*)\);$", text)
    if not m:
        return [".Bd -literal -compact", escape(text), ".Ed"]
    out = [".Ft " + argument(m[1].strip()), ".Fo " + m[2]]
    out += [".Fa " + argument(x.strip()) for x in m[3].split(",")]
    return out + [".Fc"]


def header(path):
    text = path.read_text(encoding="utf-8")
    out = [".Ss About"]
    first = re.search(r"#pragma once\s*/\*\n(.*?)\*/", text, flags=re.S)
    out += block(comment_text(first[1]))
    place = first.end()
    for m in re.finditer(r"/\* ---- (.*?) ---- \*/|/\*\*(.*?)\*/\n(.*?)(?=\n\n|\n/\*|\Z)", text[place:], flags=re.S):
        if m[1]:
            out.append(".Ss " + m[1][0].upper() + m[1][1:])
            continue
        about = comment_text(m[2])
        names = re.findall(r"^#define (\w+) +(.*)$", m[3], flags=re.M)
        if names:
            out += [".Pp"] + [x for name, value in names for x in (".Dl " + escape("%s %s" % (name, value)).replace('"', "\\(dq"),)]
            out += block(about)
            continue
        title, _, rest = about.partition("\n")
        while rest[:1].islower():
            line, _, rest = rest.partition("\n")
            title += " " + line
        summary = title.split(" - ", 1)[-1]
        summary = sentences(summary[0].upper() + summary[1:].rstrip(".") + ".")
        out += [] if out[-1].startswith(".Ss ") else [".Pp"]
        out += declaration_of(m[3]) + [".Pp"] + summary
        parameters, words = [], []
        for line in rest.split("\n"):
            found = re.match(r"@(\w+): +(.*)", line)
            if found:
                parameters.append([found[1], found[2].strip()])
            elif parameters and line.startswith(" ") and not words:
                parameters[-1][1] += " " + line.strip()
            elif line.strip() or words:
                words.append(line)
        if parameters:
            out += [".Bl -tag -width Ds"]
            for name, what in parameters:
                out += [".It Fa " + name] + sentences(what)
            out += [".El"] + ([".Pp"] if words else [])
        # A call of another function may begin a line: it is text all the same.
        out += block("\n".join(x.strip() for x in words))
    return out


def main():
    head, out, *sources = map(pathlib.Path, sys.argv[1:])
    reference = []
    for source in sources:
        reference += interface(source) if source.suffix == ".varlink" else header(source)
    text = head.read_text(encoding="utf-8")
    mark = '.\\" @REFERENCE@\n'
    assert text.count(mark) == 1, head
    # Only ASCII: not every terminal of an administrator has more.
    body = "\n".join(reference) + "\n"
    for character, plain in (("…", "..."), ("–", "-"), ("→", "->"), ("×", "x"), ("≤", "<="), ("≥", ">=")):
        body = body.replace(character, plain)
    out.write_text(text.replace(mark, body), encoding="utf-8")


if __name__ == "__main__":
    main()
