#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# bench/gpu.sh [-p PROMPT] [-n TOKENS] [-d "DEPTH..."] [-b "SEQUENCES..."] [-r REPEATS] BUILD MODEL.gguf...
#
# What a machine with an NVIDIA GPU makes of models, to be put beside the predictions in docs/gpu.md: reading a prompt and
# writing, with no layer, half of them and all on the GPU, alone and with eight sequences, at an empty context and behind
# 4096 tokens. One JSON object a line. Nothing else should use the GPU; the first line says what it is and does.
set -eu

usage() {
    echo 'usage: bench/gpu.sh [-p PROMPT] [-n TOKENS] [-d "DEPTH..."] [-b "SEQUENCES..."] [-r REPEATS] BUILD MODEL.gguf...' >&2
    exit 2
}

prompt=512 tokens=128 depths="0 4096" sequences="1 8" repeats=3
while getopts p:n:d:b:r: option; do
    case $option in
    p) prompt=$OPTARG ;;
    n) tokens=$OPTARG ;;
    d) depths=$OPTARG ;;
    b) sequences=$OPTARG ;;
    r) repeats=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || usage
engine=$1/engine/tool/resident-engine
shift
[ -x "$engine" ] || { echo "bench/gpu.sh: $engine is not there: build it first" >&2; exit 2; }

command -v nvidia-smi >/dev/null || { echo "bench/gpu.sh: there is no nvidia-smi, so no NVIDIA driver" >&2; exit 1; }
nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,temperature.gpu,clocks.sm,clocks.mem,power.limit \
    --format=csv,noheader | sed 's/"/\\"/g; s/.*/{"gpu": "&"}/'

for model in "$@"; do
    layers=$("$engine" info "$model" | sed -n 's/^runs:.* \([0-9]*\) layers,.*/\1/p')
    [ "$layers" ] || { echo "bench/gpu.sh: $model: how many layers it has is not said" >&2; exit 1; }
    for n in 0 $((layers / 2)) all; do
        for users in $sequences; do
            for depth in $depths; do
                result=$("$engine" bench "$model" --gpu-layers "$n" -p "$prompt" -n "$tokens" -b "$users" -d "$depth" \
                    -r "$repeats")
                printf '{"gpu_layers": "%s", "sequences": %s, "depth": %s, "result": %s}\n' "$n" "$users" "$depth" "$result"
            done
        done
    done
done
