/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The blocks that rows of quantised tensors are made of, as they lie in a GGUF file: little-endian, without padding and
 * without alignment (rows of 18, 34 or 210 bytes put blocks at any even or odd address), so every member is a byte or
 * a uint16_t inside a packed struct and blocks are only ever read through these types or by unaligned loads.
 * Half floats are kept as their bits (gguf/half.h). What the bits mean: engine/kernels/decode.c.
 * Source: the GGUF type list and the type descriptions of the GGML project's documentation.
 */

#include <stddef.h>
#include <stdint.h>

#define BLOCK_PACKED __attribute__((packed))

#define BLOCK_32  32  /* values in a block of the simple types */
#define BLOCK_256 256 /* values in a block of the K and IQ4_XS types */

/* d * (q - 8), q of 4 bits: low nibbles are values 0..15, high ones 16..31 */
struct block_q4_0 {
    uint16_t d;
    uint8_t qs[16];
} BLOCK_PACKED;

/* d * q + m */
struct block_q4_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qs[16];
} BLOCK_PACKED;

/* d * (q - 16); bit i of qh is the fifth bit of value i */
struct block_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[16];
} BLOCK_PACKED;

/* d * q + m */
struct block_q5_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qh[4];
    uint8_t qs[16];
} BLOCK_PACKED;

/* d * q */
struct block_q8_0 {
    uint16_t d;
    int8_t qs[32];
} BLOCK_PACKED;

/* d * table[q]; nibbles as in Q4_0 */
struct block_iq4_nl {
    uint16_t d;
    uint8_t qs[16];
} BLOCK_PACKED;

/* 2^(e - 128) * table[q]: the OCP microscaling format, its values doubled to be integers; nibbles as in Q4_0 */
struct block_mxfp4 {
    uint8_t e;
    uint8_t qs[16];
} BLOCK_PACKED;

/* 16 sub-blocks of 16: d * (scale & 15) * q - dmin * (scale >> 4), q of 2 bits */
struct block_q2_k {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d;
    uint16_t dmin;
} BLOCK_PACKED;

/* 16 sub-blocks of 16: d * (scale - 32) * q, q of 3 bits minus 4; third bits in hmask, 6-bit scales packed */
struct block_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
} BLOCK_PACKED;

/* 8 sub-blocks of 32: d * scale * q - dmin * min, scales and mins of 6 bits packed into 12 bytes */
struct block_q4_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qs[128];
} BLOCK_PACKED;

/* as Q4_K with a fifth bit in qh: bit j of qh[i] belongs to value i of sub-block j */
struct block_q5_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
} BLOCK_PACKED;

/* 16 sub-blocks of 16: d * scale * (q - 32), q of 6 bits */
struct block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
} BLOCK_PACKED;

/* 8 sub-blocks of 32: d * (scale - 32) * table[q] */
struct block_iq4_xs {
    uint16_t d;
    uint16_t scales_h;
    uint8_t scales_l[4];
    uint8_t qs[128];
} BLOCK_PACKED;

/*
 * Types that name groups of values by an index into a code book (engine/kernels/grids.h); what the bits of each mean
 * stands in engine/kernels/decode-grid.c.
 */

/* d / 8 * (2 * scale + 1) * magnitude with a sign, magnitudes 8, 25, 43 */
struct block_iq2_xxs {
    uint16_t d;
    uint8_t qs[64];
} BLOCK_PACKED;

struct block_iq2_xs {
    uint16_t d;
    uint8_t qs[64];
    uint8_t scales[8];
} BLOCK_PACKED;

struct block_iq2_s {
    uint16_t d;
    uint8_t qs[32];
    uint8_t signs[32];
    uint8_t qh[8];
    uint8_t scales[8];
} BLOCK_PACKED;

/* d / 4 * (2 * scale + 1) * magnitude with a sign, magnitudes 4 to 62 */
struct block_iq3_xxs {
    uint16_t d;
    uint8_t qs[64];
    uint8_t signs[32];
} BLOCK_PACKED;

/* d * (2 * scale + 1) * magnitude with a sign, magnitudes 1 to 15 */
struct block_iq3_s {
    uint16_t d;
    uint8_t qs[64];
    uint8_t qh[8];
    uint8_t signs[32];
    uint8_t scales[4];
} BLOCK_PACKED;

/* d * (2 * scale + 1) * (q ± 1/8), q of -1, 0, 1 */
struct block_iq1_s {
    uint16_t d;
    uint8_t qs[32];
    uint8_t qh[16];
} BLOCK_PACKED;

/* The same; d is spread over the top nibbles of the four words of scales. */
struct block_iq1_m {
    uint8_t qs[32];
    uint8_t qh[16];
    uint8_t scales[8];
} BLOCK_PACKED;

/* d * q, q of -1, 0, 1: five digits of base three a byte, in qh four */
struct block_tq1_0 {
    uint8_t qs[48];
    uint8_t qh[4];
    uint16_t d;
} BLOCK_PACKED;

/* d * (q - 1), q of 2 bits in the order of Q2_K */
struct block_tq2_0 {
    uint8_t qs[64];
    uint16_t d;
} BLOCK_PACKED;

_Static_assert(sizeof(struct block_q4_0) == 18 && offsetof(struct block_q4_0, qs) == 2, "GGUF layout");
_Static_assert(sizeof(struct block_q4_1) == 20 && offsetof(struct block_q4_1, qs) == 4, "GGUF layout");
_Static_assert(sizeof(struct block_q5_0) == 22 && offsetof(struct block_q5_0, qs) == 6, "GGUF layout");
_Static_assert(sizeof(struct block_q5_1) == 24 && offsetof(struct block_q5_1, qs) == 8, "GGUF layout");
_Static_assert(sizeof(struct block_q8_0) == 34 && offsetof(struct block_q8_0, qs) == 2, "GGUF layout");
_Static_assert(sizeof(struct block_iq4_nl) == 18 && offsetof(struct block_iq4_nl, qs) == 2, "GGUF layout");
_Static_assert(sizeof(struct block_mxfp4) == 17 && offsetof(struct block_mxfp4, qs) == 1, "GGUF layout");
_Static_assert(sizeof(struct block_q2_k) == 84 && offsetof(struct block_q2_k, d) == 80, "GGUF layout");
_Static_assert(sizeof(struct block_q3_k) == 110 && offsetof(struct block_q3_k, d) == 108, "GGUF layout");
_Static_assert(sizeof(struct block_q4_k) == 144 && offsetof(struct block_q4_k, qs) == 16, "GGUF layout");
_Static_assert(sizeof(struct block_q5_k) == 176 && offsetof(struct block_q5_k, qs) == 48, "GGUF layout");
_Static_assert(sizeof(struct block_q6_k) == 210 && offsetof(struct block_q6_k, d) == 208, "GGUF layout");
_Static_assert(sizeof(struct block_iq4_xs) == 136 && offsetof(struct block_iq4_xs, qs) == 8, "GGUF layout");
_Static_assert(sizeof(struct block_iq2_xxs) == 66 && offsetof(struct block_iq2_xxs, qs) == 2, "GGUF layout");
_Static_assert(sizeof(struct block_iq2_xs) == 74 && offsetof(struct block_iq2_xs, scales) == 66, "GGUF layout");
_Static_assert(sizeof(struct block_iq2_s) == 82 && offsetof(struct block_iq2_s, scales) == 74, "GGUF layout");
_Static_assert(sizeof(struct block_iq3_xxs) == 98 && offsetof(struct block_iq3_xxs, signs) == 66, "GGUF layout");
_Static_assert(sizeof(struct block_iq3_s) == 110 && offsetof(struct block_iq3_s, scales) == 106, "GGUF layout");
_Static_assert(sizeof(struct block_iq1_s) == 50 && offsetof(struct block_iq1_s, qh) == 34, "GGUF layout");
_Static_assert(sizeof(struct block_iq1_m) == 56 && offsetof(struct block_iq1_m, scales) == 48, "GGUF layout");
_Static_assert(sizeof(struct block_tq1_0) == 54 && offsetof(struct block_tq1_0, d) == 52, "GGUF layout");
_Static_assert(sizeof(struct block_tq2_0) == 66 && offsetof(struct block_tq2_0, d) == 64, "GGUF layout");

/* The values of IQ4_NL and IQ4_XS: 16 levels, closer together around zero. */
static const int8_t block_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Twice the values of MXFP4, which are those of a float of two exponent bits and one of mantissa. */
static const int8_t block_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
