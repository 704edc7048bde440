#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several users on one model, through the socket of a real daemon with a real worker: what they share, what not."""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import REAL_WORKER, SOURCE, Daemon, main, need_root, run_as, wait_for  # noqa: E402

DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
ALICE, BOB = 1, 2  # whom every Debian knows: daemon and bin
HELP = ("You are the voice of the library. You know the books and who wrote them, and you say so in one sentence. "
        "You never guess, and you never make up a title. When somebody asks the way to a shelf, you name the floor. ") * 2


def daemon(files=None, **rules):
    return Daemon({"version": 1, "host": {"ram": {"budget": "2G"}},
                   "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                                    "context": {"sequences": 4}, **rules}}},
                  worker=REAL_WORKER, files={"m.gguf": DEFAULT_MODEL, **(files or {})})


def answer(d, prompt, method="Complete"):
    def call():
        with d.client() as c:
            what = {"prompt": prompt} if method == "Complete" else {"messages": prompt}
            reply = c.call(f"Inference.{method}", model="m", max_tokens=12, temperature=0, **what)
            return reply["text"], reply["usage"]
    return call


def kept_pages(d):
    with d.client() as c:
        return int(re.search(r'kv_pages\{model="m",use="kept"\} (\d+)', c.call("Models.Metrics")["text"])[1])


def test_a_users_own_prefix_is_not_computed_again():
    prompt = HELP + "Where is the atlas?"
    with daemon() as d:
        d.wait_state("ready")
        first, usage = answer(d, prompt)()
        assert usage["cached_tokens"] == 0, usage
        second, usage = answer(d, prompt)()
        assert usage["cached_tokens"] >= usage["prompt_tokens"] - 33, usage
        assert first == second
        # A conversation goes on: what was answered is part of the next prompt.
        third, usage = answer(d, prompt + first + " And then?")()
        assert usage["cached_tokens"] >= 64, usage
    with daemon() as d:
        d.wait_state("ready")
        assert answer(d, prompt + first + " And then?")()[0] == third


def test_others_prefixes_are_not_found():
    need_root()
    prompt = HELP + "Where is the atlas?"
    with daemon() as d:
        d.wait_state("ready")
        text, _ = run_as(ALICE, answer(d, prompt))
        again, usage = run_as(BOB, answer(d, prompt))
        assert again == text
        assert usage["cached_tokens"] == 0, usage
        again, usage = run_as(BOB, answer(d, prompt))
        assert again == text
        assert usage["cached_tokens"] > 0, usage


def test_a_public_prefix_is_shared_by_all():
    need_root()
    chat = [{"role": "system", "content": HELP}, {"role": "user", "content": "Where is the atlas, and who made it?"}]
    with daemon(files={"help.txt": HELP.encode()}, public_prefixes=["@DIR@/help.txt", "@DIR@/missing.txt"]) as d:
        d.wait_state("ready")
        assert "public prefix left out: " in d.log() and "missing.txt" in d.log(), d.log()
        wait_for(lambda: kept_pages(d) > 0, "public prefixes to be computed before anybody asks")
        for method, prompt in (("Complete", HELP + "Where is the atlas, and who made it?"), ("Chat", chat)):
            hers, usage = run_as(ALICE, answer(d, prompt, method))
            cached = usage["cached_tokens"]
            his, usage = run_as(BOB, answer(d, prompt, method))
            assert hers == his
            # Whole pages of 32 tokens of it, for the first user as for the second; nothing of the question.
            assert usage["cached_tokens"] == cached, (cached, usage)
            assert 32 <= usage["cached_tokens"] <= usage["prompt_tokens"] - 8, usage
            assert usage["cached_tokens"] % 32 == 0, usage
        # Nothing of it is in the log.
        assert "atlas" not in d.log() and "library" not in d.log()


def test_a_worker_says_which_prefix_it_can_not_use():
    with daemon(files={"help.txt": (HELP * 40).encode()}, public_prefixes=["@DIR@/help.txt"],
                context={"sequences": 4, "tokens": 256}) as d:
        d.wait_state("ready")
        # In the daemon's own log, with the model's name.
        line = next(x for x in d.log().splitlines() if "a public prefix is not used in all ways" in x)
        assert line.startswith("residentd: worker of m: ") and " model=m" in line and "ContextTooLong" not in line, line
        assert "library" not in d.log()


if __name__ == "__main__":
    main([test_a_users_own_prefix_is_not_computed_again, test_others_prefixes_are_not_found,
          test_a_public_prefix_is_shared_by_all, test_a_worker_says_which_prefix_it_can_not_use])
