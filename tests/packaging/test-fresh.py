#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree on a Debian that has nothing but git and apt: ./quickstart answers, and ./check's installation step brings
what building and testing need. Nothing is kept of it, and all comes from the mirror: minutes, and some GB of disk.

$RESIDENTD_SUITE: which Debian.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
sys.path.insert(0, os.path.join(HERE, "..", "systemd"))
from harness import SOURCE, Skip, main                                               # noqa: E402
from machine import CACHE, mirrors                                                   # noqa: E402

SUITE = os.environ.get("RESIDENTD_SUITE", "bookworm")
# What install-build-deps asks for and this Debian does not have: it comes with another package there.
ELSEWHERE = {"bookworm": {"systemd-dev"}, "trixie": set()}
TREE = "/srv/residentd"
ENTER = r"""
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
root=$1
shift
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
"""

root = None


def make_root(at):
    """Debian's own smallest variant, and git."""
    if os.geteuid() != 0:
        raise Skip("only root can make a Debian")
    if not shutil.which("debootstrap"):
        raise Skip("debootstrap is not installed")
    said = ""
    for mirror in mirrors():
        shutil.rmtree(at, ignore_errors=True)
        done = subprocess.run(["debootstrap", "--variant=minbase", "--include=git", SUITE, at, mirror],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            break
        said = (done.stdout.strip().splitlines() or ["?"])[-1]
    else:
        raise Skip("debootstrap: " + said)
    os.makedirs(at + TREE)
    subprocess.run(["sh", "-euc", 'git ls-files -z --cached --others --exclude-standard | '
                    'tar --null -T - --ignore-failed-read -cf - | tar -C "$0" -xf -', at + TREE], cwd=SOURCE, check=True)


def run(*command, check=True):
    done = subprocess.run(["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", ENTER,
                           "enter", root, "sh", "-c", 'cd %s && exec "$@"' % TREE, "in", *command],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert not check or done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done


def need_root():
    if not os.path.isdir(root + TREE):
        raise Skip("there is no root")


def there_is_git_and_apt_and_no_compiler():
    make_root(root)
    assert run("git", "--version").stdout
    assert run("which", "gcc", "meson", "ninja", "python3", "pkg-config", check=False).stdout == ""


def quickstart_goes_from_there_to_an_answer():
    need_root()
    said = run("./quickstart").stdout
    prompt = "> Tell me a short story about a fox.\n\n"
    assert prompt in said, said
    answer = said.split(prompt)[1]
    assert len(answer.split()) > 20 and re.search(r"^default +ready", answer, flags=re.M), answer
    assert run("./quickstart").stdout.count(prompt) == 1, "a second time"


def installed():
    return set(run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n").stdout.replace(" installed", "").split())


def all_is_installed_that_tests_need():
    need_root()
    run("packaging/install-build-deps", "--check")
    text = open(os.path.join(SOURCE, "packaging", "install-build-deps"), encoding="utf-8").read()
    wanted = {x for line in re.findall(r"^(?:build|check)='(.*)'$", text, flags=re.M) for x in line.split()}
    assert len(wanted) > 40
    assert wanted - installed() == ELSEWHERE[SUITE], wanted - installed() ^ ELSEWHERE[SUITE]
    # What is there is left alone, and takes no time.
    again = run("packaging/install-build-deps", "--check")
    assert again.stdout + again.stderr == "", again


def it_builds_without_a_warning_and_tests_run():
    need_root()
    run("meson", "setup", "build-check/gcc", "-Dwerror=true")
    run("ninja", "-C", "build-check/gcc")
    said = run("meson", "test", "-C", "build-check/gcc", "--no-rebuild", "base-json", "completions", "manuals").stdout
    assert re.search(r"^Ok: +3\s*$", said, flags=re.M) and re.search(r"^Fail: +0\s*$", said, flags=re.M), said


if __name__ == "__main__":
    os.makedirs(CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fresh.", dir=CACHE) as folder:
        root = os.path.join(folder, "root")
        main([there_is_git_and_apt_and_no_compiler, quickstart_goes_from_there_to_an_answer,
              all_is_installed_that_tests_need, it_builds_without_a_warning_and_tests_run])
