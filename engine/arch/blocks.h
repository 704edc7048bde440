/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the families of engine/arch are made of: reading numbers, finding tensors, and the parts of a transformer.
 * Private to engine/arch.
 *
 * How to add a family: a file with a build function that calls these in the order in which the model computes, and a
 * row in arch.c's table. What only that family has stays in its file until a second one needs it.
 *
 * Every function returns 0, -EINVAL with the fault filled in, or -ENOMEM.
 */

#include "engine/arch/arch.h"
#include "engine/gguf/read.h"

struct arch_build {
    const struct gguf *gguf;
    const char *name; /* of the architecture: the prefix of its keys */
    const struct arch_target *target;
    struct arch_config *config;
    struct graph *graph;
    struct fault *fault;
};

struct arch {
    const char *name;
    int (*build)(struct arch_build *b);
};

enum arch_need { ARCH_OPTIONAL, ARCH_REQUIRED };

#define ARCH_NO_LAYER UINT32_MAX /* a tensor that belongs to no layer: its name has no "blk.N." */

/* ---- keys.c: the keys of this architecture ("llama." + @key) */

/**
 * arch_key_u32() - an integer within [@min, @max]; an optional one that is absent leaves *ret as it is
 */
int arch_key_u32(struct arch_build *b, const char *key, enum arch_need need, uint32_t min, uint32_t max,
                 uint32_t *ret);

/**
 * arch_key_f32() - a finite number within [@min, @max]
 */
int arch_key_f32(struct arch_build *b, const char *key, enum arch_need need, float min, float max, float *ret);

/**
 * arch_key_u32_same() - an integer that may be stored as an array with one element a layer, all of them equal
 */
int arch_key_u32_same(struct arch_build *b, const char *key, enum arch_need need, uint32_t min, uint32_t max,
                      uint32_t *ret);

/**
 * arch_text() - a string of the file as it may stand in a message: cut short, without control characters
 * Returns @buffer.
 */
const char *arch_text(const struct gguf_string *s, char *buffer, size_t size);

/**
 * arch_config_read() - everything in b->config, from the keys that all families share
 */
int arch_config_read(struct arch_build *b);

/* ---- tensors.c */

/**
 * arch_matrix() - the matrix @name of @layer with @n_rows rows of @n_cols, of a type that there are kernels for
 * An optional one that is absent gives ret->data == NULL.
 */
int arch_matrix(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n_cols,
                uint32_t n_rows, struct graph_tensor *ret);

/**
 * arch_vector() - @n floats: a norm's weights, a bias. An optional one that is absent gives NULL
 */
int arch_vector(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n,
                const float **ret);

/* ---- rope.c */

struct arch_rope {
    uint32_t n_rot;
    float base;           /* default; the key rope.freq_base wins */
    const double *frequency; /* [n_rot / 2], set by arch_rope_read() */
    float magnitude;
};

/**
 * arch_rope_read() - frequencies with the file's scaling (linear, YaRN, factors in rope_freqs.weight) in them
 * @rope: n_rot and base are given, the rest is filled in; frequency belongs to the graph
 */
int arch_rope_read(struct arch_build *b, struct arch_rope *rope);

/* ---- blocks.c: append operations to b->graph */

/* Packed forms of one value that were made for the products behind it: one for each format that these want. */
struct arch_packs {
    uint32_t n;
    uint32_t ids[GRAPH_PACKS_MAX];
};

/**
 * arch_packs_need() - see to it that @packs has a form of a value of @n_cols columns that products with @weight read
 * @ret: the value's number
 */
int arch_packs_need(struct arch_build *b, struct arch_packs *packs, enum graph_rows rows,
                    const struct graph_tensor *weight, uint32_t *ret);

/**
 * arch_embed() - rows of token_embd.weight; *ret is the residual stream
 * @ret_weight: the matrix, for a model whose output is tied to it
 */
int arch_embed(struct arch_build *b, uint32_t *ret, struct graph_tensor *ret_weight);

/**
 * arch_rope_table() - the angles of each token's position; *ret is shared by all layers with these frequencies
 */
int arch_rope_table(struct arch_build *b, const struct arch_rope *rope, uint32_t *ret);

struct arch_attention {
    uint32_t group, group_layer;
    uint32_t rope_table, n_rot;
    bool interleaved;
    float scale;
};

/**
 * arch_attention_block() - norm, q/k/v (biases where the file has them), rotation, attention, output, added to @x
 */
int arch_attention_block(struct arch_build *b, uint32_t layer, const struct arch_attention *a, uint32_t x);

/**
 * arch_ffn_block() - norm, silu(gate) * up, down (biases where the file has them), added to @x
 */
int arch_ffn_block(struct arch_build *b, uint32_t layer, uint32_t x);

/**
 * arch_output() - the last norm and the product with output.weight, or with @tied where the file has none
 */
int arch_output(struct arch_build *b, uint32_t x, const struct graph_tensor *tied);

/* ---- the families */
int llama_build(struct arch_build *b);
