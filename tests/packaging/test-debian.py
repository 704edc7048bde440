#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages: built, looked at by lintian, installed into a booted Debian, used, removed and purged.

With --twice: built twice, in different folders, and compared.
"""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
sys.path.insert(0, os.path.join(HERE, "..", "systemd"))
from harness import SOURCE, Skip, main                                               # noqa: E402
from machine import Stage, Unavailable                                               # noqa: E402

PACKAGES = ["libresident-dev", "libresident0", "residentd", "residentd-primer"]
# What belongs to the machine itself and changes by its running: logs, its identity, the packages' own bookkeeping.
OWN = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/systemd/", "/etc/machine-id", "/var/tmp/", "/root/")

stage = Stage()
folder = None
built = None   # {package: path}


def build(into):
    for program in ("dpkg-buildpackage", "dh", "git"):
        if not shutil.which(program):
            raise Skip(program + " is not installed")
    done = subprocess.run([os.path.join(SOURCE, "packaging", "build-deb"), into], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return {os.path.basename(p).split("_")[0]: p for p in glob.glob(os.path.join(into, "*.deb")) if "-dbgsym_" not in p}


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


def two_builds_are_the_same():
    sums = []
    for name in ("first", "second/deeper"):
        packages = build(os.path.join(folder, name))
        assert sorted(packages) == PACKAGES, sorted(packages)
        sums.append({p: hashlib.sha256(open(packages[p], "rb").read()).hexdigest() for p in packages})
    assert sums[0] == sums[1], sums


TESTS = [
    the_packages_are_built,
    lintian_finds_nothing,
    the_service_answers_after_the_installation,
    the_installed_service_reloads,
    installing_again_keeps_the_service_and_the_policy,
    removal_stops_it_and_keeps_the_policy,
    purge_leaves_nothing_behind,
]


def run():
    global folder
    with tempfile.TemporaryDirectory(prefix="residentd-debs.") as folder:
        if sys.argv[1:] == ["--twice"]:
            main([two_builds_are_the_same])
        stage.run(TESTS)


if __name__ == "__main__":
    run()
