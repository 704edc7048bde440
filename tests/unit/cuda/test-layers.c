/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models with layers on GPUs, through the test double of libcuda or on a GPU: the logits have the bits that the CPU gives, wherever
 * the layers are; memory that is refused, devices that are lost, and pages that change owner.
 */
#include "engine/engine.h"

#include <errno.h>
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/memlock.h"
#include "engine/engine-devices.h"
#include "engine/engine-shape.h"
#include "policy/plan.h"
#include "tests/unit/cuda/counts.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

/* More than a page; few, since emulated threads are slow. */
#define N_TOKENS 36
#define N_STEPS  2 /* of one token each */
#define N_LAYERS 4

/* Blocks of 256 values need rows of as many. */
static struct model_shape small(enum tensor_type type)
{
    struct model_shape s = models_deep();

    s.n_layers = N_LAYERS;
    s.type = type;
    if (type == TENSOR_Q4_K || type == TENSOR_Q6_K)
        s.dim = s.ff = 256;
    return s;
}

static float *floats_new(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

static void assert_same(const char *what, uint32_t number, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)) != 0)
            fail_msg("%s %u: value %zu is %.9g, expected %.9g", what, number, i, (double)a[i], (double)b[i]);
}

/* A step of many tokens, then some of one each. */
static float *logits_of(struct engine *e, const int32_t *tokens)
{
    uint32_t n_vocab = feed_n_vocab(e), sequence;
    float *logits = floats_new((size_t)N_TOKENS * n_vocab);

    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed_tokens(e, sequence, tokens, N_TOKENS - N_STEPS, N_TOKENS, logits);
    feed_tokens(e, sequence, tokens + N_TOKENS - N_STEPS, N_STEPS, 1, logits + (size_t)(N_TOKENS - N_STEPS) * n_vocab);
    return logits;
}

/* The logits of @shape with @gpu; @ret_facts may be NULL; strings in it are gone with the engine. */
static float *logits_with(const struct model_shape *shape, const struct engine_gpu_config *gpu, enum tensor_type kv,
                          struct engine_facts *ret_facts)
{
    struct engine_config config = models_config(2, N_TOKENS);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape->n_vocab);

    config.k_type = config.v_type = kv;
    config.gpu = *gpu;
    e = models_open(shape, &config);
    if (ret_facts)
        engine_facts(e, ret_facts);
    return logits_of(e, tokens);
}

static const struct engine_gpu_config nothing = {.layers = 0};

static void any_number_of_layers(void **state)
{
    static const enum tensor_type types[] = {TENSOR_F16, TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K};

    for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++) {
        struct model_shape shape = small(types[t]);
        _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F16, NULL);
        static const uint32_t layers[] = {1, N_LAYERS / 2, N_LAYERS};

        for (size_t i = 0; i < sizeof(layers) / sizeof(*layers); i++) {
            struct engine_facts facts;
            _cleanup_free_ float *logits =
                logits_with(&shape, &(struct engine_gpu_config){.layers = layers[i]}, TENSOR_F16, &facts);

            assert_int_equal(facts.gpu_layers, layers[i]);
            assert_string_equal(facts.gpu_reason, "");
            assert_true(counts_on_gpu() || counts_read().n_launches > 0);
            assert_same("layers", layers[i], logits, expected, (size_t)N_TOKENS * shape.n_vocab);
            counts_assert_none();
        }
    }
}

static void types_of_keys_and_values(void **state)
{
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_Q8_0, TENSOR_Q4_0};
    struct model_shape shape = small(TENSOR_Q8_0);

    for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++) {
        _cleanup_free_ float *expected = logits_with(&shape, &nothing, types[t], NULL);
        _cleanup_free_ float *logits = logits_with(
            &shape, &(struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL}, types[t], NULL);

        assert_same("type", types[t], logits, expected, (size_t)N_TOKENS * shape.n_vocab);
    }
}

static void parts_of_layers_in_ram(void **state)
{
    static const struct engine_gpu_config configs[] = {
        {.layers = ENGINE_LAYERS_ALL, .kv_in_ram = true},
        {.layers = ENGINE_LAYERS_ALL, .head = ENGINE_HEAD_RAM},
        {.layers = 2, .head = ENGINE_HEAD_VRAM},
        {.layers = 3, .kv_in_ram = true, .head = ENGINE_HEAD_VRAM},
    };
    struct model_shape shape = small(TENSOR_Q4_K);
    _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F16, NULL);

    for (size_t i = 0; i < sizeof(configs) / sizeof(*configs); i++) {
        struct engine_facts facts;
        _cleanup_free_ float *logits = logits_with(&shape, &configs[i], TENSOR_F16, &facts);

        assert_true(facts.gpu_layers > 0);
        assert_same("configuration", (uint32_t)i, logits, expected, (size_t)N_TOKENS * shape.n_vocab);
    }
}

static void several_devices(void **state)
{
    struct model_shape shape = small(TENSOR_Q8_0);
    _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F16, NULL);
    static const uint32_t devices[] = {1, 0}, layers[] = {3, 1};
    static const struct engine_gpu_config configs[] = {
        {.layers = ENGINE_LAYERS_ALL},
        {.layers = 3},
        {.layers = ENGINE_LAYERS_ALL, .devices = devices, .n_devices = 2, .device_layers = layers},
    };

    counts_need_devices(2);
    for (size_t i = 0; i < sizeof(configs) / sizeof(*configs); i++) {
        struct engine_facts facts;
        _cleanup_free_ float *logits = logits_with(&shape, &configs[i], TENSOR_F16, &facts);

        assert_true(facts.n_gpus == 2 || (counts_on_gpu() && facts.n_gpus > 2));
        assert_int_equal(facts.gpus[0].i_device, i == 2 ? 1 : 0);
        assert_true(facts.gpus[0].bytes_weights > 0 && facts.gpus[1].bytes_weights > 0);
        assert_same("configuration", (uint32_t)i, logits, expected, (size_t)N_TOKENS * shape.n_vocab);
        counts_assert_none();
    }
}

static void a_reason_says_why_nothing_is_on_a_gpu(void **state)
{
    struct model_shape shape = small(TENSOR_Q8_0);
    _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F16, NULL), *logits = NULL;
    struct engine_facts facts;

    counts_need_double();
    counts_set("FAKE_CUDA_DEVICES", "0");
    logits = logits_with(&shape, &(struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL}, TENSOR_F16, &facts);
    assert_int_equal(facts.gpu_layers, 0);
    assert_string_equal(facts.gpu_reason, "the NVIDIA driver is installed, but there is no GPU");
    assert_same("no GPU", 0, logits, expected, (size_t)N_TOKENS * shape.n_vocab);
}

static void a_reason_says_which_gpu_is_not_there(void **state)
{
    static const uint32_t missing[] = {3}, one_of_two[] = {0, 3};
    struct model_shape shape = small(TENSOR_Q8_0);
    _cleanup_(engine_devices_closep) struct engine_devices *open = NULL;
    struct engine_gpu_config gpu = {.layers = ENGINE_LAYERS_ALL, .devices = missing, .n_devices = 1};
    struct engine_facts facts;

    counts_need_double();
    free(logits_with(&shape, &gpu, TENSOR_F16, &facts));
    assert_int_equal(facts.gpu_layers, 0);
    assert_string_equal(facts.gpu_reason, "there is no GPU 3, they are counted from 0");
    gpu = (struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL, .devices = one_of_two, .n_devices = 2};
    free(logits_with(&shape, &gpu, TENSOR_F16, &facts));
    assert_int_equal(facts.gpu_layers, N_LAYERS);
    assert_string_equal(facts.gpu_reason, "there is no GPU 3, they are counted from 0");
    /* One that was there when it was planned, as a worker has opened all. */
    assert_int_equal(engine_devices_open(NULL, 0, &open), 0);
    gpu.open = open;
    for (uint32_t n = 1; n <= 2; n++) {
        gpu.devices = n == 1 ? missing : one_of_two;
        gpu.n_devices = n;
        free(logits_with(&shape, &gpu, TENSOR_F16, &facts));
        assert_int_equal(facts.gpu_layers, n == 1 ? 0 : N_LAYERS);
        assert_string_equal(facts.gpu_reason, "a GPU that was planned with is not there any more");
    }
}

/* Every allocation is refused in turn, and all from each on: fewer layers or none are on the GPU, the logits the same. */
static void refused_memory(void **state)
{
    struct model_shape shape = small(TENSOR_Q8_0);
    _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F16, NULL);
    const struct engine_gpu_config all = {.layers = ENGINE_LAYERS_ALL};
    uint64_t n_allocations;
    bool any_less = false, any_none = false;

    counts_need_double();
    free(logits_with(&shape, &all, TENSOR_F16, NULL));
    n_allocations = counts_read().n_allocations;
    assert_true(n_allocations > 5);
    for (uint64_t i = 1; i <= 2 * n_allocations; i++) {
        const char *name = i > n_allocations ? "FAKE_CUDA_REFUSE_ALL" : "FAKE_CUDA_REFUSE";
        struct engine_facts facts;
        float *logits;

        counts_forget_settings(NULL);
        counts_set_number(name, i > n_allocations ? i - n_allocations : i);
        logits = logits_with(&shape, &all, TENSOR_F16, &facts);
        assert_same(name, (uint32_t)i, logits, expected, (size_t)N_TOKENS * shape.n_vocab);
        free(logits);
        if (facts.gpu_layers < N_LAYERS)
            assert_string_not_equal(facts.gpu_reason, "");
        any_less |= facts.gpu_layers > 0 && facts.gpu_layers < N_LAYERS;
        any_none |= facts.gpu_layers == 0;
        counts_assert_none();
    }
    assert_true(any_less && any_none);
}

/* A device that is too small for all layers gets as many as it has room for. */
static void a_small_device(void **state)
{
    struct model_shape shape = small(TENSOR_Q8_0);
    struct engine_facts facts;
    _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F32, NULL), *logits = NULL;

    counts_need_double();
    counts_set_number("FAKE_CUDA_VRAM", 64 << 20);
    counts_set_number("FAKE_CUDA_OTHERS", 52 << 20);
    logits = logits_with(&shape, &(struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL}, TENSOR_F32, &facts);
    assert_in_range(facts.gpu_layers, 1, N_LAYERS - 1);
    assert_non_null(strstr(facts.gpu_reason, "vram"));
    assert_same("layers", facts.gpu_layers, logits, expected, (size_t)N_TOKENS * shape.n_vocab);
}

/* From any call on: an error that says so, or what the CPU gives, and nothing is left behind. */
static void a_device_lost_at_any_call(void **state)
{
    struct model_shape shape = small(TENSOR_Q8_0);
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape.n_vocab);
    uint64_t n_calls = 1;
    uint32_t n_lost = 0;

    counts_need_double();
    for (uint64_t at = 0; at <= n_calls; at += at < 40 ? 1 : 37) {
        struct engine_config config = models_config(1, N_TOKENS);
        _cleanup_engine_ struct engine *e = NULL;
        const float *logits;
        uint32_t sequence;
        int r;

        config.k_type = config.v_type = TENSOR_F16;
        config.gpu.layers = ENGINE_LAYERS_ALL;
        counts_set_number("FAKE_CUDA_LOST", at);
        e = models_open(&shape, &config);
        assert_int_equal(engine_sequence_open(e, &sequence), 0);
        r = feed_step(e, sequence, tokens, N_TOKENS, &logits);
        if (at == 0)
            n_calls = counts_read().n_calls;
        assert_true(r == 0 || r == -EIO);
        n_lost += r == -EIO;
        e = engine_free(e);
        counts_assert_none();
    }
    assert_true(n_lost > 0);
}

/* Sequences that come and go, share prefixes and are cut: what a page was before is not to be seen. */
static void pages_change_owner(void **state)
{
    struct model_shape shape = small(TENSOR_F16);
    struct engine_config config = models_config(3, N_TOKENS);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape.n_vocab);
    _cleanup_free_ int32_t *others = models_tokens(4, N_TOKENS, shape.n_vocab);
    _cleanup_free_ float *expected = logits_with(&shape, &nothing, TENSOR_F16, NULL), *logits = NULL;
    size_t n = (size_t)N_TOKENS * shape.n_vocab;
    uint32_t a, b;

    config.k_type = config.v_type = TENSOR_F16;
    config.kv_tokens = 128;
    config.gpu.layers = ENGINE_LAYERS_ALL;
    e = models_open(&shape, &config);
    logits = floats_new(n);
    for (uint32_t round = 0; round < 3; round++) {
        feed_new(e, others, N_TOKENS, N_TOKENS, NULL);
        feed_new(e, tokens, N_TOKENS, N_TOKENS, logits);
        assert_same("round", round, logits, expected, n);
    }
    /* A fork in the middle of a page, whose copy goes on as the original would have. */
    assert_int_equal(engine_sequence_open(e, &a), 0);
    feed_tokens(e, a, tokens, 36, 36, NULL);
    assert_int_equal(engine_sequence_fork(e, a, 33, &b), 0);
    feed_tokens(e, a, others, 5, 5, NULL);
    feed_tokens(e, b, tokens + 33, N_TOKENS - 33, 4, logits);
    assert_same("fork", 0, logits, expected + (size_t)33 * shape.n_vocab, (size_t)(N_TOKENS - 33) * shape.n_vocab);
}

/* A copy of the device's keys and values, which all layers have there; *ret_n bytes. */
static uint8_t *kv_memory(const struct engine *e, size_t *ret_n)
{
    struct engine_facts facts;
    uint8_t *copy;

    engine_facts(e, &facts);
    *ret_n = facts.bytes_kv_page * facts.pages_total;
    copy = malloc(*ret_n);
    assert_non_null(copy);
    memcpy(copy, counts_block(*ret_n), *ret_n);
    return copy;
}

static size_t count_used(const uint8_t *p, size_t n)
{
    size_t n_used = 0;

    for (size_t i = 0; i < n; i++)
        n_used += p[i] != 0;
    return n_used;
}

/* The memory itself, behind what kernels look at: after another user has taken the pages, nothing is left in them but
 * what that one computed; and what the engine gives back is empty. */
static void nothing_of_a_user_is_left_for_the_next(void **state)
{
    struct model_shape shape = small(TENSOR_F16);
    struct engine_config config = models_config(2, 64);
    struct engine *e;
    _cleanup_free_ int32_t *secret = models_tokens(4, 64, shape.n_vocab);
    _cleanup_free_ int32_t *tokens = models_tokens(3, 33, shape.n_vocab);
    _cleanup_free_ uint8_t *before = NULL, *after = NULL, *alone = NULL;
    uint32_t sequence;
    size_t n;

    counts_need_double();
    config.k_type = config.v_type = TENSOR_F16;
    config.kv_tokens = 64;
    config.gpu.layers = ENGINE_LAYERS_ALL;
    e = models_open(&shape, &config);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed_tokens(e, sequence, tokens, 33, 33, NULL);
    alone = kv_memory(e, &n);
    e = engine_free(e);

    e = models_open(&shape, &config);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed_tokens(e, sequence, secret, 64, 64, NULL);
    before = kv_memory(e, &n);
    assert_true(count_used(before, n) > n / 2);
    assert_int_equal(engine_sequence_close(e, sequence), 0);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed_tokens(e, sequence, tokens, 33, 33, NULL);
    after = kv_memory(e, &n);
    assert_int_equal(count_used(after, n), count_used(alone, n));
    for (size_t i = 0; i + 32 <= n; i += 32)
        assert_true(memcmp(after + i, before + i, 32) != 0 || count_used(before + i, 32) == 0);
    engine_free(e);
    assert_int_equal(counts_read().n_freed_dirty, 0);
    counts_assert_none();
}

/* Layers of some 2 MiB. */
static struct model_shape large(bool tied, bool experts)
{
    struct model_shape s = small(TENSOR_F16);

    s.n_layers = 2;
    s.dim = 1024;
    s.ff = 2048;
    s.n_vocab = 4096;
    s.tied = tied;
    s.n_experts = experts ? 4 : 0;
    s.n_experts_used = experts ? 2 : 0;
    return s;
}

static bool may_lock(size_t n_bytes)
{
    void *at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool may;

    assert_true(at != MAP_FAILED);
    may = memlock(at, n_bytes) == 0;
    munmap(at, n_bytes);
    return may;
}

/* Bytes of the tensor that are not locked. */
static uint64_t released_of(const struct engine_facts *f, const struct gguf_tensor *t)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < f->n_released; i++) {
        const struct engine_range *r = &f->released[i];
        uint64_t from = r->from > t->offset ? r->from : t->offset, to = r->from + r->n_bytes;

        to = to < t->offset + t->n_bytes ? to : t->offset + t->n_bytes;
        n_bytes += r->file == t->part && from < to ? to - from : 0;
    }
    return n_bytes;
}

static int file_of(const struct model_shape *shape)
{
    struct model_writer *w = model_writer_new();
    int fd;

    model_writer_llama(w, shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    return fd;
}

/* What a planner would leave out who knows what the engine says of the file, and where it has put its layers. */
static void is_as_planned(const struct model_shape *model, const struct engine_config *config,
                          const struct engine_facts *f)
{
    struct engine_shape shape;
    struct plan_shape s = {.layers = NULL};
    struct plan_result plan = {
        .gpu_layers = f->gpu_layers,
        .expert_layers = config->gpu.experts_in_ram ? 0 : f->gpu_layers,
        .kv_on_gpu = !config->gpu.kv_in_ram,
        .head_on_gpu = config->gpu.head == ENGINE_HEAD_VRAM ||
                       (config->gpu.head == ENGINE_HEAD_AUTO && f->gpu_layers == f->n_layers),
    };
    _cleanup_free_ struct plan_range *ranges = NULL;
    struct engine_config c = *config;
    int fd = file_of(model);
    size_t n;

    c.fds = &fd;
    c.n_fds = 1;
    assert_int_equal(engine_shape(&c, &shape, NULL), 0);
    close(fd);
    s.n_layers = shape.n_layers;
    s.n_runs = shape.n_runs;
    s.runs = calloc(s.n_runs + 1, sizeof(*s.runs));
    ranges = calloc(s.n_runs + 1, sizeof(*ranges));
    assert_true(s.runs && ranges);
    for (size_t i = 0; i < s.n_runs; i++) {
        const struct engine_shape_run *run = &shape.runs[i];

        s.runs[i] = (struct plan_run){run->file, run->from, run->n_bytes, run->layer, run->with, run->is_end};
    }
    (void)plan_left_out(&s, &plan, ranges, &n);
    if (config->gpu.keep_locked)
        n = 0;
    assert_int_equal(n, f->n_released);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ranges[i].file, f->released[i].file);
        assert_int_equal(ranges[i].from, f->released[i].from);
        assert_int_equal(ranges[i].n_bytes, f->released[i].n_bytes);
    }
    plan_shape_done(&s);
    engine_shape_done(&shape);
}

static void only_what_nobody_but_gpus_reads_is_unlocked(void **state)
{
    static const struct {
        struct engine_gpu_config gpu;
        bool tied, experts;
        const char *kept[4], *released[4]; /* names of tensors */
    } cases[] = {
        {{.layers = ENGINE_LAYERS_ALL}, .kept = {"token_embd.*"}, .released = {"blk.0.ffn_up.*", "blk.1.ffn_up.*", "output.*"}},
        /* The same bytes are the embedding. */
        {{.layers = ENGINE_LAYERS_ALL, .head = ENGINE_HEAD_VRAM}, true, .kept = {"token_embd.*"}, .released = {"blk.0.ffn_up.*"}},
        {{.layers = ENGINE_LAYERS_ALL, .head = ENGINE_HEAD_RAM}, .kept = {"token_embd.*", "output.*"},
         .released = {"blk.0.ffn_up.*"}},
        {{.layers = 1}, .kept = {"token_embd.*", "blk.0.*"}, .released = {"blk.1.ffn_up.*"}},
        {{.layers = ENGINE_LAYERS_ALL}, false, true, .kept = {"token_embd.*"}, .released = {"blk.0.ffn_up_exps.*", "blk.1.attn_*"}},
        /* What chooses experts is computed where they are. */
        {{.layers = ENGINE_LAYERS_ALL, .experts_in_ram = true}, false, true,
         .kept = {"token_embd.*", "*_exps.*", "*.ffn_gate_inp.*"}, .released = {"blk.0.attn_*", "blk.1.attn_*"}},
        {{.layers = ENGINE_LAYERS_ALL, .keep_locked = true}, .kept = {"*"}},
    };

    if (!may_lock((size_t)128 << 20))
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct model_shape shape = large(cases[i].tied, cases[i].experts);
        struct engine_config config = models_config(2, N_TOKENS);
        uint64_t n_released = 0, of_names[4] = {0};
        _cleanup_engine_ struct engine *e = NULL;
        struct engine_facts f;

        config.gpu = cases[i].gpu;
        config.lock = true;
        e = models_open(&shape, &config);
        engine_facts(e, &f);
        for (size_t k = 0; k < f.n_released; k++)
            n_released += f.released[k].n_bytes;
        assert_int_equal(f.bytes_locked, f.bytes_weights - n_released);
        is_as_planned(&shape, &config, &f);
        for (size_t k = 0; k < gguf_n_tensors(engine_gguf(e)); k++) {
            const struct gguf_tensor *t = gguf_tensor(engine_gguf(e), k);

            for (size_t n = 0; n < 4; n++) {
                if (cases[i].kept[n] && fnmatch(cases[i].kept[n], t->name, 0) == 0 && released_of(&f, t) > 0)
                    fail_msg("case %zu: %s is not locked", i, t->name);
                if (cases[i].released[n] && fnmatch(cases[i].released[n], t->name, 0) == 0)
                    of_names[n] += released_of(&f, t);
            }
        }
        for (size_t n = 0; n < 4; n++)
            if (cases[i].released[n] && of_names[n] == 0)
                fail_msg("case %zu: %s is still locked", i, cases[i].released[n]);
    }
    counts_assert_none();
}

/* Less on GPUs than was wanted, for which there is no room in RAM. */
static void what_ram_has_no_room_for_is_not_opened(void **state)
{
    struct model_shape shape = large(false, false);
    struct engine_config config = models_config(2, N_TOKENS);
    int fd = file_of(&shape);
    struct engine_facts f;
    struct fault fault = {.kind = FAULT_NONE};
    struct engine *e;

    if (!may_lock((size_t)128 << 20)) {
        close(fd);
        skip();
    }
    config.fds = &fd;
    config.n_fds = 1;
    config.lock = true;
    config.gpu.layers = ENGINE_LAYERS_ALL;
    assert_int_equal(engine_open(&config, &e, &fault), 0);
    engine_facts(e, &f);
    config.gpu.ram_bytes_max = f.bytes_locked + f.bytes_kv;
    engine_free(e);
    assert_int_equal(engine_open(&config, &e, &fault), 0);
    engine_free(e);
    config.gpu.ram_bytes_max--;
    assert_int_equal(engine_open(&config, &e, &fault), -ENOMEM);
    assert_int_equal(fault.kind, FAULT_INSUFFICIENT_MEMORY);
    assert_string_equal(fault.subject, "ram");
    assert_int_equal(fault.used, config.gpu.ram_bytes_max + 1);
    assert_int_equal(fault.limit, config.gpu.ram_bytes_max);
    config.gpu.ram_bytes_max++;
    /* A layer less. */
    counts_set("FAKE_CUDA_REFUSE", "1");
    assert_int_equal(engine_open(&config, &e, &fault), -ENOMEM);
    assert_true(fault.used > fault.limit + 4096);
    close(fd);
    counts_assert_none();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(any_number_of_layers, counts_forget_settings),
        cmocka_unit_test_setup(types_of_keys_and_values, counts_forget_settings),
        cmocka_unit_test_setup(parts_of_layers_in_ram, counts_forget_settings),
        cmocka_unit_test_setup(several_devices, counts_forget_settings),
        cmocka_unit_test_setup(a_reason_says_why_nothing_is_on_a_gpu, counts_forget_settings),
        cmocka_unit_test_setup(a_reason_says_which_gpu_is_not_there, counts_forget_settings),
        cmocka_unit_test_setup(refused_memory, counts_forget_settings),
        cmocka_unit_test_setup(a_small_device, counts_forget_settings),
        cmocka_unit_test_setup(a_device_lost_at_any_call, counts_forget_settings),
        cmocka_unit_test_setup(pages_change_owner, counts_forget_settings),
        cmocka_unit_test_setup(nothing_of_a_user_is_left_for_the_next, counts_forget_settings),
        cmocka_unit_test_setup(only_what_nobody_but_gpus_reads_is_unlocked, counts_forget_settings),
        cmocka_unit_test_setup(what_ram_has_no_room_for_is_not_opened, counts_forget_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
