/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/plain/latent.h"

#include <math.h>
#include <string.h>

#include "base/cleanup.h"

struct sizes {
    uint32_t n_heads, n_nope, n_rot, v_dim, rank, q_rank;
    bool apart; /* K and V are matrices of their own, K transposed */
};

static struct sizes sizes_read(const struct gguf *g, uint32_t n_rot)
{
    struct sizes s = {.n_heads = plain_u32(g, "attention.head_count", 0),
                      .n_rot = n_rot,
                      .rank = plain_u32(g, "attention.kv_lora_rank", 0),
                      .q_rank = plain_u32(g, "attention.q_lora_rank", 0)};

    s.apart = plain_u32(g, "attention.key_length_mla", 0) > 0;
    s.n_nope = plain_u32(g, s.apart ? "attention.key_length_mla" : "attention.key_length", 0) - n_rot;
    s.v_dim = plain_u32(g, s.apart ? "attention.value_length_mla" : "attention.value_length", 0);
    return s;
}

/* Turns the last n_rot columns of each of @n_heads heads of @dim. */
static void rotate(const struct plain_rope *rope, double *x, uint32_t n, uint32_t n_heads, uint32_t dim)
{
    uint32_t n_rot = rope->n_rot;
    _cleanup_free_ double *part = plain_new((uint64_t)n * n_heads * n_rot);
    struct plain_rope as_it_is = *rope;

    as_it_is.magnitude = 1;
    for (uint64_t i = 0; i < (uint64_t)n * n_heads; i++)
        memcpy(part + i * n_rot, x + i * dim + dim - n_rot, n_rot * sizeof(*x));
    plain_rope(&as_it_is, part, n, n_heads, n_rot);
    for (uint64_t i = 0; i < (uint64_t)n * n_heads; i++)
        memcpy(x + i * dim + dim - n_rot, part + i * n_rot, n_rot * sizeof(*x));
}

static void queries(const struct gguf *g, const struct plain_options *o, int layer, const struct sizes *s,
                    double epsilon, const double *x, uint32_t n, double *q)
{
    _cleanup_free_ double *low = plain_new((uint64_t)n * s->q_rank);

    if (s->q_rank == 0) {
        plain_linear(g, o, layer, "attn_q", x, n, q);
        return;
    }
    plain_linear(g, o, layer, "attn_q_a", x, n, low);
    plain_norm(plain_tensor(g, layer, "attn_q_a_norm.weight"), epsilon, low, n, s->q_rank, low);
    plain_linear(g, o, layer, "attn_q_b", low, n, q);
}

/* Head @h's part of a key without a position, and its value, of one token's latent @c. */
static void head_of(const struct gguf *g, const struct plain_options *o, int layer, const struct sizes *s, uint32_t h,
                    const double *c, double *k, double *v)
{
    if (!s->apart) {
        const struct gguf_tensor *both = plain_tensor(g, layer, "attn_kv_b.weight");
        uint64_t row0 = (uint64_t)h * (s->n_nope + s->v_dim);

        plain_multiply(both, row0, s->n_nope, o, c, 1, k);
        plain_multiply(both, row0 + s->n_nope, s->v_dim, o, c, 1, v);
        return;
    }
    memset(k, 0, s->n_nope * sizeof(*k));
    for (uint32_t r = 0; r < s->rank; r++) {
        _cleanup_free_ double *row = plain_new(s->n_nope);

        plain_row(plain_tensor(g, layer, "attn_k_b.weight"), (uint64_t)h * s->rank + r, row);
        for (uint32_t i = 0; i < s->n_nope; i++)
            k[i] += row[i] * c[r];
    }
    plain_multiply(plain_tensor(g, layer, "attn_v_b.weight"), (uint64_t)h * s->v_dim, s->v_dim, o, c, 1, v);
}

/* The same sums in the engine's order: K transposed times q, attention over [c, k_rope], V times what comes of it. */
static void attend_absorbed(const struct gguf *g, const struct plain_options *o, int layer, const struct sizes *s,
                            const struct plain_attention *heads, const double *q, const double *low, uint32_t n,
                            double *out)
{
    uint32_t n_head = s->n_nope + s->n_rot, width = s->rank + s->n_rot;
    struct plain_attention a = {
        .n_heads = s->n_heads, .n_kv_heads = 1, .k_dim = width, .v_dim = s->rank, .scale = heads->scale};
    _cleanup_free_ double *absorbed = plain_new((uint64_t)n * s->n_heads * width);
    _cleanup_free_ double *c = plain_new((uint64_t)n * s->rank), *sums = plain_new((uint64_t)n * s->n_heads * s->rank);

    for (uint32_t t = 0; t < n; t++) {
        memcpy(c + (uint64_t)t * s->rank, low + (uint64_t)t * width, s->rank * sizeof(*c));
        for (uint32_t h = 0; h < s->n_heads; h++) {
            const double *from = q + ((uint64_t)t * s->n_heads + h) * n_head;
            double *to = absorbed + ((uint64_t)t * s->n_heads + h) * width;

            plain_multiply(plain_tensor(g, layer, "attn_k_b.weight"), (uint64_t)h * s->rank, s->rank, o, from, 1, to);
            memcpy(to + s->rank, from + s->n_nope, s->n_rot * sizeof(*to));
        }
    }
    plain_attend(&a, absorbed, low, c, n, sums);
    for (uint64_t i = 0; i < (uint64_t)n * s->n_heads; i++)
        plain_multiply(plain_tensor(g, layer, "attn_v_b.weight"), i % s->n_heads * s->v_dim, s->v_dim, o,
                       sums + i * s->rank, 1, out + i * s->v_dim);
}

void plain_latent(const struct gguf *g, const struct plain_options *o, int layer, const struct plain_rope *rope,
                  double epsilon, const double *x, uint32_t n, double *y)
{
    struct sizes s = sizes_read(g, rope->n_rot);
    uint32_t n_head = s.n_nope + s.n_rot, width = s.rank + s.n_rot;
    _cleanup_free_ double *q = plain_new((uint64_t)n * s.n_heads * n_head);
    _cleanup_free_ double *k = plain_new((uint64_t)n * s.n_heads * n_head);
    _cleanup_free_ double *v = plain_new((uint64_t)n * s.n_heads * s.v_dim);
    _cleanup_free_ double *out = plain_new((uint64_t)n * s.n_heads * s.v_dim);
    _cleanup_free_ double *low = plain_new((uint64_t)n * width);
    double factor = plain_f32(g, "rope.scaling.factor", 1);
    double growth = 1 + plain_f32(g, "rope.scaling.yarn_log_multiplier", 0) * log(factor);
    struct plain_attention a = {.n_heads = s.n_heads, .n_kv_heads = s.n_heads, .k_dim = n_head, .v_dim = s.v_dim};

    a.scale = growth * growth / sqrt(n_head);
    queries(g, o, layer, &s, epsilon, x, n, q);
    plain_linear(g, o, layer, "attn_kv_a_mqa", x, n, low);
    for (uint32_t t = 0; t < n; t++) {
        double *c = low + (uint64_t)t * width;

        plain_norm(plain_tensor(g, layer, "attn_kv_a_norm.weight"), epsilon, c, 1, s.rank, c);
        for (uint32_t h = 0; h < s.n_heads; h++) {
            double *key = k + ((uint64_t)t * s.n_heads + h) * n_head;

            head_of(g, o, layer, &s, h, c, key, v + ((uint64_t)t * s.n_heads + h) * s.v_dim);
            memcpy(key + s.n_nope, c + s.rank, s.n_rot * sizeof(*key));
        }
    }
    rotate(rope, q, n, s.n_heads, n_head);
    rotate(rope, k, n, s.n_heads, n_head);
    rotate(rope, low, n, 1, width);
    if (s.apart && o->act_int8)
        attend_absorbed(g, o, layer, &s, &a, q, low, n, out);
    else
        plain_attend(&a, q, k, v, n, out);
    plain_linear(g, o, layer, "attn_output", out, n, y);
}

/* The @n_best largest of x[n] stay, the others become -infinity. */
static void keep_best(double *x, uint32_t n, uint32_t n_best)
{
    _cleanup_free_ double *kept = plain_new(n);

    for (uint32_t i = 0; i < n; i++)
        kept[i] = -INFINITY;
    for (; n_best > 0; n_best--) {
        uint32_t best = 0;

        for (uint32_t i = 1; i < n; i++)
            if (x[i] > x[best])
                best = i;
        kept[best] = x[best];
        x[best] = -INFINITY;
    }
    memcpy(x, kept, n * sizeof(*x));
}

void plain_latent_route(const struct gguf *g, int layer, double *scores, uint32_t n, uint32_t n_used)
{
    const struct gguf_tensor *bias = plain_tensor(g, layer, "exp_probs_b.bias");
    uint32_t n_groups = plain_u32(g, "expert_group_count", 1), n_each = n / n_groups;
    _cleanup_free_ double *choice = plain_new(n), *groups = plain_new(n_groups), *two = plain_new(n_each);
    double sum = 0, largest = -INFINITY, scale = plain_f32(g, "expert_weights_scale", 1);
    bool sigmoid = plain_u32(g, "expert_gating_func", 1) == 2, normalise = false;

    gguf_get_bool(g, "deepseek2.expert_weights_norm", &normalise, NULL);
    for (uint32_t i = 0; i < n; i++)
        largest = fmax(largest, scores[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp(scores[i] - largest);
    for (uint32_t i = 0; i < n; i++)
        scores[i] = sigmoid ? 1 / (1 + exp(-scores[i])) : exp(scores[i] - largest) / sum;
    if (bias)
        plain_row(bias, 0, choice);
    for (uint32_t i = 0; i < n; i++)
        choice[i] += scores[i];
    for (uint32_t i = 0; i < n_groups; i++) {
        memcpy(two, choice + i * n_each, n_each * sizeof(*two));
        keep_best(two, n_each, 2);
        for (uint32_t j = 0; j < n_each; j++)
            groups[i] += two[j] > -INFINITY ? two[j] : 0;
    }
    keep_best(groups, n_groups, plain_u32(g, "expert_group_used_count", 1));
    for (uint32_t i = 0; n_groups > 1 && i < n; i++)
        if (groups[i / n_each] == -INFINITY)
            choice[i] = -INFINITY;
    keep_best(choice, n, n_used);
    sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += choice[i] > -INFINITY ? scores[i] : 0;
    for (uint32_t i = 0; i < n; i++)
        scores[i] = choice[i] > -INFINITY ? scores[i] * scale / (normalise ? sum : 1) : 0;
}
