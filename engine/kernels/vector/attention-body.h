/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flash attention over pages, and the writing of pages. Included by vector-X.c after lanes-X.h and polynomials.h, with
 * three constants: BLOCK_ROWS (rows of q whose accumulators fit the registers), KEY_LANES (groups of 16 keys in
 * flight in the scores), VALUE_LANES(w) (groups of 16 values in flight for w rows).
 *
 * A "row" is one query head of one query: row = query * group + head, group = query heads per KV head. All rows of a
 * call use the same K and V. They are taken in batches of at most ROWS_MAX, so that state stays in the first cache
 * levels; for each batch the segments, for each segment the tiles, for each tile:
 *
 *   scores    S[row][32 keys] = q . K        BLOCK_ROWS rows at a time: each key vector is loaded once for all of them
 *   softmax   new maximum, p = exp(S - maximum), correction of what was summed before
 *   values    acc[row][v] = acc * correction + sum over keys of p * V      BLOCK_ROWS rows at a time again
 *
 * Invariants:
 *   1. What happens to a row depends on the row alone: each (row, key) score is one chain of fma over the head's
 *      values in ascending order, each (row, value) accumulator one chain over the row's visible keys, ascending. How rows
 *      are grouped in registers or in batches changes no chain.
 *   2. Keys that a row does not see: the score is selected to -infinity, so p is exactly 0; the chain over values runs
 *      over [low, high) only, since 0 * NaN from an unwritten slot would be NaN, and even 0 * v can turn -0 into 0.
 *      The visible keys of a row in a tile are always one range.
 *   3. A tile of which a row sees nothing does not touch the row's state.
 */
#pragma once

#include <string.h>

#include "engine/kernels/attention.h"

enum {
    ROWS_MAX = ATTENTION_ROWS_MAX,
    TILE = KV_PAGE_TOKENS,
};

#define MINUS_INFINITY (-__builtin_inff())

/* Where the pieces of the scratch memory are; all aligned to 64 bytes. */
struct work {
    const struct attention_args *args;
    uint32_t group;         /* rows per query */
    uint32_t k_dim, v_dim, v_stride;
    bool k_is_half, v_is_half;
    uint32_t row0, n_rows;  /* the batch */
    uint32_t position[ATTENTION_ROWS_MAX]; /* of each row of the batch */
    float *q;               /* blocks of BLOCK_ROWS rows: [k_dim][rows of the block] */
    float *s;               /* [ROWS_MAX][TILE]: scores, then p */
    float *tile_max;        /* [ROWS_MAX] of this tile */
    float *correction;      /* [ROWS_MAX] */
    float *base;            /* [ROWS_MAX]: the maximum, or 0 while that is -infinity */
    struct attention_state part, total;
};

static void work_init(struct work *w, const struct attention_args *args)
{
    const struct kv_layout *l = args->layout;
    float *at = args->scratch;

    w->args = args;
    w->group = args->n_heads / l->n_kv_heads;
    w->k_dim = l->k_dim;
    w->v_dim = l->v_dim;
    w->v_stride = l->v_stride;
    w->k_is_half = l->k_type == TENSOR_F16;
    w->v_is_half = l->v_type == TENSOR_F16;
    w->tile_max = at;
    w->correction = at += ROWS_MAX;
    w->base = at += ROWS_MAX;
    w->s = at += ROWS_MAX;
    at = attention_state_place(&w->part, at + ROWS_MAX * TILE, ROWS_MAX, l->v_stride);
    at = attention_state_place(&w->total, at, ROWS_MAX, l->v_stride);
    w->q = at;
}

/* The keys of the tile at @tile0 that @row sees: [*low, *high), empty when *high is 0. */
LANES_INLINE void visible(const struct work *w, uint32_t row, uint32_t tile0, uint32_t *low, uint32_t *high)
{
    uint32_t position = w->position[row];
    uint32_t window = w->args->window;
    uint32_t first = window > 0 && position >= window ? position - window + 1 : 0;

    *low = first > tile0 ? first - tile0 : 0;
    *high = position >= tile0 ? position - tile0 + 1 : 0;
    if (*high > TILE)
        *high = TILE;
    if (*low >= *high)
        *low = *high = 0;
}

/* Rows of a block next to each other, so that the scores read q as one stream. */
static void pack_q(struct work *w)
{
    const struct attention_args *a = w->args;

    for (uint32_t block = 0; block < w->n_rows; block += BLOCK_ROWS) {
        uint32_t n = w->n_rows - block < BLOCK_ROWS ? w->n_rows - block : BLOCK_ROWS;
        float *to = w->q + (size_t)block * w->k_dim;

        for (uint32_t i = 0; i < n; i++) {
            uint32_t row = w->row0 + block + i;
            uint32_t head = a->kv_head * w->group + row % w->group;
            const float *from = a->q + row / w->group * a->q_stride + (size_t)head * w->k_dim;

            for (uint32_t d = 0; d < w->k_dim; d++)
                to[d * n + i] = from[d];
        }
    }
}

LANES_INLINE lanes load_value(const void *p, size_t i, bool is_half)
{
    return is_half ? lanes_load_half((const uint16_t *)p + i) : lanes_load((const float *)p + i);
}

/* s[n][TILE] = q[k_dim][n] . k[k_dim][TILE]; @n and @is_half are constants at every call. */
LANES_INLINE void scores_block(float *restrict s, const float *restrict q, const void *restrict k, uint32_t k_dim,
                               bool is_half, const uint32_t n)
{
    UNROLL_NOT
    for (uint32_t key = 0; key < TILE; key += KEY_LANES * LANES) {
        lanes acc[BLOCK_ROWS][KEY_LANES];

        UNROLL
        for (uint32_t i = 0; i < n; i++)
            UNROLL
            for (uint32_t j = 0; j < KEY_LANES; j++)
                acc[i][j] = lanes_zero();
        UNROLL_NOT
        for (size_t d = 0; d < k_dim; d++) {
            lanes keys[KEY_LANES];

            UNROLL
            for (uint32_t j = 0; j < KEY_LANES; j++)
                keys[j] = load_value(k, d * TILE + key + j * LANES, is_half);
            UNROLL
            for (uint32_t i = 0; i < n; i++) {
                lanes one = lanes_set(q[d * n + i]);

                UNROLL
                for (uint32_t j = 0; j < KEY_LANES; j++)
                    acc[i][j] = lanes_fma(one, keys[j], acc[i][j]);
            }
        }
        UNROLL
        for (uint32_t i = 0; i < n; i++)
            UNROLL
            for (uint32_t j = 0; j < KEY_LANES; j++)
                lanes_store(s + i * TILE + key + j * LANES, acc[i][j]);
    }
}

/*
 * acc[n][v_stride] = acc * correction + p[n][TILE] . v[TILE][v_stride], for m groups of 16 values and keys [low, high).
 * acc and v point to the first of these values already.
 */
LANES_INLINE void values_block(float *acc, const float *correction, const float *p, const void *v, size_t v_stride,
                               size_t low, size_t high, bool is_half, const uint32_t n, const uint32_t m)
{
    lanes sum[BLOCK_ROWS][VALUE_LANES_MAX];
    float *at = acc;

    UNROLL
    for (uint32_t i = 0; i < n; i++, at += v_stride) {
        lanes c = lanes_set(correction[i]);

        UNROLL
        for (uint32_t j = 0; j < m; j++)
            sum[i][j] = lanes_mul(lanes_load(at + j * LANES), c);
    }
    UNROLL_NOT
    for (size_t key = low; key < high; key++) {
        lanes values[VALUE_LANES_MAX];

        UNROLL
        for (uint32_t j = 0; j < m; j++)
            values[j] = load_value(v, key * v_stride + j * LANES, is_half);
        UNROLL
        for (uint32_t i = 0; i < n; i++) {
            lanes one = lanes_set(p[key + i * TILE]);

            UNROLL
            for (uint32_t j = 0; j < m; j++)
                sum[i][j] = lanes_fma(one, values[j], sum[i][j]);
        }
    }
    /* Else the compiler keeps all addresses from above in registers, and has none left for the values. */
    FORGET(acc);
    at = acc;
    UNROLL
    for (uint32_t i = 0; i < n; i++, at += v_stride)
        UNROLL
        for (uint32_t j = 0; j < m; j++)
            lanes_store(at + j * LANES, sum[i][j]);
}

LANES_INLINE void values_rows(float *acc, const float *correction, const float *p, const void *v, size_t v_stride,
                              size_t low, size_t high, bool is_half, const uint32_t n)
{
    const uint32_t m = VALUE_LANES(n);
    const size_t value = is_half ? sizeof(uint16_t) : sizeof(float);
    size_t i = 0;

    UNROLL_NOT
    for (; i + m * LANES <= v_stride; i += m * LANES)
        values_block(acc + i, correction, p, (const uint8_t *)v + i * value, v_stride, low, high, is_half, n, m);
    if (m > 1) {
        UNROLL_NOT
        for (; i < v_stride; i += LANES)
            values_block(acc + i, correction, p, (const uint8_t *)v + i * value, v_stride, low, high, is_half, n, 1);
    }
}

/* One function per number of rows and type, since the number of accumulators must be a constant. */
#define EACH_BLOCK(M)                                                                                                  \
    M(1) M(2) M(3) M(4) EACH_BLOCK_ABOVE_4(M)

#define DEFINE_BLOCKS(n)                                                                                               \
    static void scores_float_##n(float *s, const float *q, const void *k, uint32_t k_dim)                              \
    {                                                                                                                  \
        scores_block(s, q, k, k_dim, false, n);                                                                        \
    }                                                                                                                  \
    static void scores_half_##n(float *s, const float *q, const void *k, uint32_t k_dim)                               \
    {                                                                                                                  \
        scores_block(s, q, k, k_dim, true, n);                                                                         \
    }                                                                                                                  \
    static void values_float_##n(float *acc, const float *c, const float *p, const void *v, uint32_t v_stride,         \
                                 uint32_t low, uint32_t high)                                                          \
    {                                                                                                                  \
        values_rows(acc, c, p, v, v_stride, low, high, false, n);                                                      \
    }                                                                                                                  \
    static void values_half_##n(float *acc, const float *c, const float *p, const void *v, uint32_t v_stride,          \
                                uint32_t low, uint32_t high)                                                           \
    {                                                                                                                  \
        values_rows(acc, c, p, v, v_stride, low, high, true, n);                                                       \
    }

EACH_BLOCK(DEFINE_BLOCKS)

typedef void (*scores_fn)(float *s, const float *q, const void *k, uint32_t k_dim);
typedef void (*values_fn)(float *acc, const float *c, const float *p, const void *v, uint32_t v_stride, uint32_t low,
                          uint32_t high);

#define SCORES_ENTRY(n) [n] = {scores_float_##n, scores_half_##n},
#define VALUES_ENTRY(n) [n] = {values_float_##n, values_half_##n},

static const scores_fn scores_fns[BLOCK_ROWS + 1][2] = {EACH_BLOCK(SCORES_ENTRY)};
static const values_fn values_fns[BLOCK_ROWS + 1][2] = {EACH_BLOCK(VALUES_ENTRY)};

/* Scales, caps and masks the scores of @row; leaves the largest in tile_max. */
LANES_INLINE void scores_finish(struct work *w, uint32_t row, uint32_t low, uint32_t high)
{
    const struct attention_args *a = w->args;
    float *s = w->s + row * TILE;
    lanes x = lanes_mul(lanes_load(s), lanes_set(a->scale));
    lanes y = lanes_mul(lanes_load(s + LANES), lanes_set(a->scale));

    if (a->softcap > 0) {
        x = softcap_lanes(x, a->softcap);
        y = softcap_lanes(y, a->softcap);
    }
    if (high - low < TILE) {
        uint32_t seen = (uint32_t)((1ull << high) - (1ull << low));

        x = lanes_select(lanes_mask_bits(seen & 0xFFFFu), x, lanes_set(MINUS_INFINITY));
        y = lanes_select(lanes_mask_bits(seen >> LANES), y, lanes_set(MINUS_INFINITY));
    }
    lanes_store(s, x);
    lanes_store(s + LANES, y);
    w->tile_max[row] = lanes_max_of(lanes_max(x, y));
}

/*
 * maximum = max(maximum, tile_max), correction = exp(old - new), 16 rows at a time. A row whose tile_max is -infinity
 * keeps its maximum and gets a correction of exactly 1.
 */
static void maximum_update(struct work *w)
{
    for (uint32_t row = 0; row < w->n_rows; row += LANES) {
        lanes infinity = lanes_set(MINUS_INFINITY);
        lanes before = lanes_load(w->part.maximum + row);
        lanes now = lanes_max(before, lanes_load(w->tile_max + row));
        lanes down = lanes_select(lanes_equal(before, now), lanes_zero(), lanes_sub(before, now));

        lanes_store(w->part.maximum + row, now);
        lanes_store(w->correction + row, math_exp(down));
        lanes_store(w->base + row, lanes_select(lanes_equal(now, infinity), lanes_zero(), now));
    }
}

LANES_INLINE void softmax_row(struct work *w, uint32_t row)
{
    float *s = w->s + row * TILE, *sum = w->part.sum + row * LANES;
    lanes base = lanes_set(w->base[row]);
    lanes x = math_exp(lanes_sub(lanes_load(s), base));
    lanes y = math_exp(lanes_sub(lanes_load(s + LANES), base));

    lanes_store(s, x);
    lanes_store(s + LANES, y);
    lanes_store(sum, lanes_fma(lanes_load(sum), lanes_set(w->correction[row]), lanes_add(x, y)));
}

static void tile(struct work *w, uint32_t tile0)
{
    const struct kv_layout *l = w->args->layout;
    const uint8_t *page = w->args->pages[tile0 / TILE];
    const uint8_t *k = page + kv_layout_k_offset(l, w->args->kv_head);
    const uint8_t *v = page + kv_layout_v_offset(l, w->args->kv_head);

    for (uint32_t row = 0; row < w->n_rows; row += BLOCK_ROWS) {
        uint32_t n = w->n_rows - row < BLOCK_ROWS ? w->n_rows - row : BLOCK_ROWS;

        scores_fns[n][w->k_is_half](w->s + row * TILE, w->q + (size_t)row * w->k_dim, k, w->k_dim);
    }
    for (uint32_t row = 0; row < w->n_rows; row++) {
        uint32_t low, high;

        visible(w, row, tile0, &low, &high);
        if (high > 0)
            scores_finish(w, row, low, high);
        else
            w->tile_max[row] = MINUS_INFINITY;
    }
    maximum_update(w);

    /* Runs of rows that see the same keys: all rows of the batch, unless the tile is at an edge of what they see. */
    for (uint32_t row = 0, n; row < w->n_rows; row += n) {
        uint32_t low, high, next_low, next_high;

        visible(w, row, tile0, &low, &high);
        for (n = 1; n < BLOCK_ROWS && row + n < w->n_rows; n++) {
            visible(w, row + n, tile0, &next_low, &next_high);
            if (next_low != low || next_high != high)
                break;
        }
        if (high == 0)
            continue;
        for (uint32_t i = 0; i < n; i++)
            softmax_row(w, row + i);
        values_fns[n][w->v_is_half](w->part.acc + (size_t)row * w->v_stride, w->correction + row, w->s + row * TILE, v,
                                    w->v_stride, low, high);
    }
}

static void state_clear(struct attention_state *s, uint32_t n_rows, uint32_t v_stride)
{
    for (uint32_t row = 0; row < (n_rows + LANES - 1) / LANES * LANES; row++)
        s->maximum[row] = MINUS_INFINITY;
    memset(s->sum, 0, n_rows * LANES * sizeof(float));
    memset(s->acc, 0, (size_t)n_rows * v_stride * sizeof(float));
}

/* The first position that any row of the batch sees: rows are in order of position. */
static uint32_t first_seen(const struct work *w)
{
    uint32_t window = w->args->window;

    return window > 0 && w->position[0] >= window ? w->position[0] - window + 1 : 0;
}

/* One segment for the rows of the batch, into w->part. */
static void segment_run(struct work *w, uint32_t segment)
{
    uint32_t begin = segment * ATTENTION_SEGMENT_TOKENS, end = begin + ATTENTION_SEGMENT_TOKENS;
    uint32_t first = first_seen(w) / TILE * TILE, last = w->position[w->n_rows - 1];

    state_clear(&w->part, w->n_rows, w->v_stride);
    for (uint32_t tile0 = begin > first ? begin : first; tile0 < end && tile0 <= last; tile0 += TILE)
        tile(w, tile0);
}

/* total = total and part, as if their keys had been in one softmax. A part of which a row saw nothing changes nothing. */
static void state_merge(struct attention_state *total, const struct attention_state *part, uint32_t n_rows,
                        uint32_t v_stride)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        float m = part->maximum[row], n = total->maximum[row];
        float *acc = total->acc + (size_t)row * v_stride, *sum = total->sum + row * LANES;
        const float *part_acc = part->acc + (size_t)row * v_stride, *part_sum = part->sum + row * LANES;
        lanes now, keep, take;

        if (m == MINUS_INFINITY)
            continue;
        now = lanes_max(lanes_set(n), lanes_set(m));
        keep = lanes_select(lanes_equal(lanes_set(n), now), lanes_set(1.0f), math_exp(lanes_sub(lanes_set(n), now)));
        take = lanes_select(lanes_equal(lanes_set(m), now), lanes_set(1.0f), math_exp(lanes_sub(lanes_set(m), now)));
        total->maximum[row] = n > m ? n : m;
        lanes_store(sum, lanes_fma(lanes_load(part_sum), take, lanes_mul(lanes_load(sum), keep)));
        for (uint32_t i = 0; i < v_stride; i += LANES)
            lanes_store(acc + i, lanes_fma(lanes_load(part_acc + i), take, lanes_mul(lanes_load(acc + i), keep)));
    }
}

/* out = acc / sum, after the sink has been counted in. */
static void rows_write(const struct work *w)
{
    const struct attention_args *a = w->args;

    for (uint32_t row = 0; row < w->n_rows; row++) {
        uint32_t query = (w->row0 + row) / w->group, head = a->kv_head * w->group + (w->row0 + row) % w->group;
        float *out = a->out + query * a->out_stride + (size_t)head * w->v_dim;
        const float *acc = w->total.acc + (size_t)row * w->v_stride;
        lanes sum = lanes_set(lanes_sum(lanes_load(w->total.sum + row * LANES))), factor = lanes_set(1.0f);

        if (a->sinks && a->sinks[head] != MINUS_INFINITY) {
            lanes most = lanes_set(w->total.maximum[row]), sink = lanes_set(a->sinks[head]);
            lanes now = lanes_max(most, sink);

            factor = math_exp(lanes_sub(most, now));
            sum = lanes_fma(sum, factor, math_exp(lanes_sub(sink, now)));
        }
        factor = lanes_select(lanes_equal(sum, lanes_zero()), lanes_zero(), lanes_div(factor, sum));
        for (uint32_t i = 0; i < w->v_dim; i += LANES)
            store_upto(out + i, lanes_mul(lanes_load(acc + i), factor), w->v_dim - i);
    }
}

/* The batch of rows at @row0. */
static void batch_init(struct work *w, uint32_t row0)
{
    uint32_t left = w->args->n_queries * w->group - row0;

    w->row0 = row0;
    w->n_rows = left < ROWS_MAX ? left : ROWS_MAX;
    for (uint32_t row = 0; row < w->n_rows; row++)
        w->position[row] = w->args->position0 + (row0 + row) / w->group;
}

static void attend(const struct attention_args *args)
{
    struct work w;

    work_init(&w, args);
    for (uint32_t row = 0; row < args->n_queries * w.group; row += ROWS_MAX) {
        uint32_t last;

        batch_init(&w, row);
        pack_q(&w);
        state_clear(&w.total, w.n_rows, w.v_stride);
        /* Segments before the window would change nothing. */
        last = w.position[w.n_rows - 1] / ATTENTION_SEGMENT_TOKENS;
        for (uint32_t segment = first_seen(&w) / ATTENTION_SEGMENT_TOKENS; segment <= last; segment++) {
            segment_run(&w, segment);
            state_merge(&w.total, &w.part, w.n_rows, w.v_stride);
        }
        rows_write(&w);
    }
}

static void attend_part(const struct attention_args *args, uint32_t segment, void *part)
{
    struct attention_state all;
    struct work w;

    work_init(&w, args);
    attention_state_place(&all, part, args->n_queries * w.group, w.v_stride);
    for (uint32_t row = 0; row < args->n_queries * w.group; row += ROWS_MAX) {
        batch_init(&w, row);
        pack_q(&w);
        w.part = attention_state_at(&all, row, w.v_stride);
        segment_run(&w, segment);
    }
}

static void attend_merge(const struct attention_args *args, void *const *parts)
{
    uint32_t n_segments = attention_segments(args);
    struct work w;

    work_init(&w, args);
    for (uint32_t row = 0; row < args->n_queries * w.group; row += ROWS_MAX) {
        batch_init(&w, row);
        state_clear(&w.total, w.n_rows, w.v_stride);
        for (uint32_t i = 0; i < n_segments; i++) {
            struct attention_state all, part;

            attention_state_place(&all, parts[i], args->n_queries * w.group, w.v_stride);
            part = attention_state_at(&all, row, w.v_stride);
            state_merge(&w.total, &part, w.n_rows, w.v_stride);
        }
        rows_write(&w);
    }
}

/* K of one token goes to one lane of every row of the tile; converted 16 at a time, then scattered. */
static void write_k(void *to, bool is_half, uint32_t slot, const float *from, uint32_t n)
{
    for (uint32_t d = 0; d < n; d++) {
        if (!is_half)
            ((float *)to)[(size_t)d * TILE + slot] = from[d];
        else if (d % LANES == 0) {
            uint16_t halves[LANES];
            uint32_t n_here = n - d < LANES ? n - d : LANES;

            lanes_store_half(halves, load_upto(from + d, n - d));
            for (uint32_t i = 0; i < n_here; i++)
                ((uint16_t *)to)[(size_t)(d + i) * TILE + slot] = halves[i];
        }
    }
}

/* V of one token is one row; the padding is written as zero, so that the kernels need no tail. */
static void write_v(void *to, bool is_half, uint32_t slot, uint32_t stride, const float *from, uint32_t n)
{
    for (uint32_t i = 0; i < stride; i += LANES) {
        lanes x = load_upto(from + i, n - i);
        size_t at = (size_t)slot * stride + i;

        if (is_half)
            lanes_store_half((uint16_t *)to + at, x);
        else
            lanes_store((float *)to + at, x);
    }
}

static void kv_write_row(const struct kv_layout *l, void *page, uint32_t slot, const float *key, const float *value)
{
    for (uint32_t head = 0; head < l->n_kv_heads; head++) {
        write_k((uint8_t *)page + kv_layout_k_offset(l, head), l->k_type == TENSOR_F16, slot,
                key + (size_t)head * l->k_dim, l->k_dim);
        write_v((uint8_t *)page + kv_layout_v_offset(l, head), l->v_type == TENSOR_F16, slot, l->v_stride,
                value + (size_t)head * l->v_dim, l->v_dim);
    }
}
