# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian with a real systemd as process 1, in namespaces of its own on a root that debootstrap made.

The root is made once and kept (make_root); each machine works on an overlay of it in memory, so that nothing that a
test does stays. Needs root, overlayfs, cgroup2, and Debian's packages for the first time; Unavailable says what of
that is missing.
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from harness import SOURCE, Skip, main

CACHE = os.environ.get("RESIDENTD_ROOTS", os.path.join(SOURCE, "build-check", "roots"))

# What the programs under test need, and what tests look with.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "passwd", "procps", "jq", "libjson-c5", "libcap2", "libpcre2-8-0",
            "libnuma1", "liburing2", "libsqlite3-0", "sqlite3")

# Run in the new namespaces, by a shell: everything that systemd expects to find when it starts.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t overlay -o lowerdir="$1",upperdir="$2/upper",workdir="$2/work" overlay "$2/root"
cd "$2/root"
mkdir -p old
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
[ -z "$3" ] || { mkdir -p srv/disk; mount --bind "$3" srv/disk; }
pivot_root . old
umount -l /old
exec env -i container=residentd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
"""


class Unavailable(Exception):
    pass


def mirrors():
    """Where this machine gets Debian from, as its own sources say; Debian's own address last."""
    found = []
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]:
        try:
            text = open(path, encoding="utf-8", errors="replace").read()
        except OSError:
            continue
        for line in text.splitlines():
            if line.lstrip().startswith("#"):
                continue
            found += re.findall(r"https?://\S+?/debian(?=[/\s]|$)", line)
    return list(dict.fromkeys(found + ["http://deb.debian.org/debian"]))


def make_root(cache, suite="bookworm"):
    """The folder of a minimal Debian, made in @cache if it is not there yet."""
    # Another list of packages is another root.
    root = os.path.join(cache, "debian-%s-%s" % (suite, hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]))
    if os.geteuid() != 0:
        raise Unavailable("only root can boot a systemd")
    if not shutil.which("debootstrap"):
        raise Unavailable("debootstrap is not installed")
    os.makedirs(cache, exist_ok=True)
    with open(root + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(root):
            return root
        said = ""
        for mirror in mirrors():
            shutil.rmtree(root + ".new", ignore_errors=True)
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), suite, root + ".new", mirror],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode == 0:
                os.rename(root + ".new", root)
                return root
            said = done.stdout.strip().splitlines()[-1:] or [""]
            said = said[0]
        shutil.rmtree(root + ".new", ignore_errors=True)
        raise Unavailable("debootstrap: " + said)


class Machine:
    """One booted systemd. Use it with `with`. @disk: a folder that it sees as /srv/disk; all else is in memory."""

    def __init__(self, root, disk=""):
        self.root = root
        self.disk = disk

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="residentd-machine.")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.dir], check=True)
        for name in ("upper", "work", "root"):
            os.mkdir(os.path.join(self.dir, name))
        self.log = open(os.path.join(self.dir, "boot.log"), "w+")
        self.process = None
        return self

    def path(self, inside):
        """Where a file is to be put before boot() so that the machine sees it at @inside."""
        return os.path.join(self.dir, "upper", inside.lstrip("/"))

    def boot(self):
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child",
             "sh", "-c", BOOT, "boot", self.root, self.dir, self.disk],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 90
        state = ""
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise Unavailable("systemd did not boot: " + (self.log.read().strip().splitlines() or ["?"])[-1])
            if self._init():
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.2)
        raise AssertionError("systemd did not come up: " + (state or "not reachable"))

    def _init(self):
        """The pid of the machine's process 1, as this one sees it; None before there is one."""
        try:
            with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as f:
                children = f.read().split()
            if children and "systemd" in open("/proc/%s/comm" % children[0]).read():
                return int(children[0])
        except OSError:
            pass
        return None

    def run(self, *command, user=None, check=True, timeout=60, stdin=None):
        """Runs a command inside, as root or @user."""
        enter = ["nsenter", "-t", str(self._init()), "-m", "-p", "-i", "-u", "-C", "-r", "-w"]
        if user:
            enter += ["runuser", "-u", user, "--"]
        done = subprocess.run(enter + list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout, input=stdin)
        if check and done.returncode != 0:
            raise AssertionError("%s: status %d\n%s%s" % (" ".join(command), done.returncode, done.stdout, done.stderr))
        return done

    def write(self, path, text):
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")"; cat > "$1"', "write", path, stdin=text)

    def journal(self, *options, output="cat"):
        # What was written before is in it then, also on a machine that is slow.
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "-o", output, *options).stdout

    def wait_for(self, what, condition, timeout=30):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            result = condition()
            if result:
                return result
            time.sleep(0.1)
        raise AssertionError("waited in vain for %s\n%s" % (what, self.journal("-n", "30")))

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            # --kill-child takes process 1 along, and with it the whole pid namespace.
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.log.close()
        for _ in range(50):
            if subprocess.run(["umount", self.dir], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", self.dir])
        os.rmdir(self.dir)


class Stage:
    """The machine that all cases of a test program share, or the reason why there is none: then they are skipped."""

    def __init__(self):
        self.machine = None
        self.reason = None

    def need(self):
        if self.reason:
            raise Skip(self.reason)
        return self.machine

    def run(self, tests, install=None, suite="bookworm"):
        """Makes the machine, has install() boot it unless a case does, and ends the program with the cases."""
        try:
            root = make_root(CACHE, suite)
        except Unavailable as e:
            self.reason = str(e)
            main(tests)
        with tempfile.TemporaryDirectory(dir=CACHE) as disk, Machine(root, disk) as self.machine:
            os.chmod(disk, 0o755)
            try:
                if install:
                    install()
            except Unavailable as e:
                self.reason = str(e)
            main(tests)
