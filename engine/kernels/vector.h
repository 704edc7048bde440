/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The float kernels around the matrix products: norms, rotary embedding, activations, softmax, attention. One
 * table of function pointers, filled once for the machine's instruction sets; everything is float32.
 *
 * The rule of sums. Every function gives the same bits on every instruction set:
 *   1. Sums run over 16 lanes: lane l adds the elements k with k % 16 == l in ascending order, by fma where
 *      there is a product; then lanes are folded 8 + 8, 4 + 4, 2 + 2, 1 + 1 (lower half plus upper half).
 *   2. Where a formula below says a * b + c, it is one fma.
 *   3. exp, tanh and what is built on them are our own polynomials; the C library is not called.
 * A NaN stays a NaN, but its payload may differ.
 *
 * All pointers may be unaligned; y may be x (or gate, or up), but may not overlap it otherwise. n is at least
 * 1.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/kernels/attention.h"

/* Functions of one value for vector_table.map[]. */
enum vector_map {
    VECTOR_EXP,  /* 0 below about -104, infinity above 88.72; at most 1 ulp wrong between, 2 in subnormals */
    VECTOR_TANH, /* at most 2 ulp */
    VECTOR_SIGMOID, /* 1 / (1 + exp(-x)) */
    VECTOR_SILU,    /* x / (1 + exp(-x)) */
    VECTOR_GELU,    /* x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3): the "tanh" form of GELU */
    VECTOR_MAP_MAX,
};

struct vector_table {
    /* y = x * (1 / sqrt(mean of squares + eps)) * w; @w [n] or NULL: no weights */
    void (*rms_norm)(float *y, const float *x, const float *w, uint32_t n, float eps);

    /* y = (x - mean) * (1 / sqrt(variance + eps)) * w + b; @w, @b [n] or NULL */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps);

    /*
     * Rotates the first @n_rot values (even) of each head of x [n_heads, head_dim], in place.
     * @cos_sin: [n_rot / 2][2] from rope_table(). @interleaved: pairs are (2i, 2i + 1); else (i, i + n_rot /
     * 2).
     */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cos_sin,
                 bool interleaved);

    /* y = silu(gate) * up */
    void (*silu_mul)(float *y, const float *gate, const float *up, uint32_t n);

    /* y = gelu(gate) * up */
    void (*gelu_mul)(float *y, const float *gate, const float *up, uint32_t n);

    /*
     * gate cut to <= limit, up to [-limit, limit]; y = (up + 1) * gate / (1 + exp(-alpha * gate)): gpt-oss's
     * GLU
     */
    void (*swiglu_clamped)(float *y, const float *gate, const float *up, uint32_t n, float alpha,
                           float limit);

    /* y = y + x */
    void (*add)(float *y, const float *x, uint32_t n);

    /* y = x * factor + y */
    void (*add_scaled)(float *y, const float *x, float factor, uint32_t n);

    /* y = x * factor */
    void (*scale)(float *y, const float *x, float factor, uint32_t n);

    /* y = x * w */
    void (*mul)(float *y, const float *x, const float *w, uint32_t n);

    /* y = cap * tanh(x * (1 / cap)); cap > 0 */
    void (*softcap)(float *y, const float *x, float cap, uint32_t n);

    /* y = exp(x - max) / sum; -infinity gives 0, and all of it -infinity gives zeros. */
    void (*softmax)(float *y, const float *x, uint32_t n);

    /* y[i] = f(x[i]) */
    void (*map[VECTOR_MAP_MAX])(float *y, const float *x, uint32_t n);

    /* Behind the functions of attention.h, which say what they do. */
    void (*attention)(const struct attention_args *args);
    void (*attention_part)(const struct attention_args *args, uint32_t segment, void *part);
    void (*attention_merge)(const struct attention_args *args, void *const *parts);
    void (*kv_write)(const struct kv_layout *layout, void *page, uint32_t slot, const float *key,
                     const float *value);
};

/*
 * A row of the registry: one kernel for one slot of the table. Rows are "exact": bit for bit the scalar row's
 * result.
 */
struct vector_row {
    const char *name; /* of the slot: "rms_norm" */
    const char *isa_name;
    uint32_t isa;  /* bits of enum isa that the machine must have; 0: any machine */
    uint32_t slot; /* offset of the pointer in struct vector_table */
    void (*fn)(void);
};

/**
 * vector_row_at() - the registry, in rising order of preference: a later row for the same slot is better
 * Returns row @i (the first ones are the scalar rows), NULL behind the last one. Rows may not fit this
 * machine: see isa.
 */
const struct vector_row *vector_row_at(uint32_t i);

/**
 * vector_select() - fill the table with the best rows whose instruction sets are in @isa_mask
 * @isa_mask: bits of enum isa (kernels.h): what the machine has, less what the user switched off
 */
void vector_select(uint32_t isa_mask, struct vector_table *ret);
