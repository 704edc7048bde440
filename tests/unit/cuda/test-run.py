#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/cuda-run: where tests of GPUs run. The test double takes the place of the machine's driver here, which shows that
tests run on what they find there, ask nothing of it that only the double knows, and count what they skip."""

import os
import re
import subprocess
import sys

BUILD, SOURCE = os.environ["RESIDENTD_BUILD"], os.environ["RESIDENTD_SOURCE"]
RUN = os.path.join(SOURCE, "tests", "cuda-run")
TAP = os.path.join(SOURCE, "tests", "tap")
DOUBLE = os.path.join(BUILD, "tests", "fake-libcuda")
HAS_GPU = os.path.join(BUILD, "tests", "has-gpu")
HAS_KERNELS = os.path.exists(os.path.join(BUILD, "engine", "cuda", "device", "gpu-kernels.so"))
SHOW = ["sh", "-c", 'echo "${LD_LIBRARY_PATH-} ${RESIDENTD_GPU-none}"']


class Skip(Exception):
    pass


def run(command, double="/nowhere", **environment):
    """What the command says, whose double is in @double."""
    e = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "RESIDENTD_GPU")}
    r = subprocess.run([RUN, double, HAS_GPU, *command], env={**e, **environment}, stdout=subprocess.PIPE, text=True,
                       check=False)
    return r.returncode, r.stdout.splitlines()


def the_double_where_it_is_wanted():
    code, said = run(SHOW, double=DOUBLE, RESIDENTD_GPU="0")
    assert (code, said) == (0, [f"{DOUBLE} none"]), said


def the_double_is_no_gpu_of_the_machine():
    code, said = run(SHOW, double=DOUBLE, LD_LIBRARY_PATH=f"{DOUBLE}:/nowhere")
    assert code == 0 and not [line for line in said if "Pretended" in line], said


def the_double_where_there_is_no_kernel_or_gpu():
    code, said = run(SHOW, RESIDENTD_BUILD="/nowhere")
    assert (code, said) == (0, ["# not on a GPU: this build has no kernels for one", "/nowhere none"]), said
    code, said = run(SHOW, LD_LIBRARY_PATH=DOUBLE, FAKE_CUDA_DEVICES="0")
    if HAS_KERNELS:
        assert said == ["# not on a GPU: the NVIDIA driver is installed, but there is no GPU", "/nowhere none"], said


def on_a_gpu(test):
    """Passed and skipped cases of @test on the double as if it were a driver; it knows no way to another one."""
    if not HAS_KERNELS:
        raise Skip
    code, said = run([TAP, os.path.join(BUILD, "tests", "test-" + test)], LD_LIBRARY_PATH=DOUBLE)
    assert code == 0 and said[0] == "# on Pretended GPU 0", said
    assert not [line for line in said if line.startswith("not ok")], said
    cases = [line for line in said if re.match(r"ok \d+ ", line)]
    skipped = [line for line in cases if line.endswith("# SKIP")]
    return len(cases) - len(skipped), len(skipped)


def kernels_run_on_a_gpu():
    assert on_a_gpu("cuda-device-elementwise") == (9, 0)


def the_doubles_own_tests_are_skipped_on_a_gpu():
    assert on_a_gpu("cuda-driver") == (3, 14)


def steps_run_on_a_gpu():
    assert on_a_gpu("cuda-steps") == (12, 1)


def main():
    tests = [the_double_where_it_is_wanted, the_double_is_no_gpu_of_the_machine,
             the_double_where_there_is_no_kernel_or_gpu, kernels_run_on_a_gpu,
             the_doubles_own_tests_are_skipped_on_a_gpu, steps_run_on_a_gpu]
    print(f"1..{len(tests)}", flush=True)
    failed = False
    for i, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {i} - {test.__name__}", flush=True)
        except Skip:
            print(f"ok {i} - {test.__name__} # SKIP no kernels in this build", flush=True)
        except AssertionError as e:
            failed = True
            print(f"not ok {i} - {test.__name__}\n# {str(e).replace(chr(10), chr(10) + '# ')}", flush=True)
    return failed


sys.exit(main())
