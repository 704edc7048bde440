"""The forward pass of the primer in PyTorch, as the `llama` architecture of GGUF defines it, and fresh weights.

Used by train.py; the shape comes from export.py. RoPE turns the pairs (2i, 2i+1), so the weights go into the
GGUF file as they are. Float32 throughout: CPUs without AVX-512 have nothing faster.
"""

import torch
import torch.nn.functional as F


def new_weights(shape, seed):
    """Fresh weights by their GGUF names; matrices are (out, in)."""
    gen = torch.Generator().manual_seed(seed)
    dim, kv = shape["dim"], shape["kv_heads"] * shape["head"]

    def matrix(rows, cols):
        return torch.randn(rows, cols, generator=gen) * 0.5 * cols ** -0.5

    weights = {"token_embd.weight": torch.randn(shape["vocab"], dim, generator=gen) * 0.02,
               "output_norm.weight": torch.ones(dim)}
    for i in range(shape["layers"]):
        weights.update({
            f"blk.{i}.attn_norm.weight": torch.ones(dim),
            f"blk.{i}.attn_q.weight": matrix(shape["heads"] * shape["head"], dim),
            f"blk.{i}.attn_k.weight": matrix(kv, dim),
            f"blk.{i}.attn_v.weight": matrix(kv, dim),
            f"blk.{i}.attn_output.weight": torch.zeros(dim, shape["heads"] * shape["head"]),
            f"blk.{i}.ffn_norm.weight": torch.ones(dim),
            f"blk.{i}.ffn_gate.weight": matrix(shape["ff"], dim),
            f"blk.{i}.ffn_up.weight": matrix(shape["ff"], dim),
            f"blk.{i}.ffn_down.weight": torch.zeros(dim, shape["ff"])})
    return weights


def rope_turns(shape):
    """The rotation of each position and pair as complex numbers, (context, head / 2)."""
    speed = shape["rope_base"] ** (-torch.arange(0, shape["head"], 2).double() / shape["head"])
    angle = torch.arange(shape["context"]).double()[:, None] * speed[None, :]
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def _rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rope(x, turns):
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def hidden(w, shape, ids, mask, turns):
    """The normalised last hidden states (rows, length, dim).

    ids: (rows, length). mask: (rows, length, length), 0 where a position may look, very negative elsewhere.
    turns: (rows, length, 1, head / 2), the rotation of each token by its position inside its own text.
    """
    rows, length = ids.shape
    heads, kv, head = shape["heads"], shape["kv_heads"], shape["head"]
    group = heads // kv
    mask = mask[:, None].expand(rows, heads, length, length).reshape(rows * kv, group * length, length)
    x = F.embedding(ids, w["token_embd.weight"])
    for i in range(shape["layers"]):
        p = f"blk.{i}."
        h = _rms(x, w[p + "attn_norm.weight"], shape["eps"])
        q = _rope(F.linear(h, w[p + "attn_q.weight"]).view(rows, length, heads, head), turns)
        k = _rope(F.linear(h, w[p + "attn_k.weight"]).view(rows, length, kv, head), turns)
        v = F.linear(h, w[p + "attn_v.weight"]).view(rows, length, kv, head)
        q = q.transpose(1, 2).reshape(rows * kv, group * length, head)
        k = k.transpose(1, 2).reshape(rows * kv, length, head)
        v = v.transpose(1, 2).reshape(rows * kv, length, head)
        probs = F.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=head ** -0.5), -1)
        mixed = torch.bmm(probs, v).view(rows, heads, length, head).transpose(1, 2).reshape(rows, length, -1)
        x = x + F.linear(mixed, w[p + "attn_output.weight"])
        h = _rms(x, w[p + "ffn_norm.weight"], shape["eps"])
        inner = F.silu(F.linear(h, w[p + "ffn_gate.weight"])) * F.linear(h, w[p + "ffn_up.weight"])
        x = x + F.linear(inner, w[p + "ffn_down.weight"])
    return _rms(x, w["output_norm.weight"], shape["eps"])


def loss_of(weights, shape, batch):
    """The summed cross entropy over the positions that are learned from."""
    h = hidden(weights, shape, batch["ids"], batch["mask"], batch["turns"])
    h = h.reshape(-1, shape["dim"])[batch["where"]]
    return F.cross_entropy(F.linear(h, weights["token_embd.weight"]), batch["next"], reduction="sum")
