# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages, built for tests that install them."""

import glob
import os
import shutil
import subprocess

from harness import SOURCE, Skip

PACKAGES = ["libresident-dev", "libresident0", "residentd", "residentd-primer"]


def need_nvcc():
    if not shutil.which("nvcc") and not os.path.exists("/usr/local/cuda/bin/nvcc"):
        raise Skip("nvcc is not installed")


def build(into, *version, cuda=False):
    """{package: path} of what packaging/build-deb leaves in @into, without debugging symbols.

    $RESIDENTD_DEBS: a folder that has them already, for who changes a test and not the tree."""
    if os.environ.get("RESIDENTD_DEBS") and not version and not cuda:
        return found_in(os.environ["RESIDENTD_DEBS"])
    for program in ("dpkg-buildpackage", "dh", "git"):
        if not shutil.which(program):
            raise Skip(program + " is not installed")
    if cuda:
        need_nvcc()
    done = subprocess.run([os.path.join(SOURCE, "packaging", "build-deb"), *(["--cuda"] if cuda else []), into, *version],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return found_in(into)


def found_in(folder):
    return {os.path.basename(p).split("_")[0]: p for p in glob.glob(os.path.join(folder, "*.deb")) if "-dbgsym_" not in p}
