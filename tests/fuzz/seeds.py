#!/usr/bin/env python3
"""Writes the seed corpus of a fuzz target: seeds.py NAME FOLDER. One function a target; returns the seeds as bytes."""
import pathlib
import sys


def json():
    return [
        b'{}', b'[1,-2.5e3,"x",null,true,{"a":{"b":[]}}]', b'{"a":1,"a":2}', b'["\\u0041\\ud83d\\ude00\\n"]',
        b'// c\n{ /* d */ "k": [18446744073709551615, 1e308] }', '"\u20ac\U0001f600"'.encode(), b'[[[[[[[[1]]]]]]]]',
        b'{"version":1,"models":{"m":{"path":"/x","allow":{"users":["*"]}}}}',
    ]


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    for i, seed in enumerate(globals()[name.replace('-', '_')]()):
        (folder / ('seed-%03d' % i)).write_bytes(seed)


if __name__ == '__main__':
    main()
