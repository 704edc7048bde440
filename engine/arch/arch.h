/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * From a model file to the graph that computes it. A table of architectures, one file per family, each made of the
 * shared blocks of blocks.h. Nothing here executes anything.
 *
 * The file is untrusted: every number is checked for its range, every tensor for its shape and type, and a refusal
 * names the key or tensor, what was found and what was expected.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/graph/ops.h"

struct fault;
struct gguf;

/* What is the same for every family; what a family does not have is 0. */
struct arch_config {
    const char *name; /* of the architecture, a static string */
    uint32_t n_layers, n_embedding, n_vocab, n_ff;
    uint32_t n_heads, n_kv_heads, k_dim, v_dim; /* n_heads is a multiple of n_kv_heads */
    uint32_t n_rot;                             /* dimensions of a head that are rotated: even, <= k_dim */
    uint32_t context_tokens;                    /* that the model was trained for */
    float epsilon;                              /* of the norms */
};

/* What the caller can compute with. */
struct arch_target {
    /* The activation format that products with weights of @type want; negative when there is no kernel for it. */
    int (*format)(const void *userdata, enum tensor_type type);
    const void *userdata;
    uint32_t context_tokens; /* the longest sequence that will be computed; 0: the model's own context length */
};

/**
 * arch_names() - the architectures that are known, comma-separated ("llama, …"), into @buffer; returns @buffer
 */
const char *arch_names(char *buffer, size_t size);

/**
 * arch_build() - read the configuration of a model, check its tensors and write down its graph
 * @g:          borrowed; the graph points into its tensors and into the mapping behind them
 * @ret_config: what the model is
 * @ret_graph:  an initialised, empty graph that is filled in (without graph_plan()); released by the caller, on failure
 *              too
 * @reterr:     FAULT_MODEL_INVALID on -EINVAL; may be NULL
 * Returns 0, -EINVAL (the model is not one that can be computed), -ENOMEM.
 */
int arch_build(const struct gguf *g, const struct arch_target *target, struct arch_config *ret_config,
               struct graph *ret_graph, struct fault *reterr);
