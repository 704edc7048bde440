/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What distinguishes the families of decoders, written down from the papers and the models' published code, not from the
 * engine.
 */

#include "tests/plain/parts.h"

struct plain_family {
    const char *name;
    bool interleaved; /* how q and k are stored */
    bool qk_norm, post_norms, sinks;
    bool gelu;        /* in place of silu */
    bool oai_swiglu;  /* gpt-oss's clamped one, with 1 added to the up half */
    bool scaled_embedding;              /* by the root of its length */
    uint32_t window_period;             /* every so-manieth layer has full attention; 0: none */
    double window_rope_base;            /* 0: as the others */
    uint32_t unrotated_period;          /* every so-manieth layer has no positions; 0: all have */
    uint32_t layers_27b;                /* with so many layers scores are scaled by dim / heads */
    bool experts_normalised;            /* weights of the softmax over all experts are divided by their sum */
    bool latent;                        /* attention and routing as in latent.h */
    bool experts_chosen_first;          /* the softmax is over the chosen ones */
    const char *ffn_norm;
};

/**
 * plain_family() - the description for the file's general.architecture; ends the program when there is none
 */
const struct plain_family *plain_family(const struct gguf *g);

/**
 * plain_activate() - @gate = activation(@gate) combined with @up, @n values
 */
void plain_activate(const struct plain_family *f, double *gate, const double *up, uint64_t n);

/**
 * plain_experts() - @y[n, dim] = what the layer's experts make of @x[n, dim], each token by itself
 */
void plain_experts(const struct gguf *g, const struct plain_family *f, const struct plain_options *o, int layer,
                   const double *x, uint32_t n, uint32_t dim, double *y);
