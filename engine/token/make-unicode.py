#!/usr/bin/env python3
"""Writes unicode-tables.c from Python's own Unicode data: make-unicode.py >unicode-tables.c

Committed and not made by the build, so that tokens do not depend on the Python of the machine that built the engine.
"""
import unicodedata

COLUMNS = 5


def ranges(wanted):
    found = []
    for code in range(0x110000):
        if not wanted(code):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def category(*starts):
    return lambda code: unicodedata.category(chr(code)).startswith(starts)


def without_marks(code):
    """The canonical decomposition less its marks, [] for a character that has none (or is Hangul: that is computed)."""
    if 0xAC00 <= code <= 0xD7A3 or not unicodedata.decomposition(chr(code)):
        return []
    whole = unicodedata.normalize('NFD', chr(code))
    left = [ord(c) for c in whole if unicodedata.category(c) != 'Mn']
    return left if whole != chr(code) and left else []


def initialiser(value):
    return '0x%X' % value if isinstance(value, int) else '{%s}' % ', '.join(map(initialiser, value))


def table(declaration, rows):
    print('\n%s = {' % declaration)
    for i in range(0, len(rows), COLUMNS):
        print('    ' + ' '.join(initialiser(row) + ',' for row in rows[i:i + COLUMNS]))
    print('};')


def main():
    lower = [(c, ord(chr(c).lower())) for c in range(0x110000) if len(chr(c).lower()) == 1 and chr(c).lower() != chr(c)]
    bases = [(c, without_marks(c)) for c in range(0x110000)]
    assert all(len(left) <= 3 for _, left in bases)
    bases = [(c, left) for c, left in bases if left]
    print('/* SPDX-License-Identifier: LGPL-2.1-or-later */')
    print('/* Unicode %s, written by make-unicode.py. */' % unicodedata.unidata_version)
    print('#include "engine/token/unicode-tables.h"')
    for name, wanted in (('other', category('C')), ('punctuation', category('P')), ('marks', category('Mn'))):
        rows = ranges(wanted)
        table('const struct unicode_range unicode_%s[UNICODE_N_%s]' % (name, name.upper()), rows)
    table('const struct unicode_pair unicode_lower[UNICODE_N_LOWER]', lower)
    table('const struct unicode_base unicode_bases[UNICODE_N_BASES]', bases)


if __name__ == '__main__':
    main()
