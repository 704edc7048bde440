#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tokens that users get of one model: one with 32 connections beside three with one each, all of whom want all they
can get. Each of the three gets a quarter, five percent more or less. Tokens are counted in the same interval for all,
so it does not matter how fast the machine is, or whether something else runs on it."""

import os
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, Daemon, as_user, join_user, main, need_root  # noqa: E402

MAKE = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
SECONDS = float(os.environ.get("RESIDENTD_FAIRNESS_S", "60"))
FLOOD, LIGHT = 1, (2, 3, 5)  # whom every Debian knows


def busy(d, n_connections, end, model="m"):
    """When each token came to one of these connections, which ask one question after the other."""
    def run():
        stamps = []

        def connection():
            with d.client() as c:
                c.socket.settimeout(None)
                n = 0
                while time.monotonic() < end:
                    for piece in c.stream("Inference.Complete", model=model, prompt_tokens=[300 + n % 100] * 16,
                                          max_tokens=400, temperature=0, logprobs=0):
                        stamps.extend([time.monotonic()] * len(piece.get("logprobs", [])))
                    n += 1
        threads = [threading.Thread(target=connection) for _ in range(n_connections)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return stamps
    return run


def test_each_user_gets_a_quarter():
    need_root()
    with tempfile.TemporaryDirectory(prefix="residentd-e2e-models.") as folder:
        path = os.path.join(folder, "m.gguf")
        # Steps of some milliseconds: what a client needs between two requests is little beside an answer.
        subprocess.run([MAKE, path, "--context", "2048", "--layers", "6", "--dim", "1024", "--ff", "4096", "--heads", "16",
                        "--kv-heads", "4", "--type", "q4_k"], check=True, timeout=PATIENCE_S)
        policy = {"version": 1, "host": {"ram": {"budget": "2G"}},
                  "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                                   "context": {"tokens": 2048, "sequences": 4}}},
                  "quotas": {"default": {"concurrent": 64, "queued": 64}}}
        with Daemon(policy, worker=REAL_WORKER, files={"m.gguf": path}, arguments=["--log-level", "notice"]) as d:
            d.wait_state("ready")
            begin = time.monotonic()
            end = begin + SECONDS
            handles = [as_user(uid, busy(d, 32 if uid == FLOOD else 1, end)) for uid in (FLOOD, *LIGHT)]
            stamps = [join_user(h) for h in handles]
    # The first seconds fill the places.
    window = (begin + SECONDS / 5, end)
    counts = [sum(window[0] <= t < window[1] for t in s) for s in stamps]
    shares = [n / sum(counts) for n in counts]
    print("# shares: flood %.4f, light %.4f %.4f %.4f; %d tokens" % (*shares, sum(counts)))
    assert sum(counts) > 1000, counts
    assert all(0.2375 <= share <= 0.2625 for share in shares[1:]), shares


def test_what_a_user_has_of_one_model_counts_in_the_other():
    """One user asks two models, another one only the second: there the other gets nearly all, since the first has its
    share already."""
    need_root()
    seconds = SECONDS / 2
    with tempfile.TemporaryDirectory(prefix="residentd-e2e-models.") as folder:
        path = os.path.join(folder, "m.gguf")
        subprocess.run([MAKE, path, "--context", "2048", "--layers", "6", "--dim", "1024", "--ff", "4096", "--heads", "16",
                        "--kv-heads", "4", "--type", "q4_k"], check=True, timeout=PATIENCE_S)
        model = {"residency": {"ram": "map", "when": "always"}, "context": {"tokens": 2048, "sequences": 1}}
        policy = {"version": 1, "host": {"ram": {"budget": "2G"}},
                  "models": {m: {"path": f"@DIR@/{m}.gguf", **model} for m in ("m", "n")}}
        with Daemon(policy, worker=REAL_WORKER, files={"m.gguf": path, "n.gguf": path},
                    arguments=["--log-level", "notice"]) as d:
            d.wait_state("ready")
            d.wait_state("ready", "n")
            begin = time.monotonic()
            end = begin + seconds
            handles = [as_user(uid, busy(d, 1, end, m)) for uid, m in ((2, "m"), (2, "n"), (3, "n"))]
            first, second, other = [join_user(h) for h in handles]
    window = (begin + seconds / 5, end)
    counts = [sum(window[0] <= t < window[1] for t in s) for s in (first, second, other)]
    print("# one user's tokens of the first model and of the second, another's: %d %d %d" % tuple(counts))
    assert sum(counts) > 500, counts
    assert counts[2] > 4 * counts[1], counts


if __name__ == "__main__":
    main([test_each_user_gets_a_quarter, test_what_a_user_has_of_one_model_counts_in_the_other])
