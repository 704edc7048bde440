/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What attention knows of a row so far, and how that lies in scratch memory and in the parts of
 * attention_part(). Shared by the kernels and by the functions that compute sizes.
 */

#include <stddef.h>
#include <stdint.h>

/* Most rows of a batch: 96 with 128 values keep q, two accumulators and a tile of K and V within 201 KiB. */
#define ATTENTION_ROWS_MAX 96
#define ATTENTION_LANES    16

struct attention_state {
    float *maximum; /* [rows up to 16], -infinity: has seen nothing */
    float *sum;     /* [rows][16]: lane l sums the keys k with k % 16 == l */
    float *acc;     /* [rows][v_stride]: sum of p * V, not yet divided */
};

static inline size_t attention_rows_up(size_t n_rows)
{
    return (n_rows + ATTENTION_LANES - 1) / ATTENTION_LANES * ATTENTION_LANES;
}

/* Floats that @n_rows need. */
static inline size_t attention_state_floats(size_t n_rows, uint32_t v_stride)
{
    return attention_rows_up(n_rows) + n_rows * ATTENTION_LANES + n_rows * v_stride;
}

/* Lays a state out at @at; returns what follows it. */
static inline float *attention_state_place(struct attention_state *s, float *at, size_t n_rows,
                                           uint32_t v_stride)
{
    s->maximum = at;
    s->sum = s->maximum + attention_rows_up(n_rows);
    s->acc = s->sum + n_rows * ATTENTION_LANES;
    return s->acc + n_rows * v_stride;
}

/* The state of the rows from @row on; @row is a multiple of 16. */
static inline struct attention_state attention_state_at(const struct attention_state *s, size_t row,
                                                        uint32_t v_stride)
{
    return (struct attention_state){
        .maximum = s->maximum + row,
        .sum = s->sum + row * ATTENTION_LANES,
        .acc = s->acc + row * v_stride,
    };
}
