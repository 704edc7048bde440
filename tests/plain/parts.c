/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys, tensors and the arithmetic of plain.c. Nothing is clever here: sums run in the order in which they
 * are written.
 */
#include "tests/plain/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/gguf/half.h"
#include "engine/kernels/dequantise.h"

static _Noreturn void give_up(const char *what, const char *name)
{
    fprintf(stderr, "plain: %s: %s\n", what, name);
    abort();
}

double *plain_new(uint64_t n)
{
    double *p = calloc(n ? n : 1, sizeof(*p));

    if (!p)
        give_up("no memory for", "values");
    return p;
}

static void key_name(const struct gguf *g, const char *name, char *ret, size_t size)
{
    struct gguf_string architecture;

    if (gguf_get_string(g, "general.architecture", &architecture, NULL) < 0)
        give_up("no such key", "general.architecture");
    snprintf(ret, size, "%.*s.%s", (int)architecture.n_bytes, architecture.data, name);
}

uint32_t plain_u32(const struct gguf *g, const char *name, uint32_t otherwise)
{
    uint32_t value;
    char key[128];

    key_name(g, name, key, sizeof(key));
    return gguf_get_u32(g, key, &value, NULL) == 0 ? value : otherwise;
}

double plain_f32(const struct gguf *g, const char *name, double otherwise)
{
    float value;
    char key[128];

    key_name(g, name, key, sizeof(key));
    return gguf_get_f32(g, key, &value, NULL) == 0 ? (double)value : otherwise;
}

bool plain_string_is(const struct gguf *g, const char *name, const char *text)
{
    struct gguf_string value;
    char key[128];

    key_name(g, name, key, sizeof(key));
    return gguf_get_string(g, key, &value, NULL) == 0 && value.n_bytes == strlen(text) &&
           memcmp(value.data, text, value.n_bytes) == 0;
}

const struct gguf_tensor *plain_tensor(const struct gguf *g, int layer, const char *name)
{
    char full[128];

    if (layer < 0)
        snprintf(full, sizeof(full), "%s", name);
    else
        snprintf(full, sizeof(full), "blk.%d.%s", layer, name);
    return gguf_find_tensor(g, full);
}

void plain_row(const struct gguf_tensor *t, uint64_t i, double *ret)
{
    uint32_t n = (uint32_t)t->dims[0];
    _cleanup_free_ float *values = calloc(n, sizeof(*values));

    if (!values)
        give_up("no memory for", t->name);
    dequantise_row((enum tensor_type)t->type, (const uint8_t *)t->data + i * t->row_bytes, n, values);
    for (uint32_t k = 0; k < n; k++)
        ret[k] = (double)values[k];
}

/* One row through int8 and back, with one scale for each @block values. */
static void through_int8(double *x, uint32_t n, uint32_t block)
{
    for (uint32_t from = 0; from < n; from += block) {
        double largest = 0;

        for (uint32_t k = from; k < from + block; k++)
            largest = fmax(largest, fabs(x[k]));
        for (uint32_t k = from; k < from + block; k++)
            x[k] = largest > 0 ? nearbyint(x[k] * (127 / largest)) * (largest / 127) : 0;
    }
}

/* y += alpha / rank * B (A x), if the adapter changes @w. */
static void adapt(const struct gguf_tensor *w, uint64_t row0, uint64_t n_rows, const struct plain_options *o,
                  const double *x, uint32_t n, double *y)
{
    const struct plain_options factors = {.act_int8 = o->act_int8};
    _cleanup_free_ double *low = NULL, *sum = NULL;
    const struct gguf_tensor *a, *b;
    char name[256];
    float alpha = 0;
    double scale;
    uint64_t rank;

    snprintf(name, sizeof(name), "%s.lora_a", w->name);
    a = o->adapter ? gguf_find_tensor(o->adapter, name) : NULL;
    if (!a)
        return;
    snprintf(name, sizeof(name), "%s.lora_b", w->name);
    b = gguf_find_tensor(o->adapter, name);
    gguf_get_f32(o->adapter, "adapter.lora.alpha", &alpha, NULL);
    rank = a->dims[1];
    scale = alpha != 0 ? alpha / (double)rank : 1;
    low = plain_new(n * rank);
    sum = plain_new(n * n_rows);
    /* Each expert has factors of its own, like its matrix. */
    plain_multiply(a, a->dims[2] > 1 ? row0 / w->dims[1] * rank : 0, rank, &factors, x, n, low);
    plain_multiply(b, row0, n_rows, &factors, low, n, sum);
    for (uint64_t i = 0; i < n * n_rows; i++)
        y[i] += scale * sum[i];
}

void plain_multiply(const struct gguf_tensor *w, uint64_t row0, uint64_t n_rows,
                    const struct plain_options *o, const double *x, uint32_t n, double *y)
{
    uint32_t n_cols = (uint32_t)w->dims[0], block = tensor_traits(w->type)->block_values;
    _cleanup_free_ double *seen = plain_new((uint64_t)n * n_cols); /* [n_cols, n]: tokens lie side by side */
    _cleanup_free_ double *row = plain_new(n_cols), *sums = plain_new(n);

    for (uint32_t t = 0; t < n; t++) {
        memcpy(row, x + (uint64_t)t * n_cols, n_cols * sizeof(*row));
        if (o->act_int8 && block > 1)
            through_int8(row, n_cols, block);
        for (uint32_t k = 0; k < n_cols; k++)
            seen[(uint64_t)k * n + t] = row[k];
    }
    for (uint64_t i = 0; i < n_rows; i++) {
        plain_row(w, row0 + i, row);
        memset(sums, 0, n * sizeof(*sums));
        for (uint32_t k = 0; k < n_cols; k++)
            for (uint32_t t = 0; t < n; t++)
                sums[t] += row[k] * seen[(uint64_t)k * n + t];
        for (uint32_t t = 0; t < n; t++)
            y[t * n_rows + i] = sums[t];
    }
    adapt(w, row0, n_rows, o, x, n, y);
}

void plain_linear(const struct gguf *g, const struct plain_options *o, int layer, const char *name,
                  const double *x, uint32_t n, double *y)
{
    const struct gguf_tensor *w, *bias;
    char full[64];

    snprintf(full, sizeof(full), "%s.weight", name);
    w = plain_tensor(g, layer, full);
    if (!w)
        give_up("no such tensor", full);
    snprintf(full, sizeof(full), "%s.bias", name);
    bias = plain_tensor(g, layer, full);
    plain_multiply(w, 0, w->n_rows, o, x, n, y);
    if (bias) {
        _cleanup_free_ double *values = plain_new(w->n_rows);

        plain_row(bias, 0, values);
        for (uint32_t t = 0; t < n; t++)
            for (uint64_t i = 0; i < w->n_rows; i++)
                y[t * w->n_rows + i] += values[i];
    }
}

void plain_norm(const struct gguf_tensor *weights, double epsilon, const double *x, uint32_t n,
                uint32_t width, double *y)
{
    _cleanup_free_ double *w = plain_new(width);

    if (!weights)
        give_up("no such tensor", "a norm's weights");
    plain_row(weights, 0, w);
    for (uint32_t t = 0; t < n; t++) {
        double squares = 0;

        for (uint32_t i = 0; i < width; i++)
            squares += x[(uint64_t)t * width + i] * x[(uint64_t)t * width + i];
        for (uint32_t i = 0; i < width; i++)
            y[(uint64_t)t * width + i] = x[(uint64_t)t * width + i] / sqrt(squares / width + epsilon) * w[i];
    }
}

/* The pair that turns @n_turns times within @context positions: where YaRN's ramp begins or ends. */
static double yarn_pair(uint32_t n_rot, double context, double base, double n_turns)
{
    return n_rot * log(context / (n_turns * 2 * M_PI)) / (2 * log(base));
}

void plain_rope_read(const struct gguf *g, uint32_t n_rot, bool interleaved, double base,
                     struct plain_rope *ret)
{
    const struct gguf_tensor *freqs = plain_tensor(g, -1, "rope_freqs.weight");
    double factor = plain_f32(g, "rope.scaling.factor", 1);
    bool yarn = plain_string_is(g, "rope.scaling.type", "yarn");
    uint32_t context = plain_u32(g, "context_length", 0);
    double original = plain_u32(g, "rope.scaling.original_context_length", context);
    double low = 0, high = 0;
    _cleanup_free_ double *divisors = freqs ? plain_new(n_rot / 2) : NULL;

    base = plain_f32(g, "rope.freq_base", base);
    if (n_rot / 2 > sizeof(ret->frequency) / sizeof(*ret->frequency))
        give_up("too many pairs", "rope");
    if (divisors)
        plain_row(freqs, 0, divisors);
    if (yarn) {
        low =
            fmax(0, floor(yarn_pair(n_rot, original, base, plain_f32(g, "rope.scaling.yarn_beta_fast", 32))));
        high = fmin(n_rot - 1,
                    ceil(yarn_pair(n_rot, original, base, plain_f32(g, "rope.scaling.yarn_beta_slow", 1))));
    }
    *ret = (struct plain_rope){.n_rot = n_rot, .interleaved = interleaved};
    ret->magnitude = plain_f32(g, "rope.scaling.attn_factor", 1) * (yarn ? 1 + 0.1 * log(factor) : 1);
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double f = pow(base, -2.0 * i / n_rot) / (divisors ? divisors[i] : 1);
        double slow = yarn ? fmin(1, fmax(0, (i - low) / fmax(0.001, high - low))) : 1;

        ret->frequency[i] = slow * f / factor + (1 - slow) * f;
    }
}

void plain_rope(const struct plain_rope *r, double *x, uint32_t n, uint32_t n_heads, uint32_t dim)
{
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t h = 0; h < n_heads; h++) {
            double *head = x + ((uint64_t)t * n_heads + h) * dim;

            for (uint32_t i = 0; i < r->n_rot / 2; i++) {
                double *a = head + (r->interleaved ? 2 * i : i);
                double *b = r->interleaved ? a + 1 : a + r->n_rot / 2;
                double angle = t * r->frequency[i], c = cos(angle) * r->magnitude,
                       s = sin(angle) * r->magnitude;
                double turned = *a * c - *b * s;

                *b = *a * s + *b * c;
                *a = turned;
            }
        }
    }
}

static void attend_one(const struct plain_attention *a, const double *q, const double *k, const double *v, uint32_t h,
                       uint32_t first, uint32_t last, double *weights, double *y)
{
    uint32_t kv = h / (a->n_heads / a->n_kv_heads);
    double largest = a->sinks ? a->sinks[h] : -INFINITY, sum = 0;

    for (uint32_t s = first; s <= last; s++) {
        const double *key = k + ((uint64_t)s * a->n_kv_heads + kv) * a->k_dim;
        double score = 0;

        for (uint32_t i = 0; i < a->k_dim; i++)
            score += q[i] * key[i];
        score *= a->scale;
        weights[s] = a->softcap > 0 ? a->softcap * tanh(score / a->softcap) : score;
        largest = fmax(largest, weights[s]);
    }
    for (uint32_t s = first; s <= last; s++)
        sum += weights[s] = exp(weights[s] - largest);
    if (a->sinks)
        sum += exp(a->sinks[h] - largest);
    for (uint32_t s = first; s <= last; s++)
        for (uint32_t i = 0; i < a->v_dim; i++)
            y[i] += weights[s] / sum * v[((uint64_t)s * a->n_kv_heads + kv) * a->v_dim + i];
}

void plain_attend(const struct plain_attention *a, const double *q, const double *k, const double *v,
                  uint32_t n, double *y)
{
    _cleanup_free_ double *weights = plain_new(n);

    memset(y, 0, (uint64_t)n * a->n_heads * a->v_dim * sizeof(*y));
    for (uint32_t t = 0; t < n; t++) {
        uint32_t first = a->window && t + 1 > a->window ? t + 1 - a->window : 0;

        for (uint32_t h = 0; h < a->n_heads; h++)
            attend_one(a, q + ((uint64_t)t * a->n_heads + h) * a->k_dim, k, v, h, first, t, weights,
                       y + ((uint64_t)t * a->n_heads + h) * a->v_dim);
    }
}

void plain_round_f16(double *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = (double)half_to_float(float_to_half((float)x[i]));
}

double plain_silu(double x)
{
    return x / (1 + exp(-x));
}
