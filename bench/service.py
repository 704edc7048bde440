#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What users of the service get from one model file: service.py [--build DIR] WHAT FILE [...]

  reuse       time to the first token of a prompt, and of a second one that shares most of its tokens
  throughput  tokens a second of 1, 2, 4, 8 and 16 sequences together; with --peer PATH/llama-server also of that one,
              with as many slots, in turns
  wait        what waiting requests are told of their first tokens beside what then happens
  fair        one user with 32 connections against three with one each (root: they have to be several uids)
  light       a user who asks now and then: first tokens alone, and beside one with 32 connections (root)

It starts a daemon of its own, as tests/e2e do. A model of random weights will do.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))


# Probabilities are asked for because they say how many tokens a piece stands for.
GREEDY = {"temperature": 0, "logprobs": 0}


def words(seed, n_tokens, n_vocab):
    """Token ids: with them a prompt is as long as it is meant to be, whatever the vocabulary."""
    r = random.Random(seed)
    return [r.randrange(300, n_vocab) for _ in range(n_tokens)]


def ask(client, tokens, n, **parameters):
    """Times of the first and of the last token in seconds from the call on, tokens, and what the service says of it."""
    begin = time.monotonic()
    first = None
    for piece in client.stream("Inference.Complete", model="m", prompt_tokens=tokens, max_tokens=n,
                               **{**GREEDY, **parameters}):
        if first is None and piece.get("logprobs"):
            first = time.monotonic() - begin
    return first, time.monotonic() - begin, piece["usage"]


def policy(a, **context):
    return {"version": 1, "host": {"ram": {"reserve": "1G"}},
            "models": {"m": {"path": str(pathlib.Path(a.file).resolve()),
                             "residency": {"ram": "map", "when": "always"},
                             "context": {"tokens": a.context, **context}}},
            "admins": {"users": ["root"]}}


def reuse(a, harness):
    with harness.Daemon(policy(a, sequences=4), worker=harness.REAL_WORKER) as d:
        d.wait_state("ready")
        with d.client() as c:
            rows = []
            ask(c, words(0, 64, a.vocab), 4)
            for i in range(a.rounds):
                shared = words(100 + i, a.shared, a.vocab)
                cold, _, _ = ask(c, shared + words(200 + i, a.question, a.vocab), 4)
                warm, _, usage = ask(c, shared + words(300 + i, a.question, a.vocab), 4)
                rows.append((cold, warm, usage["cached_tokens"]))
            cold, warm = (statistics.median(r[k] for r in rows) for k in (0, 1))
            print(json.dumps({"shared": a.shared, "question": a.question, "cached": rows[0][2],
                              "first_token_ms": round(cold * 1e3, 1), "second_first_token_ms": round(warm * 1e3, 1),
                              "ratio": round(cold / warm, 1)}))


def together(one, n, a):
    """@one(i) for all of @n at the same time; it returns the times of its first and last token."""
    ends = []
    begin = time.monotonic()
    threads = [threading.Thread(target=lambda i=i: ends.append(one(i))) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    total_s = time.monotonic() - begin
    # All run from the last one's first token to the first one's end; what is before is mostly prefill.
    first, last = max(e[0] for e in ends), min(e[1] for e in ends)
    share = (last - first) / statistics.mean(e[1] - e[0] for e in ends)
    return {"prefill_tps": round(n * a.prompt / first, 1),
            "decode_tps": round(n * (a.tokens - 1) * share / (last - first), 1),
            "total_tps": round(n * a.tokens / total_s, 1)}


class Server:
    """The peer, with as many slots as sequences."""

    def __init__(self, a, n):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen(
            [a.peer, "-m", a.file, "-np", str(n), "-c", str(n * a.peer_context), "-t", str(os.cpu_count()), "--host",
             "127.0.0.1", "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        while True:
            assert self.process.poll() is None, "the peer has ended"
            try:
                c = http.client.HTTPConnection("127.0.0.1", self.port)
                c.request("GET", "/health")
                if c.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, tokens, n):
        begin = time.monotonic()
        stamps = []
        c = http.client.HTTPConnection("127.0.0.1", self.port)
        c.request("POST", "/completion", json.dumps(
            {"prompt": tokens, "n_predict": n, "temperature": 1, "seed": n, "stream": True, "cache_prompt": False,
             "ignore_eos": True}), {"Content-Type": "application/json"})
        for line in c.getresponse():
            if line.startswith(b"data:"):
                stamps.append(time.monotonic() - begin)
        # Behind the tokens comes one piece that says that it is done.
        assert len(stamps) >= n, (len(stamps), n)
        return stamps[0], stamps[-1]


def throughput(a, harness):
    """Drawn at random: what is most likely to follow repeats itself with random weights, and drafts would guess it."""
    for n in a.sequences:
        report = {"sequences": n, "prompt": a.prompt, "tokens": a.tokens}
        prompts = [words(i, a.prompt, a.vocab) for i in range(n)]
        with harness.Daemon(policy(a, sequences=n), worker=harness.REAL_WORKER) as d:
            d.wait_state("ready")

            def one(i):
                with d.client() as c:
                    return ask(c, prompts[i], a.tokens, temperature=1, seed=i)
            with d.client() as c:
                ask(c, words(n, a.prompt, a.vocab), a.tokens)
            report["residentd"] = together(one, n, a)
        if a.peer:
            with Server(a, n) as server:
                server.ask(words(n, a.prompt, a.vocab), a.tokens)
                report["peer"] = together(lambda i: server.ask(prompts[i], a.tokens), n, a)
        print(json.dumps(report), flush=True)


def wait(a, harness):
    """Several users with several requests each. A hint counts where there is a second or more to wait."""
    hints, lock = [], threading.Lock()
    with harness.Daemon({**policy(a, sequences=a.places), "quotas": {"default": {"concurrent": 64, "queued": 64}}},
                        worker=harness.REAL_WORKER) as d:
        d.wait_state("ready")
        end = time.monotonic() + a.seconds

        def connection(i):
            with d.client() as c:
                r = random.Random(i)
                while time.monotonic() < end:
                    told, first = [], None
                    # Nobody knows how much of what it may say somebody will say.
                    n_max = r.randrange(a.tokens, 3 * a.tokens)
                    for piece in c.stream("Inference.Complete", model="m", max_tokens=n_max, **GREEDY,
                                          prompt_tokens=words(r.random(), r.randrange(8, 2 * a.prompt), a.vocab)):
                        queue = piece.get("queue")
                        if queue and first is None:
                            told.append((time.monotonic(), queue.get("eta_ms")))
                        if first is None and piece.get("logprobs"):
                            first = time.monotonic()
                    with lock:
                        hints.extend((eta, (first - at) * 1e3) for at, eta in told if first)
        threads = [threading.Thread(target=connection, args=(i,)) for i in range(a.users)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    known = [(eta, waited) for eta, waited in hints if eta is not None and eta >= 0]
    right = sum((waited < 1000 and eta < 2000) or (eta <= 2 * waited and waited <= 2 * eta) for eta, waited in known)
    print(json.dumps({"hints": len(hints), "without_time": len(hints) - len(known), "within_factor_two": right,
                      "told_over_waited": [round(q, 2) for q in statistics.quantiles(
                          [eta / max(waited, 1) for eta, waited in known], n=10)]}))


class User:
    """Keeps @n connections of one uid busy for a while, or for so many requests if that is sooner; what it got is read
    from its process. With @pause it rests for some such time between two requests. @whole: answers are not streamed,
    so that it is the service which is busy and not this client."""

    def __init__(self, harness, d, uid, n, a, seconds, pause=0, requests=1 << 30, whole=False):
        def run():
            results, end = [], time.monotonic() + seconds

            def connection(i):
                with d.client() as c:
                    k = 0
                    while time.monotonic() < end and k < requests:
                        tokens = words((uid, i, k).__hash__(), a.prompt, a.vocab)
                        begin = time.monotonic()
                        stamps = []
                        k += 1
                        if whole:
                            c.call("Inference.Complete", model="m", prompt_tokens=tokens, max_tokens=a.tokens, temperature=0)
                            continue
                        for piece in c.stream("Inference.Complete", model="m", prompt_tokens=tokens,
                                              max_tokens=a.tokens, **GREEDY):
                            stamps += [time.monotonic()] * len(piece.get("logprobs", []))
                        results.append((begin, stamps))
                        time.sleep(pause * random.uniform(0.5, 1.5))
            threads = [threading.Thread(target=connection, args=(i,)) for i in range(n)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            return results
        self.n, self.handle = n, harness.as_user(uid, run)
        self.harness, self.pid = harness, self.handle[0]

    def join(self):
        return self.harness.join_user(self.handle)


def fair(a, harness):
    with harness.Daemon({**policy(a, sequences=a.places), "quotas": {"default": {"concurrent": 64, "queued": 64}}},
                        worker=harness.REAL_WORKER) as d:
        d.wait_state("ready")
        lone = User(harness, d, 1, 1, a, a.seconds / 3).join()
        three = [User(harness, d, 3 + i, 1, a, a.seconds / 3) for i in range(3)]
        among_them = [stamps[0] - b for u in three for b, stamps in u.join() if stamps]
        begin = time.monotonic()
        users = [User(harness, d, 2 + i, n, a, a.seconds) for i, n in enumerate([32, 1, 1, 1])]
        results = [u.join() for u in users]
    # The first seconds fill the places; the last ones empty them.
    window = (begin + 0.2 * a.seconds, begin + a.seconds)
    got = [sum(window[0] <= t < window[1] for _, stamps in r for t in stamps) for r in results]
    waits = [stamps[0] - b for r in results[1:] for b, stamps in r if stamps and b >= window[0] and b < window[1]]
    alone = sorted(stamps[0] - b for b, stamps in lone if stamps)
    print(json.dumps({"tokens": got, "shares": [round(g / sum(got), 4) for g in got],
                      "light_first_token_p99_ms": round(sorted(waits)[int(0.99 * (len(waits) - 1))] * 1e3, 1),
                      "light_first_token_median_ms": round(statistics.median(waits) * 1e3, 1),
                      "three_without_flood_p99_ms": quantile(among_them, 0.99),
                      "three_without_flood_median_ms": quantile(among_them, 0.5),
                      "alone_p99_ms": round(alone[int(0.99 * (len(alone) - 1))] * 1e3, 1), "requests": len(waits)}))


def quantile(values, q):
    return round(sorted(values)[int(q * (len(values) - 1))] * 1e3, 1)


def light(a, harness):
    """Between two tokens of a user lies one step, with a slice of somebody's prompt in it or without."""
    with harness.Daemon({**policy(a, sequences=a.places), "quotas": {"default": {"concurrent": 64, "queued": 64}}},
                        worker=harness.REAL_WORKER) as d:
        d.wait_state("ready")
        alone = User(harness, d, 1, 1, a, a.seconds / 2, a.pause, a.requests).join()
        # The flood's own requests are as large whatever the light user asks.
        of_flood = argparse.Namespace(**{**vars(a), "prompt": a.flood_prompt, "tokens": a.flood_tokens})
        flood = User(harness, d, 2, 32, of_flood, a.seconds + a.lead, whole=True)
        time.sleep(a.lead)
        beside = User(harness, d, 3, 1, a, a.seconds, a.pause, a.requests).join()
        os.kill(flood.pid, 9)
    report = {"prompt": a.prompt}
    for name, results in (("alone", alone), ("beside", beside)):
        waits = [stamps[0] - b for b, stamps in results if stamps]
        steps = [y - x for _, stamps in results for x, y in zip(stamps, stamps[1:])]
        report |= {name: {"requests": len(waits), "first_token_median_ms": quantile(waits, 0.5),
                          "first_token_p99_ms": quantile(waits, 0.99), "step_median_ms": quantile(steps, 0.5),
                          "step_p99_ms": quantile(steps, 0.99)}}
    print(json.dumps(report))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["reuse", "throughput", "wait", "fair", "light"])
    p.add_argument("file")
    p.add_argument("--build", default=str(ROOT / "build"))
    p.add_argument("--context", type=int, default=4096)
    p.add_argument("--vocab", type=int, default=32000, help="ids below this are used")
    p.add_argument("--shared", type=int, default=2000)
    p.add_argument("--question", type=int, default=20)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--sequences", type=lambda s: [int(x) for x in s.split(",")], default=[1, 2, 4, 8, 16])
    p.add_argument("--prompt", type=int, default=128)
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--peer", help="llama-server, to compare throughput with")
    p.add_argument("--peer-context", type=int, default=512, help="tokens of one slot of the peer")
    p.add_argument("--users", type=int, default=16, help="connections that ask, in wait")
    p.add_argument("--flood-prompt", type=int, default=128, help="tokens of the prompts beside which a light user asks")
    p.add_argument("--flood-tokens", type=int, default=64, help="tokens of the answers beside which a light user asks")
    p.add_argument("--lead", type=float, default=5, help="seconds that the flood has before the light user comes")
    p.add_argument("--requests", type=int, default=1 << 30, help="of a light user, at most")
    p.add_argument("--places", type=int, default=4)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--pause", type=float, default=0.5, help="seconds between two requests of a light user")
    a = p.parse_args()
    os.environ["RESIDENTD_BUILD"] = a.build
    import harness
    {"reuse": reuse, "throughput": throughput, "wait": wait, "fair": fair, "light": light}[a.what](a, harness)


if __name__ == "__main__":
    main()
