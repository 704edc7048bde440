/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the operations of ops.h work on: values, which live in scratch memory for a part of a step, and matrices of the
 * file.
 */

#include <stdint.h>

#include "engine/gguf/types.h"

#define GRAPH_NONE       UINT32_MAX /* no value */
#define GRAPH_LINEAR_MAX 3          /* products of one input that run as one operation (q, k, v) */
#define GRAPH_PACKS_MAX  4          /* packed formats that one operation makes of its result */

/* Tokens of one expert are packed in groups of so many; each expert begins a new one. */
#define GRAPH_EXPERT_GROUP 16

/* How many rows a value has, decided by each step's batch. */
enum graph_rows {
    GRAPH_ROWS_TOKENS,  /* one for each token of the batch */
    GRAPH_ROWS_OUTPUTS, /* one for each token that wants logits */
    GRAPH_ROWS_SLOTS,   /* one for each pair of a token and an expert that was chosen for it, ordered by expert */
    GRAPH_ROWS_GATHERED, /* likewise, each a copy of the token's row; for packed values */
};

enum graph_value_kind {
    GRAPH_F32,    /* [n_rows, n_cols] f32, row-major */
    GRAPH_PACKED, /* n_rows rows of n_cols values in a kernel's activation format; the layout is the kernels' own */
    GRAPH_ROUTES, /* which token goes to which expert with which weight; the layout is the executor's own */
};

struct graph_value {
    enum graph_value_kind kind;
    enum graph_rows rows;
    uint32_t n_cols;
    uint32_t format; /* of a packed value: the kernels' number for it */

    /* Filled in by graph_plan(). */
    uint32_t first_op, last_op; /* the operations between which the value is alive */
    uint64_t offset;            /* into the scratch memory */
    uint64_t n_bytes;           /* at the largest batch */
};

/* A matrix of the file. Matmul is y[m, n_rows] = x[m, n_cols] · Wᵀ. */
struct graph_tensor {
    const char *name;
    enum tensor_type type;
    uint32_t n_rows, n_cols; /* of one matrix */
    uint64_t row_bytes;
    uint64_t matrix_bytes; /* from one matrix to the next, where there are several (experts) */
    const void *data;      /* borrowed from the mapping */
};

/* One matrix product, with its bias. */
struct graph_linear {
    struct graph_tensor weight;
    const float *bias; /* [n_rows], one after the other for several matrices; or NULL */
    uint32_t in;       /* packed value */
    uint32_t out;      /* f32 value, [rows, n_rows] */
    /* Where adapters change it: site - 1 is its row in graph.adapted, low their first factor's result. 0: nowhere. */
    uint32_t site, low;
};

/* What an adapter adds to one product: scale * (up · (down · x)), of low rank (LoRA; Hu et al., arXiv 2106.09685). For
 * experts a matrix of each, one after the other. */
struct graph_adapted {
    struct graph_tensor down, up; /* [rank, n_cols] and [n_rows, rank]; data is NULL: nothing */
    float scale;
};

enum graph_norm_kind {
    GRAPH_NORM_RMS,   /* x / sqrt(mean(x²) + ε) */
    GRAPH_NORM_LAYER, /* (x - mean) / sqrt(variance + ε) */
};

/* What joins the two halves of a feed-forward network. */
struct graph_activation {
    enum {
        GRAPH_SILU,           /* silu(gate) * up */
        GRAPH_GELU,           /* gelu(gate) * up, tanh form */
        GRAPH_SWIGLU_CLAMPED, /* gate cut to <= limit, up to ±limit: gate / (1 + exp(-alpha gate)) * (up + 1) */
    } kind;
    float alpha, limit;
};

enum graph_gating {
    GRAPH_GATE_SOFTMAX,        /* weights are the softmax over all experts */
    GRAPH_GATE_SIGMOID,        /* … the sigmoid of each */
    GRAPH_GATE_SOFTMAX_CHOSEN, /* … the softmax over those that were chosen */
};
