/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The building blocks of plain.c: matrices as doubles, norms, rotation, attention. Every array of values is
 * [n_tokens, width], row-major.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf/read.h"
#include "tests/plain/plain.h"

/**
 * plain_new() - @n doubles, all 0; ends the program when there is no memory
 */
double *plain_new(uint64_t n);

/**
 * plain_u32() - the key ARCHITECTURE.@name as an integer, or @otherwise
 */
uint32_t plain_u32(const struct gguf *g, const char *name, uint32_t otherwise);

/**
 * plain_f32() - the key ARCHITECTURE.@name as a number, or @otherwise
 */
double plain_f32(const struct gguf *g, const char *name, double otherwise);

/**
 * plain_string_is() - whether the key ARCHITECTURE.@name is the string @text
 */
bool plain_string_is(const struct gguf *g, const char *name, const char *text);

/**
 * plain_tensor() - the tensor blk.@layer.@name (or @name, when @layer is negative); NULL when there is none
 */
const struct gguf_tensor *plain_tensor(const struct gguf *g, int layer, const char *name);

/**
 * plain_row() - row @i of @t as doubles
 */
void plain_row(const struct gguf_tensor *t, uint64_t i, double *ret);

/**
 * plain_linear() - @y[n, n_rows] = @x[n, n_cols] * W^T + bias, with blk.@layer.@name.weight and .bias (if there is one)
 */
void plain_linear(const struct gguf *g, const struct plain_options *o, int layer, const char *name, const double *x,
                  uint32_t n, double *y);

/**
 * plain_multiply() - @y[n, n_rows] = @x[n, n_cols] * W^T for rows [@row0, @row0 + @n_rows) of @w
 */
void plain_multiply(const struct gguf_tensor *w, uint64_t row0, uint64_t n_rows, const struct plain_options *o,
                    const double *x, uint32_t n, double *y);

/**
 * plain_norm() - @y = @x / sqrt(mean(@x^2) + @epsilon) * weights, over the last @width of each of @n rows
 */
void plain_norm(const struct gguf_tensor *weights, double epsilon, const double *x, uint32_t n, uint32_t width,
                double *y);

/* How positions turn pairs of a head's values. */
struct plain_rope {
    uint32_t n_rot;      /* values of a head that take part, from its beginning */
    bool interleaved;    /* pairs are neighbours; else i goes with i + n_rot / 2 */
    double frequency[512]; /* [n_rot / 2] turns (in radians) a position */
    double magnitude;
};

/**
 * plain_rope_read() - base, scaling (linear, yarn) and rope_freqs.weight from the file
 */
void plain_rope_read(const struct gguf *g, uint32_t n_rot, bool interleaved, double base, struct plain_rope *ret);

/**
 * plain_rope() - turn @x[n, n_heads, dim] in place; row t stands at position t
 */
void plain_rope(const struct plain_rope *r, double *x, uint32_t n, uint32_t n_heads, uint32_t dim);

struct plain_attention {
    uint32_t n_heads, n_kv_heads, k_dim, v_dim;
    double scale;
    double softcap;  /* 0: none; else scores become softcap * tanh(score / softcap) */
    uint32_t window; /* 0: none; else a position sees itself and the window - 1 before it */
    const double *sinks; /* [n_heads] a score of each head that has no key and no value; NULL: none */
};

/**
 * plain_attend() - @y[n, n_heads, v_dim] of @q[n, n_heads, k_dim], @k[n, n_kv_heads, k_dim], @v[n, n_kv_heads, v_dim]
 */
void plain_attend(const struct plain_attention *a, const double *q, const double *k, const double *v, uint32_t n,
                  double *y);

/**
 * plain_round_f16() - round @n values to F16 in place
 */
void plain_round_f16(double *x, uint64_t n);

/**
 * plain_silu() - x * sigmoid(x)
 */
double plain_silu(double x);
