/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole random models for model_writer.h: keys and tensors whose weights keep activations near 1, so that nothing
 * overflows and every part of the network has a say in the logits. What a family has is in the table; names of keys and
 * tensors are those of the GGUF specification and of published files.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model-writer/model_writer.h"
#include "tests/model-writer/random_blocks.h"

/* What distinguishes the families' layers. */
struct family {
    const char *name;
    bool qkv_bias, output_bias, qk_norm, qkv_fused, gate_up_fused, post_norms, sinks, expert_bias, shared_gate;
    bool tied, multipliers, caps;
};

static const struct family families[] = {
    {.name = "llama"},
    {.name = "qwen2", .qkv_bias = true},
    {.name = "qwen2moe", .qkv_bias = true, .shared_gate = true},
    {.name = "qwen3", .qk_norm = true},
    {.name = "qwen3moe", .qk_norm = true},
    {.name = "gemma", .tied = true},
    {.name = "gemma2", .tied = true, .post_norms = true, .caps = true},
    {.name = "gemma3", .tied = true, .post_norms = true, .qk_norm = true},
    {.name = "phi3", .qkv_fused = true, .gate_up_fused = true},
    {.name = "gpt-oss", .qkv_bias = true, .output_bias = true, .sinks = true, .expert_bias = true},
    {.name = "granite", .multipliers = true},
    {.name = "smollm3"},
    {.name = "deepseek2"},
};

static const struct family *family_of(const struct model_shape *s)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
        if (strcmp(families[i].name, s->architecture) == 0)
            return &families[i];
    return &families[0];
}

struct model_shape model_shape_default(void)
{
    return (struct model_shape){
        .architecture = "llama",
        .name = "random test model",
        .n_layers = 2,
        .dim = 256,
        .ff = 512,
        .n_heads = 8,
        .n_kv_heads = 2,
        .n_vocab = 512,
        .context = 256,
        .type = TENSOR_F32,
        .embedding_type = TENSOR_TYPE_MAX,
        .output_type = TENSOR_TYPE_MAX,
        .v_type = TENSOR_TYPE_MAX,
        .down_type = TENSOR_TYPE_MAX,
        .rope_base = 10000.0f,
        .rms_epsilon = 1e-5f,
        .rope_factor = 4.0f,
        .rope_original_context = 64,
        .n_experts_used = 2,
        .tokenizer = "llama",
        .chat_template = model_chatml_template,
        .seed = 1,
    };
}

static void key_u32(struct model_writer *w, const struct model_shape *s, const char *name, uint32_t value)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
    model_writer_u32(w, key, value);
}

static void key_f32(struct model_writer *w, const struct model_shape *s, const char *name, float value)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
    model_writer_f32(w, key, value);
}

static void key_bool(struct model_writer *w, const struct model_shape *s, const char *name, bool value)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
    model_writer_bool(w, key, value);
}

/* Keys that only some families have. */
static void write_family_keys(struct model_writer *w, const struct model_shape *s)
{
    const struct family *f = family_of(s);

    if (s->n_experts) {
        key_u32(w, s, "expert_count", s->n_experts);
        key_u32(w, s, "expert_used_count", s->n_experts_used);
        if (s->expert_ff)
            key_u32(w, s, "expert_feed_forward_length", s->expert_ff);
        if (s->shared_ff)
            key_u32(w, s, "expert_shared_feed_forward_length", s->shared_ff);
        if (s->latent.kv_rank)
            key_u32(w, s, "expert_shared_count", 2);
        if (s->dense_layers)
            key_u32(w, s, "leading_dense_block_count", s->dense_layers);
        if (s->expert_groups) {
            key_u32(w, s, "expert_group_count", s->expert_groups);
            key_u32(w, s, "expert_group_used_count", s->expert_groups_used);
        }
        if (s->sigmoid) {
            key_u32(w, s, "expert_gating_func", 2);
            key_f32(w, s, "expert_weights_scale", 2.5f);
            key_bool(w, s, "expert_weights_norm", true);
        }
    }
    if (s->latent.kv_rank) {
        key_u32(w, s, "attention.kv_lora_rank", s->latent.kv_rank);
        if (s->latent.q_rank)
            key_u32(w, s, "attention.q_lora_rank", s->latent.q_rank);
        if (s->latent.compressed) {
            key_u32(w, s, "attention.key_length_mla", s->head_dim + s->latent.n_rot);
            key_u32(w, s, "attention.value_length_mla", s->latent.v_dim);
        }
        if (s->rope_scaling)
            key_f32(w, s, "rope.scaling.yarn_log_multiplier", 0.0707f);
    }
    if (s->window)
        key_u32(w, s, "attention.sliding_window", s->window);
    if (f->caps) {
        key_f32(w, s, "attn_logit_softcapping", 5.0f);
        key_f32(w, s, "final_logit_softcapping", 15.0f);
    }
    if (f->multipliers) {
        key_f32(w, s, "embedding_scale", 12.0f);
        key_f32(w, s, "residual_scale", 0.22f);
        key_f32(w, s, "attention.scale", 0.3f);
        key_f32(w, s, "logit_scale", 0.4f);
    }
}

static void write_keys(struct model_writer *w, const struct model_shape *s)
{
    uint32_t head_dim = s->head_dim ? s->head_dim : s->dim / s->n_heads;
    char key[128];

    model_writer_string(w, "general.architecture", s->architecture);
    model_writer_string(w, "general.name", s->name);
    model_writer_u32(w, "general.quantization_version", 2);
    key_u32(w, s, "context_length", s->context);
    key_u32(w, s, "embedding_length", s->dim);
    key_u32(w, s, "block_count", s->n_layers);
    key_u32(w, s, "feed_forward_length", s->ff);
    key_u32(w, s, "attention.head_count", s->n_heads);
    key_u32(w, s, "attention.head_count_kv", s->latent.compressed ? 1 : s->latent.kv_rank ? s->n_heads : s->n_kv_heads);
    if (s->latent.kv_rank) {
        /* Of what is cached. */
        key_u32(w, s, "attention.key_length", (s->latent.compressed ? s->latent.kv_rank : head_dim) + s->latent.n_rot);
        key_u32(w, s, "attention.value_length", s->latent.compressed ? s->latent.kv_rank : s->latent.v_dim);
    } else if (s->head_dim) {
        key_u32(w, s, "attention.key_length", head_dim);
        key_u32(w, s, "attention.value_length", head_dim);
    }
    key_f32(w, s, "attention.layer_norm_rms_epsilon", s->rms_epsilon);
    key_u32(w, s, "rope.dimension_count", s->latent.kv_rank ? s->latent.n_rot : head_dim);
    key_f32(w, s, "rope.freq_base", s->rope_base);
    key_u32(w, s, "vocab_size", s->n_vocab);
    if (s->rope_scaling && strcmp(s->rope_scaling, "llama3") != 0) {
        snprintf(key, sizeof(key), "%s.rope.scaling.type", s->architecture);
        model_writer_string(w, key, s->rope_scaling);
        key_f32(w, s, "rope.scaling.factor", s->rope_factor);
        key_u32(w, s, "rope.scaling.original_context_length", s->rope_original_context);
    }
    write_family_keys(w, s);
    if (s->tokenizer)
        model_writer_vocabulary(w, s->tokenizer, s->n_vocab);
    if (s->chat_template)
        model_writer_string(w, "tokenizer.chat_template", s->chat_template);
}

struct tensor_context {
    struct model_writer *w;
    const struct model_shape *shape;
    uint64_t n_added; /* so that each tensor has a seed of its own */
};

/* @n matrices in one tensor. */
static void matrices(struct tensor_context *c, const char *name, enum tensor_type type, uint64_t n_in, uint64_t n_out,
                     uint64_t n, float std)
{
    uint64_t dims[] = {n_in, n_out, n}, row_bytes;

    if (type == TENSOR_TYPE_MAX)
        type = c->shape->type;
    if (tensor_row_bytes(type, n_in, &row_bytes) < 0)
        type = TENSOR_F16;
    model_writer_tensor_random(c->w, name, type, n > 1 ? 3 : 2, dims, std, c->shape->seed * 1000003 + c->n_added++);
}

static void matrix(struct tensor_context *c, const char *name, enum tensor_type type, uint64_t n_in, uint64_t n_out,
                   float std)
{
    matrices(c, name, type, n_in, n_out, 1, std);
}

/* @n_rows rows of @n floats around @mean. */
static void vectors(struct tensor_context *c, const char *name, uint64_t n, uint64_t n_rows, float mean, float std)
{
    uint64_t state = c->shape->seed * 1000003 + c->n_added++, dims[] = {n, n_rows};
    float *values = calloc(n * n_rows, sizeof(*values));

    if (!values)
        abort();
    for (uint64_t i = 0; i < n * n_rows; i++)
        values[i] = mean + std * random_normal(&state);
    model_writer_tensor(c->w, name, TENSOR_F32, n_rows > 1 ? 2 : 1, dims, values, n * n_rows * sizeof(*values));
    free(values);
}

static void norm(struct tensor_context *c, const char *name, uint64_t n)
{
    vectors(c, name, n, 1, 1.0f, 0.1f);
}

static void bias(struct tensor_context *c, const char *name, uint64_t n)
{
    vectors(c, name, n, 1, 0.0f, 0.3f);
}

/* What a Llama 3 converter writes: a divisor for each pair's frequency, by its wavelength against the old context. */
static void rope_freqs(struct tensor_context *c, uint32_t head_dim)
{
    const struct model_shape *s = c->shape;
    uint64_t n = head_dim / 2;
    float *values = calloc(n, sizeof(*values));

    if (!values)
        abort();
    for (uint64_t i = 0; i < n; i++) {
        double wavelength = 2 * M_PI * pow(s->rope_base, 2.0 * (double)i / head_dim);
        double low = s->rope_original_context / 1.0, high = s->rope_original_context / 4.0;
        double smooth = (s->rope_original_context / wavelength - 1.0) / (4.0 - 1.0);

        if (wavelength < high)
            values[i] = 1.0f;
        else if (wavelength > low)
            values[i] = s->rope_factor;
        else
            values[i] = (float)(1.0 / ((1 - smooth) / s->rope_factor + smooth));
    }
    model_writer_tensor(c->w, "rope_freqs.weight", TENSOR_F32, 1, &n, values, n * sizeof(*values));
    free(values);
}

/* The first and the last eighth, and every third between. */
static bool has_more_bits(const struct model_shape *s, uint32_t i)
{
    uint32_t eighth = s->n_layers / 8;

    return !s->mixed || i < eighth || i >= 7 * s->n_layers / 8 || (i - eighth) % 3 == 2;
}

static enum tensor_type v_type(const struct model_shape *s, uint32_t i)
{
    return has_more_bits(s, i) ? s->v_type : TENSOR_TYPE_MAX;
}

static enum tensor_type down_type(const struct model_shape *s, uint32_t i)
{
    return has_more_bits(s, i) ? s->down_type : TENSOR_TYPE_MAX;
}

#define NAME(part) (snprintf(name, sizeof(name), "blk.%u." part, i), name)

static void attention(struct tensor_context *c, uint32_t i, uint32_t head_dim)
{
    const struct model_shape *s = c->shape;
    const struct family *f = family_of(s);
    uint64_t n_q = (uint64_t)s->n_heads * head_dim, n_kv = (uint64_t)s->n_kv_heads * head_dim;
    float in = 1.0f / sqrtf((float)s->dim);
    char name[64];

    norm(c, NAME("attn_norm.weight"), s->dim);
    if (f->qkv_fused) {
        matrix(c, NAME("attn_qkv.weight"), TENSOR_TYPE_MAX, s->dim, n_q + 2 * n_kv, in);
    } else {
        matrix(c, NAME("attn_q.weight"), TENSOR_TYPE_MAX, s->dim, n_q, in);
        matrix(c, NAME("attn_k.weight"), TENSOR_TYPE_MAX, s->dim, n_kv, in);
        matrix(c, NAME("attn_v.weight"), v_type(s, i), s->dim, n_kv, in);
    }
    if (f->qkv_bias) {
        bias(c, NAME("attn_q.bias"), n_q);
        bias(c, NAME("attn_k.bias"), n_kv);
        bias(c, NAME("attn_v.bias"), n_kv);
    }
    if (f->qk_norm) {
        norm(c, NAME("attn_q_norm.weight"), head_dim);
        norm(c, NAME("attn_k_norm.weight"), head_dim);
    }
    if (f->sinks)
        vectors(c, NAME("attn_sinks.weight"), s->n_heads, 1, 0.5f, 1.0f);
    matrix(c, NAME("attn_output.weight"), TENSOR_TYPE_MAX, n_q, s->dim, 1.0f / sqrtf((float)n_q));
    if (f->output_bias)
        bias(c, NAME("attn_output.bias"), s->dim);
    if (f->post_norms)
        norm(c, NAME("post_attention_norm.weight"), s->dim);
}

/* Attention by a latent; head_dim is the part of a key without a position. */
static void latent_attention(struct tensor_context *c, uint32_t i)
{
    const struct model_shape *s = c->shape;
    uint64_t n_nope = s->head_dim, n_rot = s->latent.n_rot, rank = s->latent.kv_rank, n_heads = s->n_heads;
    uint64_t n_q = n_heads * (n_nope + n_rot), n_v = n_heads * s->latent.v_dim;
    float in = 1.0f / sqrtf((float)s->dim), of_rank = 1.0f / sqrtf((float)rank);
    char name[64];

    norm(c, NAME("attn_norm.weight"), s->dim);
    if (s->latent.q_rank) {
        matrix(c, NAME("attn_q_a.weight"), TENSOR_TYPE_MAX, s->dim, s->latent.q_rank, in);
        norm(c, NAME("attn_q_a_norm.weight"), s->latent.q_rank);
        matrix(c, NAME("attn_q_b.weight"), TENSOR_TYPE_MAX, s->latent.q_rank, n_q, 1.0f / sqrtf((float)s->latent.q_rank));
    } else {
        matrix(c, NAME("attn_q.weight"), TENSOR_TYPE_MAX, s->dim, n_q, in);
    }
    matrix(c, NAME("attn_kv_a_mqa.weight"), TENSOR_TYPE_MAX, s->dim, rank + n_rot, in);
    norm(c, NAME("attn_kv_a_norm.weight"), rank);
    if (s->latent.compressed) {
        matrices(c, NAME("attn_k_b.weight"), TENSOR_TYPE_MAX, n_nope, rank, n_heads, of_rank);
        matrices(c, NAME("attn_v_b.weight"), TENSOR_TYPE_MAX, rank, s->latent.v_dim, n_heads, of_rank);
    } else {
        matrix(c, NAME("attn_kv_b.weight"), TENSOR_TYPE_MAX, rank, n_heads * (n_nope + s->latent.v_dim), of_rank);
    }
    matrix(c, NAME("attn_output.weight"), TENSOR_TYPE_MAX, n_v, s->dim, 1.0f / sqrtf((float)n_v));
}

static void experts(struct tensor_context *c, uint32_t i)
{
    const struct model_shape *s = c->shape;
    const struct family *f = family_of(s);
    uint64_t n = s->n_experts, ff = s->expert_ff ? s->expert_ff : s->ff;
    float in = 1.0f / sqrtf((float)s->dim);
    char name[64];

    vectors(c, NAME("ffn_gate_inp.weight"), s->dim, n, 0.0f, 1.5f * in);
    matrices(c, NAME("ffn_gate_exps.weight"), TENSOR_TYPE_MAX, s->dim, ff, n, in);
    matrices(c, NAME("ffn_up_exps.weight"), TENSOR_TYPE_MAX, s->dim, ff, n, in);
    matrices(c, NAME("ffn_down_exps.weight"), down_type(s, i), ff, s->dim, n, 1.0f / sqrtf((float)ff));
    if (f->expert_bias) {
        bias(c, NAME("ffn_gate_inp.bias"), n);
        vectors(c, NAME("ffn_gate_exps.bias"), ff, n, 0.0f, 0.2f);
        vectors(c, NAME("ffn_up_exps.bias"), ff, n, 0.0f, 0.2f);
        vectors(c, NAME("ffn_down_exps.bias"), s->dim, n, 0.0f, 0.1f);
    }
    if (s->sigmoid)
        vectors(c, NAME("exp_probs_b.bias"), n, 1, 0.0f, 0.2f);
    if (f->shared_gate || s->latent.kv_rank) {
        uint64_t shared = s->latent.kv_rank ? 2 * ff : s->shared_ff ? s->shared_ff : s->ff;

        if (f->shared_gate)
            vectors(c, NAME("ffn_gate_inp_shexp.weight"), s->dim, 1, 0.0f, in);
        matrix(c, NAME("ffn_gate_shexp.weight"), TENSOR_TYPE_MAX, s->dim, shared, in);
        matrix(c, NAME("ffn_up_shexp.weight"), TENSOR_TYPE_MAX, s->dim, shared, in);
        matrix(c, NAME("ffn_down_shexp.weight"), down_type(s, i), shared, s->dim, 1.0f / sqrtf((float)shared));
    }
}

static void feed_forward(struct tensor_context *c, uint32_t i)
{
    const struct model_shape *s = c->shape;
    const struct family *f = family_of(s);
    float in = 1.0f / sqrtf((float)s->dim);
    char name[64];

    /* gpt-oss calls the norm between the two halves by the name of the one behind the first. */
    norm(c, f->sinks ? NAME("post_attention_norm.weight") : NAME("ffn_norm.weight"), s->dim);
    if (s->n_experts && i >= s->dense_layers) {
        experts(c, i);
        return;
    }
    if (!f->gate_up_fused)
        matrix(c, NAME("ffn_gate.weight"), TENSOR_TYPE_MAX, s->dim, s->ff, in);
    matrix(c, NAME("ffn_up.weight"), TENSOR_TYPE_MAX, s->dim, f->gate_up_fused ? 2 * s->ff : s->ff, in);
    matrix(c, NAME("ffn_down.weight"), down_type(s, i), s->ff, s->dim, 1.0f / sqrtf((float)s->ff));
    if (f->post_norms)
        norm(c, NAME("post_ffw_norm.weight"), s->dim);
}

#undef NAME

void model_writer_llama(struct model_writer *w, const struct model_shape *s)
{
    struct tensor_context c = {.w = w, .shape = s};
    uint32_t head_dim = s->head_dim ? s->head_dim : s->dim / s->n_heads;
    bool tied = s->tied || family_of(s)->tied;

    write_keys(w, s);
    /* Where embeddings are the output too, they have its size. */
    matrix(&c, "token_embd.weight", s->embedding_type, s->dim, s->n_vocab, tied ? 2.0f / sqrtf((float)s->dim) : 1.0f);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        if (s->latent.kv_rank)
            latent_attention(&c, i);
        else
            attention(&c, i, head_dim);
        feed_forward(&c, i);
    }
    norm(&c, "output_norm.weight", s->dim);
    if (!tied)
        matrix(&c, "output.weight", s->output_type, s->dim, s->n_vocab, 3.0f / sqrtf((float)s->dim));
    if (s->rope_scaling && strcmp(s->rope_scaling, "llama3") == 0)
        rope_freqs(&c, head_dim);
}
