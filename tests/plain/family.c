/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/plain/family.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/plain/latent.h"

static const struct plain_family families[] = {
    {.name = "llama", .interleaved = true, .experts_normalised = true},
    {.name = "qwen2"},
    {.name = "qwen2moe"},
    {.name = "qwen3", .qk_norm = true},
    {.name = "qwen3moe", .qk_norm = true, .experts_normalised = true},
    {.name = "gemma", .gelu = true, .scaled_embedding = true},
    {.name = "gemma2", .gelu = true, .scaled_embedding = true, .post_norms = true, .window_period = 2,
     .layers_27b = 46},
    {.name = "gemma3", .gelu = true, .scaled_embedding = true, .post_norms = true, .qk_norm = true,
     .window_period = 6, .window_rope_base = 10000, .layers_27b = 62},
    {.name = "phi3"},
    {.name = "gpt-oss", .sinks = true, .oai_swiglu = true, .window_period = 2, .experts_chosen_first = true,
     .ffn_norm = "post_attention_norm.weight"},
    {.name = "granite", .interleaved = true},
    {.name = "deepseek2", .interleaved = true, .latent = true},
    {.name = "smollm3", .interleaved = true, .unrotated_period = 4},
};

const struct plain_family *plain_family(const struct gguf *g)
{
    struct gguf_string s;

    if (gguf_get_string(g, "general.architecture", &s, NULL) == 0)
        for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
            if (s.n_bytes == strlen(families[i].name) && memcmp(s.data, families[i].name, s.n_bytes) == 0)
                return &families[i];
    fprintf(stderr, "plain: no such family\n");
    abort();
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

void plain_activate(const struct plain_family *f, double *gate, const double *up, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (f->oai_swiglu) {
            double g = fmin(gate[i], 7), u = fmax(-7, fmin(up[i], 7));

            gate[i] = g / (1 + exp(-1.702 * g)) * (u + 1);
        } else {
            gate[i] = (f->gelu ? gelu(gate[i]) : plain_silu(gate[i])) * up[i];
        }
    }
}

/* The product with one expert's part of the tensor @name, and its row of biases. */
static void expert_linear(const struct gguf *g, const struct plain_options *o, int layer, const char *name,
                          uint32_t expert, const double *x, double *y)
{
    const struct gguf_tensor *w, *bias;
    char full[64];

    snprintf(full, sizeof(full), "%s.weight", name);
    w = plain_tensor(g, layer, full);
    snprintf(full, sizeof(full), "%s.bias", name);
    bias = plain_tensor(g, layer, full);
    plain_multiply(w, expert * w->dims[1], w->dims[1], o, x, 1, y);
    if (bias) {
        _cleanup_free_ double *values = plain_new(w->dims[1]);

        plain_row(bias, expert, values);
        for (uint64_t i = 0; i < w->dims[1]; i++)
            y[i] += values[i];
    }
}

static void softmax(double *x, uint32_t n)
{
    double most = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        most = fmax(most, x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] = exp(x[i] - most);
    for (uint32_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* Weights of all experts, 0 for those that are not among the @n_used best. */
static void route(const struct plain_family *f, double *scores, uint32_t n, uint32_t n_used)
{
    _cleanup_free_ double *kept = plain_new(n);
    double sum = 0;

    if (!f->experts_chosen_first)
        softmax(scores, n);
    for (uint32_t i = 0; i < n; i++)
        kept[i] = -INFINITY;
    for (uint32_t k = 0; k < n_used; k++) {
        uint32_t best = n;

        for (uint32_t i = 0; i < n; i++)
            if (kept[i] == -INFINITY && (best == n || scores[i] > scores[best]))
                best = i;
        kept[best] = scores[best];
    }
    if (f->experts_chosen_first)
        softmax(kept, n);
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = kept[i] == -INFINITY ? 0 : kept[i];
        sum += scores[i];
    }
    for (uint32_t i = 0; f->experts_normalised && i < n; i++)
        scores[i] /= sum;
}

static int by_size_falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x > y ? -1 : x < y;
}

/* How far the last chosen expert's logit is above the first other one's. */
static double margin(const double *logits, uint32_t n, uint32_t n_used)
{
    _cleanup_free_ double *sorted = plain_new(n);

    if (n_used == 0 || n_used >= n)
        return INFINITY;
    memcpy(sorted, logits, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_size_falling);
    return sorted[n_used - 1] - sorted[n_used];
}

/* The expert that every token goes to, and how much of it. */
static void shared_expert(const struct gguf *g, const struct plain_family *f, const struct plain_options *o, int layer,
                          const double *x, uint32_t dim, double *y)
{
    const struct gguf_tensor *up_weight = plain_tensor(g, layer, "ffn_up_shexp.weight");
    const struct gguf_tensor *share = plain_tensor(g, layer, "ffn_gate_inp_shexp.weight");
    uint64_t ff = up_weight ? up_weight->n_rows : 0;
    _cleanup_free_ double *gate = plain_new(ff), *up = plain_new(ff), *out = plain_new(dim), *row = plain_new(dim);
    double logit = 0;

    if (!up_weight)
        return;
    plain_linear(g, o, layer, "ffn_gate_shexp", x, 1, gate);
    plain_linear(g, o, layer, "ffn_up_shexp", x, 1, up);
    plain_activate(f, gate, up, ff);
    plain_linear(g, o, layer, "ffn_down_shexp", gate, 1, out);
    if (share)
        plain_row(share, 0, row);
    for (uint32_t i = 0; i < dim; i++)
        logit += row[i] * x[i];
    for (uint32_t i = 0; i < dim; i++)
        y[i] += share ? out[i] / (1 + exp(-logit)) : out[i];
}

void plain_experts(const struct gguf *g, const struct plain_family *f, const struct plain_options *o, int layer,
                   const double *x, uint32_t n, uint32_t dim, double *y)
{
    uint32_t n_experts = plain_u32(g, "expert_count", 0), n_used = plain_u32(g, "expert_used_count", 0);
    uint64_t ff = plain_tensor(g, layer, "ffn_up_exps.weight")->dims[1];
    _cleanup_free_ double *weights = plain_new(n_experts), *gate = plain_new(ff), *up = plain_new(ff);
    _cleanup_free_ double *out = plain_new(dim);

    for (uint32_t t = 0; t < n; t++, x += dim, y += dim) {
        plain_linear(g, o, layer, "ffn_gate_inp", x, 1, weights);
        if (o->router_margins && !f->latent)
            o->router_margins[t] = fmin(o->router_margins[t], margin(weights, n_experts, n_used));
        if (f->latent)
            plain_latent_route(g, layer, weights, n_experts, n_used);
        else
            route(f, weights, n_experts, n_used);
        for (uint32_t i = 0; i < dim; i++)
            y[i] = 0;
        for (uint32_t e = 0; e < n_experts; e++) {
            if (weights[e] == 0)
                continue;
            expert_linear(g, o, layer, "ffn_gate_exps", e, x, gate);
            expert_linear(g, o, layer, "ffn_up_exps", e, x, up);
            plain_activate(f, gate, up, ff);
            expert_linear(g, o, layer, "ffn_down_exps", e, gate, out);
            for (uint32_t i = 0; i < dim; i++)
                y[i] += weights[e] * out[i];
        }
        shared_expert(g, f, o, layer, x, dim, y);
    }
}
