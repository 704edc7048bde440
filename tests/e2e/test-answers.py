#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real models behind the real daemon and the real worker: what comes out of the socket is what the engine computes.
Reference models come from $RESIDENTD_REFERENCE; what needs them is skipped where they are not."""

import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, REFERENCE, SOURCE, Daemon, Refused, Skip, as_user, join_user, main, need_root, wait_for  # noqa: E402,E501

RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")


def reference(*path):
    path = os.path.join(REFERENCE, *path)
    if not os.path.exists(path):
        raise Skip(f"{path} is not there")
    return path


def daemon(model, **more):
    policy = {"version": 1, "host": {"ram": {"budget": "1G"}},
              "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                               "context": {"sequences": 4, "k": "f16", "v": "f16"}, **more}}}
    return Daemon(policy, worker=REAL_WORKER, files={"m.gguf": model})


def stories():
    return daemon(reference("models", "stories260k-f32.gguf"))


def prompts():
    with open(reference("models", "stories260k-greedy.json")) as f:
        for entry in json.load(f):
            if entry["model"] == "stories260k-f32.gguf":
                return entry["prompts"]
    raise AssertionError("no recorded prompts")


def greedy_text_is_the_references():
    with stories() as d:
        d.wait_state("ready")
        for p in prompts():
            with d.client() as c:
                n = len(p["greedy_ids"])
                text, last = c.complete(p["prompt"], max_tokens=n, temperature=0)
                assert text == p["greedy_text"], (text, p["greedy_text"])
                assert last["finish"] == "length" and last["usage"]["output_tokens"] == n, last
                assert last["usage"]["prompt_tokens"] == len(p["prompt_ids"]), last
                # One reply instead of pieces, and tokens instead of text.
                reply = c.call("Inference.Complete", model="m", prompt=p["prompt"], max_tokens=n, temperature=0)
                assert reply["text"] == text and reply["done"], reply
                reply = c.call("Inference.Complete", model="m", prompt_tokens=p["prompt_ids"], max_tokens=n, temperature=0)
                assert reply["text"] == text, reply


def pieces_come_one_by_one():
    with stories() as d, d.client() as c:
        d.wait_state("ready")
        pieces = list(c.stream("Inference.Complete", model="m", prompt="Once", max_tokens=20, temperature=0))
        assert len(pieces) >= 10, pieces
        assert len({p["request"] for p in pieces}) == 1 and pieces[0]["request"] > 0, pieces
        assert [p["done"] for p in pieces] == [False] * (len(pieces) - 1) + [True], pieces
        assert "usage" in pieces[-1] and "finish" in pieces[-1], pieces


def tokens_are_the_references():
    with stories() as d, d.client() as c:
        d.wait_state("ready")
        for p in prompts():
            assert c.call("Inference.Tokenize", model="m", text=p["prompt"], special=True)["tokens"] == p["prompt_ids"]
            back = c.call("Inference.Detokenize", model="m", tokens=p["prompt_ids"][1:])
            assert back["text"].strip() == p["prompt"], back


def seeds_decide_samples():
    with stories() as d, d.client() as c:
        d.wait_state("ready")
        def sample(seed):
            return c.complete("Once upon a time", max_tokens=40, temperature=1.0, seed=seed)[0]
        first = sample(7)
        assert sample(7) == first
        assert any(sample(seed) != first for seed in range(8, 12))


def a_stop_string_ends_the_answer_and_is_not_in_it():
    with stories() as d, d.client() as c:
        d.wait_state("ready")
        whole, _ = c.complete("Once upon a time", max_tokens=64, temperature=0)
        # Across tokens, and each end of the text alone is in it as well.
        stop = whole[20:27]
        text, last = c.complete("Once upon a time", max_tokens=64, temperature=0, stop=[stop])
        assert text == whole[:whole.index(stop)] and last["finish"] == "stop", (text, last)


def answers_do_not_depend_on_company():
    need_root()
    with stories() as d:
        d.wait_state("ready")
        asked = [p["prompt"] for p in prompts()]
        def answer(prompt):
            with d.client() as c:
                return c.complete(prompt, max_tokens=48, temperature=0)[0]
        alone = [answer(p) for p in asked]
        started = [as_user(uid, lambda p=p: answer(p)) for uid, p in enumerate(asked)]
        assert [join_user(h) for h in started] == alone


def a_closed_connection_stops_the_work():
    with daemon(DEFAULT_MODEL) as d:
        d.wait_state("ready")
        c = d.client()
        stream = c.stream("Inference.Complete", model="m", prompt="Once", max_tokens=900, temperature=0)
        next(stream)
        wait_for(lambda: d.status()["sequences_active"] == 1, "the sequence to run")
        c.close()
        wait_for(lambda: d.status()["sequences_active"] == 0, "the sequence to end")
        assert "request cancelled" in d.log(), d.log()


def a_slow_reader_gets_everything_in_the_end():
    """Its request is paused when much waits for it, and goes on when it reads."""
    with stories() as d, d.client() as c:
        d.wait_state("ready")
        c.send("Inference.Complete", {"model": "m", "prompt": "Once", "max_tokens": 450, "temperature": 0, "logprobs": 20},
               more=True)
        before = -1
        while True:
            # Until it stands still: nothing more is computed.
            with d.client() as other:
                now = other.call("Usage.Requests")["requests"]
            assert now, d.log()
            if now[0]["output_tokens"] == before > 0:
                break
            before = now[0]["output_tokens"]
            time.sleep(0.5)
        assert before < 450, before
        n, size, reply = 0, 0, {"continues": True}
        while reply.get("continues"):
            reply = c.receive()
            n += len(reply["parameters"].get("logprobs", []))
            size += len(json.dumps(reply))
        assert n >= 440 and size > 1 << 19, (n, size)
        assert reply["parameters"]["usage"]["output_tokens"] == 450, reply["parameters"]["usage"]


def what_is_not_supported_is_said():
    with stories() as d, d.client() as c:
        d.wait_state("ready")
        for parameters, name in (({"json_schema": {"not": {}}}, "json_schema"), ({"grammar": "x"}, "grammar"),
                                 ({"prompt_tokens": [100000]}, "prompt_tokens")):
            try:
                c.call("Inference.Complete", **{"model": "m", **({} if "prompt_tokens" in parameters else {"prompt": "x"}),
                                                **parameters})
            except Refused as e:
                assert e.error == "org.varlink.service.InvalidParameter", e
                assert e.parameters["parameter"].startswith(name), e
            else:
                raise AssertionError(name)
        try:
            c.call("Inference.Complete", model="m", prompt="long " * 2000)
        except Refused as e:
            assert e.error == "io.residentd.ContextTooLong" and e.parameters["given"] > e.parameters["limit"], e
        else:
            raise AssertionError("a prompt beyond the context")


def the_default_model_says_what_was_recorded():
    """primer/expected.json: greedy answers, as pieces, in one reply, and through residentctl."""
    with open(os.path.join(SOURCE, "primer", "expected.json"), encoding="utf-8") as f:
        cases = json.load(f)["cases"]
    assert len(cases) >= 8, len(cases)
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        for case in cases:
            asked, ids, text = case["messages"], case["answer_ids"], case["answer_text"]
            pieces = list(c.stream("Inference.Chat", model="m", max_tokens=64, temperature=0, messages=asked))
            last = pieces[-1]
            assert "".join(p["text"] for p in pieces) == text, (text, pieces)
            assert last["usage"]["prompt_tokens"] == len(case["prompt_ids"]), (case, last)
            # What ends the answer by itself is the end of the assistant's turn.
            end = c.call("Inference.Tokenize", model="m", text="<|im_end|>", special=True)["tokens"]
            assert last["finish"] == ("stop" if ids[-1:] == end else "length"), (case, last)
            assert c.call("Inference.Tokenize", model="m", text=case["rendered"], special=True)["tokens"] == case["prompt_ids"]
            reply = c.call("Inference.Chat", model="m", max_tokens=64, temperature=0, messages=asked)
            assert reply["text"] == text and reply["done"], (text, reply)
        alone = [case for case in cases if [m["role"] for m in case["messages"]] == ["user"]]
        assert alone
        for case in alone[:3]:
            done = subprocess.run([RESIDENTCTL, "--socket", d.socket, "run", "--chat", "m", case["messages"][0]["content"], "-n", "64",
                                   "--temperature", "0"], capture_output=True, text=True, timeout=PATIENCE_S)
            assert done.returncode == 0 and done.stdout.rstrip("\n") == case["answer_text"], (done, case)


main([
    greedy_text_is_the_references,
    pieces_come_one_by_one,
    tokens_are_the_references,
    seeds_decide_samples,
    a_stop_string_ends_the_answer_and_is_not_in_it,
    answers_do_not_depend_on_company,
    a_closed_connection_stops_the_work,
    a_slow_reader_gets_everything_in_the_end,
    what_is_not_supported_is_said,
    the_default_model_says_what_was_recorded,
])
