#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bench/compare.py on engines that only print: medians, ratios, the order of runs, failures, and what the page gets."""

import json
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("RESIDENTD_SOURCE", os.path.join(os.path.dirname(__file__), "..", "..", ".."))
COMPARE = os.path.join(SOURCE, "bench", "compare.py")

ENGINE = """#!/bin/sh
echo ours >> {log}
case "$*" in *"-n 0"*) echo '{{"prefill_tps": 30.0, "decode_tps": 0}}' ;;
*) n=$(grep -c ours {log}); echo "{{\\"decode_tps\\": $((n * 10)).0}}" ;; esac
"""
PEER = """#!/bin/sh
echo peer >> {log}
case "$*" in *"-n 0"*) exit 3 ;; esac
echo 'noise before'; echo '[{{"avg_ts": 8.0}}]'
"""


def script(folder, name, text, log):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.format(log=log))
    os.chmod(path, 0o755)
    return path


def main():
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        log, page, results = (os.path.join(folder, n) for n in ("log", "page.md", "results.json"))
        with open(page, "w", encoding="utf-8") as f:
            f.write("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
        command = [sys.executable, COMPARE, "--engine", script(folder, "engine", ENGINE, log), "--peer",
                   "other=" + script(folder, "llama-bench", PEER, log), "--rounds", "3", "--results", results, "--page", page,
                   "--threads", "2"]
        done = subprocess.run([*command, "--cases", "decode,prefill", "m.gguf"], capture_output=True, text=True, check=False)
        checks.append(("it ends well, though a peer fails", done.returncode == 0 and "exits with 3" in done.stderr))
        with open(log, encoding="utf-8") as f:
            checks.append(("runs alternate", f.read().split() == ["ours", "peer"] * 6))
        with open(results, encoding="utf-8") as f:
            kept = json.load(f)["models"]["m.gguf"]
        checks.append(("all runs are kept", kept["decode"] == {"residentd": [10.0, 20.0, 30.0], "other": [8.0] * 3}))
        with open(page, encoding="utf-8") as f:
            text = f.read()
        checks.append(("median and ratio", "| m.gguf | decode, 1 sequence | tokens/s | 20 | 8 | 2.50 × |" in text))
        checks.append(("no ratio without a peer", "| m.gguf | prefill | tokens/s | 30 | – | – |" in text))
        checks.append(("the rest of the page stays", text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text))
        with open(os.path.join(folder, "page.svg"), encoding="utf-8") as f:
            checks.append(("the plot has the ratio", ">2.50</text>" in f.read()))
        done = subprocess.run([*command, "--cases", "nothing", "m.gguf"], capture_output=True, text=True, check=False)
        checks.append(("an unknown case is named", done.returncode == 2 and "no such case: nothing" in done.stderr))
    print(f"1..{len(checks)}")
    for i, (name, good) in enumerate(checks):
        print(f"{'ok' if good else 'not ok'} {i + 1} - {name}")
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
