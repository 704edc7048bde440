#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compiles the GPU's kernels into one fatbin and wraps it in a shared library, with the name of the build beside it.

usage: build-image.py NVCC SOURCE_ROOT ARCHITECTURES BUILD IMAGE LIBRARY LOG DEPFILE CC...

ARCHITECTURES: "common", whose code runs on nearly all GPUs there are, or "all" from sm_75 on that the toolkit knows.
The source is compiled twice, to PTX for compute_75 and compute_80 (the code differs by what those two have), and
assembled from there for each architecture. The PTX goes into the image as well, for GPUs that are newer than the
toolkit, with the lowest .version that ptxas takes, so that old drivers read it. LOG is what ptxas says of registers and spills (tests/cuda-emulation/ptxas-limits.py).
"""
import concurrent.futures
import os
import re
import subprocess
import sys

COMMON = (75, 80, 89, 90)
VERSIONS = ("6.3", "6.4", "6.5", "7.0", "7.1", "7.2", "7.4", "7.5", "7.6", "7.7", "7.8", "8.0", "8.2", "8.4", "8.7")


def run(*command):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if r.returncode != 0:
        sys.exit(" ".join(command) + "\n" + r.stdout)
    return r.stdout


def architectures(nvcc, which):
    known = [int(m) for m in re.findall(r"^sm_(\d+)$", run(nvcc, "--list-gpu-code"), re.M)]
    known = [sm for sm in known if 75 <= sm <= 121]
    return known if which == "all" else [sm for sm in known if sm in COMMON]


def compile_ptx(nvcc, root, compute, to, depfile, target):
    source = os.path.join(root, "engine/cuda/device/kernels.cu")
    flags = ["-std=c++17", "-O3", "-fmad=false", "-I", root, f"-arch=compute_{compute}"]
    if depfile:
        run(nvcc, *flags, "-MM", "-MT", target, "-MF", depfile, source)
    run(nvcc, *flags, "-ptx", "-o", to, source)


def lower_version(ptxas, compute, path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    # A hint of nvcc's since 8.3, about vector loads whose bytes are not all used: it would keep old drivers out.
    text = re.sub(r'^\s*\.pragma\s+"used_bytes_mask[^\n]*\n', "", text, flags=re.M)
    for version in VERSIONS:
        lowered = re.sub(r"^\.version .*$", f".version {version}", text, count=1, flags=re.M)
        with open(path, "w", encoding="utf-8") as f:
            f.write(lowered)
        # What is too new is found while reading, within a second; only the version that will do is assembled.
        r = subprocess.run([ptxas, f"-arch=sm_{compute}", "-O0", "-o", "/dev/null", path], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, check=False)
        if r.returncode == 0:
            return version
    sys.exit(f"{path}: ptxas takes no .version up to {VERSIONS[-1]}")


def assemble(ptxas, sm, ptx, to):
    return run(ptxas, f"-arch=sm_{sm}", "-O3", "-v", "-o", to, ptx)


def main():
    nvcc, root, which, build, image, library, log, depfile, *cc = sys.argv[1:]
    tools = os.path.dirname(os.path.realpath(nvcc))
    ptxas, fatbinary = os.path.join(tools, "ptxas"), os.path.join(tools, "fatbinary")
    private = os.path.dirname(image) + "/image.p"
    os.makedirs(private, exist_ok=True)
    ptx = {compute: f"{private}/compute_{compute}.ptx" for compute in (75, 80)}
    notes = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda c: compile_ptx(nvcc, root, c, ptx[c], depfile if c == 75 else None, image), ptx))
        versions = list(pool.map(lambda c: lower_version(ptxas, c, ptx[c]), ptx))
        for compute, version in zip(ptx, versions):
            notes.append(f"compute_{compute}: .version {version}\n")
        sms = architectures(nvcc, which)
        cubins = {sm: f"{private}/sm_{sm}.cubin" for sm in sms}
        for sm, said in zip(sms, pool.map(lambda sm: assemble(ptxas, sm, ptx[75 if sm < 80 else 80], cubins[sm]), sms)):
            notes.append(f"== sm_{sm}\n{said}")
    images = [f"--image3=kind=elf,sm={sm},file={cubins[sm]}" for sm in sms]
    images += [f"--image3=kind=ptx,sm={compute},file={path}" for compute, path in ptx.items()]
    run(fatbinary, "--64", "--create", image, "--compress-all", *images)
    with open(log, "w", encoding="utf-8") as f:
        f.writelines(notes)
    assembler = f"{private}/image.s"
    with open(assembler, "w", encoding="utf-8") as f:
        f.write(
            ".section .rodata\n.balign 64\n"
            ".globl launch_image_begin\n.type launch_image_begin, %object\nlaunch_image_begin:\n"
            f'.incbin "{image}"\n'
            ".globl launch_image_end\n.type launch_image_end, %object\nlaunch_image_end:\n.byte 0\n"
            ".globl launch_image_build\n.type launch_image_build, %object\nlaunch_image_build:\n"
            f'.asciz "{build}"\n'
            '.section .note.GNU-stack,"",%progbits\n')
    run(*cc, "-shared", "-nostdlib", "-Wl,-z,noexecstack", f"-Wl,-soname,{os.path.basename(library)}", assembler, "-o", library)


main()
