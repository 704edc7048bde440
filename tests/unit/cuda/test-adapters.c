/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adapters of layers on GPUs, through the test double of libcuda or on a GPU: sequences with different ones and without
 * any in one step get the bits that the CPU gives, wherever the layers are; memory that is refused; nothing is left.
 */
#include "engine/engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "tests/unit/cuda/counts.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

/* More adapters in a step than a graph takes. */
enum { N_ADAPTERS = 5, SEQUENCES = N_ADAPTERS + 1, BATCH = 48, N_LAYERS = 2, N_TOKENS = 24 };

/* Ranks with and without whole vectors, floats and blocks, all matrices or some, with and without a scale. */
static const struct adapter_shape adapters[N_ADAPTERS] = {
    {.rank = 8, .alpha = 16, .type = TENSOR_F32, .period = 1, .seed = 3},
    {.rank = 5, .type = TENSOR_F16, .period = 3, .seed = 4},
    {.rank = 32, .alpha = 8, .type = TENSOR_Q8_0, .period = 2, .seed = 5},
    {.rank = 16, .alpha = 4, .type = TENSOR_BF16, .period = 1, .seed = 6},
    {.rank = 32, .alpha = 32, .type = TENSOR_Q4_1, .period = 1, .seed = 7},
};

struct family {
    const char *name;
    enum tensor_type type;
    uint32_t n_experts, n_used, shared_ff;
    bool latent;
};

/* q, k and v in one matrix and apart, gate and up in one, experts with a shared one, scaled residuals, latent attention. */
static const struct family families[] = {
    {"llama", TENSOR_Q8_0, 0, 0, 0, false},    {"phi3", TENSOR_F16, 0, 0, 0, false},
    {"qwen2moe", TENSOR_Q8_0, 7, 3, 32, false}, {"granite", TENSOR_Q4_K, 0, 0, 0, false},
    {"deepseek2", TENSOR_Q8_0, 6, 2, 0, true},
};

static struct model_shape shape_of(const struct family *f)
{
    struct model_shape s = models_deep();

    s.architecture = f->name;
    s.n_layers = N_LAYERS;
    s.type = f->type;
    s.n_experts = f->n_experts;
    s.n_experts_used = f->n_used;
    s.shared_ff = f->shared_ff;
    if (f->type == TENSOR_Q4_K)
        s.dim = s.ff = 256;
    if (f->latent) {
        s.head_dim = 32;
        s.latent.kv_rank = 64;
        s.latent.n_rot = 16;
        s.latent.v_dim = 24;
        s.latent.compressed = true;
        s.dense_layers = 1;
    }
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

static struct engine *open_engine(const struct model_shape *shape, const struct engine_gpu_config *gpu)
{
    struct engine_config config = models_config(SEQUENCES, BATCH);
    struct engine *e;
    int fds[N_ADAPTERS];

    for (size_t i = 0; i < N_ADAPTERS; i++)
        fds[i] = adapter_fd(shape, &adapters[i]);
    config.adapters = fds;
    config.n_adapters = N_ADAPTERS;
    config.k_type = config.v_type = TENSOR_F16;
    config.context_tokens = 64;
    config.gpu = *gpu;
    e = models_open(shape, &config);
    for (size_t i = 0; i < N_ADAPTERS; i++)
        close(fds[i]);
    return e;
}

/* Which sequences have tokens in a step, how many each, and which rows of logits are wanted. */
struct step {
    uint32_t sequences, n; /* bits; sequence i has adapter i, 0: none */
    bool some;             /* not all rows */
};

/* Many tokens; then steps of one that are launched, captured and replayed, with more adapters than a graph takes, with
 * two, with one, and with none. */
static const struct step steps[] = {
    {0x3F, 7, true},  {0x3F, 1, false}, {0x3F, 1, false}, {0x0A, 1, false}, {0x0A, 1, false}, {0x0A, 1, true},
    {0x10, 1, false}, {0x10, 1, false}, {0x10, 1, false}, {0x01, 1, false}, {0x01, 1, false}, {0x01, 1, false},
    {0x15, 3, true},  {0x06, 1, false}, {0x06, 1, false}, {0x20, 5, false},
};

#define N_STEPS (sizeof(steps) / sizeof(*steps))

/* Tokens of several sequences take turns, so that those of one adapter do not stand together. Returns as engine_step(). */
static int run_step(struct engine *e, const struct step *s, const uint32_t *in, const int32_t *tokens,
                    const float **ret_logits, size_t *ret_n)
{
    uint32_t sequences[BATCH], positions[BATCH], n = 0;
    int32_t batch[BATCH];
    uint8_t wants[BATCH];

    *ret_n = 0;
    for (uint32_t k = 0; k < s->n; k++)
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            if (!(s->sequences >> i & 1))
                continue;
            positions[n] = engine_sequence_length(e, in[i]) + k;
            batch[n] = tokens[(positions[n] + 5 * i) % N_TOKENS];
            sequences[n] = in[i];
            wants[n] = !s->some || (i + k) % 3 != 1;
            *ret_n += wants[n++] ? feed_n_vocab(e) : 0;
        }
    return engine_step(
        e,
        &(struct engine_batch){
            .n_tokens = n, .tokens = batch, .sequences = sequences, .positions = positions, .wants_logits = wants},
        ret_logits, NULL);
}

static void open_sequences(struct engine *e, uint32_t *in)
{
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        assert_int_equal(engine_sequence_open(e, &in[i]), 0);
        assert_int_equal(engine_sequence_adapt(e, in[i], i), 0);
    }
}

static void close_sequences(struct engine *e, const uint32_t *in)
{
    for (uint32_t i = 0; i < SEQUENCES; i++)
        assert_int_equal(engine_sequence_close(e, in[i]), 0);
}

/* The logits of all steps on the CPU. */
struct expected {
    float *logits[N_STEPS];
    size_t n[N_STEPS];
    int32_t *tokens;
};

static void expected_make(struct expected *x, const struct model_shape *shape)
{
    struct engine *e = open_engine(shape, &(struct engine_gpu_config){.layers = 0});
    uint32_t in[SEQUENCES];

    x->tokens = models_tokens(3, N_TOKENS, shape->n_vocab);
    open_sequences(e, in);
    for (size_t i = 0; i < N_STEPS; i++) {
        const float *logits;

        assert_int_equal(run_step(e, &steps[i], in, x->tokens, &logits, &x->n[i]), 0);
        x->logits[i] = calloc(x->n[i], sizeof(float));
        assert_non_null(x->logits[i]);
        memcpy(x->logits[i], logits, x->n[i] * sizeof(float));
    }
    engine_free(e);
}

static void expected_done(struct expected *x)
{
    for (size_t i = 0; i < N_STEPS; i++)
        free(x->logits[i]);
    free(x->tokens);
}

/* All steps, each of which may be refused memory @patience times. */
static void check_steps(struct engine *e, const struct expected *x, const char *what, uint64_t number, uint32_t patience)
{
    uint32_t in[SEQUENCES];

    open_sequences(e, in);
    for (size_t i = 0; i < N_STEPS; i++) {
        const float *logits = NULL;
        size_t n;
        int r;

        do
            r = run_step(e, &steps[i], in, x->tokens, &logits, &n);
        while (r == ENGINE_GPU_FULL && patience-- > 0);
        assert_int_equal(r, 0);
        for (size_t k = 0; k < n; k++)
            if (memcmp(&logits[k], &x->logits[i][k], sizeof(*logits)) != 0)
                fail_msg("%s %u: step %zu, value %zu is %.9g, expected %.9g", what, (unsigned)number, i, k,
                         (double)logits[k], (double)x->logits[i][k]);
    }
    close_sequences(e, in);
}

static void check(const struct model_shape *shape, const struct expected *x, const struct engine_gpu_config *gpu,
                  const char *what, uint32_t number, uint32_t n_layers)
{
    struct engine *e = open_engine(shape, gpu);
    struct engine_facts facts;

    engine_facts(e, &facts);
    if (facts.gpu_layers != n_layers || facts.gpu_reason[0])
        fail_msg("%s %u: %u layers, \"%s\"", what, number, facts.gpu_layers, facts.gpu_reason);
    check_steps(e, x, what, number, 0);
    engine_free(e);
    counts_assert_none();
}

static void any_number_of_layers(void **state)
{
    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++) {
        struct model_shape shape = shape_of(&families[f]);
        struct expected x;

        expected_make(&x, &shape);
        for (uint32_t n = 1; n <= N_LAYERS; n++)
            check(&shape, &x, &(struct engine_gpu_config){.layers = n}, families[f].name, n, n);
        expected_done(&x);
    }
}

static void parts_of_layers_in_ram(void **state)
{
    static const struct engine_gpu_config configs[] = {
        {.layers = ENGINE_LAYERS_ALL, .kv_in_ram = true},
        {.layers = ENGINE_LAYERS_ALL, .experts_in_ram = true},
        {.layers = 1, .head = ENGINE_HEAD_VRAM, .kv_in_ram = true, .experts_in_ram = true},
    };
    struct model_shape shape = shape_of(&families[2]);
    struct expected x;

    expected_make(&x, &shape);
    for (size_t i = 0; i < sizeof(configs) / sizeof(*configs); i++)
        check(&shape, &x, &configs[i], "configuration", (uint32_t)i, i == 2 ? 1 : N_LAYERS);
    expected_done(&x);
}

static void several_devices(void **state)
{
    static const uint32_t devices[] = {1, 0}, layers[] = {1, 1};
    struct model_shape shape = shape_of(&families[0]);
    struct expected x;

    counts_need_devices(2);
    expected_make(&x, &shape);
    check(&shape, &x,
          &(struct engine_gpu_config){
              .layers = ENGINE_LAYERS_ALL, .devices = devices, .n_devices = 2, .device_layers = layers},
          "devices", 2, N_LAYERS);
    expected_done(&x);
}

/* Factors are in VRAM once for all who use them, and counted there. */
static void factors_are_counted(void **state)
{
    struct model_shape shape = shape_of(&families[0]);
    struct engine_config config = models_config(SEQUENCES, BATCH);
    struct engine_facts with, without;
    struct engine *e;

    config.k_type = config.v_type = TENSOR_F16;
    config.context_tokens = 64;
    config.gpu.layers = ENGINE_LAYERS_ALL;
    shape.dim = 512;
    shape.ff = 1536;
    e = models_open(&shape, &config);
    engine_facts(e, &without);
    e = engine_free(e);
    e = open_engine(&shape, &config.gpu);
    engine_facts(e, &with);
    /* What the file has of them, but for its header, and a grain of the driver's. */
    assert_true(with.gpus[0].bytes_weights > without.gpus[0].bytes_weights);
    assert_in_range(with.gpus[0].bytes_weights - without.gpus[0].bytes_weights + (2 << 20),
                    with.bytes_weights - without.bytes_weights - 65536,
                    with.bytes_weights - without.bytes_weights + (4 << 20));
    engine_free(e);
    counts_assert_none();
}

/* Each allocation of an opening, and each call of a step, in turn. */
static void refused_memory(void **state)
{
    struct model_shape shape = shape_of(&families[0]);
    const struct engine_gpu_config all = {.layers = ENGINE_LAYERS_ALL};
    uint64_t n_allocations;
    struct expected x;
    bool any_less = false;

    counts_need_double();
    expected_make(&x, &shape);
    engine_free(open_engine(&shape, &all));
    n_allocations = counts_read().n_allocations;
    for (uint64_t i = 1; i <= 2 * n_allocations; i++) {
        const char *name = i > n_allocations ? "FAKE_CUDA_REFUSE_ALL" : "FAKE_CUDA_REFUSE";
        struct engine_facts facts;
        struct engine *e;

        counts_forget_settings(NULL);
        counts_set_number(name, i > n_allocations ? i - n_allocations : i);
        e = open_engine(&shape, &all);
        engine_facts(e, &facts);
        assert_true((facts.gpu_layers < N_LAYERS) == (facts.gpu_reason[0] != 0));
        any_less |= facts.gpu_layers < N_LAYERS;
        check_steps(e, &x, name, i, 0);
        engine_free(e);
        counts_assert_none();
    }
    assert_true(any_less);
    expected_done(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(any_number_of_layers, counts_forget_settings),
        cmocka_unit_test_setup(parts_of_layers_in_ram, counts_forget_settings),
        cmocka_unit_test_setup(several_devices, counts_forget_settings),
        cmocka_unit_test_setup(factors_are_counted, counts_forget_settings),
        cmocka_unit_test_setup(refused_memory, counts_forget_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
