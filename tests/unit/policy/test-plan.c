/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The planner on shapes that are made by hand: G is 2^30 bytes here and in the comments.
 */
#include "policy/plan.h"

#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

#define G (UINT64_C(1) << 30)
#define M (UINT64_C(1) << 20)

enum { LAYERS = 10 };

struct fixture {
    struct plan_layer layers[LAYERS];
    struct plan_shape shape;
    struct plan_device devices[2];
    struct plan_wish wish;
};

/* 10 layers of 1 G, embedding and head 1 G each, 16 M KV a layer for 1024 tokens of one sequence; nothing
 * else. */
static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){
        .shape = {.layers = f.layers,
                  .n_layers = LAYERS,
                  .n_groups = 1,
                  .file_bytes = 12 * G,
                  .embedding_bytes = G,
                  .head_bytes = G,
                  .n_parameters = 12 * G,
                  .context_trained_tokens = 4096,
                  .page_tokens = 32,
                  .batch_tokens = 512,
                  .read_gbps = 10},
        .devices = {{.budget_bytes = 4 * G}, {.index = 1, .budget_bytes = 2 * G}},
        .wish = {.context_tokens = 1024,
                 .sequences = 1,
                 .k = "f16",
                 .v = "f16",
                 .gpu_layers = PLAN_AUTO,
                 .ram_bytes = 20 * G,
                 .n_threads = 2,
                 .devices = f.devices},
    };
    for (int i = 0; i < LAYERS; i++)
        f.layers[i] = (struct plan_layer){.dense_bytes = G, .can_offload = true};
    f.shape.groups[0] = (struct plan_group){
        .types = {{"f32", M / 2, M / 2, true}, {"f16", M / 4, M / 4, true}, {"q8_0", M / 8, M / 8, true}}, .n_types = 3};
    *state = &f;
    return 0;
}

static void without_devices_everything_is_in_ram(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->shape.scratch_bytes = 3 * M;
    f->shape.thread_scratch_bytes = M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits);
    assert_int_equal(r.gpu_layers, 0);
    assert_int_equal(r.ram.weights, 12 * G);
    assert_int_equal(r.ram.kv, 160 * M);
    assert_int_equal(r.ram.scratch, 5 * M);
    assert_int_equal(r.ram_needed_bytes, 12 * G + 165 * M);
    /* A token reads 10 layers, the head and the KV of 512 tokens at 10 GB/s. */
    assert_true(r.decode_tps > 0.83 && r.decode_tps < 0.85);
    f->wish.is_mapped_only = true;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram_needed_bytes, 165 * M);
    /* What is loaded with the model, and for both threads. */
    f->shape.other_bytes = 40 * M;
    f->shape.other_thread_bytes = 2 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.scratch, 49 * M);
    assert_int_equal(r.ram_needed_bytes, 209 * M);
}

static void pages_are_whole_and_sequences_count(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->wish.context_tokens = 33;
    f->wish.sequences = 3;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.kv, 4 * LAYERS * M / 2); /* 99 tokens are 4 pages */
    f->wish.context_tokens = 0;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.context_tokens, 4096);
    f->wish.context_tokens = 100000;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.context_tokens, 4096);
    assert_non_null(strstr(r.reasons[0], "trained for 4096"));
    f->wish.k = "q9";
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), -EINVAL);
}

static void windows_keep_what_they_span(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    /* 1024 tokens are 32 pages; a window of 64 keeps 4 in each of 4 * 1 + 4 open sequences, and 16 for a
     * step's tokens. */
    f->shape.groups[1] = f->shape.groups[0];
    f->shape.groups[1].window = 64;
    f->shape.groups[1].pages_per_sequence = 4;
    f->shape.groups[1].pages_per_step = 16;
    f->shape.n_groups = 2;
    f->shape.open[0] = f->shape.open[1] = 4;
    for (int i = 0; i < LAYERS; i += 2)
        f->layers[i].group = 1;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.kv, 160 * M); /* 48 pages would be more than all */
    f->wish.context_tokens = 4096;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.kv, 5 * 128 * M / 2 + 5 * 48 * M / 2);
}

static void layers_go_to_devices_with_their_kv(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->wish.n_devices = 1;
    f->devices[0].budget_bytes = 4 * G + 64 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.kv_on_gpu && !r.head_on_gpu);
    assert_int_equal(r.gpu_layers, 4);
    assert_int_equal(r.devices[0].weights, 4 * G);
    assert_int_equal(r.devices[0].kv, 64 * M);
    assert_int_equal(r.ram.weights, 8 * G);
    assert_int_equal(r.ram.kv, 96 * M);
    assert_non_null(strstr(r.reasons[0], "VRAM is full after 4 of 10 layers"));
    /* A byte less, and the KV of four layers has no room: three and the head are as large, and have less. */
    f->devices[0].budget_bytes--;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.kv_on_gpu && r.head_on_gpu);
    assert_int_equal(r.gpu_layers, 3);
    assert_int_equal(r.devices[0].weights, 4 * G);
    assert_int_equal(r.devices[0].kv, 48 * M);
    /* A fourth would fit if KV and head left, which is no reason to say that it would gain nothing. */
    assert_non_null(strstr(r.reasons[0], "VRAM is full after 3 of 10 layers"));
    /* Without any room for KV, attention is computed where it stays. */
    f->devices[0].budget_bytes = 4 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && !r.kv_on_gpu);
    assert_int_equal(r.ram.kv, 160 * M);
    assert_int_equal(r.devices[0].weights, 4 * G);
    /* Two devices: filled one after the other, the last layers first. */
    f->devices[0].budget_bytes = 4 * G + 64 * M;
    f->devices[1].budget_bytes = 2 * G + 100 * M;
    f->wish.n_devices = 2;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.gpu_layers, 6);
    assert_int_equal(r.device_layers[0], 4);
    assert_int_equal(r.device_layers[1], 2);
    assert_int_equal(r.devices[1].kv, 32 * M);
    f->wish.keeps_offloaded = true;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.weights, 12 * G);
}

static void all_fits_on_a_large_device(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->wish.n_devices = 1;
    f->devices[0] = (struct plan_device){.budget_bytes = 12 * G, .overhead_bytes = 300 * M};
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.kv_on_gpu && r.head_on_gpu);
    assert_int_equal(r.gpu_layers, LAYERS);
    assert_int_equal(r.devices[0].weights, 11 * G);
    assert_int_equal(r.devices[0].kv, 160 * M);
    assert_int_equal(r.devices[0].driver, 300 * M);
    assert_int_equal(r.ram.weights, G);
    assert_int_equal(r.ram.kv, 0);
    /* A tied head is the embedding, which stays: what is put on the device is a copy. */
    f->shape.head_is_tied = true;
    f->shape.file_bytes = 11 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.devices[0].weights, 11 * G);
    assert_int_equal(r.ram.weights, G);
}

/* What is said to be there beside the layers depends on what they bring along. */
static void devices_have_their_own_scratch(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    for (uint32_t i = 0; i < 8; i++)
        f->shape.gpu_scratch_bytes[i] = (i + 1) * M;
    f->shape.gpu_padding_bytes = 1000;
    f->shape.rest_bytes = 5;
    f->wish.n_devices = 2;
    f->devices[0].budget_bytes = 7 * G + 200 * M;
    f->devices[1].budget_bytes = 6 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.gpu_layers, LAYERS);
    assert_true(r.kv_on_gpu && r.head_on_gpu);
    assert_int_equal(r.device_layers[0], 6);
    assert_int_equal(r.devices[0].scratch, (1 + PLAN_GPU_KV + PLAN_GPU_HEAD + PLAN_GPU_EXPERTS) * M + 6000 + 5);
    assert_int_equal(r.devices[1].scratch, (1 + PLAN_GPU_KV + PLAN_GPU_EXPERTS) * M + 4000);
    assert_int_equal(r.ram.weights, G);
}

/* What adapters bring is where the layers are, the experts and the head, and takes RAM as the file does. */
static void adapters_go_with_what_they_change(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    for (int i = 0; i < LAYERS; i++) {
        f->layers[i].adapter_bytes = M;
        f->layers[i].adapter_expert_bytes = 3 * M;
    }
    f->shape.head_adapter_bytes = 5 * M;
    f->shape.file_bytes += 45 * M;
    f->wish.n_devices = 1;
    f->wish.gpu_layers = PLAN_ALL;
    f->devices[0].budget_bytes = 100 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.head_on_gpu);
    assert_int_equal(r.devices[0].weights, 11 * G + 45 * M);
    for (int i = 0; i < LAYERS; i++)
        f->layers[i].expert_bytes = M;
    f->shape.n_experts = 8;
    f->shape.n_experts_used = 2;
    f->wish.experts = PLAN_EXPERTS_RAM;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.devices[0].weights, 11 * G + 15 * M);
}

/* Where all of a number of layers, or a single one, does not fit otherwise; before keys leave, and not for more layers. */
static void steps_become_smaller_where_there_is_no_room(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    for (uint32_t i = 0; i < 8; i++) {
        f->shape.gpu_scratch_bytes[i] = 512 * M;
        f->shape.gpu_small_scratch_bytes[i] = 64 * M;
    }
    f->shape.gpu_small_tokens = 64;
    f->wish.n_devices = 1;
    f->wish.gpu_layers = 3;
    f->devices[0].budget_bytes = 3 * G + 3 * 16 * M + 512 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.kv_on_gpu && !r.small_steps && r.devices[0].scratch == 512 * M);
    /* A byte less: keys could leave, but need not. */
    f->devices[0].budget_bytes--;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.kv_on_gpu && r.small_steps && r.gpu_layers == 3 && r.devices[0].scratch == 64 * M);
    assert_string_equal(r.reasons[0], "VRAM has no room for larger steps: one takes 64 tokens at most");
    f->devices[0].budget_bytes = 3 * G + 3 * 16 * M + 64 * M - 1;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && !r.kv_on_gpu && r.small_steps && r.gpu_layers == 3);
    f->devices[0].budget_bytes = 3 * G + 64 * M - 1;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_false(r.fits);
    /* Left to the planner, fewer layers come first. */
    f->wish.gpu_layers = PLAN_AUTO;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.gpu_layers == 2 && !r.small_steps);
    f->devices[0].budget_bytes = G + 16 * M + 511 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.gpu_layers == 1 && !r.small_steps && !r.kv_on_gpu);
    f->devices[0].budget_bytes = G + 511 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.gpu_layers == 1 && r.small_steps && r.kv_on_gpu);
    f->devices[0].budget_bytes = G + 63 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.gpu_layers == 0 && !r.small_steps);
    /* What takes no smaller steps. */
    f->devices[0].budget_bytes = G + 511 * M;
    f->shape.gpu_small_tokens = 0;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.gpu_layers == 0 && !r.small_steps);
}

static void layers_without_kernels_stay_in_ram(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->wish.n_devices = 1;
    f->wish.gpu_layers = PLAN_ALL;
    f->devices[0].budget_bytes = 12 * G;
    f->layers[3].can_offload = false;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.head_on_gpu);
    assert_int_equal(r.devices[0].weights, 10 * G);
    assert_int_equal(r.ram.weights, 2 * G);
    assert_int_equal(r.ram.kv, 16 * M);
    for (int i = 0; i < LAYERS; i++)
        f->layers[i].can_offload = false;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.gpu_layers, 0);
    assert_int_equal(r.vram_needed_bytes, 0);
    assert_string_equal(r.reasons[0], "there are no kernels that compute this model on a GPU");
}

static void forced_layers_that_do_not_fit_are_said(void **state)
{
    struct fixture *f = *state;
    struct plan_alternative a[PLAN_ALTERNATIVES_MAX];
    struct plan_result r;
    bool found = false;
    size_t n;

    f->wish.n_devices = 1;
    f->wish.gpu_layers = 8;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_false(r.fits);
    assert_int_equal(r.gpu_layers, 8);
    n = plan_alternatives(&f->shape, &f->wish, &r, a);
    for (size_t i = 0; i < n; i++)
        if (strcmp(a[i].key, "gpu_layers") == 0) {
            assert_true(a[i].fits);
            assert_int_equal(a[i].value, 3); /* and the head */
            found = true;
        }
    assert_true(found);
    f->wish.gpu_layers = 0;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits);
    assert_int_equal(r.vram_needed_bytes, 0);
}

static void experts_stay_behind_dense_parts(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    /* 64 experts, 4 used: 3.75 G of each layer's 4 G are read by few tokens. */
    for (int i = 0; i < LAYERS; i++)
        f->layers[i] = (struct plan_layer){.dense_bytes = 256 * M, .expert_bytes = 3840 * M, .can_offload = true};
    f->shape.file_bytes = 42 * G;
    f->shape.n_experts = 64;
    f->shape.n_experts_used = 4;
    f->wish.ram_bytes = 64 * G;
    f->wish.n_devices = 1;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits && r.head_on_gpu);
    assert_int_equal(r.gpu_layers, LAYERS);
    assert_int_equal(r.expert_layers, 0);
    f->devices[0].budget_bytes = 12 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.gpu_layers, LAYERS);
    assert_int_equal(r.expert_layers, 2);
    f->wish.experts = PLAN_EXPERTS_RAM;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.expert_layers, 0);
    f->wish.experts = PLAN_EXPERTS_VRAM;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.expert_layers, r.gpu_layers);
    assert_in_range(r.gpu_layers, 2, 3);
}

static void what_does_not_fit_has_alternatives(void **state)
{
    struct fixture *f = *state;
    struct plan_alternative a[PLAN_ALTERNATIVES_MAX];
    _cleanup_json_ json_object *suggestions = NULL;
    struct plan_result r;
    bool kv = false, context = false, ram = false;
    size_t n;

    f->wish.ram_bytes = 12 * G + 100 * M; /* 160 M of KV are wanted */
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_false(r.fits);
    assert_non_null(strstr(r.reasons[0], "of RAM are needed"));
    n = plan_alternatives(&f->shape, &f->wish, &r, a);
    for (size_t i = 0; i < n; i++) {
        kv |= strcmp(a[i].key, "kv_type") == 0 && strcmp(a[i].text, "q8_0") == 0 && a[i].fits;
        context |= strcmp(a[i].key, "context_tokens") == 0 && a[i].value == 512 && a[i].fits;
        ram |= strcmp(a[i].key, "ram_bytes") == 0 && a[i].value == 12 * G + 160 * M && a[i].fits;
        assert_true(i == 0 || a[i - 1].fits >= a[i].fits);
    }
    assert_true(kv && context && ram);
    assert_int_equal(plan_suggestions(a, n, &suggestions), 0);
    assert_non_null(strstr(json_text(suggestions), "{\"value\":\"q8_0\",\"change\":\"kv_type\"}"));
    assert_non_null(strstr(json_text(suggestions), "{\"value\":512,\"change\":\"context_tokens\"}"));
    assert_null(strstr(json_text(suggestions), "ram_bytes"));
    /* Weights that are too large ask for fewer bits: 8 a weight now, 6 G allow 3.9. */
    f->wish.ram_bytes = 6 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    n = plan_alternatives(&f->shape, &f->wish, &r, a);
    assert_true(n > 0 && a[0].fits);
    for (size_t i = 0; i < n; i++)
        if (strcmp(a[i].key, "quantization") == 0)
            assert_string_equal(a[i].text, "IQ3_XXS");
}

/* Where the tensors of the fixture lie: the embedding, ten layers of which the fourth has a tensor that never leaves in
 * its middle, the head. Nothing begins at a multiple of 2 M. */
enum { N_RUNS = LAYERS + 2 };

static void give_runs(struct fixture *f, struct plan_run *runs)
{
    uint64_t at = G + M;
    size_t n = 0;

    for (uint32_t i = 0; i < LAYERS; i++, at += G) {
        bool is_split = i == 3;

        runs[n++] = (struct plan_run){.from = at, .n_bytes = is_split ? G / 2 : G, .layer = i, .with = 0xff};
        if (is_split)
            runs[n++] = (struct plan_run){
                .from = at + G / 2 + M / 2, .n_bytes = G / 2 - M / 2, .layer = i, .with = 0xaa}; /* with the KV */
    }
    runs[n++] = (struct plan_run){.from = at, .n_bytes = G, .layer = LAYERS, .with = 0xcc, .is_end = true};
    assert_int_equal(n, N_RUNS);
    f->shape.runs = runs;
    f->shape.n_runs = n;
}

static void what_only_gpus_read_is_left_out_in_whole_large_pages(void **state)
{
    struct fixture *f = *state;
    struct plan_run runs[N_RUNS];
    struct plan_range ranges[N_RUNS];
    struct plan_result r;
    size_t n;

    give_runs(f, runs);
    f->wish.n_devices = 1;
    f->devices[0].budget_bytes = 4 * G + 64 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.gpu_layers == 4 && r.kv_on_gpu && !r.head_on_gpu);
    assert_int_equal(plan_left_out(&f->shape, &r, ranges, &n), 4 * G - 2 * M);
    assert_int_equal(n, 1);
    assert_int_equal(ranges[0].from, 7 * G + 2 * M);
    assert_int_equal(ranges[0].n_bytes, 4 * G - 2 * M);
    /* So much stays that the plan says it. */
    assert_int_equal(r.ram.weights, 8 * G + 2 * M);
    /* With the head it goes to the end of the file, whatever that is. */
    f->devices[0].budget_bytes = 12 * G;
    f->wish.gpu_layers = PLAN_ALL;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.gpu_layers == LAYERS && r.kv_on_gpu && r.head_on_gpu);
    (void)plan_left_out(&f->shape, &r, ranges, &n);
    assert_int_equal(n, 2);
    assert_int_equal(ranges[0].from, G + 2 * M);
    assert_int_equal(ranges[0].from + ranges[0].n_bytes, 4 * G + G / 2);
    assert_int_equal(ranges[1].from, 4 * G + G / 2 + 2 * M);
    assert_int_equal(ranges[1].from + ranges[1].n_bytes, 12 * G + M);
    /* The half that is there only with the KV cache. */
    r.kv_on_gpu = r.head_on_gpu = false;
    (void)plan_left_out(&f->shape, &r, ranges, &n);
    assert_int_equal(n, 2);
    assert_int_equal(ranges[1].from, 5 * G + 2 * M);
    assert_int_equal(ranges[1].from + ranges[1].n_bytes, 11 * G);
    r.gpu_layers = 0;
    assert_int_equal(plan_left_out(&f->shape, &r, ranges, &n), 0);
    assert_int_equal(n, 0);
    f->wish.keeps_offloaded = true;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.weights, 12 * G);
}

static void no_more_layers_than_were_refused(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->wish.n_devices = 1;
    f->wish.gpu_layers_max = 3;
    f->devices[0].budget_bytes = 12 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.gpu_layers, 3);
    assert_non_null(strstr(r.reasons[0], "VRAM is full after 3 of 10 layers"));
}

static void a_file_that_others_have_needs_no_room(void **state)
{
    struct fixture *f = *state;
    struct plan_alternative a[PLAN_ALTERNATIVES_MAX];
    struct plan_result r;
    bool context = false;
    size_t n;

    f->wish.ram_shared_bytes = 12 * G;
    f->wish.ram_bytes = 160 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.fits);
    assert_int_equal(r.ram_needed_bytes, 160 * M);
    assert_int_equal(r.ram.weights, 12 * G);
    f->wish.ram_bytes = 100 * M;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_false(r.fits);
    n = plan_alternatives(&f->shape, &f->wish, &r, a);
    for (size_t i = 0; i < n; i++) {
        context |= strcmp(a[i].key, "context_tokens") == 0 && a[i].value == 512 && a[i].fits;
        /* Another file would have to be in memory as well. */
        assert_string_not_equal(a[i].key, "quantization");
    }
    assert_true(context);
    /* What a GPU takes off it is what they hold in any case. */
    f->wish.ram_shared_bytes = 4 * G;
    f->wish.n_devices = 1;
    f->devices[0].budget_bytes = 3 * G + 48 * M;
    f->wish.ram_bytes = 20 * G;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_int_equal(r.ram.weights, 9 * G);
    assert_int_equal(r.ram_needed_bytes, 8 * G + r.ram.kv);
}

/* Layers go to VRAM all the same, and what they attend to stays. */
static void keys_that_no_gpu_reads_stay_in_ram(void **state)
{
    struct fixture *f = *state;
    struct plan_result r;

    f->devices[0].budget_bytes = 100 * G;
    f->wish.n_devices = 1;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.kv_on_gpu && r.ram.kv == 0);
    for (size_t i = 0; i < f->shape.groups[0].n_types; i++)
        f->shape.groups[0].types[i].on_gpu = strcmp(f->shape.groups[0].types[i].name, f->wish.v) != 0;
    assert_int_equal(plan_make(&f->shape, &f->wish, &r), 0);
    assert_true(r.gpu_layers == f->shape.n_layers && !r.kv_on_gpu && r.ram.kv > 0 && r.devices[0].kv == 0);
}

static void shapes_that_lie_are_refused(void **state)
{
    static const char whole[] =
        "{\"layers\": [[10, 0, 0, 1, 3, 0]], \"groups\": [{\"window\": 0, \"window_pages\": [0, 0], \"kv\": {\"f16\": "
        "[1, 1, 0]}}], \"file\": 100, "
        "\"embedding\": 20,"
        " \"head\": 20, \"head_adapters\": 2, \"rest\": 1, \"tied\": false, \"parameters\": 9, \"experts\": 0, \"experts_used\": 0,"
        " \"open\": [4, 4], \"context_trained\": 8, \"page_tokens\": 32, \"batch_tokens\": 4, \"scratch\": "
        "1, "
        "\"thread_scratch\": 1, \"gpu\": {\"scratch\": [1, 2, 3, 4, 5, 6, 7, 8], \"small_scratch\": "
        "[1, 1, 1, 1, 1, 1, 1, 2], \"small_tokens\": 64, \"padding\": 9, \"runs\": "
        "[[0, 10, 20, 0, 255, 0], [0, 30, 20, 1, 12, 1]]}, \"others\": [7, 8]}";
    static const char *const changes[][2] = {
        {"[10, 0, 0, 1, 3, 0]", "[90, 0, 0, 1, 3, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 1, 1, 3, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, -1, 0, 1, 3, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 0, 2, 3, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 0, 1, 3]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 0, 1, -3, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 0, 1, 83, 0]"},
        {"[10, 0, 0, 1, 3, 0]", "[10, 0, 0, 1, 3, 80]"},
        {"\"head_adapters\": 2", "\"head_adapters\": 82"},
        {"[1, 2, 3, 4, 5, 6, 7, 8]", "[1, 2, 3, 4, 5, 6, 7]"},
        {"[1, 2, 3, 4, 5, 6, 7, 8]", "[1, 2, 3, 4, 5, 6, 7, -8]"},
        {"\"padding\": 9", "\"padding\": -9"},
        {"[1, 1, 1, 1, 1, 1, 1, 2]", "[1, 1, 1, 1, 1, 1, 1]"},
        {"[1, 1, 1, 1, 1, 1, 1, 2]", "[1, 1, 1, 1, 1, 1, 1, -2]"},
        {"\"small_tokens\": 64", "\"small_tokens\": -1"},
        {"[0, 30, 20, 1, 12, 1]", "[0, 29, 20, 1, 12, 1]"},
        {"[0, 30, 20, 1, 12, 1]", "[0, 30, 71, 1, 12, 1]"},
        {"[0, 30, 20, 1, 12, 1]", "[1, 0, 90, 1, 12, 1]"},
        {"[0, 30, 20, 1, 12, 1]", "[0, 30, 20, 2, 12, 1]"},
        {"[0, 30, 20, 1, 12, 1]", "[0, 30, 20, 1, 256, 1]"},
        {"[0, 30, 20, 1, 12, 1]", "[0, 30, 20, 1, 12]"},
        {"[0, 30, 20, 1, 12, 1]", "3"},
        {"\"runs\"", "\"ruins\""},
        {"[10, 0, 0, 1, 3, 0]", "[10]"},
        {"\"file\": 100", "\"file\": 50"},
        {"\"page_tokens\": 32", "\"page_tokens\": 0"},
        {"\"tied\": false", "\"tied\": 0"},
        {"[1, 1, 0]", "[1]"},
        {"[1, 1, 0]", "[1, 1]"},
        {"[1, 1, 0]", "[1, 1, 2]"},
        {"\"file\": 100", "\"file\": 9007199254740992"},
        {"\"experts_used\": 0", "\"experts_used\": 3"},
        {"\"context_trained\": 8", "\"context_trained\": 0"},
        {"{\"f16\": [1, 1, 0]}", "{}"},
        {"\"scratch\": 1,", ""},
        {"\"window\": 0", "\"window\": -1"},
        {"\"head\": 20", "\"head\": \"20\""},
        {"\"others\": [7, 8]", "\"others\": [7]"},
        {"\"others\": [7, 8]", "\"others\": [-7, 8]"},
        {"\"others\": [7, 8]", "\"others\": [9007199254740992, 8]"},
        {"\"others\": [7, 8]", "\"others\": {}"},
    };
    struct plan_shape s;

    for (size_t i = 0; i <= sizeof(changes) / sizeof(changes[0]); i++) {
        _cleanup_json_ json_object *o = NULL;
        char text[1024];
        int r;

        if (i == 0) {
            snprintf(text, sizeof(text), "%s", whole);
        } else {
            const char *at = strstr(whole, changes[i - 1][0]);

            snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - whole), whole, changes[i - 1][1],
                     at + strlen(changes[i - 1][0]));
        }
        o = json_tokener_parse(text);
        assert_non_null(o);
        r = plan_shape_parse(o, &s);
        if (r != (i == 0 ? 0 : -EINVAL))
            fail_msg("%s: %d", text, r);
        if (r == 0) {
            assert_int_equal(s.other_bytes, 7);
            assert_int_equal(s.other_thread_bytes, 8);
            assert_int_equal(s.n_runs, 2);
            assert_int_equal(s.runs[1].with, 12);
            plan_shape_done(&s);
        }
    }
    assert_int_equal(plan_shape_parse(NULL, &s), -EINVAL);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup(t, setup)
    const struct CMUnitTest tests[] = {
        TEST(without_devices_everything_is_in_ram), TEST(pages_are_whole_and_sequences_count),
        TEST(windows_keep_what_they_span),          TEST(layers_go_to_devices_with_their_kv),
        TEST(devices_have_their_own_scratch),       TEST(steps_become_smaller_where_there_is_no_room),
        TEST(adapters_go_with_what_they_change),
        TEST(layers_without_kernels_stay_in_ram),
        TEST(all_fits_on_a_large_device),           TEST(forced_layers_that_do_not_fit_are_said),
        TEST(experts_stay_behind_dense_parts),      TEST(what_does_not_fit_has_alternatives),
        TEST(what_only_gpus_read_is_left_out_in_whole_large_pages), TEST(no_more_layers_than_were_refused),
        TEST(a_file_that_others_have_needs_no_room), TEST(keys_that_no_gpu_reads_stay_in_ram),
        TEST(shapes_that_lie_are_refused),
    };

    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
