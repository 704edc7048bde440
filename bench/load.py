#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast the service loads a model from a cold cache, beside dd on the same file, in turns.

    bench/load.py [--build build] [--rounds 3] MODEL.gguf        as root, to lock memory; nothing else should run

A load's time is that of `residentctl load`: measuring, reading, locking, verifying, and the worker's start. dd reads
into /dev/null with the same block size, past the page cache and through it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

BLOCK = "16M"  # READIN_BLOCK_BYTES


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def dd(path, *flags):
    start = time.monotonic()
    subprocess.run(["dd", "if=" + path, "of=/dev/null", "bs=" + BLOCK, *flags], check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def load(build, path, residency, sha256=None):
    """Seconds of a load by a fresh daemon, and what it said of the pages."""
    with tempfile.TemporaryDirectory() as folder:
        policy = os.path.join(folder, "policy.json")
        socket = os.path.join(folder, "s")
        model = {"path": path, "residency": {"ram": residency, "when": "on-demand"}, "context": {"tokens": 512}}
        if sha256:
            model["sha256"] = sha256
        with open(policy, "w") as f:
            json.dump({"models": {"m": model}}, f)
        with open(os.path.join(folder, "log"), "w+") as log:
            daemon = subprocess.Popen(
                [build + "/daemon/residentd", "--policy", policy, "--socket", socket, "--state", folder,
                 "--worker", build + "/engine/worker/resident-worker"], stderr=log)
            try:
                while not os.path.exists(socket):
                    time.sleep(0.01)
                    if daemon.poll() is not None:
                        break
                time.sleep(0.2)
                start = time.monotonic()
                subprocess.run([build + "/client/residentctl/residentctl", "--socket", socket, "load", "m"],
                               check=True, stdout=subprocess.DEVNULL)
                seconds = time.monotonic() - start
            finally:
                daemon.terminate()
                daemon.wait()
            log.seek(0)
            said = re.search(r"ready, (.*?) model=", log.read())
    return seconds, said.group(1) if said else "?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    path = os.path.abspath(args.model)
    size = os.path.getsize(path)
    sha256 = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]
    cases = {
        "dd, O_DIRECT": lambda: (dd(path, "iflag=direct"), ""),
        "dd": lambda: (dd(path), ""),
        "lock": lambda: load(args.build, path, "lock"),
        "copy": lambda: load(args.build, path, "copy"),
        "lock, sha256": lambda: load(args.build, path, "lock", sha256),
        "copy, sha256": lambda: load(args.build, path, "copy", sha256),
    }
    times = {name: [] for name in cases}
    for _ in range(args.rounds):
        for name, run in cases.items():
            drop(path)
            seconds, said = run()
            times[name].append(seconds)
            print(f"# {name}: {seconds:.2f} s, {size / seconds / 1e9:.2f} GB/s {said}", file=sys.stderr, flush=True)
    best_dd = min(statistics.median(times["dd"]), statistics.median(times["dd, O_DIRECT"]))
    print(f"| {size / 1e9:.2f} GB | median s | GB/s | times the faster dd |\n|---|---|---|---|")
    for name, all_s in times.items():
        s = statistics.median(all_s)
        print(f"| {name} | {s:.2f} | {size / s / 1e9:.2f} | {best_dd / s:.2f} |")


if __name__ == "__main__":
    main()
