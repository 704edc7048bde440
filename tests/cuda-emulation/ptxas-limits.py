#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ptxas says of every kernel: no spills, and registers and shared memory within limits, so that as many warps are
resident as docs/gpu.md counts on.

usage: ptxas-limits.py LOG     LOG: of engine/cuda/device/build-image.py, or "-" where there is none
       ptxas-limits.py --table LOG     for docs/gpu.md
"""
import re
import sys

THREADS = {"attention": 128, "attention_merge": 128, "embed": 64, "pack": 128, "rope_write": 64, "route": 32}
# What a multiprocessor has: registers, shared memory, threads, blocks.
SMS = {80: (65536, 163840, 2048, 32), 89: (65536, 101376, 1536, 24), 90: (65536, 232448, 2048, 32)}
# Kernel: registers, warps that have to be resident on a multiprocessor of each architecture.
LIMITS = {"tiles": (168, 8), "few": (64, 24), "floats": (80, 24), "embed": (168, 8), "attention": (128, 12), None: (64, 24)}


def threads(kernel):
    return 128 if kernel.startswith("linear_") else THREADS.get(kernel, 256)


def kind(kernel):
    if kernel.endswith("_tiles"):
        return "tiles"
    if kernel in ("linear_f32", "linear_f16", "linear_bf16"):
        return "floats"
    if kernel.startswith("linear_"):
        return "few"
    return kernel if kernel in LIMITS else None


def resident_warps(sm, kernel, registers, shared):
    n_registers, n_shared, n_threads, n_blocks = SMS[sm]
    warps = threads(kernel) // 32
    per_warp = (registers * 32 + 255) // 256 * 256
    blocks = min(n_blocks, n_threads // threads(kernel), n_registers // (per_warp * warps), n_shared // (shared + 1024))
    return blocks * warps


def read(path):
    found, sm, kernel, spills = [], 0, "", 0
    for line in open(path, encoding="utf-8"):
        if m := re.match(r"== sm_(\d+)", line):
            sm = int(m[1])
        elif m := re.search(r"Compiling entry function 'kernel_(\w+)'", line):
            kernel = m[1]
        elif m := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spills = int(m[1]) + int(m[2])
        elif m := re.search(r"Used (\d+) registers", line):
            smem = re.search(r"(\d+) bytes smem", line)
            found.append((sm, kernel, int(m[1]), int(smem[1]) if smem else 0, spills))
    return found


def table(path):
    rows = {}
    for sm, kernel, registers, shared, _ in read(path):
        if sm in SMS:
            rows.setdefault(kernel, {})[sm] = (registers, shared, resident_warps(sm, kernel, registers, shared))
    print("| kernel | shared | " + " | ".join(f"sm_{sm}: registers, warps" for sm in SMS) + " |")
    print("| --- | --- |" + " --- |" * len(SMS))
    for kernel in sorted(rows):
        cells = [f"{rows[kernel][sm][0]}, {rows[kernel][sm][2]}" for sm in SMS]
        print(f"| {kernel} | {rows[kernel][80][1]} | " + " | ".join(cells) + " |")


def main():
    if sys.argv[1] == "--table":
        table(sys.argv[2])
        return 0
    print("1..2")
    if sys.argv[1] == "-":
        print("ok 1 - no kernel spills registers # SKIP built without nvcc")
        print("ok 2 - registers and residency # SKIP built without nvcc")
        return 0
    found = read(sys.argv[1])
    bad = [f"# sm_{sm}: {k} spills {s} bytes" for sm, k, _, _, s in found if s]
    if len(found) < 3 * 60:
        bad.append(f"# only {len(found)} kernels in {sys.argv[1]}")
    print("not ok" if bad else "ok", "1 - no kernel spills registers")
    print("\n".join(bad))
    over = []
    for sm, kernel, registers, shared, _ in found:
        limit, warps_min = LIMITS[kind(kernel)]
        warps = resident_warps(sm, kernel, registers, shared) if sm in SMS else warps_min
        if registers > limit or shared > 49152 or warps < warps_min:
            over.append(f"# sm_{sm}: {kernel} has {registers} registers, {shared} bytes shared, {warps} warps resident")
    print("not ok" if over else "ok", "2 - registers and residency")
    print("\n".join(over))
    return 1 if bad or over else 0


sys.exit(main())
