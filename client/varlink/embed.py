#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""usage: embed.py OUT.c FILE.varlink...

Writes the texts as C string literals, one line of text a line, in a table sorted by interface name (which is the
file's name without its ending)."""
import pathlib
import sys


def literal(line):
    out = []
    for byte in line.encode():
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        elif byte == 10:
            out.append("\\n")
        elif 32 <= byte < 127:
            out.append(chr(byte))
        else:
            out.append("\\%03o" % byte)
    return '"' + "".join(out) + '"'


def main():
    out, files = sys.argv[1], sorted(map(pathlib.Path, sys.argv[2:]), key=lambda p: p.stem)
    with open(out, "w", encoding="ascii") as f:
        f.write('/* Written by embed.py from the .varlink files. */\n#include "client/varlink/interfaces.h"\n\n')
        for i, path in enumerate(files):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            f.write("static const char text%d[] =\n    %s;\n\n" % (i, "\n    ".join(map(literal, lines))))
        f.write("const struct interface_text interface_texts[] = {\n")
        for i, path in enumerate(files):
            f.write('    {"%s", text%d, sizeof(text%d) - 1},\n' % (path.stem, i, i))
        f.write("    {NULL, NULL, 0},\n};\n")


main()
