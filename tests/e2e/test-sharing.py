#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several users on one model, through the socket of a real daemon with a real worker: what they share, what not."""

import os
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, SOURCE, Daemon, main, need_root, run_as, wait_for  # noqa: E402

MAKE = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
ALICE, BOB = 1, 2  # whom every Debian knows: daemon and bin
HELP = ("You are the voice of the library. You know the books and who wrote them, and you say so in one sentence. "
        "You never guess, and you never make up a title. When somebody asks the way to a shelf, you name the floor. ") * 2


def daemon(files=None, model=DEFAULT_MODEL, **rules):
    return Daemon({"version": 1, "host": {"ram": {"budget": "2G"}},
                   "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                                    "context": {"sequences": 4}, **rules}}},
                  worker=REAL_WORKER, files={"m.gguf": model, **(files or {})})


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


def computed(d):
    """Prompt tokens of all requests until now that were not found computed."""
    with d.client() as c:
        text = c.call("Models.Metrics")["text"]
    n = {kind: int(re.search(rf'tokens_total{{model="m",kind="{kind}"}} (\d+)', text)[1]) for kind in ("prompt", "cached")}
    return n["prompt"] - n["cached"]


def test_of_two_thousand_shared_tokens_less_than_a_tenth_is_computed():
    """Whole pages of 32 tokens of them: for the user who sent them, and of what is public for everybody."""
    need_root()
    r = random.Random(2)
    private = [r.randrange(300, 500) for _ in range(2000)]
    public = "".join(r.choice("bcdfgh") + r.choice("aeiou") + (" " if i % 3 == 2 else "") for i in range(1050))

    def ask(d, what):
        def call():
            with d.client() as c:
                return c.call("Inference.Complete", model="m", max_tokens=1, temperature=0, **what)["usage"]
        return call

    def cost(d, uid, what):
        """What a request computes, by the reply and by the service's own count."""
        before = computed(d)
        usage = run_as(uid, ask(d, what))
        wait_for(lambda: computed(d) == before + usage["prompt_tokens"] - usage["cached_tokens"], "the same count")
        return usage["prompt_tokens"], usage["prompt_tokens"] - usage["cached_tokens"]
    with tempfile.TemporaryDirectory(prefix="residentd-e2e-models.") as folder:
        path = os.path.join(folder, "m.gguf")
        subprocess.run([MAKE, path, "--context", "4096"], check=True, timeout=PATIENCE_S)
        with daemon(model=path, files={"public.txt": public.encode()}, public_prefixes=["@DIR@/public.txt"],
                    context={"sequences": 4, "tokens": 4096}) as d:
            d.wait_state("ready")

            def with_own(seed):
                own = random.Random(seed)
                return {"prompt_tokens": private + [own.randrange(300, 500) for _ in range(20)]}
            assert cost(d, ALICE, with_own(1)) == (2020, 2020)
            assert cost(d, ALICE, with_own(2)) == (2020, 2020 - 62 * 32)
            assert cost(d, BOB, with_own(2)) == (2020, 2020)
            with d.client() as c:
                n_public = len(c.call("Inference.Tokenize", model="m", text=public, special=True)["tokens"])
            assert n_public >= 2000, n_public
            wait_for(lambda: kept_pages(d) >= 2 * 62 + n_public // 32 - 1, "the public text to be computed")
            for uid in (ALICE, BOB):
                n_prompt, n_computed = cost(d, uid, {"prompt": public + f" And what does {uid} want to know of it?"})
                assert 10 * n_computed <= n_prompt, (n_computed, n_prompt)
                # The last token of the text may be another one where more follows.
                assert n_prompt - n_computed in (n_public // 32 * 32, (n_public - 1) // 32 * 32), (n_computed, n_prompt)


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
          test_a_public_prefix_is_shared_by_all, test_of_two_thousand_shared_tokens_less_than_a_tenth_is_computed,
          test_a_worker_says_which_prefix_it_can_not_use])
