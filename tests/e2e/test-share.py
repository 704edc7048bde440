#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Inference.Share: another program maps the resident model, and can do no harm with what it was given."""

import array
import fcntl
import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, Client, Daemon, Refused, main, n_fds, need_locking, need_root, run_as, wait_for  # noqa: E402

MB = 1 << 20
SIZE = 6 * MB
CONTENT = os.urandom(SIZE)
ALICE, BOB = 1, 2
PAGE = mmap.PAGESIZE
EXAMPLE = os.path.join(BUILD, "client", "libresident", "resident-example-share")


def daemon(ram, share={"users": ["*"]}, **more):  # noqa: B006
    need_root()
    need_locking(4 * SIZE)
    model = {"path": "@DIR@/m.gguf", "residency": {"ram": ram, "when": "on-demand"}, **more}
    if share is not None:
        model["share"] = share
    host = {"ram": {"budget": "4G", "reserve": 0}}
    return Daemon({"host": host, "models": {"m": model}}, files={"m.gguf": CONTENT})


def share(path, model="m"):
    """The reply's parameters and the descriptors that came along."""
    with Client(path) as c:
        c.send("Inference.Share", {"model": model})
        data, ancillary, _, _ = c.socket.recvmsg(65536, socket.CMSG_SPACE(4 * 16))
        fds = array.array("i")
        for level, kind, payload in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(payload)
        c.buffer = data
        return c.receive()["parameters"], list(fds)


def content_of(fd):
    return os.pread(fd, SIZE + 1, 0)


def used(d):
    with d.client() as c:
        return c.call("Models.Status")["ram"]["used_bytes"]


def pss(pid, name):
    total, inside = 0, False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                inside = name in line
            elif inside and line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def the_same_pages_are_mapped(ram, name):
    with daemon(ram) as d:
        reply, fds = share(d.socket)
        assert reply["files"] == [0] and reply["size_bytes"] == SIZE and len(fds) == 1, reply
        assert content_of(fds[0])[:SIZE] == CONTENT
        os.close(fds[0])
        # A second program, on the library: it touches all of it, and no page is there twice.
        p = subprocess.Popen([EXAMPLE, "m"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "RESIDENTD_SOCKET": d.socket})
        said = re.fullmatch(r"1 files, (\d+) bytes, sum (\d+), Rss (\d+), Pss (\d+)\n", p.stdout.readline())
        size, total, rss, own = map(int, said.groups())
        assert size >= SIZE and total == sum(CONTENT[i] for i in range(0, SIZE, 4096)), said.group()
        worker = d.status()["worker_pid"]
        sums = [pss(pid, name) for pid in (d.process.pid, worker, p.pid)]
        assert 0 < own < rss == size and sums[2] > 0 and sum(sums) <= SIZE + 3 * PAGE, (said.group(), sums)
        p.stdin.close()
        assert p.wait() == 0
        done = subprocess.run([EXAMPLE, "nope"], capture_output=True, text=True,
                              env={**os.environ, "RESIDENTD_SOCKET": d.socket})
        assert done.returncode == 1 and "nope" in done.stderr, done


def a_locked_files_pages_are_shared():
    the_same_pages_are_mapped("lock", "/m.gguf")


def a_copys_pages_are_shared():
    the_same_pages_are_mapped("copy", "residentd-model")


def nobody_gets_it_unless_the_policy_says_so():
    with daemon("copy", share=None) as d:
        try:
            share(d.socket)
        except Refused as e:
            assert e.error == "io.residentd.NotAllowed" and e.parameters["reason"] == "share", e
        else:
            raise AssertionError("it was handed out")
        try:
            share(d.socket, "nope")
        except Refused as e:
            assert e.error == "io.residentd.NoSuchModel", e
    with daemon("lock", share={"users": ["daemon"]}, allow={"users": ["daemon", "root"]}) as d:
        assert run_as(ALICE, lambda: share(d.socket)[0]["files"]) == [0]
        for uid, reason in ((0, "share"), (BOB, "policy")):
            try:
                run_as(uid, lambda: share(d.socket)[0])
            except Refused as e:
                assert e.error == "io.residentd.NotAllowed" and e.parameters["reason"] == reason, e
            else:
                raise AssertionError("it was handed out")


def fails(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return True
    return False


def try_everything(path):
    """What a hostile holder tries. It returns what worked."""
    _, (fd,) = share(path)
    again = f"/proc/self/fd/{fd}"
    did = []
    if not fails(os.write, fd, b"x") or not fails(os.ftruncate, fd, 0):
        did.append("wrote to the descriptor")
    if not fails(lambda: mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)):
        did.append("mapped it writable")
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try:
            other = os.open(again, flags)
        except OSError:
            continue
        # Of a sealed copy the mode bits let it through; the seals do not.
        if not fails(os.pwrite, other, b"x", 0) or not fails(os.ftruncate, other, 0):
            did.append("wrote after opening it again")
        if not fails(lambda o=other: mmap.mmap(o, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)):
            did.append("mapped it writable after opening it again")
        if not fails(fcntl.fcntl, other, 1033, 0x0010):  # F_ADD_SEALS, F_SEAL_FUTURE_WRITE
            did.append("sealed it")
        os.close(other)
    if not fails(os.link, again, f"/tmp/residentd-share-{os.getpid()}"):
        did.append("linked it")
    # Locks and leases are its own business, and no bar to the service.
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return did


def a_holder_can_change_nothing(ram):
    with daemon(ram) as d:
        assert run_as(ALICE, lambda: try_everything(d.socket)) == []
        with d.client() as c:
            assert c.complete("still here")[0] == "still here"
        _, (fd,) = share(d.socket)
        assert content_of(fd)[:SIZE] == CONTENT
        os.close(fd)
        with d.client() as c:
            c.call("Models.Unload", model="m")
            assert d.status()["state"] == "absent"
            list(c.stream("Models.Load", model="m"))


def a_holder_of_a_locked_file_can_change_nothing():
    a_holder_can_change_nothing("lock")


def a_holder_of_a_copy_can_change_nothing():
    a_holder_can_change_nothing("copy")


def a_copy_counts_until_its_last_holder_is_gone():
    with daemon("copy") as d:
        before = used(d)
        _, (fd,) = share(d.socket)
        # One that gave the descriptor up and keeps only a mapping of it, opened anew.
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        mapped = mmap.mmap(other, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(other)
        with d.client() as c:
            c.call("Models.Unload", model="m")
        assert before == 0 and used(d) == SIZE, used(d)
        os.close(fd)
        assert mapped[SIZE - 1] == CONTENT[-1]
        # Another one that passed it on before it ended is no way out, either.
        assert "stay in memory, and in the budget" in d.log()
        with d.client() as c:
            list(c.stream("Models.Load", model="m"))
            assert used(d) > 2 * SIZE, used(d)
            c.call("Models.Unload", model="m")
        assert used(d) == SIZE, used(d)
        mapped.close()
        wait_for(lambda: used(d) == 0, "the copy to be given back")


def what_is_kept_bounds_what_is_loaded():
    """The budget holds for everything: a copy that somebody keeps leaves no room for a second one."""
    with daemon("copy") as d:
        _, (fd,) = share(d.socket)
        with open(d.policy_path) as f:
            policy = json.load(f)
        with d.client() as c:
            policy["host"]["ram"]["budget"] = used(d) + SIZE // 2
            c.call("Models.Unload", model="m")
            d.write_policy(policy)
            c.call("Models.Reload")
            try:
                c.call("Models.Load", model="m")
            except Refused as e:
                assert e.error == "io.residentd.InsufficientMemory", e
            else:
                raise AssertionError("it was loaded")
            os.close(fd)
            wait_for(lambda: used(d) == 0, "the copy to be given back")
            c.call("Models.Load", model="m")


def replies_that_are_not_read_hold_few_descriptors():
    """A client that asks again and again and reads nothing."""
    with daemon("lock") as d:
        with d.client() as c:
            for _ in range(2000):
                try:
                    c.socket.setblocking(False)
                    c.send("Inference.Share", {"model": "m"})
                except BlockingIOError:
                    break
            c.socket.setblocking(True)
            d.wait_state("ready")
            assert n_fds(d.process.pid) < 100
        d.process.send_signal(signal.SIGURG)  # what a broken lease would send
        assert d.status()["state"] == "ready"


if __name__ == "__main__":
    main([
        a_locked_files_pages_are_shared,
        a_copys_pages_are_shared,
        nobody_gets_it_unless_the_policy_says_so,
        a_holder_of_a_locked_file_can_change_nothing,
        a_holder_of_a_copy_can_change_nothing,
        a_copy_counts_until_its_last_holder_is_gone,
        what_is_kept_bounds_what_is_loaded,
        replies_that_are_not_read_hold_few_descriptors,
    ])
