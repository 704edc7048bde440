/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine logits: what the model predicts at each position of a given text. The file has
 * [n_positions, n_vocab] float32, little-endian, as the machine computes them.
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "engine/tool/tool.h"

/* Tokens of one step: logits of so many positions are in memory at once. */
#define CHUNK_DEFAULT 64

struct logits_args {
    struct tool_config config;
    int32_t *ids;
    size_t n_ids;
    const char *out;
    uint32_t chunk;
};

static void logits_args_done(struct logits_args *a)
{
    free(a->ids);
}

static int parse(int argc, char **argv, struct logits_args *a)
{
    enum { OPT_IDS = TOOL_OPT_OWN, OPT_OUT, OPT_STEP, OPT_CHUNK };
    static const struct option options[] = {
        TOOL_OPTIONS,
        {"ids", 1, NULL, OPT_IDS},
        {"out", 1, NULL, OPT_OUT},
        {"step", 0, NULL, OPT_STEP},
        {"chunk", 1, NULL, OPT_CHUNK},
        {},
    };
    int option, r;

    r = tool_config_init(&a->config);
    if (r != 0)
        return r;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        r = 0;
        switch (option) {
        case '?':
            return TOOL_USAGE;
        case OPT_IDS:
            free(a->ids);
            a->ids = NULL;
            r = tool_parse_ids(argv[0], optarg, &a->ids, &a->n_ids);
            break;
        case OPT_OUT:
            a->out = optarg;
            break;
        case OPT_STEP:
            a->chunk = 1;
            break;
        case OPT_CHUNK:
            r = tool_parse_u32(argv[0], "--chunk", optarg, 1, 4096, &a->chunk);
            break;
        default:
            r = tool_config_option(&a->config, option, optarg);
        }
        if (r != 0)
            return r;
    }
    if (argc - optind != 1)
        return tool_usage(argv[0], "expected one model file");
    if (!a->ids || !a->out)
        return tool_usage(argv[0], "--ids and --out are needed");
    if (a->n_ids > UINT32_MAX)
        return tool_usage(argv[0], "too many ids");
    a->config.path = argv[optind];
    return 0;
}

/* Feeds tokens [from, from + n) and writes their logits. */
static int feed(struct engine *e, const struct logits_args *a, uint32_t sequence, uint32_t from, uint32_t n,
                uint32_t n_vocab, FILE *out)
{
    _cleanup_free_ uint32_t *numbers = calloc(2 * (size_t)n, sizeof(*numbers));
    _cleanup_free_ uint8_t *wants = malloc(n);
    struct fault fault = {.kind = FAULT_NONE};
    const float *logits;
    int r;

    if (!numbers || !wants)
        return tool_fail(a->config.path, NULL, -ENOMEM);
    memset(wants, 1, n);
    for (uint32_t i = 0; i < n; i++) {
        numbers[i] = sequence;
        numbers[n + i] = from + i;
    }
    r = engine_step(e,
                    &(struct engine_batch){.n_tokens = n,
                                           .tokens = a->ids + from,
                                           .sequences = numbers,
                                           .positions = numbers + n,
                                           .wants_logits = wants},
                    &logits, &fault);
    if (r != 0)
        return tool_fail(a->config.path, &fault, r < 0 ? r : -ENOSPC);
    if (fwrite(logits, sizeof(float) * n_vocab, n, out) != n)
        return tool_fail(a->out, NULL, -errno);
    return 0;
}

int verb_logits(int argc, char **argv)
{
    _cleanup_(logits_args_done) struct logits_args a = {.chunk = CHUNK_DEFAULT};
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_fclose_ FILE *out = NULL;
    struct engine_facts facts;
    uint32_t sequence;
    int r;

    r = parse(argc, argv, &a);
    if (r != 0)
        return r;
    r = tool_engine_open(&a.config,
                         &(struct engine_config){.kv_tokens = (uint32_t)a.n_ids,
                                                 .sequences_max = 1,
                                                 .batch_tokens_max = a.chunk,
                                                 .outputs_max = a.chunk},
                         &e);
    if (r != 0)
        return r;
    engine_facts(e, &facts);
    out = fopen(a.out, "we");
    if (!out)
        return tool_fail(a.out, NULL, -errno);
    r = tool_sequence_open(&a.config, e, &sequence);
    if (r != 0)
        return r;
    for (uint32_t from = 0; from < a.n_ids; from += a.chunk) {
        uint32_t left = (uint32_t)a.n_ids - from;

        r = feed(e, &a, sequence, from, left < a.chunk ? left : a.chunk, facts.n_vocab, out);
        if (r != 0)
            return r;
    }
    if (fflush(out) != 0)
        return tool_fail(a.out, NULL, -errno);
    return TOOL_OK;
}
