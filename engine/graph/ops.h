/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One step of a model as data: a flat array of typed operations over values and weights. engine/arch writes it once
 * per model, graph_plan() finds where each value lives in the scratch memory, and an executor (engine/cpu) runs it
 * for every step. Nothing in a graph depends on the step: the number of rows of a value is symbolic.
 *
 * Invariants
 * 1. Operations run in the order of the array, each after the one before it is complete.
 * 2. A value is written by the operation that is its first user; what an operation reads was written before it.
 * 3. What one thread can do without waiting for the others is one operation (norm + pack; gate, up and their product;
 *    bias and residual behind a product; rotation and the write to the KV pages): a barrier costs more than the work.
 * 4. Weights are not copied: tensors point into the mapped file.
 *
 * How to add an operation: a type and its parameters here, its reads and writes in graph_op_values() (plan.c), its
 * name in graph_op_name(), its code in each executor.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/graph/values.h"

enum graph_op_type {
    GRAPH_EMBED,        /* out[t] = row tokens[t] of weight, times scale */
    GRAPH_ROPE_TABLE,   /* out[t] = cos and sin of position t by each frequency */
    GRAPH_NORM,         /* out[r] = norm(in[row r]) * weight, and packed forms of it */
    GRAPH_PACK,         /* packed forms of in */
    GRAPH_LINEAR,       /* up to GRAPH_LINEAR_MAX products, bias added, and the sum with a residual */
    GRAPH_GLU,          /* out = activation(gate · in, up · in) */
    GRAPH_ROPE_WRITE,   /* norm and rotate q and k, write k and v to the KV pages */
    GRAPH_ATTENTION,    /* out = attention of q over the sequence's pages */
    GRAPH_ROUTE,        /* choose each token's experts, group tokens by expert */
    GRAPH_EXPERTS_PACK, /* packed forms of in, each expert's tokens side by side */
    GRAPH_EXPERTS_GLU,  /* GRAPH_GLU with each expert's own matrices */
    GRAPH_HEADS,        /* out = each head's own matrix times that head's part of in */
    GRAPH_JOIN,         /* out = columns of two values side by side, head by head */
    GRAPH_ADAPT,        /* out = down · in of each token's own adapter: what the products behind it need */
    GRAPH_EXPERTS_DOWN, /* each token's sum over its experts of weight * (down · in + bias), added to a residual */
    GRAPH_OP_TYPE_MAX,
};

/* What stands before the first layer and behind the last one. */
#define GRAPH_INPUT  UINT32_MAX
#define GRAPH_OUTPUT (UINT32_MAX - 1)

struct graph_op {
    enum graph_op_type type;
    bool embeddings_only; /* left out of steps that don't want the value graph.embeddings */
    bool adapters_only;   /* left out of steps without a token that has an adapter */
    uint32_t layer;       /* that it belongs to, or GRAPH_INPUT, GRAPH_OUTPUT: set by graph_add() */
    union {
        struct {
            struct graph_tensor weight; /* [n_vocab, n_embedding] */
            struct graph_tensor position; /* [n_positions, n_embedding], its row is added; data is NULL: none */
            struct graph_tensor kind;     /* likewise its row 0: the kind of all tokens of an encoder's text */
            float scale;
            uint32_t out;
        } embed;
        struct {
            const double *frequency; /* [n_rot / 2] radians per position */
            uint32_t n_rot;
            float magnitude; /* cos and sin are multiplied by it (YaRN) */
            uint32_t out;    /* [tokens, n_rot]: cos, sin of pair 0, cos, sin of pair 1, … */
        } rope_table;
        struct {
            enum graph_norm_kind kind;
            uint32_t in;         /* f32; GRAPH_ROWS_TOKENS while out has OUTPUTS: rows that want logits are picked */
            const float *weight; /* [n_cols] */
            const float *bias;   /* [n_cols] or NULL */
            float epsilon;
            uint32_t out; /* f32; GRAPH_NONE: there is only the sum below */
            uint32_t n_packs;
            uint32_t packs[GRAPH_PACKS_MAX];
            /* Before that, unless add is GRAPH_NONE: in += norm(add) * add_weight (a norm behind a block). */
            uint32_t add;
            const float *add_weight;
        } norm;
        struct {
            uint32_t in; /* f32 */
            uint32_t n_packs;
            uint32_t packs[GRAPH_PACKS_MAX];
        } pack;
        struct {
            uint32_t n_parts;
            struct graph_linear parts[GRAPH_LINEAR_MAX];
            float scale;   /* of the result; 1: none */
            float softcap; /* of the result: softcap * tanh(y / softcap); 0: none */
            /* f32 or GRAPH_NONE: the (only) product is added to it in place, times the sigmoid of the token's gate. */
            uint32_t residual;
            uint32_t residual_gate; /* f32 [rows, 1] or GRAPH_NONE */
        } linear;
        struct {
            /* Their out values are work space. Without up (no data): out = activation(gate · in). */
            struct graph_linear gate, up;
            struct graph_activation activation;
            uint32_t out;
        } glu;
        struct {
            uint32_t q, k, v;    /* f32 [tokens, n_heads * head_dim], [tokens, n_kv_heads * …]; q, k in place */
            const float *q_norm, *k_norm; /* [k_dim], RMS norm of each head; NULL: none */
            float epsilon;
            uint32_t rope_table; /* value of a GRAPH_ROPE_TABLE; GRAPH_NONE: no rotation */
            uint32_t n_heads, n_kv_heads, k_dim, v_dim, n_rot;
            uint32_t group, group_layer; /* which pages, and which layer within their group */
            uint32_t interleaved;        /* pairs are (0,1)(2,3)… rather than (0,n/2)(1,n/2+1)… */
        } rope_write;
        struct {
            uint32_t q, out; /* f32 [tokens, n_heads * k_dim], [tokens, n_heads * v_dim] */
            uint32_t n_heads, n_kv_heads, k_dim, v_dim;
            uint32_t group, group_layer;
            float scale;
            float softcap;      /* 0: none */
            uint32_t window;    /* 0: all earlier positions */
            const float *sinks; /* [n_heads] or NULL */
        } attention;
        struct {
            struct graph_linear linear; /* n_heads matrices; in is f32; out [tokens, n_heads * n_rows] */
            uint32_t n_heads;
            uint32_t stride, first; /* head h reads n_cols columns of in from h * stride + first on */
        } heads;
        struct {
            uint32_t n_heads, n_parts;
            struct {
                uint32_t in;                  /* f32 */
                uint32_t stride, first, n;    /* of head h: n columns from h * stride + first on; stride 0: the same */
            } parts[2];
            uint32_t out; /* f32 [tokens, n_heads * (sum of n)] */
        } join;
        struct {
            uint32_t in; /* f32, whose packed forms the products read */
            uint32_t n_parts;
            uint32_t sites[GRAPH_LINEAR_MAX]; /* as in graph_linear */
            uint32_t outs[GRAPH_LINEAR_MAX];  /* f32 [rows, largest rank]; rows in the executor's order of adapters */
            uint32_t routes; /* of products of experts: outs have SLOTS, in has TOKENS or SLOTS; GRAPH_NONE: dense */
        } adapt;
        struct {
            uint32_t logits; /* f32 [tokens, n_experts] */
            uint32_t out;    /* routes */
            enum graph_gating gating;
            const float *bias; /* [n_experts] or NULL: added for the choice, not to the weights */
            bool normalise;    /* weights are divided by their sum */
            float scale;       /* then multiplied by this */
            /* The choice is among the experts of the best n_groups_used of n_groups groups; 1 and 1: all. */
            uint32_t n_groups, n_groups_used;
        } route;
        struct {
            uint32_t routes;
            uint32_t in; /* f32 of TOKENS (each expert's are gathered) or SLOTS */
            uint32_t n_packs;
            uint32_t packs[GRAPH_PACKS_MAX];
        } experts_pack;
        struct {
            uint32_t routes;
            struct graph_linear gate, up; /* n_experts matrices; their out values have SLOTS */
            struct graph_activation activation;
            uint32_t out; /* may be gate.out */
        } experts_glu;
        struct {
            uint32_t routes;
            struct graph_linear down; /* n_experts matrices; out is unused */
            uint32_t residual;        /* f32 of TOKENS */
        } experts_down;
    };
};

/* A set of layers that share page numbers: those with full attention, and those of each window size. */
struct graph_group {
    uint32_t n_layers;
    uint32_t n_kv_heads, k_dim, v_dim;
    uint32_t window; /* 0: full attention; else the positions that a token sees, its own included */
};

#define GRAPH_GROUPS_MAX    2
#define GRAPH_CONSTANTS_MAX 2

struct graph {
    struct graph_op *ops;
    size_t n_ops, n_ops_room;
    struct graph_value *values;
    size_t n_values, n_values_room;
    struct graph_group groups[GRAPH_GROUPS_MAX];
    uint32_t n_groups;
    uint32_t n_experts, n_experts_used; /* of every layer that has any; 0: none has */
    uint32_t layer;                     /* of the operations that are added next */
    struct graph_adapted *adapted; /* [n_sites, n_adapters], owned */
    uint32_t n_sites, n_adapters;
    double *constants[GRAPH_CONSTANTS_MAX]; /* frequencies: what does not lie in the file; ops point into them */
    uint32_t n_constants;
    bool is_encoder;     /* every token sees all tokens of its text, which is one run of one step; no logits */
    uint32_t logits;     /* the value that is the step's result, [outputs, n_vocab] */
    uint32_t embeddings; /* the last norm's result of every token, [tokens, n_embedding], in steps that want it */
    uint64_t scratch_bytes; /* filled in by graph_plan() */
};

/* What adapter @adapter, from 0, adds to the products of @site. */
static inline const struct graph_adapted *graph_adapted_at(const struct graph *g, uint32_t site, uint32_t adapter)
{
    return &g->adapted[(size_t)(site - 1) * g->n_adapters + adapter];
}

/**
 * graph_init() - an empty graph, to be released with graph_done()
 */
void graph_init(struct graph *g);

/**
 * graph_done() - release; works on a half-made graph
 */
void graph_done(struct graph *g);

/**
 * graph_value_f32() - declare a value of @n_cols floats a row; its number in *ret
 * Returns 0 or -ENOMEM.
 */
int graph_value_f32(struct graph *g, enum graph_rows rows, uint32_t n_cols, uint32_t *ret);

/**
 * graph_value_packed() - declare a packed value of @n_cols values a row in the kernels' @format
 * Returns 0 or -ENOMEM.
 */
int graph_value_packed(struct graph *g, enum graph_rows rows, uint32_t n_cols, uint32_t format, uint32_t *ret);

/**
 * graph_value_routes() - declare a value that says which tokens go to which experts
 * Returns 0 or -ENOMEM.
 */
int graph_value_routes(struct graph *g, uint32_t *ret);

/**
 * graph_routes_words() - the size of such a value for @n_tokens, in 4-byte words
 */
uint64_t graph_routes_words(const struct graph *g, uint32_t n_tokens);

/**
 * graph_constants() - room for @n numbers that lives as long as the graph; at most GRAPH_CONSTANTS_MAX times
 * Returns 0 or -ENOMEM.
 */
int graph_constants(struct graph *g, size_t n, double **ret);

/**
 * graph_add() - append a copy of @op, as one of the layer g->layer; 0 or -ENOMEM
 */
int graph_add(struct graph *g, const struct graph_op *op);

/**
 * graph_op_linears() - the matrix products that @op consists of: [0 … GRAPH_LINEAR_MAX] of them
 * @ret: pointers into @op
 * Returns how many.
 */
uint32_t graph_op_linears(const struct graph_op *op, const struct graph_linear *ret[GRAPH_LINEAR_MAX]);

/**
 * graph_op_matrices() - how many matrices of each of these products one token is multiplied with
 */
uint32_t graph_op_matrices(const struct graph *g, const struct graph_op *op);

/* The values an operation touches, at most. */
#define GRAPH_OP_VALUES_MAX (2 * GRAPH_LINEAR_MAX + GRAPH_PACKS_MAX + 2)

/* Numbers of values. */
struct graph_op_values {
    uint32_t reads[GRAPH_OP_VALUES_MAX], writes[GRAPH_OP_VALUES_MAX];
    size_t n_reads, n_writes;
};

/**
 * graph_op_values() - the values that @op reads and writes; one that changes in place is among both
 */
void graph_op_values(const struct graph_op *op, struct graph_op_values *ret);

/* What graph_plan() has to know about the kernels and the largest batch. */
struct graph_limits {
    uint32_t tokens_max;  /* rows of GRAPH_ROWS_TOKENS */
    uint32_t outputs_max; /* rows of GRAPH_ROWS_OUTPUTS */
    /* Bytes of @n_rows packed rows; called for the number of rows at which it is largest to be found. */
    size_t (*packed_bytes)(const void *userdata, uint32_t format, uint32_t n_cols, uint32_t n_rows);
    const void *userdata;
};

/**
 * graph_value_bytes() - the most that value @v takes in a batch within @limits; false when that leaves uint64_t
 */
bool graph_value_bytes(const struct graph *g, const struct graph_limits *limits, const struct graph_value *v,
                       uint64_t *ret);

/**
 * graph_plan() - find where each value lives: values that are never alive together share memory
 * Sets offset and n_bytes of each value and g->scratch_bytes.
 * Returns 0, -EOVERFLOW when the sizes leave uint64_t, -EINVAL when a value is read that nothing wrote, -ENOMEM.
 */
int graph_plan(struct graph *g, const struct graph_limits *limits);

/**
 * graph_op_name() - what the operation is called in profiles and messages; a static string
 */
const char *graph_op_name(enum graph_op_type type);
