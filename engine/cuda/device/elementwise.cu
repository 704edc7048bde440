/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What stands around the products: embedding, angles, norms, packing, activations, and the moving of rows and pages.
 * The sums are those of engine/kernels/vector.h: 16 threads are the 16 lanes.
 */
#include "engine/cuda/device/blocks-grid.cuh"
#include "engine/cuda/device/math.cuh"

/* --- embedding --- */

/* 32 values of a row from its chunk @c on, as dequantise_row() gives them. */
template <class F> DEV void dequantise_chunk(block_ptr row, uint32_t c, float out[32])
{
    block_ptr b = row + (uint64_t)(c / (F::values / 32)) * F::bytes;
    struct chunk k;
    float d = F::d(b), dmin = F::dmin(b);

    F::decode(b, c % (F::values / 32), &k);
    UNROLL
    for (int i = 0; i < 32; i++) {
        float value = d * (float)k.scale[i / 16] * (float)(int8_t)(k.q[i / 4] >> i % 4 * 8 & 255);

        out[i] = F::mins ? value - dmin * (float)k.min[i / 16] : value;
    }
}

#define DEQUANTISE_CASE(upper, lower)                                                                              \
    case TENSOR_##upper:                                                                                           \
        dequantise_chunk<format_##lower>(row, c, out);                                                             \
        break;

/* @n: values that there are, at most 32; less than 32 only in rows of floats */
DEV void dequantise(uint32_t type, block_ptr row, uint32_t c, uint32_t n, float out[32])
{
    switch (type) {
    case TENSOR_F32:
        UNROLL
        for (uint32_t i = 0; i < 32; i++)
            out[i] = i < n ? (float)recast<const float>(row)[32 * c + i] : 0.0f;
        break;
    case TENSOR_F16:
        UNROLL
        for (uint32_t i = 0; i < 32; i++)
            out[i] = i < n ? half_float(recast<const uint16_t>(row)[32 * c + i]) : 0.0f;
        break;
    case TENSOR_BF16:
        UNROLL
        for (uint32_t i = 0; i < 32; i++)
            out[i] = i < n ? bits_to_float((uint32_t)recast<const uint16_t>(row)[32 * c + i] << 16) : 0.0f;
        break;
        DEQUANTISE_CASE(Q4_0, q4_0)
        DEQUANTISE_CASE(Q4_1, q4_1)
        DEQUANTISE_CASE(Q5_0, q5_0)
        DEQUANTISE_CASE(Q5_1, q5_1)
        DEQUANTISE_CASE(Q8_0, q8_0)
        DEQUANTISE_CASE(IQ4_NL, iq4_nl)
        DEQUANTISE_CASE(MXFP4, mxfp4)
        DEQUANTISE_CASE(Q2_K, q2_k)
        DEQUANTISE_CASE(Q3_K, q3_k)
        DEQUANTISE_CASE(Q4_K, q4_k)
        DEQUANTISE_CASE(Q5_K, q5_k)
        DEQUANTISE_CASE(Q6_K, q6_k)
        DEQUANTISE_CASE(IQ4_XS, iq4_xs)
        DEQUANTISE_CASE(IQ2_XXS, iq2_xxs)
        DEQUANTISE_CASE(IQ2_XS, iq2_xs)
        DEQUANTISE_CASE(IQ2_S, iq2_s)
        DEQUANTISE_CASE(IQ3_XXS, iq3_xxs)
        DEQUANTISE_CASE(IQ3_S, iq3_s)
        DEQUANTISE_CASE(IQ1_S, iq1_s)
        DEQUANTISE_CASE(IQ1_M, iq1_m)
        DEQUANTISE_CASE(TQ1_0, tq1_0)
        DEQUANTISE_CASE(TQ2_0, tq2_0)
    default:
        break;
    }
}

KERNEL(embed, launch_embed, LAUNCH_EMBED_THREADS)
{
    uint32_t t = block_x(), c = block_y() * LAUNCH_EMBED_THREADS + thread_index(), n;
    device_ptr<float> out = at_address<float>(a.out) + (uint64_t)t * a.n_cols + 32 * c;
    float x[32];

    if (32 * c >= a.n_cols)
        return;
    n = a.n_cols - 32 * c < 32 ? a.n_cols - 32 * c : 32;
    /* One decoder for three matrices: it is most of the kernel's code. */
    UNROLL_NOT
    for (int m = 0; m < 3; m++) {
        launch_address matrix = m == 0 ? a.weight : m == 1 ? a.kind : a.position;
        uint32_t type = m == 0 ? a.weight_type : m == 1 ? a.kind_type : a.position_type;
        uint64_t at = 0;
        float y[32];

        if (!matrix)
            continue;
        if (m == 0)
            at = (uint64_t)(uint32_t)at_address<const int32_t>(a.tokens)[t] * a.weight_row_bytes;
        else if (m == 2)
            at = at_address<const uint32_t>(a.positions)[t] * a.position_row_bytes;
        dequantise(type, at_address<const uint8_t>(matrix) + at, c, n, y);
        UNROLL
        for (int i = 0; i < 32; i++)
            x[i] = m > 0 ? x[i] + y[i] : a.scale != 1.0f ? y[i] * a.scale : y[i];
    }
    UNROLL
    for (uint32_t i = 0; i < 32; i++)
        if (i < n)
            out[i] = x[i];
}

/* --- angles --- */

#define ANGLE DEV
#include "engine/kernels/rope-angle.inc"

KERNEL(rope_table, launch_rope_table, LAUNCH_THREADS)
{
    uint32_t n_pairs = a.n_rot / 2;
    uint64_t at = (uint64_t)block_x() * LAUNCH_THREADS + thread_index();
    device_ptr<float> out = at_address<float>(a.out) + 2 * at;
    double s, c;

    if (at >= (uint64_t)a.n_tokens * n_pairs)
        return;
    sine_and_cosine((double)at_address<const uint32_t>(a.positions)[at / n_pairs] *
                        at_address<const double>(a.frequency)[at % n_pairs],
                    &s, &c);
    out[0] = (float)c * a.magnitude;
    out[1] = (float)s * a.magnitude;
}

/* --- packing --- */

/* Below it a block's largest value counts as zero: 127 / amax must stay finite. */
#define PACK_TINY 0x1p-120f

DEV uint32_t max_bits(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Eight values, quantised with their block's largest magnitude; returns the scale. */
DEV float quantise(const float x[8], uint32_t amax_bits, int q[8])
{
    float amax = bits_to_float(amax_bits), id;
    bool is_none = amax_bits >= 0x7F800000u || amax < PACK_TINY;

    id = divide(127.0f, is_none ? 1.0f : amax);
    UNROLL
    for (int i = 0; i < 8; i++) {
        int value = is_none ? 0 : (int)((x[i] * id + 12582912.0f) - 12582912.0f);

        q[i] = value > 127 ? 127 : value < -127 ? -127 : value;
    }
    return amax_bits >= 0x7F800000u ? bits_to_float(0x7FC00000u) : is_none ? 0.0f : divide(amax, 127.0f);
}

/*
 * A warp packs 256 values from @c256 on of a row of @k into row @r of each form: eight values a lane, so that a block of
 * 32 is four lanes and one of 256 all.
 */
DEV void pack_256(const launch_address packs[3], uint32_t r, uint32_t k, uint32_t c256, device_ptr<const float> from)
{
    uint32_t first = 256 * c256 + 8 * lane_index(), bits = 0;
    float x[8];

    UNROLL
    for (uint32_t i = 0; i < 8; i++) {
        x[i] = first + i < k ? (float)from[first + i] : 0.0f;
        bits = max_bits(bits, float_bits(x[i]) & 0x7FFFFFFFu);
    }
    if (packs[LAUNCH_ACT_F32]) {
        device_ptr<float> to = at_address<float>(packs[LAUNCH_ACT_F32] +
                                                 (uint64_t)r * launch_act_row_bytes(LAUNCH_ACT_F32, k));

        UNROLL
        for (uint32_t i = 0; i < 8; i++)
            if (first + i < k)
                to[first + i] = x[i];
    }
    UNROLL_NOT
    for (uint32_t form = LAUNCH_ACT_Q8_32; form <= LAUNCH_ACT_Q8_256; form++) {
        const enum launch_act act = form == LAUNCH_ACT_Q8_32 ? LAUNCH_ACT_Q8_32 : LAUNCH_ACT_Q8_256;
        device_ptr<uint8_t> to = at_address<uint8_t>(packs[form] + (uint64_t)r * launch_act_row_bytes(act, k));
        uint32_t most = bits;
        int q[8], sum = 0;
        float d;

        if (!packs[form])
            continue;
        UNROLL
        for (uint32_t i = 1; i < 32; i *= 2) {
            uint32_t other = shuffle_xor(most, i);

            if (i < 4 || act == LAUNCH_ACT_Q8_256)
                most = max_bits(most, other);
        }
        d = quantise(x, most, q);
        UNROLL
        for (int i = 0; i < 8; i++)
            sum += q[i];
        sum += shuffle_xor(sum, 1);
        if (first >= k)
            continue;
        UNROLL
        for (int i = 0; i < 2; i++)
            recast<uint32_t>(to + first)[i] = ((uint32_t)q[4 * i] & 255) | ((uint32_t)q[4 * i + 1] & 255) << 8 |
                                              ((uint32_t)q[4 * i + 2] & 255) << 16 | (uint32_t)q[4 * i + 3] << 24;
        if (first % launch_act_block(act) == 0)
            recast<float>(to + launch_act_scales_at(k))[first / launch_act_block(act)] = d;
        if (first % 16 == 0)
            recast<int16_t>(to + launch_act_sums_at(act, k))[first / 16] = (int16_t)sum;
    }
}

KERNEL(pack, launch_pack, 32 * LAUNCH_PACK_WARPS)
{
    uint32_t r = block_x(), c = block_y() * LAUNCH_PACK_WARPS + warp_index(), token = r / a.n_parts;
    uint64_t at;

    if (256 * c >= a.n_cols)
        return;
    if (a.rows)
        token = at_address<const uint32_t>(a.rows)[token];
    at = (uint64_t)token * a.in_stride + (uint64_t)(r % a.n_parts) * a.part_stride + a.part_first;
    pack_256(a.packs, r, a.n_cols, c, at_address<const float>(a.in) + at);
}

/* --- norms --- */

#define NORM_TILE 2048 /* floats that are brought to shared memory at a time, for the 16 that sum */

enum { NORM_SQUARES, NORM_SUM, NORM_VARIANCE };

/* The sum over a row by the rule: all threads fetch, 16 add. All threads get it. */
DEV float norm_sum(device_ptr<const float> x, uint32_t n, int what, float mean)
{
    SHARED(float, tile, NORM_TILE);
    SHARED(float, total, 1);
    uint32_t thread = thread_index();
    float sum = 0.0f;

    UNROLL_NOT
    for (uint32_t i0 = 0; i0 < n; i0 += NORM_TILE) {
        uint32_t left = n - i0 < NORM_TILE ? n - i0 : NORM_TILE;

        for (uint32_t i = thread; i < left; i += LAUNCH_THREADS)
            tile[i] = x[i0 + i];
        barrier();
        if (thread < 16) {
            UNROLL_NOT
            for (uint32_t i = thread; i < left; i += 16) {
                float v = tile[i];

                if (what == NORM_VARIANCE)
                    v = v - mean;
                sum = what == NORM_SUM ? sum + v : fused(v, v, sum);
            }
        }
        barrier();
    }
    if (thread < 32) {
        sum = math_fold(sum);
        if (thread == 0)
            total[0] = sum;
    }
    barrier();
    sum = total[0];
    barrier();
    return sum;
}

DEV void norm_row(device_ptr<const float> x, device_ptr<float> y, launch_address weight, launch_address bias, uint32_t n,
                  float epsilon, bool is_layer_norm)
{
    float mean = is_layer_norm ? divide(norm_sum(x, n, NORM_SUM, 0.0f), (float)n) : 0.0f;
    float factor = norm_sum(x, n, is_layer_norm ? NORM_VARIANCE : NORM_SQUARES, mean);

    factor = divide(1.0f, square_root(divide(factor, (float)n) + epsilon));
    UNROLL_NOT
    for (uint32_t i = thread_index(); i < n; i += LAUNCH_THREADS) {
        float v = is_layer_norm ? (x[i] - mean) * factor : x[i] * factor;

        if (weight && bias)
            v = fused(v, at_address<const float>(weight)[i], at_address<const float>(bias)[i]);
        else if (weight)
            v = v * at_address<const float>(weight)[i];
        else if (bias)
            v = v + at_address<const float>(bias)[i];
        y[i] = v;
    }
}

KERNEL(norm, launch_norm, LAUNCH_THREADS)
{
    uint32_t r = block_x(), n = a.n_cols, row = a.rows ? (uint32_t)at_address<const uint32_t>(a.rows)[r] : r;
    device_ptr<float> x = at_address<float>(a.in) + (uint64_t)row * n;
    device_ptr<float> y = at_address<float>(a.out) + (uint64_t)r * n;

    if (a.add) {
        device_ptr<float> add = at_address<float>(a.add) + (uint64_t)r * n;

        norm_row(add, add, a.add_weight, 0, n, a.epsilon, false);
        for (uint32_t i = thread_index(); i < n; i += LAUNCH_THREADS) /* each thread's own elements */
            x[i] = x[i] + add[i];
        barrier();
    }
    if (!a.out)
        return;
    norm_row(x, y, a.weight, a.is_layer_norm ? a.bias : 0, n, a.epsilon, a.is_layer_norm != 0);
    if (!a.packs[0] && !a.packs[1] && !a.packs[2])
        return;
    barrier();
    UNROLL_NOT
    for (uint32_t c = warp_index(); 256 * c < n; c += LAUNCH_THREADS / 32)
        pack_256(a.packs, r, n, c, y);
}

/* --- element by element --- */

enum { GLU_SILU, GLU_GELU, GLU_CLAMPED };

KERNEL(glu, launch_glu, LAUNCH_THREADS)
{
    uint64_t i = (uint64_t)block_x() * LAUNCH_THREADS + thread_index();
    float gate, up, y;

    if (i >= a.n)
        return;
    gate = at_address<const float>(a.gate)[i];
    if (!a.up) {
        y = a.kind == GLU_GELU ? math_gelu(gate) : math_silu(gate);
    } else if (a.kind == GLU_CLAMPED) {
        up = at_address<const float>(a.up)[i];
        gate = a.limit < gate ? a.limit : gate;
        up = a.limit < up ? a.limit : up;
        up = -a.limit > up ? -a.limit : up;
        y = (up + 1.0f) * math_gate(gate, a.alpha * gate);
    } else {
        up = at_address<const float>(a.up)[i];
        y = (a.kind == GLU_GELU ? math_gelu(gate) : math_silu(gate)) * up;
    }
    at_address<float>(a.out)[i] = y;
}

KERNEL(join, launch_join, LAUNCH_THREADS)
{
    uint32_t t = block_x(), i = block_y() * LAUNCH_THREADS + thread_index();
    uint32_t n_each = a.parts[0].n + (a.n_parts > 1 ? a.parts[1].n : 0), head = i / n_each, at = i % n_each;
    uint32_t n_first = a.parts[0].n, n_cols, from;
    launch_address in;

    if (head >= a.n_heads)
        return;
    if (at < n_first) {
        in = a.parts[0].in;
        n_cols = a.parts[0].n_cols;
        from = head * a.parts[0].stride + a.parts[0].first + at;
    } else {
        in = a.parts[1].in;
        n_cols = a.parts[1].n_cols;
        from = head * a.parts[1].stride + a.parts[1].first + at - n_first;
    }
    at_address<float>(a.out)[(uint64_t)t * a.n_heads * n_each + i] = at_address<const float>(in)[(uint64_t)t * n_cols + from];
}

/* --- the largest --- */

/* Rises with the value; NaN is below everything. */
DEV uint32_t rank_of(float x)
{
    uint32_t bits = float_bits(x);

    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return 0;
    if (bits == 0x80000000u)
        bits = 0; /* both zeros are equal */
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* Whether (rank a, index i) comes before (rank b, index j): larger, or equal and earlier. */
DEV bool is_before(uint32_t a, uint32_t i, uint32_t b, uint32_t j)
{
    return a > b || (a == b && i < j);
}

#define TOP_K_EACH (LAUNCH_TOP_K_COLUMNS / LAUNCH_THREADS) /* columns of a thread */

/* What column @i of the row at @at stands for; none: behind all others. */
DEV uint32_t top_k_index(const struct launch_top_k &a, uint64_t at, uint32_t i)
{
    return a.from ? at_address<const uint32_t>(a.from)[at + i] : i;
}

/* A block: some columns of a row. Each thread has its own in registers and offers the first of them; whoever's was the
 * first of all offers its next one. */
KERNEL(top_k, launch_top_k, LAUNCH_THREADS)
{
    SHARED(uint32_t, ranks, LAUNCH_THREADS / 32);
    SHARED(uint32_t, indices, LAUNCH_THREADS / 32);
    uint32_t first = block_x() * LAUNCH_TOP_K_COLUMNS + thread_index(), left = 0, at = 0;
    uint32_t n_parts = (a.n_cols + LAUNCH_TOP_K_COLUMNS - 1) / LAUNCH_TOP_K_COLUMNS;
    uint64_t row = (uint64_t)block_y() * a.n_cols, out = ((uint64_t)block_y() * n_parts + block_x()) * a.k;
    device_ptr<const float> x = at_address<const float>(a.in) + row;
    uint32_t own[TOP_K_EACH], names[TOP_K_EACH], rank = 0, index = UINT32_MAX;

    UNROLL
    for (uint32_t i = 0; i < TOP_K_EACH; i++) {
        uint32_t column = first + i * LAUNCH_THREADS;

        own[i] = 0;
        names[i] = UINT32_MAX;
        if (column < a.n_cols) {
            own[i] = rank_of(x[column]);
            names[i] = top_k_index(a, row, column);
            left |= 1u << i;
        }
    }
    UNROLL_NOT
    for (uint32_t n = 0; n < a.k; n++) {
        uint32_t best_rank = 0, best_index = UINT32_MAX;

        if (n == 0 || left >> 31) {
            rank = 0;
            index = UINT32_MAX;
            left &= 0x7FFFFFFFu;
            UNROLL
            for (uint32_t i = 0; i < TOP_K_EACH; i++) {
                if ((left >> i & 1) && is_before(own[i], names[i], rank, index)) {
                    rank = own[i];
                    index = names[i];
                    at = i;
                }
            }
        }
        best_rank = rank;
        best_index = index;
        UNROLL
        for (uint32_t m = 16; m > 0; m /= 2) {
            uint32_t other = shuffle_xor(best_rank, m), name = shuffle_xor(best_index, m);

            if (is_before(other, name, best_rank, best_index)) {
                best_rank = other;
                best_index = name;
            }
        }
        if (lane_index() == 0) {
            ranks[warp_index()] = best_rank;
            indices[warp_index()] = best_index;
        }
        barrier();
        UNROLL_NOT
        for (uint32_t i = 0; i < LAUNCH_THREADS / 32; i++) {
            if (is_before(ranks[i], indices[i], best_rank, best_index)) {
                best_rank = ranks[i];
                best_index = indices[i];
            }
        }
        if (best_index == UINT32_MAX) { /* fewer than k */
            if (thread_index() == 0) {
                at_address<uint32_t>(a.indices)[out + n] = UINT32_MAX;
                at_address<float>(a.values)[out + n] = bits_to_float(0x7FC00000u);
            }
        } else if (index == best_index) {
            at_address<uint32_t>(a.indices)[out + n] = index;
            at_address<float>(a.values)[out + n] = x[first + at * LAUNCH_THREADS];
            left = (left & ~(1u << at)) | 1u << 31;
        }
        barrier();
    }
}

/* --- pages --- */

KERNEL(zero_pages, launch_zero_pages, LAUNCH_THREADS)
{
    uint32_t page = at_address<const uint32_t>(a.pages)[block_x()];
    device_ptr<struct words4> to = at_address<struct words4>(a.memory + page * a.page_bytes);
    const struct words4 zero = {};

    for (uint64_t i = (uint64_t)block_y() * LAUNCH_THREADS + thread_index(); i < a.page_bytes / 16;
         i += (uint64_t)grid_y() * LAUNCH_THREADS)
        to[i] = zero;
}

KERNEL(copy_pages, launch_copy_pages, LAUNCH_THREADS)
{
    uint32_t from_page = at_address<const uint32_t>(a.from)[block_x()], to_page = at_address<const uint32_t>(a.to)[block_x()];
    device_ptr<const struct words4> from = at_address<const struct words4>(a.memory + from_page * a.page_bytes);
    device_ptr<struct words4> to = at_address<struct words4>(a.memory + to_page * a.page_bytes);

    for (uint64_t i = (uint64_t)block_y() * LAUNCH_THREADS + thread_index(); i < a.page_bytes / 16;
         i += (uint64_t)grid_y() * LAUNCH_THREADS) {
        struct words4 value = from[i];

        to[i] = value;
    }
}
