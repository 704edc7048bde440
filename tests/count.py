#!/usr/bin/env python3
"""Counts test cases (not programs) in meson's logs: count.py NAME=testlog.json ...

Every test of the project speaks TAP. A program that dies, times out or ends before its plan counts as one failed case
beside the cases that it reported. The last line printed is `N passed, N failed, N skipped`; exit status 1 if any failed
or if nothing ran.
"""
import json
import re
import sys

LINE = re.compile(r'^(not )?ok\b[^#]*(?:#\s*(\w+))?')


def count(path):
    passed = failed = skipped = 0
    for line in open(path, encoding='utf-8', errors='replace'):
        test = json.loads(line)
        bad = 0
        for text in (test.get('stdout') or '').splitlines():
            match = LINE.match(text.strip())
            if not match:
                continue
            if (match[2] or '').upper() == 'SKIP':
                skipped += 1
            elif match[1]:
                bad += 1
            else:
                passed += 1
        if test['result'] == 'SKIP' and not test.get('stdout'):
            skipped += 1
        elif test['result'] not in ('OK', 'SKIP') and bad == 0:
            bad = 1
        failed += bad
    return passed, failed, skipped


def main():
    total = [0, 0, 0]
    for argument in sys.argv[1:]:
        name, path = argument.split('=', 1)
        counts = count(path)
        print('%s: %d passed, %d failed, %d skipped' % (name, *counts))
        total = [a + b for a, b in zip(total, counts)]
    print()
    print('%d passed, %d failed, %d skipped' % tuple(total))
    return 1 if total[1] or not total[0] else 0


if __name__ == '__main__':
    sys.exit(main())
