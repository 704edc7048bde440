/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of architectures: general.architecture of a file chooses its row.
 */

#include "engine/arch/arch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

static const struct arch archs[] = {
    {"bert", bert_build},
    {"deepseek2", deepseek2_build},
    {"gemma", gemma_build},
    {"gemma2", gemma2_build},
    {"gemma3", gemma3_build},
    {"gpt-oss", gpt_oss_build},
    {"granite", granite_build},
    {"llama", llama_build},
    {"nomic-bert", nomic_bert_build},
    {"phi3", phi3_build},
    {"qwen2", qwen2_build},
    {"qwen2moe", qwen2moe_build},
    {"qwen3", qwen3_build},
    {"qwen3moe", qwen3moe_build},
    {"smollm3", smollm3_build},
};

#define N_ARCHS (sizeof(archs) / sizeof(archs[0]))

const char *arch_names(char *buffer, size_t size)
{
    size_t at = 0;

    buffer[0] = '\0';
    for (size_t i = 0; i < N_ARCHS && at < size; i++)
        at += (size_t)snprintf(buffer + at, size - at, "%s%s", i ? ", " : "", archs[i].name);
    return buffer;
}

static const struct arch *arch_find(const struct gguf_string *name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (name->n_bytes == strlen(archs[i].name) && memcmp(name->data, archs[i].name, name->n_bytes) == 0)
            return &archs[i];
    return NULL;
}

int arch_build(const struct gguf *g, const struct arch_target *target, struct arch_config *ret_config,
               struct graph *ret_graph, struct fault *reterr)
{
    struct arch_config config = {};
    struct arch_build b = {
        .gguf = g,
        .target = target,
        .config = &config,
        .graph = ret_graph,
        .fault = reterr,
        .pending = {.value = GRAPH_NONE},
    };
    const struct arch *arch;
    struct gguf_string name;
    int r;

    /* An adapter names the architecture that it is for. */
    if (gguf_get_string(g, "general.type", &name, NULL) == 0 && name.n_bytes == 7 &&
        memcmp(name.data, "adapter", 7) == 0) {
        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, "general.type")->offset,
                            "it is an adapter and no model: it is loaded with one");
        return -EINVAL;
    }
    r = gguf_get_string(g, "general.architecture", &name, reterr);
    if (r == -ENOENT) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the key general.architecture is missing");
        return -EINVAL;
    }
    if (r < 0)
        return r;
    arch = arch_find(&name);
    if (!arch) {
        char known[256], found[64];

        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, "general.architecture")->offset,
                            "the architecture is \"%s\", which is not supported; known: %s",
                            arch_text(&name, found, sizeof(found)), arch_names(known, sizeof(known)));
        return -EINVAL;
    }
    b.name = config.name = arch->name;
    r = arch->build(&b);
    if (r < 0)
        return r;
    *ret_config = config;
    return 0;
}
