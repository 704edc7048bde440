/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine bench: speed of prefill and of decoding, beside the speed at which the same threads can read the same
 * mapping. Bandwidth drifts from minute to minute, so each repeat measures all of them, reading before and after, and
 * the medians are reported. With several users a step reads the weights once for all of them.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/tool/tool.h"

#define BATCH_TOKENS   512
#define REPEATS_MAX    1000
#define USERS_MAX      256
#define STREAM_BYTES   (UINT64_C(2) << 30) /* of one reading: enough to leave every cache */
#define STREAM_TIMES_NS UINT64_C(20000000) /* a small model is read again until so much time has passed */

struct bench_args {
    struct tool_config config;
    uint32_t n_prompt, n_decode, n_users, depth, n_repeats;
    bool profile;
};

struct bench {
    struct engine *engine;
    const struct bench_args *args;
    struct engine_facts facts;
    uint64_t random;
    double prefill_tps[REPEATS_MAX], decode_tps[REPEATS_MAX], read_gbps[REPEATS_MAX];
    uint32_t sequences[USERS_MAX];
};

static int parse(int argc, char **argv, struct bench_args *a)
{
    enum { OPT_PROFILE = TOOL_OPT_OWN };
    static const struct option options[] = {TOOL_OPTIONS, {"profile", 0, NULL, OPT_PROFILE}, {}};
    int option, r;

    r = tool_config_init(&a->config);
    if (r != 0)
        return r;
    while ((option = getopt_long(argc, argv, "p:n:b:t:d:r:", options, NULL)) != -1) {
        r = 0;
        switch (option) {
        case '?':
            return TOOL_USAGE;
        case 'p':
            r = tool_parse_u32(argv[0], "-p", optarg, 0, 1u << 20, &a->n_prompt);
            break;
        case 'n':
            r = tool_parse_u32(argv[0], "-n", optarg, 0, 1u << 20, &a->n_decode);
            break;
        case 'b':
            r = tool_parse_u32(argv[0], "-b", optarg, 1, USERS_MAX, &a->n_users);
            break;
        case 't':
            r = tool_config_option(&a->config, TOOL_OPT_THREADS, optarg);
            break;
        case 'd':
            r = tool_parse_u32(argv[0], "-d", optarg, 0, 1u << 24, &a->depth);
            break;
        case 'r':
            r = tool_parse_u32(argv[0], "-r", optarg, 1, REPEATS_MAX, &a->n_repeats);
            break;
        case OPT_PROFILE:
            a->profile = true;
            break;
        default:
            r = tool_config_option(&a->config, option, optarg);
        }
        if (r != 0)
            return r;
    }
    if (argc - optind != 1)
        return tool_usage(argv[0], "expected one model file");
    if (a->n_prompt == 0 && a->n_decode == 0)
        return tool_usage(argv[0], "-p and -n are both 0: nothing to measure");
    a->config.path = argv[optind];
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Any token will do: the time does not depend on it. */
static int32_t some_token(struct bench *b)
{
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((b->random >> 33) % b->facts.n_vocab);
}

/* Feeds @n tokens to one sequence, in steps of BATCH_TOKENS; the last one's logits are wanted, as for a prompt. */
static int feed_prompt(struct bench *b, uint32_t sequence, uint32_t n)
{
    int32_t tokens[BATCH_TOKENS];
    uint32_t sequences[BATCH_TOKENS], positions[BATCH_TOKENS];
    uint8_t wants[BATCH_TOKENS];

    while (n > 0) {
        uint32_t m = n < BATCH_TOKENS ? n : BATCH_TOKENS, from = engine_sequence_length(b->engine, sequence);
        struct engine_batch batch = {.n_tokens = m,
                                     .tokens = tokens,
                                     .sequences = sequences,
                                     .positions = positions,
                                     .wants_logits = wants};
        struct fault fault = {.kind = FAULT_NONE};
        const float *logits;
        int r;

        for (uint32_t i = 0; i < m; i++) {
            tokens[i] = some_token(b);
            sequences[i] = sequence;
            positions[i] = from + i;
            wants[i] = n == m && i + 1 == m;
        }
        r = engine_step(b->engine, &batch, &logits, &fault);
        if (r != 0)
            return tool_fail(b->args->config.path, &fault, r < 0 ? r : -ENOSPC);
        n -= m;
    }
    return 0;
}

/* To where measuring begins; windowed layers may have given back what that takes, and are fed again. */
static int back_to_depth(struct bench *b, uint32_t sequence)
{
    int r = engine_sequence_truncate(b->engine, sequence, b->args->depth);

    if (r == ENGINE_WINDOW_GONE) {
        r = engine_sequence_truncate(b->engine, sequence, 0);
        if (r == 0)
            return feed_prompt(b, sequence, b->args->depth);
    }
    return r < 0 ? tool_fail(b->args->config.path, NULL, r) : 0;
}

/* One token for each user. */
static int decode(struct bench *b)
{
    int32_t tokens[USERS_MAX];
    uint32_t positions[USERS_MAX];
    uint8_t wants[USERS_MAX];
    struct engine_batch batch = {.n_tokens = b->args->n_users,
                                 .tokens = tokens,
                                 .sequences = b->sequences,
                                 .positions = positions,
                                 .wants_logits = wants,
                                 .n_top = 1}; /* as for whoever takes the likeliest token */
    struct fault fault = {.kind = FAULT_NONE};
    const float *logits;
    int r;

    for (uint32_t i = 0; i < b->args->n_users; i++) {
        tokens[i] = some_token(b);
        positions[i] = engine_sequence_length(b->engine, b->sequences[i]);
        wants[i] = 1;
    }
    r = engine_step(b->engine, &batch, &logits, &fault);
    return r == 0 ? 0 : tool_fail(b->args->config.path, &fault, r < 0 ? r : -ENOSPC);
}

static double stream_gbps(struct bench *b)
{
    uint64_t bytes = 0, ns = 0;

    do {
        uint64_t n, t;

        engine_stream(b->engine, STREAM_BYTES, &n, &t);
        bytes += n;
        ns += t;
    } while (ns < STREAM_TIMES_NS);
    return (double)bytes / (double)ns;
}

static int measure(struct bench *b, uint32_t i)
{
    const struct bench_args *a = b->args;
    uint64_t start;
    double before;
    int r;

    before = stream_gbps(b);
    if (a->n_prompt) {
        r = back_to_depth(b, b->sequences[0]);
        if (r != 0)
            return r;
        start = now_ns();
        r = feed_prompt(b, b->sequences[0], a->n_prompt);
        if (r != 0)
            return r;
        b->prefill_tps[i] = a->n_prompt * 1e9 / (double)(now_ns() - start);
    }
    if (a->n_decode) {
        for (uint32_t k = 0; k < a->n_users; k++) {
            r = back_to_depth(b, b->sequences[k]);
            if (r != 0)
                return r;
        }
        start = now_ns();
        for (uint32_t k = 0; k < a->n_decode; k++) {
            r = decode(b);
            if (r != 0)
                return r;
        }
        b->decode_tps[i] = (double)a->n_decode * a->n_users * 1e9 / (double)(now_ns() - start);
    }
    b->read_gbps[i] = (before + stream_gbps(b)) / 2;
    return 0;
}

static int by_value(const void *x, const void *y)
{
    const double *a = x, *b = y;

    return *a < *b ? -1 : *a > *b;
}

static double median(double *values, uint32_t n)
{
    qsort(values, n, sizeof(*values), by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* A number with so many digits as the measurement has. */
static int add_number(json_object *o, const char *key, double value)
{
    char text[32];
    json_object *number;

    snprintf(text, sizeof(text), "%.4g", value);
    number = json_object_new_double_s(strtod(text, NULL), text);
    return number ? json_object_object_add(o, key, number) : -1;
}

static int add_speeds(struct bench *b, json_object *o)
{
    const struct bench_args *a = b->args;
    double read = median(b->read_gbps, a->n_repeats), decoded = median(b->decode_tps, a->n_repeats);
    double used = decoded / a->n_users * (double)b->facts.bytes_per_token * 1e-9;

    if (add_number(o, "prefill_tps", median(b->prefill_tps, a->n_repeats)) < 0 ||
        add_number(o, "decode_tps", decoded) < 0 ||
        json_object_object_add(o, "bytes_per_token", json_object_new_uint64(b->facts.bytes_per_token)) < 0 ||
        add_number(o, "decode_gbps", used) < 0 || add_number(o, "read_gbps", read) < 0 ||
        add_number(o, "bandwidth_fraction", used / read) < 0)
        return -1;
    return 0;
}

/* Once the steps are done: what they touched is there. A kernel that can't tell says nothing. */
static int add_memory(struct bench *b, json_object *o)
{
    struct tool_memory m;

    if (tool_memory_read(engine_gguf(b->engine), &m) < 0)
        return 0;
    if (json_object_object_add(o, "anonymous_bytes", json_object_new_uint64(m.bytes_anonymous)) < 0 ||
        json_object_object_add(o, "kv_bytes", json_object_new_uint64(b->facts.bytes_kv)) < 0 ||
        (m.bytes_weights > 0 &&
         add_number(o, "huge_page_fraction", (double)m.bytes_weights_huge / (double)m.bytes_weights) < 0))
        return -1;
    return 0;
}

/* What was wanted of GPUs may not have come of it. */
static int add_gpus(const struct bench *b, json_object *o)
{
    if (b->args->config.gpu_layers == 0)
        return 0;
    if (json_object_object_add(o, "gpu_layers", json_object_new_int64(b->facts.gpu_layers)) < 0 ||
        (b->facts.gpu_reason[0] != '\0' &&
         json_object_object_add(o, "gpu_reason", json_object_new_string(b->facts.gpu_reason)) < 0))
        return -1;
    return 0;
}

static int report(struct bench *b)
{
    const struct bench_args *a = b->args;
    _cleanup_json_ json_object *o = json_object_new_object();
    const char *name = strrchr(a->config.path, '/');

    if (!o || json_object_object_add(o, "model", json_object_new_string(name ? name + 1 : a->config.path)) < 0 ||
        json_object_object_add(o, "quantization", json_object_new_string(b->facts.quantization)) < 0 ||
        json_object_object_add(o, "isa", json_object_new_string(b->facts.isa)) < 0 ||
        json_object_object_add(o, "threads", json_object_new_int64(b->facts.n_threads)) < 0 ||
        json_object_object_add(o, "users", json_object_new_int64(a->n_users)) < 0 ||
        json_object_object_add(o, "depth", json_object_new_int64(a->depth)) < 0 || add_gpus(b, o) < 0 ||
        add_speeds(b, o) < 0 || add_memory(b, o) < 0)
        return tool_fail(a->config.path, NULL, -ENOMEM);
    printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    return TOOL_OK;
}

static void report_profile(struct engine *e)
{
    const struct engine_profile *rows;
    uint64_t total = 0;
    size_t n;

    engine_profile(e, &rows, &n);
    for (size_t i = 0; i < n; i++)
        total += rows[i].time_ns;
    fprintf(stderr, "%10s %6s %10s  operation\n", "ms", "%", "us each");
    for (size_t i = 0; i < n; i++)
        if (rows[i].n_calls)
            fprintf(stderr, "%10.1f %6.1f %10.1f  %s\n", (double)rows[i].time_ns * 1e-6,
                    100.0 * (double)rows[i].time_ns / (double)total,
                    (double)rows[i].time_ns * 1e-3 / (double)rows[i].n_calls, rows[i].operation);
}

int verb_bench(int argc, char **argv)
{
    struct bench_args a = {.n_prompt = 512, .n_decode = 128, .n_users = 1, .n_repeats = 3};
    struct engine_config config;
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ struct bench *b = NULL;
    uint32_t longest;
    int r;

    r = parse(argc, argv, &a);
    if (r != 0)
        return r;
    longest = a.depth + (a.n_prompt > a.n_decode ? a.n_prompt : a.n_decode);
    config = (struct engine_config){.context_tokens = longest,
                                    .sequences_max = a.n_users,
                                    .batch_tokens_max = BATCH_TOKENS};
    b = calloc(1, sizeof(*b));
    if (!b)
        return tool_fail(a.config.path, NULL, -ENOMEM);
    r = tool_engine_open_huge(&a.config, &config, &e);
    if (r != 0)
        return r;
    b->engine = e;
    b->args = &a;
    engine_facts(e, &b->facts);
    if (b->facts.context_tokens < longest)
        return tool_usage(argv[0], "-d, -p and -n need %" PRIu32 " tokens of context, the model has %" PRIu32, longest,
                          b->facts.context_tokens);
    for (uint32_t i = 0; i < a.n_users; i++) {
        r = tool_sequence_open(&a.config, e, &b->sequences[i]);
        if (r == 0)
            r = feed_prompt(b, b->sequences[i], a.depth);
        if (r != 0)
            return r;
    }
    /* Once unmeasured: memory is taken when it is touched for the first time. */
    r = a.n_decode ? decode(b) : 0;
    if (r != 0)
        return r;
    if (a.profile)
        engine_profile_start(e);
    for (uint32_t i = 0; i < a.n_repeats; i++) {
        r = measure(b, i);
        if (r != 0)
            return r;
    }
    if (a.profile)
        report_profile(e);
    return report(b);
}
