#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who a client is: what the kernel says, and whose containers it runs in (a real `unshare --map-auto`)."""

import ctypes
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *  # noqa: E402,F403

ALICE, BOB = 1, 2
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
FIRST, COUNT = 700000, 65536
CLONE_NEWNS = 0x00020000
# One that other users may run, too.
PYTHON = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable

# Run inside of a container as root there: the call as this uid, the reply on stdout.
CLIENT = """
import json, os, socket, sys
path, uid, method, parameters = sys.argv[1:]
os.setgroups([])
os.setresgid(int(uid), int(uid), int(uid))
os.setresuid(int(uid), int(uid), int(uid))
s = socket.socket(socket.AF_UNIX)
s.connect(path)
s.sendall(json.dumps({"method": "io.residentd." + method, "parameters": json.loads(parameters)}).encode() + b"\\0")
data = b""
while not data.endswith(b"\\0"):
    data += s.recv(65536)
print(data[:-1].decode())
"""


def name(uid):
    return pwd.getpwuid(uid).pw_name


def give_ranges(text):
    """Our own /etc/subuid and /etc/subgid, in a mount namespace that ends with this process."""
    need_root()
    if not shutil.which("newuidmap") or not os.path.exists("/etc/subuid") or not os.path.exists("/etc/subgid"):
        raise Skip("needs newuidmap, /etc/subuid and /etc/subgid")
    if not give_ranges.files:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) != 0:
            raise Skip("needs a mount namespace")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        for path in ("/etc/subuid", "/etc/subgid"):
            f = tempfile.NamedTemporaryFile("w", prefix="residentd-e2e-subuid.")
            os.chmod(f.name, 0o644)
            subprocess.run(["mount", "--bind", f.name, path], check=True)
            give_ranges.files.append(f)
    for f in give_ranges.files:
        f.seek(0)
        f.truncate()
        f.write(text)
        f.flush()


give_ranges.files = []


def in_container(d, owner, uid, method="Inference.Complete", **parameters):
    """A call as @uid of a container of @owner, with all of its range mapped from 1 on."""
    if method == "Inference.Complete":
        parameters = {"model": "m", "prompt": "one", **parameters}
    command = ["unshare", "--user", "--map-auto", "--map-root-user", "--setuid", "0", "--setgid", "0", PYTHON, "-c",
               CLIENT, d.socket, str(uid), method, json.dumps(parameters)]

    def become():
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=become, env={**os.environ, "HOME": "/"}, cwd="/")
    if done.returncode != 0 and ("unshare" in done.stderr or "newuidmap" in done.stderr):
        raise Skip("unshare --map-auto does not work here: " + done.stderr.strip())
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    if "error" in reply:
        raise Refused(reply)
    return reply["parameters"]


def subordinate_uids_are_charged_to_their_owner():
    give_ranges(f"{name(ALICE)}:{FIRST}:{COUNT}\n")
    with one_model({"users": {name(ALICE): {"tokens_per_day": 60}}}) as d:
        d.wait_state("ready")
        # As many people as a container may be, they are one: three times 20 tokens, not a day's worth for each.
        for uid in (1, 2, 65535):
            in_container(d, ALICE, uid, prompt="count 10", max_tokens=10)
        assert "the user database can't" not in d.log().lower()
        error, parameters = refusal(lambda: in_container(d, ALICE, 77, prompt="count 40", max_tokens=40))
        assert error == "io.residentd.QuotaExceeded" and parameters["quota"] == "tokens_per_day", parameters
        with d.client() as c:
            usage = c.call("Usage.Get", uid=ALICE)
            assert usage["used"]["tokens_per_day"] == 33, usage
            assert [u["uid"] for u in c.call("Usage.Get", uid=-1)["users"]] == [0, ALICE]
        # Inside they are told who they are taken for; outside of the container the owner is itself.
        assert in_container(d, ALICE, 5, "Usage.Get")["uid"] == ALICE
        assert in_container(d, ALICE, 0, "Usage.Get")["uid"] == ALICE


def subordinate_uids_inherit_denials_and_not_grants():
    give_ranges(f"{name(ALICE)}:{FIRST}:{COUNT}\n{name(BOB)}:{FIRST + COUNT}:{COUNT}\n")
    with one_model(deny={"users": [name(ALICE)]}) as d:
        d.wait_state("ready")
        error, parameters = refusal(lambda: in_container(d, ALICE, 5))
        assert (error, parameters) == ("io.residentd.NotAllowed", {"model": "m", "reason": "policy"}), parameters
        assert in_container(d, BOB, 5)["text"] == "one"
    with one_model(allow={"users": [name(ALICE)]}) as d:
        d.wait_state("ready")
        assert refusal(lambda: in_container(d, ALICE, 5))[0] == "io.residentd.NotAllowed"
        # Root of the container is the owner's own uid.
        assert in_container(d, ALICE, 0)["text"] == "one"


def subordinate_uids_administrate_nothing():
    give_ranges(f"root:{FIRST}:{COUNT}\n")
    with one_model() as d:
        d.wait_state("ready")
        error, parameters = refusal(lambda: in_container(d, 0, 5, "Models.Unload", model="m"))
        assert (error, parameters) == ("io.residentd.NotAllowed", {"reason": "admins_only"}), parameters


def uids_that_nobody_knows_are_refused():
    give_ranges(f"{name(ALICE)}:{FIRST}:{COUNT}\n")
    with one_model() as d:
        d.wait_state("ready")

        def ask():
            with d.client() as c:
                return c.complete("one")[0]
        for uid in (FIRST - 1, FIRST + COUNT):
            assert refusal(lambda u=uid: run_as(u, ask)) == ("io.residentd.NotAllowed", {"reason": "unknown_uid"})
        assert run_as(FIRST + COUNT - 1, ask) == "one"


def uids_of_two_owners_are_refused():
    give_ranges(f"{name(ALICE)}:{FIRST}:{COUNT}\n{name(BOB)}:{FIRST + 5}:1\n")
    with one_model() as d:
        d.wait_state("ready")

        def ask():
            with d.client() as c:
                return c.complete("one")[0]
        assert refusal(lambda: run_as(FIRST + 5, ask))[1] == {"reason": "unknown_uid"}
        assert "the ranges of several users" in d.log()
        assert run_as(FIRST + 6, ask) == "one"


def connections_of_a_container_count_as_its_owners():
    give_ranges(f"{name(ALICE)}:{FIRST}:{COUNT}\n")
    with one_model({"default": {"connections": 3}}) as d:
        d.wait_state("ready")

        def hold(i):
            pid = os.fork()
            if pid > 0:
                return pid
            os.setgroups([])
            os.setresgid(*[FIRST + i] * 3)
            os.setresuid(*[FIRST + i] * 3)
            c = d.client()
            c.call("Inference.ListModels")
            signal.pause()
        held = [hold(i) for i in range(3)]
        try:
            wait_for(lambda: connections(d).get(ALICE) == 3, "three connections of one person")

            def ask():
                with d.client() as c:
                    return c.call("Inference.ListModels")
            error, parameters = refusal(lambda: run_as(FIRST + 9, ask))
            assert error == "io.residentd.QuotaExceeded", error
            assert parameters == {"quota": "connections", "limit": 3, "used": 4}, parameters
        finally:
            for pid in held:
                os.kill(pid, 9)
                os.waitpid(pid, 0)


def a_container_can_not_hold_everybodys_connections():
    give_ranges(f"{name(ALICE)}:{FIRST}:{COUNT}\n")
    with one_model({"default": {"connections": 3}}) as d:
        d.wait_state("ready")
        held = []
        try:
            # Each as somebody else, and as some whom nobody knows: none of them asks anything.
            for uid in [FIRST + i for i in range(300)] + [FIRST + COUNT + i for i in range(300)]:
                os.seteuid(uid)
                held.append(d.client())
                os.seteuid(0)

            def n_left():
                users = connections(d)
                assert set(users) <= {0, ALICE} | set(range(FIRST, FIRST + COUNT + 300)), users
                return users.get(ALICE), len(users)
            # Three, and a few that are to be told why not; the unknown are none of the users.
            wait_for(lambda: n_left() == (11, 2), "all others to be closed")
            assert n_fds(d.process.pid) < 2 * (11 + 64) + 60
        finally:
            os.seteuid(0)
            for c in held:
                c.close()


def own_unit():
    """The innermost unit or scope of this process; None: it is in none."""
    with open("/proc/self/cgroup") as f:
        paths = {line.split(":", 2)[1]: line.rstrip("\n").split(":", 2)[2] for line in f}
    for hierarchy in ("", "name=systemd"):
        names = [n for n in paths.get(hierarchy, "/").split("/") if n.endswith((".service", ".scope"))]
        if names:
            return names[-1]
        if paths.get(hierarchy, "/") != "/":
            return None
    return None


class Unit:
    """A control group named like a unit, as systemd would make one, for a process of ours."""

    def __init__(self):
        need_root()
        self.name = f"residentd-e2e-{os.getpid()}.service"
        for hierarchy in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
            self.path = os.path.join(hierarchy, self.name)
            if not os.path.exists(os.path.join(hierarchy, "cgroup.procs")):
                continue
            try:
                os.mkdir(self.path)
            except OSError:
                continue
            return
        raise Skip("needs control groups that it may make")

    def __enter__(self):
        return self

    def enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w") as f:
            f.write(str(os.getpid()))

    def __exit__(self, *_):
        wait_for(lambda: not open(os.path.join(self.path, "cgroup.procs")).read(), "the unit to be empty")
        os.rmdir(self.path)


def start_waiting(d, uid, unit=None):
    """A process of @uid that has a request run. Its own end of the connection, and a copy for us."""
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        if unit:
            unit.enter()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        c = d.client()
        socket.send_fds(theirs, [b"x"], [c.socket.fileno()])
        signal.pause()
    _, fds, _, _ = socket.recv_fds(mine, 1, 1)
    mine.close(), theirs.close()
    c = d.client()
    c.socket.close()
    c.socket = socket.socket(fileno=fds[0])
    c.socket.settimeout(PATIENCE_S)
    return pid, c


def has_pidfds():
    a, b = socket.socketpair()
    with a, b:
        try:
            os.close(a.getsockopt(socket.SOL_SOCKET, 77))  # SO_PEERPIDFD
            return True
        except OSError:
            return False


def requests_of(d, uid):
    with d.client() as c:
        return c.call("Usage.Requests", uid=uid)["requests"]


def ps_says_in_which_unit_a_client_runs():
    if not has_pidfds():
        raise Skip("needs SO_PEERPIDFD, Linux 6.5")
    with Unit() as unit, one_model() as d:
        d.wait_state("ready")
        pid, c = start_waiting(d, ALICE, unit)
        other, c2 = start_waiting(d, BOB)
        try:
            for client in (c, c2):
                client.send("Inference.Complete", {"model": "m", "prompt": "hang", "app": "sshd.service"}, more=True)
            wait_for(lambda: requests_of(d, ALICE) and requests_of(d, BOB), "both to run")
            # What a client calls itself is no unit.
            assert [(r["app"], r["unit"]) for r in requests_of(d, ALICE)] == [("sshd.service", unit.name)]
            assert [r.get("unit") for r in requests_of(d, BOB)] == [own_unit()]
            table = subprocess.run([RESIDENTCTL, "--socket", d.socket, "ps"], capture_output=True, text=True, check=True)
            assert unit.name in table.stdout, table.stdout
        finally:
            for p in (pid, other):
                os.kill(p, signal.SIGKILL)
                os.waitpid(p, 0)
            c.close(), c2.close()


def whoever_has_a_clients_pid_now_gives_it_no_unit():
    """A connection that is handed on when its process ends, whose number goes to a process in a unit."""
    if not has_pidfds():
        raise Skip("needs SO_PEERPIDFD, Linux 6.5")
    with Unit() as unit, one_model() as d:
        d.wait_state("ready")
        pid, c = start_waiting(d, ALICE)
        c.call("Inference.ListModels")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        other = fork_as_pid(pid, unit.enter)
        try:
            with open(f"/proc/{pid}/cgroup") as f:
                assert unit.name in f.read()
            before = n_fds(d.process.pid)
            c.send("Inference.Complete", {"model": "m", "prompt": "hang"}, more=True)
            wait_for(lambda: requests_of(d, ALICE), "it to run")
            assert "unit" not in requests_of(d, ALICE)[0], requests_of(d, ALICE)
            # The descriptor by which that was known is not needed any more.
            wait_for(lambda: n_fds(d.process.pid) == before - 1, "the pidfd to be closed")
        finally:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)
            c.close()


def fork_as_pid(pid, enter):
    """A child with that number, which others may take before us; it stays until it is killed."""
    for _ in range(100):
        r, w = os.pipe()
        try:
            with open("/proc/sys/kernel/ns_last_pid", "w") as f:
                f.write(str(pid - 1))
        except OSError as e:
            raise Skip("can't choose a pid") from e
        child = os.fork()
        if child == 0:
            enter()
            os.write(w, b"x")
            signal.pause()
        os.read(r, 1)
        os.close(r), os.close(w)
        if child == pid:
            return child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    raise Skip("the pid is taken")


if __name__ == "__main__":
    main([subordinate_uids_are_charged_to_their_owner,
          subordinate_uids_inherit_denials_and_not_grants,
          subordinate_uids_administrate_nothing,
          uids_that_nobody_knows_are_refused,
          uids_of_two_owners_are_refused,
          connections_of_a_container_count_as_its_owners,
          a_container_can_not_hold_everybodys_connections,
          ps_says_in_which_unit_a_client_runs,
          whoever_has_a_clients_pid_now_gives_it_no_unit])
