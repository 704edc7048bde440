#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# bench/gpu.sh BUILD MODEL.gguf...
#
# What a machine with an NVIDIA GPU makes of models, to be put beside the predictions in docs/gpu.md: reading a prompt and
# writing, with no layer, half of them and all on the GPU, alone and with eight sequences, at an empty context and behind
# 4096 tokens. One JSON object a line. Nothing else should use the GPU; the first line says what it is and does.
set -eu

usage() {
    echo "usage: bench/gpu.sh BUILD MODEL.gguf..." >&2
    exit 2
}

[ $# -ge 2 ] || usage
engine=$1/engine/tool/resident-engine
shift
[ -x "$engine" ] || { echo "bench/gpu.sh: $engine is not there: build it first" >&2; exit 2; }

command -v nvidia-smi >/dev/null || { echo "bench/gpu.sh: there is no nvidia-smi, so no NVIDIA driver" >&2; exit 1; }
nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,temperature.gpu,clocks.sm,clocks.mem,power.limit \
    --format=csv,noheader | sed 's/"/\\"/g; s/.*/{"gpu": "&"}/'

for model in "$@"; do
    layers=$("$engine" info "$model" | sed -n 's/^runs:.* \([0-9]*\) layers,.*/\1/p')
    for n in 0 $((${layers:-0} / 2)) all; do
        for users in 1 8; do
            for depth in 0 4096; do
                printf '{"gpu_layers": "%s", "sequences": %s, "depth": %s, "result": ' "$n" "$users" "$depth"
                "$engine" bench "$model" --gpu-layers "$n" -p 512 -n 128 -b "$users" -d "$depth" -r 3 | tr '\n' ' '
                echo '}'
            done
        done
    done
done
