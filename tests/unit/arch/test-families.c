/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every family of decoders on a random model of its own: logits against the forward pass in doubles (tests/plain), and
 * the same bits in any company.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "tests/plain/plain.h"
#include "tests/unit/arch/models.h"

enum { N = 40, N_VOCAB = 512 };

/* Attention by a latent, and what such models have besides. */
struct latent {
    uint32_t kv_rank, q_rank, n_rot, v_dim;
    bool compressed;
    uint32_t dense_layers, groups, groups_used;
    bool sigmoid;
};

/* V2 Lite and V2 in small, in both layouts of files, and V3. */
static const struct latent lite_old = {64, 0, 16, 24, false, .dense_layers = 1}, lite = {64, 0, 16, 24, true, 1};
static const struct latent v2_old = {64, 64, 16, 24, false, .dense_layers = 1}, v2 = {64, 64, 16, 24, true};
static const struct latent v3 = {64, 96, 16, 24, true, 1, .groups = 4, .groups_used = 2, .sigmoid = true};
/* Heads as large as theirs. */
static const struct latent large = {512, 64, 64, 128, true};

struct family {
    const char *name;
    uint32_t n_layers, head_dim, n_experts, n_used, expert_ff, shared_ff, window;
    const char *rope_scaling;
    const struct latent *latent;
};

/* Windows shorter than the text, no multiple of a page; experts whose number is no multiple of anything. */
static const struct family families[] = {
    {"llama", 2, 0, 0, 0, 0, 0, 0, "llama3"},
    {"llama", 2, 0, 0, 0, 0, 0, 13, NULL},
    {"llama", 2, 0, 5, 2, 0, 0, 0, NULL},
    {"qwen2", 2, 0, 0, 0, 0, 0, 0, "yarn"},
    {"qwen2moe", 2, 0, 7, 3, 96, 160, 0, NULL},
    {"qwen3", 2, 48, 0, 0, 0, 0, 0, NULL},
    {"qwen3moe", 2, 48, 9, 4, 256, 0, 0, NULL},
    {"gemma", 2, 64, 0, 0, 0, 0, 0, NULL},
    {"gemma2", 3, 64, 0, 0, 0, 0, 11, NULL},
    {"gemma3", 6, 32, 0, 0, 0, 0, 11, "linear"},
    {"phi3", 2, 0, 0, 0, 0, 0, 0, NULL},
    {"gpt-oss", 2, 64, 6, 2, 96, 0, 9, "yarn"},
    {"granite", 2, 0, 0, 0, 0, 0, 0, NULL},
    {"smollm3", 5, 0, 0, 0, 0, 0, 0, NULL},
    {"deepseek2", 3, 32, 6, 2, 96, 0, 0, NULL, &lite_old},
    {"deepseek2", 3, 32, 6, 2, 96, 0, 0, NULL, &lite},
    {"deepseek2", 3, 32, 7, 3, 96, 0, 0, "yarn", &v2_old},
    {"deepseek2", 2, 32, 0, 0, 0, 0, 0, "yarn", &v2},
    {"deepseek2", 3, 32, 12, 4, 96, 0, 0, "yarn", &v3},
    {"deepseek2", 1, 128, 0, 0, 0, 0, 0, NULL, &large},
};

#define N_FAMILIES (sizeof(families) / sizeof(*families))

static struct model_shape shape_of(const struct family *f, enum tensor_type type)
{
    struct model_shape s = model_shape_default();

    s.architecture = f->name;
    s.n_layers = f->n_layers;
    s.head_dim = f->head_dim;
    s.n_experts = f->n_experts;
    s.n_experts_used = f->n_used;
    s.expert_ff = f->expert_ff;
    s.shared_ff = f->shared_ff;
    s.window = f->window;
    s.rope_scaling = f->rope_scaling;
    if (f->latent) {
        s.latent.kv_rank = f->latent->kv_rank;
        s.latent.q_rank = f->latent->q_rank;
        s.latent.n_rot = f->latent->n_rot;
        s.latent.v_dim = f->latent->v_dim;
        s.latent.compressed = f->latent->compressed;
        s.n_heads = 20;
        s.dense_layers = f->latent->dense_layers;
        s.expert_groups = f->latent->groups;
        s.expert_groups_used = f->latent->groups_used;
        s.sigmoid = f->latent->sigmoid;
    }
    s.type = type;
    s.seed = 7;
    return s;
}

/* Largest and root mean square difference to the plain pass. */
static void compare(const struct family *f, enum tensor_type type, bool int8, double *ret_max, double *ret_rms)
{
    struct model_shape shape = shape_of(f, type);
    struct engine_config config = models_config();
    struct engine *e = models_open(&shape, &config);
    _cleanup_free_ double *expected = calloc(N * N_VOCAB, sizeof(*expected));
    const struct plain_options options = {.act_int8 = int8};
    const float *logits;
    int32_t tokens[N];
    uint32_t sequence;
    double sum = 0;

    assert_non_null(expected);
    models_tokens(tokens, N, N_VOCAB, 3);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    logits = models_feed(e, sequence, tokens, N, N);
    plain_logits(engine_gguf(e), &options, tokens, N, expected);
    *ret_max = 0;
    for (size_t i = 0; i < N * N_VOCAB; i++) {
        double d = fabs((double)logits[i] - expected[i]);

        *ret_max = d > *ret_max || isnan(d) ? d : *ret_max;
        sum += d * d;
    }
    *ret_rms = sqrt(sum / (N * N_VOCAB));
    engine_free(e);
}

static void logits_are_those_of_the_plain_pass(void **state)
{
    for (size_t i = 0; i < N_FAMILIES; i++) {
        double max, rms;

        compare(&families[i], TENSOR_F32, false, &max, &rms);
        print_message("# %s (window %u, experts %u): max %.2g rms %.2g\n", families[i].name, families[i].window,
                      families[i].n_experts, max, rms);
        if (!(max < 1e-4))
            fail_msg("%s: max %g rms %g", families[i].name, max, rms);
    }
}

/*
 * Quantised weights, activations in 8 bits on both sides: what is left are roundings to another side, of which one is
 * followed by others. Latent attention rounds twice as often, and with some seeds none is to another side: then the
 * difference is that of floats.
 */
static void quantised_logits_are_those_of_the_plain_pass(void **state)
{
    static const enum tensor_type types[] = {TENSOR_Q8_0, TENSOR_Q4_0};

    for (size_t i = 0; i < N_FAMILIES; i++) {
        double max, rms;

        compare(&families[i], types[i % 2], true, &max, &rms);
        print_message("# %s %s: max %.2g rms %.2g\n", families[i].name, i % 2 ? "q4_0" : "q8_0", max, rms);
        if (!(rms < (families[i].latent ? 0.05 : 0.02)))
            fail_msg("%s: max %g rms %g", families[i].name, max, rms);
    }
}

/* The cache holds one latent a token instead of every head's key and value, where the file allows it. */
static void a_compressed_cache_is_small(void **state)
{
    struct family f = {"deepseek2", 1, 128, 0, 0, 0, 0, 0, NULL, &large};
    struct latent expanded = large;
    uint64_t bytes[2];

    expanded.compressed = false;
    for (int i = 0; i < 2; i++) {
        struct model_shape shape;
        struct engine_config config = models_config();
        struct engine_facts facts;
        struct engine *e;

        f.latent = i == 0 ? &large : &expanded;
        shape = shape_of(&f, TENSOR_F16);
        config.k_type = config.v_type = TENSOR_F16;
        e = models_open(&shape, &config);
        engine_facts(e, &facts);
        bytes[i] = facts.bytes_kv / facts.pages_total / 32;
        engine_free(e);
    }
    assert_int_equal(bytes[0], 2 * (512 + 64 + 512));
    assert_int_equal(bytes[1], 2 * 20 * (128 + 64 + 128));
}

static void step(struct engine *e, const int32_t *tokens, const uint32_t *sequences, const uint32_t *positions,
                 uint32_t n, const float **ret)
{
    uint8_t wants[2 * N];

    memset(wants, 1, n);
    assert_int_equal(engine_step(e,
                                 &(struct engine_batch){.n_tokens = n,
                                                        .tokens = tokens,
                                                        .sequences = sequences,
                                                        .positions = positions,
                                                        .wants_logits = wants},
                                 ret, NULL),
                     0);
}

static void assert_rows(const char *what, const struct family *f, const float *logits, const float *expected,
                        uint32_t position)
{
    if (memcmp(logits, expected + (size_t)position * N_VOCAB, N_VOCAB * sizeof(*logits)) != 0)
        fail_msg("%s: %s: position %u has other bits", f->name, what, position);
}

/* The same tokens in chunks of @chunk, beside another sequence that is @lead tokens ahead. */
static void check_company(struct engine *e, const struct family *f, const int32_t *tokens, const float *expected,
                          uint32_t chunk, uint32_t lead)
{
    int32_t batch[2 * N];
    uint32_t sequences[2 * N], positions[2 * N], a, b;
    const float *logits;

    assert_int_equal(engine_sequence_open(e, &a), 0);
    assert_int_equal(engine_sequence_open(e, &b), 0);
    if (lead)
        models_feed(e, b, tokens, lead, 0);
    for (uint32_t at = 0; at < N; at += chunk) {
        uint32_t n = 0;

        for (uint32_t i = at; i < at + chunk && i < N; i++) {
            batch[n] = tokens[i];
            sequences[n] = a;
            positions[n++] = i;
            if (lead + i < N) {
                batch[n] = tokens[lead + i];
                sequences[n] = b;
                positions[n++] = lead + i;
            }
        }
        step(e, batch, sequences, positions, n, &logits);
        for (uint32_t i = 0; i < n; i++)
            assert_rows(sequences[i] == a ? "in chunks" : "beside another", f, logits + (size_t)i * N_VOCAB, expected,
                        positions[i]);
    }
    assert_int_equal(engine_sequence_close(e, a), 0);
    assert_int_equal(engine_sequence_close(e, b), 0);
}

static void bits_do_not_depend_on_company_chunks_or_threads(void **state)
{
    static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_Q8_0, TENSOR_F32};

    for (size_t i = 0; i < N_FAMILIES; i++) {
        const struct family *f = &families[i];
        struct model_shape shape = shape_of(f, types[i % 3]);
        struct engine_config config = models_config();
        _cleanup_free_ float *expected = calloc(N * N_VOCAB, sizeof(*expected));
        struct engine *e;
        int32_t tokens[N];
        uint32_t sequence;

        assert_non_null(expected);
        config.batch_tokens_max = config.outputs_max = 2 * N;
        e = models_open(&shape, &config);
        models_tokens(tokens, N, N_VOCAB, 5);
        assert_int_equal(engine_sequence_open(e, &sequence), 0);
        memcpy(expected, models_feed(e, sequence, tokens, N, N), N * N_VOCAB * sizeof(*expected));
        assert_int_equal(engine_sequence_close(e, sequence), 0);
        check_company(e, f, tokens, expected, 1, 0);
        assert_int_equal(engine_threads_set(e, 5), 0);
        check_company(e, f, tokens, expected, 3, 17);
        assert_int_equal(engine_threads_set(e, 1), 0);
        check_company(e, f, tokens, expected, 19, 1);
        engine_free(e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_plain_pass),
        cmocka_unit_test(quantised_logits_are_those_of_the_plain_pass),
        cmocka_unit_test(a_compressed_cache_is_small),
        cmocka_unit_test(bits_do_not_depend_on_company_chunks_or_threads),
    };

    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
