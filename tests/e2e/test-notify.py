#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon tells a service manager ($NOTIFY_SOCKET), and what it does with one that has no descriptor store for
its workers: those that are its children end with it, and nothing is left behind."""

import os
import re
import signal
import socket
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import FAKE_WORKER, Daemon, is_alive, main, wait_for                      # noqa: E402

POLICY = {"host": {"ready": "resident"},
          "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "copy", "when": "always"}}}}


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="residentd-notify.")
        path = os.path.join(self.dir.name, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(path)
        self.heard = []
        os.environ["NOTIFY_SOCKET"] = path
        return self

    def messages(self):
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
            except BlockingIOError:
                return self.heard
            for fd in fds:
                os.close(fd)
            self.heard.append((data.decode(), len(fds)))

    def lines(self):
        return [line for text, _ in self.messages() for line in text.splitlines()]

    def __exit__(self, *_):
        del os.environ["NOTIFY_SOCKET"]
        self.socket.close()
        self.dir.cleanup()


def ready_and_status_are_said_and_nothing_is_stored_for_children():
    with Manager() as manager:
        with Daemon(POLICY, files={"m.gguf": b"x" * 100000}) as d:
            worker = d.wait_state("ready")["worker_pid"]
            wait_for(lambda: "READY=1" in manager.lines(), "READY=1")
            d.process.send_signal(signal.SIGTERM)
            assert d.process.wait(10) == 0, d.log()
            wait_for(lambda: not is_alive(worker), "the worker's end")
        lines = manager.lines()
        assert lines.index("STATUS=1 models ready, 0 loading, 0 failed") < lines.index("READY=1"), lines
        assert "STOPPING=1" in lines
        assert not [x for x in lines if x.startswith("FDSTORE")], lines
        assert not [x for x in manager.messages() if x[1]], "descriptors were sent"


def a_killed_daemon_without_a_store_loads_anew():
    with Manager() as manager:
        with Daemon(POLICY, files={"m.gguf": b"x" * 100000}) as d:
            worker = d.wait_state("ready")["worker_pid"]
            d.process.kill()
            d.process.wait()
            wait_for(lambda: not is_alive(worker), "the worker's end")
            open(d.log_path, "w").close()
            d.start()
            assert d.wait_state("ready")["worker_pid"] != worker
            assert "that go on" not in d.log()
        assert not [x for x in manager.lines() if x.startswith("FDSTORE=")]


def a_start_that_waits_for_models_asks_for_time():
    with Manager() as manager, tempfile.TemporaryDirectory(prefix="residentd-notify.") as folder:
        os.chmod(folder, 0o755)
        slow = os.path.join(folder, "worker")
        with open(slow, "w") as f:
            f.write("#!/bin/sh\nsleep 3\nexec %s\n" % os.path.abspath(FAKE_WORKER))
        os.chmod(slow, 0o755)
        with Daemon(POLICY, worker=slow, files={"m.gguf": b"x" * 100000}) as d:
            # Clients are served meanwhile.
            assert d.client().call("Models.Status")["models"][0]["state"] in ("mapping", "loading")
            assert "READY=1" not in manager.lines()
            d.wait_state("ready")
            wait_for(lambda: "READY=1" in manager.lines(), "READY=1")
            lines = manager.lines()
            asked = [i for i, x in enumerate(lines) if x.startswith("EXTEND_TIMEOUT_USEC=")]
            assert asked and max(asked) < lines.index("READY=1"), lines
            progress = [x for x in lines if re.fullmatch(r"STATUS=0 models ready, 1 loading \(\d+%\), 0 failed", x)]
            assert progress and lines.index(progress[-1]) < lines.index("READY=1"), lines


main([
    ready_and_status_are_said_and_nothing_is_stored_for_children,
    a_killed_daemon_without_a_store_loads_anew,
    a_start_that_waits_for_models_asks_for_time,
])
