#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bench/gpu.sh from its first line to its last, on the test double of libcuda and with an nvidia-smi that pretends. What
it measures here means nothing; that every line is there, and of what it says, is shown."""

import json
import os
import subprocess
import sys
import tempfile

BUILD, SOURCE = os.environ["RESIDENTD_BUILD"], os.environ["RESIDENTD_SOURCE"]
SCRIPT = os.path.join(SOURCE, "bench", "gpu.sh")
DOUBLE = os.path.join(BUILD, "tests", "fake-libcuda")
HAS_KERNELS = os.path.exists(os.path.join(BUILD, "engine", "cuda", "device", "gpu-kernels.so"))
N_LAYERS = 2


def environment(folder, **more):
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LD_LIBRARY_PATH": DOUBLE, **more}


def run(folder, *arguments, **more):
    return subprocess.run([SCRIPT, *arguments], env=environment(folder, **more), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)


def make(folder):
    with open(os.path.join(folder, "nvidia-smi"), "w", encoding="utf-8") as f:
        f.write('#!/bin/sh\necho \'Pretended "GPU", 550.1, 8192 MiB\'\n')
    os.chmod(os.path.join(folder, "nvidia-smi"), 0o755)
    model = os.path.join(folder, "m.gguf")
    subprocess.run([os.path.join(BUILD, "tests", "model-writer", "make-test-model"), model, "--layers", str(N_LAYERS),
                    "--dim", "128", "--ff", "256", "--heads", "4", "--kv-heads", "4", "--vocab", "512", "--context", "128",
                    "--type", "q8_0"], check=True)
    return model


def measures(folder, model):
    r = run(folder, "-p", "8", "-n", "4", "-d", "0 20", "-b", "1 2", "-r", "1", BUILD, model)
    wanted = ("0", "1", "all")
    if HAS_KERNELS:
        assert r.returncode == 0, r.stderr
    else:  # A number of layers is got or refused.
        assert r.returncode != 0 and "kernels" in r.stderr, r
        wanted = ("0",)
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    assert lines[0] == {"gpu": 'Pretended "GPU", 550.1, 8192 MiB'}, lines[0]
    said = [(x["gpu_layers"], x["sequences"], x["depth"]) for x in lines[1:]]
    assert said == [(n, b, d) for n in wanted for b in (1, 2) for d in (0, 20)], said
    for x in lines[1:]:
        result = x["result"]
        assert (result["users"], result["depth"]) == (x["sequences"], x["depth"]), x
        assert result["prefill_tps"] > 0 and result["decode_tps"] > 0, x
        assert result.get("gpu_layers", 0) == {"0": 0, "1": 1, "all": N_LAYERS}[x["gpu_layers"]], x
        assert "gpu_reason" not in result, x


def says_what_is_missing(folder, model):
    r = run(folder, BUILD)
    assert (r.returncode, r.stdout) == (2, "") and r.stderr.startswith("usage: "), r
    r = run(folder, "-x", BUILD, model)
    assert r.returncode == 2 and "usage: " in r.stderr, r
    r = run(folder, folder, model)
    assert r.returncode == 2 and "build it first" in r.stderr, r
    r = run(folder, BUILD, os.path.join(folder, "nvidia-smi"))
    assert r.returncode != 0 and r.stderr, r


def main():
    tests = [measures, says_what_is_missing]
    print(f"1..{len(tests)}", flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        model = make(folder)
        for i, test in enumerate(tests, 1):
            try:
                test(folder, model)
                print(f"ok {i} - {test.__name__}", flush=True)
            except AssertionError as e:
                failed = True
                print(f"not ok {i} - {test.__name__}\n# {str(e).replace(chr(10), chr(10) + '# ')}", flush=True)
    return failed


sys.exit(main())
