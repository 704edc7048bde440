/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine generate: the greedy continuation of token ids, as ids. Ties go to the lower id. It does not stop at
 * an end-of-text token: what is asked for is a number of tokens.
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/tool/tool.h"

#define PREFILL_TOKENS 512

struct generate_args {
    struct tool_config config;
    int32_t *ids;
    size_t n_ids;
    uint32_t n;
};

static void generate_args_done(struct generate_args *a)
{
    free(a->ids);
}

static int parse(int argc, char **argv, struct generate_args *a)
{
    enum { OPT_IDS = TOOL_OPT_OWN };
    static const struct option options[] = {TOOL_OPTIONS, {"ids", 1, NULL, OPT_IDS}, {}};
    int option, r;

    r = tool_config_init(&a->config);
    if (r != 0)
        return r;
    while ((option = getopt_long(argc, argv, "n:", options, NULL)) != -1) {
        switch (option) {
        case '?':
            return TOOL_USAGE;
        case 'n':
            r = tool_parse_u32(argv[0], "-n", optarg, 1, 1u << 24, &a->n);
            break;
        case OPT_IDS:
            free(a->ids);
            a->ids = NULL;
            r = tool_parse_ids(argv[0], optarg, &a->ids, &a->n_ids);
            break;
        default:
            r = tool_config_option(&a->config, option, optarg);
        }
        if (r != 0)
            return r;
    }
    if (argc - optind != 1)
        return tool_usage(argv[0], "expected one model file");
    if (!a->ids || a->n == 0)
        return tool_usage(argv[0], "--ids and -n are needed");
    if (a->n_ids > (1u << 24))
        return tool_usage(argv[0], "too many ids");
    a->config.path = argv[optind];
    return 0;
}

static int32_t best(const float *logits, uint32_t n_vocab)
{
    uint32_t b = 0;

    for (uint32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[b])
            b = i;
    return (int32_t)b;
}

/* Feeds @n tokens; the logits of the last one are wanted. */
static int feed(struct engine *e, const char *path, const int32_t *ids, uint32_t from, uint32_t n,
                const float **ret_logits)
{
    uint32_t sequences[PREFILL_TOKENS] = {0}, positions[PREFILL_TOKENS];
    uint8_t wants[PREFILL_TOKENS] = {0};
    struct fault fault = {.kind = FAULT_NONE};
    int r;

    for (uint32_t i = 0; i < n; i++)
        positions[i] = from + i;
    wants[n - 1] = 1;
    r = engine_step(e,
                    &(struct engine_batch){.n_tokens = n,
                                           .tokens = ids,
                                           .sequences = sequences,
                                           .positions = positions,
                                           .wants_logits = wants},
                    ret_logits, &fault);
    return r == 0 ? 0 : tool_fail(path, &fault, r < 0 ? r : -ENOSPC);
}

int verb_generate(int argc, char **argv)
{
    _cleanup_(generate_args_done) struct generate_args a = {};
    _cleanup_engine_ struct engine *e = NULL;
    const float *logits = NULL;
    struct engine_facts facts;
    uint32_t sequence, at = 0;
    int r;

    r = parse(argc, argv, &a);
    if (r != 0)
        return r;
    r = tool_engine_open(&a.config,
                         &(struct engine_config){.kv_tokens = (uint32_t)a.n_ids + a.n,
                                                 .sequences_max = 1,
                                                 .batch_tokens_max = PREFILL_TOKENS},
                         &e);
    if (r != 0)
        return r;
    engine_facts(e, &facts);
    r = tool_sequence_open(&a.config, e, &sequence);
    if (r != 0)
        return r;
    while (at < a.n_ids) {
        uint32_t left = (uint32_t)a.n_ids - at, n = left < PREFILL_TOKENS ? left : PREFILL_TOKENS;

        r = feed(e, a.config.path, a.ids + at, at, n, &logits);
        if (r != 0)
            return r;
        at += n;
    }
    for (uint32_t i = 0; i < a.n; i++) {
        int32_t id = best(logits, facts.n_vocab);

        printf("%s%d", i ? " " : "", id);
        fflush(stdout);
        if (i + 1 == a.n)
            break;
        r = feed(e, a.config.path, &id, at++, 1, &logits);
        if (r != 0) {
            printf("\n");
            return r;
        }
    }
    printf("\n");
    return TOOL_OK;
}
