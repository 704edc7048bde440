#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Arch PKGBUILD: makepkg, which Debian has, makes packages of what meson installs."""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import BUILD, SOURCE, Skip, main                                        # noqa: E402

ARCH = os.path.join(SOURCE, "packaging", "arch")
VERSION = re.search(r"version: '([0-9.]+)'", open(os.path.join(SOURCE, "meson.build"), encoding="utf-8").read())[1]
folder = None


def bash(script, *arguments):
    done = subprocess.run(["bash", "-euc", 'source "$0"; ' + script, os.path.join(ARCH, "PKGBUILD"), *arguments],
                          cwd=os.path.join(folder, "src"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "srcdir": os.path.join(folder, "src")})
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def names():
    return bash('printf "%s\\n" "${pkgname[@]}"').split()


def files_of(root):
    return {os.path.relpath(os.path.join(at, name), root) for at, _, found in os.walk(root) for name in found}


def it_says_what_a_package_needs():
    said = bash('printf "%s\\n" "$pkgver" "$pkgrel" "$pkgdesc" "${license[@]}" "${arch[@]}" "${#source[@]}" "${#sha256sums[@]}"')
    lines = said.splitlines()
    assert lines[0] == VERSION, lines
    assert lines[1].isdigit() and "LGPL-2.1-or-later" in lines and "x86_64" in lines and lines[-1] == lines[-2], lines
    for name in names():
        assert "package_%s " % name in bash("declare -f package_" + name), name


def makepkg_builds_the_packages():
    for program in ("makepkg", "bsdtar"):
        if not shutil.which(program):
            raise Skip(program + " is not installed")
    for name in os.listdir(ARCH):
        shutil.copy(os.path.join(ARCH, name), folder)
    # The archive of a release, with what git knows or would take.
    subprocess.run(["sh", "-euc", 'git ls-files -z --cached --others --exclude-standard | tar --null -T - '
                    '--ignore-failed-read --transform="s,^,residentd-$1/," -czf "$2"', "archive", VERSION,
                    os.path.join(folder, "residentd-%s.tar.gz" % VERSION)], cwd=SOURCE, check=True,
                   stderr=subprocess.DEVNULL)
    command = ["makepkg", "--nodeps", "--noconfirm", "--nocolor"]
    if os.geteuid() == 0:
        # It refuses to be root.
        subprocess.run(["chown", "-R", "nobody", folder], check=True)
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          # It only asks pacman for what is installed.
                          env={**os.environ, "HOME": folder, "CCACHE_DISABLE": "1", "PACMAN": "true"})
    assert done.returncode == 0, done.stdout[-4000:]
    made = glob.glob(os.path.join(folder, "*.pkg.tar*"))
    assert sorted(os.path.basename(x).rsplit("-", 3)[0] for x in made) == sorted(names()), made
    left = files_of(os.path.join(folder, "src", "staging"))
    assert not left, left


def need_packages():
    if not os.path.isdir(os.path.join(folder, "pkg")):
        raise Skip("there are no packages")


def each_says_what_it_is():
    need_packages()
    for name in names():
        found = glob.glob(os.path.join(folder, name + "-" + VERSION + "-*.pkg.tar*"))
        info = subprocess.run(["tar", "-xOf", found[0], ".PKGINFO"], check=True, stdout=subprocess.PIPE, text=True).stdout
        assert "pkgname = %s\n" % name in info and "license = LGPL-2.1-or-later\n" in info, info
        assert "pkgver = %s-" % VERSION in info, info


def they_have_what_meson_installs():
    need_packages()
    packages = {name: {x for x in files_of(os.path.join(folder, "pkg", name)) if not x.startswith(".")} for name in names()}
    staging = os.path.join(folder, "staging")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", staging], check=True)
    # Where the tests' build has kernels for GPUs, they are of a package that is not built here.
    installed = {os.path.basename(x) for x in files_of(staging) if "gpu-" not in os.path.basename(x)}
    packaged = [re.sub(r"\.gz$", "", os.path.basename(x)) for found in packages.values() for x in found]
    assert len(installed) > 25 and installed <= set(packaged), installed - set(packaged)
    for found in packages.values():
        assert all(x.startswith("usr/") for x in found), found
    assert "usr/bin/residentd" in packages["residentd"]
    assert "usr/lib/systemd/system/residentd.service" in packages["residentd"]
    assert "usr/include/resident.h" in packages["libresident"]
    assert "usr/share/residentd/primer.gguf" in packages["residentd-primer"]


def units_name_programs_that_are_there():
    need_packages()
    root = os.path.join(folder, "pkg", "residentd")
    units = os.path.join(root, "usr/lib/systemd/system")
    n = 0
    for unit in os.listdir(units):
        text = open(os.path.join(units, unit), encoding="utf-8").read()
        for program in re.findall(r"^Exec\w+=[-+]*(\S+)", text, flags=re.M):
            assert os.access(root + program, os.X_OK), (unit, program)
            n += 1
    assert n >= 4, n


def the_install_script_is_bash():
    path = os.path.join(ARCH, "residentd.install")
    assert os.path.basename(path) in bash("declare -f package_residentd")
    subprocess.run(["bash", "-n", path], check=True)
    said = subprocess.run(["bash", "-euc", 'source "$0"; declare -F', path], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    assert {"post_install", "post_upgrade", "pre_remove"} == set(re.findall(r"-f (\w+)", said)), said


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="residentd-arch.") as folder:
        os.makedirs(os.path.join(folder, "src"))
        main([it_says_what_a_package_needs, makepkg_builds_the_packages, each_says_what_it_is, they_have_what_meson_installs,
              units_name_programs_that_are_there, the_install_script_is_bash])
