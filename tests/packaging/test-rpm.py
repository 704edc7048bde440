#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM packages: rpmlint takes the spec and what is built from it; together they have what meson installs.

Built with Debian's rpmbuild, which has no macros of systemd's and none of the packages that a build needs, by name."""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import BUILD, SOURCE, Skip, main                                        # noqa: E402

SPEC = os.path.join(SOURCE, "packaging", "rpm", "residentd.spec")
FILTERS = os.path.join(SOURCE, "packaging", "rpm", "rpmlint.toml")
PACKAGES = ["libresident", "libresident-devel", "residentd", "residentd-primer"]

folder = None
built = {}   # {package: path}


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(program + " is not installed")


def run(*command):
    # /usr/bin before what else has a python3: rpmlint is Debian's.
    env = {**os.environ, "PATH": "/usr/bin:" + os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    assert done.returncode == 0, (" ".join(command), done.stdout[-4000:])
    return done.stdout


def query(package, what):
    return run("rpm", "-qp", "--nosignature", what, built[package]).splitlines()


def rpmlint_takes_the_spec():
    need("rpmlint")
    said = run("rpmlint", "-c", FILTERS, SPEC)
    assert re.search(r"\b0 errors, 0 warnings", said), said


def the_packages_are_built():
    need("rpmbuild", "git")
    run(os.path.join(SOURCE, "packaging", "build-rpm"), folder, "--nodeps")
    for path in glob.glob(os.path.join(folder, "*.rpm")):
        built[os.path.basename(path).rsplit("-", 2)[0]] = path
    assert sorted(x for x in built if "debug" not in x) == PACKAGES, sorted(built)


def need_packages():
    if not built:
        raise Skip("there are no packages")


def rpmlint_takes_the_packages():
    need_packages()
    need("rpmlint")
    said = run("rpmlint", "-c", FILTERS, *[built[p] for p in PACKAGES])
    assert re.search(r"\b0 errors, 0 warnings", said), said


def they_have_what_meson_installs():
    need_packages()
    files = sorted(x for p in PACKAGES for x in query(p, "-l"))
    files = [x for x in files if "/.build-id" not in x]
    assert len(files) == len(set(files)), files
    staging = os.path.join(folder, "staging")
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", staging)
    names = {re.sub(r"\.gz$", "", os.path.basename(x)) for x in files}
    # Where the tests' build has kernels for GPUs, they are of a package that is not built here.
    installed = {name for _, _, found in os.walk(staging) for name in found if "gpu-" not in name}
    assert len(installed) > 25 and installed <= names, installed - names


def scripts_are_shell():
    need_packages()
    text = "\n".join(query("residentd", "--scripts"))
    # A macro that nobody knows stays in the text.
    assert "%" not in text, text
    for name in ("preinstall", "postinstall", "preuninstall", "postuninstall"):
        assert name + " scriptlet" in text, name
    run("sh", "-n", "-c", "\n".join(x for x in text.splitlines() if "scriptlet (using" not in x))


def a_package_installs_and_leaves_nothing():
    need_packages()
    root = os.path.join(folder, "root")
    os.makedirs(root)
    rpm = ["rpm", "--root", root, "--nosignature"]
    run(*rpm, "--initdb")
    run(*rpm, "-i", "--nodeps", "--noscripts", *[built[p] for p in PACKAGES])
    assert os.access(os.path.join(root, "usr/bin/residentd"), os.X_OK)
    run(*rpm, "-V", "--nodeps", *PACKAGES)
    run(*rpm, "-e", "--nodeps", "--noscripts", *PACKAGES)
    left = [os.path.join(at, f) for at, _, found in os.walk(root) for f in found if "rpm" not in at[len(root):]]
    assert not left, left


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="residentd-rpm.") as folder:
        main([rpmlint_takes_the_spec, the_packages_are_built, rpmlint_takes_the_packages,
              they_have_what_meson_installs, scripts_are_shell, a_package_installs_and_leaves_nothing])
