#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What GPUs could reach at most, from data sheets: bytes and operations per token against memory bandwidth and integer
throughput. Prints the tables of docs/gpu.md. Nothing here is measured.

Decoding reads each weight in VRAM once per token, and keys and values of the context; a launch costs time that no
bandwidth saves. Layers in RAM are read from there at the rate given. Prefill is bound by the tensor cores' int8
products or by the integer multiply-adds with which sub-blocks' sums are scaled, whichever takes longer.
"""

# Name: GB/s, int8 tensor TOPS (dense), multiprocessors, boost GHz, bytes of VRAM. From NVIDIA's data sheets.
GPUS = {
    "RTX 4060 Ti 8 GB": (288, 177, 34, 2.54, 8e9),
    "RTX 4070 SUPER 12 GB": (504, 284, 56, 2.48, 12e9),
    "A100 40 GB": (1555, 624, 108, 1.41, 40e9),
    "H100 SXM 80 GB": (3350, 1979, 132, 1.83, 80e9),
}
BITS = {"q4_k": 4.5, "q6_k": 6.5625, "q5_k": 5.5}
# Multiply-adds of 32 bits per 256 products: of scales (8 or 16 sub-blocks), and what it takes to scale a block.
SCALING = {"q4_k": 8 + 4, "q5_k": 8 + 4, "q6_k": 16 + 16 + 4}
IMAD_PER_CLOCK = 64  # of a multiprocessor
LAUNCH_SECONDS = 2e-6  # assumed, in a captured graph, with the gap between two kernels
LAUNCHES_PER_LAYER = 14
HOST_GBPS = 60  # what the layers in RAM are read with: two channels of DDR5
SHARE = 0.7  # of the bandwidth while decoding; published runs of other programs are at 0.65 to 0.8
SHARE_PREFILL = 0.15  # of the bound; published runs of other programs are at 0.15 to 0.2


class Model:
    def __init__(self, name, layers, dim, ff, kv_dim, vocab):
        self.name, self.layers, self.dim, self.ff, self.kv_dim, self.vocab = name, layers, dim, ff, kv_dim, vocab

    def matrices(self):
        """(values, type) of a layer on average: Q4_K_M has half of V and of the down matrices in Q6_K."""
        d, f, k = self.dim, self.ff, self.kv_dim
        return [(d * d * 2 + d * k + d * k / 2 + 2 * d * f + d * f / 2, "q4_k"), (d * k / 2 + d * f / 2, "q6_k")]

    def layer_bytes(self):
        return sum(n * BITS[t] / 8 for n, t in self.matrices())

    def head_bytes(self):
        return self.dim * self.vocab * BITS["q6_k"] / 8

    def kv_bytes(self, context):
        return 2 * self.kv_dim * 2 * context


M8B = Model("8B Q4_K_M", 32, 4096, 14336, 1024, 128256)
M70B = Model("70B Q4_K_M", 80, 8192, 28672, 1024, 128256)


def decode(model, gpu, context, n_gpu):
    gbps = GPUS[gpu][0]
    layer = model.layer_bytes() + model.kv_bytes(context)
    on_gpu = n_gpu * layer + (model.head_bytes() if n_gpu == model.layers else 0)
    on_host = (model.layers - n_gpu) * layer + (0 if n_gpu == model.layers else model.head_bytes())
    launches = n_gpu * LAUNCHES_PER_LAYER * LAUNCH_SECONDS
    bound = on_gpu / gbps / 1e9 + on_host / HOST_GBPS / 1e9
    real = on_gpu / (gbps * SHARE) / 1e9 + on_host / (HOST_GBPS * SHARE) / 1e9 + launches
    return 1 / bound, 1 / real


def prefill(model, gpu):
    _, tops, sms, ghz, _ = GPUS[gpu]
    products = model.layers * sum(n for n, _ in model.matrices())
    scaling = model.layers * sum(n / 256 * SCALING[t] for n, t in model.matrices())
    tensor = 2 * products / tops / 1e12
    integer = scaling / (sms * IMAD_PER_CLOCK * ghz * 1e9)
    return 1 / tensor, 1 / integer


def layers_that_fit(model, gpu, context):
    room = GPUS[gpu][4] * 0.92 - 0.6e9  # driver, context, scratch
    n = int(room // (model.layer_bytes() + model.kv_bytes(context)))
    if n >= model.layers and room >= model.layers * (model.layer_bytes() + model.kv_bytes(context)) + model.head_bytes():
        return model.layers
    return min(n, model.layers - 1)


def main():
    print(f"Bytes of a layer, of the head, of 4096 keys and values in F16 of a layer: "
          + "; ".join(f"{m.name}: {m.layer_bytes() / 1e6:.1f} MB, {m.head_bytes() / 1e6:.0f} MB, {m.kv_bytes(4096) / 1e6:.1f} MB"
                      for m in (M8B, M70B)))
    for model in (M8B, M70B):
        print(f"\n| {model.name}, decode | layers on the GPU | bound, context 0 | × {SHARE} and launches | bound, 4096 | "
              f"× {SHARE} and launches |")
        print("|---|---|---|---|---|---|")
        for gpu in GPUS:
            n = layers_that_fit(model, gpu, 4096)
            cells = [f"{x:.1f}" for c in (0, 4096) for x in decode(model, gpu, c, n)]
            print(f"| {gpu} | {n} of {model.layers} | " + " | ".join(cells) + " |")
    print(f"\n| {M8B.name}, prefill | bound by tensor cores | bound by scaling of sums | × {SHARE_PREFILL} of the lower |")
    print("|---|---|---|---|")
    for gpu in GPUS:
        tensor, integer = prefill(M8B, gpu)
        print(f"| {gpu} | {tensor:.0f} | {integer:.0f} | {SHARE_PREFILL * min(tensor, integer):.0f} |")


main()
