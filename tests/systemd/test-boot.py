#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service as a sysadmin has it: installed, started by a real systemd in its sandbox, asked by real users.

One machine is booted for all cases; each says what it leaves changed.
"""

import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, SOURCE                                                    # noqa: E402
from machine import Stage                                                            # noqa: E402

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
    for user in ("alice", "bob"):
        stage.machine.run("useradd", "-m", user)
    stage.machine.write("/etc/residentd/policy.json", json.dumps(POLICY))
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


def the_daemon_has_one_capability():
    m = stage.need()
    pid = m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()
    text = m.run("cat", "/proc/%s/status" % pid).stdout
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 1 << 14, fields["CapEff"]
    assert int(fields["CapBnd"], 16) == 1 << 14, fields["CapBnd"]
    assert m.run("ps", "-o", "user=", "-p", pid).stdout.strip() == "residentd"


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
    the_daemon_has_one_capability,
    two_users_are_told_apart,
    a_good_policy_is_reloaded_and_a_bad_one_fails_the_job,
    a_killed_worker_is_reported_and_comes_back,
    a_killed_daemon_comes_back,
    stopping_frees_everything,
]


if __name__ == "__main__":
    stage.run(TESTS, install)
