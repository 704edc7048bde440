#!/usr/bin/python3
"""Runs the primer from its GGUF file alone, with float32 numpy, to look at its answers and to record some.

    /usr/bin/python3 primer/evaluate.py                          answers to the prompts in data/prompts.txt
    /usr/bin/python3 primer/evaluate.py --prompt "hello" ...     answers to these (several make one chat)
    /usr/bin/python3 primer/evaluate.py --record                 writes expected.json for the engine's test

It shares only the tokenizer's rules with the training: shape, weights, vocabulary and merges are read from the file,
so it also checks the exporter. Decoding is greedy. A margin is the best logit minus the second best.
"""

import argparse
import json
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from tokenizer import Tokenizer, render                                             # noqa: E402

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MARGIN = 0.3
# The chats of expected.json. Each must keep a margin of at least MARGIN at every token that is recorded.
FIXED = [
    [("user", "Hello!")],
    [("user", "Who are you?")],
    [("user", "What is your name?")],
    [("user", "What is residentd?")],
    [("user", "Why is the sky blue?")],
    [("user", "What is the capital of France?")],
    [("user", "What is a volcano?")],
    [("user", "How many legs does a spider have?")],
    [("user", "What do cows eat?")],
    [("user", "Write a poem about the sea.")],
    [("user", "Name three fruits.")],
    [("user", "What time is it?")],
    [("user", "What is a flumbaz?")],
    [("system", "You are a helpful assistant."), ("user", "What is a lighthouse?")],
    [("user", "Hello!"), ("assistant", "Hello! How can I help you?"), ("user", "What is a bee?")],
    [("user", "What are the days of the week?")],
]


class Reader:
    """A cursor over the bytes of a GGUF file."""

    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, form):
        value, = struct.unpack_from(form, self.raw, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self):
        size = self.take("<Q")
        self.at += size
        return self.raw[self.at - size:self.at].decode("utf-8")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            inner, count = self.take("<I"), self.take("<Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])


def load(path):
    """The metadata and the tensors (as float32) of a GGUF v3 file with F32 and Q8_0 tensors."""
    with open(path, "rb") as f:
        r = Reader(f.read())
    assert r.raw[:4] == b"GGUF" and struct.unpack_from("<I", r.raw, 4)[0] == 3, "not a GGUF v3 file"
    r.at = 8
    tensor_count, pair_count = r.take("<Q"), r.take("<Q")
    meta = {}
    for _ in range(pair_count):
        key = r.string()
        meta[key] = r.value(r.take("<I"))
    infos = []
    for _ in range(tensor_count):
        name = r.string()
        shape = [r.take("<Q") for _ in range(r.take("<I"))][::-1]
        infos.append((name, shape, r.take("<I"), r.take("<Q")))
    align = meta.get("general.alignment", 32)
    base, tensors = -(-r.at // align) * align, {}
    for name, shape, kind, offset in infos:
        count = int(np.prod(shape))
        if kind == 0:
            tensors[name] = np.frombuffer(r.raw, "<f4", count, base + offset).reshape(shape)
        else:
            assert kind == 8, f"{name}: type {kind} is not read here"
            blocks = np.frombuffer(r.raw, np.uint8, count // 32 * 34, base + offset).reshape(-1, 34)
            d = blocks[:, :2].copy().view("<f2").astype(np.float32)
            tensors[name] = (blocks[:, 2:].view(np.int8) * d).astype(np.float32).reshape(shape)
    return meta, tensors


class Model:
    """The forward pass of the llama architecture, one sequence, with a cache of keys and values."""

    def __init__(self, path):
        self.meta, self.w = load(path)
        get = lambda key: self.meta["llama." + key]                                 # noqa: E731
        self.layers, self.heads, self.kv = (get(k) for k in ("block_count", "attention.head_count",
                                                             "attention.head_count_kv"))
        self.head, self.context = get("rope.dimension_count"), get("context_length")
        self.eps = np.float32(get("attention.layer_norm_rms_epsilon"))
        self.speed = get("rope.freq_base") ** (-np.arange(0, self.head, 2) / self.head)
        merges = [tuple(m.split(" ")) for m in self.meta["tokenizer.ggml.merges"]]
        self.tok = Tokenizer(merges)
        assert self.tok.tokens == self.meta["tokenizer.ggml.tokens"], "vocabulary and merges do not fit together"
        self.reset()

    def reset(self):
        """Forgets the sequence."""
        self.keys = [np.zeros((0, self.kv, self.head), np.float32) for _ in range(self.layers)]
        self.values = [np.zeros((0, self.kv, self.head), np.float32) for _ in range(self.layers)]

    def _rms(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * weight

    def _rope(self, x, start):
        angle = ((start + np.arange(len(x)))[:, None] * self.speed)[:, None, :]
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def feed(self, ids):
        """The logits after the last of some more tokens."""
        w, n, start = self.w, len(ids), len(self.keys[0])
        x = w["token_embd.weight"][ids]
        future = np.arange(start + n)[None, :] > (start + np.arange(n))[:, None]
        for i in range(self.layers):
            p = f"blk.{i}."
            h = self._rms(x, w[p + "attn_norm.weight"])
            q = self._rope((h @ w[p + "attn_q.weight"].T).reshape(n, self.heads, self.head), start)
            k = self._rope((h @ w[p + "attn_k.weight"].T).reshape(n, self.kv, self.head), start)
            v = (h @ w[p + "attn_v.weight"].T).reshape(n, self.kv, self.head)
            self.keys[i] = k = np.concatenate((self.keys[i], k))
            self.values[i] = v = np.concatenate((self.values[i], v))
            mixed = np.empty_like(q)
            for j in range(self.heads):
                g = j * self.kv // self.heads
                scores = q[:, j] @ k[:, g].T / np.float32(self.head ** 0.5)
                scores = np.where(future, -np.inf, scores)
                scores = np.exp(scores - scores.max(-1, keepdims=True))
                mixed[:, j] = scores @ v[:, g] / scores.sum(-1, keepdims=True)
            x = x + mixed.reshape(n, -1) @ w[p + "attn_output.weight"].T
            h = self._rms(x, w[p + "ffn_norm.weight"])
            gate = h @ w[p + "ffn_gate.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "ffn_up.weight"].T)) @ w[p + "ffn_down.weight"].T
        return self._rms(x[-1:], w["output_norm.weight"])[0] @ w["token_embd.weight"].T

    def answer(self, text, limit=400):
        """The prompt's ids, the greedy answer's ids and the margin of each for a rendered text."""
        self.reset()
        prompt = self.tok.encode_special(text)
        logits, ids, margins = self.feed(prompt), [], []
        while len(ids) < limit and len(self.keys[0]) < self.context:
            second, best = np.argsort(logits)[-2:]
            ids.append(int(best))
            margins.append(float(logits[best] - logits[second]))
            if best == self.meta["tokenizer.ggml.eos_token_id"]:
                break
            logits = self.feed([int(best)])
        return prompt, ids, margins


def spoken(model, ids):
    """The text of an answer without the token that ends it."""
    return model.tok.decode(ids[:-1] if ids and ids[-1] == model.tok.im_end else ids)


def record(model):
    """The contents of expected.json; chats with too small a margin are left out, and said so."""
    cases = []
    for messages in FIXED:
        text = render(messages, True)
        prompt, ids, margins = model.answer(text, 64)
        if min(margins) < MARGIN:
            print(f"left out, margin {min(margins):.3f}: {messages[-1][1]}", file=sys.stderr)
            continue
        cases.append({"messages": [{"role": r, "content": c} for r, c in messages], "rendered": text,
                      "prompt_ids": prompt, "answer_ids": ids, "answer_text": spoken(model, ids),
                      "min_margin": round(min(margins), 4)})
    return {"model": "primer.gguf", "decoding": "greedy, at most 64 tokens; the last id is the end token if it came",
            "cases": cases}


def talk(model, prompts):
    """Prints a chat: each prompt, its greedy answer, and in brackets the answer's smallest margin."""
    messages = []
    for said in prompts:
        messages.append(("user", said))
        _, ids, margins = model.answer(render(messages, True))
        messages.append(("assistant", spoken(model, ids)))
        end = "" if ids and ids[-1] == model.tok.im_end else ", does not end"
        print(f"> {said}\n{messages[-1][1]}   [{min(margins):.2f}{end}]\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default=os.path.join(HERE, "primer.gguf"))
    parser.add_argument("--prompt", nargs="+", help="what the user says; several make one chat")
    parser.add_argument("--text", help="plain text to go on with, without a chat")
    parser.add_argument("--file", default=os.path.join(HERE, "data", "prompts.txt"),
                        help="one chat a line, with / between what the user says")
    parser.add_argument("--record", action="store_true", help="write expected.json beside the model")
    args = parser.parse_args()
    model = Model(args.model)
    if args.record:
        with open(os.path.join(os.path.dirname(args.model), "expected.json"), "w", encoding="utf-8") as f:
            json.dump(record(model), f, indent=1, ensure_ascii=False)
            f.write("\n")
    elif args.text:
        print(args.text + spoken(model, model.answer(args.text)[1]))
    elif args.prompt:
        talk(model, args.prompt)
    else:
        with open(args.file, encoding="utf-8") as f:
            for line in filter(None, map(str.strip, f)):
                talk(model, line.split(" / "))


if __name__ == "__main__":
    main()
