#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages: built, looked at by lintian, installed into a booted Debian, used, removed and purged.

With --upgrade: also those of a later version, to which the installed ones are upgraded while somebody asks.
With --twice: built twice, in different folders, and compared.
With --cuda: residentd-cuda, too, where there is NVIDIA's compiler.
$RESIDENTD_SUITE: which Debian is booted.
"""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
sys.path.insert(0, os.path.join(HERE, "..", "systemd"))
sys.path.insert(0, HERE)
from debs import PACKAGES, build                                                     # noqa: E402
from harness import SOURCE, Skip, main                                               # noqa: E402
from machine import Stage, Unavailable                                               # noqa: E402

# What belongs to the machine itself and changes by its running: logs, its identity, the packages' own bookkeeping.
OWN = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/systemd/", "/etc/machine-id", "/var/tmp/", "/root/")

SUITE = os.environ.get("RESIDENTD_SUITE", "bookworm")
ADDRESS = "unix:/run/residentd/io.residentd"
INTERFACES = ["io.residentd", "io.residentd.Inference", "io.residentd.Models", "io.residentd.Usage", "org.varlink.service"]
LATER = "0.1.1"
UPGRADE_POLICY = """{ "version": 1, "aliases": { "chat": "primer" }, "host": { "upgrade_deadline": "1s" },
  "models": { "primer": { "residency": { "ram": "lock", "when": "on-demand" } } } }
"""

stage = Stage()
folder = None
built = None   # {package: path}
later = {}


def need_packages():
    if not built:
        raise Skip("there are no packages")
    return built


def need_machine():
    need_packages()
    return stage.need()


def files_of(m):
    found = m.run("find", "/etc", "/usr", "/var", "/opt", "/root", "/lib/", "-xdev", "-not", "-type", "d").stdout
    return {path for path in found.splitlines() if not path.startswith(OWN)}


def folders_of(m):
    found = m.run("find", "/etc", "/usr", "/var", "/run", "-xdev", "-type", "d", "-name", "*resident*").stdout
    return set(found.splitlines())


def the_packages_are_built():
    global built
    built = build(folder)
    assert sorted(built) == PACKAGES, sorted(built)


def lintian_finds_nothing():
    need_packages()
    if not shutil.which("lintian"):
        raise Skip("lintian is not installed")
    changes = glob.glob(os.path.join(folder, "*.changes"))
    done = subprocess.run(["lintian", "--allow-root", "--fail-on=warning", *changes], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def the_service_answers_after_the_installation():
    m = need_machine()
    os.makedirs(m.path("/srv/debs"))
    for path in built.values():
        shutil.copy(path, m.path("/srv/debs"))
    os.makedirs(m.path("/srv/later"))
    for path in later.values():
        shutil.copy(path, m.path("/srv/later"))
    try:
        m.boot()
    except Unavailable as e:
        stage.reason = str(e)
        raise Skip(stage.reason)
    m.before = files_of(m), m.run("getent", "passwd").stdout, m.run("getent", "group").stdout
    m.run("sh", "-c", "DEBIAN_FRONTEND=noninteractive dpkg -i /srv/debs/*.deb", timeout=300)
    assert m.run("systemctl", "is-enabled", "residentd.socket").stdout.strip() == "enabled"
    m.run("useradd", "-M", "alice")
    names = json.loads(m.run("residentctl", "--json", "list", user="alice").stdout)["models"]
    assert [x["name"] for x in names] == ["primer"], names
    assert m.run("residentctl", "run", "primer", "Hello!", "-n", "8", user="alice").stdout.strip()


def the_installed_service_reloads():
    m = need_machine()
    m.write("/etc/residentd/policy.json", '{ "version": 1, "aliases": { "chat": "primer" } }')
    m.run("systemctl", "reload", "residentd.service")
    assert m.run("residentctl", "run", "chat", "Hello!", "-n", "4", user="alice").stdout.strip()


def installing_again_keeps_the_service_and_the_policy():
    m = need_machine()
    m.run("sh", "-c", "DEBIAN_FRONTEND=noninteractive dpkg -i /srv/debs/*.deb", timeout=300)
    assert m.run("systemctl", "is-active", "residentd.service").stdout.strip() == "active"
    assert m.run("residentctl", "run", "chat", "Hello!", "-n", "4", user="alice").stdout.strip()


def need_varlinkctl():
    m = need_machine()
    if m.run("which", "varlinkctl", check=False).returncode != 0:
        raise Skip("this systemd has no varlinkctl")
    return m


def varlinkctl_sees_the_service_and_its_interfaces():
    m = need_varlinkctl()
    info = m.run("varlinkctl", "info", ADDRESS, user="alice").stdout
    assert "residentd" in info and "io.residentd.Inference" in info, info
    names = m.run("varlinkctl", "list-interfaces", ADDRESS, user="alice").stdout.split()
    assert sorted(names) == INTERFACES, names


def varlinkctl_takes_each_interface():
    m = need_varlinkctl()
    for name in INTERFACES:
        text = m.run("varlinkctl", "introspect", ADDRESS, name).stdout
        assert "interface %s\n" % name in text, text
        # What systemd itself makes of it is valid, and so is the file as it is in the source.
        m.write("/tmp/introspected.varlink", text)
        m.run("varlinkctl", "validate-idl", "/tmp/introspected.varlink")
        path = os.path.join(SOURCE, "client", "varlink", name + ".varlink")
        m.write("/tmp/source.varlink", open(path, encoding="utf-8").read())
        m.run("varlinkctl", "validate-idl", "/tmp/source.varlink")


def varlinkctl_calls_and_streams():
    m = need_varlinkctl()
    reply = json.loads(m.run("varlinkctl", "call", "-j", ADDRESS, "io.residentd.Inference.ListModels", "{}", user="alice").stdout)
    assert [x["name"] for x in reply["models"]] == ["primer"], reply
    ask = json.dumps({"model": "primer", "prompt": "Once upon a time", "max_tokens": 16})
    once = json.loads(m.run("varlinkctl", "call", "-j", ADDRESS, "io.residentd.Inference.Complete", ask, user="alice").stdout)
    assert once["done"] and once["text"] and once["usage"]["output_tokens"] <= 16, once
    said = m.run("varlinkctl", "call", "-j", "--more", ADDRESS, "io.residentd.Inference.Complete", ask, user="alice").stdout
    pieces = [json.loads(x) for x in said.replace("\x1e", "").splitlines() if x.strip()]
    assert len(pieces) > 2 and pieces[-1]["done"] and not pieces[0]["done"], pieces
    assert all(p["request"] == pieces[0]["request"] for p in pieces)
    bad = m.run("varlinkctl", "call", "-j", ADDRESS, "io.residentd.Inference.Complete", '{"model": "none", "prompt": ""}',
                user="alice", check=False)
    assert bad.returncode != 0 and "io.residentd.NoSuchModel" in bad.stderr + bad.stdout, bad


def the_later_packages_are_built():
    need_packages()
    later.update(build(os.path.join(folder, "later"), LATER))
    assert sorted(later) == PACKAGES and all("_%s_" % LATER in path for path in later.values()), later


def an_upgrade_keeps_what_is_loaded_and_refuses_nobody():
    m = need_machine()
    if not later:
        raise Skip("there is no later version")
    m.write("/etc/residentd/policy.json", UPGRADE_POLICY)
    m.run("systemctl", "reload", "residentd.service")
    m.run("residentctl", "load", "primer")
    size = os.path.getsize(os.path.join(SOURCE, "primer", "primer.gguf"))
    before, pid = model(m), main_pid(m)
    results, done = [], threading.Event()

    def keep_asking():
        while not done.is_set():
            results.append(m.run("residentctl", "run", "chat", "Hello!", "-n", "16", user="alice", check=False))
    thread = threading.Thread(target=keep_asking)
    thread.start()
    m.run("sh", "-c", "DEBIAN_FRONTEND=noninteractive dpkg -i /srv/later/*.deb", timeout=300)
    done.set()
    thread.join()
    assert m.run("dpkg-query", "-W", "-f", "${Version}", "residentd").stdout == LATER
    assert main_pid(m) not in ("0", pid), "the old daemon runs on"
    # The old worker is replaced when nobody uses it; by then its successor has the memory.
    m.wait_for("a worker of the later version", lambda: model(m).get("worker_pid") not in (None, before["worker_pid"]))
    m.wait_for("a ready model", lambda: model(m)["state"] == "ready")
    bad = [r for r in results if r.returncode != 0 and "io.residentd.ShuttingDown" not in r.stderr]
    assert not bad and len(results) > 2, (len(results), bad[:1])
    text = m.run("cat", "/proc/%s/io" % main_pid(m)).stdout
    read = int(next(line for line in text.splitlines() if line.startswith("rchar:")).split()[1])
    assert read < size // 2, (read, size)
    assert m.run("cat", "/etc/residentd/policy.json").stdout == UPGRADE_POLICY


def main_pid(m):
    return m.run("systemctl", "show", "-P", "MainPID", "residentd.service").stdout.strip()


def model(m):
    return next(x for x in json.loads(m.run("residentctl", "--json", "status").stdout)["models"] if x["name"] == "primer")


def removal_stops_it_and_keeps_the_policy():
    m = need_machine()
    m.run("dpkg", "--remove", *PACKAGES, timeout=300)
    assert m.run("pgrep", "-c", "resident", check=False).stdout.strip() == "0"
    assert "residentd" not in m.run("systemctl", "list-units", "--all", "--no-legend", "--plain", "--state=active",
                                    "residentd*").stdout
    assert m.run("cat", "/etc/residentd/policy.json").stdout


def purge_leaves_nothing_behind():
    m = need_machine()
    m.run("dpkg", "--purge", *PACKAGES, timeout=300)
    m.run("userdel", "alice")
    m.run("systemctl", "daemon-reload")
    before, users, groups = m.before
    left = {path for path in files_of(m) - before if not path.endswith("-")}
    assert left == set(), sorted(left)
    assert folders_of(m) == set(), folders_of(m)
    assert m.run("getent", "passwd").stdout == users
    assert m.run("getent", "group").stdout == groups
    units = m.run("systemctl", "list-unit-files", "--no-legend", "resident*", check=False).stdout
    assert units == "", units
    active = m.run("systemctl", "list-units", "--no-legend", "--plain", "resident*").stdout
    assert active == "", active


def sums(packages):
    return {p: hashlib.sha256(open(path, "rb").read()).hexdigest() for p, path in packages.items()}


def two_builds_are_the_same():
    first, second = (sums(build(os.path.join(folder, name))) for name in ("first", "second/deeper"))
    assert sorted(first) == PACKAGES and first == second, (first, second)


def the_one_for_gpus_is_built():
    global built
    built = build(folder, cuda=True)
    assert sorted(built) == sorted([*PACKAGES, "residentd-cuda"]), sorted(built)


def the_others_are_the_same_without_it():
    plain = sums(build(os.path.join(folder, "plain")))
    with_it = sums(need_packages())
    del with_it["residentd-cuda"]
    assert with_it == plain, (with_it, plain)


def kernels_for_gpus_are_found():
    m = need_machine()
    assert m.run("systemctl", "is-active", "residentd-gpu-worker.socket").stdout.strip() == "active"
    command = ["resident-engine", "logits", "/usr/share/residentd/primer.gguf", "--ids", "1 2", "--out", "/tmp/logits",
               "--gpu-layers", "1"]
    said = m.run(*command, check=False).stderr
    assert "no NVIDIA driver is installed" in said, said
    # Those of another build are not used.
    library = "/usr/libexec/residentd/gpu-kernels.so"
    version = m.run("dpkg-query", "-W", "-f", "${Version}", "residentd").stdout
    m.run("perl", "-0777", "-pi", "-e", r"s/\x00\Q%s\E\x00/\x00%s\x00/ or die" % (version, version[:-1] + "9"), library)
    said = m.run(*command, check=False).stderr
    assert "not installed in the same version" in said, said


def without_the_package_the_service_goes_on():
    m = need_machine()
    m.run("dpkg", "--remove", "residentd-cuda", timeout=300)
    assert m.run("systemctl", "is-active", "residentd-gpu-worker.socket", check=False).stdout.strip() == "inactive"
    assert m.run("test", "-e", "/run/residentd-worker/gpu-worker", check=False).returncode != 0
    assert m.run("residentctl", "run", "primer", "Hello!", "-n", "4", user="alice").stdout.strip()


CUDA_TESTS = [
    the_one_for_gpus_is_built,
    the_others_are_the_same_without_it,
    lintian_finds_nothing,
    the_service_answers_after_the_installation,
    the_installed_service_reloads,
    kernels_for_gpus_are_found,
    without_the_package_the_service_goes_on,
    removal_stops_it_and_keeps_the_policy,
    purge_leaves_nothing_behind,
]

TESTS = [
    the_packages_are_built,
    lintian_finds_nothing,
    the_service_answers_after_the_installation,
    the_installed_service_reloads,
    installing_again_keeps_the_service_and_the_policy,
    varlinkctl_sees_the_service_and_its_interfaces,
    varlinkctl_takes_each_interface,
    varlinkctl_calls_and_streams,
    removal_stops_it_and_keeps_the_policy,
    purge_leaves_nothing_behind,
]


def run():
    global folder
    with tempfile.TemporaryDirectory(prefix="residentd-debs.") as folder:
        if sys.argv[1:] == ["--twice"]:
            main([two_builds_are_the_same])
        if sys.argv[1:] == ["--cuda"]:
            stage.run(CUDA_TESTS, suite=SUITE)
        tests = TESTS if SUITE != "bookworm" else [t for t in TESTS if not t.__name__.startswith("varlinkctl")]
        if sys.argv[1:] == ["--upgrade"]:
            at = tests.index(removal_stops_it_and_keeps_the_policy)
            tests = [tests[0], the_later_packages_are_built, *tests[1:at],
                     an_upgrade_keeps_what_is_loaded_and_refuses_nobody, *tests[at:]]
        stage.run(tests, suite=SUITE)


if __name__ == "__main__":
    run()
