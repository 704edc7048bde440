#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""residentd as a process, with real files, users and sockets, and a worker that does what the prompt says."""

import hashlib
import os
import signal
import stat
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *  # noqa: E402,F403

MB = 1 << 20
SIZE = 5 * MB + 4321  # no multiple of a page
CONTENT = os.urandom(SIZE)
NOBODY, DAEMON_USER, ALICE, BOB = 65534, 65534, 1, 2


def policy(when="always", ram="lock", path="@DIR@/m.gguf", **more):
    model = {"path": path, "residency": {"ram": ram, "when": when}, **more}
    return {"models": {"m": model}}


def daemon(p=None, **options):
    options.setdefault("files", {"m.gguf": CONTENT})
    return Daemon(p or policy(), **options)


def whole_pages(n):
    return (n + 4095) // 4096 * 4096


def until_it_speaks(stream):
    """The first piece with text: the answer is under way."""
    return next(piece for piece in stream if piece["text"])


def pinned_model_is_locked_in_daemon_and_worker():
    need_locking(2 * SIZE)
    with daemon() as d:
        status = d.wait_state("ready")
        assert status["ram_locked_bytes"] == whole_pages(SIZE), status
        assert status["ram_mapped_bytes"] == SIZE, status
        for pid in (d.process.pid, status["worker_pid"]):
            m = smaps(pid, d.dir + "/m.gguf")
            assert m["found"] and m["locked"] and m["rss"] == m["size"] == whole_pages(SIZE), (pid, m)


def a_workers_lines_are_written_with_what_they_are_about():
    need_root()
    with daemon() as d:
        d.wait_state("ready")
        def ask():
            with d.client() as c:
                first = next(iter(c.stream("Inference.Complete", model="m", prompt="log 2")))
                return first["request"]
        request = run_as(ALICE, ask)
        lines = [x for x in d.log().splitlines() if "worker of m: " in x]
        # What could look like a line of its own is none.
        assert [x.split(" pid=")[0] for x in lines] == [
            "residentd: worker of m: about?it model=m uid=%d request=%d" % (ALICE, request)] * 2, lines


def a_worker_can_not_fill_the_log():
    with daemon() as d:
        d.wait_state("ready")
        with d.client() as c:
            for _ in range(3):
                c.complete("log 50")
        lines = [x for x in d.log().splitlines() if "worker of m: " in x]
        # LIMIT_WORKER_LINES, of which the last says that there were more.
        assert len(lines) == 60 and "left out" in lines[-1] and "left out" not in lines[-2], lines[-3:]


def a_worker_reads_each_page_where_the_daemon_has_not():
    need_locking(2 * SIZE)
    with daemon(policy(ram="lock")) as d:
        worker = os.path.join(d.dir, "worker")
        with open(worker, "w") as f:
            f.write(f"#!/bin/sh\nFAKE_WORKER=config exec {FAKE_WORKER} \"$@\" 2>>{d.dir}/config\n")
        os.chmod(worker, 0o755)
        d.worker = worker
        for ram, touches in (("lock", "false"), ("copy", "true"), ("map", "true")):
            d.write_policy(policy(ram=ram))
            d.kill()
            d.start()
            d.wait_state("ready")
            with open(d.dir + "/config") as f:
                config = f.read()
            assert config.count('"touch":') == 1 and f'"touch":{touches}' in config.replace(" ", ""), config
            os.unlink(d.dir + "/config")


def more_users_add_no_copy():
    need_locking(2 * SIZE)
    with daemon() as d:
        pids = [d.process.pid, d.wait_state("ready")["worker_pid"]]
        clients = [d.client() for _ in range(20)]
        texts = [c.complete("hello")[0] for c in clients]
        assert texts == ["hello"] * 20
        pss = sum(smaps(pid, d.dir + "/m.gguf")["pss"] for pid in pids)
        # Other processes may map the file too and take a part of it; nobody may add one.
        assert pss <= whole_pages(SIZE), pss
        for c in clients:
            c.close()


def too_small_a_lock_limit_says_what_to_change():
    uid = NOBODY if os.geteuid() == 0 else None
    if uid is None and may_lock(1 << 60):
        raise Skip("may lock anything here")
    with daemon(uid=uid, memlock=1 * MB) as d:
        reason = d.wait_state("failed")["reason"]
        for words in ("RLIMIT_MEMLOCK is 1.0M", "CAP_IPC_LOCK", "LimitMEMLOCK=infinity", "AmbientCapabilities="):
            assert words in reason, reason
        with d.client() as c:
            try:
                c.complete("hello")
            except Refused as e:
                assert e.error == "io.residentd.ModelUnavailable", e
                assert "LimitMEMLOCK" in e.parameters["reason"] and e.parameters["retry_after_ms"] > 0, e
            else:
                raise AssertionError("answered")


def map_needs_no_privilege():
    uid = NOBODY if os.geteuid() == 0 else None
    with daemon(policy(ram="map"), uid=uid, memlock=0) as d:
        assert d.wait_state("ready")["ram_locked_bytes"] == 0
        with d.client() as c:
            assert c.complete("hello")[0] == "hello"


def two_users_are_answered_at_once_and_logged_by_uid():
    need_root()
    with daemon(policy(ram="map"), uid=DAEMON_USER) as d:
        d.wait_state("ready")

        def ask(text):
            with Client(d.socket) as c:
                return c.complete(text)[0]

        handles = [as_user(ALICE, lambda: ask("count 20")), as_user(BOB, lambda: ask("count 30"))]
        assert join_user(handles[0]).split() == [str(i) for i in range(1, 21)]
        assert join_user(handles[1]).split() == [str(i) for i in range(1, 31)]
        ended = [line for line in d.log().splitlines() if "request ended: length" in line]
        assert sorted(re.search(r"(\d+) output tokens.*uid=(\d+)", line).groups() for line in ended) == [
            ("20", str(ALICE)), ("30", str(BOB))], ended


def who_is_not_allowed_is_refused_and_sees_nothing():
    need_root()
    p = policy(ram="map", allow={"users": [ALICE]})
    with daemon(p, uid=DAEMON_USER) as d:
        def ask():
            with Client(d.socket) as c:
                names = [m["name"] for m in c.call("Inference.ListModels")["models"]]
                return names, c.complete("hello")[0]

        assert run_as(ALICE, ask) == [["m"], "hello"]
        try:
            run_as(BOB, ask)
        except Refused as e:
            assert e.error == "io.residentd.NotAllowed" and e.parameters["reason"] == "policy", e
        else:
            raise AssertionError("answered")

        def names():
            with Client(d.socket) as c:
                return c.call("Inference.ListModels")["models"]

        assert run_as(BOB, names) == []


def killed_worker_takes_nobody_with_it_and_nothing_is_read_again():
    p = policy(ram="lock" if may_lock(2 * SIZE) else "map")
    p["models"]["other"] = {"path": "@DIR@/m.gguf"}
    with daemon(p) as d:
        before = d.wait_state("ready")
        with d.client() as victim, d.client() as other:
            stream = victim.stream("Inference.Complete", model="m", prompt="count 10000")
            bystander = other.stream("Inference.Complete", model="other", prompt="count 100")
            until_it_speaks(stream)
            until_it_speaks(bystander)
            mapped = mapping_of(d.process.pid, d.dir + "/m.gguf")
            os.kill(before["worker_pid"], signal.SIGKILL)
            try:
                for _ in stream:
                    pass
            except Refused as e:
                assert e.error == "io.residentd.ModelUnavailable", e
                assert "signal 9" in e.parameters["reason"], e
                wait_ms = e.parameters["retry_after_ms"]
                assert 0 < wait_ms < 60000, e
            else:
                raise AssertionError("the answer went on")
            assert list(bystander)[-1]["usage"]["output_tokens"] == 100
            after = d.wait_state("ready")
            assert after["worker_pid"] != before["worker_pid"]
            assert after["ram_locked_bytes"] == before["ram_locked_bytes"]
            # The very same mapping is still there, so nothing had to be read.
            assert mapping_of(d.process.pid, d.dir + "/m.gguf") == mapped
            assert victim.complete("hello")[0] == "hello"
        assert not is_alive(before["worker_pid"])


def mapping_of(pid, path):
    """Start, end and so on of the mappings of a file, of which "other" has one, too."""
    with open_proc(pid, "maps") as f:
        lines = sorted(line.split()[0] for line in f if line.rstrip().endswith(path))
    assert lines
    return lines


def requests_wait_while_a_worker_is_started_again():
    with daemon(policy(ram="map")) as d:
        before = d.wait_state("ready")
        os.kill(before["worker_pid"], signal.SIGKILL)
        wait_for(lambda: d.status().get("worker_pid") != before["worker_pid"], "the end of the worker to be seen")
        with d.client() as c:
            assert c.complete("hello")[0] == "hello"


def worker_that_keeps_crashing_is_given_up():
    with daemon({"models": {"crash-at-load": {"path": "@DIR@/m.gguf", "residency": {"when": "always"}}}}) as d:
        status = d.wait_state("failed", "crash-at-load")
        assert "signal 9" in status["reason"] and "in a row" in status["reason"], status
        assert d.log().count("was killed by signal 9") >= 3
        with d.client() as c:
            try:
                c.complete("hello", model="crash-at-load")
            except Refused as e:
                assert e.error == "io.residentd.ModelUnavailable" and e.parameters["retry_after_ms"] > 1000, e
            else:
                raise AssertionError("answered")
        assert smaps_absent(d.process.pid, d.dir + "/m.gguf")


def smaps_absent(pid, path):
    return not smaps(pid, path)["found"]


def worker_that_breaks_the_protocol_is_replaced():
    with daemon(policy(ram="map")) as d:
        before = d.wait_state("ready")["worker_pid"]
        with d.client() as c:
            try:
                c.complete("break")
            except Refused as e:
                assert e.error == "io.residentd.ModelUnavailable", e
                assert "protocol" in e.parameters["reason"], e
            else:
                raise AssertionError("answered")
            assert c.complete("hello")[0] == "hello"
        assert d.wait_state("ready")["worker_pid"] != before
        wait_for(lambda: not is_alive(before), "the old worker to end")


def invalid_model_fails_with_what_the_worker_said():
    with daemon({"models": {"invalid": {"path": "@DIR@/m.gguf"}}}) as d:
        with d.client() as c:
            try:
                c.complete("hello", model="invalid")
            except Refused as e:
                assert e.error == "io.residentd.ModelInvalid", e
                assert e.parameters == {"model": "invalid", "reason": "no such magic", "offset": 4}, e
            else:
                raise AssertionError("answered")
        assert d.status("invalid")["state"] == "failed"


def failed_request_carries_the_workers_fault():
    with daemon(policy(ram="map")) as d, d.client() as c:
        try:
            c.complete("fail")
        except Refused as e:
            assert e.error == "io.residentd.ContextTooLong" and e.parameters == {"limit": 1, "given": 2}, e
        else:
            raise AssertionError("answered")
        assert c.complete("hello")[0] == "hello"


def closed_connection_stops_the_work():
    with daemon(policy(ram="map")) as d:
        d.wait_state("ready")
        c = d.client()
        stream = c.stream("Inference.Complete", model="m", prompt="count 1000000")
        until_it_speaks(stream)
        c.close()
        wait_for(lambda: "fake-worker: cancelled 1" in d.log(), "the cancellation to reach the worker")
        with d.client() as admin:
            wait_for(lambda: admin.call("Usage.Requests")["requests"] == [], "the request to be gone")


def cancel_by_id_ends_with_cancelled():
    with daemon(policy(ram="map")) as d, d.client() as c, d.client() as other:
        stream = c.stream("Inference.Complete", model="m", prompt="count 1000000")
        request = until_it_speaks(stream)["request"]
        other.call("Usage.Cancel", request=request)
        try:
            for _ in stream:
                pass
        except Refused as e:
            assert e.error == "io.residentd.Cancelled", e
        else:
            raise AssertionError("went on")


def sigterm_ends_workers_and_removes_the_socket():
    d = daemon(policy(ram="map"))
    with d:
        worker = d.wait_state("ready")["worker_pid"]
        with d.client() as c:
            stream = c.stream("Inference.Complete", model="m", prompt="count 1000000")
            until_it_speaks(stream)
            d.process.send_signal(signal.SIGTERM)
            try:
                for _ in stream:
                    pass
            except Refused as e:
                assert e.error == "io.residentd.ShuttingDown" and e.parameters["retry_after_ms"] == 1000, e
            else:
                raise AssertionError("went on")
        assert d.process.wait(PATIENCE_S) == 0, d.log()
        assert not is_alive(worker)
        assert not os.path.exists(d.socket)


def killed_daemon_leaves_no_worker():
    with daemon(policy(ram="map")) as d:
        worker = d.wait_state("ready")["worker_pid"]
        d.process.kill()
        d.process.wait()
        wait_for(lambda: not is_alive(worker), "the worker to end")


def on_demand_model_comes_with_the_first_request():
    with daemon(policy(when="on-demand")if may_lock(2 * SIZE) else policy(when="on-demand", ram="map")) as d:
        assert d.status()["state"] == "absent", d.status()
        with d.client() as c:
            assert c.complete("hello")[0] == "hello"
            assert d.status()["state"] == "ready"
            c.call("Models.Unload", model="m")
            assert d.status()["state"] == "absent", d.status()
            assert smaps_absent(d.process.pid, d.dir + "/m.gguf")
            last = list(c.stream("Models.Load", model="m"))[-1]
            assert last["state"] == "ready" and last["bytes_done"] == last["bytes_total"] == SIZE, last
            assert c.complete("hello")[0] == "hello"


def who_waits_for_a_model_hears_how_far_it_is():
    with daemon(policy(when="on-demand", ram="map")) as d:
        d.worker = d.put("worker", f"#!/bin/sh\nsleep 2\nexec {FAKE_WORKER}\n".encode())
        os.chmod(d.worker, 0o755)
        d.kill()
        d.start()
        with d.client() as c:
            pieces = list(c.stream("Inference.Complete", model="m", prompt="hello"))
        told = [piece["loading"] for piece in pieces if piece.get("loading")]
        assert told and all(piece["text"] == "" for piece in pieces if piece.get("loading")), pieces
        assert all(0 <= t["bytes_done"] <= t["bytes_total"] and t["bytes_total"] in (0, SIZE) for t in told), told
        assert told[-1]["bytes_total"] == SIZE and pieces[-1]["done"], pieces


def idle_on_demand_model_leaves():
    p = policy(when="on-demand", ram="map")
    p["models"]["m"]["residency"]["idle"] = "300ms"
    with daemon(p) as d, d.client() as c:
        assert c.complete("hello")[0] == "hello"
        wait_for(lambda: d.status()["state"] == "absent", "the model to leave")
        assert c.complete("hello")[0] == "hello"


def running_answer_finishes_before_an_unload():
    with daemon(policy(ram="map")) as d, d.client() as c, d.client() as admin:
        stream = c.stream("Inference.Complete", model="m", prompt="count 25")
        until_it_speaks(stream)
        admin.call("Models.Unload", model="m")
        assert list(stream)[-1]["usage"]["output_tokens"] == 25
        assert d.status()["state"] == "absent", d.status()


def drafts_are_counted_and_shown_to_administrators():
    need_root()
    p = policy(ram="map")
    p["admins"] = {"users": [ALICE]}
    with daemon(p, uid=DAEMON_USER) as d:
        def look():
            with Client(d.socket) as c:
                status = c.call("Models.Status")["models"][0]
                return status.get("tokens_drafted"), status.get("tokens_accepted")

        def ask():
            with Client(d.socket) as c:
                return c.complete("count 5")[0]

        assert run_as(BOB, ask).split() == ["1", "2", "3", "4", "5"]
        drafted, accepted = run_as(ALICE, look)
        assert drafted >= 20 and drafted * 3 == accepted * 4, (drafted, accepted)
        assert run_as(BOB, look) == [None, None]


def only_administrators_load_and_unload():
    need_root()
    p = policy(ram="map")
    p["admins"] = {"users": [ALICE]}
    with daemon(p, uid=DAEMON_USER) as d:
        d.wait_state("ready")

        def unload():
            with Client(d.socket) as c:
                return c.call("Models.Unload", model="m")

        try:
            run_as(BOB, unload)
        except Refused as e:
            assert e.error == "io.residentd.NotAllowed" and e.parameters["reason"] == "admins_only", e
        else:
            raise AssertionError("unloaded")
        assert run_as(ALICE, unload) == {}

        def live_figures():
            with Client(d.socket) as c:
                s = c.call("Models.Status")
                return "users" in s, "kv_bytes" in s["models"][0]

        assert run_as(ALICE, live_figures) == [True, True]
        assert run_as(BOB, live_figures) == [False, False]


def concurrent_and_queued_are_enforced():
    p = policy(ram="map")
    p["quotas"] = {"default": {"concurrent": 1, "queued": 1}}
    with daemon(p) as d:
        d.wait_state("ready")
        a, b, c = d.client(), d.client(), d.client()
        first = a.stream("Inference.Complete", model="m", prompt="count 50")
        until_it_speaks(first)
        second = b.stream("Inference.Complete", model="m", prompt="second")
        piece = next(second)  # sent while it waits: no text yet
        assert piece["text"] == "" and not piece["done"] and piece["queue"]["position"] == 1, piece
        try:
            c.complete("third")
        except Refused as e:
            assert e.error == "io.residentd.QueueFull" and e.parameters["limit"] == 1, e
        else:
            raise AssertionError("answered")
        assert "eta_ms" not in piece["queue"], piece  # nothing has ended yet, so nobody knows
        assert list(first)[-1]["usage"]["output_tokens"] == 50
        assert "".join(piece["text"] for piece in second) == "second"
        assert c.complete("third")[0] == "third"


def sequences_of_one_user_in_a_model_are_limited():
    need_root()
    with daemon(policy(ram="map", limits={"sequences_per_user": 1})) as d:
        d.wait_state("ready")
        a, b = d.client(), d.client()
        first = a.stream("Inference.Complete", model="m", prompt="count 50")
        until_it_speaks(first)
        second = b.stream("Inference.Complete", model="m", prompt="second")
        assert next(second)["queue"]["position"] == 1

        def of_another_user():
            with d.client() as c:
                assert c.complete("hello")[0] == "hello"
        run_as(1, of_another_user)
        assert list(first)[-1]["usage"]["output_tokens"] == 50
        assert "".join(piece["text"] for piece in second) == "second"


def refusal_of(c, prompt="hello"):
    try:
        c.complete(prompt)
    except Refused as e:
        return e
    raise AssertionError("answered")


def maintenance_is_what_new_requests_hear():
    p = policy(ram="map")
    with daemon(p) as d, d.client() as c, d.client() as other:
        d.wait_state("ready")
        stream = c.stream("Inference.Complete", model="m", prompt="count 40")
        until_it_speaks(stream)
        p["host"] = {"maintenance": "back at noon"}
        d.write_policy(p)
        assert other.call("Models.Reload") == {"changed": ["host"]}
        e = refusal_of(other)
        assert e.error == "io.residentd.ModelUnavailable" and e.parameters["reason"] == "back at noon", e
        # What runs is finished, and the model stays where it is.
        assert list(stream)[-1]["usage"]["output_tokens"] == 40
        assert d.status()["state"] == "ready", d.status()
        p["host"] = {"maintenance": None}
        d.write_policy(p)
        other.call("Models.Reload")
        assert other.complete("hello")[0] == "hello"


def reload_looks_again_at_who_waits_and_who_is_connected():
    need_root()
    p = policy(ram="map")
    p["quotas"] = {"default": {"concurrent": 1}}
    p["admins"] = {"users": [0]}
    with daemon(p) as d, d.client() as admin:
        d.wait_state("ready")

        def of_a_user():
            with d.client() as a, d.client() as b, d.client() as c:
                first = a.stream("Inference.Complete", model="m", prompt="count 60")
                until_it_speaks(first)
                second = b.stream("Inference.Complete", model="m", prompt="second")
                assert next(second)["queue"]["position"] == 1
                os.write(said, b"it waits")
                # It waited under rules that are no more; the one that runs ends as it began.
                try:
                    list(second)
                    raise AssertionError("answered")
                except Refused as e:
                    assert e.error == "io.residentd.NotAllowed" and e.parameters["reason"] == "policy", e
                assert list(first)[-1]["usage"]["output_tokens"] == 60
                assert refusal_of(c).error in ("io.residentd.NotAllowed", "io.residentd.NoSuchModel")
        heard, said = os.pipe()
        user = as_user(1, of_a_user)
        os.close(said)
        assert os.read(heard, 16) == b"it waits", join_user(user)
        os.close(heard)
        p["models"]["m"]["deny"] = {"users": [1]}
        d.write_policy(p)
        assert admin.call("Models.Reload") == {"changed": ["models.m.deny"]}
        join_user(user)


def defaults_and_limits_of_the_policy_reach_the_worker():
    p = policy(ram="map", defaults={"temperature": 0.25, "top_k": 7}, limits={"max_tokens": 9})
    p["quotas"] = {"default": {"priority_max": 3}}
    with daemon(p) as d, d.client() as c:
        echo = json.loads(c.complete("echo", top_k=3, max_tokens=100, app="a", priority=2, deadline_ms=60000)[0])
        assert echo == {"prompt": "echo", "top_k": 3, "max_tokens": 9, "temperature": 0.25}, echo
        try:
            c.complete("echo", priority=4)
        except Refused as e:
            assert e.error == "io.residentd.QuotaExceeded" and e.parameters["quota"] == "priority_max", e
        else:
            raise AssertionError("answered")


def untrusted_files_are_refused():
    with daemon(policy(when="on-demand", ram="map")) as d, d.client() as c:
        path = d.dir + "/m.gguf"

        def reason():
            try:
                list(c.stream("Models.Load", model="m"))
            except Refused as e:
                assert e.error == "io.residentd.ModelInvalid", e
                return e.parameters["reason"]
            raise AssertionError("loaded")

        os.chmod(path, 0o646)
        assert "not writable by others" in reason()
        os.chmod(path, 0o644)
        os.chmod(d.dir, 0o777)
        assert "not writable by others" in reason()
        os.chmod(d.dir, 0o755)
        os.unlink(path)
        assert "No such file" in reason()
        os.mkfifo(path)
        assert "a regular file" in reason()
        os.unlink(path)
        os.symlink("/dev/zero", path)
        assert "a regular file" in reason()
        os.unlink(path)
        os.symlink("/proc/self/exe", path)
        assert "symbolic links" in reason()
        os.unlink(path)
        d.put("m.gguf", b"")
        assert "is empty" in reason()
        if os.geteuid() == 0:
            os.chown(path, ALICE, ALICE)
            assert "owned by root" in reason()
        os.unlink(path)
        d.put("m.gguf", CONTENT)
        assert list(c.stream("Models.Load", model="m"))[-1]["state"] == "ready"


def copy_takes_what_it_can_verify():
    need_locking(3 * SIZE)
    digest = hashlib.sha256(CONTENT).hexdigest()
    p = {"models": {"m": {"path": "@DIR@/m.gguf", "sha256": digest, "residency": {"ram": "copy"}},
                    "wrong": {"path": "@DIR@/m.gguf", "sha256": digest[::-1], "residency": {"ram": "copy"}},
                    "bare": {"path": "@DIR@/m.gguf", "residency": {"ram": "copy"}}}}
    with daemon(p) as d, d.client() as c:
        os.chmod(d.dir + "/m.gguf", 0o666)
        assert c.complete("hello")[0] == "hello"
        status = d.status()
        assert status["ram_locked_bytes"] == whole_pages(SIZE), status
        for pid in (d.process.pid, status["worker_pid"]):
            m = smaps(pid, "/memfd:residentd-model (deleted)")
            assert m["found"] and m["locked"] and m["rss"] == whole_pages(SIZE), m
        for model, words in (("wrong", "SHA-256"), ("bare", "not writable by others")):
            try:
                c.complete("hello", model=model)
            except Refused as e:
                assert e.error == "io.residentd.ModelInvalid" and words in e.parameters["reason"], e
            else:
                raise AssertionError("answered")


def wrong_digest_of_a_locked_file_is_refused():
    p = policy(ram="map", when="on-demand", sha256=hashlib.sha256(CONTENT[1:]).hexdigest())
    with daemon(p) as d, d.client() as c:
        try:
            c.complete("hello")
        except Refused as e:
            assert hashlib.sha256(CONTENT).hexdigest() in e.parameters["reason"], e
        else:
            raise AssertionError("answered")


def split_files_are_found_by_name():
    files = {f"s-{i:05}-of-00003.gguf": CONTENT[:i * MB] for i in (1, 2, 3)}
    p = {"models": {"m": {"path": "@DIR@/s-00001-of-00003.gguf"}, "second": {"path": "@DIR@/s-00002-of-00003.gguf"}}}
    with daemon(p, files=files) as d, d.client() as c:
        assert c.complete("hello")[0] == "hello"
        model = [m for m in c.call("Inference.ListModels")["models"] if m["name"] == "m"][0]
        assert model["size_bytes"] == 6 * MB and model["parameters"] == 6 * MB, model
        try:
            c.complete("hello", model="second")
        except Refused as e:
            assert "part 00001" in e.parameters["reason"], e
        else:
            raise AssertionError("answered")
        c.call("Models.Unload", model="m")
        os.unlink(d.dir + "/s-00003-of-00003.gguf")
        try:
            c.complete("hello")
        except Refused as e:
            assert "s-00003-of-00003.gguf" in e.parameters["reason"], e
        else:
            raise AssertionError("answered")


def budget_evicts_the_idle_and_refuses_the_rest():
    need_locking(4 * SIZE)
    p = {"host": {"ram": {"budget": 2 * SIZE + MB}},
         "models": {name: {"path": f"@DIR@/{name}.gguf", "residency": {"ram": "lock"}, "priority": priority}
                    for name, priority in (("a", 5), ("b", 0), ("c", 0), ("big", 0))}}
    p["models"]["a"]["residency"]["when"] = "always"
    files = {f"{name}.gguf": CONTENT for name in "abc"}
    files["big.gguf"] = CONTENT * 2
    with daemon(p, files=files) as d, d.client() as c:
        d.wait_state("ready", "a")
        assert c.complete("hello", model="b")[0] == "hello"
        assert c.complete("hello", model="c")[0] == "hello"
        wait_for(lambda: d.status("b")["state"] == "absent", "b to leave")
        assert d.status("a")["state"] == "ready" and d.status("c")["state"] == "ready"
        try:
            c.complete("hello", model="big")
        except Refused as e:
            assert e.error == "io.residentd.InsufficientMemory", e
            assert e.parameters["needed"] == 2 * SIZE + 4096 + 8192, e
            assert e.parameters["available"] < 2 * SIZE, e
        else:
            raise AssertionError("answered")


def bad_policy_at_start_is_fatal():
    d = daemon('{\n  "models": {"m": {"path": 5}}}')
    d.start(expect=1)
    assert f"{d.policy_path}:2:28: models.m.path: expected an absolute path" in d.log(), d.log()
    d.__exit__()


def reload_applies_as_a_whole_or_not_at_all():
    with daemon(policy(ram="map")) as d, d.client() as c:
        worker = d.wait_state("ready")["worker_pid"]
        d.write_policy('{"models": {}, "quotas": 1}')
        d.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old policy stays" in d.log(), "the reload")
        assert c.complete("hello")[0] == "hello"
        p = policy(ram="map")
        p["models"]["n"] = {"path": "@DIR@/m.gguf"}
        p["aliases"] = {"chat": "m"}
        d.write_policy(p)
        d.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "policy reloaded" in d.log(), "the reload")
        assert c.complete("hello", model="chat")[0] == "hello"
        assert c.complete("hello", model="n")[0] == "hello"
        assert d.status()["worker_pid"] == worker
        stream = c.stream("Inference.Complete", model="m", prompt="count 40")
        until_it_speaks(stream)
        d.write_policy({"models": {"n": {"path": "@DIR@/m.gguf"}}})
        d.process.send_signal(signal.SIGHUP)
        wait_for(lambda: d.log().count("policy reloaded") == 2, "the reload")
        assert list(stream)[-1]["usage"]["output_tokens"] == 40
        try:
            c.complete("hello")
        except Refused as e:
            assert e.error == "io.residentd.NoSuchModel", e
        else:
            raise AssertionError("answered")
        wait_for(lambda: not is_alive(worker), "the worker of the removed model to end")


def reload_says_what_changed_and_only_to_administrators():
    need_root()
    p = policy(ram="map")
    p["admins"] = {"users": [0]}
    with daemon(p) as d, d.client() as c:
        d.wait_state("ready")
        assert c.call("Models.Reload") == {"changed": []}
        p["models"]["m"]["priority"] = 3
        p["quotas"] = {"default": {"concurrent": 1}}
        d.write_policy(p)
        assert c.call("Models.Reload") == {"changed": ["models.m.priority", "quotas"]}
        d.write_policy('{"models": {\n "m": {"path": 1}}}')
        try:
            c.call("Models.Reload")
        except Refused as e:
            assert e.error == "io.residentd.PolicyInvalid", e
            assert e.parameters["line"] == 2 and e.parameters["key"] == "models.m.path", e
            assert e.parameters["file"] == d.policy_path, e
        else:
            raise AssertionError("reloaded")
        assert c.complete("hello")[0] == "hello"

        def ask(method, **parameters):
            with Client(d.socket) as other:
                return other.call(method, **parameters)
        for method, parameters in (("Reload", {}), ("Pin", {"model": "m"}), ("Unpin", {"model": "m"})):
            try:
                run_as(ALICE, lambda: ask("Models." + method, **parameters))
            except Refused as e:
                assert e.parameters["reason"] == "admins_only", e
            else:
                raise AssertionError(method)


def changed_path_is_loaded_before_the_old_one_goes():
    p = policy(ram="map")
    with daemon(p, files={"m.gguf": CONTENT, "n.gguf": CONTENT + b"more"}) as d, d.client() as c, d.client() as other:
        before = d.wait_state("ready")
        stream = c.stream("Inference.Complete", model="m", prompt="count 60")
        until_it_speaks(stream)
        p["models"]["m"]["path"] = "@DIR@/n.gguf"
        d.write_policy(p)
        assert other.call("Models.Reload") == {"changed": ["models.m.path"]}
        # All the time somebody answers; in the end it is the new one, and the old one finishes what it began.
        def replaced():
            assert other.complete("hello")[0] == "hello"
            status = d.status()
            assert status["state"] == "ready", status
            return status["worker_pid"] != before["worker_pid"]
        wait_for(replaced, "the new version")
        assert d.status()["ram_mapped_bytes"] == SIZE + 4, d.status()
        assert list(stream)[-1]["usage"]["output_tokens"] == 60
        wait_for(lambda: not is_alive(before["worker_pid"]), "the old worker to end")
        assert len(c.call("Models.Status")["models"]) == 1


def another_hash_is_loaded_before_the_old_one_goes():
    """A new file in the place of the old one, which is what an update of a model is."""
    p = policy(ram="map", sha256=hashlib.sha256(CONTENT).hexdigest())
    with daemon(p) as d, d.client() as c, d.client() as other:
        before = d.wait_state("ready")
        stream = c.stream("Inference.Complete", model="m", prompt="count 60")
        until_it_speaks(stream)
        d.put("new", CONTENT + b"more")
        os.rename(d.dir + "/new", d.dir + "/m.gguf")
        p["models"]["m"]["sha256"] = hashlib.sha256(CONTENT + b"more").hexdigest()
        d.write_policy(p)
        assert other.call("Models.Reload") == {"changed": ["models.m.sha256"]}

        def replaced():
            assert other.complete("hello")[0] == "hello"
            return d.status()["worker_pid"] != before["worker_pid"]
        wait_for(replaced, "the new version")
        assert d.status()["ram_mapped_bytes"] == SIZE + 4, d.status()
        assert list(stream)[-1]["usage"]["output_tokens"] == 60
        wait_for(lambda: not is_alive(before["worker_pid"]), "the old worker to end")


def new_version_that_can_not_be_loaded_leaves_the_old_one():
    p = policy(ram="map", sha256=hashlib.sha256(CONTENT).hexdigest())
    with daemon(p) as d, d.client() as c:
        before = d.wait_state("ready")
        p["models"]["m"]["sha256"] = "0" * 64
        d.write_policy(p)
        c.call("Models.Reload")
        wait_for(lambda: "the one before stays" in d.status().get("reason", ""), "the reason")
        assert d.status()["worker_pid"] == before["worker_pid"] and c.complete("hello")[0] == "hello"
        p["models"]["m"]["sha256"] = hashlib.sha256(CONTENT).hexdigest()
        d.write_policy(p)
        c.call("Models.Reload")
        assert "reason" not in d.status() and d.status()["worker_pid"] == before["worker_pid"]


def new_version_without_room_beside_the_old_one_replaces_it():
    need_locking(4 * SIZE)
    p = policy(ram="lock")
    p["host"] = {"ram": {"budget": 2 * SIZE}}
    with daemon(p, files={"m.gguf": CONTENT, "n.gguf": CONTENT + b"more"}) as d, d.client() as c, d.client() as other:
        before = d.wait_state("ready")
        stream = c.stream("Inference.Complete", model="m", prompt="count 20")
        until_it_speaks(stream)
        p["models"]["m"]["path"] = "@DIR@/n.gguf"
        d.write_policy(p)
        other.call("Models.Reload")
        assert other.complete("hello")[0] == "hello"
        assert list(stream)[-1]["usage"]["output_tokens"] == 20
        after = d.wait_state("ready")
        assert after["worker_pid"] != before["worker_pid"] and after["ram_mapped_bytes"] == SIZE + 4, after


def pinned_by_hand_stays_until_unpinned_or_reloaded():
    p = policy(when="on-demand", ram="map")
    p["models"]["m"]["residency"]["idle"] = "300ms"
    with daemon(p) as d, d.client() as c:
        assert d.status()["state"] == "absent"
        assert c.call("Models.Pin", model="m") == {}
        assert d.status()["state"] == "ready"
        time.sleep(0.6)
        assert d.status()["state"] == "ready"
        assert c.call("Models.Unpin", model="m") == {}
        d.wait_state("absent")
        c.call("Models.Pin", model="m")
        c.call("Models.Reload")
        d.wait_state("absent")


def deadline_passes_while_a_request_is_held():
    p = policy(ram="map")
    p["quotas"] = {"default": {"concurrent": 1}}
    with daemon(p) as d, d.client() as a, d.client() as b:
        first = a.stream("Inference.Complete", model="m", prompt="hang")
        until_it_speaks(first)
        assert b.complete("late", deadline_ms=1)[1]["finish"] == "deadline"
        # Not at the next tick, which may be two seconds away, but then.
        ends = []
        for deadline_ms in (150, 350, 550, 750):
            begin = time.monotonic()
            last = b.complete("late", deadline_ms=deadline_ms)[1]
            assert last["finish"] == "deadline", last
            ends.append((time.monotonic() - begin) * 1000 - deadline_ms)
        # On a busy machine one may come late; ticks would be late by a second in the mean.
        assert min(ends) >= 0 and sorted(ends)[1] < 500, ends


def daemon_gives_up_what_it_does_not_need():
    with daemon(policy(ram="map")) as d:
        worker = d.wait_state("ready")["worker_pid"]
        with open(f"/proc/{d.process.pid}/status") as f:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        assert int(fields["CapPrm"], 16) & ~(1 << 14) == 0, fields["CapPrm"]
        assert int(fields["CapEff"], 16) & ~(1 << 14) == 0, fields["CapEff"]
        assert fields["NoNewPrivs"] == "1"
        with open(f"/proc/{worker}/status") as f:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        assert int(fields["CapPrm"], 16) & ~(1 << 14) == 0, fields["CapPrm"]
        with open(f"/proc/{d.process.pid}/limits") as f:
            core = [line for line in f if line.startswith("Max core file size")][0]
        assert core.split()[4:6] == ["0", "0"], core
        if os.geteuid() == 0:
            # What a process that can't be dumped has in /proc belongs to root, whoever it runs as.
            pass
        fds = os.listdir(f"/proc/{worker}/fd")
        names = {fd: os.readlink(f"/proc/{worker}/fd/{fd}") for fd in fds}
        assert names["0"] == names["1"] == "/dev/null", names
        assert names["3"].startswith("socket:"), names
        assert not any("policy.json" in name or "io.residentd" in name for name in names.values()), names


def daemon_can_not_be_dumped():
    need_root()
    with daemon(policy(ram="map"), uid=DAEMON_USER) as d:
        assert os.stat(f"/proc/{d.process.pid}/environ").st_uid == 0

        def look():
            try:
                open(f"/proc/{d.process.pid}/maps").close()
                return "seen"
            except PermissionError:
                return "refused"

        assert run_as(DAEMON_USER, look) == "refused"


def no_prompt_is_in_the_log():
    with daemon(policy(ram="map")) as d, d.client() as c:
        assert c.complete("a very private sentence")[0] == "a very private sentence"
        assert "private" not in d.log()


if __name__ == "__main__":
    main([
        pinned_model_is_locked_in_daemon_and_worker,
        a_workers_lines_are_written_with_what_they_are_about,
        a_worker_can_not_fill_the_log,
        a_worker_reads_each_page_where_the_daemon_has_not,
        more_users_add_no_copy,
        too_small_a_lock_limit_says_what_to_change,
        map_needs_no_privilege,
        two_users_are_answered_at_once_and_logged_by_uid,
        who_is_not_allowed_is_refused_and_sees_nothing,
        killed_worker_takes_nobody_with_it_and_nothing_is_read_again,
        requests_wait_while_a_worker_is_started_again,
        worker_that_keeps_crashing_is_given_up,
        worker_that_breaks_the_protocol_is_replaced,
        invalid_model_fails_with_what_the_worker_said,
        failed_request_carries_the_workers_fault,
        closed_connection_stops_the_work,
        cancel_by_id_ends_with_cancelled,
        sigterm_ends_workers_and_removes_the_socket,
        killed_daemon_leaves_no_worker,
        on_demand_model_comes_with_the_first_request,
        who_waits_for_a_model_hears_how_far_it_is,
        idle_on_demand_model_leaves,
        running_answer_finishes_before_an_unload,
        drafts_are_counted_and_shown_to_administrators,
    only_administrators_load_and_unload,
        concurrent_and_queued_are_enforced,
        sequences_of_one_user_in_a_model_are_limited,
    maintenance_is_what_new_requests_hear,
    reload_looks_again_at_who_waits_and_who_is_connected,
    defaults_and_limits_of_the_policy_reach_the_worker,
        untrusted_files_are_refused,
        copy_takes_what_it_can_verify,
        wrong_digest_of_a_locked_file_is_refused,
        split_files_are_found_by_name,
        budget_evicts_the_idle_and_refuses_the_rest,
        bad_policy_at_start_is_fatal,
        reload_applies_as_a_whole_or_not_at_all,
    reload_says_what_changed_and_only_to_administrators,
    changed_path_is_loaded_before_the_old_one_goes,
    another_hash_is_loaded_before_the_old_one_goes,
    new_version_that_can_not_be_loaded_leaves_the_old_one,
    new_version_without_room_beside_the_old_one_replaces_it,
    pinned_by_hand_stays_until_unpinned_or_reloaded,
        deadline_passes_while_a_request_is_held,
        daemon_gives_up_what_it_does_not_need,
        daemon_can_not_be_dumped,
        no_prompt_is_in_the_log,
    ])
