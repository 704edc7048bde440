#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a restart of the daemon leaves as it was: workers, their memory, the socket; and what ends it: a stop, a changed
policy or file, a daemon that keeps dying. Under a real systemd, whose file descriptor store holds it all.

One machine is booted for all cases; each leaves a ready model and a daemon whose starts are not counted.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, SOURCE                                                    # noqa: E402
from machine import Stage                                                            # noqa: E402

OTHER_WORKER = os.path.join(BUILD, "tests", "systemd", "resident-worker-other-build")
MODELS = "/var/lib/residentd/models"
FILE = MODELS + "/primer.gguf"
SIZE = os.path.getsize(os.path.join(SOURCE, "primer", "primer.gguf"))
WORKER = None  # where it is installed


def policy(**changes):
    model = {"path": FILE, "residency": {"ram": "lock", "when": "always"}}
    model.update(changes)
    return {"version": 1, "host": {"upgrade_deadline": "1s"}, "models": {"default": model}}


stage = Stage()


def install():
    global WORKER
    upper = stage.machine.path("/")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", upper], check=True,
                   stdout=subprocess.DEVNULL)
    for prefix in ("/usr/local", "/usr"):
        if os.path.exists(stage.machine.path(prefix + "/libexec/residentd/resident-worker")):
            WORKER = prefix + "/libexec/residentd/resident-worker"
    shutil.copy(OTHER_WORKER, stage.machine.path("/usr/lib/other-worker"))
    os.makedirs(stage.machine.path(MODELS))
    shutil.copy(os.path.join(SOURCE, "primer", "primer.gguf"), stage.machine.path(MODELS))
    stage.machine.boot()
    stage.machine.run("ldconfig")
    stage.machine.run("systemd-sysusers")
    stage.machine.run("systemd-tmpfiles", "--create")
    stage.machine.run("useradd", "-m", "alice")
    stage.machine.write("/etc/residentd/policy.json", json.dumps(policy()))
    # systemd's own limit on starts is not what is tested.
    stage.machine.write("/etc/systemd/system/residentd.service.d/test.conf",
                        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nWatchdogSec=3s\n")
    stage.machine.write("/etc/systemd/system/residentd-worker@.service.d/test.conf", "[Service]\nWatchdogSec=3s\n")
    stage.machine.run("systemctl", "daemon-reload")
    stage.machine.run("systemctl", "start", "residentd.socket", "residentd.service")
    stage.machine.run("residentctl", "wait", "--pinned")


# ---- looking ----

def show(name):
    return stage.machine.run("systemctl", "show", "-P", name, "residentd.service").stdout.strip()


def main_pid():
    return show("MainPID")


def model():
    status = json.loads(stage.machine.run("residentctl", "--json", "status").stdout)
    return next(m for m in status["models"] if m["name"] == "default")


def ready():
    """The model, once it is ready and verified."""
    def look():
        m = model()
        return m if m["state"] == "ready" and m["ram_locked_bytes"] >= SIZE else None
    return stage.machine.wait_for("a ready model", look)


def stored():
    return int(show("NFileDescriptorStore"))


def worker_units():
    return stage.machine.run("systemctl", "list-units", "--no-legend", "--plain", "residentd-worker@*").stdout.split("\n")[:-1]


def n_fds(pid):
    return len(stage.machine.run("ls", "/proc/%s/fd" % pid).stdout.split())


def locked_kb(pid):
    text = stage.machine.run("cat", "/proc/%s/status" % pid).stdout
    return int(next(line for line in text.splitlines() if line.startswith("VmLck:")).split()[1])


def bytes_read(pid):
    """By read(2) and its like; pages that are mapped again do not count."""
    text = stage.machine.run("cat", "/proc/%s/io" % pid).stdout
    return int(next(line for line in text.splitlines() if line.startswith("rchar:")).split()[1])


def disk_reads(pid):
    """Bytes that a process had read from a disk, and page faults for which it waited for one."""
    text = stage.machine.run("cat", "/proc/%s/io" % pid).stdout
    stat = stage.machine.run("cat", "/proc/%s/stat" % pid).stdout.rsplit(")", 1)[1].split()
    return int(next(line for line in text.splitlines() if line.startswith("read_bytes:")).split()[1]), int(stat[9])


def ask(n="4", user="alice", check=True):
    return stage.machine.run("residentctl", "run", "default", "Hello!", "-n", n, user=user, check=check)


def kill_daemon(signal="KILL"):
    before = main_pid()
    stage.machine.run("kill", "-" + signal, before)
    stage.machine.wait_for("a new daemon", lambda: main_pid() not in ("0", before))


def settle():
    """An orderly restart: starts before it count no more."""
    stage.machine.run("systemctl", "restart", "residentd.service")
    return ready()


# ---- cases ----

def a_restart_keeps_worker_and_memory():
    m = stage.need()
    before, pid = ready(), main_pid()
    m.run("systemctl", "restart", "residentd.service")
    assert ask().stdout.strip()
    after = ready()
    assert main_pid() != pid
    assert after["worker_pid"] == before["worker_pid"], (before, after)
    assert after["ram_locked_bytes"] == before["ram_locked_bytes"]
    # The file was not read: neither to load nor to verify it.
    assert bytes_read(main_pid()) < SIZE // 4, bytes_read(main_pid())
    assert len(worker_units()) == 1, worker_units()
    assert "loaded anew" not in m.journal("-u", "residentd.service")


def no_byte_of_a_model_is_read_from_the_disk():
    m = stage.need()
    file = "/srv/disk/primer.gguf"
    m.run("cp", FILE, file)
    m.run("sync", file)
    for ram in ("lock", "copy", "map"):
        m.write("/etc/residentd/policy.json", json.dumps(policy(path=file, residency={"ram": ram, "when": "always"})))
        m.run("systemctl", "stop", "residentd.service")
        m.wait_for("the worker's end", lambda: not worker_units())
        # Out of the page cache: what is there is read by somebody now.
        m.run("dd", "if=" + file, "iflag=nocache", "count=0")
        m.run("systemctl", "start", "residentd.service")
        before = m.wait_for("a ready model", lambda: model() if model()["state"] == "ready" else None)
        worker = before["worker_pid"]
        ask()
        first = sum(disk_reads(pid)[0] for pid in (worker, main_pid()))
        # The process that looks at the headers of so small a file reads some or all of it, and is gone.
        assert first > 0 or ram == "map", (ram, first)
        for end in (lambda: m.run("systemctl", "restart", "residentd.service"), kill_daemon):
            read = disk_reads(worker)
            end()
            assert ask("16").stdout.strip()
            assert model()["worker_pid"] == worker, ram
            assert disk_reads(worker) == read, (ram, read, disk_reads(worker))
            # Its own libraries are in the page cache: the daemon before had them.
            assert disk_reads(main_pid())[0] < 64 << 10, (ram, disk_reads(main_pid()))
        # Starts before it count no more.
        m.run("systemctl", "restart", "residentd.service")
    m.write("/etc/residentd/policy.json", json.dumps(policy()))
    settle()


def a_killed_daemon_leaves_worker_and_memory():
    stage.need()
    before = settle()
    kill_daemon()
    assert ask().stdout.strip()
    after = ready()
    assert after["worker_pid"] == before["worker_pid"], (before, after)
    assert bytes_read(main_pid()) < SIZE // 4
    assert len(worker_units()) == 1, worker_units()


def what_is_locked_stays_locked_without_a_daemon():
    m = stage.need()
    worker = settle()["worker_pid"]
    locked = locked_kb(worker)
    assert locked * 1024 >= SIZE, locked
    m.run("kill", "-KILL", main_pid())
    assert locked_kb(worker) == locked
    m.wait_for("a new daemon", lambda: main_pid() != "0")
    assert ready()["worker_pid"] == worker


def the_third_start_in_a_minute_loads_anew():
    m = stage.need()
    before = settle()
    # The start by hand was the first.
    kill_daemon()
    assert ready()["worker_pid"] == before["worker_pid"]
    kill_daemon()
    after = ready()
    assert after["worker_pid"] != before["worker_pid"]
    assert "ended without being told to" in m.journal("-u", "residentd.service")
    m.wait_for("the old worker's end", lambda: len(worker_units()) == 1)
    # One in order, and what is left is trusted again.
    assert settle()["worker_pid"] == after["worker_pid"]


def a_generation_ends_or_says_what_to_do():
    m = stage.need()
    worker = settle()["worker_pid"]
    results = []

    def generate():
        results.append(ask("100000", check=False))
    for stop in (lambda: m.run("systemctl", "restart", "residentd.service"), kill_daemon):
        thread = threading.Thread(target=generate)
        thread.start()
        m.wait_for("the request", lambda: model().get("sequences_active", 0) > 0 or not thread.is_alive())
        stop()
        thread.join()
    in_order, killed = results
    assert in_order.returncode == 0 or ("io.residentd.ShuttingDown" in in_order.stderr and
                                        "ask again" in in_order.stderr), in_order
    assert killed.returncode == 0 or (killed.returncode == 1 and "ask again" in killed.stderr), killed
    # Nobody is waited for any more, and nothing is left of it.
    after = ready()
    assert after["worker_pid"] == worker
    assert after["sequences_active"] == 0, after
    assert ask().stdout.strip()


def an_idle_chat_goes_on():
    m = stage.need()
    settle()
    # A turn, a restart while nothing is asked, and another turn on what was the same connection.
    done = m.run("sh", "-c", '(echo "Hello!"; sleep 2; systemctl restart residentd.service; echo "Hello again!") |'
                 ' runuser -u alice -- residentctl chat default -n 8')
    assert done.returncode == 0 and not done.stderr.strip(), done
    assert len(done.stdout.strip()) > 2, done


def a_changed_policy_is_loaded():
    m = stage.need()
    before = settle()
    m.write("/etc/residentd/policy.json", json.dumps(policy(context={"sequences": 3})))
    m.run("systemctl", "restart", "residentd.service")
    after = ready()
    assert after["worker_pid"] != before["worker_pid"]
    m.wait_for("the old worker's end", lambda: len(worker_units()) == 1)
    m.write("/etc/residentd/policy.json", json.dumps(policy()))
    settle()


def a_changed_file_is_loaded():
    m = stage.need()
    before = settle()
    m.run("sh", "-c", 'cp "$1" "$1.new" && mv "$1.new" "$1"', "replace", FILE)
    m.run("systemctl", "restart", "residentd.service")
    m.wait_for("another worker", lambda: model().get("worker_pid") not in (None, before["worker_pid"]))
    ready()
    assert "is not the file that was loaded" in m.journal("-u", "residentd.service")
    m.wait_for("the old worker's end", lambda: len(worker_units()) == 1)


def a_worker_that_died_meanwhile_is_replaced():
    m = stage.need()
    worker = settle()["worker_pid"]
    m.run("kill", "-STOP", main_pid())
    m.run("kill", "-KILL", str(worker))
    kill_daemon()
    assert ready()["worker_pid"] != worker
    m.wait_for("one worker", lambda: len(worker_units()) == 1)
    settle()


def a_copy_is_kept_and_not_made_again():
    m = stage.need()
    m.write("/etc/residentd/policy.json", json.dumps(policy(residency={"ram": "copy", "when": "always"})))

    def copy_of(pid):
        """Inode and address range of the copy that a process maps."""
        lines = [x.split() for x in m.run("cat", "/proc/%s/maps" % pid).stdout.splitlines() if "memfd:" in x]
        return {x[4] for x in lines}
    before = settle()
    copy = copy_of(before["worker_pid"])
    assert len(copy) == 1, copy
    for end in (lambda: m.run("systemctl", "restart", "residentd.service"), kill_daemon):
        end()
        after = ready()
        assert after["worker_pid"] == before["worker_pid"]
        assert copy_of(main_pid()) == copy, "the copy was made again"
        assert bytes_read(main_pid()) < SIZE // 4
    # A new worker gets the same copy, too, also when the one before died without a daemon.
    settle()
    m.run("kill", "-STOP", main_pid())
    m.run("kill", "-KILL", str(before["worker_pid"]))
    kill_daemon()
    before = m.wait_for("another worker", lambda: ready() if model().get("worker_pid") not in (
        None, before["worker_pid"]) else None)
    assert copy_of(before["worker_pid"]) == copy == copy_of(main_pid())
    settle()
    # The file may be gone meanwhile.
    m.run("mv", FILE, FILE + ".away")
    m.run("systemctl", "restart", "residentd.service")
    ready()
    m.run("kill", "-KILL", str(before["worker_pid"]))
    m.wait_for("another worker", lambda: model().get("worker_pid") not in (None, before["worker_pid"]))
    assert copy_of(ready()["worker_pid"]) == copy
    m.run("mv", FILE + ".away", FILE)
    m.write("/etc/residentd/policy.json", json.dumps(policy()))
    settle()


def an_upgrade_replaces_the_worker_and_refuses_nobody():
    m = stage.need()
    for busy in (False, True):
        m.run("sh", "-c", 'cp "$1" "$1.right" && cp /usr/lib/other-worker "$1.new" && mv "$1.new" "$1"', "old", WORKER)
        m.run("residentctl", "unload", "default")
        m.run("residentctl", "load", "default")
        before = ready()
        # The package's new files, then its restart.
        m.run("mv", WORKER + ".right", WORKER)
        results, done = [], threading.Event()

        def keep_asking():
            while not done.is_set():
                results.append(ask("64", check=False))
        threads = [threading.Thread(target=keep_asking) for _ in range(2 if busy else 0)]
        for t in threads:
            t.start()
        m.run("systemctl", "restart", "residentd.service")
        assert ask(check=False).returncode == 0
        m.wait_for("a worker of this build", lambda: model().get("worker_pid") not in (None, before["worker_pid"]))
        ready()
        done.set()
        for t in threads:
            t.join()
        bad = [r for r in results if r.returncode != 0 and "io.residentd.ShuttingDown" not in r.stderr]
        assert not bad, bad[0]
        m.wait_for("the old worker's end", lambda: len(worker_units()) == 1)
        assert "of another build" in m.journal("-u", "residentd.service")


def twenty_restarts_under_load_lose_and_leak_nothing():
    m = stage.need()
    before = settle()
    ask()
    figures = (stored(), n_fds(main_pid()), n_fds(before["worker_pid"]), locked_kb(before["worker_pid"]),
               locked_kb(main_pid()))
    results, done = [], threading.Event()

    def keep_asking():
        while not done.is_set():
            results.append(ask("32", check=False))
    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in range(20):
        m.run("systemctl", "restart", "residentd.service")
    done.set()
    for t in threads:
        t.join()
    # Every call was answered, or told that the service is being restarted; none met a closed door.
    bad = [r for r in results if r.returncode != 0 and "io.residentd.ShuttingDown" not in r.stderr]
    assert not bad, (len(bad), len(results), bad[0])
    print("# %d calls, %d of them told to come again" % (len(results), sum(r.returncode != 0 for r in results)))
    assert len(results) > 20
    after = ready()
    assert after["worker_pid"] == before["worker_pid"]
    now = ()

    def unchanged():
        nonlocal now
        now = (stored(), n_fds(main_pid()), n_fds(before["worker_pid"]), locked_kb(before["worker_pid"]),
               locked_kb(main_pid()))
        return now == figures
    try:
        m.wait_for("the figures from before", unchanged, timeout=10)
    except AssertionError:
        raise AssertionError("descriptors in the store, of the daemon, of the worker, locked kB: %s, now %s"
                             % (figures, now))
    assert model()["sequences_active"] == 0
    assert len(worker_units()) == 1


def a_daemon_that_hangs_is_killed_and_the_worker_stays():
    m = stage.need()
    before, pid = settle(), main_pid()
    m.run("kill", "-STOP", pid)
    m.wait_for("another daemon", lambda: main_pid() not in ("0", pid))
    assert ready()["worker_pid"] == before["worker_pid"]
    assert "Watchdog timeout" in m.journal("-u", "residentd.service")
    settle()


def a_worker_that_hangs_is_killed_and_replaced():
    m = stage.need()
    before = settle()
    m.run("kill", "-STOP", str(before["worker_pid"]))
    m.wait_for("another worker", lambda: model().get("worker_pid") not in (None, before["worker_pid"]))
    assert ready()
    assert "it hung (watchdog)" in m.journal("-u", "residentd.service")


def a_stop_frees_everything():
    m = stage.need()
    m.write("/etc/residentd/policy.json", json.dumps(policy(residency={"ram": "copy", "when": "always"})))
    settle()
    m.run("systemctl", "stop", "residentd.socket", "residentd.service")
    m.wait_for("the workers' end", lambda: not worker_units())
    assert stored() == 0
    # The copy is gone with them: it was more than this machine has in shared memory otherwise.
    held = [x for x in m.run("sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null; true").stdout.splitlines()
            if "memfd:residentd" in x]
    assert not held, held
    assert m.run("pgrep", "-c", "resident", check=False).stdout.strip() == "0"


TESTS = [
    a_restart_keeps_worker_and_memory,
    no_byte_of_a_model_is_read_from_the_disk,
    a_killed_daemon_leaves_worker_and_memory,
    what_is_locked_stays_locked_without_a_daemon,
    the_third_start_in_a_minute_loads_anew,
    a_generation_ends_or_says_what_to_do,
    an_idle_chat_goes_on,
    a_changed_policy_is_loaded,
    a_changed_file_is_loaded,
    a_worker_that_died_meanwhile_is_replaced,
    a_copy_is_kept_and_not_made_again,
    an_upgrade_replaces_the_worker_and_refuses_nobody,
    twenty_restarts_under_load_lose_and_leak_nothing,
    a_daemon_that_hangs_is_killed_and_the_worker_stays,
    a_worker_that_hangs_is_killed_and_replaced,
    a_stop_frees_everything,
]


if __name__ == "__main__":
    stage.run(TESTS, install, os.environ.get("RESIDENTD_SUITE", "bookworm"))
