/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Inputs for the tests of matrix kernels, and memory that ends where it ends: each buffer's last byte lies before an
 * unreadable page.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/kernels/kernels.h"

struct guarded {
    struct region *region;
    void *data;
    size_t n_bytes;
};

struct guarded guarded_new(size_t n_bytes);
void guarded_done(struct guarded *g);

uint64_t random_next(uint64_t *seed);
float random_float(uint64_t *seed); /* about normal, deviation 1 */

enum case_weights {
    WEIGHTS_USUAL,   /* random quants, scales of usual size */
    WEIGHTS_EXTREME, /* scales from a list: largest, subnormal, zeros of both signs */
    WEIGHTS_WILD,    /* random bytes: infinities and NaN among the scales */
    WEIGHTS_ONES,    /* all bits set but the scales' */
    WEIGHTS_MAX,
};

enum case_activations {
    ACTIVATIONS_USUAL,
    ACTIVATIONS_ZERO,
    ACTIVATIONS_EDGE,    /* all values ±amax: the largest sums there are */
    ACTIVATIONS_EXTREME, /* blocks of tiny, subnormal and huge values, outliers */
    ACTIVATIONS_BROKEN,  /* some infinities and NaN */
    ACTIVATIONS_MAX,
};

struct linear_case {
    enum tensor_type type;
    enum act_format format;
    uint32_t k, n, m, row0;
    size_t row_bytes, x_stride, y_stride, act_bytes;
    enum case_weights weights;
    enum case_activations activations;
    uint64_t split; /* how the rows are dealt: a seed */
    struct guarded w;
    struct guarded x_memory;
    const float *x;
};

struct outcome {
    struct guarded act, scratch, y_memory;
    float *y;
};

/* Case number @i of a type, with m_min..m_max tokens; the rest is drawn. */
void case_make(struct linear_case *c, enum tensor_type type, uint32_t i, uint32_t m_min, uint32_t m_max, uint64_t *seed);
void case_make_sized(struct linear_case *c, enum tensor_type type, uint32_t k, uint32_t n, uint32_t m,
                     enum case_weights weights, enum case_activations activations, uint64_t *seed);
void case_done(struct linear_case *c);

void outcome_init(const struct kernels *kernels, const struct linear_case *c, struct outcome *o);
void outcome_done(struct outcome *o);
void case_pack(const struct kernels *kernels, const struct linear_case *c, struct outcome *o);
void case_rows(const struct kernels *kernels, const struct linear_case *c, struct outcome *o);
/* Fails when something outside the results was written. */
void case_check_borders(const struct linear_case *c, const struct outcome *o);

/* Fills a row of weights; also for the benchmark. */
void fill_weights(uint8_t *row, enum tensor_type type, uint32_t k, enum case_weights kind, uint64_t *seed);

int bench(const char *type_name, const char *isa_name, uint32_t k);
