#!/usr/bin/env python3
"""Texts drawn at random under the masks of the schemas below, checked by the jsonschema package; TAP, one case a group.

check-jsonschema.py SAMPLE_SCHEMAS: the program that draws them. Every text has to be JSON without keys that are there twice
in named properties, and has to satisfy its schema.
"""
import datetime
import decimal
import ipaddress
import json
import random
import re
import subprocess
import sys
import urllib.parse
import uuid

PERSON = {'type': 'object', 'properties': {'name': {'type': 'string', 'maxLength': 20}, 'age': {'type': 'integer', 'minimum': 0, 'maximum': 130},
                                           'email': {'type': 'string', 'format': 'email'}}, 'required': ['name', 'age'], 'additionalProperties': False}
TREE = {'$defs': {'node': {'type': 'object', 'properties': {'value': {'type': 'integer'}, 'children': {'type': 'array', 'items': {'$ref': '#/$defs/node'}}},
                           'required': ['value'], 'additionalProperties': False}}, '$ref': '#/$defs/node'}

GROUPS = {
    'types': [
        {}, True, {'type': 'string'}, {'type': 'integer'}, {'type': 'number'}, {'type': 'boolean'}, {'type': 'null'}, {'type': 'array'}, {'type': 'object'},
        {'type': ['string', 'null']}, {'type': ['integer', 'boolean', 'array'], 'items': {'type': 'null'}}, {'title': 't', 'description': 'd', 'default': 3, 'examples': [1]},
        {'properties': {'a': {'type': 'null'}}, 'required': ['a']}, {'minLength': 2}, {'items': {'const': 1}},
    ],
    'enum and const': [
        {'enum': ['red', 'green', 3, None, True, 1.5, 'a"\\\n\u20ac/']}, {'const': 'x'}, {'const': {'a': [1, {'b': None}], 'c': []}}, {'type': 'string', 'enum': ['a', 1]},
        {'enum': [[1, 2], {}]}, {'const': None},
    ],
    'objects': [
        PERSON, {'type': 'object', 'properties': {'a': True, 'b': {'type': 'integer'}, 'c': {'type': 'boolean'}}}, {'type': 'object', 'properties': {'a': {'type': 'null'}}, 'additionalProperties': {'type': 'integer'}},
        {'type': 'object', 'additionalProperties': {'type': 'boolean'}}, {'type': 'object', 'additionalProperties': False}, {'type': 'object', 'required': ['x', 'y']},
        {'type': 'object', 'properties': {'na': {'const': 1}, 'name': {'const': 2}, 'n\u00e9"': {'const': 3}}, 'required': ['name'], 'additionalProperties': {'const': 4}},
        {'type': 'object', 'additionalProperties': {'const': 1}, 'minProperties': 1, 'maxProperties': 3}, {'type': 'object', 'propertyNames': {'pattern': '^[a-c]{1,3}$'}, 'additionalProperties': {'type': 'null'}},
        {'type': 'object', 'patternProperties': {'^x_[0-9]+$': {'type': 'integer'}}, 'additionalProperties': False}, {'type': 'object', 'propertyNames': {'enum': ['a', 'b']}, 'additionalProperties': {'type': 'integer'}},
        {'type': 'object', 'properties': {'a': False, 'b': {'const': 1}}}, {'type': 'object', 'properties': {'a': {'type': 'object', 'properties': {'b': {'type': 'object', 'properties': {'c': {'type': 'string'}}, 'required': ['c']}}, 'required': ['b']}}, 'required': ['a']},
        {'type': 'object', 'properties': {}, 'additionalProperties': True}, {'type': 'object', 'properties': {str(i): {'const': i} for i in range(12)}},
    ],
    'arrays': [
        {'type': 'array', 'items': {'type': 'integer'}}, {'type': 'array', 'items': PERSON, 'minItems': 1, 'maxItems': 2}, {'type': 'array', 'prefixItems': [{'type': 'integer'}, {'type': 'string'}]},
        {'type': 'array', 'prefixItems': [{'const': 1}, {'const': 2}, {'const': 3}], 'items': False, 'minItems': 1}, {'type': 'array', 'prefixItems': [{'const': 1}], 'items': {'const': 2}, 'minItems': 3, 'maxItems': 4},
        {'type': 'array', 'maxItems': 0}, {'type': 'array', 'items': {'type': 'array', 'items': {'type': 'array', 'items': {'type': 'boolean'}}}}, {'type': 'array', 'minItems': 2}, {'type': 'array', 'items': False},
        {'type': 'array', 'items': {'enum': ['a', 'b']}, 'minItems': 3, 'maxItems': 40},
    ],
    'strings': [
        {'type': 'string', 'minLength': 3, 'maxLength': 5}, {'type': 'string', 'minLength': 20}, {'type': 'string', 'maxLength': 0}, {'type': 'string', 'maxLength': 300}, {'type': 'string', 'pattern': '^[a-z]+$'},
        {'type': 'string', 'pattern': '^[a-z]+$', 'minLength': 3, 'maxLength': 6}, {'type': 'string', 'pattern': '[0-9]{3}'}, {'type': 'string', 'pattern': '^a|b$'}, {'type': 'string', 'pattern': '^(\\d{3}-)?\\d{4}$', 'maxLength': 8},
        {'type': 'string', 'pattern': '^\\t*"\\\\[^a-z]\\w\\/(?:x|y)*?\\u00e9$'}, {'type': 'string', 'pattern': '^.{2,4}$'}, {'type': 'string', 'pattern': '^[\\w.-]+@[\\w-]+\\.[a-z]{2,}$'}, {'type': 'string', 'pattern': '^$'},
        {'type': 'string', 'pattern': '^[^"\\\\]*$'}, {'type': 'string', 'pattern': '^[\\]\\-a^]+$'},
    ],
    'formats': [{'type': 'string', 'format': f} for f in ('date', 'time', 'date-time', 'duration', 'uuid', 'email', 'hostname', 'ipv4', 'ipv6', 'uri')],
    'numbers': [
        {'type': 'integer', 'minimum': a, 'maximum': b} for a, b in ((0, 9), (1, 100), (-5, 5), (-1000, -7), (17, 17), (95, 1203), (0, 255), (-3, 0), (999, 1000), (123456, 7654321))
    ] + [
        {'type': 'integer', 'minimum': 5}, {'type': 'integer', 'maximum': -5}, {'type': 'integer', 'exclusiveMinimum': 0}, {'type': 'integer', 'exclusiveMaximum': 0}, {'type': 'integer', 'minimum': 0.5, 'maximum': 3.5}, {'type': 'integer', 'minimum': -2.5, 'exclusiveMaximum': 2},
        {'type': 'number', 'minimum': 0, 'maximum': 1}, {'type': 'number', 'exclusiveMinimum': 0, 'exclusiveMaximum': 1}, {'type': 'number', 'minimum': -1.5, 'maximum': 2.25}, {'type': 'number', 'minimum': 0.01}, {'type': 'number', 'maximum': -0.125}, {'type': 'number', 'exclusiveMinimum': 99.9, 'maximum': 100.05},
        {'type': 'number', 'minimum': 1e-3, 'maximum': 1.5e2}, {'type': 'number', 'minimum': 3.14, 'maximum': 3.14}, {'type': 'number', 'minimum': 10, 'exclusiveMinimum': 20}, {'type': 'number', 'minimum': -20, 'exclusiveMaximum': -10},
    ],
    'combinations': [
        {'anyOf': [{'type': 'string'}, {'type': 'integer'}]}, {'oneOf': [{'const': 'a'}, {'type': 'object', 'properties': {'k': {'const': 1}}, 'required': ['k']}]}, {'type': 'integer', 'anyOf': [{'minimum': 5}, {'maximum': -5}]},
        {'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'type': 'integer'}}, 'anyOf': [{'required': ['a']}, {'required': ['b']}]}, {'allOf': [PERSON]}, {'allOf': [{'type': 'object', 'properties': {'a': {'type': 'integer'}}, 'required': ['a']}, {'properties': {'b': {'type': 'string'}}, 'required': ['b']}]},
        {'allOf': [{'type': 'integer', 'minimum': 3}, {'maximum': 8}]}, {'allOf': [{'type': ['integer', 'string']}, {'type': ['number', 'null']}]}, {'allOf': [{'enum': [1, 2, 3]}, {'enum': [2, 3, 4]}]}, {'allOf': [{'properties': {'a': {'minimum': 3}}}, {'type': 'object', 'properties': {'a': {'type': 'integer', 'maximum': 5}}, 'required': ['a']}]},
        {'type': 'object', 'properties': {'kind': {'type': 'string'}}, 'oneOf': [{'properties': {'kind': {'const': 'a'}, 'x': {'type': 'integer'}}, 'required': ['kind', 'x']}, {'properties': {'kind': {'const': 'b'}}, 'required': ['kind']}]},
        {'anyOf': [{'anyOf': [{'const': 1}, {'const': 2}]}, {'type': 'null'}]}, {'allOf': [{'anyOf': [{'minimum': 5}, {'maximum': 1}], 'type': 'integer'}, {'anyOf': [{'minimum': 7}, {'maximum': 0}]}]}, {'additionalProperties': False, 'properties': {'a': {'const': 1}}, 'allOf': [{'required': ['a']}]},
    ],
    'multiples': [
        {'type': 'integer', 'multipleOf': m} for m in (1, 2, 3, 5, 7, 10, 12, 16, 60, 97, 100, 125, 360, 997, 1000, 1024, 86400, 1000000)
    ] + [
        {'type': 'number', 'multipleOf': m} for m in (0.01, 0.05, 0.1, 0.25, 0.5, 2.5, 0.125, 1.5, 3, 0.001, 12.34)
    ] + [
        {'type': 'integer', 'multipleOf': 5, 'minimum': 0, 'maximum': 100}, {'type': 'integer', 'multipleOf': 7, 'minimum': -100, 'maximum': 1000}, {'type': 'integer', 'multipleOf': 997, 'minimum': 1, 'maximum': 99999}, {'type': 'integer', 'multipleOf': 2.5},
        {'type': 'integer', 'multipleOf': 0.5, 'exclusiveMinimum': 3}, {'type': 'number', 'multipleOf': 0.01, 'minimum': 0, 'maximum': 1}, {'type': 'number', 'multipleOf': 0.25, 'exclusiveMinimum': 9.75, 'exclusiveMaximum': 10.5}, {'type': 'number', 'multipleOf': 0.05, 'maximum': -3.14159},
        {'type': 'number', 'multipleOf': 3, 'minimum': 1234567}, {'type': 'number', 'multipleOf': 1e3, 'exclusiveMaximum': 0}, {'multipleOf': 4}, {'allOf': [{'type': 'integer', 'multipleOf': 4}, {'multipleOf': 6, 'minimum': 1}]}, {'allOf': [{'type': 'number', 'multipleOf': 0.2}, {'multipleOf': 0.5}]},
        {'type': 'array', 'items': {'type': 'number', 'multipleOf': 0.01}, 'maxItems': 3}, {'enum': [1, 2, 3, 4, 5, 6], 'multipleOf': 3},
    ],
    'different items': [
        {'type': 'array', 'items': {'enum': ['a', 'b', 'c']}, 'uniqueItems': True}, {'type': 'array', 'items': {'enum': ['a', 'b', 'c', 'b', 1, 1.0]}, 'uniqueItems': True, 'minItems': 4}, {'items': {'type': 'boolean'}, 'uniqueItems': True},
        {'type': 'array', 'items': {'type': 'integer', 'minimum': 1, 'maximum': 6}, 'uniqueItems': True, 'minItems': 2, 'maxItems': 4}, {'type': 'array', 'items': {'enum': ['v%d' % i for i in range(20)]}, 'uniqueItems': True, 'maxItems': 3},
        {'type': 'array', 'items': {'oneOf': [{'const': 'x', 'title': 'X'}, {'const': 'y'}, {'const': None}]}, 'uniqueItems': True}, {'type': 'array', 'items': {'type': 'string'}, 'uniqueItems': True, 'maxItems': 1}, {'type': 'array', 'uniqueItems': False},
        {'$defs': {'c': {'enum': ['r', 'g']}}, 'type': 'array', 'items': {'$ref': '#/$defs/c'}, 'uniqueItems': True}, {'type': 'array', 'items': {'enum': [[1, 2], {'a': 1}, {}]}, 'uniqueItems': True}, {'type': 'array', 'items': {'enum': list(range(12))}, 'uniqueItems': True},
        {'type': 'array', 'items': {'type': 'integer', 'minimum': 0, 'maximum': 20, 'multipleOf': 5}, 'uniqueItems': True},
    ],
    'contains, and counted properties': [
        {'type': 'array', 'items': {'type': 'integer', 'minimum': 0, 'maximum': 9}, 'contains': {'minimum': 8}, 'maxItems': 4}, {'type': 'array', 'contains': {'const': 'x'}, 'maxItems': 2}, {'type': 'array', 'items': {'enum': [1, 2, 3]}, 'contains': {'enum': [2, 5]}, 'minItems': 3, 'maxItems': 5},
        {'type': 'array', 'items': {'type': 'boolean'}, 'not': {'contains': {'const': True}}}, {'type': 'array', 'items': {'enum': [1, 2]}, 'not': {'items': {'const': 1}}, 'maxItems': 3}, {'type': 'array', 'contains': {'type': 'null'}, 'minItems': 1, 'maxItems': 1},
        {'type': 'object', 'properties': {n: {'const': n} for n in 'abcde'}, 'minProperties': 2, 'maxProperties': 3}, {'type': 'object', 'properties': {n: {'const': n} for n in 'abcde'}, 'minProperties': 2, 'required': ['d']}, {'type': 'object', 'properties': {'a': {'const': 1}, 'b': {'const': 1}}, 'maxProperties': 1},
        {'type': 'object', 'properties': {'a': {'const': 1}}, 'additionalProperties': {'const': 0}, 'minProperties': 2, 'maxProperties': 3}, {'type': 'object', 'properties': {'a': {'const': 1}}, 'additionalProperties': {'const': 0}, 'maxProperties': 2}, {'type': 'object', 'additionalProperties': {'const': 0}, 'minProperties': 1},
    ],
    'not': [
        {'not': {'type': 'string'}}, {'not': {'type': ['object', 'array', 'number']}}, {'type': ['string', 'integer', 'null'], 'not': {'type': 'integer'}}, {'type': 'string', 'not': {'const': ''}}, {'type': 'string', 'not': {'enum': ['a', 'ab', 'abc', 'b', '\u00e9"']}},
        {'type': 'string', 'not': {'enum': ['none', 'null', '']}, 'maxLength': 4}, {'type': 'string', 'minLength': 2, 'maxLength': 3, 'not': {'enum': ['ab', 'abc', 'a', 'abcd']}}, {'type': 'integer', 'not': {'const': 0}}, {'type': 'integer', 'minimum': 0, 'maximum': 9, 'not': {'enum': [0, 3, 4, 9]}},
        {'type': 'number', 'not': {'const': 1.5}, 'minimum': 1, 'maximum': 2}, {'type': 'integer', 'not': {'minimum': 10}}, {'type': 'boolean', 'not': {'const': True}}, {'not': {'const': None}}, {'enum': ['a', 'b', 'c', 1], 'not': {'enum': ['a', 1]}}, {'not': {'enum': [[], {}, True, None, 3, 'x']}},
        {'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'type': 'integer'}}, 'not': {'required': ['a', 'b']}}, {'type': 'object', 'properties': {'a': {'enum': [1, 2, 3]}, 'b': {'type': 'integer'}}, 'not': {'properties': {'a': {'const': 2}}, 'required': ['a']}}, {'type': 'string', 'not': {'minLength': 4}},
        {'type': 'array', 'items': {'const': 1}, 'not': {'maxItems': 2}}, {'not': {'anyOf': [{'type': 'string'}, {'type': 'object'}]}}, {'not': {'not': {'type': 'integer'}}}, {'type': 'string', 'not': {'anyOf': [{'const': 'a'}, {'maxLength': 1}]}}, {'allOf': [{'type': 'string', 'not': {'const': 'a'}}, {'not': {'const': 'b'}, 'maxLength': 2}]},
        {'$defs': {'bad': {'enum': ['x', 'y']}}, 'type': 'string', 'maxLength': 2, 'not': {'$ref': '#/$defs/bad'}}, {'type': 'integer', 'not': {'allOf': [{'minimum': 3}, {'maximum': 8}]}}, {'type': 'object', 'propertyNames': {'not': {'const': 'id'}}, 'additionalProperties': {'const': 1}}, {'type': 'object', 'propertyNames': False}, {'type': 'object', 'propertyNames': {'enum': ['a', 'b']}, 'additionalProperties': {'const': 1}, 'required': ['b']},
    ],
    'if, then, else': [
        {'type': 'object', 'properties': {'kind': {'enum': ['a', 'b', 'c']}}, 'required': ['kind'], 'if': {'properties': {'kind': {'const': 'a'}}}, 'then': {'properties': {'x': {'type': 'integer'}}, 'required': ['x']}, 'else': {'properties': {'y': {'type': 'boolean'}}, 'required': ['y']}},
        {'type': 'object', 'properties': {'country': {'type': 'string'}, 'code': {'type': 'string'}}, 'required': ['country', 'code'], 'if': {'properties': {'country': {'const': 'US'}}, 'required': ['country']}, 'then': {'properties': {'code': {'pattern': '^[0-9]{5}$'}}}, 'else': {'properties': {'code': {'pattern': '^[A-Z]{2}$'}}}},
        {'type': 'integer', 'if': {'minimum': 10}, 'then': {'multipleOf': 10}}, {'type': ['integer', 'string'], 'if': {'type': 'string'}, 'then': {'maxLength': 2}, 'else': {'minimum': 5}}, {'type': 'object', 'properties': {'a': {'const': 1}, 'b': {'const': 2}, 'c': {'const': 3}}, 'if': {'required': ['a']}, 'then': {'required': ['b']}, 'else': {'required': ['c']}},
        {'type': 'object', 'properties': {'k': {'enum': ['p', 'q', 'r', 's', 't', 'u', 'v', 'w']}, 'n': {'type': 'integer'}}, 'required': ['k', 'n'], 'additionalProperties': False, 'allOf': [{'if': {'properties': {'k': {'const': k}}}, 'then': {'properties': {'n': {'minimum': 10 * i, 'maximum': 10 * i + 4}}}} for i, k in enumerate('pqrstuvw')]},
        {'type': 'string', 'if': {'const': 'a'}}, {'if': True, 'then': {'const': 1}, 'else': {'const': 2}}, {'type': 'object', 'properties': {'card': {'type': 'integer'}, 'bill': {'const': 'x'}, 'zip': {'const': 'y'}}, 'dependentRequired': {'card': ['bill'], 'bill': ['zip']}},
        {'type': 'object', 'properties': {'a': {'type': 'boolean'}, 'b': {'type': 'integer'}}, 'required': ['a'], 'if': {'properties': {'a': {'const': True}}}, 'then': {'required': ['b']}, 'else': {'properties': {'b': False}}},
        {'type': 'array', 'items': {'type': 'object', 'properties': {'t': {'enum': [1, 2]}}, 'required': ['t'], 'if': {'properties': {'t': {'const': 1}}}, 'then': {'properties': {'u': {'const': 'one'}}, 'required': ['u']}}, 'minItems': 1, 'maxItems': 3},
        {'type': 'array', 'items': {'const': 1}, 'if': {'minItems': 2}, 'then': {'minItems': 4}, 'else': {'maxItems': 0}, 'maxItems': 6},
    ],
    'exactly one': [
        {'oneOf': [{'type': 'integer', 'multipleOf': 3, 'maximum': 10}, {'type': 'integer', 'minimum': 11}]}, {'oneOf': [{'type': 'number', 'maximum': 5}, {'type': 'number', 'minimum': 3}]}, {'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'type': 'integer'}}, 'oneOf': [{'required': ['a']}, {'required': ['b']}]},
        {'oneOf': [{'type': 'object', 'properties': {'x': {'type': 'integer'}}, 'required': ['x']}, {'type': 'object', 'properties': {'y': {'type': 'integer'}}, 'required': ['y']}]}, {'oneOf': [{'enum': [1, 2, 3]}, {'enum': [3, 4]}]}, {'oneOf': [{'type': 'string', 'maxLength': 3}, {'const': 'ab'}]},
        {'$defs': {'p': {'type': 'object', 'properties': {'k': {'const': 'p'}, 'v': {'type': 'integer'}}, 'required': ['k']}, 'q': {'type': 'object', 'properties': {'k': {'const': 'q'}}, 'required': ['k']}}, 'oneOf': [{'$ref': '#/$defs/p'}, {'$ref': '#/$defs/q'}]}, {'oneOf': [{'type': 'integer'}, {'type': 'null'}, {'type': 'string'}]},
        {'oneOf': [{'type': 'string'}, {'type': 'string', 'minLength': 3}]},
        {'oneOf': [{'anyOf': [{'type': 'integer'}, {'minLength': 2}]}, {'type': 'object', 'properties': {'b': {'const': 1}}, 'required': ['b']}], 'minLength': 2},
        {'oneOf': [{'minLength': 3}, {'maximum': 4}]},
    ],
    'references': [
        TREE, {'type': 'object', 'properties': {'next': {'anyOf': [{'$ref': '#'}, {'type': 'null'}]}}, 'required': ['next'], 'additionalProperties': False}, {'$defs': {'a/b~': {'const': 1}}, 'items': {'$ref': '#/$defs/a~1b~0'}, 'type': 'array'},
        {'definitions': {'p': PERSON}, 'type': 'object', 'properties': {'p': {'$ref': '#/definitions/p', 'description': 'x'}}, 'required': ['p']}, {'$defs': {'n': {'type': 'integer'}}, 'properties': {'a': {'$ref': '#/$defs/n', 'minimum': 7}}, 'required': ['a'], 'type': 'object'},
        {'$defs': {'e': {'anyOf': [{'type': 'integer'}, {'type': 'array', 'items': {'$ref': '#/$defs/e'}, 'minItems': 1}]}}, '$ref': '#/$defs/e'},
    ],
}


# Of schemas drawn at random many can't be held: then they have to be refused. At least so many of them are not.
N_RANDOM, N_RANDOM_COMPILE = 500, 250


def random_simple(r):
    value = lambda: r.choice(['a', 'b', 'ab', '', 0, 1, 2, 3, 5, -1, 1.5, True, False, None])
    low = r.randint(-5, 5)
    return r.choice([
        {'type': r.choice(['string', 'integer', 'number', 'boolean', 'null'])}, {'type': ['string', 'integer']}, {'const': value()}, {'enum': [value() for _ in range(r.randint(1, 5))]},
        {'type': 'integer', 'minimum': low}, {'type': 'integer', 'minimum': low, 'maximum': low + r.randint(0, 9)}, {'type': 'integer', 'multipleOf': r.choice([2, 3, 5, 10])},
        {'type': 'number', 'multipleOf': r.choice([0.5, 0.25, 2]), 'minimum': low}, {'type': 'string', 'maxLength': r.randint(0, 4)}, {'type': 'string', 'minLength': r.randint(0, 3)}, {'maximum': low}, {'minLength': 2},
    ])


def random_object(r, depth):
    schema = {'type': 'object', 'properties': {n: random_schema(r, depth - 1) for n in r.sample('abcd', r.randint(1, 3))}, 'required': [n for n in 'abcde' if r.random() < 0.3]}
    if r.random() < 0.3:
        schema['additionalProperties'] = r.choice([False, True, {'type': 'integer'}])
    if r.random() < 0.2:
        schema['minProperties'] = r.randint(0, 3)
    if r.random() < 0.2:
        schema['maxProperties'] = r.randint(1, 3)
    if r.random() < 0.2:
        schema['dependentRequired'] = {r.choice('abc'): [r.choice('abcd')]}
    if r.random() < 0.3:
        schema['not'] = r.choice([{'required': [r.choice('abc')]}, {'properties': {r.choice('abc'): random_simple(r)}, 'required': ['a']}, {'properties': {r.choice('abc'): random_simple(r)}}])
    if r.random() < 0.3:
        schema.update({'if': {'properties': {r.choice('abc'): random_simple(r)}}, 'then': {'required': [r.choice('abcd')]}, 'else': {'properties': {r.choice('abcd'): random_simple(r)}}})
    return schema


def random_array(r, depth):
    schema = {'type': 'array', 'items': random_schema(r, depth - 1)}
    if r.random() < 0.3:
        schema.update({'items': r.choice([{'enum': ['a', 1, None, 1.0, 'b']}, {'type': 'boolean'}, {'type': 'integer', 'minimum': 0, 'maximum': 3}]), 'uniqueItems': True})
    if r.random() < 0.4:
        schema['minItems'] = r.randint(0, 2)
    if r.random() < 0.4:
        schema['maxItems'] = r.randint(1, 3)
        if r.random() < 0.4 and 'uniqueItems' not in schema:
            schema['contains'] = random_schema(r, depth - 1)
    return schema


def random_schema(r, depth):
    if depth <= 0 or r.random() < 0.25:
        return random_simple(r)
    beside = random_simple(r) if r.random() < 0.5 else {}
    kind = r.choice(['not', 'if', 'anyOf', 'oneOf', 'allOf', 'object', 'object', 'array'])
    if kind == 'object':
        return random_object(r, depth)
    if kind == 'array':
        return random_array(r, depth)
    if kind == 'not':
        return {**beside, 'not': random_schema(r, depth - 1)}
    if kind == 'if':
        return {**beside, **{k: random_schema(r, depth - 1) for k in ('if', 'then', 'else') if k == 'if' or r.random() < 0.8}}
    return {**beside, kind: [random_schema(r, depth - 1) for _ in range(r.randint(1, 3))]}


def random_schemas():
    r = random.Random(1)
    return [random_schema(r, 3) for _ in range(N_RANDOM)]


def exactly(schema):
    """Its numbers as decimals: 0.07 is a multiple of 0.01, though not in doubles."""
    return json.loads(json.dumps(schema), parse_float=decimal.Decimal)


def unique_names(pairs):
    """Names that the schema doesn't know may repeat (nothing remembers what was written); named ones may not."""
    return dict(pairs)


def check(validator, text):
    try:
        value = json.loads(text, object_pairs_hook=unique_names, parse_float=decimal.Decimal)
    except ValueError as error:
        return str(error)
    errors = list(validator.iter_errors(value))
    return errors[0].message if errors else None


def check_format(name, text):
    readers = {'date': datetime.date.fromisoformat, 'time': datetime.time.fromisoformat, 'date-time': datetime.datetime.fromisoformat,
               'uuid': uuid.UUID, 'ipv4': ipaddress.IPv4Address, 'ipv6': ipaddress.IPv6Address, 'uri': urllib.parse.urlsplit}
    patterns = {'duration': r'P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)', 'email': r'[^@ ]+@[^@ ]+[.][^@ ]+', 'hostname': r'[A-Za-z0-9.-]+'}
    try:
        return None if name in readers and readers[name](text) is not None or re.fullmatch(patterns.get(name, '(?!)'), text) else 'no %s' % name
    except ValueError as error:
        return str(error)


def main():
    decimal.getcontext().prec = 300
    groups = {**GROUPS, 'random schemas': random_schemas()}
    print('1..%d' % len(groups))
    try:
        import jsonschema
    except ImportError:
        for number, name in enumerate(groups, 1):
            print('ok %d - %s # SKIP the jsonschema package is not installed' % (number, name))
        return 0
    schemas = [s for group in groups.values() for s in group]
    lines = ''.join(json.dumps({'schema': s, 'n': 12, 'seed': i}) + '\n' for i, s in enumerate(schemas))
    done = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True)
    answers = done.stdout.rstrip('\n').split('\n')  # not at every character that is a line's end to Python
    if len(answers) != len(schemas) or done.returncode != 0:
        print('Bail out! the program ended after %d of %d schemas: %s' % (len(answers), len(schemas), done.stderr[-2000:]))
        return 1
    answers = iter(answers)
    failed = False
    for number, (name, group) in enumerate(groups.items(), 1):
        wrong, n_texts, n_refused = [], 0, 0
        for schema in group:
            answer = json.loads(next(answers))
            if name == 'random schemas' and answer.get('error', '').startswith('#'):
                n_refused += 1
            elif 'error' in answer:
                wrong.append((schema, answer['error'], ''))
            validator = jsonschema.Draft202012Validator(exactly(schema))
            for text in answer['texts']:
                n_texts += 1
                error = check(validator, text) or (check_format(schema['format'], json.loads(text)) if name == 'formats' else None)
                if error:
                    wrong.append((schema, error, text))
        if name == 'random schemas' and len(group) - n_refused < N_RANDOM_COMPILE:
            wrong.append((None, '%d of them were refused' % n_refused, ''))
        failed = failed or bool(wrong)
        print('%sok %d - %s: %d schemas, %d texts' % ('not ' if wrong else '', number, name, len(group), n_texts))
        for schema, error, text in wrong[:20]:
            print('# %s\n#   %s\n#   %r' % (json.dumps(schema), error, text))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
