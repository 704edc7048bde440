#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the time to the first token tells one user what another one asked: test-privacy.py [TRIALS]

In each trial a coin decides whether Alice sends the prompt that Bob then tries, or another one of the same length. From
the times of Bob's first tokens he guesses which it was: the area under the curve of all his possible rules (AUC) is 0.5
where they tell nothing, and 1 where they tell all; and so for each number of the replies. The same is done with Bob's
own earlier prompt, where it has to be plain to see, so that the test would notice."""

import bisect
import json
import math
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import REAL_WORKER, SOURCE, Daemon, Refused, as_user, join_user, main, need_root  # noqa: E402

DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
TRIALS = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
N_TOKENS = 224
ALICE, BOB = 1, 2


def auc(yes, no):
    """How often a time of @yes is shorter than one of @no; ties count half."""
    no = sorted(no)
    wins = 0.0
    for t in yes:
        low, high = bisect.bisect_left(no, t), bisect.bisect_right(no, t)
        wins += len(no) - high + (high - low) / 2
    return wins / (len(yes) * len(no))


def numbers(value, path=""):
    """Every number somewhere in a reply, by where it is."""
    if isinstance(value, dict):
        return {k: v for name in value for k, v in numbers(value[name], f"{path}.{name}").items()}
    return {path: value} if isinstance(value, (int, float)) else {}


def ask(client, tokens):
    """All that a user gets to see: the time to the first token, and every number of the answer's pieces."""
    begin = time.perf_counter()
    seen = {}
    for piece in client.stream("Inference.Complete", model="m", prompt_tokens=tokens, max_tokens=1, temperature=0):
        if piece.get("text") or piece.get("done"):
            seen.setdefault("time", time.perf_counter() - begin)
        seen |= numbers(piece)
    return seen


class User:
    """A process of another uid that sends what it is told and says what it saw."""

    def __init__(self, d, uid):
        orders_r, self.orders_w = os.pipe()
        seen_r, seen_w = os.pipe()

        def run():
            os.close(self.orders_w)
            with d.client() as c, os.fdopen(orders_r) as orders, os.fdopen(seen_w, "w") as seen:
                c.socket.settimeout(None)
                for line in orders:
                    try:
                        saw = ask(c, json.loads(line))
                    except Refused as e:
                        # A machine that stood still for seconds has lost its worker; this trial says nothing.
                        assert e.error == "io.residentd.ModelUnavailable", e
                        saw = None
                        time.sleep(1)
                    print(json.dumps(saw), file=seen, flush=True)
        self.handle = as_user(uid, run)
        os.close(orders_r)
        os.close(seen_w)
        self.seen = os.fdopen(seen_r)

    def send(self, tokens):
        os.write(self.orders_w, json.dumps(tokens).encode() + b"\n")
        return json.loads(self.seen.readline())

    def end(self):
        os.close(self.orders_w)
        join_user(self.handle)
        self.seen.close()


def trial(sender, guesser, r):
    def prompt():
        return [r.randrange(300, 500) for _ in range(N_TOKENS)]
    tried, other = prompt(), prompt()
    hit = r.random() < 0.5
    sent, saw = sender.send(tried if hit else other), guesser.send(tried)
    return (hit, saw) if sent and saw else None


def run(d, sender_uid, n):
    """What the guesser saw where the prompt had been sent, and where not."""
    r = random.Random(7)
    guesser = User(d, BOB)
    sender = guesser if sender_uid == BOB else User(d, sender_uid)
    results = []
    for _ in range(n + n // 10):
        result = trial(sender, guesser, r)
        results += [result] if result else []
        if len(results) == n:
            break
    sender.end()
    if sender is not guesser:
        guesser.end()
    assert len(results) == n, "more than a tenth of the trials were lost"
    return [saw for hit, saw in results if hit], [saw for hit, saw in results if not hit]


def test_nothing_that_is_seen_tells_of_others_prompts():
    need_root()
    policy = {"version": 1, "host": {"ram": {"budget": "2G"}},
              "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                               "context": {"sequences": 4}}}}
    with Daemon(policy, worker=REAL_WORKER, files={"m.gguf": DEFAULT_MODEL}, arguments=["--log-level", "notice"]) as d:
        d.wait_state("ready")

        def auc_of(path, yes, no):
            return auc([s[path] for s in yes], [s[path] for s in no])
        yes, no = run(d, BOB, 200)
        own = auc_of("time", yes, no)
        yes, no = run(d, ALICE, TRIALS)
        # What chance alone makes of this many trials: of ten thousand, 0.006.
        deviation = math.sqrt((len(yes) + len(no) + 1) / (12 * len(yes) * len(no)))
        others = {path: auc_of(path, yes, no) for path in yes[0]}
        told = ", ".join(f"{path} {value:.4f}" for path, value in sorted(others.items()))
        print(f"# AUC of {TRIALS} trials: his own prompts' times {own:.4f}; Alice's (0.5 ± {deviation:.4f}): {told}")
        assert own > 0.9, own
        assert all(s.keys() == yes[0].keys() for s in yes + no)
        bound = 0.02 if TRIALS >= 10000 else max(0.02, 4 * deviation)
        assert all(abs(value - 0.5) <= bound for value in others.values()), (others, deviation)
        assert all(s[".usage.cached_tokens"] == 0 for s in yes + no)


if __name__ == "__main__":
    main([test_nothing_that_is_seen_tells_of_others_prompts])
