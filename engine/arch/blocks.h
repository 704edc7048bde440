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
#include "engine/arch/families.h"
#include "engine/arch/latent.h"
#include "engine/arch/limits.h"
#include "engine/gguf/read.h"

/* A block's result that is still to be normed and added to the residual stream: the next norm does both at once. */
struct arch_pending {
    uint32_t value; /* f32, GRAPH_NONE: nothing is pending */
    const float *weight;
};

struct arch_build {
    const struct gguf *gguf;
    const char *name; /* of the architecture: the prefix of its keys */
    const struct arch_target *target;
    struct arch_config *config;
    struct graph *graph;
    struct fault *fault;
    struct arch_pending pending;
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
 * arch_key_u32_same() - an integer that may be stored as an array with one element a layer, all equal
 */
int arch_key_u32_same(struct arch_build *b, const char *key, enum arch_need need, uint32_t min, uint32_t max,
                      uint32_t *ret);

/** arch_key_bool() - a truth */
int arch_key_bool(struct arch_build *b, const char *key, enum arch_need need, bool *ret);

/**
 * arch_text() - a string of the file as it may stand in a message: cut short, without control characters
 * Returns @buffer.
 */
const char *arch_text(const struct gguf_string *s, char *buffer, size_t size);

/**
 * arch_config_read() - everything in b->config, from the keys that all families share
 * @epsilon_key: of the norms' epsilon, which depends on their kind
 */
int arch_config_read(struct arch_build *b, const char *epsilon_key);

/* ---- tensors.c */

/**
 * arch_matrix() - the matrix @name of @layer with @n_rows rows of @n_cols, of a type that there are kernels for
 * An optional one that is absent gives ret->data == NULL.
 */
int arch_matrix(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n_cols,
                uint32_t n_rows, struct graph_tensor *ret);

/**
 * arch_matrices() - @n of them in one tensor (experts, heads), one after the other
 */
int arch_matrices(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n_cols,
                  uint32_t n_rows, uint32_t n, struct graph_tensor *ret);

/**
 * arch_rows() - rows [@row0, @row0 + @n) of each matrix of @t: nothing is copied
 */
struct graph_tensor arch_rows(const struct graph_tensor *t, uint32_t row0, uint32_t n);

/**
 * arch_vector() - @n floats: a norm's weights, a bias. An optional one that is absent gives NULL
 */
int arch_vector(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n,
                const float **ret);

/**
 * arch_vectors() - @n_rows of them in one tensor
 */
int arch_vectors(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n,
                 uint32_t n_rows, const float **ret);

/* ---- rope.c */

struct arch_rope {
    uint32_t n_rot;
    float base;              /* default; the key rope.freq_base wins, unless is_fixed */
    bool is_fixed;           /* base as it is, without the file's scaling */
    const double *frequency; /* [n_rot / 2], set by arch_rope_read() */
    float magnitude;
};

/**
 * arch_rope_read() - frequencies with the file's scaling (linear, YaRN, LongRoPE, factors) in them
 * @rope: n_rot, base and is_fixed are given, the rest is filled in; frequency belongs to the graph
 */
int arch_rope_read(struct arch_build *b, struct arch_rope *rope);

/* ---- decoder.c: what the families of decoders differ in */

/* A mixture of experts in place of the feed-forward block. */
struct arch_experts {
    uint32_t n, n_used;   /* n is 0: none */
    uint32_t n_ff;        /* of each */
    uint32_t n_ff_shared; /* of the expert that every token goes to; 0: none */
    bool shared_gate;     /* its result is multiplied by the sigmoid of a product of its own */
    uint32_t layer0;      /* the layers before have a dense feed-forward block */
    enum graph_gating gating;
    bool normalise;
    float scale;
    uint32_t n_groups, n_groups_used;
};

struct arch_decoder {
    float embedding_scale; /* of the embedding's rows */
    float residual_scale;  /* of what each block adds to the stream */
    float logit_scale, logit_softcap;
    bool interleaved; /* rotated pairs are neighbours */
    bool qk_norm;     /* each head of q and k has an RMS norm */
    bool post_norms;  /* each block's result has one, before it is added to the stream */
    bool sinks;       /* each head has a logit without a key */
    float attention_scale, attention_softcap;
    const char *ffn_norm;        /* the name of the norm before the feed-forward block */
    bool gate_up_fused;          /* ffn_up has the gate's rows before its own */
    struct graph_activation activation;
    struct arch_experts experts;

    uint32_t window;                   /* of windowed layers; 0: there are none */
    bool windowed[ARCH_LAYERS_MAX];
    bool unrotated[ARCH_LAYERS_MAX];   /* layers without rotary positions */
    struct arch_latent latent;
    float rope_magnitude;              /* of cos and sin; 0: what the scaling asks for */
    float window_rope_base;            /* windowed layers have frequencies of their own; 0: the others' */
};

/**
 * arch_decoder_init() - read b->config and set what holds for most families, of which llama is the simplest
 */
int arch_decoder_init(struct arch_build *b, struct arch_decoder *d);

/**
 * arch_window_read() - attention.sliding_window, and which layers have it
 * @period: unless the key attention.sliding_window_pattern says otherwise, every @period-th layer has full attention;
 *          0: none has
 * An absent window or one of 0 means that no layer is windowed, unless @need says otherwise.
 */
int arch_window_read(struct arch_build *b, struct arch_decoder *d, enum arch_need need, uint32_t period);

/**
 * arch_experts_read() - expert_count and expert_used_count; need not be there unless @need says so
 * d->experts.n_ff is set to the feed-forward length, or to the key expert_feed_forward_length.
 */
int arch_experts_read(struct arch_build *b, struct arch_decoder *d, enum arch_need need);

/**
 * arch_decoder_build() - the whole graph
 */
int arch_decoder_build(struct arch_build *b, const struct arch_decoder *d);

/* ---- blocks.c, feed-forward.c: append operations to b->graph */

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
 * arch_linear_init() - the matrix @name.weight, the bias @name.bias if the file has it, and a value for their result
 */
int arch_linear_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t n_cols, uint32_t n_rows,
                     struct graph_linear *ret);

/**
 * arch_norm_init() - an operation that norms @in with @name.weight; takes what is pending with it
 */
int arch_norm_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t in, enum graph_rows rows,
                   struct graph_op *ret);

/**
 * arch_layer_norm_init() - an operation that takes mean and deviation from @in, then @name.weight and @name.bias
 */
int arch_layer_norm_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t in, struct graph_op *ret);

/**
 * arch_norm_add() - append the operation, which makes @packs too
 */
int arch_norm_add(struct arch_build *b, struct graph_op *op, const struct arch_packs *packs);

/** arch_linear_op() - an operation of @n_parts products, to be filled in */
struct graph_op arch_linear_op(uint32_t n_parts);

/**
 * arch_project() - append packing of @in and @l, whose result goes to the stream @x
 * @post_norm: name of a norm that the result has before, or NULL
 */
int arch_project(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t in,
                 struct graph_linear *l, const char *post_norm, uint32_t x);

/**
 * arch_embed() - rows of token_embd.weight; *ret is the residual stream
 * @ret_weight: the matrix, for a model whose output is tied to it
 */
int arch_embed(struct arch_build *b, float scale, uint32_t *ret, struct graph_tensor *ret_weight);

/**
 * arch_rope_table() - the angles of each token's position; *ret is shared by all layers with these frequencies
 */
int arch_rope_table(struct arch_build *b, const struct arch_rope *rope, uint32_t *ret);

/* What one layer's attention has of its own. */
struct arch_attention {
    uint32_t group, group_layer;
    uint32_t rope_table; /* GRAPH_NONE: positions are not rotated */
};

/**
 * arch_qkv_init() - the products that make q, k and v, from one matrix or three
 * @parts: [3]; their in values are the caller's to set
 */
int arch_qkv_init(struct arch_build *b, uint32_t layer, struct graph_linear *parts);

/**
 * arch_attend() - append what comes between q, k, v and the output matrix
 * @qkv: [3] as of arch_qkv_init()
 * @ret: the value of all heads, [tokens, n_heads * v_dim]
 */
int arch_attend(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, const struct arch_attention *a,
                const struct graph_linear *qkv, uint32_t *ret);

/**
 * arch_attention_block() - norm, q/k/v (one matrix or three, with biases where the file has them), norms and
 * rotation of heads, attention, output, added to @x
 */
int arch_attention_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer,
                         const struct arch_attention *a, uint32_t x);

/**
 * arch_ffn_block() - norm, activation(gate, up), down (biases where the file has them), added to @x
 */
int arch_ffn_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t x);

/**
 * arch_experts_block() - norm, router, the chosen experts' feed-forward and the shared one's, added to @x
 */
int arch_experts_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t x);

/**
 * arch_output() - the last norm and the product with output.weight, or with @tied where the file has none
 */
int arch_output(struct arch_build *b, const struct arch_decoder *d, uint32_t x, const struct graph_tensor *tied);
