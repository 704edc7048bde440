#!/usr/bin/python3
"""Trains the primer: writes the corpus, trains the tokenizer on it, then the model, and saves both.

    /usr/bin/python3 primer/train.py --out build/primer [--tokens 12e6] [--seed 1]

Run by hand when the model is to be rebuilt (docs/primer.md has the order and the minutes); nothing in the build
calls it. Every text is used once. Texts are packed into rows of 256, 512 or 1024 tokens with texts of their own
size; a token sees only its own text and counts positions from that text's start, as at run time. The model learns
from what the assistant says, and from the whole of the plain texts, never from what the user says.
"""

import argparse
import ctypes
import json
import math
import os
import random
import sys
import time

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import generate                                                                     # noqa: E402
from model import SHAPE, loss_of, new_weights, rope_turns                           # noqa: E402
from tokenizer import CONTROLS, Tokenizer, render, train_merges                     # noqa: E402

ROWS = (256, 512, 1024)
BATCH_TOKENS = 8192
TOKENIZER_TEXTS = 20000
PEAK_RATE = 3e-3
WARMUP = 100
DECAY = 0.1


def keep_freed_memory():
    """Stops glibc from giving every large tensor back to the kernel: its page faults cost a third of the time."""
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 2**28)


def matmul_type(name):
    """bfloat16 where oneDNN has AVX-512 kernels for it, else float32 (then install libopenblas0-pthread)."""
    if name != "auto":
        return getattr(torch, name)
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        return torch.bfloat16 if "avx512bw" in f.read() else torch.float32


def encode_document(tok, document):
    """A document's token ids, and for each whether the model learns to say it."""
    ids, learn = [], []
    for role, content in document:
        if role == "text":
            body = tok.encode(content) + [tok.im_end]
            return body, [False] + [True] * (len(body) - 1)
        head = [tok.im_start] + tok.encode(role + "\n")
        body = tok.encode(content) + [tok.im_end]
        tail = tok.encode("\n")
        ids += head + body + tail
        learn += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(tail)
    return ids, learn


def pack(tok, documents):
    """Rows of (ids, learn, text number, position) for each row length; longer texts are left out."""
    full, still_open = {n: [] for n in ROWS}, {n: [] for n in ROWS}
    for document in documents:
        ids, learn = encode_document(tok, document)
        size = next((n for n in ROWS if len(ids) <= n), None)
        if size is None:
            continue
        row = next((r for r in still_open[size] if len(r[0]) + len(ids) <= size), None)
        if row is None:
            if len(still_open[size]) == 8:
                longest = max(still_open[size], key=lambda r: len(r[0]))
                still_open[size].remove(longest)
                full[size].append(longest)
            row = ([], [], [], [])
            still_open[size].append(row)
        number = row[2][-1] + 1 if row[2] else 1
        for part, more in zip(row, (ids, learn, [number] * len(ids), range(len(ids)))):
            part.extend(more)
    for size in ROWS:
        full[size] += still_open[size]
    return full


def to_arrays(rows, size, pad):
    """The rows as four arrays; the rest of a row is text 0, which nothing looks at."""
    out = [np.full((len(rows), size), pad, np.int16), np.zeros((len(rows), size), bool),
           np.zeros((len(rows), size), np.int16), np.zeros((len(rows), size), np.int16)]
    for i, row in enumerate(rows):
        for array, part in zip(out, row):
            array[i, :len(part)] = part
    return out


def make_batch(arrays, pick, turns):
    """The tensors of one step from the chosen rows."""
    ids, learn, number, position = (torch.from_numpy(a[pick]) for a in arrays)
    ids, number, position = ids.long(), number.long(), position.long()
    length = ids.shape[1]
    sees = (number[:, :, None] == number[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(sees.shape).masked_fill_(~sees, -1e4)[:, None]
    where = torch.nonzero((learn[:, 1:] & (position[:, 1:] > 0)).flatten()).flatten()
    row, column = where // (length - 1), where % (length - 1)
    return {"ids": ids, "mask": mask, "turns": turns[position][:, :, None], "where": row * length + column,
            "next": ids[row, column + 1]}


def corpus(seed, tokens):
    """The tokenizer and the packed rows of about `tokens` tokens of text."""
    start, rng = time.time(), random.Random(seed)
    documents = [generate.document(rng) for _ in range(TOKENIZER_TEXTS)]
    texts = [content for d in documents for _, content in d] + [render([("system", ""), ("user", "")], True)]
    tok = Tokenizer(train_merges(texts, SHAPE["vocab"] - 256 - len(CONTROLS)))
    count = 0
    for document in documents:
        count += len(encode_document(tok, document)[0])
    wanted = int(tokens / count * len(documents))
    documents += [generate.document(rng) for _ in range(wanted - len(documents))]
    arrays = {n: to_arrays(rows, n, tok.endoftext) for n, rows in pack(tok, documents[:wanted]).items()}
    held = sum(int((a[2] > 0).sum()) for a in arrays.values())
    learned = sum(int(a[1].sum()) for a in arrays.values())
    print(f"corpus: {wanted} texts, {held} tokens ({learned} learned), rows "
          f"{ {n: len(a[0]) for n, a in arrays.items()} }, {time.time() - start:.0f} s", flush=True)
    return tok, arrays


def plan_steps(arrays, seed):
    """All steps in random order, each a (row length, row numbers)."""
    rng, steps = np.random.default_rng(seed), []
    for size, parts in arrays.items():
        order, each = rng.permutation(len(parts[0])), BATCH_TOKENS // size
        steps += [(size, order[i:i + each]) for i in range(0, len(order) - each + 1, each)]
    return [steps[i] for i in rng.permutation(len(steps))]


def train(tok, arrays, args, dtype):
    """Trains on every row once and returns the weights."""
    weights = {k: v.requires_grad_() for k, v in new_weights(SHAPE, args.seed).items()}
    groups = [{"params": [v for v in weights.values() if v.dim() == 2], "weight_decay": DECAY},
              {"params": [v for v in weights.values() if v.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), eps=1e-9)
    turns, steps = rope_turns(SHAPE), plan_steps(arrays, args.seed)
    start, recent = time.time(), []
    for i, (size, pick) in enumerate(steps):
        rate = min((i + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * i / len(steps))) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate
        loss = loss_of(weights, SHAPE, make_batch(arrays[size], pick, turns), dtype)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (i + 1) % 50 == 0 or i + 1 == len(steps):
            spent = time.time() - start
            print(f"step {i + 1}/{len(steps)} loss {sum(recent) / len(recent):.4f} "
                  f"{(i + 1) * BATCH_TOKENS / spent:.0f} tokens/s {spent:.0f} s", flush=True)
            recent = []
        if (i + 1) % 500 == 0:
            save(tok, weights, args.out)
    save(tok, weights, args.out)


def save(tok, weights, folder):
    """Writes the weights and the merges, whole or not at all."""
    part = os.path.join(folder, "weights.part")
    np.savez(part + ".npz", **{k: v.detach().numpy() for k, v in weights.items()})
    os.replace(part + ".npz", os.path.join(folder, "weights.npz"))
    with open(os.path.join(folder, "merges.json"), "w", encoding="utf-8") as f:
        json.dump(tok.merges, f, ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", default="build/primer", help="folder for weights.npz and merges.json")
    parser.add_argument("--tokens", type=float, default=12e6, help="size of the corpus in tokens")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--type", default="auto", choices=("auto", "bfloat16", "float32"))
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    tok, arrays = corpus(args.seed, args.tokens)
    train(tok, arrays, args, matmul_type(args.type))


if __name__ == "__main__":
    main()
