/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adapters at run time: logits against the pass in doubles (tests/plain), the same bits in any company of other
 * adapters, and what is said of files that are none.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/map.h"
#include "tests/plain/plain.h"
#include "tests/unit/arch/models.h"

enum { N = 40, N_VOCAB = 512, N_ADAPTERS = 3 };

struct family {
    const char *name;
    uint32_t n_layers, n_experts, n_used, shared_ff, window;
    enum tensor_type type;
    bool latent, compressed;
};

/* q, k and v in one matrix and apart, gate and up in one, a shared expert, scaled residuals, norms behind blocks, latent
 * attention, of which heads' own matrices can't be adapted. */
static const struct family families[] = {
    {"llama", 2, 0, 0, 0, 0, TENSOR_F32},    {"phi3", 2, 0, 0, 0, 0, TENSOR_F32},
    {"qwen2moe", 2, 7, 3, 160, 0, TENSOR_F32}, {"granite", 2, 0, 0, 0, 0, TENSOR_F32},
    {"gemma3", 6, 0, 0, 0, 11, TENSOR_F32},  {"llama", 2, 0, 0, 0, 0, TENSOR_Q4_K},
    {"deepseek2", 2, 6, 2, 0, 0, TENSOR_F32, true, false}, {"deepseek2", 2, 0, 0, 0, 0, TENSOR_F32, true, true},
};

/* Ranks with and without whole vectors, types of both factors, all matrices or some, with and without a scale. */
static const struct adapter_shape adapters[N_ADAPTERS] = {
    {.rank = 8, .alpha = 16, .type = TENSOR_F32, .period = 1, .seed = 3},
    {.rank = 5, .type = TENSOR_F16, .period = 3, .seed = 4},
    {.rank = 32, .alpha = 8, .type = TENSOR_Q8_0, .period = 2, .seed = 5},
};

static struct model_shape shape_of(const struct family *f)
{
    struct model_shape s = model_shape_default();

    s.architecture = f->name;
    s.n_layers = f->n_layers;
    s.n_experts = f->n_experts;
    s.n_experts_used = f->n_used;
    s.shared_ff = f->shared_ff;
    s.window = f->window;
    if (f->latent) {
        s.head_dim = 32;
        s.latent.kv_rank = 64;
        s.latent.q_rank = 48;
        s.latent.n_rot = 16;
        s.latent.v_dim = 24;
        s.latent.compressed = f->compressed;
        s.dense_layers = 1;
    }
    s.type = f->type;
    s.seed = 7;
    return s;
}

static int adapter_fd(const struct model_shape *model, const struct adapter_shape *shape)
{
    struct model_writer *m = model_writer_new(), *w = model_writer_new();
    struct adapter_shape s = *shape;
    int fd;

    s.architecture = model->architecture;
    model_writer_llama(m, model);
    model_writer_adapter(w, m, &s);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    model_writer_free(m);
    assert_true(fd >= 0);
    return fd;
}

static struct engine *open_adapted(const struct model_shape *shape, struct engine_config *config, int *fds)
{
    for (size_t i = 0; i < N_ADAPTERS; i++)
        fds[i] = adapter_fd(shape, &adapters[i]);
    config->adapters = fds;
    config->n_adapters = N_ADAPTERS;
    return models_open(shape, config);
}

static void close_all(int *fds)
{
    for (size_t i = 0; i < N_ADAPTERS; i++)
        close(fds[i]);
}

static double difference(const float *logits, const double *expected)
{
    double sum = 0;

    for (size_t i = 0; i < (size_t)N * N_VOCAB; i++)
        sum += ((double)logits[i] - expected[i]) * ((double)logits[i] - expected[i]);
    return sqrt(sum / (N * N_VOCAB));
}

/* rms to the plain pass with adapter @i_adapter (from 1, 0: none), and how far that is from the pass without. */
static void compare(const struct family *f, uint32_t i_adapter)
{
    _cleanup_free_ double *expected = calloc(N * N_VOCAB, sizeof(double));
    struct plain_options options = {.act_int8 = true};
    struct model_shape shape = shape_of(f);
    struct engine_config config = models_config();
    int fds[N_ADAPTERS];
    struct engine *e = open_adapted(&shape, &config, fds);
    struct gguf_map *map = NULL;
    struct gguf *adapter = NULL;
    const struct gguf_part *parts;
    const float *logits;
    uint32_t sequence;
    int32_t tokens[N];
    size_t n_parts;
    double rms;

    assert_non_null(expected);
    if (i_adapter > 0) {
        assert_int_equal(gguf_map(&fds[i_adapter - 1], 1, 0, &map, NULL), 0);
        parts = gguf_map_parts(map, &n_parts);
        assert_int_equal(gguf_read(parts, n_parts, &adapter, NULL), 0);
    }
    models_tokens(tokens, N, N_VOCAB, 3);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    assert_int_equal(engine_sequence_adapt(e, sequence, i_adapter), 0);
    logits = models_feed(e, sequence, tokens, N, N);
    options.adapter = adapter;
    plain_logits(engine_gguf(e), &options, tokens, N, expected);
    rms = difference(logits, expected);
    print_message("# %s %s, adapter %u: rms %.2g\n", f->name, tensor_traits(f->type)->name, i_adapter, rms);
    /* Where activations are rounded to 8 bits on both sides, some are to the other one. */
    if (!(rms < (f->type != TENSOR_F32 || i_adapter == 3 ? 0.02 : 2e-5)))
        fail_msg("%s, adapter %u: rms %g", f->name, i_adapter, rms);
    options.adapter = NULL;
    plain_logits(engine_gguf(e), &options, tokens, N, expected);
    if (i_adapter > 0 && !(difference(logits, expected) > 0.1))
        fail_msg("%s: adapter %u changes nothing", f->name, i_adapter);
    gguf_free(adapter);
    gguf_unmap(map);
    engine_free(e);
    close_all(fds);
}

static void logits_are_those_of_the_plain_pass(void **state)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
        for (uint32_t a = 0; a <= N_ADAPTERS; a++)
            compare(&families[i], a);
}

/* One sequence for each adapter and one without, whose tokens come in chunks of @chunk, interleaved by sequence. */
static void check_company(struct engine *e, const int32_t *tokens, float (*expected)[N * N_VOCAB], uint32_t chunk)
{
    enum { ALL = (N_ADAPTERS + 1) * N };
    uint32_t in[N_ADAPTERS + 1], sequences[ALL], positions[ALL];
    int32_t batch[ALL];
    uint8_t wants[ALL];
    const float *logits;

    for (uint32_t a = 0; a <= N_ADAPTERS; a++) {
        assert_int_equal(engine_sequence_open(e, &in[a]), 0);
        assert_int_equal(engine_sequence_adapt(e, in[a], a), 0);
    }
    for (uint32_t at = 0; at < N; at += chunk) {
        uint32_t n = 0, of[ALL], row = 0;

        for (uint32_t i = at; i < at + chunk && i < N; i++)
            for (uint32_t a = 0; a <= N_ADAPTERS; a++) {
                batch[n] = tokens[i];
                sequences[n] = in[a];
                positions[n] = i;
                wants[n] = (i + a) % 3 != 1; /* rows of logits are not the tokens' */
                of[n++] = a;
            }
        assert_int_equal(engine_step(e,
                                     &(struct engine_batch){.n_tokens = n,
                                                            .tokens = batch,
                                                            .sequences = sequences,
                                                            .positions = positions,
                                                            .wants_logits = wants},
                                     &logits, NULL),
                         0);
        for (uint32_t i = 0; i < n; i++)
            if (wants[i] && memcmp(logits + (size_t)row++ * N_VOCAB, expected[of[i]] + (size_t)positions[i] * N_VOCAB,
                                   N_VOCAB * sizeof(float)) != 0)
                fail_msg("adapter %u has other bits at position %u in chunks of %u", of[i], positions[i], chunk);
    }
    for (uint32_t a = 0; a <= N_ADAPTERS; a++)
        assert_int_equal(engine_sequence_close(e, in[a]), 0);
}

static void bits_do_not_depend_on_others_adapters(void **state)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++) {
        struct model_shape shape = shape_of(&families[i]);
        struct engine_config config = models_config();
        float(*expected)[N * N_VOCAB] = calloc(N_ADAPTERS + 1, sizeof(*expected));
        int fds[N_ADAPTERS];
        struct engine *e;
        int32_t tokens[N];
        uint32_t sequence;

        assert_non_null(expected);
        config.batch_tokens_max = config.outputs_max = (N_ADAPTERS + 1) * N;
        e = open_adapted(&shape, &config, fds);
        models_tokens(tokens, N, N_VOCAB, 5);
        for (uint32_t a = 0; a <= N_ADAPTERS; a++) {
            assert_int_equal(engine_sequence_open(e, &sequence), 0);
            assert_int_equal(engine_sequence_adapt(e, sequence, a), 0);
            memcpy(expected[a], models_feed(e, sequence, tokens, N, N), sizeof(*expected));
            assert_int_equal(engine_sequence_close(e, sequence), 0);
        }
        check_company(e, tokens, expected, 1);
        assert_int_equal(engine_threads_set(e, 5), 0);
        check_company(e, tokens, expected, 7);
        assert_int_equal(engine_threads_set(e, 1), 0);
        check_company(e, tokens, expected, N);
        engine_free(e);
        close_all(fds);
        free(expected);
    }
}

/* Without an adapter, a model that has some computes what one computes that has none. */
static void who_has_none_is_not_changed(void **state)
{
    struct model_shape shape = shape_of(&families[0]);
    struct engine_config config = models_config(), adapted = models_config();
    int fds[N_ADAPTERS];
    struct engine *a = models_open(&shape, &config), *b = open_adapted(&shape, &adapted, fds);
    struct engine_facts x, y;
    uint32_t in_a, in_b;
    int32_t tokens[N];

    models_tokens(tokens, N, N_VOCAB, 3);
    assert_int_equal(engine_sequence_open(a, &in_a), 0);
    assert_int_equal(engine_sequence_open(b, &in_b), 0);
    assert_memory_equal(models_feed(a, in_a, tokens, N, N), models_feed(b, in_b, tokens, N, N),
                        N * N_VOCAB * sizeof(float));
    engine_facts(a, &x);
    engine_facts(b, &y);
    assert_int_equal(y.n_adapters, N_ADAPTERS);
    assert_int_equal(y.bytes_weights - x.bytes_weights,
                     lseek(fds[0], 0, SEEK_END) + lseek(fds[1], 0, SEEK_END) + lseek(fds[2], 0, SEEK_END));
    engine_free(a);
    engine_free(b);
    close_all(fds);
}

static void a_fork_keeps_its_adapter(void **state)
{
    struct model_shape shape = shape_of(&families[0]);
    struct engine_config config = models_config();
    int fds[N_ADAPTERS];
    struct engine *e = open_adapted(&shape, &config, fds);
    _cleanup_free_ float *expected = calloc(N * N_VOCAB, sizeof(*expected));
    uint32_t a, b;
    int32_t tokens[N];

    assert_non_null(expected);
    models_tokens(tokens, N, N_VOCAB, 3);
    assert_int_equal(engine_sequence_open(e, &a), 0);
    assert_int_equal(engine_sequence_adapt(e, a, N_ADAPTERS + 1), -22);
    assert_int_equal(engine_sequence_adapt(e, a, 2), 0);
    memcpy(expected, models_feed(e, a, tokens, N, N), N * N_VOCAB * sizeof(*expected));
    assert_int_equal(engine_sequence_adapt(e, a, 1), -22);
    assert_int_equal(engine_sequence_fork(e, a, 17, &b), 0);
    assert_memory_equal(models_feed(e, b, tokens + 17, N - 17, N - 17), expected + 17 * N_VOCAB,
                        (N - 17) * N_VOCAB * sizeof(float));
    /* A number that is handed out again has none. */
    assert_int_equal(engine_sequence_close(e, a), 0);
    assert_int_equal(engine_sequence_open(e, &a), 0);
    assert_memory_not_equal(models_feed(e, a, tokens, N, N), expected, N * N_VOCAB * sizeof(float));
    engine_free(e);
    close_all(fds);
}

/* An adapter for llama with one thing changed, and what is said of it. */
static void expect_refused(void (*write)(struct model_writer *w, const struct model_writer *model), const char *reason)
{
    struct model_shape shape = shape_of(&families[0]);
    struct engine_config config = models_config();
    struct model_writer *m = model_writer_new(), *w = model_writer_new();
    struct engine *e = NULL;
    struct fault fault;
    int fds[2];

    model_writer_llama(m, &shape);
    write(w, m);
    fds[0] = model_writer_memfd(m);
    fds[1] = model_writer_memfd(w);
    config.fds = &fds[0];
    config.n_fds = 1;
    config.adapters = &fds[1];
    config.n_adapters = 1;
    fault_init(&fault, FAULT_NONE, NULL);
    assert_int_equal(engine_open(&config, &e, &fault), -22);
    assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
    assert_string_equal(fault.reason, reason);
    close(fds[0]);
    close(fds[1]);
    model_writer_free(m);
    model_writer_free(w);
}

static void header(struct model_writer *w, const char *type, const char *kind, const char *architecture)
{
    model_writer_string(w, "general.type", type);
    model_writer_string(w, "adapter.type", kind);
    model_writer_string(w, "general.architecture", architecture);
}

static void factor(struct model_writer *w, const char *name, uint64_t n_cols, uint64_t n_rows)
{
    uint64_t dims[] = {n_cols, n_rows};

    model_writer_tensor_random(w, name, TENSOR_F32, 2, dims, 0.1f, 1);
}

static void a_model(struct model_writer *w, const struct model_writer *model)
{
    header(w, "model", "lora", "llama");
}

static void another_kind(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "ia3", "llama");
}

static void another_architecture(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "qwen2");
}

static void no_tensors(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
}

static void one_factor(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "blk.0.attn_q.weight.lora_a", 256, 4);
}

static void other_columns(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "blk.0.attn_q.weight.lora_a", 255, 4);
    factor(w, "blk.0.attn_q.weight.lora_b", 4, 256);
}

static void other_rows(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "blk.0.attn_q.weight.lora_a", 256, 4);
    factor(w, "blk.0.attn_q.weight.lora_b", 4, 257);
}

static void other_rank(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "blk.0.attn_q.weight.lora_a", 256, 4);
    factor(w, "blk.0.attn_q.weight.lora_b", 5, 256);
}

static void large_rank(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "blk.0.attn_q.weight.lora_a", 256, 1025);
    factor(w, "blk.0.attn_q.weight.lora_b", 1025, 256);
}

static void embedding(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "token_embd.weight.lora_a", 256, 4);
    factor(w, "token_embd.weight.lora_b", 4, 512);
}

static void no_such_layer(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    factor(w, "blk.2.attn_q.weight.lora_a", 256, 4);
    factor(w, "blk.2.attn_q.weight.lora_b", 4, 256);
}

static void switched_on_by_tokens(struct model_writer *w, const struct model_writer *model)
{
    const uint32_t token = 5;

    header(w, "adapter", "lora", "llama");
    model_writer_array(w, "adapter.alora.invocation_tokens", GGUF_U32, &token, 1, sizeof(token));
}

static void huge_alpha(struct model_writer *w, const struct model_writer *model)
{
    header(w, "adapter", "lora", "llama");
    model_writer_f32(w, "adapter.lora.alpha", 1e7f);
}

static void an_adapter_is_no_model(void **state)
{
    struct model_shape shape = shape_of(&families[0]);
    struct engine_config config = models_config();
    int fd = adapter_fd(&shape, &adapters[0]);
    struct engine *e = NULL;
    struct fault fault;

    config.fds = &fd;
    config.n_fds = 1;
    fault_init(&fault, FAULT_NONE, NULL);
    assert_int_equal(engine_open(&config, &e, &fault), -22);
    assert_string_equal(fault.reason, "it is an adapter and no model: it is loaded with one");
    close(fd);
}

static void what_is_no_adapter_is_refused(void **state)
{
    const char *none = "adapter 1: it is no adapter: general.type has to be \"adapter\", adapter.type \"lora\"";

    expect_refused(a_model, none);
    expect_refused(another_kind, none);
    expect_refused(another_architecture, "adapter 1: general.architecture is not the model's");
    expect_refused(switched_on_by_tokens, "adapter 1: it is to be switched on by tokens (aLoRA), which this version can't "
                                          "do");
    expect_refused(no_tensors, "adapter 1: it has no tensors");
    expect_refused(huge_alpha, "adapter 1: adapter.lora.alpha is 1e+07, expected at most 1e6");
    expect_refused(one_factor, "adapter 1: of blk.0.attn_q.weight there is only one of lora_a and lora_b");
    expect_refused(other_columns, "adapter 1: the tensor blk.0.attn_q.weight.lora_a has the shape 255 x 4 x 1 x 1, "
                                  "expected 256 x 4 x 1");
    expect_refused(other_rows, "adapter 1: the tensor blk.0.attn_q.weight.lora_b has the shape 4 x 257 x 1 x 1, "
                               "expected 4 x 256 x 1");
    expect_refused(other_rank, "adapter 1: the tensor blk.0.attn_q.weight.lora_b has the shape 5 x 256 x 1 x 1, "
                               "expected 4 x 256 x 1");
    expect_refused(large_rank, "adapter 1: the tensor blk.0.attn_q.weight.lora_a has a rank of 1025, expected 1 to "
                               "1024");
    expect_refused(embedding, "adapter 1: the tensor token_embd.weight.lora_a belongs to no matrix of the model that "
                              "an adapter can change");
    expect_refused(no_such_layer, "adapter 1: the tensor blk.2.attn_q.weight.lora_a belongs to no matrix of the model "
                                  "that an adapter can change");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_plain_pass),
        cmocka_unit_test(bits_do_not_depend_on_others_adapters),
        cmocka_unit_test(who_has_none_is_not_changed),
        cmocka_unit_test(a_fork_keeps_its_adapter),
        cmocka_unit_test(an_adapter_is_no_model),
        cmocka_unit_test(what_is_no_adapter_is_refused),
    };

    return cmocka_run_group_tests_name("adapters", tests, NULL, NULL);
}
