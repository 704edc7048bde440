/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/engine/models.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "tests/model-writer/random_blocks.h"

#define PARTS_MAX 8

struct model_shape models_wide(enum tensor_type type)
{
    struct model_shape s = model_shape_default();

    s.n_layers = 1;
    s.dim = 1280;
    s.ff = 2816;
    s.n_heads = 8;
    s.n_kv_heads = 1;
    s.head_dim = 128;
    s.n_vocab = MODEL_VOCABULARY_MIN;
    s.context = 4096;
    s.type = type;
    s.tokenizer = NULL;
    s.chat_template = NULL;
    return s;
}

struct model_shape models_deep(void)
{
    struct model_shape s = model_shape_default();

    s.dim = 64;
    s.ff = 96;
    s.n_heads = 4;
    s.n_kv_heads = 2;
    s.n_vocab = MODEL_VOCABULARY_MIN;
    s.context = 4096;
    s.rope_original_context = 512;
    s.tokenizer = NULL;
    s.chat_template = NULL;
    return s;
}

struct engine_config models_config(uint32_t sequences_max, uint32_t batch_tokens_max)
{
    return (struct engine_config){
        .sequences_max = sequences_max,
        .batch_tokens_max = batch_tokens_max,
        .outputs_max = batch_tokens_max,
        .k_type = TENSOR_F32,
        .v_type = TENSOR_F32,
        .n_threads = 1,
        .isa_mask = UINT32_MAX,
    };
}

struct engine *models_open_parts(const struct model_shape *shape, size_t n_parts,
                                 struct engine_config *config)
{
    struct model_writer *w = model_writer_new();
    struct fault fault = {.kind = FAULT_NONE};
    struct engine *e = NULL;
    int fds[PARTS_MAX];
    int r;

    model_writer_llama(w, shape);
    for (size_t i = 0; i < n_parts; i++) {
        struct model_writer *part = n_parts > 1 ? model_writer_split(w, i, n_parts) : NULL;

        fds[i] = model_writer_memfd(part ? part : w);
        model_writer_free(part);
    }
    model_writer_free(w);
    config->fds = fds;
    config->n_fds = n_parts;
    r = engine_open(config, &e, &fault);
    config->fds = NULL;
    for (size_t i = 0; i < n_parts; i++)
        close(fds[i]);
    if (r < 0) {
        char text[512];

        fprintf(stderr, "engine_open: %d: %s\n", r, fault_describe(&fault, text, sizeof(text)));
        abort();
    }
    return e;
}

struct engine *models_open(const struct model_shape *shape, struct engine_config *config)
{
    return models_open_parts(shape, 1, config);
}

int32_t *models_tokens(uint64_t seed, uint32_t n, uint32_t n_vocab)
{
    int32_t *tokens = calloc(n, sizeof(*tokens));

    if (!tokens)
        abort();
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(random_next(&seed) % n_vocab);
    return tokens;
}
