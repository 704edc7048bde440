#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every quota of the policy, held against real users over the socket; whoever waits as long as is said succeeds."""

import grp
import json
import os
import pwd
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *  # noqa: E402,F403

ALICE, BOB = 1, 2  # any that the user database knows, and their groups of the same number
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")


def name(uid):
    return pwd.getpwuid(uid).pw_name


def daemon(quotas, models=("m",), environment=None, **options):
    policy = {"version": 1, "quotas": quotas,
              "models": {m: {"path": f"@DIR@/{m}.gguf", "residency": {"ram": "map", "when": "always"}} for m in models}}
    d = Daemon(policy, files={f"{m}.gguf": b"x" * 4096 for m in models}, **options)
    d.environment = environment or {}
    return d


def ask(d, prompt="one", uid=ALICE, **parameters):
    def go():
        with d.client() as c:
            return c.complete(prompt, **parameters)[1]["finish"]
    return run_as(uid, go)


def refused(d, error, prompt="one", uid=ALICE, **parameters):
    name, said = refusal(lambda: ask(d, prompt, uid, **parameters))
    assert name == "io.residentd." + error, (name, said)
    return said


def usage(d, asker=ALICE, **parameters):
    def go():
        with d.client() as c:
            return c.call("Usage.Get", **parameters)
    return run_as(asker, go)


def wait_and_ask(d, refusal, **parameters):
    """Waits exactly as long as was said."""
    time.sleep(refusal["retry_after_ms"] / 1000)
    ask(d, **parameters)


def until_refused(d, **parameters):
    for _ in range(1000):
        try:
            ask(d, **parameters)
        except Refused as e:
            return e
    raise AssertionError("never refused")


def requests_per_minute():
    need_root()
    with daemon({"default": {"requests_per_minute": 60}}) as d:
        d.wait_state("ready")
        for _ in range(60):
            ask(d, max_tokens=1)
        e = until_refused(d, max_tokens=1)
        refusal = e.parameters
        assert e.error == "io.residentd.QuotaExceeded" and refusal["quota"] == "requests_per_minute", e
        assert refusal["limit"] == 60 and refusal["used"] == 61 and 0 < refusal["retry_after_ms"] <= 1000, e
        wait_and_ask(d, refusal, max_tokens=1)
        # Others are not touched by it.
        ask(d, uid=BOB, max_tokens=1)


def tokens_are_reserved_while_a_request_runs():
    with daemon({"default": {"tokens_per_minute": 600}}) as d:
        d.wait_state("ready")
        with d.client() as c, d.client() as other:
            stream = c.stream("Inference.Complete", model="m", prompt="count 3", max_tokens=100)
            next(stream)
            assert 95 < other.call("Usage.Get")["used"]["tokens_per_minute"] <= 110
            list(stream)
            assert other.call("Usage.Get")["used"]["tokens_per_minute"] <= 5


def a_client_that_waits_for_its_tokens_succeeds():
    need_root()
    with daemon({"default": {"tokens_per_minute": 1200}}) as d:
        d.wait_state("ready")
        held = [d.client() for _ in range(10)]
        for c in held:  # each reserves the model's context, 128, and keeps it
            run_uid0(c)
        with d.client() as c:
            c.send("Inference.Complete", {"model": "m", "prompt": "one"}, more=True)
            try:
                while c.receive().get("continues"):
                    pass
                raise AssertionError("not refused")
            except Refused as e:
                refusal = e.parameters
        assert refusal["quota"] == "tokens_per_minute" and refusal["retry_after_ms"] > 0, refusal
        time.sleep(refusal["retry_after_ms"] / 1000)
        with d.client() as c:
            assert c.complete("one")[1]["finish"] == "stop"
        for c in held:
            c.close()


def run_uid0(c):
    try:
        c.send("Inference.Complete", {"model": "m", "prompt": "hang"}, more=True)
        c.receive()
    except Refused as e:
        assert e.parameters["quota"] == "tokens_per_minute", e


def tokens_per_day_come_back_at_local_midnight():
    need_root()
    # A place where it is midnight in a few seconds.
    to_midnight = 86400 - int(time.time() + 6) % 86400
    zone = f"HERE-{to_midnight // 3600:02}:{to_midnight // 60 % 60:02}:{to_midnight % 60:02}"
    with daemon({"default": {"tokens_per_day": 30}}, environment={"TZ": zone}) as d:
        d.wait_state("ready")
        ask(d, "count 18", max_tokens=18)
        refusal = refused(d, "QuotaExceeded", "count 3", max_tokens=3)
        assert refusal["quota"] == "tokens_per_day" and refusal["limit"] == 30 and refusal["used"] > 30, refusal
        assert 0 < refusal["retry_after_ms"] <= 6000, refusal
        report = usage(d)
        assert report["used"]["tokens_per_day"] == 19 and report["renews_ms"]["tokens_per_day"] <= 6000, report
        wait_and_ask(d, refusal, prompt="count 3", max_tokens=3)


def tokens_per_day_outlive_a_restart():
    need_root()
    with daemon({"default": {"tokens_per_day": 100}}) as d:
        d.wait_state("ready")
        ask(d, "count 50", max_tokens=50)
        d.kill()
        d.start()
        d.wait_state("ready")
        assert usage(d)["used"]["tokens_per_day"] == 51
        assert refused(d, "QuotaExceeded", "count 50", max_tokens=50)["quota"] == "tokens_per_day"


def what_can_never_fit_is_too_long():
    need_root()
    with daemon({"default": {"tokens_per_day": 50, "context_tokens": 80}}) as d:
        d.wait_state("ready")
        assert refused(d, "ContextTooLong", "long 60") == {"limit": 50, "given": 61}
        # Tokens that are counted already are refused before the worker hears of them.

        def with_tokens():
            with d.client() as c:
                return list(c.stream("Inference.Complete", model="m", prompt_tokens=[1] * 70))
        try:
            run_as(ALICE, with_tokens)
            raise AssertionError("not refused")
        except Refused as e:
            assert (e.error, e.parameters) == ("io.residentd.ContextTooLong", {"limit": 50, "given": 71}), e


def context_tokens():
    need_root()
    with daemon({"default": {"context_tokens": 80}}) as d:
        d.wait_state("ready")
        assert refused(d, "ContextTooLong", "long 80") == {"limit": 80, "given": 81}
        ask(d, "long 79")


def total_of_a_group_holds_for_all_its_members():
    need_root()
    group = grp.getgrgid(ALICE).gr_name
    with daemon({"groups": {group: {"total": {"tokens_per_day": 60, "concurrent": 1, "queued": 1}}}}) as d:
        d.wait_state("ready")

        def as_member(uid, prompt, **parameters):
            def go():
                with d.client() as c:
                    return c.complete(prompt, **parameters)[1]["finish"]
            return as_user(uid, go, gid=ALICE)
        running = as_member(BOB, "count 15", max_tokens=15)
        wait_for(lambda: len(requests(d)) == 1, "the first to run")
        waiting = as_member(ALICE, "count 2", max_tokens=2)
        wait_for(lambda: sorted(r["state"] for r in requests(d)) == ["held", "running"], "the second to wait")
        try:
            join_user(as_member(BOB, "count 2", max_tokens=2))
            raise AssertionError("not refused")
        except Refused as e:
            assert e.parameters == {"quota": f"groups.{group}.total.queued", "limit": 1, "used": 2}, e
        # Somebody else is not of the group.
        ask(d, "count 2", uid=3, max_tokens=2)
        assert join_user(running) == join_user(waiting) == "length"
        groups = usage(d, 0, uid=-1)["groups"]
        assert [(g["name"], g["used"]["tokens_per_day"]) for g in groups] == [(group, 19)], groups
        try:
            join_user(as_member(BOB, "count 50", max_tokens=50))
            raise AssertionError("not refused")
        except Refused as e:
            assert e.parameters["quota"] == f"groups.{group}.total.tokens_per_day", e
            assert e.parameters["limit"] == 60 and e.parameters["retry_after_ms"] <= 90000000, e


def total_of_a_group_holds_for_its_members_connections():
    need_root()
    group = grp.getgrgid(ALICE).gr_name
    with daemon({"groups": {group: {"total": {"connections": 3}}}}) as d:
        d.wait_state("ready")

        def two():
            with d.client() as one, d.client() as other:
                return [len(c.call("Inference.ListModels")["models"]) for c in (one, other)]
        with d.client() as c:
            with member_client(d) as mine:
                mine.call("Inference.ListModels")
                assert run_as(BOB, two, gid=ALICE) == [1, 1]
                with member_client(d) as second, member_client(d) as third:
                    for other in (second, third):
                        other.call("Inference.ListModels")
                    try:
                        run_as(BOB, two, gid=ALICE)
                        raise AssertionError("not refused")
                    except Refused as e:
                        assert e.error == "io.residentd.QuotaExceeded", e
                        assert e.parameters == {"quota": f"groups.{group}.total.connections", "limit": 3, "used": 4}, e
                    # Who is not of the group is not held up, and what is closed is given back.
                    assert run_as(3, two) == [1, 1]
                    groups = c.call("Usage.Get", uid=-1)["groups"]
                    assert [g["used"]["connections"] for g in groups] == [3], groups
            wait_for(lambda: c.call("Usage.Get", uid=-1)["groups"][0]["used"]["connections"] == 0, "the connections")


def member_client(d):
    os.setegid(ALICE)
    try:
        return d.client()
    finally:
        os.setegid(0)


def a_full_queue_says_when_there_is_room():
    need_root()
    with daemon({"default": {"concurrent": 1, "queued": 1}}) as d:
        d.wait_state("ready")
        handles = []

        def go(prompt):
            def call():
                with d.client() as c:
                    return c.complete(prompt, max_tokens=60)[1]["finish"]
            return call
        handles.append(as_user(ALICE, go("count 60")))
        wait_for(lambda: [r["output_tokens"] > 2 for r in requests(d)] == [True], "the first to say something")
        handles.append(as_user(ALICE, go("count 2")))
        wait_for(lambda: len(requests(d)) == 2, "the second to wait")
        refusal = refused(d, "QueueFull", "count 2", max_tokens=2)
        assert refusal["limit"] == 1 and refusal["retry_after_ms"] > 0, refusal
        wait_and_ask(d, refusal, prompt="count 2", max_tokens=2)
        for h in handles:
            join_user(h)


def each_quota_says_which_it_is_and_by_how_much():
    """Every key of the policy that refuses, with what it refuses with: nothing more, nothing less."""
    need_root()
    group = grp.getgrgid(ALICE).gr_name

    def once(d, n):
        for _ in range(n):
            ask(d, max_tokens=1)

    def spend(d):
        ask(d, "count 20", max_tokens=20)

    # What the quota is, what was before, the call; the error, its parameters, and the longest time to wait, in ms.
    rows = [
        ({"concurrent": 0}, None, {}, "QuotaExceeded", {"quota": "concurrent", "limit": 0, "used": 0}, None),
        ({"concurrent": 1, "queued": 0}, hang, {}, "QueueFull", {"limit": 0}, None),
        ({"requests_per_minute": 2}, lambda d: once(d, 2), {}, "QuotaExceeded",
         {"quota": "requests_per_minute", "limit": 2, "used": 3}, 30000),
        ({"tokens_per_minute": 120}, hang, {"prompt_tokens": [1] * 3, "max_tokens": 17}, "QuotaExceeded",
         {"quota": "tokens_per_minute", "limit": 120}, 5000),
        ({"tokens_per_day": 30}, spend, {"prompt_tokens": [1] * 3, "max_tokens": 17},
         "QuotaExceeded", {"quota": "tokens_per_day", "limit": 30, "used": 41}, 90000000),
        ({"context_tokens": 80}, None, {"prompt": "long 80"}, "ContextTooLong", {"limit": 80, "given": 81}, None),
        ({"priority_max": 3}, None, {"priority": 4}, "QuotaExceeded", {"quota": "priority_max", "limit": 3, "used": 4}, None),
    ]
    for quotas, before, call, error, parameters, wait_ms in rows:
        for prefix in ("", f"groups.{group}.total."):
            # The others have tests of their own as totals, or none: what a single request may be.
            if prefix and wait_ms is None:
                continue
            with daemon({"groups": {group: {"total": quotas}}} if prefix else {"default": quotas}) as d:
                d.wait_state("ready")
                held = before(d) if before else None
                said = refused_call(d, error, call)
                expected = dict(parameters)
                if prefix:
                    expected["quota"] = prefix + expected["quota"]
                retry_after_ms = said.pop("retry_after_ms", None)
                # Of a bucket that runs off meanwhile only the limit is certain.
                if "used" not in expected and expected.get("quota"):
                    assert said.pop("used") > said["limit"], said
                assert said == expected, (said, expected)
                if wait_ms is None:
                    assert retry_after_ms is None, said
                else:
                    assert 0 < retry_after_ms <= wait_ms, (retry_after_ms, said)
                    if retry_after_ms <= 5000:
                        time.sleep(retry_after_ms / 1000)
                        ask_call(d, call)
                if held:
                    held.close()


def hang(d):
    os.seteuid(ALICE)
    try:
        c = d.client()
    finally:
        os.seteuid(0)
    next(c.stream("Inference.Complete", model="m", prompt="hang", max_tokens=100))
    return c


def ask_call(d, call):
    def go():
        with d.client() as c:
            return c.call("Inference.Complete", **{"model": "m", **({} if "prompt_tokens" in call else {"prompt": "one"}), **call})
    return run_as(ALICE, go)


def refused_call(d, error, call):
    name, said = refusal(lambda: ask_call(d, call))
    assert name == "io.residentd." + error, (name, said)
    return said


def those_who_are_held_hear_when_their_turn_comes():
    """Once somebody has ended there is something to go by: the further back, the later."""
    need_root()
    with daemon({"default": {"concurrent": 1, "queued": 8}}) as d:
        d.wait_state("ready")
        ask(d, "count 40", max_tokens=40)
        clients = [d.client() for _ in range(6)]
        streams, told = [], []
        for c in clients:
            stream = c.stream("Inference.Complete", model="m", prompt="count 120", max_tokens=120)
            streams.append(stream)
            piece = next(stream)
            if "queue" in piece:
                told.append((piece["queue"]["position"], piece["queue"]["eta_ms"]))
        assert [position for position, _ in told] == [1, 2, 3, 4, 5], told
        etas = [eta for _, eta in told]
        assert etas[0] >= 0 and all(b > a for a, b in zip(etas, etas[1:])), told
        for c in clients:
            c.close()


def requests(d):
    with d.client() as c:
        return c.call("Usage.Requests", uid=-1)["requests"]


def kv_holds_for_all_models_together():
    need_root()
    # A page of 32 tokens is 256 bytes: 40 tokens of answer and the prompt are the whole context, 4 pages.
    with daemon({"default": {"kv": 2047}}, models=("m", "n")) as d:
        d.wait_state("ready")
        d.wait_state("ready", "n")
        with d.client() as a, d.client() as b, d.client() as c:
            first = a.stream("Inference.Complete", model="m", prompt="count 30")
            next(first)
            assert usage(d, 0)["used"]["kv"] == 3 * 256
            with d.client() as e:
                users = e.call("Models.Status")["users"]
                assert [u["kv_bytes"] for u in users if u["uid"] == 0] == [768], users
            # With the same model the worker counts, and it can run at once; with another it might not fit.
            second = b.stream("Inference.Complete", model="m", prompt="count 5")
            next(second)
            third = c.stream("Inference.Complete", model="n", prompt="count 5")
            next(third)
            states = {r["model"]: r["state"] for r in requests(d) if r["state"] == "held"}
            assert states == {"n": "held"}, requests(d)
            list(first), list(second)
            assert list(third)[-1]["finish"] == "length"
        wait_for(lambda: usage(d, 0)["used"]["kv"] == 0, "the memory to be free")


def usage_shows_limits_used_left_and_renewal():
    need_root()
    with daemon({"default": {"concurrent": 2, "requests_per_minute": 60, "tokens_per_day": 1000},
                 "users": {name(BOB): {"tokens_per_day": 5000}}}) as d:
        d.wait_state("ready")
        ask(d, "count 9", max_tokens=9)
        ask(d, "count 4", uid=BOB, max_tokens=4)
        mine = usage(d)
        assert mine["uid"] == ALICE and mine["name"] == name(ALICE), mine
        assert mine["limits"] == {"concurrent": 2, "requests_per_minute": 60, "tokens_per_day": 1000, "weight": 100,
                                  "priority_max": 0}, mine
        assert mine["used"]["tokens_per_day"] == 10 and mine["used"]["requests_per_minute"] == 1, mine
        assert mine["used"]["connections"] == 1 and mine["used"]["concurrent"] == 0, mine
        assert 0 < mine["renews_ms"]["requests_per_minute"] <= 1000, mine
        # Of others only an administrator hears.
        for uid in (BOB, -1):
            try:
                usage(d, ALICE, uid=uid)
                raise AssertionError("told of others")
            except Refused as e:
                assert e.error == "io.residentd.NotAllowed" and e.parameters == {"reason": "admins_only"}, e
        theirs = usage(d, 0, uid=BOB)
        assert theirs["limits"]["tokens_per_day"] == 5000 and theirs["used"]["tokens_per_day"] == 5, theirs
        everybody = usage(d, 0, uid=-1)
        assert [u["uid"] for u in everybody["users"]] == [0, ALICE, BOB] and everybody["groups"] == [], everybody
        assert everybody["users"][1]["limits"] == mine["limits"], everybody

        def ctl(*arguments):
            return subprocess.run([RESIDENTCTL, "--socket", d.socket, *arguments], check=True, capture_output=True,
                                  text=True).stdout
        table = ctl("usage", "all")
        assert any(line.split() == [name(BOB), "tokens_per_day", "5", "5000", "4995", *line.split()[5:]]
                   for line in table.splitlines()), table
        assert json.loads(ctl("--json", "usage", str(BOB)))["limits"]["tokens_per_day"] == 5000


PRIMER = os.path.join(SOURCE, "primer", "primer.gguf")


def real(quotas):
    return Daemon({"version": 1, "quotas": quotas,
                   "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}}},
                  worker=REAL_WORKER, files={"m.gguf": PRIMER})


def a_real_prompt_is_counted_exactly():
    with real({"default": {"context_tokens": 40}}) as d:
        d.wait_state("ready")
        with d.client() as c:
            text = "one two three four five six seven eight"
            n = len(c.call("Inference.Tokenize", model="m", text=text, special=True)["tokens"])
            assert n < 40
            # The answer ends where both reach the limit, and a longer prompt is refused with its length.
            _, last = c.complete(text, temperature=0)
            assert last["usage"]["prompt_tokens"] == n, (last, n)
            assert n + last["usage"]["output_tokens"] <= 40, last
            long_text = " ".join([text] * 20)
            n_long = len(c.call("Inference.Tokenize", model="m", text=long_text, special=True)["tokens"])
            try:
                c.complete(long_text)
                raise AssertionError("not refused")
            except Refused as e:
                assert (e.error, e.parameters) == ("io.residentd.ContextTooLong", {"limit": 40, "given": n_long + 1}), e
            try:
                c.call("Inference.Embed", model="m", input=[text] * 10)
                raise AssertionError("not refused")
            except Refused as e:
                assert e.parameters["limit"] == 40 and e.parameters["given"] > 40, e


def usage_of_a_real_answer_is_what_the_ledger_and_the_quota_say():
    with real({"default": {"tokens_per_day": 100000}}) as d:
        d.wait_state("ready")
        with d.client() as c:
            told = [c.complete(f"Tell me about {what}.", max_tokens=12)[1]["usage"] for what in ("cats", "dogs", "cats")]
            computed = sum(u["prompt_tokens"] - u["cached_tokens"] + u["output_tokens"] for u in told)
            assert c.call("Usage.Get")["used"]["tokens_per_day"] == computed, told
            stream = c.stream("Inference.Complete", model="m", prompt="Count to a thousand.", max_tokens=400,
                              json_schema={"type": "string", "minLength": 4000})
            next(stream), next(stream)
            assert usage(d, 0)["used"]["kv"] > 0
        # Gone in the middle of it: counted as far as it came.
        path = f"file:{d.dir}/usage.sqlite?mode=ro"

        def rows():
            with sqlite3.connect(path, uri=True) as db:
                return db.execute("SELECT sum(requests), sum(prompt_tokens - cached_tokens + output_tokens), "
                                  "sum(duration_us) FROM usage").fetchone()
        wait_for(lambda: rows()[0] == 4, "the request that was left")
        n, tokens, duration_us = rows()
        assert tokens > computed and duration_us > 0, (tokens, computed)
        assert usage(d, 0)["used"]["tokens_per_day"] == tokens
        wait_for(lambda: usage(d, 0)["used"]["kv"] == 0, "its memory")


if __name__ == "__main__":
    main([requests_per_minute,
          tokens_are_reserved_while_a_request_runs,
          a_client_that_waits_for_its_tokens_succeeds,
          tokens_per_day_come_back_at_local_midnight,
          tokens_per_day_outlive_a_restart,
          what_can_never_fit_is_too_long,
          context_tokens,
          total_of_a_group_holds_for_all_its_members,
          total_of_a_group_holds_for_its_members_connections,
          a_full_queue_says_when_there_is_room,
          each_quota_says_which_it_is_and_by_how_much,
          those_who_are_held_hear_when_their_turn_comes,
          kv_holds_for_all_models_together,
          usage_shows_limits_used_left_and_renewal,
          a_real_prompt_is_counted_exactly,
          usage_of_a_real_answer_is_what_the_ledger_and_the_quota_say])
