/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How steps are handed to GPUs, through the test double of libcuda: few launches, few bytes, little waiting, and the
 * bits that the CPU gives. On a GPU only the bits are seen.
 */
#include "engine/engine.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/cuda/driver.h"
#include "engine/cuda/gpu.h"
#include "engine/engine-devices.h"
#include "engine/sample/candidates.h"
#include "tests/unit/cuda/counts.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

enum { N_LAYERS = 4, CONTEXT = 640, BATCH = 48, SEQUENCES = 3 };

static struct model_shape shape_of(enum tensor_type type)
{
    struct model_shape s = models_deep();

    s.n_layers = N_LAYERS;
    s.type = type;
    return s;
}

static struct engine *open_engine(const struct model_shape *shape, const struct engine_gpu_config *gpu)
{
    struct engine_config config = models_config(SEQUENCES, BATCH);

    config.k_type = config.v_type = TENSOR_F16;
    config.context_tokens = CONTEXT;
    config.gpu = *gpu;
    return models_open(shape, &config);
}

/* A CPU's and a GPU's engine side by side: whatever is done to one is done to the other. */
struct pair {
    struct model_shape shape;
    struct engine *cpu, *gpu;
    uint32_t n_vocab, sequences[SEQUENCES];
    int32_t *tokens;
};

static void pair_begin_experts(struct pair *p, const struct engine_gpu_config *gpu, uint32_t n_experts)
{
    p->shape = shape_of(TENSOR_Q8_0);
    p->shape.n_experts = n_experts;
    p->shape.n_experts_used = n_experts / 2;
    p->cpu = open_engine(&p->shape, &(struct engine_gpu_config){.layers = 0});
    p->gpu = open_engine(&p->shape, gpu);
    p->n_vocab = feed_n_vocab(p->cpu);
    p->tokens = models_tokens(3, CONTEXT, p->n_vocab);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        uint32_t other;

        assert_int_equal(engine_sequence_open(p->cpu, &p->sequences[i]), 0);
        assert_int_equal(engine_sequence_open(p->gpu, &other), 0);
        assert_int_equal(other, p->sequences[i]);
    }
}

static void pair_begin(struct pair *p, const struct engine_gpu_config *gpu)
{
    pair_begin_experts(p, gpu, 0);
}

static void pair_end(struct pair *p)
{
    engine_free(p->cpu);
    engine_free(p->gpu);
    free(p->tokens);
    counts_assert_none();
}

/* The next @n tokens of each of the first @n_sequences, the last of each with logits if @wants; @n_top as the engine's. */
static void pair_step(struct pair *p, uint32_t n_sequences, uint32_t n, bool wants, uint32_t n_top)
{
    int32_t tokens[BATCH];
    uint32_t in[BATCH], positions[BATCH], n_tokens = 0;
    uint8_t wanted[BATCH] = {0};
    struct engine_batch b = {.tokens = tokens, .sequences = in, .positions = positions, .wants_logits = wanted};
    const float *expected = NULL, *logits = NULL;
    const struct engine_top *top;

    for (uint32_t i = 0; i < n_sequences; i++) {
        uint32_t length = engine_sequence_length(p->cpu, p->sequences[i]);

        for (uint32_t k = 0; k < n; k++, n_tokens++) {
            tokens[n_tokens] = p->tokens[(length + k + 11 * i) % CONTEXT];
            in[n_tokens] = p->sequences[i];
            positions[n_tokens] = length + k;
            wanted[n_tokens] = wants && k + 1 == n;
        }
    }
    b.n_tokens = n_tokens;
    assert_int_equal(engine_step(p->cpu, &b, &expected, NULL), 0);
    assert_null(engine_top(p->cpu));
    b.n_top = n_top;
    assert_int_equal(engine_step(p->gpu, &b, &logits, NULL), 0);
    if (!wants)
        return;
    top = engine_top(p->gpu);
    if (!top) {
        assert_memory_equal(logits, expected, n_sequences * p->n_vocab * sizeof(float));
        return;
    }
    assert_null(logits);
    assert_int_equal(top->n, n_top);
    for (uint32_t i = 0; i < n_sequences; i++) {
        struct candidate c[ENGINE_TOP_MAX];

        assert_int_equal(candidates_top(expected + i * p->n_vocab, p->n_vocab, n_top, c), n_top);
        for (uint32_t k = 0; k < n_top; k++) {
            assert_int_equal(top->ids[i * n_top + k], c[k].id);
            assert_memory_equal(&top->logits[i * n_top + k], &c[k].key, sizeof(float));
        }
    }
}

static const struct engine_gpu_config all = {.layers = ENGINE_LAYERS_ALL};

/* The first step of a kind is launched, the second captured, all further ones are one call. */
static void decoding_is_replayed(void **state)
{
    struct pair p;

    pair_begin(&p, &all);
    pair_step(&p, 3, 9, true, 0);
    for (uint32_t i = 0; i < 8; i++) {
        struct fake_counts before = counts_read(), after;

        pair_step(&p, 3, 1, true, 0);
        after = counts_read();
        assert_true(counts_on_gpu() || after.n_launches - before.n_launches > 10 * N_LAYERS);
        counts_assert_equal(after.n_launch_calls - before.n_launch_calls,
                         i < 2 ? after.n_launches - before.n_launches : 0);
        counts_assert_equal(after.n_graphs_made - before.n_graphs_made, i == 1);
        counts_assert_equal(after.n_graph_launches - before.n_graph_launches, i >= 1);
        counts_assert_equal(after.n_waits - before.n_waits, 1); /* for the logits */
    }
    pair_end(&p);
}

/* Of another number of tokens, another number of sequences: a graph each, none of which is taken for another. */
static void each_kind_of_step_has_its_graph(void **state)
{
    struct fake_counts before;
    struct pair p;

    pair_begin(&p, &all);
    for (uint32_t round = 0; round < 3; round++) {
        before = counts_read();
        for (uint32_t n = 1; n <= 3; n++) {
            pair_step(&p, n, 1, true, 0);
            pair_step(&p, n, 1, false, 0);
            pair_step(&p, n, 2, true, 0);
        }
        counts_assert_equal(counts_read().n_graphs_made - before.n_graphs_made, round == 1 ? 9 : 0);
    }
    counts_assert_equal(counts_read().n_graph_launches - before.n_graph_launches, 9);
    pair_end(&p);
}

/* A sequence that gets longer stays with its graph until it has another segment; a new one in its pages takes it over. */
static void a_graph_outlives_sequences(void **state)
{
    enum { LONG = 505 };
    struct fake_counts before;
    struct pair p;

    pair_begin(&p, &all);
    for (uint32_t n = 0; n < LONG; n += 5)
        pair_step(&p, 1, 5, false, 0);
    before = counts_read();
    for (uint32_t i = LONG; i < 520; i++)
        pair_step(&p, 1, 1, true, 0);
    /* One for a single segment, one for several. */
    counts_assert_equal(counts_read().n_graphs_made - before.n_graphs_made, 2);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        uint32_t other;

        assert_int_equal(engine_sequence_close(p.cpu, p.sequences[i]), 0);
        assert_int_equal(engine_sequence_close(p.gpu, p.sequences[i]), 0);
        assert_int_equal(engine_sequence_open(p.cpu, &p.sequences[i]), 0);
        assert_int_equal(engine_sequence_open(p.gpu, &other), 0);
        assert_int_equal(other, p.sequences[i]);
    }
    before = counts_read();
    for (uint32_t i = 0; i < 4; i++)
        pair_step(&p, 1, 1, true, 0);
    counts_assert_equal(counts_read().n_graphs_made, before.n_graphs_made);
    counts_assert_equal(counts_read().n_launch_calls, before.n_launch_calls);
    pair_end(&p);
}

/* Layers on two devices: each range between what is carried has its graph. */
static void ranges_of_several_devices_are_replayed(void **state)
{
    struct fake_counts before;
    struct pair p;

    counts_need_devices(2);
    pair_begin(&p, &all);
    for (uint32_t i = 0; i < 4; i++) {
        before = counts_read();
        pair_step(&p, 2, 1, true, 0);
    }
    counts_assert_equal(counts_read().n_launch_calls, before.n_launch_calls);
    counts_assert_equal(counts_read().n_graph_launches - before.n_graph_launches, 2);
    pair_end(&p);
}

/* Experts in RAM: what is carried in each layer cuts the step into as many ranges, and pinned memory is used again for
 * the next layer. */
static void ranges_between_experts_in_ram_are_replayed(void **state)
{
    static const struct {
        struct engine_gpu_config gpu;
        uint32_t n_ranges;
    } cases[] = {
        {{.layers = ENGINE_LAYERS_ALL, .experts_in_ram = true}, N_LAYERS + 1},
        {{.layers = ENGINE_LAYERS_ALL, .expert_layers = 2}, N_LAYERS - 2 + 1},
        {{.layers = ENGINE_LAYERS_ALL}, 1},
    };

    for (size_t k = 0; k < sizeof(cases) / sizeof(*cases); k++) {
        struct fake_counts before = {0};
        struct pair p;

        pair_begin_experts(&p, &cases[k].gpu, 4);
        pair_step(&p, 3, 13, true, 0);
        for (uint32_t i = 0; i < 4; i++) {
            before = counts_read();
            pair_step(&p, 2, 1, true, 3);
        }
        counts_assert_equal(counts_read().n_graph_launches - before.n_graph_launches, cases[k].n_ranges);
        pair_end(&p);
    }
}

static void without_graphs_steps_are_launched(void **state)
{
    struct fake_counts c;
    struct pair p;

    counts_need_double();
    pair_begin(&p, &all);
    pair_end(&p);
    counts_set_number("FAKE_CUDA_REFUSE_ALL", counts_read().n_allocations + 1);
    pair_begin(&p, &all);
    for (uint32_t i = 0; i < 4; i++)
        pair_step(&p, 2, 1, true, 0);
    c = counts_read();
    counts_assert_equal(c.n_graphs_made, 0);
    counts_assert_equal(c.n_graph_launches, 0);
    pair_end(&p);
}

/* A function that the driver's library does not have, NULL: it has all. The linker puts __wrap_dlsym() in dlsym()'s place. */
static const char *missing;

void *__real_dlsym(void *library, const char *symbol);
void *__wrap_dlsym(void *library, const char *symbol);

void *__wrap_dlsym(void *library, const char *symbol)
{
    return missing && strcmp(symbol, missing) == 0 ? NULL : __real_dlsym(library, symbol);
}

/* Drivers older than graphs, or than one of their functions. */
static void drivers_without_graphs_are_handed_launches(void **state)
{
#define SYMBOL(field, symbol, parameters) symbol,
    static const char *const optional[] = {DRIVER_GRAPH_CALLS(SYMBOL)}, *const needed[] = {DRIVER_CALLS(SYMBOL)};
#undef SYMBOL
    struct driver *d = NULL;

    for (size_t i = 0; i < sizeof(optional) / sizeof(*optional); i++) {
        struct fake_counts c;
        struct pair p;

        missing = optional[i];
        pair_begin(&p, &all);
        for (uint32_t k = 0; k < 3; k++)
            pair_step(&p, 2, 1, true, 0);
        c = counts_read();
        counts_assert_equal(c.n_graphs_made, 0);
        counts_assert_equal(c.n_launches, c.n_launch_calls);
        pair_end(&p);
    }
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++) {
        missing = needed[i];
        assert_int_equal(driver_open(&d, NULL), DRIVER_TOO_OLD);
    }
    missing = NULL;
    assert_int_equal(driver_open(&d, NULL), 0);
    assert_true(d->has_graphs);
    driver_close(d);
}

/* No model that is read has so many experts; whoever makes a graph of one hears why it does not run. */
static void a_step_that_is_too_large_is_refused(void **state)
{
    const struct graph_limits limits = {.tokens_max = 1, .outputs_max = 1};
    const struct page_table *no_tables = NULL;
    const struct exec_run run = {.n_tokens = 1, .tables = no_tables};
    const uint32_t zero = 0;
    const struct exec_batch batch = {.n_tokens = 1, .n_runs = 1, .positions = &zero, .token_runs = &zero, .runs = &run};
    const uint8_t places[] = {0, 1};
    struct graph_op embed = {.type = GRAPH_EMBED}, route = {.type = GRAPH_ROUTE};
    _cleanup_(engine_devices_closep) struct engine_devices *devices = NULL;
    struct gpu_config config = {.places = places, .place = 1, .tokens_max = 1, .outputs_max = 1, .sequences_max = 1,
                                .pages_max = 1};
    struct fault fault = {.kind = FAULT_NONE};
    struct gpu *gpu = NULL;
    struct graph g;

    graph_init(&g);
    g.n_experts = 4000;
    g.n_experts_used = 2;
    route.route.n_groups = route.route.n_groups_used = 1;
    assert_int_equal(graph_value_f32(&g, GRAPH_ROWS_TOKENS, g.n_experts, &embed.embed.out), 0);
    route.route.logits = embed.embed.out;
    assert_int_equal(graph_value_routes(&g, &route.route.out), 0);
    assert_int_equal(graph_add(&g, &embed), 0);
    assert_int_equal(graph_add(&g, &route), 0);
    assert_int_equal(graph_plan(&g, &limits), 0);
    assert_int_equal(engine_devices_open(NULL, 0, &devices), 0);
    config.graph = &g;
    config.device = engine_devices_find(devices, 0);
    assert_int_equal(gpu_new(&config, &gpu, &fault), 0);
    assert_int_equal(gpu_begin(gpu, &batch, &fault), 0);
    assert_int_equal(gpu_run(gpu, 1, 2, &fault), -EIO);
    assert_int_equal(fault.kind, FAULT_MODEL_UNAVAILABLE);
    assert_string_equal(fault.reason, "a step is too large for the GPU (kernel_route)");
    assert_int_equal(gpu_end(gpu, &fault), 0);
    assert_int_equal(gpu_wait(gpu, &fault), 0);
    gpu_free(gpu);
    graph_done(&g);
}

/* Greedy and top-k sampling need a few numbers of each row, and no more is copied. */
static void only_the_largest_logits_are_copied(void **state)
{
    static const uint32_t n_tops[] = {1, 5, 40, ENGINE_TOP_MAX};
    struct pair p;

    pair_begin(&p, &all);
    for (size_t i = 0; i < 4; i++) {
        for (uint32_t k = 0; k < 3; k++) {
            struct fake_counts before = counts_read();

            pair_step(&p, 2, 1, true, n_tops[i]);
            assert_non_null(engine_top(p.gpu));
            counts_assert_equal(counts_read().bytes_to_host - before.bytes_to_host, 2 * n_tops[i] * 8);
        }
    }
    for (uint32_t k = 0; k < 2; k++) {
        struct fake_counts before = counts_read();

        pair_step(&p, 2, 1, true, 0);
        assert_null(engine_top(p.gpu));
        counts_assert_equal(counts_read().bytes_to_host - before.bytes_to_host, 2 * p.n_vocab * 4);
    }
    pair_end(&p);
}

/* Where the CPU computes the logits they are there. */
static void a_head_in_ram_gives_all_logits(void **state)
{
    struct pair p;

    pair_begin(&p, &(struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL, .head = ENGINE_HEAD_RAM});
    pair_step(&p, 2, 1, true, 5);
    assert_null(engine_top(p.gpu));
    pair_end(&p);
}

/* Waits of a step of 40 tokens that is cut as @gpu says. */
static uint64_t waits_of(const struct engine_gpu_config *gpu, bool wants)
{
    struct fake_counts before;
    uint64_t n_waits;
    struct pair p;

    pair_begin(&p, gpu);
    before = counts_read();
    pair_step(&p, 2, 20, wants, 0);
    n_waits = counts_read().n_waits - before.n_waits;
    pair_step(&p, 2, 1, true, 0);
    pair_end(&p);
    return n_waits;
}

/* Four pieces: a GPU is waited for when the third and the fourth want the pinned memory of the first and the second, and
 * at the end. In between the CPU has gone on. */
static void prompts_are_cut_for_layers_in_ram(void **state)
{
    counts_assert_equal(waits_of(&(struct engine_gpu_config){.layers = 2, .piece_tokens = 10}, false), 3);
    counts_assert_equal(waits_of(&(struct engine_gpu_config){.layers = 2, .piece_tokens = 10}, true), 3);
    counts_assert_equal(waits_of(&(struct engine_gpu_config){.layers = 2}, false), 1);
}

static void nothing_is_cut_where_nobody_else_could_work(void **state)
{
    counts_assert_equal(waits_of(&(struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL, .piece_tokens = 10}, false), 1);
    counts_assert_equal(
        waits_of(&(struct engine_gpu_config){.layers = 2, .kv_in_ram = true, .piece_tokens = 10}, false),
        waits_of(&(struct engine_gpu_config){.layers = 2, .kv_in_ram = true}, false));
}

static void prompts_are_cut_for_two_devices(void **state)
{
    counts_need_devices(2);
    /* What is carried from one to the other is waited for in each piece; the second is waited for as above. */
    counts_assert_equal(waits_of(&(struct engine_gpu_config){.layers = ENGINE_LAYERS_ALL, .piece_tokens = 10}, false),
                     4 + 2 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(decoding_is_replayed, counts_forget_settings),
        cmocka_unit_test_setup(each_kind_of_step_has_its_graph, counts_forget_settings),
        cmocka_unit_test_setup(a_graph_outlives_sequences, counts_forget_settings),
        cmocka_unit_test_setup(ranges_of_several_devices_are_replayed, counts_forget_settings),
        cmocka_unit_test_setup(ranges_between_experts_in_ram_are_replayed, counts_forget_settings),
        cmocka_unit_test_setup(without_graphs_steps_are_launched, counts_forget_settings),
        cmocka_unit_test_setup(a_step_that_is_too_large_is_refused, counts_forget_settings),
        cmocka_unit_test_setup(drivers_without_graphs_are_handed_launches, counts_forget_settings),
        cmocka_unit_test_setup(only_the_largest_logits_are_copied, counts_forget_settings),
        cmocka_unit_test_setup(a_head_in_ram_gives_all_logits, counts_forget_settings),
        cmocka_unit_test_setup(prompts_are_cut_for_layers_in_ram, counts_forget_settings),
        cmocka_unit_test_setup(nothing_is_cut_where_nobody_else_could_work, counts_forget_settings),
        cmocka_unit_test_setup(prompts_are_cut_for_two_devices, counts_forget_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
