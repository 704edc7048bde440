#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit files by themselves: systemd takes them, what they expose stays below a number, and the options that look
good but break the service are not set."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import BUILD, SOURCE, Skip, main                                        # noqa: E402

UNITS = os.path.join(BUILD, "systemd")
LIMITS = {"residentd.service": 1.5, "residentd-worker@.service": 0.8, "residentd-gpu-worker@.service": 2.0}
# What a worker with a GPU may more than one without: each has its reason in the unit.
GPU_MORE = {"SupplementaryGroups=video", "BindReadOnlyPaths=-/etc/alternatives", "RootDirectory=/run/residentd-worker/gpu-root",
            "InaccessiblePaths=-+/dev/shm -+/dev/mqueue -+/dev/pts", "SystemCallFilter=~@privileged",
            "SystemCallFilter=mlock mlock2 munlock capset seccomp landlock_create_ruleset landlock_restrict_self",
            *("DeviceAllow=char-%s rw" % x for x in ("nvidia", "nvidia-frontend", "nvidiactl", "nvidia-uvm", "nvidia-caps"))}
GPU_LESS = {"RootDirectory=/run/residentd-worker/root", "PrivateDevices=yes", "ProcSubset=pid", "SystemCallFilter=~@privileged @resources",
            "SystemCallFilter=mlock mlock2 munlock sched_setaffinity capset setrlimit seccomp landlock_create_ruleset "
            "landlock_restrict_self"}


def text(name):
    for folder in (UNITS, os.path.join(SOURCE, "systemd")):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return open(path, encoding="utf-8").read()
    raise AssertionError("no unit " + name)


def settings(name):
    """All assignments of a unit, comments left out: [(key, value)]."""
    return [tuple(line.split("=", 1)) for line in text(name).splitlines() if re.match(r"[A-Za-z]+=", line)]


def exposure(name):
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not installed")
    with tempfile.TemporaryDirectory() as folder:
        # A template can only be looked at as an instance.
        path = os.path.join(folder, name.replace("@.", "@1."))
        with open(path, "w", encoding="utf-8") as f:
            f.write(text(name))
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if not found:
        raise Skip("this systemd-analyze can't look at files: " + done.stdout.strip()[-200:])
    return float(found[1])


def the_daemon_exposes_little():
    level = exposure("residentd.service")
    print("# residentd.service: %.1f" % level)
    assert level <= LIMITS["residentd.service"], level


def a_worker_exposes_next_to_nothing():
    level = exposure("residentd-worker@.service")
    print("# residentd-worker@.service: %.1f" % level)
    assert level <= LIMITS["residentd-worker@.service"], level


def a_worker_with_a_gpu_exposes_little():
    level = exposure("residentd-gpu-worker@.service")
    print("# residentd-gpu-worker@.service: %.1f" % level)
    assert level <= LIMITS["residentd-gpu-worker@.service"], level


def a_worker_with_a_gpu_has_all_else_as_one_without():
    def lines(name):
        section = text(name).split("[Service]")[1]
        return {x for x in section.splitlines() if "=" in x and not x.startswith(("#", "ExecStart=", "User="))}
    cpu, gpu = lines("residentd-worker@.service"), lines("residentd-gpu-worker@.service")
    assert gpu - cpu == GPU_MORE, gpu - cpu ^ GPU_MORE
    assert cpu - gpu == GPU_LESS, cpu - gpu ^ GPU_LESS
    s, of_cpu = dict(settings("residentd-gpu-worker@.service")), dict(settings("residentd-worker@.service"))
    assert s["ExecStart"] == of_cpu["ExecStart"] + " --gpu"
    # Not the same users: an instance of one can't end up with the uid of one of the other.
    assert s["User"] == "rg-%i" and of_cpu["User"] == "rw-%i"


def the_daemon_sees_who_its_clients_are():
    # PrivateUsers= makes every peer uid 65534.
    assert "PrivateUsers" not in dict(settings("residentd.service"))


def the_daemon_sees_how_much_memory_there_is():
    # ProcSubset=pid hides /proc/meminfo and /proc/pressure.
    assert dict(settings("residentd.service")).get("ProcSubset", "all") == "all"


def models_can_be_opened():
    # Its filter refuses openat2() altogether.
    assert dict(settings("residentd.service")).get("RestrictSUIDSGID", "no") == "no"


def a_worker_has_standard_streams():
    # DevicePolicy=strict leaves it without /dev/null, and it does not start.
    for name in ("residentd-worker@.service", "residentd-gpu-worker@.service"):
        assert dict(settings(name))["DevicePolicy"] == "closed", name


def the_sockets_outlive_the_service():
    # RuntimeDirectory= is removed when its service stops, with the sockets of units that still listen in it.
    for name in LIMITS:
        assert "RuntimeDirectory" not in dict(settings(name)), name
    with open(os.path.join(SOURCE, "systemd", "residentd.tmpfiles"), encoding="utf-8") as f:
        made = f.read()
    for name in ("residentd.socket", "residentd-worker.socket", "residentd-gpu-worker.socket"):
        listens = dict(settings(name))
        path = listens.get("ListenStream") or listens["ListenSequentialPacket"]
        assert re.search(r"^d +%s " % re.escape(os.path.dirname(path)), made, flags=re.M), path


def nothing_of_a_model_is_written_out():
    for name in LIMITS:
        s = dict(settings(name))
        assert s["MemorySwapMax"] == "0" and s["LimitCORE"] == "0" and s["LimitMEMLOCK"] == "infinity", name


def the_kernel_takes_memory_from_others_first():
    for name in LIMITS:
        s = dict(settings(name))
        assert s["OOMScoreAdjust"] == ("-900" if name == "residentd.service" else "-500"), name
        assert s["ManagedOOMPreference"] == "avoid" and s["Slice"] == "residentd.slice", name


def reloading_works_the_same_on_all_versions():
    s = dict(settings("residentd.service"))
    # 252 takes notify-reload for simple.
    assert s["Type"] == "notify"
    assert re.fullmatch(r"\+\S+/residentctl reload", s["ExecReload"]), s["ExecReload"]


def a_killed_daemon_is_started_at_once_and_not_for_ever():
    s = dict(settings("residentd.service"))
    # Any other value may take 250 ms more, which is what systemd's timers may be late.
    assert s["Restart"] == "on-failure" and s["RestartSec"] == "0", s["RestartSec"]
    assert int(s["StartLimitBurst"]) <= 5 and int(s["StartLimitIntervalSec"]) >= 60


def the_workers_sockets_have_no_limits_of_their_own():
    for name in ("residentd-worker.socket", "residentd-gpu-worker.socket"):
        s = dict(settings(name))
        assert s["Accept"] == "yes" and s["SocketMode"] == "0600" and s["SocketUser"] == "residentd", name
        assert s["MaxConnections"] == "4096" and s["TriggerLimitIntervalSec"] == "0", name


main([
    the_daemon_exposes_little,
    a_worker_exposes_next_to_nothing,
    a_worker_with_a_gpu_exposes_little,
    a_worker_with_a_gpu_has_all_else_as_one_without,
    the_daemon_sees_who_its_clients_are,
    the_daemon_sees_how_much_memory_there_is,
    models_can_be_opened,
    a_worker_has_standard_streams,
    the_sockets_outlive_the_service,
    nothing_of_a_model_is_written_out,
    the_kernel_takes_memory_from_others_first,
    reloading_works_the_same_on_all_versions,
    a_killed_daemon_is_started_at_once_and_not_for_ever,
    the_workers_sockets_have_no_limits_of_their_own,
])
