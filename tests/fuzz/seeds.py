#!/usr/bin/env python3
"""Writes the seed corpus of a fuzz target: seeds.py NAME FOLDER. One function a target; returns the seeds as bytes."""
import pathlib
import struct
import sys


def json():
    return [
        b'{}', b'[1,-2.5e3,"x",null,true,{"a":{"b":[]}}]', b'{"a":1,"a":2}', b'["\\u0041\\ud83d\\ude00\\n"]',
        b'// c\n{ /* d */ "k": [18446744073709551615, 1e308] }', '"\u20ac\U0001f600"'.encode(), b'[[[[[[[[1]]]]]]]]',
        b'{"version":1,"models":{"m":{"path":"/x","allow":{"users":["*"]}}}}',
    ]


def proto():
    def packet(worker, state, kind, body, epoch=5, fds=0, bits=0):
        return struct.pack('<BBHHIQ', worker | state << 1 | bits, fds, kind, 0, len(body), epoch) + body
    hello = struct.pack('<IIII', 0x6b777372, 1, 0, 0) + b'0.1.0'
    piece = struct.pack('<QIIIiq', 7, 2, 2, 1, -1, -1) + b'hi{}'
    step = struct.pack('<QQIIIIII', 1, 2, 2, 1, 1, 0, 3, 4) + struct.pack('<IIQII', 9, 1, 100, 3, 1) + piece + piece
    q = lambda *numbers: struct.pack('<%dQ' % len(numbers), *numbers)
    return [
        packet(0, 0, 1, hello, bits=0x80), packet(1, 0, 1, hello), packet(0, 3, 11, hello, epoch=6),
        packet(0, 1, 2, q(0) + b'{"name":"m"}', fds=1), packet(0, 3, 3, q(2)), packet(0, 3, 4, struct.pack('<IIQII', 1, 100, 0, 0, 0)),
        packet(0, 3, 5, struct.pack('<QIiQII', 1, 2, 3, 4, 0, 0) + b'{"prompt":"x"}'), packet(0, 3, 6, q(1)), packet(0, 3, 7, q(0)),
        packet(0, 3, 9, q(1)), packet(0, 3, 10, q(0)), packet(0, 3, 12, q(1)), packet(1, 2, 13, q(0) + b'{}'), packet(1, 2, 14, q(1, 2)),
        packet(1, 2, 15, q(0) + b'{}'), packet(1, 3, 16, step), packet(1, 3, 17, q(1, 0, 5, 0, 5, 1, 1, 1)), packet(1, 3, 18, q(0) + b'{}'),
        packet(1, 3, 19, struct.pack('<IIQ', 6, 0, 0) + b'text'), packet(1, 3, 20, q(1, 2, 3)),
    ]


def chat():
    return [
        b"{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}{% if add_generation_prompt %}x{% endif %}",
        b"{%- set ns = namespace(a=0) -%}{% for i in range(3) if i %}{% set ns.a = ns.a + loop.index %}{% endfor %}{{ ns.a }}",
        b"{% macro f(a, b=1) %}[{{ a }}{{ caller() }}]{% endmacro %}{% call f(2) %}x{% endcall %}{{ [1,2,3][::-1] | tojson(indent=2) }}",
        b"{% raw %}{{{% endraw %}{# c #}{{ 'a' ~ 1 if n is odd else none }}{{ messages | map(attribute='role') | list | join(',') }}",
        b"{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ '%d' }}{{ strftime_now('%d %b') }}{{ 'a-b'.split('-') }}",
        b"{% filter upper %}a{% endfilter %}{% set x %}b{% endset %}{% with y = 2 %}{{ x ~ y }}{% endwith %}{{ {'a': (1,), 'b': 2 ** 3 // 4 % 5} }}",
        b"{% for a, b in [[1, 2]] %}{% if a > b %}{% break %}{% elif not a %}{% continue %}{% else %}{{ raise_exception('x') }}{% endif %}{% endfor %}",
    ]


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    for i, seed in enumerate(globals()[name.replace('-', '_')]()):
        (folder / ('seed-%03d' % i)).write_bytes(seed)


if __name__ == '__main__':
    main()
