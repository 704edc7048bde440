/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Attention over pages, and the writing of pages: engine/kernels/vector/attention.inc and kv-types.inc for the GPU, in
 * the same order of operations. What a tile, a segment, a row and its state are is explained there.
 *
 * A page is a tile of 32 keys with tokens as lanes, so a lane of a warp is a key while scores are computed, and a value
 * of the head while they are applied. A warp has rows of its own, and what it knows of them lies in its part of shared
 * memory: warps never wait for each other.
 */
#include "engine/cuda/device/device.cuh"
#include "engine/cuda/device/math.cuh"

#define TILE 32

/* --- writing --- */

#define KV_HALF_MAX 65504.0f

/* x / scale + offset, cut to [0, most] and then to an integer. */
DEV uint32_t kv_code(float x, float inverse, float offset, float most)
{
    float y = x * inverse + offset;

    return (uint32_t)(y < 0.0f ? 0.0f : y > most ? most : y);
}

DEV float kv_extreme(float x, bool largest)
{
    UNROLL
    for (uint32_t i = 16; i > 0; i /= 2) {
        float other = shuffle_xor(x, i);

        x = largest == (other > x) ? other : x;
    }
    return x;
}

/* A warp quantises 32 values, a lane each: returns the lane's code, and the scale as it is stored. */
DEV uint32_t kv_quantise(uint32_t type, float x, uint16_t *ret_d)
{
    uint32_t n_bad = x <= KV_HALF_MAX && x >= -KV_HALF_MAX ? 0 : 1;
    float first = shuffle(x, 0), most, least, extreme, scale, inverse;

    UNROLL
    for (uint32_t i = 16; i > 0; i /= 2)
        n_bad += shuffle_xor(n_bad, i);
    most = kv_extreme(x, true);
    least = kv_extreme(x, false);
    if (n_bad > 0) {
        *ret_d = 0x7E00;
        return 0;
    }
    extreme = most > -least ? most : least;
    if (extreme == 0.0f)
        extreme = first; /* the sign of a zero is the first value's */
    if (type == TENSOR_Q8_0)
        extreme = divide(extreme < 0.0f ? -extreme : extreme, 127.0f);
    else
        extreme = divide(extreme, -8.0f);
    *ret_d = float_half(extreme);
    scale = half_float(*ret_d);
    inverse = scale == 0.0f ? 0.0f : divide(1.0f, scale);
    if (type == TENSOR_Q8_0)
        return (kv_code(x, inverse, 128.5f, 255.0f) - 128) & 255;
    return kv_code(x, inverse, 8.5f, 15.0f);
}

/*
 * @n values of a head go to the page's K (@slot is the lane) or V (@slot is the row), whose rows have @stride values. All
 * warps of the block take turns at blocks of 32.
 */
DEV void kv_write(uint32_t type, bool is_k, device_ptr<uint8_t> to, uint32_t slot, device_ptr<const float> from, uint32_t n,
                  uint32_t stride)
{
    uint32_t lane = lane_index(), block_bytes = type == TENSOR_Q8_0 ? 34 : 18;

    if (type == TENSOR_F32 || type == TENSOR_F16) {
        UNROLL_NOT
        for (uint32_t i = thread_index(); i < stride; i += LAUNCH_HEAD_THREADS) {
            float x = i < n ? (float)from[i] : 0.0f;
            uint32_t at = is_k ? i * TILE + slot : slot * stride + i;

            if (type == TENSOR_F32)
                recast<float>(to)[at] = x;
            else
                recast<uint16_t>(to)[at] = float_half(x);
        }
        return;
    }
    UNROLL_NOT
    for (uint32_t b = warp_index(); 32 * b < n; b += LAUNCH_HEAD_THREADS / 32) {
        float x = 32 * b + lane < n ? (float)from[32 * b + lane] : 0.0f;
        uint16_t d;
        uint32_t code = kv_quantise(type, x, &d), upper = shuffle(code, lane + 16);
        bool is_plane = is_k || type == TENSOR_Q8_0; /* 32 tokens' block */
        device_ptr<uint8_t> block = is_plane ? to + b * block_bytes * TILE : to + (slot * ((n + 31) / 32) + b) * block_bytes;
        uint32_t scale_at = is_plane ? 2 * slot : 0, codes_at = is_plane ? 2 * TILE : 2;

        if (lane == 0)
            *recast<uint16_t>(block + scale_at) = d;
        if (type == TENSOR_Q8_0 && is_k)
            block[codes_at + lane / 4 * (4 * TILE) + slot * 4 + lane % 4] = (uint8_t)(code ^ 128);
        else if (type == TENSOR_Q8_0)
            block[codes_at + slot / 4 * (4 * TILE) + lane * 4 + slot % 4] = (uint8_t)code;
        else if (lane < 16)
            block[codes_at + (is_k ? lane * TILE + slot : lane)] = (uint8_t)(code | upper << 4);
    }
}

/* RMS norm of a head in shared memory, by one warp's 16 lanes and then all threads. */
DEV void head_norm(device_ptr<float> x, launch_address weight, uint32_t n, float epsilon)
{
    SHARED(float, factor, 1);

    if (thread_index() < 32) {
        float sum = 0.0f;

        UNROLL_NOT
        for (uint32_t i = thread_index() % 16; i < n; i += 16)
            sum = fused(x[i], x[i], sum);
        sum = math_fold(sum);
        if (thread_index() == 0)
            factor[0] = divide(1.0f, square_root(divide(sum, (float)n) + epsilon));
    }
    barrier();
    UNROLL_NOT
    for (uint32_t i = thread_index(); i < n; i += LAUNCH_HEAD_THREADS) {
        float v = x[i] * factor[0];

        x[i] = v * at_address<const float>(weight)[i];
    }
    barrier();
}

/* The rotation of engine/kernels/vector/norm.inc: a thread per pair. */
DEV void head_rotate(device_ptr<float> x, device_ptr<const float> table, uint32_t n_rot, bool interleaved)
{
    UNROLL_NOT
    for (uint32_t i = thread_index(); i < n_rot / 2; i += LAUNCH_HEAD_THREADS) {
        uint32_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + n_rot / 2;
        float x0 = x[first], x1 = x[second], c = table[2 * i], s = table[2 * i + 1];

        x[first] = fused(x0, c, -(x1 * s));
        x[second] = fused(x1, c, x0 * s);
    }
    barrier();
}

/* A block per token and head: first those of q, then of k, then of v. */
KERNEL(rope_write, launch_rope_write, LAUNCH_HEAD_THREADS)
{
    SHARED(float, head_values, 1024);
    uint32_t t = block_x(), head = block_y(), n_heads = a.n_heads, dim = a.kv.k_dim;
    uint32_t position = at_address<const uint32_t>(a.positions)[t], run = at_address<const uint32_t>(a.token_runs)[t];
    bool is_v = head >= n_heads + a.kv.n_kv_heads, is_k = !is_v && head >= n_heads;
    launch_address from = a.q, norm = a.q_norm, page;
    uint64_t head_at;
    device_ptr<float> x;

    if (is_k) {
        head -= n_heads;
        n_heads = a.kv.n_kv_heads;
        from = a.k;
        norm = a.k_norm;
    } else if (is_v) {
        head -= n_heads + a.kv.n_kv_heads;
        n_heads = a.kv.n_kv_heads;
        dim = a.kv.v_dim;
        from = a.v;
        norm = 0;
    }
    x = at_address<float>(from) + ((uint64_t)t * n_heads + head) * dim;
    if (!is_v) {
        for (uint32_t i = thread_index(); i < dim; i += LAUNCH_HEAD_THREADS)
            head_values[i] = x[i];
        barrier();
        if (norm)
            head_norm(head_values, norm, dim, a.epsilon);
        if (a.table)
            head_rotate(head_values, at_address<const float>(a.table) + (uint64_t)t * a.n_rot, a.n_rot, a.interleaved != 0);
        for (uint32_t i = thread_index(); i < dim; i += LAUNCH_HEAD_THREADS)
            x[i] = head_values[i];
        if (!is_k)
            return;
    }
    page = a.kv.memory +
           at_address<const uint32_t>(a.kv.tables)[(uint64_t)run * a.kv.table_stride + position / TILE] * a.kv.page_stride;
    head_at = head * (a.kv.k_bytes + a.kv.v_bytes);
    if (is_k)
        kv_write(a.kv.k_type, true, at_address<uint8_t>(page + head_at), position % TILE, head_values, dim, dim);
    else
        kv_write(a.kv.v_type, false, at_address<uint8_t>(page + head_at + a.kv.k_bytes), position % TILE, x, dim, a.kv.v_stride);
}

/* --- reading --- */

/* Value @i of the head of the key in @slot, in any type but Q8_0. */
DEV float kv_key(uint32_t type, device_ptr<const uint8_t> k, uint32_t i, uint32_t slot)
{
    device_ptr<const uint8_t> block;
    uint32_t code;
    float d;

    if (type == TENSOR_F16)
        return half_float(recast<const uint16_t>(k)[i * TILE + slot]);
    if (type == TENSOR_F32)
        return recast<const float>(k)[i * TILE + slot];
    block = k + i / 32 * (18 * TILE);
    d = half_float(recast<const uint16_t>(block)[slot]);
    code = (uint32_t)block[2 * TILE + i % 16 * TILE + slot] >> i % 32 / 16 * 4 & 15;
    return (float)((int)code - 8) * d;
}

/* Value @i of the token in @slot, in any type but Q8_0. */
DEV float kv_value(uint32_t type, device_ptr<const uint8_t> v, uint32_t i, uint32_t slot, uint32_t stride)
{
    device_ptr<const uint8_t> block;
    uint32_t code;
    float d;

    if (type == TENSOR_F16)
        return half_float(recast<const uint16_t>(v)[slot * stride + i]);
    if (type == TENSOR_F32)
        return recast<const float>(v)[slot * stride + i];
    block = v + (slot * (stride / 32) + i / 32) * 18;
    d = half_float(*recast<const uint16_t>(block));
    code = (uint32_t)block[2 + i % 16] >> i % 32 / 16 * 4 & 15;
    return (float)((int)code - 8) * d;
}

/* --- attention --- */

#define WARPS     (LAUNCH_ATTENTION_THREADS / 32)
#define WARP_ROWS (LAUNCH_ATTENTION_ROWS / WARPS) /* at most */

/* The rows of a warp; what is [WARP_ROWS] is in registers, the same in all lanes, sums in lanes as the rule wants. */
struct rows {
    uint32_t n, first_position, last_position; /* of any of the rows */
    uint32_t low_position[WARP_ROWS], position[WARP_ROWS]; /* the first and the last that each sees */
    float maximum[WARP_ROWS], sum[WARP_ROWS];
    float total_maximum[WARP_ROWS], total_sum[WARP_ROWS];
    uint32_t q_stride;
    device_ptr<float> q;         /* [n][q_stride] */
    device_ptr<float> p;         /* [n][TILE] */
    device_ptr<float> acc;       /* [n][v_stride] */
    device_ptr<float> total_acc; /* likewise, where segments are merged */
};

#include "engine/cuda/device/attention-bytes.cuh"

/* Scores of a tile: a key per lane. They are left in s, keys that a row does not see at minus infinity. */
DEV void tile_scores(const struct launch_attention &a, const struct rows &r, device_ptr<const uint8_t> k, uint32_t tile0,
                     float s[WARP_ROWS])
{
    uint32_t key = tile0 + lane_index();

    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++)
        s[i] = 0.0f;
    if (a.kv.k_type == TENSOR_Q8_0) {
        bytes_scores(a, r, k, s);
    } else {
        UNROLL_NOT
        for (uint32_t d = 0; d < a.kv.k_dim; d++) {
            float value = kv_key(a.kv.k_type, k, d, lane_index());

            UNROLL
            for (uint32_t i = 0; i < WARP_ROWS; i++)
                if (i < r.n)
                    s[i] = fused(r.q[i * r.q_stride + d], value, s[i]);
        }
    }
    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++) {
        s[i] = s[i] * a.scale;
        if (a.softcap > 0.0f)
            s[i] = math_softcap(s[i], a.softcap);
        if (i >= r.n || key < r.low_position[i] || key > r.position[i])
            s[i] = MINUS_INFINITY;
    }
}

/* exp(a - b) for a <= b, and 1 where both are -infinity. */
DEV float exp_below(float a, float b)
{
    return math_exp(a == b ? 0.0f : a - b);
}

/*
 * New maxima, probabilities in place of the scores, and the correction of what was summed before. @is_bytes: p is relative to
 * the tile's maximum, and @factor what that differs by.
 */
DEV void tile_softmax(struct rows &r, float s[WARP_ROWS], bool is_bytes, const bool sees[WARP_ROWS], float correction[WARP_ROWS],
                      float factor[WARP_ROWS])
{
    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++) {
        float most = math_max(s[i], shuffle_xor(s[i], 16)), before = r.maximum[i], base, p, both;

        most = math_fold_max(most);
        correction[i] = factor[i] = 1.0f;
        if (sees[i]) { /* the same in all lanes, but they need not be together below */
            r.maximum[i] = math_max(before, most);
            correction[i] = exp_below(before, r.maximum[i]);
            if (is_bytes)
                factor[i] = exp_below(most, r.maximum[i]);
        }
        base = is_bytes ? most : r.maximum[i];
        base = base == MINUS_INFINITY ? 0.0f : base;
        p = math_exp(s[i] - base);
        both = (p + shuffle_xor(p, 16)) * factor[i];
        if (sees[i])
            r.sum[i] = fused(r.sum[i], correction[i], both);
        s[i] = p;
    }
}

/* acc = acc * correction + p . V: a value of the head per lane, keys ascending, only those that a row sees. */
DEV void tile_values(const struct launch_attention &a, const struct rows &r, device_ptr<const uint8_t> v, uint32_t tile0,
                     const bool sees[WARP_ROWS], const float correction[WARP_ROWS])
{
    uint32_t low = r.first_position > tile0 ? r.first_position - tile0 : 0;
    uint32_t high = r.last_position - tile0 < TILE ? r.last_position - tile0 + 1 : TILE;

    UNROLL_NOT
    for (uint32_t c = lane_index(); c < a.kv.v_stride; c += 32) {
        float sum[WARP_ROWS];

        UNROLL
        for (uint32_t i = 0; i < WARP_ROWS; i++)
            sum[i] = i < r.n ? (sees[i] ? r.acc[i * a.kv.v_stride + c] * correction[i] : (float)r.acc[i * a.kv.v_stride + c]) : 0.0f;
        UNROLL_NOT
        for (uint32_t key = low; key < high; key++) {
            float value = kv_value(a.kv.v_type, v, c, key, a.kv.v_stride);

            UNROLL
            for (uint32_t i = 0; i < WARP_ROWS; i++)
                if (i < r.n && tile0 + key >= r.low_position[i] && tile0 + key <= r.position[i])
                    sum[i] = fused(r.p[i * TILE + key], value, sum[i]);
        }
        UNROLL
        for (uint32_t i = 0; i < WARP_ROWS; i++)
            if (i < r.n)
                r.acc[i * a.kv.v_stride + c] = sum[i];
    }
}

DEV void tile_add(const struct launch_attention &a, struct rows &r, launch_address head, uint32_t tile0)
{
    float s[WARP_ROWS], correction[WARP_ROWS], factor[WARP_ROWS];
    bool sees[WARP_ROWS];

    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++)
        sees[i] = i < r.n && tile0 <= r.position[i] && tile0 + TILE > r.low_position[i];
    tile_scores(a, r, at_address<const uint8_t>(head), tile0, s);
    tile_softmax(r, s, a.kv.v_type == TENSOR_Q8_0, sees, correction, factor);
    if (a.kv.v_type == TENSOR_Q8_0) {
        bytes_values(a, r, at_address<const uint8_t>(head + a.kv.k_bytes), tile0, sees, s, correction, factor);
        return;
    }
    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++)
        if (i < r.n)
            r.p[i * TILE + lane_index()] = s[i];
    warp_sync();
    tile_values(a, r, at_address<const uint8_t>(head + a.kv.k_bytes), tile0, sees, correction);
    warp_sync();
}

/* One segment, from nothing. */
DEV void segment_run(const struct launch_attention &a, struct rows &r, uint32_t segment, launch_address pages, uint64_t head_at)
{
    uint32_t begin = segment * LAUNCH_SEGMENT_TOKENS, end = begin + LAUNCH_SEGMENT_TOKENS;
    uint32_t first = r.first_position / TILE * TILE;

    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++) {
        r.maximum[i] = MINUS_INFINITY;
        r.sum[i] = 0.0f;
    }
    /* A column of acc is one lane's from here to the merge: only p goes from lane to lane. */
    for (uint32_t i = 0; i < r.n; i++)
        for (uint32_t c = lane_index(); c < a.kv.v_stride; c += 32)
            r.acc[i * a.kv.v_stride + c] = 0.0f;
    UNROLL_NOT
    for (uint32_t tile0 = begin > first ? begin : first; tile0 < end && tile0 <= r.last_position; tile0 += TILE) {
        uint64_t page = at_address<const uint32_t>(pages)[tile0 / TILE];

        tile_add(a, r, a.kv.memory + page * a.kv.page_stride + head_at, tile0);
    }
}

/* The state of one row after another segment with (maximum m, factors keep and take for what is old and new). */
DEV float merge_factors(float total, float m, float *ret_keep, float *ret_take)
{
    float now = math_max(total, m);

    *ret_keep = total == now ? 1.0f : math_exp(total - now);
    *ret_take = m == now ? 1.0f : math_exp(m - now);
    return now;
}

DEV void segment_merge(const struct launch_attention &a, struct rows &r)
{
    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++) {
        float keep, take;

        if (i >= r.n || r.maximum[i] == MINUS_INFINITY)
            continue;
        r.total_maximum[i] = merge_factors(r.total_maximum[i], r.maximum[i], &keep, &take);
        r.total_sum[i] = fused(r.sum[i], take, r.total_sum[i] * keep);
        for (uint32_t c = lane_index(); c < a.kv.v_stride; c += 32) {
            uint32_t at = i * a.kv.v_stride + c;

            r.total_acc[at] = fused(r.acc[at], take, r.total_acc[at] * keep);
        }
    }
}

/* What acc is multiplied with, after the sink has been counted in. @sum: of the lane. */
DEV float row_factor(const struct launch_attention &a, uint32_t head, float maximum, float sum)
{
    float factor = 1.0f;

    sum = math_fold(sum);
    if (a.sinks) {
        float sink = at_address<const float>(a.sinks)[head];

        if (sink != MINUS_INFINITY) {
            float now = math_max(maximum, sink);

            factor = math_exp(maximum - now);
            sum = fused(sum, factor, math_exp(sink - now));
        }
    }
    return sum == 0.0f ? 0.0f : divide(factor, sum);
}

/* Where a row's part of segment @segment lies. */
DEV device_ptr<float> part_at(const struct launch_attention &a, uint32_t segment, uint32_t token, uint32_t head)
{
    uint64_t row = ((uint64_t)segment * a.n_tokens + token) * a.n_heads + head;

    return at_address<float>(a.parts) + row * launch_attention_part_floats(a.kv.v_stride);
}

DEV void part_write(const struct launch_attention &a, const struct rows &r, uint32_t i, device_ptr<float> part)
{
    uint32_t lane = lane_index();

    if (i >= r.n)
        return;
    if (lane == 0)
        part[0] = r.maximum[i];
    if (lane < 16)
        part[1 + lane] = r.sum[i];
    for (uint32_t c = lane; c < a.kv.v_stride; c += 32)
        part[17 + c] = r.acc[i * a.kv.v_stride + c];
}

DEV void out_write(const struct launch_attention &a, const struct rows &r, uint32_t i, uint32_t token, uint32_t head)
{
    float factor = row_factor(a, head, r.total_maximum[i], r.total_sum[i]);
    device_ptr<float> out = at_address<float>(a.out) + ((uint64_t)token * a.n_heads + head) * a.kv.v_dim;

    if (i >= r.n)
        return;
    for (uint32_t c = lane_index(); c < a.kv.v_dim; c += 32)
        out[c] = r.total_acc[i * a.kv.v_stride + c] * factor;
}

/* A block: some queries, some heads that share a KV head, and one segment or all. */
KERNEL(attention, launch_attention, LAUNCH_ATTENTION_THREADS)
{
    struct launch_queries b = at_address<const struct launch_queries>(a.queries)[block_x()];
    uint32_t group = a.n_heads / a.kv.n_kv_heads;
    uint32_t rows_max = launch_attention_rows(a.kv.k_dim, a.kv.v_stride);
    uint32_t n_heads = group < rows_max ? group : rows_max, n_parts = (group + n_heads - 1) / n_heads;
    uint32_t kv_head = block_y() / n_parts, head0 = kv_head * group + block_y() % n_parts * n_heads;
    uint32_t heads_left = (kv_head + 1) * group - head0, per_warp = (rows_max + WARPS - 1) / WARPS;
    uint32_t row0 = warp_index() * per_warp, n_rows, lane = lane_index();
    uint64_t head_at = kv_head * (a.kv.k_bytes + a.kv.v_bytes);
    launch_address pages = a.kv.tables + 4 * (uint64_t)b.run * a.kv.table_stride;
    device_ptr<float> memory = dynamic_shared<float>();
    struct rows r;

    if (heads_left < n_heads)
        n_heads = heads_left;
    n_rows = b.n_queries * n_heads;
    if (row0 >= n_rows)
        return;
    r.n = n_rows - row0 < per_warp ? n_rows - row0 : per_warp;
    r.q_stride = launch_attention_q_floats(a.kv.k_dim);
    r.q = memory + row0 * r.q_stride;
    memory += rows_max * r.q_stride;
    r.p = memory + row0 * TILE;
    memory += rows_max * TILE;
    r.acc = memory + row0 * a.kv.v_stride;
    memory += rows_max * a.kv.v_stride;
    r.total_acc = memory + row0 * a.kv.v_stride;
    r.first_position = UINT32_MAX;
    r.last_position = 0;
    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++) {
        uint32_t row = row0 + (i < r.n ? i : 0);
        uint64_t from;
        uint32_t position = b.n_keys ? b.n_keys - 1 : b.position0 + row / n_heads;

        r.position[i] = position;
        r.low_position[i] = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
        r.first_position = r.low_position[i] < r.first_position ? r.low_position[i] : r.first_position;
        r.last_position = position > r.last_position ? position : r.last_position;
        r.total_maximum[i] = MINUS_INFINITY;
        r.total_sum[i] = 0.0f;
        if (i >= r.n)
            continue;
        from = ((uint64_t)(b.row0 + row / n_heads) * a.n_heads + head0 + row % n_heads) * a.kv.k_dim;
        if (a.kv.k_type == TENSOR_Q8_0) {
            bytes_write_q(r.q + i * r.q_stride, at_address<const float>(a.q) + from, a.kv.k_dim);
        } else {
            for (uint32_t d = lane; d < a.kv.k_dim; d += 32)
                r.q[i * r.q_stride + d] = at_address<const float>(a.q)[from + d];
        }
        if (!a.split)
            for (uint32_t c = lane; c < a.kv.v_stride; c += 32)
                r.total_acc[i * a.kv.v_stride + c] = 0.0f;
    }
    warp_sync();

    if (a.split) {
        segment_run(a, r, block_z(), pages, head_at);
    } else {
        UNROLL_NOT
        for (uint32_t segment = r.first_position / LAUNCH_SEGMENT_TOKENS; segment <= r.last_position / LAUNCH_SEGMENT_TOKENS;
             segment++) {
            segment_run(a, r, segment, pages, head_at);
            segment_merge(a, r);
        }
    }
    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++) {
        uint32_t row = row0 + (i < r.n ? i : 0), token = b.row0 + row / n_heads, head = head0 + row % n_heads;

        if (a.split)
            part_write(a, r, i, part_at(a, block_z(), token, head));
        else
            out_write(a, r, i, token, head);
    }
}

/* A warp per token and head puts its segments together. */
KERNEL(attention_merge, launch_attention, 32 * LAUNCH_MERGE_WARPS)
{
    uint64_t row = (uint64_t)block_x() * LAUNCH_MERGE_WARPS + warp_index();
    uint32_t lane = lane_index(), token = (uint32_t)(row / a.n_heads), head = (uint32_t)(row % a.n_heads);
    float maximum = MINUS_INFINITY, sum = 0.0f, factor;

    if (row >= (uint64_t)a.n_tokens * a.n_heads)
        return;
    UNROLL_NOT
    for (uint32_t segment = 0; segment < a.n_segments; segment++) {
        device_ptr<const float> part = part_at(a, segment, token, head);
        float m = part[0], keep, take;

        if (m == MINUS_INFINITY)
            continue;
        maximum = merge_factors(maximum, m, &keep, &take);
        sum = fused(part[1 + lane % 16], take, sum * keep);
    }
    factor = row_factor(a, head, maximum, sum);
    UNROLL_NOT
    for (uint32_t c = lane; c < a.kv.v_dim; c += 32) {
        float acc = 0.0f, now = MINUS_INFINITY;

        UNROLL_NOT
        for (uint32_t segment = 0; segment < a.n_segments; segment++) {
            device_ptr<const float> part = part_at(a, segment, token, head);
            float m = part[0], keep, take;

            if (m == MINUS_INFINITY)
                continue;
            now = merge_factors(now, m, &keep, &take);
            acc = fused(part[17 + c], take, acc * keep);
        }
        at_address<float>(a.out)[row * a.kv.v_dim + c] = acc * factor;
    }
}
