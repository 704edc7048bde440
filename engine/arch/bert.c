/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encoders: BERT (and MiniLM, BGE, E5 …, which are stored as such) and nomic-bert. Every token sees the whole
 * text; norms (of mean and deviation) stand behind each sum with the stream rather than before a block; there is no
 * output matrix: the last norm's result are the embeddings.
 *
 * BERT adds a vector for each position and has biases and GELU; nomic-bert rotates q and k and has SwiGLU. Tokens
 * are all of the first kind ("sentence A"). GELU is the tanh form, as in other engines for these files; BERT was
 * trained with the exact one, from which it differs by less than 0.0005.
 * Sources: Devlin et al., arXiv 1810.04805; Nussbaum et al., arXiv 2402.01613.
 */

#include <errno.h>
#include <math.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

/* The stream: its rows, and packed forms of them for the products that come next. */
struct stream {
    uint32_t x;
    struct graph_op norm; /* that makes it; not yet in the graph */
    struct arch_packs packs;
};

static int embed(struct arch_build *b, bool has_positions, uint32_t *ret)
{
    const struct arch_config *c = b->config;
    struct graph_op op = {.type = GRAPH_EMBED, .embed = {.scale = 1.0f}};
    uint32_t n_kinds = 0;
    int r;

    r = arch_matrix(b, ARCH_NO_LAYER, "token_embd.weight", ARCH_REQUIRED, c->n_embedding, c->n_vocab,
                    &op.embed.weight);
    if (r < 0)
        return r;
    if (has_positions) {
        r = arch_matrix(b, ARCH_NO_LAYER, "position_embd.weight", ARCH_REQUIRED, c->n_embedding, c->context_tokens,
                        &op.embed.position);
        if (r < 0)
            return r;
    }
    r = gguf_get_u32(b->gguf, "tokenizer.ggml.token_type_count", &n_kinds, b->fault);
    if (r < 0 && r != -ENOENT)
        return r;
    r = arch_matrix(b, ARCH_NO_LAYER, "token_types.weight", ARCH_OPTIONAL, c->n_embedding, n_kinds, &op.embed.kind);
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_embedding, &op.embed.out);
    if (r < 0)
        return r;
    *ret = op.embed.out;
    return graph_add(b->graph, &op);
}

/* The norm @name of @x makes the next stream. */
static int stream_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t x, struct stream *ret)
{
    int r;

    *ret = (struct stream){};
    r = arch_layer_norm_init(b, layer, name, x, &ret->norm);
    ret->x = ret->norm.norm.out;
    return r;
}

static int attention(struct arch_build *b, const struct arch_decoder *d, uint32_t layer,
                     const struct arch_attention *a, struct stream *s)
{
    const struct arch_config *c = b->config;
    struct graph_op op = arch_linear_op(3);
    struct graph_linear out;
    uint32_t attended;
    int r;

    r = arch_qkv_init(b, layer, op.linear.parts);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < 3; i++) {
        struct graph_linear *part = &op.linear.parts[i];

        r = arch_packs_need(b, &s->packs, GRAPH_ROWS_TOKENS, &part->weight, &part->in);
        if (r < 0)
            return r;
    }
    r = arch_norm_add(b, &s->norm, &s->packs);
    if (r < 0)
        return r;
    r = graph_add(b->graph, &op);
    if (r < 0)
        return r;
    r = arch_attend(b, d, layer, a, op.linear.parts, &attended);
    if (r < 0)
        return r;
    r = arch_linear_init(b, layer, "attn_output", c->n_heads * c->v_dim, c->n_embedding, &out);
    if (r < 0)
        return r;
    return arch_project(b, d, layer, attended, &out, NULL, s->x);
}

static int feed_forward(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, bool gated,
                        struct stream *s)
{
    const struct arch_config *c = b->config;
    struct graph_op op = {.type = GRAPH_GLU, .glu = {.activation = d->activation}};
    struct graph_linear down;
    int r;

    r = arch_linear_init(b, layer, gated ? "ffn_gate" : "ffn_up", c->n_embedding, c->n_ff, &op.glu.gate);
    if (r == 0)
        r = arch_packs_need(b, &s->packs, GRAPH_ROWS_TOKENS, &op.glu.gate.weight, &op.glu.gate.in);
    if (r == 0 && gated)
        r = arch_linear_init(b, layer, "ffn_up", c->n_embedding, c->n_ff, &op.glu.up);
    if (r == 0 && gated)
        r = arch_packs_need(b, &s->packs, GRAPH_ROWS_TOKENS, &op.glu.up.weight, &op.glu.up.in);
    if (r == 0)
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_ff, &op.glu.out);
    if (r == 0)
        r = arch_norm_add(b, &s->norm, &s->packs);
    if (r == 0)
        r = graph_add(b->graph, &op);
    if (r == 0)
        r = arch_linear_init(b, layer, "ffn_down", c->n_ff, c->n_embedding, &down);
    return r < 0 ? r : arch_project(b, d, layer, op.glu.out, &down, NULL, s->x);
}

static int encoder_build(struct arch_build *b, bool has_positions, bool gated)
{
    struct arch_attention a = {.rope_table = GRAPH_NONE};
    struct arch_decoder d = {.residual_scale = 1.0f, .activation = {.kind = gated ? GRAPH_SILU : GRAPH_GELU}};
    struct arch_packs none = {};
    struct stream s;
    uint32_t x;
    int r;

    r = arch_config_read(b, "attention.layer_norm_epsilon");
    if (r < 0)
        return r;
    d.attention_scale = 1.0f / sqrtf((float)b->config->k_dim);
    b->graph->is_encoder = true;
    b->graph->n_groups = 1;
    b->graph->groups[0] = (struct graph_group){.n_layers = b->config->n_layers,
                                               .n_kv_heads = b->config->n_kv_heads,
                                               .k_dim = b->config->k_dim,
                                               .v_dim = b->config->v_dim};
    r = embed(b, has_positions, &x);
    if (r < 0)
        return r;
    if (!has_positions) {
        struct arch_rope rope = {.n_rot = b->config->n_rot, .base = 10000.0f};

        r = arch_rope_read(b, &rope);
        if (r == 0)
            r = arch_rope_table(b, &rope, &a.rope_table);
        if (r < 0)
            return r;
    }
    r = stream_init(b, ARCH_NO_LAYER, "token_embd_norm", x, &s);
    for (uint32_t layer = 0; r == 0 && layer < b->config->n_layers; layer++) {
        b->graph->layer = a.group_layer = layer;
        r = attention(b, &d, layer, &a, &s);
        if (r == 0)
            r = stream_init(b, layer, "attn_output_norm", s.x, &s);
        if (r == 0)
            r = feed_forward(b, &d, layer, gated, &s);
        if (r == 0)
            r = stream_init(b, layer, "layer_output_norm", s.x, &s);
    }
    if (r < 0)
        return r;
    b->graph->layer = GRAPH_OUTPUT;
    b->graph->embeddings = s.x;
    return arch_norm_add(b, &s.norm, &none);
}

int bert_build(struct arch_build *b)
{
    return encoder_build(b, /* has_positions= */ true, /* gated= */ false);
}

int nomic_bert_build(struct arch_build *b)
{
    return encoder_build(b, /* has_positions= */ false, /* gated= */ true);
}
