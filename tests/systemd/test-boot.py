#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service as a sysadmin has it: installed, started by a real systemd in its sandbox, asked by real users.

One machine is booted for all cases; each says what it leaves changed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, SOURCE, Skip                                              # noqa: E402
from machine import Stage                                                            # noqa: E402

CAP_SYS_RESOURCE = 24
MODELS = "/var/lib/residentd/models"
MODEL = {"path": MODELS + "/primer.gguf", "residency": {"ram": "lock", "when": "always"}}
POLICY = {
    "version": 1,
    "models": {"default": MODEL, "private": {"path": MODELS + "/primer.gguf", "residency": {"ram": "map", "when": "on-demand"},
                                             "allow": {"users": ["alice"]}}},
}

stage = Stage()


def status():
    return json.loads(stage.machine.run("residentctl", "--json", "status").stdout)


def model_status(name="default"):
    return next(m for m in status()["models"] if m["name"] == name)


def install():
    upper = stage.machine.path("/")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", upper], check=True,
                   stdout=subprocess.DEVNULL)
    os.makedirs(stage.machine.path(MODELS))
    shutil.copy(os.path.join(SOURCE, "primer", "primer.gguf"), stage.machine.path(MODELS))
    stage.machine.boot()
    stage.machine.run("ldconfig")
    stage.machine.run("systemd-sysusers")
    stage.machine.run("systemd-tmpfiles", "--create")
    stage.machine.run("journalctl", "--update-catalog")
    for user in ("alice", "bob", "carol"):
        stage.machine.run("useradd", "-m", user)
    stage.machine.write("/etc/residentd/policy.json", json.dumps(POLICY))
    # systemd's own limit on starts is not what is tested.
    stage.machine.write("/etc/systemd/system/residentd.service.d/test.conf", "[Unit]\nStartLimitIntervalSec=0\n")
    stage.machine.run("systemctl", "daemon-reload")


def the_socket_starts_the_service():
    m = stage.need()
    m.run("systemctl", "start", "residentd.socket")
    assert m.run("systemctl", "is-active", "residentd.service", check=False).stdout.strip() == "inactive"
    # The first call of anybody starts it; it is answered.
    answer = m.run("residentctl", "run", "default", "Hello!", "-n", "8", user="alice")
    assert answer.stdout.strip(), answer
    assert m.run("systemctl", "is-active", "residentd.service").stdout.strip() == "active"


def the_pinned_model_is_locked_and_its_worker_is_a_unit():
    m = stage.need()
    m.run("residentctl", "wait", "--pinned")
    model = model_status()
    size = os.path.getsize(os.path.join(SOURCE, "primer", "primer.gguf"))
    pages = (size + 4095) // 4096 * 4096
    assert model["state"] == "ready" and model["ram_locked_bytes"] in (size, pages), model
    units = m.run("systemctl", "list-units", "--no-legend", "--plain", "residentd-worker@*").stdout.split()
    assert units and units[2] == "active", units
    # A user of its own, that is neither root nor the daemon's, and no capability.
    text = m.run("cat", "/proc/%d/status" % model["worker_pid"]).stdout
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    uid = int(fields["Uid"].split()[0])
    assert uid >= 61184 and uid <= 65519, uid  # systemd's range of dynamic users
    assert int(fields["CapEff"], 16) == 0 and int(fields["CapBnd"], 16) == 0, fields
    assert fields["NoNewPrivs"].strip() == "1" and fields["Seccomp"].strip() == "2"


def models_stay_the_administrators():
    m = stage.need()
    # systemd gives a state directory with another owner to the service, with all that is in it.
    assert m.run("stat", "-c", "%U %a", MODELS + "/..", MODELS, MODEL["path"]).stdout.splitlines() == [
        "residentd 750", "root 755", "root 644"]


def a_worker_has_no_file_system():
    m = stage.need()
    root = "/proc/%d/root" % model_status()["worker_pid"]
    found = m.run("sh", "-c", 'cd "$1" && ls -d * etc/* run/*', "look", root).stdout.split()
    if "run/host" in found:
        # systemd's own from 255 on: which system this is.
        found.remove("run/host")
        assert m.run("ls", root + "/run/host").stdout.split() == ["os-release"]
    assert found == ["dev", "etc", "etc/ld.so.cache", "etc/localtime", "lib", "lib64", "proc", "root", "run",
                     "run/residentd-worker", "run/systemd", "sys", "tmp", "usr", "var"], found
    assert m.run("ls", root + "/run/residentd-worker").stdout.split() == ["daemon"]
    # Where something can be written there is nothing of others, and nothing left behind.
    for folder in ("root", "tmp", "var/tmp"):
        assert m.run("ls", "-A", root + "/" + folder, check=False).stdout == "", folder


def the_daemon_has_one_capability():
    m = stage.need()
    pid = m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
    text = m.run("cat", "/proc/%s/status" % pid).stdout
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 1 << 14, fields["CapEff"]
    assert int(fields["CapBnd"], 16) == 1 << 14, fields["CapBnd"]
    assert m.run("ps", "-o", "user=", "-p", pid).stdout.strip() == "residentd"


def daemon_and_worker():
    return stage.machine.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip(), str(
        model_status()["worker_pid"])


def nothing_of_both_goes_to_swap_or_a_core_dump():
    m = stage.need()
    for pid in daemon_and_worker():
        # Limits of the slice are limits of both.
        group = m.run("cat", "/proc/%s/cgroup" % pid).stdout.strip().split("::")[1]
        assert group.startswith("/residentd.slice/"), group
        if "memory" in m.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split():
            assert m.run("cat", "/sys/fs/cgroup%s/memory.swap.max" % group).stdout.strip() == "0", group
        limits = m.run("cat", "/proc/%s/limits" % pid).stdout
        assert re.search(r"^Max core file size +0 +0", limits, flags=re.M), limits


def the_kernel_takes_memory_from_others_first():
    m = stage.need()
    capabilities = re.search(r"^CapBnd:\s*(\w+)", m.run("cat", "/proc/1/status").stdout, flags=re.M)[1]
    if not int(capabilities, 16) >> CAP_SYS_RESOURCE & 1:
        raise Skip("without CAP_SYS_RESOURCE no process can be made more important, nor a limit raised")
    for pid, score in zip(daemon_and_worker(), ("-900", "-500")):
        assert m.run("cat", "/proc/%s/oom_score_adj" % pid).stdout.strip() == score, (pid, score)
        limits = m.run("cat", "/proc/%s/limits" % pid).stdout
        assert re.search(r"^Max locked memory +unlimited +unlimited", limits, flags=re.M), limits


def two_users_are_told_apart():
    m = stage.need()
    assert m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="alice").stdout.strip()
    refused = m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="bob", check=False)
    assert refused.returncode == 1 and "io.residentd.NotAllowed" in refused.stderr, refused
    names = [x["name"] for x in json.loads(m.run("residentctl", "--json", "list", user="bob").stdout)["models"]]
    assert names == ["default", "primer"], names


def a_good_policy_is_reloaded_and_a_bad_one_fails_the_job():
    m = stage.need()
    policy = json.loads(json.dumps(POLICY))
    policy["aliases"] = {"chat": "default"}
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    m.run("systemctl", "reload", "residentd.service")
    assert m.run("residentctl", "run", "chat", "Hello!", "-n", "4", user="bob").stdout.strip()
    m.write("/etc/residentd/policy.json", '{ "version": 1, "modells": {} }')
    bad = m.run("systemctl", "reload", "residentd.service", check=False)
    assert bad.returncode != 0, "a bad policy was taken"
    assert "modells" in m.journal("-u", "residentd.service", "-n", "20")
    # The old one stays.
    assert m.run("residentctl", "run", "chat", "Hello!", "-n", "4", user="bob").stdout.strip()
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    m.run("systemctl", "reload", "residentd.service")


def a_killed_worker_is_reported_and_comes_back():
    m = stage.need()
    before = model_status()["worker_pid"]
    m.run("kill", "-SEGV", str(before))
    m.wait_for("a new worker", lambda: model_status().get("worker_pid") not in (None, before)
               and model_status()["state"] == "ready")
    assert "the worker was killed by signal SEGV" in m.journal("-u", "residentd.service")
    assert m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="bob").stdout.strip()


def journal_entries(message, *matches):
    """What the journal has of the service with this name of daemon/messages.h, as its fields."""
    text = open(os.path.join(SOURCE, "daemon", "messages.h"), encoding="utf-8").read()
    identifier = re.search(r'MESSAGE_%s +"(\w+)"' % message, text)[1]
    found = stage.machine.journal("MESSAGE_ID=" + identifier, *matches, output="json")
    return [json.loads(line) for line in found.splitlines()]


def the_journal_says_what_a_line_is_about_and_what_to_do():
    m = stage.need()
    # The worker that was killed before, and the policy that was refused.
    ended = journal_entries("WORKER_ENDED", "RESIDENT_MODEL=default")
    assert ended and ended[0]["PRIORITY"] == "3" and ended[0]["_SYSTEMD_UNIT"] == "residentd.service", ended
    refused = journal_entries("POLICY_REFUSED")
    assert refused and "modells" in refused[0]["MESSAGE"], refused
    explained = m.run("journalctl", "--no-pager", "-x", "-u", "residentd.service").stdout
    assert "The worker of model default ended" in explained, explained[-2000:]
    assert "residentctl policy check" in explained
    # By user: what alice asked, and nothing of it.
    uid = m.run("id", "-u", "alice").stdout.strip()
    m.run("systemctl", "reload", "residentd.service")
    m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="alice")
    hers = [json.loads(x) for x in m.run("journalctl", "--no-pager", "-o", "json", "RESIDENT_UID=" + uid,
                                         "RESIDENT_MODEL=private").stdout.splitlines()]
    assert hers and all(int(x["RESIDENT_REQUEST"]) > 0 for x in hers), hers
    assert "Hello" not in m.run("journalctl", "--no-pager", "-o", "verbose", "-u", "residentd.service").stdout


def a_workers_line_is_the_daemons_with_the_models_name():
    m = stage.need()
    prefix = "/etc/residentd/long.txt"
    m.write(prefix, "You know the shelves of the library by heart. " * 400)
    policy = json.loads(json.dumps(POLICY))
    policy["models"]["default"].update(public_prefixes=[prefix], context={"tokens": 256, "sequences": 2})
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    m.run("systemctl", "reload", "residentd.service")
    said = m.wait_for("the worker's line", lambda: journal_entries("WORKER_SAYS", "RESIDENT_MODEL=default"))
    assert said[0]["_SYSTEMD_UNIT"] == "residentd.service" and int(said[0]["RESIDENT_PID"]) > 0, said
    assert "public prefix" in said[0]["MESSAGE"] and "shelves" not in said[0]["MESSAGE"], said
    m.write("/etc/residentd/policy.json", json.dumps(POLICY))
    m.run("systemctl", "reload", "residentd.service")
    m.run("residentctl", "wait", "--pinned")


def a_quota_holds():
    m = stage.need()
    policy = json.loads(json.dumps(POLICY))
    policy["quotas"] = {"users": {"carol": {"requests_per_minute": 2}}}
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    m.run("systemctl", "reload", "residentd.service")
    results = [m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="carol", check=False) for _ in range(3)]
    assert [r.returncode for r in results] == [0, 0, 1], results
    assert "io.residentd.QuotaExceeded" in results[2].stderr, results[2]
    # Another user is not concerned.
    assert m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="alice").stdout.strip()
    m.write("/etc/residentd/policy.json", json.dumps(POLICY))
    m.run("systemctl", "reload", "residentd.service")


def started_means_resident_where_the_policy_says_so():
    m = stage.need()
    policy = json.loads(json.dumps(POLICY))
    policy["host"] = {"ready": "resident"}
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    # A unit that needs the model, and says so in the way of residentd(8).
    m.write("/etc/systemd/system/needs-a-model.service", """[Unit]
Requires=residentd.service
After=residentd.service
[Service]
Type=oneshot
ExecStartPre=residentctl wait --pinned --timeout 60
ExecStart=residentctl run default Hello! -n 4
""")
    m.run("systemctl", "daemon-reload")
    for _ in range(3):
        # Nothing is kept: each start loads.
        m.run("systemctl", "stop", "residentd.service", "residentd.socket")
        m.run("systemctl", "start", "residentd.service")
        assert model_status()["state"] == "ready"
        assert model_status()["ram_locked_bytes"] > 0
    m.run("systemctl", "start", "needs-a-model.service")
    # One that can't become resident does not keep the service from starting: the reason is in the status.
    policy["models"]["gone"] = {"path": MODELS + "/gone.gguf", "residency": {"ram": "lock", "when": "always"}}
    m.write("/etc/residentd/policy.json", json.dumps(policy))
    m.run("systemctl", "stop", "residentd.service", "residentd.socket")
    m.run("systemctl", "start", "residentd.service")
    assert model_status("gone")["state"] == "failed" and "gone.gguf" in model_status("gone")["reason"]
    assert journal_entries("MODEL_FAILED", "RESIDENT_MODEL=gone")
    assert model_status()["state"] == "ready"
    assert m.run("residentctl", "wait", "--pinned", check=False).returncode == 1
    m.write("/etc/residentd/policy.json", json.dumps(POLICY))
    m.run("systemctl", "restart", "residentd.service")


def a_service_that_can_not_start_says_why():
    m = stage.need()
    m.run("systemctl", "stop", "residentd.service", "residentd.socket")
    m.write("/etc/residentd/policy.json", '{ "version": 1, "modells": {} }')
    assert m.run("systemctl", "start", "residentd.service", check=False).returncode != 0
    said = journal_entries("START_FAILED")
    assert said and "modells" in said[-1]["MESSAGE"], said
    m.write("/etc/residentd/policy.json", json.dumps(POLICY))
    m.run("systemctl", "stop", "residentd.service", "residentd.socket")
    m.run("systemctl", "reset-failed")
    m.run("systemctl", "start", "residentd.socket", "residentd.service")
    m.run("residentctl", "wait", "--pinned")


def trap(setting, unit="residentd.service"):
    """The service with one more setting, whatever comes of it; undone by untrap()."""
    m = stage.machine
    m.run("systemctl", "stop", "residentd.service", "residentd.socket", check=False)
    m.run("systemctl", "reset-failed", check=False)
    m.write("/run/systemd/system/%s.d/trap.conf" % unit, "[Service]\n%s\n" % setting)
    m.run("systemctl", "daemon-reload")
    return m.run("systemctl", "start", "residentd.socket", "residentd.service", check=False)


def untrap(unit="residentd.service"):
    m = stage.machine
    m.run("rm", "-r", "/run/systemd/system/%s.d" % unit)
    m.run("systemctl", "stop", "residentd.service", "residentd.socket", check=False)
    m.run("systemctl", "reset-failed", check=False)
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "residentd.socket", "residentd.service")
    m.run("residentctl", "wait", "--pinned")


def private_users_would_hide_who_a_client_is():
    m = stage.need()
    trap("PrivateUsers=yes")
    refused = m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="alice", check=False)
    assert refused.returncode != 0, "this systemd shows who a client is: the trap is gone"
    untrap()
    assert m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="alice").stdout.strip()


def a_subset_of_proc_would_hide_the_memory():
    m = stage.need()
    trap("ProcSubset=pid")
    pid = m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
    hidden = m.run("ls", "/proc/%s/root/proc/meminfo" % pid, check=False) if pid != "0" else None
    assert hidden is None or hidden.returncode != 0, "the trap is gone"
    untrap()
    assert m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="alice").stdout.strip()


def a_runtime_directory_would_take_the_sockets_along():
    m = stage.need()
    trap("RuntimeDirectory=residentd")
    m.run("residentctl", "wait", "--pinned", check=False)
    m.run("systemctl", "stop", "residentd.service")
    # The socket unit still listens, and nobody can reach it.
    assert m.run("systemctl", "is-active", "residentd.socket", check=False).stdout.strip() == "active"
    assert m.run("test", "-S", "/run/residentd/io.residentd", check=False).returncode != 0, "the trap is gone"
    m.run("systemd-tmpfiles", "--create")
    untrap()
    m.run("systemctl", "stop", "residentd.service")
    assert m.run("test", "-S", "/run/residentd/io.residentd", check=False).returncode == 0
    m.run("systemctl", "start", "residentd.service")


def over_tight_devices_would_keep_workers_from_starting():
    m = stage.need()
    trap("DevicePolicy=strict", "residentd-worker@.service")
    failed = m.run("residentctl", "wait", "default", "--timeout", "5", check=False)
    assert failed.returncode != 0, "the trap is gone"
    untrap("residentd-worker@.service")
    assert m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="alice").stdout.strip()


def a_daemon_that_hangs_is_ended_by_the_watchdog():
    m = stage.need()
    trap("WatchdogSec=2s")
    m.run("residentctl", "wait", "--pinned")
    pid = m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
    # It lives as long as its loop turns.
    time.sleep(4)
    assert m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip() == pid
    m.run("kill", "-STOP", pid)
    m.wait_for("another daemon", lambda: m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
               not in ("0", pid))
    assert "Watchdog timeout" in m.journal("-u", "residentd.service")
    assert m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="bob").stdout.strip()
    untrap()


def without_its_socket_unit_the_service_makes_the_socket():
    m = stage.need()
    socket = "/run/residentd/io.residentd"

    def owner_and_mode():
        return m.run("stat", "-c", "%F %U %a", socket).stdout.strip()

    def main_pid():
        return m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
    # The unit leaves its socket behind, at which nobody answers then.
    m.run("systemctl", "stop", "residentd.socket", "residentd.service")
    assert owner_and_mode() == "socket root 666", owner_and_mode()
    m.run("systemctl", "mask", "residentd.socket")
    m.run("systemctl", "start", "residentd.service")
    assert owner_and_mode() == "socket residentd 666", owner_and_mode()
    assert m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="alice").stdout.strip()
    assert m.run("systemctl", "is-active", "residentd.socket", check=False).stdout.strip() == "inactive"
    # So does one that was killed, and the models stay as they would have.
    m.run("residentctl", "wait", "--pinned")
    worker, pid = model_status()["worker_pid"], main_pid()
    m.run("kill", "-KILL", pid)
    m.wait_for("a new daemon", lambda: main_pid() not in ("0", pid))
    m.wait_for("the socket", lambda: m.run("residentctl", "list", user="bob", check=False).returncode == 0)
    assert owner_and_mode() == "socket residentd 666", owner_and_mode()
    assert model_status()["worker_pid"] == worker
    # An orderly end takes the socket along.
    m.run("systemctl", "stop", "residentd.service")
    assert m.run("test", "-e", socket, check=False).returncode != 0
    m.run("systemctl", "start", "residentd.service")
    # Back to the unit: not while the service has the socket, with its next start.
    m.run("systemctl", "unmask", "residentd.socket")
    assert m.run("systemctl", "start", "residentd.socket", check=False).returncode != 0
    assert owner_and_mode() == "socket residentd 666", owner_and_mode()
    m.run("systemctl", "restart", "residentd.service")
    assert m.run("systemctl", "is-active", "residentd.socket").stdout.strip() == "active"
    assert owner_and_mode() == "socket root 666", owner_and_mode()
    assert m.run("residentctl", "run", "private", "Hello!", "-n", "4", user="alice").stdout.strip()


def what_systemd_makes_for_workers_is_not_the_daemons():
    m = stage.need()
    # It makes them by name, and gives one away: who could put a link in their place could have any file.
    assert m.run("stat", "-c", "%U %a", "/run/residentd-worker").stdout.strip() == "root 755"
    for name in ("root", "gpu-root"):
        assert m.run("stat", "-c", "%U %a", "/run/residentd-worker/" + name).stdout.strip() == "root 755", name
    for path in ("/run/residentd-worker", "/run/residentd-worker/root"):
        assert m.run("touch", path + "/x", user="residentd", check=False).returncode != 0, path


def a_killed_daemon_comes_back():
    m = stage.need()
    before = m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
    m.run("kill", "-KILL", before)
    m.wait_for("a new daemon", lambda: m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
               not in ("0", before))
    assert m.run("residentctl", "run", "default", "Hello!", "-n", "4", user="bob").stdout.strip()


def stopping_frees_everything():
    m = stage.need()
    m.run("systemctl", "stop", "residentd.socket", "residentd.service")
    m.wait_for("the workers' end", lambda: "residentd-worker@" not in m.run(
        "systemctl", "list-units", "--no-legend", "--plain", "residentd-worker@*").stdout)
    assert m.run("pgrep", "-c", "resident", check=False).stdout.strip() == "0"
    failed = m.run("systemctl", "list-units", "--failed", "--no-legend", "--plain").stdout
    assert "resident" not in failed, failed


TESTS = [
    the_socket_starts_the_service,
    the_pinned_model_is_locked_and_its_worker_is_a_unit,
    models_stay_the_administrators,
    a_worker_has_no_file_system,
    the_daemon_has_one_capability,
    nothing_of_both_goes_to_swap_or_a_core_dump,
    the_kernel_takes_memory_from_others_first,
    two_users_are_told_apart,
    a_good_policy_is_reloaded_and_a_bad_one_fails_the_job,
    a_killed_worker_is_reported_and_comes_back,
    a_killed_daemon_comes_back,
    the_journal_says_what_a_line_is_about_and_what_to_do,
    a_workers_line_is_the_daemons_with_the_models_name,
    a_quota_holds,
    started_means_resident_where_the_policy_says_so,
    a_service_that_can_not_start_says_why,
    a_daemon_that_hangs_is_ended_by_the_watchdog,
    private_users_would_hide_who_a_client_is,
    a_subset_of_proc_would_hide_the_memory,
    a_runtime_directory_would_take_the_sockets_along,
    over_tight_devices_would_keep_workers_from_starting,
    without_its_socket_unit_the_service_makes_the_socket,
    what_systemd_makes_for_workers_is_not_the_daemons,
    stopping_frees_everything,
]


if __name__ == "__main__":
    stage.run(TESTS, install, os.environ.get("RESIDENTD_SUITE", "bookworm"))
