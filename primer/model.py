"""The shape of the primer and its forward pass in PyTorch, as the `llama` architecture of GGUF defines it.

Used by train.py; export.py takes the shape and the names of the tensors from here. Matrix products run in the
given type (bfloat16 on CPUs that have it), sums along the residual stream in float32; the weights themselves are
float32. RoPE turns the pairs (2i, 2i+1), so the weights go into the GGUF file as they are.
"""

import torch
import torch.nn.functional as F

SHAPE = {"dim": 256, "layers": 5, "heads": 4, "kv_heads": 2, "head": 64, "ff": 512, "vocab": 2048,
         "context": 1024, "rope_base": 10000.0, "eps": 1e-5}


def new_weights(shape, seed):
    """Fresh weights by their GGUF names; matrices are (out, in)."""
    gen = torch.Generator().manual_seed(seed)
    dim, kv = shape["dim"], shape["kv_heads"] * shape["head"]
    out_std = 0.02 / (2 * shape["layers"]) ** 0.5

    def matrix(rows, cols, std=0.02):
        return torch.randn(rows, cols, generator=gen) * std

    weights = {"token_embd.weight": matrix(shape["vocab"], dim), "output_norm.weight": torch.ones(dim)}
    for i in range(shape["layers"]):
        weights.update({
            f"blk.{i}.attn_norm.weight": torch.ones(dim),
            f"blk.{i}.attn_q.weight": matrix(shape["heads"] * shape["head"], dim),
            f"blk.{i}.attn_k.weight": matrix(kv, dim),
            f"blk.{i}.attn_v.weight": matrix(kv, dim),
            f"blk.{i}.attn_output.weight": matrix(dim, shape["heads"] * shape["head"], out_std),
            f"blk.{i}.ffn_norm.weight": torch.ones(dim),
            f"blk.{i}.ffn_gate.weight": matrix(shape["ff"], dim),
            f"blk.{i}.ffn_up.weight": matrix(shape["ff"], dim),
            f"blk.{i}.ffn_down.weight": matrix(dim, shape["ff"], out_std)})
    return weights


def rope_turns(shape):
    """The rotation of each position and pair as complex numbers, (context, head / 2)."""
    speed = shape["rope_base"] ** (-torch.arange(0, shape["head"], 2).double() / shape["head"])
    angle = torch.arange(shape["context"]).double()[:, None] * speed[None, :]
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def _rms(x, weight, eps, dtype):
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).to(dtype)


def _rope(x, turns, dtype):
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).to(dtype)


def hidden(weights, shape, ids, mask, turns, dtype):
    """The normalised last hidden states (rows, length, dim).

    ids: (rows, length). mask: (rows, 1, length, length), 0 where a position may look, very negative elsewhere.
    turns: (rows, length, 1, head / 2), the rotation of each token by its position inside its own chat.
    """
    w = {k: v.to(dtype) if v.dim() == 2 else v for k, v in weights.items()}
    rows, length = ids.shape
    heads, kv, head = shape["heads"], shape["kv_heads"], shape["head"]
    group = heads // kv
    x = F.embedding(ids, weights["token_embd.weight"])
    for i in range(shape["layers"]):
        p = f"blk.{i}."
        h = _rms(x, w[p + "attn_norm.weight"], shape["eps"], dtype)
        q = _rope(F.linear(h, w[p + "attn_q.weight"]).view(rows, length, heads, head), turns, dtype)
        k = _rope(F.linear(h, w[p + "attn_k.weight"]).view(rows, length, kv, head), turns, dtype)
        v = F.linear(h, w[p + "attn_v.weight"]).view(rows, length, kv, head)
        q = q.transpose(1, 2).reshape(rows * kv, group * length, head)
        k = k.transpose(1, 2).reshape(rows * kv, length, head)
        v = v.transpose(1, 2).reshape(rows * kv, length, head)
        scores = torch.bmm(q, k.transpose(1, 2)).view(rows, heads, length, length)
        probs = F.softmax(scores * head ** -0.5 + mask, -1).view(rows * kv, group * length, length)
        mixed = torch.bmm(probs, v).view(rows, heads, length, head).transpose(1, 2).reshape(rows, length, -1)
        x = x + F.linear(mixed, w[p + "attn_output.weight"])
        h = _rms(x, w[p + "ffn_norm.weight"], shape["eps"], dtype)
        inner = F.silu(F.linear(h, w[p + "ffn_gate.weight"])) * F.linear(h, w[p + "ffn_up.weight"])
        x = x + F.linear(inner, w[p + "ffn_down.weight"])
    return _rms(x, w["output_norm.weight"], shape["eps"], dtype)


def loss_of(weights, shape, batch, dtype):
    """The mean cross entropy over the positions that are learned from."""
    h = hidden(weights, shape, batch["ids"], batch["mask"].to(dtype), batch["turns"], dtype)
    h = h.reshape(-1, shape["dim"])[batch["where"]]
    logits = F.linear(h, weights["token_embd.weight"].to(dtype)).float()
    return F.cross_entropy(logits, batch["next"])
