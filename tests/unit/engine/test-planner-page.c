/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The planner's side of the table in docs/planner.md, made anew: each of its ten cases over the way that Models.Plan
 * takes, from a model of which only the header exists to the two cells as they have to stand there.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/worker/config.h"
#include "engine/worker/model.h"
#include "engine/worker/shape.h"
#include "policy/plan.h"
#include "tests/model-writer/model_writer.h"

#define RAM_GBPS 30.0 /* as the page says */

struct page_case {
    const char *name; /* the row's first cell */
    const char *architecture;
    uint32_t n_layers, dim, ff, n_heads, n_kv_heads, head_dim, context_trained;
    uint32_t n_experts, n_experts_used, window;
    bool tied, f16;
    uint64_t vram_gib;
    uint32_t context;
};

static const struct page_case cases[] = {
    {"1B, 1 GiB, 8192", "llama", 16, 2048, 8192, 32, 8, 64, 131072, .vram_gib = 1, .context = 8192},
    {"0.6B (qwen3), 4 GiB, 8192", "qwen3", 28, 1024, 3072, 16, 8, 128, 40960, .vram_gib = 4, .context = 8192},
    {"8B, 4 GiB, 8192", "llama", 32, 4096, 14336, 32, 8, 128, 8192, .vram_gib = 4, .context = 8192},
    {"8B, 6 GiB, 8192", "llama", 32, 4096, 14336, 32, 8, 128, 8192, .vram_gib = 6, .context = 8192},
    {"8B, 6 GiB, 32768", "llama", 32, 4096, 14336, 32, 8, 128, 8192, .vram_gib = 6, .context = 32768},
    {"8B F16, 12 GiB, 8192", "llama", 32, 4096, 14336, 32, 8, 128, 8192, .f16 = true, .vram_gib = 12, .context = 8192},
    {"2B (gemma2, windows of 4096), 2 GiB, 8192", "gemma2", 26, 2304, 9216, 8, 4, 256, 8192, .window = 4096,
     .tied = true, .vram_gib = 2, .context = 8192},
    {"8 × 7B, 12 GiB, 8192", "llama", 32, 4096, 14336, 32, 8, 128, 32768, 8, 2, .vram_gib = 12, .context = 8192},
    {"30B of 3B (qwen3moe), 8 GiB, 8192", "qwen3moe", 48, 2048, 768, 32, 4, 128, 40960, 128, 8, .vram_gib = 8,
     .context = 8192},
    {"70B, 22 GiB, 8192", "llama", 80, 8192, 28672, 64, 8, 128, 8192, .vram_gib = 22, .context = 8192},
};

static int write_header(const struct page_case *c)
{
    struct model_shape model = model_shape_default();
    struct model_writer *w = model_writer_new();
    int fd = memfd_create("model", MFD_CLOEXEC);

    assert_true(fd >= 0);
    model.architecture = c->architecture;
    model.n_layers = c->n_layers;
    model.dim = c->dim;
    model.ff = c->ff;
    model.n_heads = c->n_heads;
    model.n_kv_heads = c->n_kv_heads;
    model.head_dim = c->head_dim;
    model.n_vocab = 32000;
    model.context = c->context_trained;
    model.n_experts = c->n_experts;
    model.n_experts_used = c->n_experts_used;
    model.window = c->window;
    model.tied = c->tied;
    model.type = c->f16 ? TENSOR_F16 : TENSOR_Q4_K;
    if (!c->f16) {
        model.v_type = model.down_type = model.output_type = TENSOR_Q6_K;
        model.mixed = true;
    }
    model_writer_llama(w, &model);
    model_writer_write_sparse(w, fd);
    model_writer_free(w);
    return fd;
}

/* As a worker says it and the daemon reads it. */
static void read_shape(const struct page_case *c, struct plan_shape *ret)
{
    _cleanup_json_ json_object *o = NULL, *copy = NULL;
    struct engine_shape shape;
    struct config config;
    struct fault fault;
    char text[512];
    int fd = write_header(c), n;

    n = snprintf(text, sizeof(text), "{\"measure\": true, \"context_tokens\": %" PRIu32 ", \"sequences\": 1}", c->context);
    assert_int_equal(config_parse(text, (size_t)n, &config, &fault), 0);
    fault_init(&fault, FAULT_NONE, NULL);
    if (model_measure(&fd, 1, &config, &shape, &fault) < 0)
        fail_msg("%s", fault_describe(&fault, text, sizeof(text)));
    close(fd);
    assert_int_equal(shape_to_json(&shape, model_open_max, RAM_GBPS, &o), 0);
    engine_shape_done(&shape);
    config_done(&config);
    copy = json_tokener_parse(json_text(o));
    assert_int_equal(plan_shape_parse(json_object_object_get(copy, "shape"), ret), 0);
}

static unsigned long mib(uint64_t bytes)
{
    return (unsigned long)((bytes + (UINT64_C(1) << 19)) >> 20);
}

/* The row up to llama.cpp's cells. */
static void describe(const struct page_case *c, const struct plan_shape *shape, const struct plan_result *plan,
                     char *text, size_t size)
{
    const struct plan_bytes *b = &plan->devices[0];
    char kv[32] = "", experts[64] = "", context[32] = "";

    if (!plan->kv_on_gpu)
        snprintf(kv, sizeof(kv), ", KV in RAM");
    if (shape->n_experts > 0)
        snprintf(experts, sizeof(experts), ", experts of %" PRIu32 " in RAM", shape->n_layers - plan->expert_layers);
    if (plan->context_tokens != c->context)
        snprintf(context, sizeof(context), ", context %" PRIu32, plan->context_tokens);
    snprintf(text, size, "| %s | %" PRIu32 " of %" PRIu32 "%s%s%s | %lu + %lu + %lu + %lu | ", c->name, plan->gpu_layers,
             shape->n_layers, kv, experts, context, mib(b->weights), mib(b->kv), mib(b->scratch), mib(b->driver));
}

static char *read_page(void)
{
    const char *source = getenv("RESIDENTD_SOURCE");
    char path[4096], *text = calloc(1, 65536);
    FILE *f;

    assert_non_null(source);
    assert_non_null(text);
    snprintf(path, sizeof(path), "%s/docs/planner.md", source);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_true(fread(text, 1, 65535, f) > 0);
    fclose(f);
    return text;
}

static void the_page_says_what_the_planner_does(void **state)
{
    char *page = read_page();
    size_t n_wrong = 0;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct page_case *c = &cases[i];
        const struct plan_device device = {.budget_bytes = c->vram_gib << 30, .overhead_bytes = PLAN_DEVICE_OVERHEAD_BYTES};
        const struct plan_wish wish = {
            .context_tokens = c->context,
            .sequences = 1,
            .k = "f16",
            .v = "f16",
            .gpu_layers = PLAN_AUTO,
            .ram_bytes = UINT64_C(64) << 30,
            .n_threads = 2,
            .devices = &device,
            .n_devices = 1,
        };
        struct plan_shape shape;
        struct plan_result plan;
        char row[512];

        read_shape(c, &shape);
        assert_int_equal(plan_make(&shape, &wish, &plan), 0);
        assert_true(plan.fits && plan.vram_needed_bytes <= device.budget_bytes);
        describe(c, &shape, &plan, row, sizeof(row));
        plan_shape_done(&shape);
        if (strstr(page, row))
            continue;
        n_wrong++;
        print_message("# docs/planner.md has to say: %s\n", row);
    }
    free(page);
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_says_what_the_planner_does),
    };

    return cmocka_run_group_tests_name("engine-planner-page", tests, NULL, NULL);
}
