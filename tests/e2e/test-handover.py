#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon takes back from the descriptor store, and what it refuses. The store is this test's own, so that it can
be tampered with: tests/systemd/test-restart.py has the real one."""

import fcntl
import grp
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (BUILD, FAKE_WORKER, REAL_WORKER, RESIDENTD, SOURCE, Daemon, Refused, Skip, as_user, is_alive, join_user, main,  # noqa: E402
                     need_locking, need_root, wait_for)

SIZE = 100000
GPU_WORKER = os.path.join(BUILD, "tests", "e2e", "gpu-worker")
DOUBLE = os.path.join(BUILD, "tests", "fake-libcuda")
MAKE_MODEL = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
PRIMER = os.path.join(SOURCE, "primer", "primer.gguf")


def policy(ram="lock"):
    return {"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": ram, "when": "always"}}}}


# Becomes the command, with the descriptors from 3 on: those of the first argument.
SPAWN = """
import os, sys
fds = [os.dup(int(fd)) for fd in sys.argv[1].split(",") if fd]
high = [os.dup2(fd, 300 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
os.closerange(3 + len(fds), 1000)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def spawn(fds, command, **options):
    return subprocess.Popen([sys.executable, "-S", "-c", SPAWN, ",".join(map(str, fds)), *command], pass_fds=fds, **options)


class Systemd:
    """A descriptor store behind $NOTIFY_SOCKET, and a socket at which each connection starts a worker."""

    def __init__(self, program=FAKE_WORKER, gpu_program=None):
        need_locking(4 * SIZE)
        self.program = program
        self.dir = tempfile.mkdtemp(prefix="residentd-handover.")
        os.makedirs(os.path.join(self.dir, "run", "daemon"))
        self.worker_path = os.path.join(self.dir, "run", "worker")
        self.store, self.workers, self.lock = {}, [], threading.Lock()
        self.fake = ""
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(self.dir, "notify"))
        threading.Thread(target=self.keep, daemon=True).start()
        self.listen(self.worker_path, [program])
        if gpu_program:
            self.listen(os.path.join(self.dir, "run", "gpu-worker"), [gpu_program, "--gpu"])

    def listen(self, path, command):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(path)
        listening.listen(16)
        threading.Thread(target=self.accept, args=(listening, command), daemon=True).start()

    def keep(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self.notify, 4096, 8)
            fields = dict(line.split("=", 1) for line in data.decode().splitlines())
            with self.lock:
                if fields.get("FDSTOREREMOVE") == "1" and fields["FDNAME"] in self.store:
                    os.close(self.store.pop(fields["FDNAME"]))
                if fields.get("FDSTORE") == "1":
                    self.store[fields["FDNAME"]] = fds.pop()
            for fd in fds:
                os.close(fd)

    def worker(self, connection, command=None):
        """A process at the other end of @connection, which is its descriptor 3."""
        process = spawn([connection.fileno()], command or [self.program], stdin=subprocess.DEVNULL,
                        env={**os.environ, "FAKE_WORKER": self.fake, "LISTEN_FDS": "1"})
        connection.close()
        self.workers.append(process)
        return process

    def accept(self, listening, command):
        while True:
            self.worker(listening.accept()[0], command)

    def names(self, prefix=""):
        with self.lock:
            return sorted(name for name in self.store if name.startswith("residentd-" + prefix))

    def replace(self, name, fd):
        with self.lock:
            os.close(self.store[name])
            self.store[name] = fd

    def alive(self):
        return [p.pid for p in self.workers if p.poll() is None]

    def end(self):
        for fd in self.store.values():
            os.close(fd)
        self.store = {}
        for p in self.workers:
            p.wait(10)
        shutil.rmtree(self.dir)


class Kept(Daemon):
    """A daemon that gets what the store has."""

    def __init__(self, policy_, systemd, model=b"x" * SIZE):
        super().__init__(policy_, worker=systemd.worker_path, files={"m.gguf": model})
        self.systemd = systemd

    def start(self, expect=None):
        with self.systemd.lock:
            names = list(self.systemd.store)
            fds = [os.dup(self.systemd.store[n]) for n in names]
        command = [RESIDENTD, "--policy", self.policy_path, "--socket", self.socket, "--worker", self.worker, "--state",
                   self.dir, "--log-level", "debug"]
        env = {**os.environ, "LANG": "C", "NOTIFY_SOCKET": os.path.join(self.systemd.dir, "notify")}
        if names:
            env.update({"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)})
        with open(self.log_path, "wb") as log:
            self.process = spawn(fds, command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        for fd in fds:
            os.close(fd)
        wait_for(lambda: "listens on" in self.log() or self.process.poll() is not None, "the daemon to listen")
        assert self.process.poll() is None, self.log()
        return self

    def ready(self, ram="lock"):
        """The model, once it is ready, verified, and the store knows of it."""
        def look():
            m = self.status()
            return m if m["state"] == "ready" and (ram == "map" or m["ram_locked_bytes"] >= SIZE) and \
                len(self.systemd.names("link-")) == 1 and self.systemd.names("state-") else None
        m = None

        def found():
            nonlocal m
            m = look()
            return m
        wait_for(found, "a ready model")
        with self.client() as c:
            assert c.complete("hello")[0] == "hello"
        return m

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end_in_order(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0, self.log()

    def copies(self):
        """Inodes of the copies that the daemon maps."""
        with open("/proc/%d/maps" % self.process.pid) as f:
            return {line.split()[4] for line in f if "memfd:residentd" in line}


class bed:
    def __init__(self, ram="lock"):
        self.ram = ram

    def __enter__(self):
        self.systemd = Systemd()
        self.daemon = Kept(policy(self.ram), self.systemd)
        self.daemon.__enter__()
        return self.systemd, self.daemon, self.daemon.ready(self.ram)

    def __exit__(self, *error):
        self.daemon.__exit__(*error)
        self.systemd.end()


def sealed(data):
    fd = os.memfd_create("state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    return fd


def state_of(systemd):
    """The name of the snapshot and its bytes."""
    name = systemd.names("state-")[-1]
    fd = systemd.store[name]
    return name, os.pread(fd, os.fstat(fd).st_size, 0)


def a_worker_is_taken_back_after_a_stop_and_after_a_kill():
    for ram in ("lock", "copy", "map"):
        with bed(ram) as (systemd, d, before):
            for end in (d.end_in_order, d.kill, d.end_in_order):
                copies = d.copies()
                end()
                assert is_alive(before["worker_pid"])
                d.start()
                assert d.ready(ram)["worker_pid"] == before["worker_pid"], d.log()
                assert d.copies() == copies and len(copies) == (ram == "copy")
            assert systemd.alive() == [before["worker_pid"]]
            assert len(systemd.names("state-")) == 1, systemd.names()


def locked_by(d):
    with open(f"/proc/{d.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmLck:")) * 1024


WHOLE = -(-SIZE // 4096) * 4096


def what_gpus_have_is_let_go_of_by_the_next_daemon_too():
    for ranges, left_out in (("[[0, 4096, 8192]]", 8192), ("[[0, 0, 4096], [0, 8192, 91808]]", 4096 + 94208)):
        systemd = Systemd()
        systemd.fake = "released " + ranges
        with Kept(policy(), systemd) as d:
            for end in (None, d.kill, d.end_in_order):
                if end:
                    end()
                    d.start()
                wait_for(lambda: d.status()["state"] == "ready" and systemd.names("state-"), "a ready model")
                wait_for(lambda: d.status()["ram_locked_bytes"] == WHOLE - left_out, f"{ranges} to be let go of")
                assert locked_by(d) == WHOLE - left_out, (locked_by(d), ranges)
                assert d.status().get("ram_lost_bytes", 0) == 0, d.status()
                assert d.client().call("Models.Status")["ram"]["used_bytes"] < SIZE + 3 * 4096, d.client().call("Models.Status")
            assert len(systemd.alive()) == 1
        systemd.end()


def a_model_taken_back_returns_to_a_gpu_that_comes_back():
    """The GPU was lost before the restart, and the daemon that looks for it never saw it."""
    if not os.path.exists(GPU_WORKER):
        raise Skip("built without the emulation of GPUs")
    with tempfile.TemporaryDirectory(prefix="residentd-handover.") as folder:
        lost, program = os.path.join(folder, "lost"), os.path.join(folder, "gpu-worker")
        with open(program, "w") as f:
            f.write(f'#!/bin/sh\nexport LD_LIBRARY_PATH={DOUBLE} FAKE_CUDA_LOST_FILE={lost}\nexec {GPU_WORKER} "$@"\n')
        os.chmod(program, 0o755)
        model = os.path.join(folder, "m.gguf")
        subprocess.run([MAKE_MODEL, model, "--layers", "2", "--dim", "64", "--ff", "96", "--heads", "4", "--kv-heads", "2",
                        "--vocab", "512", "--context", "64"], check=True)
        with open(model, "rb") as f:
            data = f.read()
        systemd = Systemd(REAL_WORKER, program)
        entry = {**policy("map")["models"]["m"], "placement": {"gpu_layers": "all"}, "context": {"tokens": 64, "sequences": 1}}
        with Kept({"models": {"m": entry}}, systemd, data) as d:
            def answer():
                with d.client() as c:
                    return c.call("Inference.Complete", model="m", prompt_tokens=[5, 6], max_tokens=2, temperature=0)["text"]

            def on_gpu(layers):
                status = d.status()
                return status["state"] == "ready" and status["gpu_layers"] == layers

            wait_for(lambda: on_gpu(2), "the model to be on the GPU")
            expected = answer()
            open(lost, "w").close()
            try:
                answer()
                raise AssertionError("it was answered")
            except Refused as e:
                assert e.error == "io.residentd.ModelUnavailable", e
            wait_for(lambda: on_gpu(0) and systemd.names("link-"), "the model to be computed on the processor")
            before = d.status()["worker_pid"]
            d.end_in_order()
            d.start()
            wait_for(lambda: d.client().call("Models.Status").get("gpu_reason"), "the new daemon to look")
            wait_for(lambda: on_gpu(0), "the model to go on")
            assert d.status()["worker_pid"] == before and answer() == expected, d.status()
            os.unlink(lost)
            wait_for(lambda: on_gpu(2), "the model to be on the GPU again")
            assert answer() == expected
            with d.client() as c:
                c.call("Models.Unload", model="m")
        systemd.end()


def what_gpus_can_not_have_stays_locked():
    for ranges in ("[[0, 4096, 4096], [0, 0, 4096]]", "[[0, 0, 8192], [0, 4096, 4096]]", "[[1, 0, 4096]]", "[[0, 1, 4096]]",
                   "[[0, 0, 5000]]", "[[0, 0, 102400]]", "[[0, 4096, 1125899906842624]]", "[[0, -4096, 4096]]", "[[0, 0]]", "7"):
        systemd = Systemd()
        systemd.fake = "released " + ranges
        with Kept(policy(), systemd) as d:
            d.ready()
            assert locked_by(d) == WHOLE, (locked_by(d), ranges)
        systemd.end()


def requests_of_a_killed_daemon_are_forgotten():
    with bed() as (systemd, d, before):
        with d.client() as c:
            stream = c.stream("Inference.Complete", model="m", prompt="count 1000000")
            next(piece for piece in stream if piece["text"])
            d.kill()
            try:
                for _ in stream:
                    pass
            except (EOFError, ConnectionResetError):
                pass
        d.start()
        assert d.ready()["worker_pid"] == before["worker_pid"]
        # Neither a piece nor the end of what nobody knows any more comes from the worker.
        assert "broke the protocol" not in d.log()
        assert d.status()["sequences_active"] == 0


def rows(d):
    with sqlite3.connect(f"file:{os.path.join(d.dir, 'usage.sqlite')}?mode=ro", uri=True) as db:
        return db.execute("SELECT uid, sum(requests), sum(prompt_tokens), sum(output_tokens) FROM usage GROUP BY uid "
                          "ORDER BY uid").fetchall()


def tokens_today(d, uid):
    with d.client() as c:
        return c.call("Usage.Get", uid=uid)["used"]["tokens_per_day"]


def group_tokens_today(d):
    """Of the only group with a total."""
    with d.client() as c:
        one, = c.call("Usage.Get", uid=-1)["groups"]
        return one["used"]["tokens_per_day"]


def what_was_under_way_at_a_kill_is_counted_once():
    """The real worker goes on for a while, and tells the next daemon of it: by user, and once however many follow."""
    need_root()
    systemd = Systemd(REAL_WORKER)
    group = grp.getgrgid(pwd.getpwuid(1).pw_gid).gr_name
    d = Kept({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}},
              "quotas": {"groups": {group: {"total": {"tokens_per_day": "1M"}}}}}, systemd, PRIMER)
    with d:
        before = d.wait_state("ready")
        wait_for(lambda: systemd.names("state-") and systemd.names("link-"), "the store to have the link")

        def begin(uid, max_tokens):
            """A stream of which something was heard, as that user; it is left open."""
            def run():
                c = d.client()
                stream = c.stream("Inference.Complete", model="m", prompt="Once upon a time", max_tokens=max_tokens,
                                  temperature=0, grammar="root ::= [a-z ]{5000}")
                heard = [next(piece for piece in stream if piece["text"])["text"]]
                try:
                    heard += [piece["text"] for piece in stream]
                except (EOFError, ConnectionResetError):
                    pass
                return len(heard)
            return as_user(uid, run)
        long_ones = [begin(uid, 900) for uid in (1, 2)]
        short = begin(3, 40)
        wait_for(lambda: d.status()["sequences_active"] >= 2, "requests to run")
        join_user(short)
        wait_for(lambda: rows(d) and rows(d)[0][0] == 3, "the short one in the ledger")
        (_, n_requests, n_prompt, n_short), = rows(d)
        assert n_requests == 1 and n_prompt > 0 and n_short == 40
        d.kill()
        heard = [join_user(h) for h in long_ones]
        for n_new in (2, 0):
            d.start()
            assert d.wait_state("ready")["worker_pid"] == before["worker_pid"]
            wait_for(lambda: len(rows(d)) == 3, "what had been under way, in the ledger")
            found = rows(d)
            for (uid, n, prompt, output), n_heard in zip(found, heard):
                assert n == 1 and prompt == n_prompt and n_heard - 2 <= output < 900, (found, heard)
                wait_for(lambda: tokens_today(d, uid) == prompt + output, "the day's quota to know of it")
            assert found[2] == (3, 1, n_prompt, 40), found
            # The first one's group as a whole, too.
            assert group_tokens_today(d) == found[0][2] + found[0][3], (group_tokens_today(d), found)
            assert tokens_today(d, 3) == n_prompt + 40
            assert d.log().count("did not write it into the ledger") == n_new, d.log()
            wait_for(lambda: systemd.names("state-"), "the store to have the state")
            d.end_in_order()
        assert rows(d) == found
    systemd.end()


def users_find_what_they_sent_before_a_restart():
    """Kept prefixes are the worker's, which goes on; whose they are the next daemon says in a way that it knows."""
    need_root()
    systemd = Systemd(REAL_WORKER)
    d = Kept({"models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}}}}, systemd, PRIMER)

    def cached(uid):
        def run():
            with d.client() as c:
                return c.call("Inference.Complete", model="m", prompt_tokens=list(range(300, 400)), max_tokens=1,
                              temperature=0)["usage"]["cached_tokens"]
        return join_user(as_user(uid, run))
    with d:
        d.wait_state("ready")
        wait_for(lambda: systemd.names("state-") and systemd.names("link-"), "the store to have the link")
        assert [cached(1), cached(1)] == [0, 96]
        for end in (d.kill, d.end_in_order):
            end()
            d.start()
            d.wait_state("ready")
            # The second user comes first and gets the number that the first one had.
            assert [cached(2), cached(1)] == [0 if end == d.kill else 96, 96]
            wait_for(lambda: systemd.names("state-"), "the store to have the state")
    systemd.end()


def a_snapshot_that_is_odd_is_of_no_use():
    def flipped(data):
        return data[:200] + bytes([data[200] ^ 1]) + data[201:]

    def of_another_version(data):
        return data[:8] + struct.pack("<I", 99) + data[12:]
    with bed() as (systemd, d, before):
        for spoil in (flipped, of_another_version, lambda data: data[:-1], lambda data: b"x"):
            d.end_in_order()
            name, data = state_of(systemd)
            systemd.replace(name, sealed(spoil(data)))
            d.start()
            after = d.ready()
            assert "is of no use" in d.log() and after["worker_pid"] != before["worker_pid"], d.log()
            wait_for(lambda: systemd.alive() == [after["worker_pid"]], "the old worker's end")
            before = after
        # One that somebody could still write.
        d.end_in_order()
        name, data = state_of(systemd)
        fd = os.memfd_create("state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, data)
        systemd.replace(name, fd)
        d.start()
        assert "it is not sealed" in d.log()
        assert d.ready()["worker_pid"] != before["worker_pid"]


def a_link_to_somebody_else_is_refused():
    with bed() as (systemd, d, before):
        d.end_in_order()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        impostor = systemd.worker(theirs)
        systemd.replace(systemd.names("link-")[0], ours.detach())
        d.start()
        after = d.ready()
        assert after["worker_pid"] not in (before["worker_pid"], impostor.pid)
        assert "broke the protocol" in d.log(), d.log()
        wait_for(lambda: systemd.alive() == [after["worker_pid"]], "the others' end")


def a_missing_copy_is_made_again():
    with bed("copy") as (systemd, d, before):
        copies = d.copies()
        d.end_in_order()
        with systemd.lock:
            os.close(systemd.store.pop("residentd-copy-%s" % systemd_copy_suffix(systemd)))
        d.start()
        after = d.ready("copy")
        assert after["worker_pid"] != before["worker_pid"] and d.copies() != copies
        wait_for(lambda: systemd.alive() == [after["worker_pid"]], "the old worker's end")


def systemd_copy_suffix(systemd):
    return next(n for n in systemd.store if n.startswith("residentd-copy-"))[len("residentd-copy-"):]


def a_dead_worker_or_one_of_another_version_is_replaced_on_the_same_copy():
    for other in ("", "other-version"):
        systemd = Systemd()
        systemd.fake = other
        with Kept(policy("copy"), systemd) as d:
            before, copies = d.ready("copy"), d.copies()
            d.end_in_order()
            if not other:
                os.kill(before["worker_pid"], signal.SIGKILL)
            systemd.fake = ""
            d.start()
            after = d.ready("copy")
            assert after["worker_pid"] != before["worker_pid"]
            assert d.copies() == copies, "copied again"
            assert not other or "version" in d.log()
            wait_for(lambda: systemd.alive() == [after["worker_pid"]], "the old worker's end")
        systemd.end()


def one_of_another_build_works_until_it_is_idle():
    systemd = Systemd()
    systemd.fake = "other-build"
    with Kept(policy("copy"), systemd) as d:
        before, copies = d.ready("copy"), d.copies()
        d.end_in_order()
        systemd.fake = ""
        d.start()
        with d.client() as c:
            # It answers before it goes, and what runs is finished.
            stream = c.stream("Inference.Complete", model="m", prompt="count 250")
            next(piece for piece in stream if piece["text"])
            assert d.status()["worker_pid"] == before["worker_pid"]
            assert list(stream)[-1]["usage"]["output_tokens"] == 250
        wait_for(lambda: d.status().get("worker_pid") not in (None, before["worker_pid"]), "a worker of this build")
        after = d.ready("copy")
        assert d.copies() == copies, "copied again"
        assert "another build" in d.log()
        wait_for(lambda: systemd.alive() == [after["worker_pid"]], "the old worker's end")
    systemd.end()


def the_third_start_in_a_minute_trusts_nothing():
    with bed() as (systemd, d, before):
        d.kill()
        d.start()
        assert d.ready()["worker_pid"] == before["worker_pid"]
        d.kill()
        d.start()
        after = d.ready()
        assert after["worker_pid"] != before["worker_pid"], d.log()
        wait_for(lambda: systemd.alive() == [after["worker_pid"]], "the old worker's end")
        d.kill()
        d.start()
        assert d.ready()["worker_pid"] != after["worker_pid"]


def what_is_unloaded_leaves_the_store():
    with bed("copy") as (systemd, d, before):
        with d.client() as c:
            c.call("Models.Unload", model="m")
        wait_for(lambda: not systemd.names("link-") and not systemd.names("copy-"), "an empty store")
        wait_for(lambda: not systemd.alive(), "the worker's end")


def copy_of_one(d):
    """A descriptor of the model's copy, as Share gives it."""
    with d.client() as c:
        c.send("Inference.Share", {"model": "m"})
        _, fds, _, _ = socket.recv_fds(c.socket, 65536, 4)
    return fds[0]


def used(d):
    with d.client() as c:
        return c.call("Models.Status")["ram"]["used_bytes"]


def copies_that_others_have_count_after_a_restart():
    systemd = Systemd()
    model = {"path": "@DIR@/m.gguf", "residency": {"ram": "copy", "when": "on-demand"}, "share": {"users": ["*"]}}
    rules = {"host": {"ram": {"budget": "4G", "reserve": 0}}, "models": {"m": model}}
    with Kept(rules, systemd) as d:
        first = copy_of_one(d)
        with d.client() as c:
            c.call("Models.Unload", model="m")
        wait_for(lambda: used(d) == SIZE, "the model to leave")
        assert len(systemd.names("shared-")) == 1, systemd.names()
        for end in (d.end_in_order, d.kill):
            end()
            d.start()
            assert used(d) == SIZE, (used(d), d.log())
        # A second one, of a model that is still loaded when the daemon ends and not in the next one's policy.
        second = copy_of_one(d)
        wait_for(lambda: systemd.names("copy-"), "the copy to be in the store")
        d.end_in_order()
        d.write_policy({"host": rules["host"], "models": {}})
        d.start()
        wait_for(lambda: used(d) == 2 * SIZE and not systemd.alive(), "the worker to end and both to count")
        assert len(systemd.names("shared-")) == 2 and not systemd.names("copy-"), systemd.names()
        os.close(first)
        wait_for(lambda: used(d) == SIZE, "the first to be given back")
        os.close(second)
        wait_for(lambda: used(d) == 0, "the second to be given back")
        wait_for(lambda: not systemd.names("shared-"), "the store to be empty")
        # What is none of ours is not taken for a copy.
        d.end_in_order()
        with systemd.lock:
            systemd.store["residentd-shared-999"] = os.open(d.policy_path, os.O_RDONLY)
        d.start()
        assert used(d) == 0
        wait_for(lambda: not systemd.names("shared-"), "the stranger to be thrown out")
    systemd.end()


main([
    a_worker_is_taken_back_after_a_stop_and_after_a_kill,
    what_gpus_have_is_let_go_of_by_the_next_daemon_too,
    a_model_taken_back_returns_to_a_gpu_that_comes_back,
    what_gpus_can_not_have_stays_locked,
    requests_of_a_killed_daemon_are_forgotten,
    what_was_under_way_at_a_kill_is_counted_once,
    users_find_what_they_sent_before_a_restart,
    a_snapshot_that_is_odd_is_of_no_use,
    a_link_to_somebody_else_is_refused,
    a_missing_copy_is_made_again,
    a_dead_worker_or_one_of_another_version_is_replaced_on_the_same_copy,
    one_of_another_build_works_until_it_is_idle,
    the_third_start_in_a_minute_trusts_nothing,
    what_is_unloaded_leaves_the_store,
    copies_that_others_have_count_after_a_restart,
])
