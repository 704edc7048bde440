#!/usr/bin/python3
"""Writes the trained primer as one GGUF v3 file: matrices in Q8_0, norms in F32, vocabulary and chat template.

    /usr/bin/python3 primer/export.py --from build/primer --to primer/primer.gguf

The bytes depend on the weights and merges alone. Q8_0 is rounded as the format's reference does it: per 32 values
d = max|x| / 127, stored as float16, and x / d with the unrounded d, halves away from zero.
"""

import argparse
import json
import os
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tokenizer import CONTROLS, Tokenizer                                           # noqa: E402

SHAPE = {"dim": 256, "layers": 4, "heads": 4, "kv_heads": 2, "head": 64, "ff": 512, "vocab": 4096,
         "context": 1024, "rope_base": 10000.0, "eps": 1e-5}
ALIGNMENT = 32
LIMIT = 4_000_000
UINT32, FLOAT32, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5
TYPE_F32, TYPE_Q8_0 = 0, 8
FILE_TYPE_Q8_0 = 7
TEMPLATE = ("{% for message in messages %}"
            "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
            "{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def _string(text):
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(kind, value):
    if kind == STRING:
        return _string(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def pair(key, kind, value):
    """One metadata entry; a list becomes an array of `kind`."""
    if isinstance(value, list):
        return (_string(key) + struct.pack("<IIQ", ARRAY, kind, len(value))
                + b"".join(_value(kind, v) for v in value))
    return _string(key) + struct.pack("<I", kind) + _value(kind, value)


def quantize_q8_0(matrix):
    """The bytes of a float32 matrix in Q8_0, row by row."""
    blocks = np.ascontiguousarray(matrix, np.float32).reshape(-1, 32)
    d = np.abs(blocks).max(1) / np.float32(127)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d > 0)
    scaled = blocks * inverse[:, None]
    quants = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled).astype(np.int8)
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = d.astype("<f2").view(np.uint8).reshape(-1, 2)
    out[:, 2:] = quants.view(np.uint8)
    return out.tobytes()


def metadata(tok, weights, shape):
    """All metadata entries in the order of the file."""
    control = len(tok.tokens) - len(CONTROLS)
    assert weights["token_embd.weight"].shape == (len(tok.tokens), shape["dim"])
    return [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "Primer"),
        pair("general.description", STRING, "The small chat model that comes with residentd: short simple stories, "
             "everyday questions, small talk. Trained from nothing on text written by the project's own generator."),
        pair("general.license", STRING, "LGPL-2.1-or-later"),
        pair("general.size_label", STRING, "2.9M"),
        pair("general.languages", STRING, ["en"]),
        pair("general.file_type", UINT32, FILE_TYPE_Q8_0),
        pair("general.quantization_version", UINT32, 2),
        pair("general.alignment", UINT32, ALIGNMENT),
        pair("llama.context_length", UINT32, shape["context"]),
        pair("llama.embedding_length", UINT32, shape["dim"]),
        pair("llama.block_count", UINT32, shape["layers"]),
        pair("llama.feed_forward_length", UINT32, shape["ff"]),
        pair("llama.attention.head_count", UINT32, shape["heads"]),
        pair("llama.attention.head_count_kv", UINT32, shape["kv_heads"]),
        pair("llama.attention.layer_norm_rms_epsilon", FLOAT32, shape["eps"]),
        pair("llama.rope.dimension_count", UINT32, shape["head"]),
        pair("llama.rope.freq_base", FLOAT32, shape["rope_base"]),
        pair("llama.vocab_size", UINT32, len(tok.tokens)),
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, "gpt-2"),
        pair("tokenizer.ggml.tokens", STRING, tok.tokens),
        pair("tokenizer.ggml.token_type", INT32, [1] * control + [3] * len(CONTROLS)),
        pair("tokenizer.ggml.merges", STRING, [f"{a} {b}" for a, b in tok.merges]),
        pair("tokenizer.ggml.bos_token_id", UINT32, tok.endoftext),
        pair("tokenizer.ggml.eos_token_id", UINT32, tok.im_end),
        pair("tokenizer.ggml.padding_token_id", UINT32, tok.endoftext),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
        pair("tokenizer.ggml.add_eos_token", BOOL, False),
        pair("tokenizer.chat_template", STRING, TEMPLATE)]


def tensor_order(name):
    """Embedding first, then the layers in order, then the output norm."""
    parts = name.split(".")
    return (1, int(parts[1]), name) if parts[0] == "blk" else (0 if parts[0] == "token_embd" else 2, 0, name)


def gguf(tok, weights, shape):
    """The whole file as bytes."""
    entries, infos, data = metadata(tok, weights, shape), [], bytearray()
    for name in sorted(weights, key=tensor_order):
        value = weights[name]
        kind = TYPE_Q8_0 if value.ndim == 2 else TYPE_F32
        raw = quantize_q8_0(value) if value.ndim == 2 else value.astype("<f4").tobytes()
        infos.append(_string(name) + struct.pack("<I", value.ndim)
                     + b"".join(struct.pack("<Q", n) for n in reversed(value.shape))
                     + struct.pack("<IQ", kind, len(data)))
        data += raw + bytes(-len(raw) % ALIGNMENT)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % ALIGNMENT) + bytes(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--from", dest="source", default="build/primer", help="folder that train.py wrote")
    parser.add_argument("--to", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "primer.gguf"))
    args = parser.parse_args()
    with open(os.path.join(args.source, "merges.json"), encoding="utf-8") as f:
        tok = Tokenizer(json.load(f))
    with np.load(os.path.join(args.source, "weights.npz")) as file:
        weights = {k: file[k] for k in file.files}
    raw = gguf(tok, weights, SHAPE)
    if len(raw) > LIMIT:
        sys.exit(f"{len(raw)} bytes: more than the {LIMIT} that the repository takes")
    with open(args.to, "wb") as f:
        f.write(raw)
    print(f"{args.to}: {len(raw)} bytes, {len(weights)} tensors, {len(tok.tokens)} tokens")


if __name__ == "__main__":
    main()
