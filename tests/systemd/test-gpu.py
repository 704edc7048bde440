#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit of workers with a GPU, under a real systemd: what of an NVIDIA driver it can see and open, and a model.

There is no GPU: names in /proc/devices, nodes without a driver behind them and an nvidia-modprobe that makes them stand
in for one. Opening such a node says "no such device" where the sandbox allows it, and something else where it does not.
What computes is the test double of libcuda, where Debian has the driver's.
"""

import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, SOURCE, Skip                                                 # noqa: E402
from machine import Stage                                                            # noqa: E402

UNITS = "/run/systemd/system/"
DEVICES = {"nvidiactl": (195, 255), "nvidia0": (195, 0), "nvidia1": (195, 1), "nvidia-uvm": (508, 0),
           "nvidia-caps/nvidia-cap1": (234, 1)}
# As the kernel has them with this driver, and with one before 550.
NAMES = "195 nvidia\n195 nvidiactl\n234 nvidia-caps\n508 nvidia-uvm\n"
NAMES_OLD = "195 nvidia-frontend\n234 nvidia-caps\n508 nvidia-uvm\n"

# What NVIDIA's program does, with Debian's owner of the devices.
MODPROBE = r"""#!/bin/sh
echo "$*" >>/run/modprobe.log
node() { [ -e "/dev/$1" ] || { mknod -m 660 "/dev/$1" c "$2" "$3" && chown root:video "/dev/$1"; }; }
[ -e /run/no-driver ] && exit 1
case "$*" in
"-u -c 0") node nvidia-uvm 508 0 ;;
"-c 255") node nvidiactl 195 255 ;;
-c\ *) node "nvidia$2" 195 "$2" ;;
esac
"""

# The worker with kernels that the double knows.
WORKER = os.path.join(BUILD, "tests", "e2e", "gpu-worker")
MODEL = "/var/lib/residentd/models/primer.gguf"
POLICY = {"version": 1, "models": {
    name: {"path": MODEL, "residency": {"ram": "map", "when": "on-demand"}, "placement": {"gpu_layers": layers}}
    for name, layers in (("gpu", "all"), ("cpu", 0))}}

stage = Stage()
n_probes = 0


def unit(name):
    """A unit of the build, with its programs where the machine has them."""
    for folder in (os.path.join(BUILD, "systemd"), os.path.join(SOURCE, "systemd")):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return open(path, encoding="utf-8").read()
    raise AssertionError("no unit " + name)


def install():
    m = stage.machine
    os.makedirs(m.path("/usr/bin"))
    os.makedirs(m.path("/usr/lib/nvidia/current"))
    double = os.path.join(BUILD, "tests", "fake-libcuda", "libcuda.so.1")
    if os.path.exists(WORKER) and os.path.exists(double):
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", m.path("/")], check=True,
                       stdout=subprocess.DEVNULL)
        shutil.copy(WORKER, m.path(re.search(r"^ExecStart=(\S+)", unit("residentd-gpu-worker@.service"), flags=re.M)[1]))
        shutil.copy(double, m.path("/usr/lib/nvidia/current"))
        os.makedirs(m.path(os.path.dirname(MODEL)))
        shutil.copy(os.path.join(SOURCE, "primer", "primer.gguf"), m.path(MODEL))
    else:
        with open(m.path("/usr/lib/nvidia/current/libcuda.so.1"), "w") as f:
            f.write("driver\n")
    with open(m.path("/usr/bin/nvidia-modprobe"), "w", encoding="utf-8") as f:
        f.write(MODPROBE)
    os.chmod(m.path("/usr/bin/nvidia-modprobe"), 0o755)
    m.boot()
    m.run("mkdir", "-p", "/run/residentd-worker/daemon", "/run/residentd-worker/gpu-root", "/run/gpus/0000:01:00.0",
          "/run/gpus/0000:02:00.0")
    for minor, bus in enumerate(("0000:01:00.0", "0000:02:00.0")):
        m.write("/run/gpus/%s/information" % bus, "Model: \t\t Test\nDevice Minor: \t %d\n" % minor)
    names(NAMES)
    program = re.search(r"^ExecStart=-(\S+)", unit("residentd-gpu-devices.service"), flags=re.M)[1]
    with open(os.path.join(SOURCE, "systemd", "resident-gpu-devices"), encoding="utf-8") as f:
        # /proc/driver can't be made here.
        text = f.read()
    assert "/proc/driver/nvidia/gpus" in text
    m.write(program, text.replace("/proc/driver/nvidia/gpus", "/run/gpus"))
    m.run("chmod", "+x", program)
    m.write(UNITS + "residentd-gpu-devices.service", unit("residentd-gpu-devices.service"))
    # Debian's libcuda.so.1: by two alternatives, into the folder of one version of the driver.
    m.run("sh", "-c", "ln -s /usr/lib/nvidia/current/libcuda.so.1 /etc/alternatives/nvidia--libcuda.so.1 && "
          "ln -s /etc/alternatives/nvidia--libcuda.so.1 /usr/lib/libcuda.so.1")


def names(text):
    """The kernel's list of devices, with these."""
    m = stage.machine
    m.run("umount", "/proc/devices", check=False)
    m.write("/run/devices", "Character devices:\n  1 mem\n  5 /dev/tty\n 10 misc\n136 pts\n" + text + "\nBlock devices:\n")
    m.run("mount", "--bind", "/run/devices", "/proc/devices")


def probe(script, *more, without=()):
    """What @script prints and says, run with the sandbox of a worker with a GPU; @more settings, and none of @without."""
    global n_probes
    m = stage.machine
    n_probes += 1
    text = unit("residentd-gpu-worker@.service")
    for line in without:
        assert line + "\n" in text, line
        text = text.replace(line + "\n", "")
    text = re.sub(r"^(Type|ExecStart|ExecStopPost|WatchdogS\w+|NotifyAccess)=.*\n", "", text, flags=re.M)
    m.write("/usr/lib/gpu-probe.sh", script)
    text = text.replace("[Service]\n", "[Service]\nType=oneshot\nSyslogIdentifier=probe-%d\n" % n_probes
                        + "ExecStart=/usr/bin/sh /usr/lib/gpu-probe.sh\n"
                        + "".join(x + "\n" for x in more))
    m.write(UNITS + "gpu-probe@.service", text)
    m.run("systemctl", "daemon-reload")
    # Whatever comes of it: what it says is looked at.
    m.run("systemctl", "start", "gpu-probe@1.service", check=False)
    return m.journal("-t", "probe-%d" % n_probes)


def opened(*more, without=()):
    """What comes of opening each device: {name: what the shell says}."""
    said = probe("for d in %s; do\n    echo \"$d: $( (exec 3<>/dev/$d) 2>&1 )\"\ndone\n" % " ".join(DEVICES), *more,
                 without=without)
    found = dict(re.findall(r"^(nvidia\S+): (.*)$", said, flags=re.M))
    assert set(found) == set(DEVICES), said
    return {name: text.rsplit(": ", 1)[-1] for name, text in found.items()}


ALLOWED = "No such device or address"


def the_devices_are_made_before_a_worker_starts():
    m = stage.need()
    for name in DEVICES:
        assert m.run("test", "-e", "/dev/" + name, check=False).returncode != 0, name
    probe("true\n")
    for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia-uvm"):
        m.run("test", "-c", "/dev/" + name)
    assert m.run("cat", "/run/modprobe.log").stdout.split("\n")[:-1] == ["-u -c 0", "-c 255", "-c 0", "-c 1"]
    # Shares of a GPU are set up by the administrator, with their devices.
    m.run("sh", "-c", "mkdir /dev/nvidia-caps && mknod -m 660 /dev/nvidia-caps/nvidia-cap1 c 234 1 && "
          "chown root:video /dev/nvidia-caps/nvidia-cap1")


def without_a_driver_a_worker_starts_all_the_same():
    m = stage.need()
    m.run("touch", "/run/no-driver")
    assert "here" in probe("echo here\n")
    m.run("mv", "/usr/bin/nvidia-modprobe", "/usr/bin/away")
    assert "here" in probe("echo here\n")
    m.run("mv", "/usr/bin/away", "/usr/bin/nvidia-modprobe")
    m.run("rm", "/run/no-driver")


def a_worker_can_open_the_gpus_devices():
    stage.need()
    said = opened()
    assert said == {name: ALLOWED for name in DEVICES}, said


def it_can_with_the_names_of_older_drivers():
    stage.need()
    names(NAMES_OLD)
    said = opened()
    names(NAMES)
    assert said == {name: ALLOWED for name in DEVICES}, said


def a_list_of_devices_without_one_hides_the_gpu():
    stage.need()
    for line, hidden in (("DeviceAllow=char-nvidia-uvm rw", ["nvidia-uvm"]),
                         ("DeviceAllow=char-nvidia-caps rw", ["nvidia-caps/nvidia-cap1"])):
        said = opened(without=[line])
        assert [n for n in DEVICES if said[n] != ALLOWED] == hidden, (line, said)
    # The name that older guides have: with a new driver it stands for nothing.
    said = opened(without=["DeviceAllow=char-nvidia rw", "DeviceAllow=char-nvidiactl rw"])
    assert [n for n in DEVICES if said[n] != ALLOWED] == ["nvidiactl", "nvidia0", "nvidia1"], said


def private_devices_would_hide_the_gpu():
    stage.need()
    said = opened("PrivateDevices=yes")
    assert ALLOWED not in said.values(), said


def without_their_group_debians_devices_are_closed():
    stage.need()
    said = opened(without=["SupplementaryGroups=video"])
    assert set(said.values()) == {"Permission denied"}, said


def other_devices_are_closed():
    m = stage.need()
    # Of the list that everybody has, and of another driver's.
    m.run("sh", "-c", "mknod -m 666 /dev/other0 c 10 200; mknod -m 666 /dev/vcs0 c 7 0; mknod -m 666 /dev/disk0 b 8 0")
    said = probe("for d in other0 vcs0 disk0 null; do echo \"$d: $( (exec 3</dev/$d) 2>&1 )\"; done\n"
                 "ls /dev/shm /dev/pts 2>&1\n")
    for name in ("other0", "vcs0", "disk0"):
        assert re.search(r"^%s: .*Operation not permitted" % name, said, flags=re.M), said
    assert re.search(r"^null:\s*$", said, flags=re.M), said
    assert len(re.findall(r"Permission denied", said)) == 2, said


def what_a_driver_reads_is_there():
    m = stage.need()
    m.run("sh", "-c", "echo secret >/etc/secret; mkdir -p /srv/secret")
    said = probe("cat /usr/lib/libcuda.so.1 >/dev/null && echo driver\nls -d /proc/driver /sys/devices/system\n"
                 "echo worker >/proc/$$/task/$$/comm && cat /proc/$$/task/$$/comm\n"
                 "ls -d /* /etc/*; id -u\n")
    # The last is a thread's name: without that, drivers from 570 on do not start.
    for line in ("driver", "/proc/driver", "/sys/devices/system", "worker"):
        assert re.search(r"^%s$" % line, said, flags=re.M), (line, said)
    # And nothing else is.
    assert "secret" not in said and "/home" not in said, said
    assert sorted(re.findall(r"^(/\w+|/etc/\S+)$", said, flags=re.M)) == [
        "/dev", "/etc", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/lib", "/lib64", "/proc", "/root",
        "/run", "/sys", "/tmp", "/usr", "/var"], said
    assert int(re.findall(r"^(\d+)$", said, flags=re.M)[-1]) >= 61184, said


def without_alternatives_debians_library_is_not_found():
    stage.need()
    said = probe("cat /usr/lib/libcuda.so.1 2>&1 >/dev/null || true\n", without=["BindReadOnlyPaths=-/etc/alternatives"])
    assert "No such file" in said, said


def units(pattern):
    listed = stage.machine.run("systemctl", "list-units", "--no-legend", "--plain", pattern).stdout
    return [line.split()[0] for line in listed.splitlines()]


def a_model_has_its_layers_on_the_gpu():
    m = stage.need()
    if not os.path.exists(WORKER):
        raise Skip("this build has no kernels that run without a GPU")
    for name in ("residentd-gpu-worker.socket", "residentd-gpu-worker@.service"):
        m.write(UNITS + name, unit(name))
    m.run("ldconfig")
    m.run("systemd-sysusers")
    m.run("systemd-tmpfiles", "--create")
    m.write("/etc/residentd/policy.json", json.dumps(POLICY))
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "residentd.socket", "residentd.service")

    def known():
        status = json.loads(m.run("residentctl", "--json", "status").stdout)
        return status if status["vram"] or status.get("gpu_reason") else None
    status = m.wait_for("somebody to look for GPUs", known)
    assert not status.get("gpu_reason"), status
    answers = [m.run("residentctl", "run", name, "Hello!", "-n", "16", "--temperature", "0").stdout for name in ("gpu", "cpu")]
    assert answers[0].strip() and answers[0] == answers[1], answers
    models = {x["name"]: x for x in json.loads(m.run("residentctl", "--json", "status").stdout)["models"]}
    assert models["gpu"]["gpu_layers"] > 0 and models["gpu"]["vram_bytes"] > 0, models["gpu"]
    assert models["cpu"]["gpu_layers"] == 0, models["cpu"]
    assert len(units("residentd-gpu-worker@*")) == 1 and len(units("residentd-worker@*")) == 1
    # A restart keeps what is there.
    worker = models["gpu"]["worker_pid"]
    m.run("systemctl", "restart", "residentd.service")
    assert m.run("residentctl", "run", "gpu", "Hello!", "-n", "16", "--temperature", "0").stdout == answers[0]
    models = {x["name"]: x for x in json.loads(m.run("residentctl", "--json", "status").stdout)["models"]}
    assert models["gpu"]["worker_pid"] == worker and models["gpu"]["gpu_layers"] > 0, models["gpu"]


TESTS = [
    the_devices_are_made_before_a_worker_starts,
    without_a_driver_a_worker_starts_all_the_same,
    a_worker_can_open_the_gpus_devices,
    it_can_with_the_names_of_older_drivers,
    a_list_of_devices_without_one_hides_the_gpu,
    private_devices_would_hide_the_gpu,
    without_their_group_debians_devices_are_closed,
    other_devices_are_closed,
    what_a_driver_reads_is_there,
    without_alternatives_debians_library_is_not_found,
    a_model_has_its_layers_on_the_gpu,
]


if __name__ == "__main__":
    stage.run(TESTS, install, os.environ.get("RESIDENTD_SUITE", "bookworm"))
