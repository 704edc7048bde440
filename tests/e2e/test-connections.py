#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What connections cost, and what one user's can't do to others."""

import array
import os
import resource
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *  # noqa: E402,F403

USERS = [0, 1, 2, 3]  # that the user database knows
SLOW = bool(os.environ.get("RESIDENTD_SLOW"))


def connect_as(d, uid):
    """A connection of that user, from this process."""
    os.seteuid(uid)
    try:
        return d.client()
    finally:
        os.seteuid(0)


def two_thousand_idle_connections_cost_less_than_8_KB_each():
    need_root()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4500:
        raise Skip("needs 4500 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4500, hard))
    with one_model() as d:
        d.wait_state("ready")
        with open_proc(d.process.pid, "maps") as f:
            if "asan" in f.read():
                raise Skip("a sanitizer's memory is not the service's")
        with d.client() as c:
            c.call("Inference.ListModels")
        before, fds_before = private_bytes(d.process.pid), n_fds(d.process.pid)
        clients = [connect_as(d, USERS[i % 4]) for i in range(2000)]
        # Each was of use, with a call larger than what most send.
        for c in clients:
            c.call("Inference.Complete", model="m", prompt="x" * 20000, max_tokens=1)
        each = (private_bytes(d.process.pid) - before) / len(clients)
        assert 0 < each < 8192, each
        print(f"# {each:.0f} bytes a connection")
        with d.client() as c:
            assert c.complete("one")[0] == "one"
        for c in clients:
            c.close()
        wait_for(lambda: n_fds(d.process.pid) <= fds_before, "the descriptors to be given back")
        assert connections(d) == {0: 1}


def nobody_takes_all_connections():
    need_root()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with one_model() as d:
        d.wait_state("ready")
        mine = []
        try:
            for _ in range(1100):
                c = connect_as(d, 1)
                mine.append(c)
                c.call("Inference.ListModels")
            raise AssertionError("more than a quarter for one user")
        except Refused as e:
            assert e.error == "io.residentd.QuotaExceeded", e
            assert e.parameters == {"quota": "connections", "limit": 1024, "used": 1025}, e
        with connect_as(d, 2) as c:
            assert c.call("Inference.ListModels")["models"]
        for c in mine:
            c.close()


def descriptors_that_nobody_takes_are_counted():
    need_root()
    with one_model() as d:
        d.wait_state("ready")
        held = []
        r, w = os.pipe()
        four = array.array("i", [r] * 4)
        before = n_fds(d.process.pid)
        for _ in range(17):  # the beginning of a frame, with as many as fit
            c = connect_as(d, 1)
            c.call("Inference.ListModels")
            c.socket.sendmsg([b'{"method":'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, four)])
            held.append(c)
        try:
            held[-1].receive()
            raise AssertionError("not refused")
        except Refused as e:
            assert e.error == "io.residentd.QuotaExceeded", e
            assert e.parameters == {"quota": "fds", "limit": 64, "used": 68}, e
        with connect_as(d, 2) as c:
            assert c.call("Inference.ListModels")["models"]
        for c in held:
            c.close()
        wait_for(lambda: n_fds(d.process.pid) <= before, "the descriptors to be closed")
        os.close(r), os.close(w)


def bytes_that_wait_for_their_end_are_counted():
    """Calls that are large and never end: a user may have 64 MiB of them."""
    need_root()
    with one_model() as d:
        d.wait_state("ready")
        begun = b'{"method": "io.residentd.Inference.Complete", "parameters": {"prompt": "' + b"x" * (15 << 20)
        held, last = [], None
        for _ in range(5):
            last = connect_as(d, 1)
            held.append(last)
            try:
                last.socket.sendall(begun)
            except (BrokenPipeError, ConnectionResetError):
                break
        try:
            last.receive()
            raise AssertionError("not refused")
        except Refused as e:
            assert e.error == "io.residentd.QuotaExceeded", e
            assert e.parameters.pop("used") > e.parameters["limit"], e
            assert e.parameters == {"quota": "bytes", "limit": 64 << 20}, e
        # Nobody else is touched by it, and what is given back can be used again.
        with connect_as(d, 2) as c:
            assert c.complete("one")[0] == "one"
        for c in held:
            c.close()
        wait_for(lambda: 1 not in connections(d), "the connections to end")
        with connect_as(d, 1) as c:
            assert c.complete("one")[0] == "one"


def half_a_frame_ends_the_connection():
    if not SLOW:
        raise Skip("takes a minute: in suite slow")
    with one_model() as d:
        d.wait_state("ready")
        with d.client() as half, d.client() as idle:
            begin = time.monotonic()
            half.socket.sendall(b'{"method": "io.resid')
            half.socket.settimeout(90)
            assert half.socket.recv(100) == b"", "not closed"
            assert 55 < time.monotonic() - begin < 80
            assert idle.call("Inference.ListModels")["models"]


def a_client_that_does_not_read_is_paused_and_dropped():
    if not SLOW:
        raise Skip("takes a minute: in suite slow")
    with one_model() as d:
        d.wait_state("ready")
        with d.client() as slow, d.client() as other:
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            before = private_bytes(d.process.pid)
            # Ten thousand pipelined answers of 20 kB: more than any buffer, if they were made.
            call = json.dumps({"method": "io.residentd.Inference.Complete",
                               "parameters": {"model": "m", "prompt": "x" * 20000}}).encode() + b"\0"
            slow.socket.setblocking(False)
            end, sent = time.monotonic() + 5, 0
            while time.monotonic() < end and sent < 10000:
                try:
                    slow.socket.send(call)
                    sent += 1
                except BlockingIOError:
                    time.sleep(0.01)
            assert private_bytes(d.process.pid) - before < 8 << 20
            assert other.complete("one")[0] == "one"
            wait_for(lambda: "does not read its replies" in d.log(), "the drop")
            assert other.complete("one")[0] == "one"


if __name__ == "__main__":
    main([two_thousand_idle_connections_cost_less_than_8_KB_each,
          nobody_takes_all_connections,
          descriptors_that_nobody_takes_are_counted,
          bytes_that_wait_for_their_end_are_counted,
          half_a_frame_ends_the_connection,
          a_client_that_does_not_read_is_paused_and_dropped])
