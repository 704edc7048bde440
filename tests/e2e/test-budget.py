#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The budget that all models have together: what counts, and from when until when."""

import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Client, Daemon, Refused, is_alive, main, need_locking, need_root, run_as, wait_for  # noqa: E402

ALICE = 1
MB = 1 << 20
SIZE = 2 * MB + 4096
CONTENT = os.urandom(SIZE)
# What the fake worker says that it takes beside the file (fake-worker.c).
FAKE = 4096 + 8192


def model(path, ram="lock", when="on-demand", **more):
    return {"path": f"@DIR@/{path}.gguf", "residency": {"ram": ram, "when": when, **more}}


def policy(budget, **models):
    return {"host": {"ram": {"budget": budget}}, "models": {name.replace("_", "-"): m for name, m in models.items()}}


def daemon(p):
    names = {os.path.basename(m["path"]) for m in p["models"].values()}
    return Daemon(p, files={name: CONTENT for name in names})


def used(c):
    return c.call("Models.Status")["ram"]["used_bytes"]


def refused_load(c, name):
    try:
        c.call("Models.Load", model=name)
    except Refused as e:
        assert e.error == "io.residentd.InsufficientMemory", e
        return e.parameters
    raise AssertionError("it was loaded")


def a_file_that_two_models_lock_counts_once():
    """Locked in place it is in memory once: a draft model that is loaded for users as well, or two ways to use a file."""
    need_locking(4 * SIZE)
    with daemon(policy(SIZE + 2 * FAKE, a=model("m"), b=model("m"), c=model("c"))) as d, d.client() as c:
        for name in "ab":
            assert c.call("Models.Load", model=name)["state"] == "ready"
        assert d.status("a")["state"] == "ready" and used(c) == SIZE + 2 * FAKE, used(c)
        c.call("Models.Unload", model="a")
        wait_for(lambda: used(c) == SIZE + FAKE, "what only one had to be given back")
        # The other's file is another: the first has to leave for it.
        c.call("Models.Load", model="c")
        assert d.status("b")["state"] == "absent" and used(c) == SIZE + FAKE, used(c)


def suggestions_count_what_stays_for_others():
    """What another model has of the file anyway is not asked for again; another file would have to be."""
    need_locking(4 * SIZE)
    p = policy(SIZE + 2 * FAKE - 2048, a=model("m", when="always"), b=model("m"), c=model("c"))
    with daemon(p) as d, d.client() as c:
        d.wait_state("ready", "a")
        told = refused_load(c, "b")
        assert (told["needed"], told["available"]) == (FAKE, FAKE - 2048), told
        assert told["suggestions"] == [{"change": "sequences", "value": 2}], told
        # It is as good as it says, and no better: with three a fourth of the cache is too much.
        for n, fits in ((3, False), (2, True)):
            p["models"]["b"]["context"] = {"sequences": n}
            d.write_policy(p)
            c.call("Models.Reload")
            if fits:
                assert c.call("Models.Load", model="b")["state"] == "ready"
            else:
                assert refused_load(c, "b")["needed"] == FAKE - 1024
        # Its own file is another: nothing makes that fit beside the first.
        told = refused_load(c, "c")
        assert told["needed"] == SIZE + FAKE and told["suggestions"] == [], told


def plan(c, name, **limits):
    """Whether it fits, and who would leave for it."""
    reply = c.call("Models.Plan", model=name, **limits)
    return reply["plan"]["fits"], reply["leave"]


def states(c):
    return {m["name"]: m["state"] for m in c.call("Models.Status")["models"]}


def loaded_as_planned(c, name):
    """Loads it: what the plan said is what happens."""
    before, (fits, leave) = states(c), plan(c, name)
    assert fits and states(c) == before, (leave, before, states(c))
    c.call("Models.Load", model=name)
    went = sorted(n for n, state in states(c).items() if state == "absent" and before[n] == "ready")
    assert went == leave, (went, leave)
    return leave


def a_plan_names_those_that_a_load_has_leave():
    """Lowest priority, then least recently used; never a pinned one, never one with a request, and nobody in vain."""
    need_locking(8 * SIZE)
    each = SIZE + FAKE
    p = policy(4 * each, pinned=model("p", when="always"), low=model("a"), old=model("b"), new=model("c"), x=model("d"),
               two=model("e"), same=model("c"), mapped=model("d", ram="map"))
    for name in ("low", "old", "new", "x"):
        p["models"][name]["priority"] = 1 if name in ("old", "new") else 0
    p["models"]["four"] = {**model("f"), "draft": "x"}
    p["models"]["copied"] = model("c", ram="copy")
    p["models"]["part"] = model("d", limit=1 * MB)
    with daemon(p) as d, d.client() as c, d.client() as other:
        d.wait_state("ready", "pinned")
        assert plan(c, "x") == (True, [])
        for name in ("old", "low", "new"):
            c.call("Models.Load", model=name)
        # No room for one more, but for what is only mapped, and what another has already, there is nearly.
        assert plan(c, "x") == (True, ["low"]), plan(c, "x")
        assert plan(c, "mapped") == (True, ["low"]) and plan(c, "same") == (True, ["low"])
        assert plan(c, "part") == (True, ["low"]) and plan(c, "copied") == (True, ["low"])
        p["host"]["ram"]["budget"] = 4 * each + FAKE
        d.write_policy(p)
        c.call("Models.Reload")
        assert plan(c, "mapped") == (True, []) and plan(c, "same") == (True, []) and plan(c, "x") == (True, ["low"])
        assert plan(c, "part") == plan(c, "copied") == (True, ["low"])
        # Its own file and its draft's.
        assert plan(c, "four") == (True, ["low", "old"]), plan(c, "four")
        stream = other.stream("Inference.Complete", model="low", prompt="count 200")
        next(piece for piece in stream if piece["text"])
        assert plan(c, "x") == (True, ["old"]), plan(c, "x")
        assert plan(c, "four") == (True, ["new", "old"]), plan(c, "four")
        p["models"]["new"]["residency"]["when"] = "always"
        d.write_policy(p)
        c.call("Models.Reload")
        # Nothing helps: nobody leaves in vain.
        assert plan(c, "four") == (False, []), plan(c, "four")
        refused_load(c, "four")
        assert states(c)["old"] == "ready"
        assert loaded_as_planned(c, "x") == ["old"]
        list(stream)
        assert loaded_as_planned(c, "old") == ["x"]  # of the same priority as "low", which was used later
        # Other limits than those of now: nobody is asked to leave.
        assert plan(c, "two", ram_bytes=each) == (True, []) and plan(c, "two", ram_bytes=each - 1) == (False, [])
        assert plan(c, "four", ram_bytes=2 * SIZE + FAKE) == (True, [])
        assert plan(c, "four", ram_bytes=2 * SIZE + FAKE - 1) == (False, [])
        assert plan(c, "part", ram_bytes=MB + FAKE) == (True, [])
        assert plan(c, "part", ram_bytes=MB + FAKE - 1) == (False, [])


def a_plan_names_no_models_that_the_user_may_not_use():
    need_root()
    need_locking(4 * SIZE)
    p = policy(SIZE + FAKE, mine=model("a"), theirs=model("b"))
    p["models"]["theirs"]["allow"] = {"users": [0]}
    p["admins"] = {"users": [0]}
    with daemon(p) as d, d.client() as c:
        c.call("Models.Load", model="theirs")
        assert plan(c, "mine") == (True, ["theirs"])

        def ask():
            with Client(d.socket) as alice:
                reply = alice.call("Models.Plan", model="mine")
                assert reply["leave"] == [] and reply["plan"]["fits"], reply
                assert "models that this user may not use would leave memory for it: 1" in reply["plan"]["reasons"], reply
        run_as(ALICE, ask)


def each_copy_of_a_file_counts():
    need_locking(4 * SIZE)
    with daemon(policy(2 * SIZE + 2 * FAKE - 1, a=model("m", ram="copy", when="always"), b=model("m", ram="copy"))) as d:
        d.wait_state("ready", "a")
        with d.client() as c:
            told = refused_load(c, "b")
            assert (told["needed"], told["available"]) == (SIZE + FAKE, SIZE + FAKE - 1), told


def what_a_worker_has_counts_until_it_has_ended():
    with daemon(policy(FAKE, lingers=model("m", ram="map"), next=model("c", ram="map"))) as d, d.client() as c:
        c.call("Models.Load", model="lingers")
        worker = d.status("lingers")["worker_pid"]
        c.call("Models.Unload", model="lingers")
        assert d.status("lingers")["state"] == "absent" and used(c) == FAKE, used(c)
        assert is_alive(worker)
        assert c.call("Models.Load", model="next")["state"] == "ready"
        assert not is_alive(worker), "there were two, where the budget has room for one"
        assert used(c) == FAKE, used(c)


def a_worker_is_followed_when_it_has_ended():
    with daemon(policy(FAKE, lingers=model("m", ram="map", when="always"))) as d, d.client() as c:
        before = d.wait_state("ready", "lingers")["worker_pid"]
        try:
            c.complete("break", model="lingers")
        except Refused as e:
            assert e.error == "io.residentd.ModelUnavailable", e
        else:
            raise AssertionError("answered")
        assert is_alive(before)
        while True:
            now, alive = d.status("lingers").get("worker_pid"), is_alive(before)
            if now not in (None, before):
                break
        assert not alive, "there were two, where the budget has room for one"
        d.wait_state("ready", "lingers")


def loads_that_race_stay_within_the_budget():
    """One that is being loaded for somebody stays; who comes too late is told how much there is."""
    need_locking(4 * SIZE)
    with daemon(policy(SIZE + FAKE, a=model("a"), b=model("b"), c=model("c"))) as d:
        seen, over, answers, refusals = [], threading.Event(), [], []

        def watch():
            with d.client() as c:
                while not over.is_set():
                    seen.append(used(c))

        def ask(name):
            with d.client() as c:
                for _ in range(10):
                    try:
                        answers.append(c.complete("hello", model=name)[0])
                    except Refused as e:
                        refusals.append((e.error, e.parameters["needed"], e.parameters["available"]))
        watching = threading.Thread(target=watch)
        asking = [threading.Thread(target=ask, args=(name,)) for name in "abcabc"]
        for t in [watching, *asking]:
            t.start()
        for t in asking:
            t.join()
        over.set()
        watching.join()
        assert len(answers) + len(refusals) == 60 and len(answers) >= 10, (answers, refusals)
        assert set(refusals) <= {("io.residentd.InsufficientMemory", SIZE + FAKE, 0)}, refusals
        assert max(seen) == SIZE + FAKE, max(seen)


def a_smaller_budget_has_idle_models_leave_and_pinned_ones_stay():
    need_locking(4 * SIZE)
    p = policy(4 * SIZE, pinned=model("a", when="always"), busy=model("b"), idle=model("c"))
    with daemon(p) as d, d.client() as c, d.client() as other:
        d.wait_state("ready", "pinned")
        for name in ("busy", "idle"):
            c.call("Models.Load", model=name)
        stream = other.stream("Inference.Complete", model="busy", prompt="count 60")
        next(piece for piece in stream if piece["text"])
        p["host"]["ram"]["budget"] = SIZE // 2
        d.write_policy(json.dumps(p))
        c.call("Models.Reload")
        assert "host.ram.budget is 1.0M now, and the models in memory take 6.0M" in d.log(), d.log()
        wait_for(lambda: d.status("idle")["state"] == "absent", "the idle one to leave")
        assert d.status("busy")["state"] == "ready"
        # One that answers leaves when it has, a pinned one never.
        assert list(stream)[-1]["usage"]["output_tokens"] == 60
        wait_for(lambda: d.status("busy")["state"] == "absent", "the other one to leave")
        time.sleep(1.5)
        assert d.status("pinned")["state"] == "ready" and used(c) == SIZE + FAKE, used(c)
        refused_load(c, "idle")
        p["host"]["ram"]["budget"] = 2 * (SIZE + FAKE)
        d.write_policy(json.dumps(p))
        c.call("Models.Reload")
        assert c.call("Models.Load", model="idle")["state"] == "ready"


if __name__ == "__main__":
    main([
        a_file_that_two_models_lock_counts_once,
        suggestions_count_what_stays_for_others,
        a_plan_names_those_that_a_load_has_leave,
        a_plan_names_no_models_that_the_user_may_not_use,
        each_copy_of_a_file_counts,
        what_a_worker_has_counts_until_it_has_ended,
        a_worker_is_followed_when_it_has_ended,
        loads_that_race_stay_within_the_budget,
        a_smaller_budget_has_idle_models_leave_and_pinned_ones_stay,
    ])
