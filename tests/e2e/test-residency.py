#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of a model whose file somebody changes under it, behind the real daemon and the real worker."""

import hashlib
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (BUILD, REAL_WORKER, REFERENCE, Daemon, Refused, Skip, is_alive, main, need_locking,  # noqa: E402
                     need_root, open_proc, wait_for)
from inject import MLOCK, MUNLOCK, inject  # noqa: E402

RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")

MODEL = os.path.join(REFERENCE, "models", "stories260k-f32.gguf")


def daemon(ram):
    """Two models of the same content, in files of their own."""
    if not os.path.exists(MODEL):
        raise Skip(f"{MODEL} is not there")
    need_locking(1 << 24)
    models = {name: {"path": f"@DIR@/{name}.gguf", "residency": {"ram": ram, "when": "always"}} for name in "ab"}
    return Daemon({"models": models}, worker=REAL_WORKER, files={"a.gguf": MODEL, "b.gguf": MODEL})


def refused(d, **parameters):
    with d.client() as c:
        try:
            c.complete("Once", **parameters)
        except Refused as e:
            return e
    raise AssertionError("it was answered")


def cut_short_under_the_map(ram):
    with daemon(ram) as d:
        for name in "ab":
            d.wait_state("ready", name)
        with d.client() as c:
            before, _ = c.complete("Once upon", model="b", max_tokens=8, temperature=0)
        worker = d.status("a")["worker_pid"]
        os.truncate(os.path.join(d.dir, "a.gguf"), 8192)
        # The worker reads what is gone, and ends; who asked hears why.
        error = refused(d, model="a", max_tokens=8)
        assert error.error == "io.residentd.ModelInvalid", error
        assert error.parameters["model"] == "a", error
        assert "bytes long when it was loaded and is 8192 now" in error.parameters["reason"], error
        wait_for(lambda: not is_alive(worker), "the worker to end")
        assert "the model's file can't be read any more where it is mapped" in d.log(), d.log()
        status = d.status("a")
        assert status["state"] == "failed" and "8192 now" in status["reason"], status
        # Nobody else notices, and it can be mended.
        with d.client() as c:
            assert c.complete("Once upon", model="b", max_tokens=8, temperature=0)[0] == before
            d.put("a.gguf", MODEL)
            list(c.stream("Models.Load", model="a"))
            assert c.complete("Once upon", model="a", max_tokens=8, temperature=0)[0] == before


def a_locked_file_that_is_cut_short_ends_its_model_only():
    cut_short_under_the_map("lock")


def a_mapped_file_that_is_cut_short_ends_its_model_only():
    cut_short_under_the_map("map")


def a_sigbus_that_somebody_sends_ends_the_worker_and_is_no_fault_of_the_file():
    with daemon("map") as d:
        before = d.wait_state("ready", "a")["worker_pid"]
        os.kill(before, signal.SIGBUS)
        wait_for(lambda: not is_alive(before), "the worker to end by the signal")
        wait_for(lambda: "the worker was killed by signal 7 (BUS)" in d.log(), "that to be said")
        d.wait_state("ready", "a")
        assert "can't be read any more" not in d.log(), d.log()
        with d.client() as c:
            c.complete("Once upon", model="a", max_tokens=8, temperature=0)


def a_file_that_is_written_to_ends_its_model():
    with daemon("lock") as d:
        d.wait_state("ready", "a")
        with open(os.path.join(d.dir, "a.gguf"), "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"x")
        wait_for(lambda: d.status("a")["state"] == "failed", "the change to be seen")
        assert "written to after it was loaded" in d.status("a")["reason"], d.status("a")
        assert d.wait_state("ready", "b")


def a_copy_does_not_care():
    with daemon("copy") as d:
        d.wait_state("ready", "a")
        with d.client() as c:
            before, _ = c.complete("Once upon", model="a", max_tokens=8, temperature=0)
            os.truncate(os.path.join(d.dir, "a.gguf"), 8192)
            assert c.complete("Once upon", model="a", max_tokens=8, temperature=0)[0] == before


def answers_alike_with_a_part_of_it_in_memory():
    """A limit below the model's size: its worker reads the rest in each step."""
    with daemon("lock") as d:
        for name in "ab":
            d.wait_state("ready", name)
        whole = d.status("a")["ram_locked_bytes"]
        with d.client() as c:
            before, _ = c.complete("Once upon", model="b", max_tokens=8, temperature=0)
            with open(d.policy_path) as f:
                policy = json.load(f)
            policy["models"]["a"]["residency"]["limit"] = 600 * 1024
            policy["models"]["a"]["sha256"] = hashlib.sha256(open(MODEL, "rb").read()).hexdigest()
            d.write_policy(policy)
            assert "models.a.residency.limit" in c.call("Models.Reload")["changed"]
            wait_for(lambda: d.status("a")["ram_locked_bytes"] < whole and d.status("a")["state"] == "ready",
                     "a part of it")
            assert 0 < d.status("a")["ram_locked_bytes"] <= 600 * 1024, d.status("a")
            assert c.complete("Once upon", model="a", max_tokens=8, temperature=0)[0] == before
            # Too little for two products of it.
            policy["models"]["a"]["residency"]["limit"] = 4096
            d.write_policy(policy)
            c.call("Models.Reload")
            wait_for(lambda: d.status("a")["state"] == "failed", "it to be refused")
            assert "not enough ram memory: 262144 bytes needed, 4096 available" in d.log(), d.log()
            policy["models"]["a"]["residency"].update(ram="copy", limit="50K")
            d.write_policy(policy)
            c.call("Models.Reload")
            wait_for(lambda: "a copy is always whole" in d.log(), "that to be refused, too")


class MemoryGroup:
    """A memory cgroup of its own, for a process that enters it; skips where root may not make one."""

    def __enter__(self):
        need_root()
        roots = [("/sys/fs/cgroup/memory", "memory.usage_in_bytes"), ("/sys/fs/cgroup", "memory.current")]
        for root, usage in roots:
            self.path = os.path.join(root, f"residentd-test-{os.getpid()}")
            try:
                os.mkdir(self.path)
            except OSError:
                continue
            self.usage = os.path.join(self.path, usage)
            if os.path.exists(self.usage):
                return self
            os.rmdir(self.path)
        raise Skip("no memory cgroup can be made here")

    def take(self, pid):
        with open(os.path.join(self.path, "cgroup.procs"), "w") as f:
            f.write(str(pid))

    def bytes(self):
        with open(self.usage) as f:
            return int(f.read())

    def __exit__(self, *_):
        # It empties when the last process has ended; what is cached moves up.
        wait_for(self.remove, "the group to be left")

    def remove(self):
        try:
            os.rmdir(self.path)
        except OSError:
            return False
        return True


def a_cold_lock_is_charged_to_the_service():
    """Whoever copied the file has it in the page cache and pays for that; what is locked, the service pays for, so that
    its limits and figures are true."""
    size = 48 << 20
    need_locking(2 * size)
    models = {name: {"path": "@DIR@/large.gguf", "residency": {"ram": name}} for name in ("map", "lock")}
    with MemoryGroup() as group, Daemon({"models": models}, files={"large.gguf": os.urandom(size)}) as d:
        group.take(d.process.pid)
        before = group.bytes()
        with d.client() as c:
            c.call("Models.Load", model="map")
            assert group.bytes() - before < size // 2, (before, group.bytes())
            c.call("Models.Unload", model="map")
            c.call("Models.Load", model="lock")
            assert group.bytes() - before >= size, (before, group.bytes())


def mapping_of(pid, path):
    with open_proc(pid, "maps") as f:
        start, end = next(line for line in f if line.rstrip().endswith(path)).split()[0].split("-")
    return int(start, 16), int(end, 16) - int(start, 16)


def what_is_not_held_any_more_is_an_alarm():
    """The daemon looks now and then whether the kernel holds what it has to: in the log, status and metrics, until it does."""
    need_root()
    size = 4 << 20
    need_locking(2 * size)
    model = {"path": "@DIR@/m.gguf", "residency": {"ram": "lock", "when": "always"}}
    with Daemon({"models": {"m": model}}, files={"m.gguf": os.urandom(size)}) as d, d.client() as c:
        d.wait_state("ready")
        at, n = mapping_of(d.process.pid, d.dir + "/m.gguf")

        def lost():
            return d.status().get("ram_lost_bytes", 0)

        def shown():
            done = subprocess.run([RESIDENTCTL, "--socket", d.socket, "status"], capture_output=True, text=True, check=True)
            return done.stdout, c.call("Models.Metrics")["text"]

        def inject_there(number, first, second):
            assert inject(d.process.pid, number, first, second) == 0

        assert lost() == 0 and 'residentd_model_ram_lost_bytes{model="m"} 0\n' in shown()[1]
        inject_there(MUNLOCK, at + n // 2, n // 2)
        wait_for(lambda: lost() > 0, "the loss to be seen")
        assert lost() == n // 2, d.status()
        table, metrics = shown()
        assert "ALARM: 2.0M not in memory any more" in table, table
        assert f'residentd_model_ram_lost_bytes{{model="m"}} {n // 2}\n' in metrics, metrics
        assert d.log().count("model m: 2.0M of it are not held in memory any more") == 1, d.log()
        inject_there(MLOCK, at, n)
        wait_for(lambda: lost() == 0, "it to be held again")
        assert "model m: all of it is held in memory again" in d.log(), d.log()


if __name__ == "__main__":
    main([
        a_locked_file_that_is_cut_short_ends_its_model_only,
        a_mapped_file_that_is_cut_short_ends_its_model_only,
        a_sigbus_that_somebody_sends_ends_the_worker_and_is_no_fault_of_the_file,
        a_file_that_is_written_to_ends_its_model,
        a_copy_does_not_care,
        answers_alike_with_a_part_of_it_in_memory,
        a_cold_lock_is_charged_to_the_service,
        what_is_not_held_any_more_is_an_alarm,
    ])
