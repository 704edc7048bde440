#!/usr/bin/env python3
"""Writes the seed corpus of a fuzz target: seeds.py NAME FOLDER. One function a target; returns the seeds as bytes."""
import math
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
    hello = struct.pack('<IIII', 0x6b777372, 6, 0, 0) + b'0.1.0'
    piece = struct.pack('<QIIIiq', 7, 2, 2, 1, -1, -1) + b'hi{}'
    step = struct.pack('<QQIIIIIIIIII', 1, 2, 2, 1, 1, 0, 3, 4, 5, 6, 7, 0) + struct.pack('<IIQII', 9, 1, 100, 3, 1) + piece + piece
    q = lambda *numbers: struct.pack('<%dQ' % len(numbers), *numbers)
    return [
        packet(0, 0, 1, hello, bits=0x80), packet(1, 0, 1, hello), packet(0, 3, 11, hello, epoch=6),
        packet(0, 1, 2, q(0) + b'{"name":"m"}', fds=1), packet(0, 3, 3, q(2)), packet(0, 3, 4, struct.pack('<IIQIIQ', 1, 100, 0, 0, 0, 99)),
        packet(0, 3, 5, struct.pack('<QIiQII', 1, 2, 3, 4, 0, 0) + b'{"prompt":"x"}'), packet(0, 3, 6, q(1)), packet(0, 3, 7, q(0)),
        packet(0, 3, 9, q(1)), packet(0, 3, 10, q(0)), packet(0, 3, 12, q(1)), packet(1, 2, 13, q(0) + b'{}'), packet(1, 2, 14, q(1, 2)),
        packet(1, 2, 15, q(0) + b'{}'), packet(1, 3, 16, step), packet(1, 3, 17, q(1, 0, 5, 0, 5, 1, 1, 1)), packet(1, 3, 18, q(0) + b'{}'),
        packet(1, 3, 19, struct.pack('<IIQ', 6, 0, 0) + b'text'), packet(1, 3, 20, q(1, 2, 3)),
        packet(1, 3, 21, q(4, 1, 99, 5, 6, 0, 7, 8)), packet(1, 3, 22, q(0) + b'{"gpus":[]}'),
        packet(0, 1, 2, q(0) + b'{"look":true}'),
    ]


def varlink():
    root = pathlib.Path(__file__).resolve().parents[2]
    texts = [b'I' + path.read_bytes() for path in sorted((root / 'client/varlink').glob('*.varlink'))]
    return texts + [
        b'Iinterface a.b\n# [Requires \'more\' flag]\nmethod M(a: ?[][string]?(b: T), c: (x, y)) -> ()\ntype T (t: ?T)\nerror E ()\n',
        *[bytes([n]) + b'\0'.join(calls()) + b'\0' for n in (1, 7, 255)],
    ]


def calls():
    inference, models, usage = (b'io.residentd.' + name for name in (b'Inference.', b'Models.', b'Usage.'))
    call = lambda method, parameters=b'{}', rest=b'': b'{"method":"' + method + b'","parameters":' + parameters + rest + b'}'
    return [
        call(b'org.varlink.service.GetInfo'),
        call(b'org.varlink.service.GetInterfaceDescription', b'{"interface":"io.residentd"}'),
        call(inference + b'ListModels', b'null'),
        call(inference + b'Complete', b'{"model":"tiny","prompt":"x","temperature":0.5,"stop":["a"],"seed":null}', b',"more":true'),
        call(inference + b'Complete', b'{"model":"tiny","prompt_tokens":[1,2],"logit_bias":{"5":-1}}', b',"oneway":true'),
        call(inference + b'Chat', b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"tools":[{}]}', b',"more":true'),
        call(inference + b'Tokenize', b'{"model":"tiny","text":"a"}'),
        call(inference + b'Detokenize', b'{"model":"tiny","tokens":[1]}'),
        call(models + b'Load', b'{"model":"tiny"}', b',"more":true'), call(models + b'Unload', b'{"model":"tiny"}'),
        call(models + b'Status'), call(models + b'Watch'), call(usage + b'Requests', b'{"uid":-1}'),
        call(usage + b'Cancel', b'{"request":1}'), b'[', b'{"method":7}', b'',
    ]


def session():
    """The head byte of a piece: what happens before in its upper half, how many bytes follow in its lower one (0: all)."""
    every = calls()
    seeds = [bytes([0]) + c + b'\0' for c in every]
    seeds += [bytes([0]) + b'\0'.join(every) + b'\0', bytes([0x80]) + (every[3] + b'\0') * 6]
    for then in range(16):
        seeds.append(b''.join(bytes([8]) + (every[3] + b'\0')[i:i + 8] for i in range(0, len(every[3]) + 1, 8))
                     + bytes([0x11, 0x20, then << 4, 0x20]))
    return seeds


def chat():
    return [
        b"{{ '{} {0!r} {x}{{'.format(1, x=2) }}{{ '%s %d%%' % ('a', 1) }}{{ '%r' | format(none) }}{{ 'a=b'.partition('=') }}{{ '<'|safe + '&' }}",
        b"{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}{% if add_generation_prompt %}x{% endif %}",
        b"{%- set ns = namespace(a=0) -%}{% for i in range(3) if i %}{% set ns.a = ns.a + loop.index %}{% endfor %}{{ ns.a }}",
        b"{% macro f(a, b=1) %}[{{ a }}{{ caller() }}]{% endmacro %}{% call f(2) %}x{% endcall %}{{ [1,2,3][::-1] | tojson(indent=2) }}",
        b"{% raw %}{{{% endraw %}{# c #}{{ 'a' ~ 1 if n is odd else none }}{{ messages | map(attribute='role') | list | join(',') }}",
        b"{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ '%d' }}{{ strftime_now('%d %b') }}{{ 'a-b'.split('-') }}",
        b"{% filter upper %}a{% endfilter %}{% set x %}b{% endset %}{% with y = 2 %}{{ x ~ y }}{% endwith %}{{ {'a': (1,), 'b': 2 ** 3 // 4 % 5} }}",
        b"{% for a, b in [[1, 2]] %}{% if a > b %}{% break %}{% elif not a %}{% continue %}{% else %}{{ raise_exception('x') }}{% endif %}{% endfor %}",
    ]


# Types of GGUF values, and the pieces of a file.
u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 = range(13)
NUMBERS = {u8: 'B', i8: 'b', u16: 'H', i16: 'h', u32: 'I', i32: 'i', f32: 'f', boolean: 'B', u64: 'Q', i64: 'q', f64: 'd'}


def text(s):
    return struct.pack('<Q', len(s)) + s


def value(kind, v):
    return text(v) if kind == string else struct.pack('<' + NUMBERS[kind], v)


def key(name, kind, v):
    return text(name) + struct.pack('<I', kind) + value(kind, v)


def keys(name, kind, v):
    return text(name) + struct.pack('<IIQ', array, kind, len(v)) + b''.join(value(kind, x) for x in v)


def tensor(name, dims, kind, at):
    return text(name) + struct.pack('<I%dQIQ' % len(dims), len(dims), *dims, kind, at)


def pad(b, n):
    return b + bytes(-len(b) % n)


def file(metadata, tensors=(), data=b'', version=3, alignment=32):
    head = b'GGUF' + struct.pack('<IQQ', version, len(tensors), len(metadata)) + b''.join(metadata) + b''.join(tensors)
    return pad(head, alignment) + data if tensors else head


def gguf():
    """Key types by name; a vocabulary of each kind, split parts, and one file for each thing that can be wrong."""
    t = b'tokenizer.ggml.'
    hexes = [b'<0x%02X>' % b for b in range(256)]
    words = [b'\xe2\x96\x81', b'a', b'b', b'\xe2\x96\x81a', b'\xe2\x96\x81ab', b'ab', b'<|im_end|>', b'<x>']
    spm = [key(t + b'model', string, b'llama'), keys(t + b'tokens', string, [b'<unk>', b'<s>', b'</s>'] + hexes + words),
           keys(t + b'scores', f32, [0.0] * 259 + [-float(i) for i in range(8)]),
           keys(t + b'token_type', i32, [2, 3, 3] + [6] * 256 + [1] * 6 + [3, 4]), key(t + b'add_space_prefix', boolean, 1)]
    spell = lambda b: chr(b if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174 else
                          256 + b if b <= 32 else 0x121 + b - 127 if b <= 160 else 0x143).encode()
    bpe = [key(t + b'model', string, b'gpt2'), keys(t + b'merges', string, [b'a b', spell(32) + b' ab', b'ab c', b'x  y']),
           keys(t + b'tokens', string, [spell(b) for b in range(256)] + [b'ab', spell(32) + b'ab', b'abc', b'<|eot_id|>', b'<tool>']),
           keys(t + b'token_type', i32, [1] * 259 + [3, 4]), key(t + b'bos_token_id', u32, 259), key(t + b'add_eos_token', boolean, 1)]
    ends = [key(t + b'unknown_token_id', u32, 1), key(t + b'bos_token_id', u32, 2), key(t + b'seperator_token_id', u32, 0)]
    wpm = [key(t + b'model', string, b'bert'), keys(t + b'tokens', string, [b'</s>', b'<unk>', b'<s>'] + words[:6]),
           keys(t + b'token_type', i32, [3, 2, 3] + [1] * 6)] + ends
    units = [256 << 10] + [0] * 511
    units[256 ^ 65], units[128], units[128 ^ 65], units[130] = 65 | 256 | (128 ^ 65 ^ 256) << 10, 1 << 31, 65 | 256 | (128 ^ 65 ^ 65 ^ 130) << 10, 1 << 31 | 2
    charsmap = struct.pack('<I512I', 2048, *units) + b'a\0b\0'
    ugm = [key(t + b'model', string, b't5'), keys(t + b'tokens', string, [b'</s>', b'<unk>', b'<s>'] + words[:6]),
           keys(t + b'token_type', i32, [3, 2, 3] + [1] * 6), keys(t + b'scores', f32, [0.0] * 3 + [-1.5 * i for i in range(6)]),
           keys(t + b'precompiled_charsmap', u8, list(charsmap)), key(t + b'add_space_prefix', boolean, 1)] + ends
    raw = [key(t + b'model', string, b'gemma4'), keys(t + b'merges', string, [words[0] + b' a', b'a b']),
           keys(t + b'tokens', string, [b'<unk>', b'<s>', b'</s>'] + hexes + words), keys(t + b'token_type', i32, [2, 3, 3] + [6] * 256 + [1] * 6 + [3, 4])]
    pre = [b'default', b'gpt-2', b'llama-bpe', b'qwen2', b'deepseek-llm', b'deepseek-coder', b'deepseek-v3', b'falcon', b'starcoder']
    part = lambda i: [key(b'split.no', u16, i), key(b'split.count', u16, 2), key(b'split.tensors.count', i32, 2)]
    scalars = [key(b'k%d' % k, k, 1) for k in NUMBERS] + [key(b's', string, b'text')]
    arrays = [keys(b'a%d' % k, k, [0, 1]) for k in NUMBERS] + [keys(b'as', string, [b'', b'x'])]
    two = [tensor(b'a', [4, 2], 0, 0), tensor(b'b', [256], 12, 32)]
    return [
        file([]), file([], version=2), file([], version=1), file([], version=0x3000000), file(scalars + arrays), file(spm), file(bpe),
        file(wpm) + b'ab Ab \xc3\xa9! \xea\xb0\x80', file(ugm) + b'AA ab A\xff b', file(raw) + b'ab  a\n\n\xc3\xa9',
        file([key(b'general.architecture', string, b'llama')], two, bytes(32 + 144)),
        file([key(b'general.alignment', u32, 64)], [tensor(b'a', [1] * 4, 1, 64)], bytes(66), alignment=64),
        file(part(0), [two[0]], bytes(32)) + file(part(1), [tensor(b'b', [256], 12, 0)], bytes(144)),
        file([key(b'general.alignment', u32, 3)]), file([key(b'x', u32, 1)] * 2), file([], [two[0]] * 2, bytes(64)),
        file([], [tensor(b'a', [1 << 32, 1 << 32], 0, 0)], bytes(32)), file([], [tensor(b'a', [8], 0, 1 << 63)], bytes(32)),
        file([text(b'x') + struct.pack('<IIQ', array, array, 1) + struct.pack('<IQ', u8, 0)]),
    ] + [file(bpe + [key(t + b'pre', string, name)]) + b" I'll 123 \xe4\xbd\xa0\xe5\xa5\xbd\n\n  ab <|eot_id|> <tool>" for name in pre]


def model():
    """Small llama models that load and compute: float and quantised, tied, scaled; a fuzzer changes them from there."""
    def llama(kind=0, tied=False, more=(), extra=()):
        prefix, dim, ff, vocab = b'llama.', 32, 32, 6
        numbers = {b'block_count': 1, b'embedding_length': dim, b'context_length': 64, b'feed_forward_length': ff,
                   b'attention.head_count': 4, b'attention.head_count_kv': 2, b'rope.dimension_count': 8}
        metadata = [key(b'general.architecture', string, b'llama')] + [key(prefix + k, u32, v) for k, v in numbers.items()]
        metadata += [key(prefix + b'attention.layer_norm_rms_epsilon', f32, 1e-5)] + [key(prefix + k, t, v) for k, t, v in more]
        shapes = [(b'token_embd.weight', (dim, vocab)), (b'output_norm.weight', (dim,))] + list(extra)
        shapes += [] if tied else [(b'output.weight', (dim, vocab))]
        shapes += [(b'blk.0.' + n + b'.weight', s) for n, s in (
            (b'attn_norm', (dim,)), (b'attn_q', (dim, dim)), (b'attn_k', (dim, 16)), (b'attn_v', (dim, 16)),
            (b'attn_output', (dim, dim)), (b'ffn_norm', (dim,)), (b'ffn_gate', (dim, ff)), (b'ffn_up', (dim, ff)),
            (b'ffn_down', (ff, dim)))]
        return written(metadata, shapes, kind)

    def written(metadata, shapes, kind):
        tensors, data = [], b''
        for number, (name, dims) in enumerate(shapes):
            n, of = math.prod(dims), kind if len(dims) > 1 and dims[0] % 32 == 0 else 0
            # Q4_0, Q8_0: a scale of 0.01 and what comes; floats: small multiples of 1 / 64.
            bits = bytes((i * 37 + number * 11) % 251 for i in range(32))
            data = pad(data, 32)
            tensors.append(tensor(name, dims, of, len(data)))
            if of == 0:
                lowest = 1 if name == b'rope_freqs.weight' else -8
                data += struct.pack('<%df' % n, *((bits[i % 32] % 17 + lowest) / 64 for i in range(n)))
            else:
                data += (struct.pack('<e', 0.01) + bits[:{2: 16, 8: 32}[of]]) * (n // 32)
        return file(metadata, tensors, pad(data, 32))

    def deepseek2(apart, q_rank=0, kind=0):
        """Two layers, the first dense, the second with 4 experts in 2 groups."""
        dim, rank, nope, rot, v, heads, ff, vocab = 32, 32, 8, 4, 8, 2, 32, 6
        numbers = {b'block_count': 2, b'embedding_length': dim, b'context_length': 64, b'feed_forward_length': ff,
                   b'attention.head_count': heads, b'attention.head_count_kv': 1 if apart else heads, b'rope.dimension_count': rot,
                   b'attention.key_length': rank + rot if apart else nope + rot, b'attention.value_length': rank if apart else v,
                   b'attention.kv_lora_rank': rank, b'leading_dense_block_count': 1, b'expert_count': 4, b'expert_used_count': 2,
                   b'expert_feed_forward_length': ff, b'expert_shared_count': 1, b'expert_group_count': 2,
                   b'expert_group_used_count': 1, b'expert_gating_func': 2}
        numbers |= {b'attention.q_lora_rank': q_rank} if q_rank else {}
        numbers |= {b'attention.key_length_mla': nope + rot, b'attention.value_length_mla': v} if apart else {}
        metadata = [key(b'general.architecture', string, b'deepseek2')] + [key(b'deepseek2.' + k, u32, n) for k, n in numbers.items()]
        metadata += [key(b'deepseek2.attention.layer_norm_rms_epsilon', f32, 1e-5)]
        shapes = [(b'token_embd.weight', (dim, vocab)), (b'output_norm.weight', (dim,))]
        q = ((b'attn_q_a', (dim, q_rank)), (b'attn_q_a_norm', (q_rank,)), (b'attn_q_b', (q_rank, heads * (nope + rot)))) if q_rank else (
            (b'attn_q', (dim, heads * (nope + rot))),)
        kv = ((b'attn_k_b', (nope, rank, heads)), (b'attn_v_b', (rank, v, heads))) if apart else ((b'attn_kv_b', (rank, heads * (nope + v))),)
        dense = ((b'ffn_gate', (dim, ff)), (b'ffn_up', (dim, ff)), (b'ffn_down', (ff, dim)))
        experts = ((b'ffn_gate_inp', (dim, 4)),) + tuple((n + b'_exps', s + (4,)) for n, s in dense) + tuple((n + b'_shexp', s) for n, s in dense)
        for layer in range(2):
            shapes += [(b'blk.%d.' % layer + n + b'.weight', s) for n, s in (
                (b'attn_norm', (dim,)), *q, (b'attn_kv_a_mqa', (dim, rank + rot)), (b'attn_kv_a_norm', (rank,)), *kv,
                (b'attn_output', (heads * v, dim)), (b'ffn_norm', (dim,)), *(experts if layer else dense))]
        return written(metadata, shapes + [(b'blk.1.exp_probs_b.bias', (4,))], kind)

    def adapter(architecture, names, rank=4, alpha=8.0):
        """names: matrices with their columns and rows, and how many experts have one."""
        metadata = [key(b'general.type', string, b'adapter'), key(b'adapter.type', string, b'lora'),
                    key(b'general.architecture', string, architecture), key(b'adapter.lora.alpha', f32, alpha)]
        return written(metadata, [t for n, k, m, *e in names for t in ((n + b'.lora_a', (k, rank, *e)), (n + b'.lora_b', (rank, m, *e)))], 0)

    dense = [(b'blk.0.attn_q.weight', 32, 32), (b'blk.0.attn_v.weight', 32, 16), (b'blk.0.ffn_up.weight', 32, 32), (b'output.weight', 32, 6)]
    scaling = lambda kind: ((b'rope.scaling.type', string, kind), (b'rope.scaling.factor', f32, 4.0),
                            (b'rope.scaling.original_context_length', u32, 16))
    return [llama(), llama(2), llama(8, tied=True), llama(2, more=scaling(b'linear')), llama(2, more=scaling(b'yarn')),
            llama(2, extra=((b'rope_freqs.weight', (4,)),)), llama(2, more=((b'expert_count', u32, 2),)),
            llama(2, more=((b'attention.key_length', u32, 8), (b'attention.value_length', u32, 8), (b'rope.freq_base', f32, 1e6))),
            deepseek2(False), deepseek2(True), deepseek2(True, q_rank=32, kind=8), llama() + adapter(b'llama', dense),
            llama(2) + adapter(b'llama', dense[:1], rank=32), deepseek2(False) + adapter(b'deepseek2', [(b'blk.1.attn_kv_b.weight', 32, 32)]),
            deepseek2(True) + adapter(b'deepseek2', [(b'blk.1.ffn_up_exps.weight', 32, 32, 4), (b'blk.1.ffn_down_exps.weight', 32, 32, 4)])]


def grammar():
    import importlib.util
    import json as jsons
    path = pathlib.Path(__file__).resolve().parents[1] / 'unit/grammar/check-jsonschema.py'
    spec = importlib.util.spec_from_file_location('check_jsonschema', path)
    schemas = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schemas)
    texts = [
        'root ::= "a"', 'root ::= [a-z]{3,20} | .+ "x"?', 'root ::= "(" root ")" | ""', 'root ::= a b c\na ::= "a"*\nb ::= [^\\x00-\\x1F"\\\\]* # c\nc ::= "\\u20ac"?\n',
        'root ::= s\ns ::= "a" s s | "b"', 'root ::= (("a" | "b"){2,} [\\U0001F600-\\U0001F64F])+', 'root ::= root "x" | "y"', 'root ::= "a" | \n\n  ("b" \n "c")', 'root ::= x{1000000000}\nx ::= ""',
    ]
    return [b'G' + t.encode() for t in texts] + [b'S' + jsons.dumps(s).encode() for group in schemas.GROUPS.values() for s in group]


def snapshot():
    import json as jsons
    file = {'device': 1, 'inode': 2, 'bytes': 3, 'mtime_ns': 4, 'ctime_ns': 5}
    model = {'name': 'm', 'pin': 1, 'loading': '{}', 'link': 7, 'copies': 8, 'pid': 9, 'uid': 61184, 'granted': 10, 'kv': 11, 'scratch': 12,
             'files': [file, file]}
    return [jsons.dumps({'epoch': 5, 'next_id': 9, 'mark_key': [1, 2, 3, 4], 'starts': starts, 'models': models}).encode()
            for starts, models in (([], []), ([1, 2], [{'name': 'n', 'pin': 0}]), ([3], [model, model]))]


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    for i, seed in enumerate(globals()[name.replace('-', '_')]()):
        (folder / ('seed-%03d' % i)).write_bytes(seed)


if __name__ == '__main__':
    main()
