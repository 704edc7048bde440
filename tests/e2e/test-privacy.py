#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the time to the first token tells one user what another one asked: test-privacy.py [TRIALS]

In each trial a coin decides whether Alice sends the prompt that Bob then tries, or another one of the same length. From
the times of Bob's first tokens he guesses which it was: the area under the curve of all his possible rules (AUC) is 0.5
where they tell nothing, and 1 where they tell all. The same is done with Bob's own earlier prompt, where it has to be
plain to see, so that the test would notice."""

import bisect
import math
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import REAL_WORKER, SOURCE, Daemon, as_user, join_user, main, need_root  # noqa: E402

DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
TRIALS = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
N_TOKENS = 480
ALICE, BOB = 1, 2


def auc(yes, no):
    """How often a time of @yes is shorter than one of @no; ties count half."""
    no = sorted(no)
    wins = 0.0
    for t in yes:
        low, high = bisect.bisect_left(no, t), bisect.bisect_right(no, t)
        wins += len(no) - high + (high - low) / 2
    return wins / (len(yes) * len(no))


def first_token(client, tokens):
    begin = time.perf_counter()
    client.call("Inference.Complete", model="m", prompt_tokens=tokens, max_tokens=1, temperature=0)
    return time.perf_counter() - begin


class User:
    """A process of another uid that sends what it is told and says how long that took."""

    def __init__(self, d, uid):
        self.orders_r, self.orders_w = os.pipe()
        self.times_r, self.times_w = os.pipe()

        def run():
            os.close(self.orders_w)
            with d.client() as c, os.fdopen(self.orders_r) as orders:
                for line in orders:
                    seconds = first_token(c, [int(x) for x in line.split()])
                    os.write(self.times_w, b"%.9f\n" % seconds)
        self.handle = as_user(uid, run)
        os.close(self.orders_r)
        os.close(self.times_w)
        self.times = os.fdopen(self.times_r)

    def send(self, tokens):
        os.write(self.orders_w, (" ".join(map(str, tokens)) + "\n").encode())
        return float(self.times.readline())

    def end(self):
        os.close(self.orders_w)
        join_user(self.handle)
        self.times.close()


def trial(sender, guesser, r):
    def prompt():
        return [r.randrange(300, 500) for _ in range(N_TOKENS)]
    tried, other = prompt(), prompt()
    hit = r.random() < 0.5
    sender.send(tried if hit else other)
    return hit, guesser.send(tried)


def run(d, sender_uid, n):
    r = random.Random(7)
    guesser = User(d, BOB)
    sender = guesser if sender_uid == BOB else User(d, sender_uid)
    results = [trial(sender, guesser, r) for _ in range(n)]
    sender.end()
    if sender is not guesser:
        guesser.end()
    return [t for hit, t in results if hit], [t for hit, t in results if not hit]


def test_times_tell_nothing_of_others_prompts():
    need_root()
    policy = {"version": 1, "host": {"ram": {"budget": "2G"}},
              "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                               "context": {"sequences": 4}}}}
    with Daemon(policy, worker=REAL_WORKER, files={"m.gguf": DEFAULT_MODEL}) as d:
        d.wait_state("ready")
        own = auc(*run(d, BOB, 200))
        yes, no = run(d, ALICE, TRIALS)
        others = auc(yes, no)
        # What chance alone makes of this many trials: of ten thousand, 0.006.
        deviation = math.sqrt((len(yes) + len(no) + 1) / (12 * len(yes) * len(no)))
        print(f"# AUC {others:.4f} of {TRIALS} trials for Alice's prompts (0.5 ± {deviation:.4f}), {own:.4f} for his own")
        assert own > 0.9, own
        bound = max(0.02, 4 * deviation)
        assert abs(others - 0.5) <= bound, (others, deviation)


if __name__ == "__main__":
    main([test_times_tell_nothing_of_others_prompts])
