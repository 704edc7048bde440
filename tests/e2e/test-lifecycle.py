#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Models that come and go for long, workers that are killed at any moment, more models than memory.

With RESIDENTD_SLOW=1 as often and as long as the service promises it, else a short form of the same.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (FAKE_WORKER, Daemon, Refused, Skip, as_user, is_alive, join_user, main, may_lock,  # noqa: E402
                     n_fds, need_root, run_as, wait_for)

SLOW = os.environ.get("RESIDENTD_SLOW") == "1"
MB = 1 << 20
# What the fake worker says that it takes beside the file (fake-worker.c).
FAKE_BYTES = 4096 + 8192


def status_field(pid, name):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise AssertionError(name)


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid:
                found.append((int(entry), fields[0]))
    return found


def holdings(pid):
    """What a leak would show in: descriptors, mappings, locked memory, threads, children."""
    try:
        fds = n_fds(pid)
        with open(f"/proc/{pid}/maps") as f:
            n_models = f.read().count(".gguf")
    except PermissionError:
        raise Skip("only root may count the descriptors of the service") from None
    return {"fds": fds, "models": n_models, "locked": status_field(pid, "VmLck"),
            "threads": status_field(pid, "Threads"), "children": children(pid)}


def settled(pid):
    """The same once it has stood still: ended processes are waited for from the loop."""
    wait_for(lambda: status_field(pid, "Threads") == 1 or holdings(pid) == holdings(pid), "threads to end")
    time.sleep(0.2)
    return holdings(pid)


def load_and_unload_leak_nothing():
    cycles = 1000 if SLOW else 40
    ram = "lock" if may_lock(MB) else "map"
    with Daemon({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": ram}}}},
                files={"m.gguf": os.urandom(MB // 2)}) as d, d.client() as c:
        pid = d.process.pid
        for _ in range(5):
            c.call("Models.Load", model="m")
            c.call("Models.Unload", model="m")
        before, rss = settled(pid), status_field(pid, "VmRSS")
        for _ in range(cycles):
            assert c.call("Models.Load", model="m")["state"] == "ready"
            c.call("Models.Unload", model="m")
        after = settled(pid)
        assert after == before and after["models"] == 0 and after["locked"] == 0 and not after["children"], (before, after)
        # AddressSanitizer keeps what was freed for a while, and has a better eye for leaks.
        with open(f"/proc/{pid}/maps") as maps:
            if "libasan" not in maps.read():
                assert status_field(pid, "VmRSS") - rss < 1024, "kilobytes that stay after every cycle"
        assert c.call("Models.Status")["ram"]["used_bytes"] == 0


def stream_to_its_end(d, model, results, i):
    try:
        with d.client() as c:
            results[i] = c.complete("count 30", model=model)[1]["usage"]["output_tokens"]
    except Refused as e:
        results[i] = e.error.rsplit(".", 1)[1]


def killed_workers_lose_only_their_own_requests():
    def models(d):
        with d.client() as c:
            return {m["name"]: m for m in c.call("Models.Status")["models"]}
    p = {"models": {name: {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}} for name in "ab"}}
    with Daemon(p, files={"m.gguf": os.urandom(MB // 4)}) as d:
        d.wait_state("ready", "a")
        other = d.wait_state("ready", "b")["worker_pid"]
        before = settled(d.process.pid)
        lost = 0
        for point in range(20):
            results = [None] * 4
            threads = [threading.Thread(target=stream_to_its_end, args=(d, "aaab"[i], results, i)) for i in range(4)]
            for t in threads:
                t.start()
            time.sleep(0.035 * point)
            victim = models(d)["a"].get("worker_pid")
            if victim:
                os.kill(victim, signal.SIGKILL)
            for t in threads:
                t.join()
            # With all answers given, nothing but its end tells that the worker is gone.
            wait_for(lambda: models(d)["a"].get("worker_pid") != victim or not victim, "the killed worker to be missed")
            assert results[3] == 30, (point, results)
            assert all(r in (30, "ModelUnavailable") for r in results[:3]), (point, results)
            lost += results.count("ModelUnavailable")
            with d.client() as c: # also out of "failed", where six in a row lead
                assert c.call("Models.Load", model="a")["state"] == "ready"
                assert c.complete("hello", model="a")[0] == "hello"
        assert lost >= 20, lost
        assert models(d)["b"]["worker_pid"] == other and is_alive(other)
        after = settled(d.process.pid)
        assert {**after, "children": 0} == {**before, "children": 0}, (before, after)
        assert len(after["children"]) == 2 and all(state != "Z" for _, state in after["children"]), after


def many_models_stay_within_the_budget():
    seconds, n_models, room = (120 if SLOW else 6), 50, 10
    if not may_lock(n_models * MB):
        raise Skip("may not lock enough here")
    size = MB // 4
    budget = room * (size + FAKE_BYTES)
    p = {"host": {"ram": {"budget": budget}},
         "models": {f"m{i}": {"path": f"@DIR@/{i}.gguf", "residency": {"ram": "lock", "idle": "500ms"}, "priority": i % 3}
                    for i in range(n_models)}}
    with Daemon(p, files={f"{i}.gguf": os.urandom(size) for i in range(n_models)}) as d:
        end = time.monotonic() + seconds
        answers, refusals, wrong = [], [], []

        def ask(seed):
            choose = random.Random(seed)
            with d.client() as c:
                while time.monotonic() < end:
                    model = f"m{choose.randrange(n_models)}"
                    try:
                        answers.append(c.complete(choose.choice(["hello", "count 3"]), model=model)[0])
                    except Refused as e:
                        (refusals if e.error == "io.residentd.InsufficientMemory" else wrong).append(str(e))

        def watch():
            with d.client() as c:
                while time.monotonic() < end:
                    used = c.call("Models.Status")["ram"]["used_bytes"]
                    locked = status_field(d.process.pid, "VmLck") * 1024
                    if used > budget or locked > budget:
                        wrong.append(f"{used} used and {locked} locked of {budget}")
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)] + [threading.Thread(target=watch)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong, wrong[:3]
        assert len(answers) > 10 * seconds and len(refusals) < len(answers) / 10, (len(answers), len(refusals))
        with d.client() as c:
            wait_for(lambda: c.call("Models.Status")["ram"]["used_bytes"] == 0, "idle models to leave")
        wait_for(lambda: not children(d.process.pid), "their workers to end")


def memory_pressure_gives_back_caches_then_idle_models():
    def pressure(d, percent):
        d.put("new", f"some avg10={percent} avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00\n".encode())
        os.rename(d.dir + "/new", d.dir + "/pressure")
    p = {"models": {name: {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": when}, "priority": priority}
                    for name, when, priority in (("pinned", "always", 0), ("low", "on-demand", 1), ("high", "on-demand", 2))}}
    with Daemon(p, files={"m.gguf": b"x" * 100000, "pressure": b"some avg10=0.00 avg60=0.00\n"},
                arguments=["--pressure", "@DIR@/pressure"]) as d, d.client() as c:
        d.wait_state("ready", "pinned")
        for name in ("high", "low"):
            c.complete("hello", model=name)
        pressure(d, "12.00")
        wait_for(lambda: "memory pressure is at 12%" in d.log(), "caches to be given back")
        time.sleep(2.5)
        assert d.status("low")["state"] == d.status("high")["state"] == "ready"
        pressure(d, "35.00")
        wait_for(lambda: d.status("low")["state"] == "absent", "the least important idle model to leave")
        wait_for(lambda: d.status("high")["state"] == "absent", "the next one to leave")
        assert d.status("pinned")["state"] == "ready"
        assert d.log().index("model low leaves") < d.log().index("model high leaves")
        pressure(d, "0.00")
        assert c.complete("hello", model="low")[0] == "hello"


# Reads a file round and round that is larger than the memory of the group that it enters.
THRASH = """
import mmap, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
m = mmap.mmap(os.open(sys.argv[2], os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ)
while True:
    sum(m[i] for i in range(0, len(m), 4096))
"""


def forget_cached(path):
    """What is cached counts for the group that wrote it, and who reads it there waits for nothing."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def real_memory_pressure_is_felt():
    """The kernel's own figure, of the whole machine: another group of processes runs out of memory."""
    need_root()
    group, limit = "/sys/fs/cgroup/memory/residentd-pressure", "memory.limit_in_bytes"
    if not os.path.exists("/proc/pressure/memory"):
        raise Skip("this kernel has no pressure figures")
    with open("/proc/self/cgroup") as f:
        own = next((line[4:].strip() for line in f if line.startswith("0::/")), "/")
    if os.path.exists(f"/sys/fs/cgroup{own}/memory.pressure") or not os.path.isdir("/sys/fs/cgroup/memory"):
        raise Skip("the service looks at its own group's pressure here, not at the machine's")
    os.mkdir(group)
    p = {"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map"}}}}
    thrashing = []
    try:
        with open(f"{group}/{limit}", "w") as f:
            f.write(str(48 * MB))
        with Daemon(p, files={"m.gguf": b"x" * 100000, "large": os.urandom(192 * MB)}) as d, d.client() as c:
            c.complete("hello", model="m")
            forget_cached(d.dir + "/large")
            thrashing = [subprocess.Popen([sys.executable, "-c", THRASH, group, d.dir + "/large"]) for _ in range(4)]
            until = time.monotonic() + 60
            while d.status("m")["state"] != "absent":
                with open("/proc/pressure/memory") as f:
                    said = f.readline()
                assert time.monotonic() < until, (said, d.log())
                time.sleep(0.2)
            assert "memory pressure is at " in d.log(), d.log()
    finally:
        for process in thrashing:
            process.kill()
            process.wait()
        os.rmdir(group)


def sigterm_lets_running_answers_finish():
    with Daemon({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}}},
                files={"m.gguf": b"x" * 100000}) as d, d.client() as c, d.client() as late:
        d.wait_state("ready")
        stream = c.stream("Inference.Complete", model="m", prompt="count 20")
        next(piece for piece in stream if piece["text"])
        d.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in d.log(), "the signal to be seen")
        try:
            late.complete("hello")
        except Refused as e:
            assert e.error == "io.residentd.ShuttingDown", e
        else:
            raise AssertionError("answered")
        assert list(stream)[-1]["usage"]["output_tokens"] == 20
        assert d.process.wait(4) == 0, d.log()


def worker_that_is_stuck_is_replaced():
    with Daemon({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}}},
                files={"m.gguf": b"x" * 100000}) as d, d.client() as c:
        before = d.wait_state("ready")["worker_pid"]
        try:
            c.complete("stuck")
        except Refused as e:
            assert e.error == "io.residentd.ModelUnavailable" and "one step" in e.parameters["reason"], e
        else:
            raise AssertionError("answered")
        wait_for(lambda: not is_alive(before), "the stuck worker to end")
        assert c.complete("hello")[0] == "hello"


class Units:
    """In the place of systemd: each connection to the socket becomes a worker that is no child of the daemon's."""

    def __init__(self, directory):
        self.path, self.pids = os.path.join(directory, "worker"), []
        os.mkdir(os.path.join(directory, "daemon"))  # where the service hears of their ends
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(self.path)
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                link, _ = self.socket.accept()
            except OSError:
                return

            def at_three():
                os.dup2(link.fileno(), 3)
            self.pids.append(subprocess.Popen([FAKE_WORKER], pass_fds=[3], preexec_fn=at_three))
            link.close()

    def close(self):
        self.socket.close()
        for process in self.pids:
            process.kill()
            process.wait()


def a_worker_of_a_unit_that_never_ends_is_not_waited_for_for_ever():
    """Only systemd may kill it. Until then its memory is in use, and the model that needs another worker fails."""
    directory = tempfile.mkdtemp(prefix="residentd-units.")
    units = Units(directory)
    size, models = MB // 4, {name: {"path": f"@DIR@/{name}.gguf", "residency": {"ram": "lock"}} for name in "mn"}
    budget = size + FAKE_BYTES + 4096
    d = Daemon({"host": {"ram": {"budget": budget}}, "models": models}, worker=units.path,
               files={name + ".gguf": os.urandom(size) for name in "mn"})
    try:
        with d, d.client() as c:
            assert c.complete("hello", model="m")[0] == "hello"
            pid = d.status("m")["worker_pid"]
            os.kill(pid, signal.SIGSTOP)  # neither the closed link nor anything else reaches it
            begun = time.monotonic()
            while d.status("m")["state"] != "failed":
                assert time.monotonic() - begun < 240, d.log()
                time.sleep(0.5)
            # 30 s until its silence is noticed, then 150 s.
            assert time.monotonic() - begun > 170 and "the worker does not answer" in d.log(), d.log()
            assert "has not ended 150 s after its link was closed" in d.status("m")["reason"], d.status("m")
            try:
                c.complete("hello", model="n")
                raise AssertionError("answered")
            except Refused as e:
                assert e.error == "io.residentd.InsufficientMemory", e
                assert e.parameters["available"] == 4096, e
            assert c.call("Models.Status")["ram"]["used_bytes"] == size + FAKE_BYTES
            os.kill(pid, signal.SIGKILL)
            next(p for p in units.pids if p.pid == pid).wait()
            assert c.call("Models.Load", model="n")["state"] == "ready"
    finally:
        units.close()
        shutil.rmtree(directory)


def a_standstill_of_the_machine_costs_no_worker():
    """Suspended, or frozen with all that runs on it, for longer than a worker may be silent."""
    with Daemon({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}}},
                files={"m.gguf": b"x" * 100000}) as d:
        before = d.wait_state("ready")["worker_pid"]
        # The daemon first: it may not see that its worker is silent.
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in (d.process.pid, before):
                os.kill(pid, number)
            time.sleep(33 if number == signal.SIGSTOP else 2)
        with d.client() as c:
            assert c.complete("hello")[0] == "hello"
        assert d.wait_state("ready")["worker_pid"] == before, d.log()


def refusal(d, prompt, uid, model="m"):
    """What the user @uid hears; None: an answer."""
    def ask():
        with d.client() as c:
            c.complete(prompt, model=model)
    try:
        run_as(uid, ask)
    except Refused as e:
        return e
    return None


def who_was_in_two_crashes_has_to_wait():
    need_root()
    models = {name: {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}} for name in "mn"}
    with Daemon({"models": models}, files={"m.gguf": b"x" * 100000}) as d:
        mallory, bob = 1, 2
        d.wait_state("ready", "m")
        d.wait_state("ready", "n")
        # Memory that runs out is nobody's fault, however often.
        for _ in range(2):
            assert "signal 9" in refusal(d, "crash", mallory).parameters["reason"]
            d.wait_state("ready", "m")
        assert refusal(d, "hello", mallory) is None
        # Bob's answer runs when the first crash happens, another one does not.
        neighbour = as_user(bob, lambda: refusal_here(d, "count 1000"))
        wait_for(lambda: "request=" in d.log() and d.status("m")["sequences_active"] == 1, "his answer to run")
        assert "signal 11 (SEGV)" in refusal(d, "segfault", mallory).parameters["reason"]
        assert join_user(neighbour) == "io.residentd.ModelUnavailable"
        d.wait_state("ready", "m")
        assert refusal(d, "hello", mallory) is None and refusal(d, "hello", bob) is None
        refusal(d, "segfault", mallory)
        d.wait_state("ready", "m")
        e = refusal(d, "hello", mallory)
        assert e.error == "io.residentd.ModelUnavailable" and "more than once" in e.parameters["reason"], e
        assert 20000 < e.parameters["retry_after_ms"] <= 30001, e
        # Nobody else, and no other model.
        assert refusal(d, "hello", bob) is None and refusal(d, "hello", mallory, "n") is None


def refusal_here(d, prompt):
    with d.client() as c:
        try:
            c.complete(prompt)
        except Refused as e:
            return e.error
    return None


def a_worker_that_lost_its_file_ends_the_model():
    """The file is the same, but could not be read: its device is to blame, and starting again would not help."""
    with Daemon({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}}},
                files={"m.gguf": b"x" * 100000}) as d:
        d.wait_state("ready", "m")
        with d.client() as c:
            try:
                c.complete("lose")
            except Refused as e:
                assert e.error == "io.residentd.ModelInvalid", e
                assert "could not read the model's file any more" in e.parameters["reason"], e
            else:
                raise AssertionError("it was answered")
            assert d.status("m")["state"] == "failed", d.status("m")
            list(c.stream("Models.Load", model="m"))
            assert c.complete("hello")[0] == "hello"


NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"


class Reserved:
    """So many 2 MiB pages more than there were, until the end."""

    def __init__(self, n):
        self.n = n

    def __enter__(self):
        try:
            with open(NR_HUGEPAGES) as f:
                self.before = int(f.read())
            self.set(self.before + self.n)
            with open(NR_HUGEPAGES) as f:
                if int(f.read()) < self.before + self.n:
                    self.set(self.before)
                    raise Skip("the kernel has no room for reserved pages")
        except OSError as e:
            raise Skip(f"pages can't be reserved here: {e}") from None

    def set(self, n):
        with open(NR_HUGEPAGES, "w") as f:
            f.write(str(n))

    def __exit__(self, *_):
        self.set(self.before)


def a_copy_takes_pages_that_were_reserved_where_there_are_enough():
    size = 9 * MB + 77
    p = {"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "copy", "when": "always"}}}}
    for n, by in ((5, "reserved 2 MiB"), (0, None)):
        with Reserved(n), Daemon(p, files={"m.gguf": os.urandom(size)}) as d:
            status = d.wait_state("ready")
            if by:
                assert status["ram_pages"] == by and status["ram_locked_bytes"] == 5 << 21, status
                assert "10.0M in 2 MiB pages that were reserved" in d.log(), d.log()
            else:
                assert status["ram_pages"] != "reserved 2 MiB" and "that were reserved" not in d.log(), status


main([
    load_and_unload_leak_nothing,
    killed_workers_lose_only_their_own_requests,
    many_models_stay_within_the_budget,
    memory_pressure_gives_back_caches_then_idle_models,
    sigterm_lets_running_answers_finish,
    worker_that_is_stuck_is_replaced,
    who_was_in_two_crashes_has_to_wait,
    a_worker_that_lost_its_file_ends_the_model,
    # Hard on everything else that runs.
    *([real_memory_pressure_is_felt, a_standstill_of_the_machine_costs_no_worker,
       a_worker_of_a_unit_that_never_ends_is_not_waited_for_for_ever,
       a_copy_takes_pages_that_were_reserved_where_there_are_enough] if SLOW else []),
])
