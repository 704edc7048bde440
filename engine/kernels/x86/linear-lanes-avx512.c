/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Five and more tokens times quantised weights (nine and more of linear-few-avx512.c's types), tokens in lanes; AVX-512
 * with VNNI and VBMI. A tile of rows is unpacked, 256 values at a time, to bytes and integer scales that stay in the
 * first cache (tile-avx512.h), and every group of tokens of a chunk is multiplied with it: four rows by 32 tokens in
 * registers, the weights broadcast, no shuffles. Sums wait in the scratch, rows by tokens, while the tiles of a K panel
 * go by: panel and chunk are chosen so that the panel's activations stay in the second cache (16 blocks of 128 tokens
 * are 600 KB).
 *
 * Up to 16 tokens the weights' stream is what counts: one panel, tiles of 16 rows, and the next tile is prefetched in
 * the order of the file.
 */
#include "engine/kernels/x86/linear-avx512.h"

#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/tile-avx512.h"

#define PANEL_VALUES 4096 /* of k, where there are many tokens */
#define SMALL_BATCH  16   /* tokens up to which a single panel and the small tile are used */

/* --- multiplying --- */

/* @W bytes of one row in all places of a token. */
TEMPLATE __m512i broadcast(const void *p, const int W)
{
    int32_t dword;
    int64_t qword;

    if (W == 4) {
        memcpy(&dword, p, sizeof(dword));
        return _mm512_set1_epi32(dword);
    }
    memcpy(&qword, p, sizeof(qword));
    return _mm512_set1_epi64(qword);
}

/* A token's two lanes added, in both of them; with one lane a token there is nothing to add. */
TEMPLATE __m512i add_token_lanes(__m512i z, const int T)
{
    return T == 16 ? z : _mm512_add_epi32(z, _mm512_shuffle_epi32(z, 0xB1));
}

/*
 * S[r][v] = sum of scale[j] * dot of sub-block j. Where a token has two lanes, which are added later, only one begins with
 * the surplus.
 */
TEMPLATE void dots_256(const enum tensor_type type, const bool as_signed, const int T, const int R, const int V,
                       const struct tile_row *rows, const uint8_t *act, size_t group_bytes, __m512i S[8][2])
{
    const int W = 64 / T, sub = (int)type_sub_values(type), n_sub = 256 / sub, steps = sub / W;
    const __m512i act_offset = _mm512_set1_epi8((char)ACT_OFFSET);

    UNROLL(8)
    for (int r = 0; r < R; r++)
        UNROLL(2)
        for (int v = 0; v < V; v++)
            S[r][v] = _mm512_maskz_set1_epi32(!as_signed ? 0 : T == 16 ? 0xFFFF : 0x5555, -rows[r].surplus);
    for (int j = 0; j < n_sub; j++) {
        __m512i dot[8][2];

        UNROLL(8)
        for (int s = 0; s < steps; s++) {
            __m512i x[2];

            UNROLL(2)
            for (int v = 0; v < V; v++) {
                x[v] = _mm512_load_si512(act + (size_t)v * group_bytes + (size_t)(j * steps + s) * 64);
                if (as_signed)
                    x[v] = _mm512_xor_si512(x[v], act_offset);
            }
            UNROLL(8)
            for (int r = 0; r < R; r++) {
                __m512i w = broadcast(rows[r].q + j * sub + s * W, W);

                UNROLL(2)
                for (int v = 0; v < V; v++)
                    dot[r][v] = _mm512_dpbusd_epi32(s ? dot[r][v] : _mm512_setzero_si512(), as_signed ? x[v] : w,
                                                    as_signed ? w : x[v]);
            }
        }
        UNROLL(8)
        for (int r = 0; r < R; r++) {
            __m512i scale = _mm512_set1_epi32(rows[r].scale[j]);

            UNROLL(2)
            for (int v = 0; v < V; v++)
                S[r][v] = _mm512_add_epi32(S[r][v], _mm512_mullo_epi32(dot[r][v], scale));
        }
    }
}

/* The same sums of weights that have been multiplied by their scales; two chains each, which hide the latency. */
TEMPLATE void dots_scaled(const enum tensor_type type, const int T, const int R, const int V, const struct tile_row *rows,
                          const uint8_t *act, size_t group_bytes, __m512i S[8][2])
{
    const int W = 64 / T, steps = 256 / W;
    const size_t sums32_at = T == 16 ? offsetof(struct act_lanes16_256, sums32) : offsetof(struct act_lanes8_256, sums32);
    __m512i chain[8][2][2];

    UNROLL(8)
    for (int r = 0; r < R; r++)
        UNROLL(2)
        for (int v = 0; v < V; v++)
            chain[r][v][0] = chain[r][v][1] = _mm512_setzero_si512();
    for (int s = 0; s < steps; s += 4) {
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            __m512i x[2];

            UNROLL(2)
            for (int v = 0; v < V; v++)
                x[v] = _mm512_load_si512(act + (size_t)v * group_bytes + (size_t)(s + i) * 64);
            UNROLL(8)
            for (int r = 0; r < R; r++) {
                __m512i w = broadcast(rows[r].q + (s + i) * W, W);

                UNROLL(2)
                for (int v = 0; v < V; v++)
                    chain[r][v][i % 2] = _mm512_dpbusd_epi32(chain[r][v][i % 2], w, x[v]);
            }
        }
    }
    UNROLL(2)
    for (int v = 0; v < V; v++) {
        __m512i offset = _mm512_setzero_si512();

        if (type_offset_log2(type) >= 0) {
            const uint8_t *at = act + (size_t)v * group_bytes + sums32_at;

            UNROLL(4)
            for (int i = 0; i < 8 / (W / 2); i++)
                offset = _mm512_dpwssd_epi32(offset, _mm512_load_si512(at + (size_t)i * 64), _mm512_set1_epi16(SCALED_OFFSET));
        }
        UNROLL(8)
        for (int r = 0; r < R; r++)
            S[r][v] = _mm512_sub_epi32(_mm512_add_epi32(chain[r][v][0], chain[r][v][1]), offset);
    }
}

/* sum of min[j] * (sum of the activations of sub-block j); @group: the block of a group */
TEMPLATE __m512i mins_256(const enum tensor_type type, const int T, const struct tile_row *row, const uint8_t *group)
{
    const int W = 64 / T, sub = (int)type_sub_values(type);
    const size_t sums32_at = T == 16 ? offsetof(struct act_lanes16_256, sums32) : offsetof(struct act_lanes8_256, sums32);
    const size_t sums16_at = T == 16 ? offsetof(struct act_lanes16_256, sums16) : offsetof(struct act_lanes8_256, sums16);
    __m512i M = _mm512_setzero_si512();

    UNROLL(8)
    for (int i = 0; i < 256 / sub / (W / 2); i++)
        M = _mm512_dpwssd_epi32(M, _mm512_load_si512(group + (sub == 32 ? sums32_at : sums16_at) + (size_t)i * 64),
                                broadcast(row->min + i * (W / 2), W));
    return M;
}

/*
 * R rows times V groups of T tokens, one block: sums[r * sums_stride + v * 16] += terms. @act: the block of the first group;
 * groups are @group_bytes apart.
 */
TEMPLATE void multiply_256(const enum tensor_type type, const bool as_signed, const int T, const int R, const int V,
                           const struct tile_row *rows, const uint8_t *act, size_t group_bytes, float *sums, size_t sums_stride)
{
    const bool has_mins = type_has_mins(type), has_offset = may_be_signed(type) && !as_signed;
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_256, d) : offsetof(struct act_lanes8_256, d);
    __m512i S[8][2];

    if (fits_scaled(type))
        dots_scaled(type, T, R, V, rows, act, group_bytes, S);
    else
        dots_256(type, as_signed, T, R, V, rows, act, group_bytes, S);
    UNROLL(2)
    for (int v = 0; v < V; v++) {
        const uint8_t *group = act + (size_t)v * group_bytes;
        __m512 dx = _mm512_load_ps((const void *)(group + d_at));

        UNROLL(8)
        for (int r = 0; r < R; r++) {
            float *at = sums + (size_t)r * sums_stride + (size_t)v * 16;
            __m512i M = has_mins || has_offset ? mins_256(type, T, &rows[r], group) : _mm512_setzero_si512();
            __m512 c;

            if (has_offset)
                S[r][v] = _mm512_sub_epi32(S[r][v], M);
            S[r][v] = add_token_lanes(S[r][v], T);
            c = _mm512_mul_ps(_mm512_cvtepi32_ps(S[r][v]), _mm512_mul_ps(_mm512_set1_ps(rows[r].d), dx));
            if (has_mins)
                c = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(add_token_lanes(M, T)),
                                     _mm512_mul_ps(_mm512_set1_ps(rows[r].dmin), dx), c);
            _mm512_store_ps(at, _mm512_add_ps(_mm512_load_ps(at), c));
        }
    }
}

/* The same for up to eight blocks of 32, each of which has its own float scale. */
TEMPLATE void multiply_32(const enum tensor_type type, const int T, const int R, const int V, uint32_t n_blocks,
                          const struct tile_row *rows, const uint8_t *act, size_t group_bytes, float *sums, size_t sums_stride)
{
    const int W = 64 / T, steps = 32 / W, log2 = type_offset_log2(type);
    const size_t block_bytes = T == 16 ? sizeof(struct act_lanes16_32) : sizeof(struct act_lanes8_32);
    const size_t sums_at = T == 16 ? offsetof(struct act_lanes16_32, sums) : offsetof(struct act_lanes8_32, sums);
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_32, d) : offsetof(struct act_lanes8_32, d);
    __m512 acc[8][2];

    UNROLL(8)
    for (int r = 0; r < R; r++)
        UNROLL(2)
        for (int v = 0; v < V; v++)
            acc[r][v] = _mm512_load_ps(sums + (size_t)r * sums_stride + (size_t)v * 16);
    for (uint32_t j = 0; j < n_blocks; j++) {
        const uint8_t *block = act + j * block_bytes;
        __m512i dot[8][2];

        UNROLL(2)
        for (int v = 0; v < V; v++) {
            __m512i start = _mm512_setzero_si512();

            if (log2 >= 0)
                start = _mm512_sub_epi32(
                    start, _mm512_slli_epi32(_mm512_load_si512(block + (size_t)v * group_bytes + sums_at), (unsigned)(log2 < 0 ? 0 : log2)));
            UNROLL(8)
            for (int r = 0; r < R; r++)
                dot[r][v] = start;
        }
        UNROLL(8)
        for (int s = 0; s < steps; s++) {
            __m512i x[2];

            UNROLL(2)
            for (int v = 0; v < V; v++)
                x[v] = _mm512_load_si512(block + (size_t)v * group_bytes + (size_t)s * 64);
            UNROLL(8)
            for (int r = 0; r < R; r++) {
                __m512i w = broadcast(rows[r].q + j * 32 + (size_t)(s * W), W);

                UNROLL(2)
                for (int v = 0; v < V; v++)
                    dot[r][v] = _mm512_dpbusd_epi32(dot[r][v], w, x[v]);
            }
        }
        UNROLL(2)
        for (int v = 0; v < V; v++) {
            __m512 dx = _mm512_load_ps((const void *)(block + (size_t)v * group_bytes + d_at));
            __m512 M = _mm512_setzero_ps();

            if (type_has_mins(type))
                M = _mm512_cvtepi32_ps(add_token_lanes(_mm512_load_si512(block + (size_t)v * group_bytes + sums_at), T));
            UNROLL(8)
            for (int r = 0; r < R; r++) {
                __m512 S = _mm512_cvtepi32_ps(add_token_lanes(dot[r][v], T));
                __m512 c = _mm512_mul_ps(S, _mm512_mul_ps(_mm512_set1_ps(rows[r].d32[j]), dx));

                if (type_has_mins(type))
                    c = _mm512_fnmadd_ps(M, _mm512_mul_ps(_mm512_set1_ps(rows[r].dmin32[j]), dx), c);
                acc[r][v] = _mm512_add_ps(acc[r][v], c);
            }
        }
    }
    UNROLL(8)
    for (int r = 0; r < R; r++)
        UNROLL(2)
        for (int v = 0; v < V; v++)
            _mm512_store_ps(sums + (size_t)r * sums_stride + (size_t)v * 16, acc[r][v]);
}

/* --- a chunk of tokens --- */

struct chunk {
    const uint8_t *act;   /* the chunk's first group */
    size_t group_bytes;   /* of a group of 16 */
    uint32_t n_wide;      /* groups of 16 */
    uint32_t has_narrow;  /* 1: a group of 8 follows */
    uint32_t sums_stride; /* floats from row to row */
};

/* One unpacked block of all rows of the tile times all groups. @b: which block of 256 values. */
TEMPLATE void multiply_tile(const enum tensor_type type, const bool as_signed, const struct chunk *chunk, uint32_t b, uint32_t n_blocks32,
                            const struct tile_row *tile, uint32_t n_rows, float *sums)
{
    const size_t wide_bytes = type_is_256(type) ? sizeof(struct act_lanes16_256) : 8 * sizeof(struct act_lanes16_32);
    const size_t narrow_bytes = type_is_256(type) ? sizeof(struct act_lanes8_256) : 8 * sizeof(struct act_lanes8_32);
    const uint8_t *narrow = chunk->act + chunk->n_wide * chunk->group_bytes + b * narrow_bytes;
    uint32_t v = 0;

#define MULTIPLY(T, R, V, act, at)                                                                                 \
    do {                                                                                                           \
        if (type_is_256(type))                                                                                          \
            multiply_256(type, as_signed, T, R, V, tile + r, act, chunk->group_bytes, at, chunk->sums_stride);     \
        else                                                                                                       \
            multiply_32(type, T, R, V, n_blocks32, tile + r, act, chunk->group_bytes, at, chunk->sums_stride);     \
    } while (0)

    for (; v + 2 <= chunk->n_wide; v += 2)
        for (uint32_t r = 0; r < n_rows; r += 4)
            MULTIPLY(16, 4, 2, chunk->act + v * chunk->group_bytes + b * wide_bytes, sums + r * chunk->sums_stride + v * 16);
    if (v < chunk->n_wide) {
        for (uint32_t r = 0; r < n_rows; r += 8)
            MULTIPLY(16, 8, 1, chunk->act + v * chunk->group_bytes + b * wide_bytes, sums + r * chunk->sums_stride + v * 16);
    }
    if (chunk->has_narrow) {
        for (uint32_t r = 0; r < n_rows; r += 8)
            MULTIPLY(8, 8, 1, narrow, sums + r * chunk->sums_stride + chunk->n_wide * 16);
    }
#undef MULTIPLY
}

/* Blocks [b0, b1) of the tile's rows. */
TEMPLATE void tile_panel(const enum tensor_type type, const bool as_signed, const struct grid_format *grid,
                         const struct linear_args *args, const struct chunk *chunk, uint32_t row, uint32_t n_rows, uint32_t b0, uint32_t b1, bool stream, struct tile_row *tile, float *sums)
{
    const size_t block_bytes = grid ? grid->block_bytes : type_block_bytes(type) * (type_is_256(type) ? 1 : 8);
    const uint8_t *w = args->w + row * args->row_bytes, *next = w + n_rows * args->row_bytes;
    const uint32_t n_blocks32 = args->k / 32;

    for (uint32_t b = b0; b < b1; b++) {
        uint32_t n32 = n_blocks32 - b * 8 < 8 ? n_blocks32 - b * 8 : 8;

        for (uint32_t r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * args->row_bytes + b * block_bytes;
            const char *ahead = (const char *)(stream ? next : p + n_rows * args->row_bytes);

            if (grid)
                unpack_grid(grid, as_signed, p, &tile[r]);
            else if (fits_scaled(type))
                unpack_scaled(type, p, &tile[r]);
            else if (type_is_256(type))
                unpack_256(type, as_signed, p, &tile[r]);
            else
                unpack_32(type, p, n32, &tile[r]);
            for (size_t line = 0; line < block_bytes; line += 64)
                _mm_prefetch(ahead + line, _MM_HINT_T1);
            next += block_bytes;
        }
        multiply_tile(type, as_signed, chunk, b, n32, tile, n_rows, sums);
    }
}

/* --- results: rows by tokens to tokens by rows --- */

TEMPLATE void transpose_16(__m512 z[16])
{
    __m512 a[16];

    UNROLL(8)
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(z[i], z[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(z[i], z[i + 1]);
    }
    UNROLL(4)
    for (int i = 0; i < 16; i += 4) {
        z[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        z[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        z[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
        z[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
    }
    /* z[4 g + j], lane L: column 4 L + j of rows 4 g .. 4 g + 3 */
    UNROLL(4)
    for (int j = 0; j < 4; j++) {
        __m512 even0 = _mm512_shuffle_f32x4(z[j], z[4 + j], 0x88), odd0 = _mm512_shuffle_f32x4(z[j], z[4 + j], 0xDD);
        __m512 even1 = _mm512_shuffle_f32x4(z[8 + j], z[12 + j], 0x88), odd1 = _mm512_shuffle_f32x4(z[8 + j], z[12 + j], 0xDD);

        a[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
        a[4 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
        a[8 + j] = _mm512_shuffle_f32x4(even0, even1, 0xDD);
        a[12 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0xDD);
    }
    UNROLL(16)
    for (int i = 0; i < 16; i++)
        z[i] = a[i];
}

/* Sixteen rows of one group of tokens; a narrow group has each token in two lanes. */
static void store_group(const struct linear_args *args, const float *sums, size_t stride, uint32_t row, uint32_t n_rows, uint32_t t0,
                        uint32_t n_tokens, uint32_t lanes_per_token)
{
    _Alignas(64) float turned[16][16];
    const __mmask16 mask = (__mmask16)((1u << n_rows) - 1);
    __m512 z[16];

    UNROLL(16)
    for (uint32_t r = 0; r < 16; r++)
        z[r] = _mm512_load_ps(sums + r * stride);
    transpose_16(z);
    UNROLL(16)
    for (uint32_t t = 0; t < 16; t++)
        _mm512_store_ps(turned[t], z[t]);
    for (uint32_t t = 0; t < n_tokens; t++)
        _mm512_mask_storeu_ps(args->y + (t0 + t) * args->y_stride + row, mask, _mm512_load_ps(turned[t * lanes_per_token]));
}

static void store_sums(const struct linear_args *args, const struct chunk *chunk, const float *sums, uint32_t row, uint32_t n_rows,
                       uint32_t t0, uint32_t n_tokens)
{
    /* Token groups outside, so that what is written lies in few places at a time; the next group's lines come meanwhile. */
    for (uint32_t v = 0; v < chunk->n_wide + chunk->has_narrow; v++) {
        uint32_t left = n_tokens - v * 16, lanes = v < chunk->n_wide ? 1 : 2;

        for (uint32_t r = 0; r < n_rows; r += 16) {
            for (uint32_t t = v * 16 + 16; t < v * 16 + 32 && t < n_tokens; t++)
                __builtin_prefetch(args->y + (t0 + t) * args->y_stride + row + r, 1);
            store_group(args, sums + r * chunk->sums_stride + v * 16, chunk->sums_stride, row + r, n_rows - r < 16 ? n_rows - r : 16,
                        t0 + v * 16, left < 16 ? left : 16, lanes);
        }
    }
}

/* @grid: NULL, or the format of the weights, which then are multiplied like @type's. */
TEMPLATE void rows_lanes(const struct linear_args *args, const enum tensor_type type, const bool as_signed,
                         const struct grid_format *grid)
{
    const enum act_format format = type_is_256(type) ? ACT_Q8_256 : ACT_Q8_32;
    const bool stream = args->m <= SMALL_BATCH;
    const uint32_t n_blocks = (args->k + 255) / 256, panel = stream ? n_blocks : PANEL_VALUES / 256, tile_max = stream ? 16 : 32;
    struct tile_row *tile = args->scratch;
    float *sums = (float *)((uint8_t *)args->scratch + SCRATCH_TILE_ROWS * SCRATCH_ROW_BYTES);

    for (uint32_t t0 = 0; t0 < args->m; t0 += SCRATCH_CHUNK) {
        uint32_t n_tokens = args->m - t0 < SCRATCH_CHUNK ? args->m - t0 : SCRATCH_CHUNK, rest = n_tokens % ACT_GROUP;
        struct chunk chunk = {
            .act = act_group_at(format, (void *)args->act, args->k, t0),
            .group_bytes = act_group_bytes(format, args->k, ACT_GROUP),
            .n_wide = n_tokens / ACT_GROUP + (rest > 8),
            .has_narrow = rest > 0 && rest <= 8,
        };

        chunk.sums_stride = (chunk.n_wide + chunk.has_narrow) * 16;
        for (uint32_t row0 = args->row0; row0 < args->row1; row0 += SCRATCH_PANEL_ROWS) {
            uint32_t n_rows = args->row1 - row0 < SCRATCH_PANEL_ROWS ? args->row1 - row0 : SCRATCH_PANEL_ROWS;

            memset(sums, 0, (size_t)((n_rows + 15) & ~15u) * chunk.sums_stride * sizeof(float));
            for (uint32_t b = 0; b < n_blocks; b += panel) {
                for (uint32_t r = 0; r < n_rows; r += tile_max)
                    tile_panel(type, as_signed, grid, args, &chunk, row0 + r, n_rows - r < tile_max ? n_rows - r : tile_max, b,
                               b + panel < n_blocks ? b + panel : n_blocks, stream, tile, sums + r * chunk.sums_stride);
            }
            store_sums(args, &chunk, sums, row0, n_rows, t0, n_tokens);
        }
    }
}

TEMPLATE void rows_any(const struct linear_args *args, const enum tensor_type type, const struct grid_format *grid)
{
    if (may_be_signed(type) && args->m > SMALL_BATCH)
        rows_lanes(args, type, true, grid);
    else
        rows_lanes(args, type, false, grid);
}

#define OTHER_TYPES(X)                                                                                             \
    X(q4_0, TENSOR_Q4_0)                                                                                           \
    X(q4_1, TENSOR_Q4_1)                                                                                           \
    X(q5_0, TENSOR_Q5_0)                                                                                           \
    X(q5_1, TENSOR_Q5_1)                                                                                           \
    X(q8_0, TENSOR_Q8_0)                                                                                           \
    X(iq4_nl, TENSOR_IQ4_NL)                                                                                       \
    X(mxfp4, TENSOR_MXFP4)                                                                                         \
    X(iq4_xs, TENSOR_IQ4_XS)

#define DEFINE_ROWS(name, type)                                                                                    \
    static void name(const struct linear_args *args)                                                               \
    {                                                                                                              \
        rows_any(args, type, NULL);                                                                              \
    }
#define DEFINE_FEW_ROWS(name, type)                                                                                \
    static void name(const struct linear_args *args)                                                               \
    {                                                                                                              \
        if (args->m <= 8)                                                                                          \
            linear_few_8_##name(args);                                                                             \
        else                                                                                                       \
            rows_any(args, type, NULL);                                                                          \
    }
OTHER_TYPES(DEFINE_ROWS)
LINEAR_FEW_TYPES(DEFINE_FEW_ROWS)

static void grid_rows(const struct linear_args *args, const struct grid_format *grid)
{
    rows_any(args, TENSOR_IQ2_XS, grid);
}

#define DEFINE_GRID_ROWS(name, type)                                                                               \
    static void name(const struct linear_args *args)                                                               \
    {                                                                                                              \
        grid_rows(args, &format_##name);                                                                           \
    }
GRID_TYPES(DEFINE_GRID_ROWS)

#define ROW(name, type)                                                                                            \
    {KERNEL_LINEAR_LANES, type, LINEAR_AVX512_ISA, {.rows = name}, #name "-lanes-avx512", 0.0f, "linear.h; unpacked tiles, K panels"},

const struct kernel_row linear_lanes_avx512_rows[LINEAR_LANES_AVX512_N_ROWS] = {OTHER_TYPES(ROW) LINEAR_FEW_TYPES(ROW) GRID_TYPES(ROW)};
