#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a plan says of memory beside what the kernel says that a worker has had at most: real workers whose sequences are
filled to the end of their context."""

import os
import re
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, REAL_WORKER, Daemon, main, need_locking, open_proc  # noqa: E402

MAKE_MODEL = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
MIB = 1 << 20
CONTEXT, SEQUENCES = 1024, 2
# Much KV cache for little to compute.
MODEL_ARGUMENTS = ["--layers", "8", "--dim", "256", "--ff", "256", "--heads", "8", "--kv-heads", "8", "--head-dim", "256",
                   "--vocab", "512", "--context", str(CONTEXT), "--type", "q8_0"]


def figures(pid):
    """Bytes by name: of what the kernel says of a process, VmHWM (most that was ever resident), RssAnon, RssFile …"""
    with open_proc(pid, "status") as f:
        return {name: int(n) * 1024 for name, n in re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.M)}


def fill(d, n):
    """Each of the sequences to its last token, at the same time."""
    def ask(i):
        with d.client() as c:
            tokens = [5 + (7 * k + 3 * i) % 500 for k in range(n)]
            last = list(c.stream("Inference.Complete", model="m", prompt_tokens=tokens, max_tokens=CONTEXT - n,
                                 temperature=0))[-1]
            done.append(last["usage"]["prompt_tokens"] + last["usage"]["output_tokens"])
    done = []
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(SEQUENCES)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return done


def a_worker_has_what_was_planned(ram, kv_type):
    entry = {"path": "@DIR@/m.gguf", "residency": {"ram": ram},
             "context": {"tokens": CONTEXT, "sequences": SEQUENCES, "k": kv_type, "v": kv_type}}
    with Daemon({"models": {"m": entry}}, worker=REAL_WORKER) as d, d.client() as c:
        path = os.path.join(d.dir, "m.gguf")
        subprocess.run([MAKE_MODEL, path, *MODEL_ARGUMENTS], check=True)
        os.chmod(path, 0o644)
        if ram != "map":
            need_locking(2 * os.path.getsize(path))
        plan = c.call("Models.Plan", model="m")["plan"]
        planned = plan["kv_ram_bytes"] + plan["scratch_ram_bytes"]
        c.call("Models.Load", model="m")
        pid = d.status()["worker_pid"]
        # What is mapped is there before it is ready, so it was there at the peak, too.
        assert fill(d, CONTEXT - 8) == [CONTEXT] * SEQUENCES
        after = figures(pid)
        peak = after["VmHWM"] - after["RssFile"] - after["RssShmem"]
        print(f"# {ram}, {kv_type}: {planned} planned, {peak} at most", flush=True)
        assert planned >= peak >= 0.95 * planned, (plan, peak, after)
        # The daemon believes what its worker says.
        used = c.call("Models.Status")["ram"]["used_bytes"]
        weights = 0 if ram == "map" else os.path.getsize(path)
        assert peak + weights <= used <= planned + weights, (used, peak, weights, planned)


def in_a_file_that_is_mapped():
    a_worker_has_what_was_planned("map", "f16")


def in_a_file_that_is_locked():
    a_worker_has_what_was_planned("lock", "f32")


def in_a_copy():
    a_worker_has_what_was_planned("copy", "q8_0")


if __name__ == "__main__":
    main([
        in_a_file_that_is_mapped,
        in_a_file_that_is_locked,
        in_a_copy,
    ])
