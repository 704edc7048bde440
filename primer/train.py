#!/usr/bin/python3
"""Trains the primer: trains the tokenizer on the generator's text, then the model, and saves both.

    /usr/bin/python3 primer/train.py --out build/primer [--steps 1800] [--minutes 55] [--seed 1]

Run by hand when the model is to be rebuilt (docs/primer.md has the order and the minutes); nothing in the build
calls it. Every text is used once. Texts are packed into rows of 256 or 512 tokens; a token sees only its own text and
counts positions from that text's start, as at run time. The model learns from what the assistant says, and from the
whole of the plain texts, never from what the user says.

Matrices are trained with Muon (momentum made orthogonal, K. Jordan 2024), the embedding and the norms with Adam. The
rate falls to zero at the end of the steps or of the minutes, whichever comes first. Two threads each compute the
gradient of half a batch: they meet once a step, where two threads inside each operation would meet thousands of
times. Every few minutes all is saved; the same command goes on from there.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"            # before numpy and torch load

import argparse                                                                     # noqa: E402
import ctypes                                                                       # noqa: E402
import json                                                                         # noqa: E402
import random                                                                       # noqa: E402
import sys                                                                          # noqa: E402
import time                                                                         # noqa: E402
from concurrent.futures import ThreadPoolExecutor                                   # noqa: E402

import numpy as np                                                                  # noqa: E402
import torch                                                                        # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import copying                                                                      # noqa: E402
import generate                                                                     # noqa: E402
from export import SHAPE                                                            # noqa: E402
from model import loss_of, new_weights, rope_turns                                  # noqa: E402
from tokenizer import CONTROLS, Tokenizer, render, train_merges                     # noqa: E402

ROWS = (256, 512)
THREADS = 2
PART_TOKENS = 2048                      # tokens of one thread's share of a step
TOKENIZER_TEXTS = 4000
CHUNK_TEXTS = 2000                      # texts that are packed and shuffled together
COPYING = (0.4, 0.03, 12)               # the share of exercises in looking back: at first, later, from this chunk on
MUON_RATE, ADAM_RATE = 0.02, 4e-3
WARMUP_STEPS = 30
DECAY_FROM = 0.72                       # the share of the run after which the rate begins to fall
SAVE_SECONDS = 240


def keep_freed_memory():
    """Stops glibc from giving every large tensor back to the kernel: its page faults cost a third of the time."""
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
    libc.mallopt(m_arena_max, 1)
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 2**28)


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
    rows = {n: [] for n in reversed(ROWS)}
    for ids, learn in sorted((encode_document(tok, d) for d in documents), key=lambda x: -len(x[0])):
        if len(ids) > max(ROWS):
            continue
        row = next((r for n in rows for r in rows[n] if len(r[0]) + len(ids) <= n), None)
        if row is None:
            row = ([], [], [], [])
            rows[next(n for n in ROWS if len(ids) <= n)].append(row)
        number = row[2][-1] + 1 if row[2] else 1
        for part, more in zip(row, (ids, learn, [number] * len(ids), range(len(ids)))):
            part.extend(more)
    return rows


def to_arrays(rows, size, pad):
    """The rows as four arrays; the rest of a row is text 0, which nothing looks at."""
    out = [np.full((len(rows), size), pad, np.int64), np.zeros((len(rows), size), bool),
           np.zeros((len(rows), size), np.int64), np.zeros((len(rows), size), np.int64)]
    for i, row in enumerate(rows):
        for array, part in zip(out, row):
            array[i, :len(part)] = part
    return out


def document(rng, chunk):
    """The next document of a chunk: the exercises come first, and few of them later."""
    first, later, until = COPYING
    share = max(later, first + (later - first) * chunk / until)
    return copying.document(rng) if rng.random() < share else generate.document(rng)


def parts_of(tok, seed, done):
    """The shares of the threads, without end; `done` chunks of the text were used before."""
    number = done
    while True:
        rng = random.Random(f"{seed} chunk {number}")
        parts = []
        for size, rows in pack(tok, [document(rng, number) for _ in range(CHUNK_TEXTS)]).items():
            rng.shuffle(rows)
            each = PART_TOKENS // size
            parts += [to_arrays(rows[i:i + each], size, tok.endoftext) for i in range(0, len(rows), each)]
        rng.shuffle(parts)
        number += 1
        for part in parts:
            yield number, part


def make_batch(arrays, turns):
    """The tensors of one thread's share."""
    ids, learn, number, position = map(torch.from_numpy, arrays)
    length = ids.shape[1]
    sees = (number[:, :, None] == number[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    where = torch.nonzero((learn[:, 1:] & (position[:, 1:] > 0)).flatten()).flatten()
    row, column = where // (length - 1), where % (length - 1)
    return {"ids": ids, "mask": torch.zeros(sees.shape).masked_fill_(~sees, -1e4),
            "turns": turns[position][:, :, None], "where": row * length + column, "next": ids[row, column + 1]}


def train_tokenizer(seed):
    """The tokenizer, from texts that are not used again."""
    rng = random.Random(seed)
    texts = [content for i in range(TOKENIZER_TEXTS) for _, content in
             (copying if i % 4 == 0 else generate).document(rng)]
    texts.append(render([("system", ""), ("user", "")], True))
    return Tokenizer(train_merges(texts, SHAPE["vocab"] - 256 - len(CONTROLS)))


def orthogonal(matrix):
    """About U Vᵀ of the matrix's singular value decomposition, by five Newton-Schulz steps of fifth degree."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Optimizer:
    """Muon for the matrices of the layers, Adam for the rest."""

    def __init__(self, weights):
        self.weights = weights
        self.first = {k: torch.zeros_like(v) for k, v in weights.items()}
        self.second = {k: torch.zeros_like(v) for k, v in weights.items() if not self.is_muon(k)}

    def is_muon(self, name):
        return name.startswith("blk.") and self.weights[name].dim() == 2

    def step(self, grads, rate, count):
        """One step at `rate` of the peak; `count` steps were done, this one included."""
        for name, grad in grads.items():
            weight, first = self.weights[name], self.first[name]
            if self.is_muon(name):
                first.mul_(0.95).add_(grad)
                update = orthogonal(grad + 0.95 * first)
                weight.mul_(1 - 0.01 * rate * MUON_RATE)
                weight.add_(update, alpha=-rate * MUON_RATE * max(1, weight.shape[0] / weight.shape[1]) ** 0.5)
            else:
                second = self.second[name]
                first.lerp_(grad, 1 - 0.9)
                second.lerp_(grad * grad, 1 - 0.98)
                mean, square = first / (1 - 0.9 ** count), second / (1 - 0.98 ** count)
                weight.add_(mean / (square.sqrt() + 1e-10), alpha=-rate * ADAM_RATE)


def gradients(pool, weights, parts, turns):
    """The mean loss over all the parts and its gradient."""
    def one(part):
        batch = make_batch(part, turns)
        leaves = {k: v.detach().requires_grad_() for k, v in weights.items()}
        loss = loss_of(leaves, SHAPE, batch)
        return loss.item(), len(batch["next"]), torch.autograd.grad(loss, list(leaves.values()))
    done = list(pool.map(one, parts))
    count = sum(n for _, n, _ in done)
    total = {k: sum(g[i] for _, _, g in done) / count for i, k in enumerate(weights)}
    return sum(x for x, _, _ in done) / count, count, total


def train(args):
    """Trains to the end of the steps or of the minutes."""
    path = os.path.join(args.out, "state.pt")
    if os.path.exists(path):
        state = torch.load(path)
        tok = Tokenizer(state["merges"])
    else:
        tok, weights = train_tokenizer(args.seed), new_weights(SHAPE, args.seed)
        fresh = Optimizer(weights)
        state = {"merges": tok.merges, "weights": weights, "first": fresh.first, "second": fresh.second, "step": 0,
                 "chunk": 0, "seconds": 0.0, "cpu": 0.0, "tokens": 0}
    weights, optimizer = state["weights"], Optimizer(state["weights"])
    optimizer.first, optimizer.second = state["first"], state["second"]
    turns, supply = rope_turns(SHAPE), parts_of(tok, args.seed, state["chunk"])
    began, cpu_began, saved = time.time() - state["seconds"], time.process_time() - state["cpu"], time.time()
    recent, share = [], 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        while share < 1:
            state["step"] += 1
            parts = []
            for _ in range(THREADS):
                state["chunk"], part = next(supply)
                parts.append(part)
            share = max(state["step"] / args.steps, (time.time() - began) / 60 / args.minutes)
            rate = min(state["step"] / WARMUP_STEPS, (1 - share) / (1 - DECAY_FROM), 1)
            loss, count, grads = gradients(pool, weights, parts, turns)
            optimizer.step(grads, max(rate, 0.0), state["step"])
            state["tokens"] += sum(int((p[2] > 0).sum()) for p in parts)
            state["seconds"], state["cpu"] = time.time() - began, time.process_time() - cpu_began
            recent.append(loss)
            if state["step"] % 20 == 0:
                print(f"step {state['step']} loss {sum(recent) / len(recent):.4f} rate {rate:.3f} "
                      f"{state['tokens']} tokens {state['seconds']:.0f} s, {state['cpu']:.0f} s of CPU", flush=True)
                recent = []
            if share >= 1 or time.time() - saved > SAVE_SECONDS:
                save(state, args.out)
                saved = time.time()


def save(state, folder):
    """Writes the state to go on from, and the weights and merges for export.py; each whole or not at all."""
    def put(name, write):
        write(os.path.join(folder, "part-" + name))
        os.replace(os.path.join(folder, "part-" + name), os.path.join(folder, name))

    def put_merges(path):
        with open(path, "w", encoding="utf-8") as f:
            json.dump(state["merges"], f, ensure_ascii=False)
    put("weights.npz", lambda path: np.savez(path, **{k: v.numpy() for k, v in state["weights"].items()}))
    put("merges.json", put_merges)
    put("state.pt", lambda path: torch.save(state, path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", default="build/primer", help="folder for the state, weights.npz and merges.json")
    parser.add_argument("--steps", type=int, default=1800, help=f"steps of about {THREADS * PART_TOKENS} tokens")
    parser.add_argument("--minutes", type=float, default=55, help="end by then, with as many steps as were possible")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    os.makedirs(args.out, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
