#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a restart of the daemon keeps a user waiting: restart.py [--build DIR] FILE

The service is installed into a booted Debian of its own (tests/systemd/machine.py; root), with FILE as its only model
and its state directory on FILE's disk. Then, in turns: a token with nothing restarted, `systemctl restart`, and
`kill -9` of the daemon, each with a client that connects when the old daemon has gone and tries again until it has a
token. Prints one JSON object for each of the three; times are milliseconds from the kill or the command.

  gone     the old daemon has ended, its memory unmapped
  fork     systemd has made the process (its own clock's)
  exec     the sandbox is made, the daemon's code begins
  listens  the daemon takes connections
  admitted the client's call was taken
  token    the client has the first token
"""
import argparse
import ctypes
import json
import os
import pathlib
import re
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "systemd"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

IN_OPEN = 0x20
EXECUTABLE = "/usr/local/bin/residentd"
SOCKET = "/run/residentd/io.residentd"
PROMPT = [300]


def install(m, a, harness):
    subprocess.run(["meson", "install", "-C", a.build, "--no-rebuild", "--destdir", m.path("/")], check=True,
                   stdout=subprocess.DEVNULL)
    m.boot()
    m.run("ldconfig")
    m.run("systemd-sysusers")
    m.run("systemd-tmpfiles", "--create")
    policy = {"version": 1, "models": {"m": {"path": "/srv/disk/" + pathlib.Path(a.file).name,
                                             "residency": {"ram": a.ram, "when": "always"},
                                             "context": {"tokens": 2048, "sequences": 4}}}}
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    # Many restarts in a minute are what is wanted here.
    m.write("/etc/systemd/system/residentd.service.d/bench.conf",
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\n" + "".join(x + "\n" for x in a.setting))
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY:
        # In a container that can't raise it, for the locks of workers: costs nothing that is measured.
        m.write("/etc/systemd/system/residentd-worker@.service.d/bench.conf",
                "[Service]\nPrivateUsers=no\nCapabilityBoundingSet=CAP_IPC_LOCK\nAmbientCapabilities=CAP_IPC_LOCK\n")
    m.run("mkdir", "-p", "/var/lib/residentd")
    m.run("mount", "--bind", "/srv/disk/" + pathlib.Path(a.state).name, "/var/lib/residentd")
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "residentd.socket", "residentd.service")
    m.run("residentctl", "wait", "m", timeout=300)


def show(m, name):
    return m.run("systemctl", "show", "-P", name, "residentd.service").stdout.strip()


def pid_here(m):
    """The daemon's pid as this machine sees it: the innermost of its numbers is the one that its systemd says."""
    inside = show(m, "MainPID")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/status" % entry) as f:
                text = f.read()
        except OSError:
            continue
        found = re.search(r"^NSpid:\t(\d+)\t(\d+)$", text, flags=re.M)
        if found and found[2] == inside and text.startswith("Name:\tresidentd\n"):
            return int(entry)
    raise AssertionError("there is no daemon")


def first_token(path, harness, marks):
    """Until there is one, whatever happens to the connection meanwhile."""
    while True:
        try:
            with harness.Client(path) as c:
                for piece in c.stream("Inference.Complete", model="m", prompt_tokens=PROMPT, max_tokens=1, logprobs=0):
                    marks.setdefault("admitted", time.monotonic())
                    if piece.get("logprobs"):
                        marks["token"] = time.monotonic()
                        return
        except (OSError, EOFError, harness.Refused):
            marks.pop("admitted", None)
            time.sleep(0.001)


class Execs:
    """When a program was begun: opened, as its loader's file is right after."""

    def __init__(self, path):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.libc.inotify_add_watch(self.fd, path.encode(), IN_OPEN) >= 0, os.strerror(ctypes.get_errno())

    def drain(self):
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass

    def next(self, timeout):
        return time.monotonic() if select.select([self.fd], [], [], timeout)[0] else None


def listened_at(m, since):
    """The clock's seconds at which the daemon said so last."""
    for line in reversed(m.journal("-u", "residentd.service", "-n", "200", output="json").splitlines()):
        entry = json.loads(line)
        if " listens on " in entry.get("MESSAGE", ""):
            at = int(entry.get("_SOURCE_MONOTONIC_TIMESTAMP") or entry["__MONOTONIC_TIMESTAMP"]) / 1e6
            return at if at >= since else None
    return None


def once(m, what, path, execs, harness):
    pid, marks = pid_here(m), {}
    gone = os.pidfd_open(pid)
    time.sleep(3)  # what the last one left is done: verified, written
    execs.drain()
    client = threading.Thread(target=first_token, args=(path, harness, marks))
    begin = time.monotonic()
    command = None
    if what == "kill":
        os.kill(pid, signal.SIGKILL)
    elif what == "restart":
        command = subprocess.Popen(["nsenter", "-t", str(m._init()), "-m", "-p", "-i", "-u", "-C", "-r", "-w",
                                    "systemctl", "restart", "residentd.service"])
    if what != "nothing":
        select.select([gone], [], [], 10)
        marks["gone"] = time.monotonic()
    # Not before: the old one would answer.
    client.start()
    if what != "nothing":
        marks["exec"] = execs.next(10)
    client.join()
    os.close(gone)
    if command:
        command.wait()
    if what != "nothing":
        marks["fork"] = int(show(m, "ExecMainStartTimestampMonotonic")) / 1e6
        marks["listens"] = listened_at(m, begin)
    return {k: round((at - begin) * 1e3, 1) for k, at in marks.items() if at}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build")
    p.add_argument("--ram", default="lock", choices=("map", "lock", "copy"))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--setting", action="append", default=[], help="of the service's unit, as in KEY=VALUE; may repeat")
    p.add_argument("--suite", default="bookworm")
    p.add_argument("--all", action="store_true", help="print each round, too")
    p.add_argument("file")
    a = p.parse_args()
    os.environ["RESIDENTD_BUILD"] = a.build = str(pathlib.Path(a.build).resolve())
    import harness
    import machine
    root = machine.make_root(machine.CACHE, a.suite)
    disk = str(pathlib.Path(a.file).resolve().parent)
    with tempfile.TemporaryDirectory(dir=disk, prefix="state.") as a.state, machine.Machine(root, disk) as m:
        install(m, a, harness)
        inside = "/proc/%d/root" % m._init()
        execs = Execs(inside + EXECUTABLE)
        rounds = {}
        for i in range(a.rounds + 1):
            for what in ("nothing", "restart", "kill"):
                marks = once(m, what, inside + SOCKET, execs, harness)
                # The first of each meets what nobody has used yet.
                if i > 0:
                    rounds.setdefault(what, []).append(marks)
        for what, list_of in rounds.items():
            if a.all:
                for marks in list_of:
                    print("#", what, json.dumps(marks))
            keys = [k for k in ("gone", "fork", "exec", "listens", "admitted", "token") if k in list_of[0]]
            print(json.dumps({"what": what, "ram": a.ram,
                              **{k: {"median": round(statistics.median(x[k] for x in list_of if k in x), 1),
                                     "min": min(x[k] for x in list_of if k in x),
                                     "max": max(x[k] for x in list_of if k in x)} for k in keys}}))
        m.run("umount", "/var/lib/residentd", check=False)


if __name__ == "__main__":
    main()
