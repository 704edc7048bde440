#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures resident-engine beside other engines on the same files, and writes docs/performance.md's tables and plot.

A peer is a folder or a path of its llama-bench (its JSON output is read); llama-batched-bench beside it gives several
sequences at once, llama-sweep-bench, where there is one, prefill behind a long context. Machines drift from minute to minute, so the engines take turns, run by run, and only medians and ratios
are written. Nothing else should run meanwhile.

    bench/compare.py --engine build/engine/tool/resident-engine --peer llama.cpp=PATH/llama-bench \\
        --cases decode,prefill,users8 --rounds 5 MODEL.gguf...
    bench/compare.py --page docs/performance.md --results results.json     only write the page again

Results are kept in --results (JSON) after each run; cases measured again replace the old ones, others stay.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

OURS = "residentd"
CASES = {  # name: (title, unit, more is better)
    "decode": ("decode, 1 sequence", "tokens/s", True),
    "prefill": ("prefill", "tokens/s", True),
    "users2": ("decode, 2 sequences", "tokens/s", True),
    "users4": ("decode, 4 sequences", "tokens/s", True),
    "users8": ("decode, 8 sequences", "tokens/s", True),
    "depth": ("prefill behind a long context", "tokens/s", True),
    "depth-q8_0": ("the same, KV cache in Q8_0", "tokens/s", True),
    "start": ("start to first token", "s", False),
}
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class Failed(Exception):
    """A run that gave no number; the message says why."""


def run(command, timeout, environment):
    started = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, text=True,
                              env={**os.environ, **environment})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode != 0:
        raise Failed(f"{command[0]} exits with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout, done.stderr, time.monotonic() - started


class Resident:
    """resident-engine bench."""

    def __init__(self, path, args):
        self.path, self.args = path, args

    def bench(self, model, *options):
        command = [self.path, "bench", "-t", str(self.args.threads), "-r", "1", *options, model]
        text, _, _ = run(command, self.args.timeout, {"RESIDENT_ISA": self.args.isa} if self.args.isa else {})
        return json.loads(text.strip().splitlines()[-1])

    def measure(self, case, model):
        a = self.args
        if case == "start":
            return run([self.path, "generate", "--threads", str(a.threads), "--ids", "1", "-n", "1", model], a.timeout, {})[2]
        if case == "prefill":
            return self.bench(model, "-p", str(a.prompt), "-n", "0")["prefill_tps"]
        if case.startswith("depth"):
            cache = ["--k-type", "q8_0", "--v-type", "q8_0"] if case == "depth-q8_0" else []
            return self.bench(model, "-p", str(a.prompt), "-n", "0", "-d", str(a.depth), *cache)["prefill_tps"]
        users = case[len("users"):] if case.startswith("users") else "1"
        return self.bench(model, "-p", "0", "-n", str(a.decode), "-b", users)["decode_tps"]

    def facts(self, model):
        """What only our own bench tells, from one run with everything in it."""
        return self.bench(model, "-p", str(self.args.prompt), "-n", "16")


class Peer:
    """A llama-bench, and the llama-batched-bench beside it."""

    def __init__(self, path, args):
        self.path = os.path.join(path, "llama-bench") if os.path.isdir(path) else path
        self.batched = os.path.join(os.path.dirname(self.path), "llama-batched-bench")
        self.sweep = os.path.join(os.path.dirname(self.path), "llama-sweep-bench")
        self.args = args

    def measure_sweep(self, case, model):
        """Where llama-bench knows no depth: a prompt in pieces, the last of which lies behind the others."""
        a = self.args
        cache = ["-ctk", "q8_0", "-ctv", "q8_0"] if case == "depth-q8_0" else []
        text, log, _ = run([self.sweep, "-m", model, "-t", str(a.threads), "-c", str(a.depth + a.prompt), "-b", str(a.prompt),
                            "-ub", str(a.prompt), "-n", "1", "-fa", "on", *cache], a.timeout, {})
        rows = [line.split("|") for line in (text + log).splitlines() if re.match(r"\|\s*\d+ \|", line)]
        if not rows or int(rows[-1][3]) < a.depth - a.prompt:
            raise Failed("no row of that depth in the output of " + self.sweep)
        return float(rows[-1][5])

    def bench(self, model, *options):
        command = [self.path, "-m", model, "-t", str(self.args.threads), "-o", "json", *options]
        return run(command, self.args.timeout, {})

    def measure(self, case, model):
        a = self.args
        if case.startswith("users"):
            n = int(case[len("users"):])
            command = [self.batched, "-m", model, "-t", str(a.threads), "-c", str(n * (a.decode + 16)), "-npp", "8",
                       "-ntg", str(a.decode), "-npl", str(n)]
            text, log, _ = run(command, a.timeout, {})  # some print the table as a log
            rows = [line.split("|") for line in (text + log).splitlines() if re.match(r"\|\s*\d+ \|", line)]
            if not rows:
                raise Failed("no row in the output of " + self.batched)
            return float(rows[-1][8])
        if case == "start":
            return self.bench(model, "-p", "1", "-n", "0", "-r", "1", *a.peer_cold.split())[2]
        if case.startswith("depth") and os.path.exists(self.sweep):
            return self.measure_sweep(case, model)
        depth = ["-p", str(a.prompt), "-n", "0", "-d", str(a.depth), "-fa", "1"]
        options = {"decode": ["-p", "0", "-n", str(a.decode)],
                   "prefill": ["-p", str(a.prompt), "-n", "0"],
                   "depth": depth,
                   "depth-q8_0": [*depth, "-ctk", "q8_0", "-ctv", "q8_0"]}[case]
        text, _, _ = self.bench(model, "-r", "1", *options)
        return float(json.loads(text[text.index("["):])[0]["avg_ts"])


def machine():
    def first(pattern, path):
        with open(path, encoding="utf-8", errors="replace") as f:
            found = re.search(pattern, f.read(), re.M)
        return found.group(1).strip() if found else "?"

    flags = first(r"^flags\s*:(.*)$", "/proc/cpuinfo").split()
    known = [f for f in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags]
    memory = int(first(r"^MemTotal:\s*(\d+)", "/proc/meminfo")) / (1 << 20)
    caches = first(r"^cache size\s*:(.*)$", "/proc/cpuinfo")
    try:
        huge = first(r"\[(\w+)\]", "/sys/kernel/mm/transparent_hugepage/enabled")
    except OSError:
        huge = "none"
    cpu = {key: first(rf"^{key}\s*:(.*)$", "/proc/cpuinfo") for key in ("model name", "cpu family", "model")}
    return (f"{cpu['model name']} (family {cpu['cpu family']}, model {cpu['model']}), {len(os.sched_getaffinity(0))} CPUs, "
            f"{caches} cache, {memory:.0f} GiB of memory, {' '.join(known)}; Linux {os.uname().release}, "
            f"transparent huge pages: {huge}")


def measure(args, results):
    engines = {OURS: Resident(args.engine, args)}
    for peer in args.peer:
        name, _, path = peer.partition("=")
        if not path:
            sys.exit(f"--peer {peer}: expected NAME=PATH")
        engines[name] = Peer(path, args)
    results["machine"] = machine()
    for model in args.models:
        of_model = results.setdefault("models", {}).setdefault(os.path.basename(model), {})
        for case in args.cases.split(","):
            values = {name: [] for name in engines}
            for _ in range(args.rounds):
                for name, engine in engines.items():
                    try:
                        values[name].append(engine.measure(case, model))
                    except Failed as error:
                        print(f"{model} {case} {name}: {error}", file=sys.stderr)
            of_model[case] = {name: v for name, v in values.items() if v}
            print(os.path.basename(model), case, {n: [round(x, 2) for x in v] for n, v in values.items()}, flush=True)
            save(args, results)
        if args.facts:
            try:
                of_model["facts"] = engines[OURS].facts(model)
            except Failed as error:
                print(f"{model}: {error}", file=sys.stderr)
            save(args, results)


def save(args, results):
    with open(args.results, "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
        f.write("\n")


def ratios(results):
    """(model, case, medians by engine, ratio to the best peer: above 1 is ahead)"""
    for model, cases in results.get("models", {}).items():
        for case in CASES:
            medians = {name: statistics.median(v) for name, v in cases.get(case, {}).items()}
            peers = [v for name, v in medians.items() if name != OURS]
            if OURS not in medians:
                continue
            if CASES[case][2]:
                ratio = medians[OURS] / max(peers) if peers else None
            else:
                ratio = min(peers) / medians[OURS] if peers else None
            yield model, case, medians, ratio


def number(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(results):
    rows = list(ratios(results))
    peers = sorted({name for _, _, medians, _ in rows for name in medians if name != OURS})
    lines = [f"Machine: {results['machine']}.", "",
             "| model | case | unit | " + " | ".join([OURS, *peers]) + " | to the best peer |",
             "|---|---|---|" + "---|" * (len(peers) + 2)]
    for model, case, medians, ratio in rows:
        cells = [number(medians[n]) if n in medians else "–" for n in [OURS, *peers]]
        title, unit, _ = CASES[case]
        lines.append(f"| {model} | {title} | {unit} | " + " | ".join(cells) + f" | {f'{ratio:.2f} ×' if ratio else '–'} |")
    facts = [(m, c["facts"]) for m, c in results["models"].items() if "facts" in c]
    if facts:
        lines += ["", "| model | kernels | bytes a token | of the read bandwidth | in 2 MiB pages | own memory beside KV |",
                  "|---|---|---|---|---|---|"]
    for model, f in facts:
        own = f"{max(0, f['anonymous_bytes'] - f['kv_bytes']) / 1e6:.0f} MB" if "anonymous_bytes" in f else "?"
        lines.append(f"| {model} | {f['isa']} | {f['bytes_per_token'] / 1e9:.2f} GB | {f['bandwidth_fraction']:.0%} "
                     f"| {f.get('huge_page_fraction', 0):.0%} | {own} |")
    return "\n".join(lines)


def plot(results):
    """Bars of the ratios to the best peer, as SVG."""
    rows = [r for r in ratios(results) if r[3]]
    left, step, width = 330, 20, 380
    most = max([2.0, *(r[3] for r in rows)])
    height = step * len(rows) + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{height}" '
           'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{left}" y="16">speed relative to the best peer (1 is equal, more is faster)</text>']
    for i, (model, case, _, ratio) in enumerate(rows):
        y = 28 + i * step
        colour = "#2a7f62" if ratio >= 1 else "#b5483a"
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{model.removesuffix(".gguf")}: {CASES[case][0]}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{ratio / most * width:.1f}" height="{step - 5}" fill="{colour}"/>')
        out.append(f'<text x="{left + ratio / most * width + 5:.1f}" y="{y + 12}">{ratio:.2f}</text>')
    x = left + width / most
    out.append(f'<line x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{height - 16}" stroke="black" stroke-dasharray="3 3"/>')
    return "\n".join([*out, "</svg>", ""])


def write_page(path, results):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if BEGIN not in text or END not in text:
        sys.exit(f"{path}: the lines {BEGIN} and {END} are missing")
    picture = os.path.splitext(path)[0] + ".svg"
    body = f"{BEGIN}\n{table(results)}\n\n![ratios]({os.path.basename(picture)})\n{END}"
    with open(path, "w", encoding="utf-8") as f:
        f.write(text[:text.index(BEGIN)] + body + text[text.index(END) + len(END):])
    with open(picture, "w", encoding="utf-8") as f:
        f.write(plot(results))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="*", help="GGUF files; none: measure nothing")
    p.add_argument("--engine", default="build/engine/tool/resident-engine")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="a llama-bench (may repeat)")
    p.add_argument("--peer-cold", default="", help="options that keep a peer from warming up, for the start case")
    p.add_argument("--cases", default="decode,prefill", help="of " + ",".join(CASES))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--isa", help="RESIDENT_ISA for ours")
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--depth", type=int, default=8192 - 512)
    p.add_argument("--timeout", type=float, default=600)
    p.add_argument("--facts", action="store_true", help="also note what resident-engine bench tells about memory")
    p.add_argument("--results", default="bench-results.json")
    p.add_argument("--page", help="rewrite the measured part of this page, and the plot beside it")
    args = p.parse_args()
    unknown = set(args.cases.split(",")) - set(CASES)
    if unknown:
        p.error("no such case: " + ", ".join(sorted(unknown)))
    results = {}
    if os.path.exists(args.results):
        with open(args.results, encoding="utf-8") as f:
            results = json.load(f)
    if args.models:
        measure(args, results)
    if args.page:
        write_page(args.page, results)


if __name__ == "__main__":
    main()
