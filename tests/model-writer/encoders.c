/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random encoders for model_writer.h. They are written as the converters of published ones do.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model-writer/model_writer.h"
#include "tests/model-writer/random_blocks.h"

struct context {
    struct model_writer *w;
    const struct model_shape *shape;
    uint64_t n_added;
};

static void matrix(struct context *c, const char *name, uint64_t n_in, uint64_t n_out, float std)
{
    uint64_t dims[] = {n_in, n_out};

    model_writer_tensor_random(c->w, name, c->shape->type, 2, dims, std, c->shape->seed * 1000003 + c->n_added++);
}

static void vector(struct context *c, const char *name, uint64_t n, float mean, float std)
{
    uint64_t state = c->shape->seed * 1000003 + c->n_added++;
    float *values = calloc(n, sizeof(*values));

    if (!values)
        abort();
    for (uint64_t i = 0; i < n; i++)
        values[i] = mean + std * random_normal(&state);
    model_writer_tensor(c->w, name, TENSOR_F32, 1, &n, values, n * sizeof(*values));
    free(values);
}

static void norm(struct context *c, const char *name)
{
    char full[80];

    snprintf(full, sizeof(full), "%s.weight", name);
    vector(c, full, c->shape->dim, 1.0f, 0.1f);
    snprintf(full, sizeof(full), "%s.bias", name);
    vector(c, full, c->shape->dim, 0.0f, 0.2f);
}

static void linear(struct context *c, uint32_t layer, const char *name, bool has_bias, uint64_t n_in, uint64_t n_out)
{
    char full[80];

    snprintf(full, sizeof(full), "blk.%u.%s.weight", layer, name);
    matrix(c, full, n_in, n_out, 1.0f / sqrtf((float)n_in));
    snprintf(full, sizeof(full), "blk.%u.%s.bias", layer, name);
    if (has_bias)
        vector(c, full, n_out, 0.0f, 0.3f);
}

static void layer(struct context *c, uint32_t i, bool bert)
{
    const struct model_shape *s = c->shape;
    char name[64];

    if (bert) {
        linear(c, i, "attn_q", true, s->dim, s->dim);
        linear(c, i, "attn_k", true, s->dim, s->dim);
        linear(c, i, "attn_v", true, s->dim, s->dim);
    } else {
        linear(c, i, "attn_qkv", false, s->dim, 3 * s->dim);
        linear(c, i, "ffn_gate", false, s->dim, s->ff);
    }
    linear(c, i, "attn_output", bert, s->dim, s->dim);
    snprintf(name, sizeof(name), "blk.%u.attn_output_norm", i);
    norm(c, name);
    linear(c, i, "ffn_up", bert, s->dim, s->ff);
    linear(c, i, "ffn_down", bert, s->ff, s->dim);
    snprintf(name, sizeof(name), "blk.%u.layer_output_norm", i);
    norm(c, name);
}

static void key_u32(struct model_writer *w, const struct model_shape *s, const char *name, uint32_t value)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
    model_writer_u32(w, key, value);
}

void model_writer_encoder(struct model_writer *w, const struct model_shape *s)
{
    struct context c = {.w = w, .shape = s};
    bool bert = strcmp(s->architecture, "bert") == 0;
    char key[128];

    model_writer_string(w, "general.architecture", s->architecture);
    model_writer_string(w, "general.name", s->name);
    key_u32(w, s, "context_length", s->context);
    key_u32(w, s, "embedding_length", s->dim);
    key_u32(w, s, "block_count", s->n_layers);
    key_u32(w, s, "feed_forward_length", s->ff);
    key_u32(w, s, "attention.head_count", s->n_heads);
    if (s->pooling)
        key_u32(w, s, "pooling_type", s->pooling);
    snprintf(key, sizeof(key), "%s.attention.layer_norm_epsilon", s->architecture);
    model_writer_f32(w, key, 1e-12f);
    snprintf(key, sizeof(key), "%s.attention.causal", s->architecture);
    model_writer_bool(w, key, false);
    snprintf(key, sizeof(key), "%s.rope.freq_base", s->architecture);
    if (!bert)
        model_writer_f32(w, key, 1000.0f);
    model_writer_u32(w, "tokenizer.ggml.token_type_count", 2);
    if (s->tokenizer)
        model_writer_vocabulary(w, s->tokenizer, s->n_vocab);

    matrix(&c, "token_embd.weight", s->dim, s->n_vocab, 1.0f);
    if (bert)
        matrix(&c, "position_embd.weight", s->dim, s->context, 0.5f);
    matrix(&c, "token_types.weight", s->dim, 2, 0.3f);
    norm(&c, "token_embd_norm");
    for (uint32_t i = 0; i < s->n_layers; i++)
        layer(&c, i, bert);
}
