#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is left in memory of a request that has ended: all that daemon and worker can write is searched for the prompt,
the answer and the tokens of both."""

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, SOURCE, Daemon, Refused, main, need_root, run_as, wait_for  # noqa: E402

DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
ENGINE = os.path.join(BUILD, "engine", "tool", "resident-engine")
ALICE, BOB = 1, 2
os.environ.pop("MALLOC_PERTURB_", None)  # it would fill what is freed, too
PAGE = 4096
PIECE = 12  # characters, or bytes of token ids, in a row that can't be there by chance


def writable(pid):
    """All writable mappings of a process that have memory behind them."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, mode, _, _, _, *name = line.split(maxsplit=5)
            if "w" not in mode:
                continue
            begin, end = (int(x, 16) for x in span.split("-"))
            data = os.pread(mem.fileno(), end - begin, begin)
            # Most of it, of stacks above all, was never used.
            pages = [data[i:i + PAGE] for i in range(0, len(data), PAGE)]
            yield (name[0].strip() if name else "anonymous"), b"".join(p if p.strip(b"\0") else b"\0" for p in pages)


def found(pid, what):
    """Where pieces of what is looked for lie: names, mappings and what is round them."""
    places = []
    for name, data in writable(pid):
        for label, needle in what.items():
            at = data.find(needle)
            while at >= 0:
                places.append((label, name, at, data[max(0, at - 24):at + len(needle) + 24]))
                at = data.find(needle, at + 1)
    return places


def letters(r, n):
    return "".join(r.choice("bcdfghjklmnpqrstvwxz") for _ in range(n))


def needles(label, text):
    """From the middle, since its ends may be cut off: the heap's own links overwrite the beginning of what is free."""
    data = text.encode()
    return {f"{label}, {i}": data[i:i + PIECE] for i in range(0, len(data) - PIECE + 1, PIECE)}


def ids_needles(label, ids):
    """As the worker has them, and as they were written in the call."""
    packed = {f"{label}, {i}": struct.pack("<4i", *ids[i:i + 4]) for i in range(0, len(ids) - 3, 4)}
    return packed | needles(label + " as text", ", ".join(map(str, ids)))


def expect_nothing(d, worker, what, where):
    """Waits a moment: the last of a request is let go of after its last reply."""
    def left():
        return {"daemon": found(d.process.pid, what), "worker": found(worker, what)}
    for _ in range(5):
        places = left()
        if not any(places.values()):
            return
        time.sleep(0.1)
    raise AssertionError((where, {who: (len(p), p[:5]) for who, p in places.items()}))


def daemon(**rules):
    return Daemon({"version": 1, "host": {"ram": {"budget": "2G"}},
                   "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                                    "context": {"sequences": 2, "tokens": 512}, **rules}}},
                  worker=REAL_WORKER, files={"m.gguf": DEFAULT_MODEL, "pressure": b"some avg10=0.00 avg60=0.00\n"},
                  arguments=["--pressure", "@DIR@/pressure"])


def hidden(r, what):
    """A marker, noted in @what."""
    text = letters(r, 48)
    what |= needles(text, text)
    return text


def ask_in_all_ways(d, r, what):
    def answer(text):
        what.update(needles("answer", text))
    with d.client() as c:
        answer(c.complete("Tell me of " + hidden(r, what), max_tokens=30, temperature=1, seed=r.randrange(1000))[0])
        answer(c.call("Inference.Chat", model="m", max_tokens=30, temperature=1, seed=r.randrange(1000), messages=[
            {"role": "system", "content": hidden(r, what)}, {"role": "user", "content": hidden(r, what)},
            {"role": "assistant", "content": hidden(r, what)}, {"role": "user", "content": hidden(r, what)}])["text"])
        word = hidden(r, what)
        said = c.call("Inference.Complete", model="m", prompt=hidden(r, what), grammar=f'root ::= "{word}"',
                      max_tokens=200)["text"]
        assert said == word, said
        key, value = hidden(r, what), hidden(r, what)
        c.call("Inference.Chat", model="m", messages=[{"role": "user", "content": "A record, please."}], max_tokens=300,
               stop=[hidden(r, what)], json_schema={"type": "object", "required": [key], "properties": {
                   key: {"const": value}}, "additionalProperties": False})
        c.call("Inference.Tokenize", model="m", text=hidden(r, what))
        for wrong in ({"model": "m", "prompt": hidden(r, what), "temperature": hidden(r, what)},
                      {"model": "m", "prompt": (hidden(r, what) + " ") * 2000},
                      {"model": "another", "prompt": hidden(r, what)},
                      {"model": "m", hidden(r, what): 1},
                      {"model": "m", "prompt": hidden(r, what), "tools": hidden(r, what)},
                      {"model": "m", "prompt": "x", "grammar": f"root ::= {hidden(r, what)} {hidden(r, what)}"}):
            try:
                c.call("Inference.Complete", **wrong)
            except Refused:
                continue
            raise AssertionError(("not refused", wrong))
    # Cancelled in its answer, and half a call that never comes whole.
    with d.client() as c:
        stream = c.stream("Inference.Complete", model="m", prompt=hidden(r, what), max_tokens=400,
                          grammar="root ::= [a-z ]{5000}")
        next(piece for piece in stream if piece["text"])
    with d.client() as c:
        half = '{"method": "io.residentd.Inference.Complete", "parameters": {"prompt": "' + hidden(r, what)
        c.socket.sendall(half.encode())
        wait_for(lambda: found(d.process.pid, what), "half a call to be found")


def test_nothing_of_a_request_is_left():
    need_root()
    r = random.Random()
    with daemon() as d:
        worker = d.wait_state("ready")["worker_pid"]
        what = {}
        ask_in_all_ways(d, r, what)
        assert len(what) > 60, len(what)
        expect_nothing(d, worker, what, "after all kinds of calls")
        log = d.log()
        said = [label for label, piece in what.items() if piece.decode() in log]
        assert not said, (said, log)


def logits_of(ids):
    """What the model makes of these tokens: [len(ids), vocabulary] f32, bit for bit as the worker computes it."""
    with tempfile.NamedTemporaryFile(prefix="residentd-e2e-logits.") as out:
        subprocess.run([ENGINE, "logits", DEFAULT_MODEL, "--ids", " ".join(map(str, ids)), "--out", out.name,
                        "--k-type", "f16", "--v-type", "f16"], check=True, timeout=PATIENCE_S)
        data = out.read()
    row = len(data) // len(ids)
    return [data[i:i + row] for i in range(0, len(data), row)]


def logits_needles(label, row):
    """Four numbers in a row, as they lie in memory."""
    return {f"{label}, {i}": row[i:i + 16] for i in range(0, len(row) - 15, 16)}


def test_nothing_is_left_of_what_the_last_step_computed():
    """Logits say what was answered, and would lie there until somebody else asks something."""
    need_root()
    r = random.Random()
    with daemon(context={"sequences": 2, "tokens": 512, "k": "f16", "v": "f16"}) as d:
        worker = d.wait_state("ready")["worker_pid"]
        hers = [r.randrange(300, 500) for _ in range(150)]
        # While it is being answered they are there, so they would be found.
        with d.client() as c:
            stream = c.stream("Inference.Complete", model="m", prompt_tokens=hers, max_tokens=200, temperature=1,
                              seed=r.randrange(1000), logprobs=0)
            said = next(piece for piece in stream if piece.get("logprobs"))["logprobs"]
            os.kill(worker, signal.SIGSTOP)
            try:
                memory = list(writable(worker))
            finally:
                os.kill(worker, signal.SIGCONT)
            for piece in stream:
                said += piece.get("logprobs", [])
        rows = logits_of(hers + [token["token"] for token in said])
        seen = [i for i, row in enumerate(rows) if any(row[64:256] in data for _, data in memory)]
        assert seen and min(seen) >= len(hers) - 1, (seen, len(said))
        what = {}
        for i in range(len(hers) - 1, len(rows)):
            what |= logits_needles(f"logits {i}", rows[i][64:96])
        expect_nothing(d, worker, what, "after an answer of many steps")
        # One step: nothing comes after it that would lie on top. Greedily, and with a copy that the sampler changes.
        for how in ({"temperature": 0}, {"temperature": 1, "logit_bias": {"5": 0.5}}):
            with d.client() as c:
                c.call("Inference.Complete", model="m", prompt_tokens=hers[:100], max_tokens=1, **how)
            what = logits_needles("logits", logits_of(hers[:100])[-1][64:320])
            expect_nothing(d, worker, what, f"after an answer of one step, {how}")


def test_tokens_are_kept_for_their_user_until_memory_is_short():
    """What a prompt's next one may begin with stays as numbers in the worker, and goes with its pages."""
    need_root()
    r = random.Random()
    hers = [r.randrange(300, 500) for _ in range(200)]
    what = ids_needles("tokens", hers)

    def ask(ids):
        def call():
            with d.client() as c:
                return c.call("Inference.Complete", model="m", prompt_tokens=ids, max_tokens=8, temperature=0)["usage"]
        return call
    with daemon() as d:
        worker = d.wait_state("ready")["worker_pid"]
        run_as(ALICE, ask(hers))
        run_as(BOB, ask([r.randrange(300, 500) for _ in range(200)]))
        wait_for(lambda: d.status()["sequences_active"] == 0, "the last to end")
        kept = found(worker, what)
        assert kept and not [label for label, *_ in kept if "text" in label], kept[:5]
        assert len(kept) <= len(hers) // 4, "they are there once"
        assert not found(d.process.pid, what)
        d.put("new", b"some avg10=12.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00\n")
        os.rename(d.dir + "/new", d.dir + "/pressure")
        wait_for(lambda: "caches are given back" in d.log(), "caches to be given back")
        expect_nothing(d, worker, what, "after caches were given back")
        assert run_as(ALICE, ask(hers))["cached_tokens"] == 0


if __name__ == "__main__":
    main([test_nothing_of_a_request_is_left, test_nothing_is_left_of_what_the_last_step_computed,
          test_tokens_are_kept_for_their_user_until_memory_is_short])
