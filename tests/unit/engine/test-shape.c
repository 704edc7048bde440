/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is planned against what is really allocated, over the way that the daemon takes: the shape of a model
 * file as a worker says it, read by the planner, beside the facts of an engine that was opened with the same
 * wishes.
 */
#include "engine/engine-shape.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/worker/model.h"
#include "engine/worker/shape.h"
#include "policy/plan.h"
#include "tests/model-writer/model_writer.h"

static void read_shape(const struct engine_config *config, struct plan_shape *ret)
{
    _cleanup_json_ json_object *o = NULL, *copy = NULL;
    struct engine_shape shape;
    struct fault fault;
    char text[512];

    fault_init(&fault, FAULT_NONE, NULL);
    if (engine_shape(config, &shape, &fault) < 0)
        fail_msg("%s", fault_describe(&fault, text, sizeof(text)));
    assert_int_equal(shape_to_json(&shape, model_open_max, 12.5, &o), 0);
    engine_shape_done(&shape);
    copy = json_tokener_parse(json_text(o)); /* as over the link */
    assert_int_equal(plan_shape_parse(json_object_object_get(copy, "shape"), ret), 0);
}

static int adapter_of(const struct model_writer *model, const char *architecture)
{
    const struct adapter_shape shape = {
        .architecture = architecture, .rank = 24, .alpha = 1, .type = TENSOR_F16, .period = 1, .seed = 2};
    struct model_writer *w = model_writer_new();
    int fd;

    model_writer_adapter(w, model, &shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    return fd;
}

static void planned_is_what_is_allocated(void **state)
{
    static const struct {
        uint32_t context, sequences, threads, batch;
        enum tensor_type k, v;
        bool tied;
        const char *k_name, *v_name;
        const char *architecture;
        uint32_t window, n_experts;
        bool adapter, latent;
    } cases[] = {
        {256, 1, 1, 512, TENSOR_F32, TENSOR_F32, false, "f32", "f32"},
        {256, 4, 2, 512, TENSOR_F16, TENSOR_F16, false, "f16", "f16"},
        {100, 3, 3, 64, TENSOR_F16, TENSOR_F32, true, "f16", "f32"},
        {33, 8, 1, 8, TENSOR_F32, TENSOR_F16, false, "f32", "f16"},
        {0, 2, 2, 512, TENSOR_F16, TENSOR_F16, true, "f16", "f16"},
        {2048, 4, 1, 128, TENSOR_F16, TENSOR_F16, false, "f16", "f16", "llama", 64, 0},
        {2048, 3, 1, 256, TENSOR_F16, TENSOR_F16, true, "f16", "f16", "gemma2", 100, 0},
        {256, 2, 1, 64, TENSOR_F16, TENSOR_F16, false, "f16", "f16", "llama", 0, 8},
        {256, 2, 2, 64, TENSOR_F16, TENSOR_F16, false, "f16", "f16", "llama", 0, 0, true},
        {256, 2, 2, 64, TENSOR_F16, TENSOR_F16, false, "f16", "f16", "deepseek2", 0, 8, true, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_shape model = model_shape_default();
        struct model_writer *w = model_writer_new();
        _cleanup_engine_ struct engine *e = NULL;
        struct plan_shape shape;
        struct plan_result plan;
        struct engine_shape counted;
        struct engine_facts facts;
        uint64_t planned, used;
        int fd, adapter;

        model.tied = cases[i].tied;
        model.type = i % 2 ? TENSOR_Q8_0 : TENSOR_F32;
        model.n_layers = 3;
        model.context = 2048;
        if (cases[i].architecture)
            model.architecture = cases[i].architecture;
        model.window = cases[i].window;
        model.n_experts = cases[i].n_experts;
        model.n_experts_used = cases[i].n_experts / 4;
        if (cases[i].latent) {
            model.head_dim = 32;
            model.latent.kv_rank = 64;
            model.latent.n_rot = 16;
            model.latent.v_dim = 24;
            model.latent.compressed = true;
        }
        model_writer_llama(w, &model);
        fd = model_writer_memfd(w);
        adapter = adapter_of(w, model.architecture);
        model_writer_free(w);
        const struct engine_config config = {
            .fds = &fd,
            .n_fds = 1,
            .adapters = &adapter,
            .n_adapters = cases[i].adapter,
            .context_tokens = cases[i].context,
            .sequences_max = 4 * cases[i].sequences + 4,
            .kv_tokens = (uint64_t)(cases[i].context ? cases[i].context : model.context) * cases[i].sequences,
            .k_type = cases[i].k,
            .v_type = cases[i].v,
            .batch_tokens_max = cases[i].batch,
            .outputs_max = cases[i].sequences,
            .n_threads = cases[i].threads,
            .isa_mask = UINT32_MAX,
        };
        const struct plan_wish wish = {
            .context_tokens = cases[i].context,
            .sequences = cases[i].sequences,
            .k = cases[i].k_name,
            .v = cases[i].v_name,
            .gpu_layers = PLAN_AUTO,
            .ram_bytes = UINT64_MAX,
            .n_threads = cases[i].threads,
        };

        read_shape(&config, &shape);
        assert_int_equal(shape.n_layers, 3);
        assert_int_equal(shape.head_is_tied, cases[i].tied);
        assert_int_equal(shape.n_experts, cases[i].n_experts);
        assert_int_equal(shape.layers[0].expert_bytes > 0, cases[i].n_experts > 0);
        assert_int_equal(plan_make(&shape, &wish, &plan), 0);
        assert_int_equal(engine_open(&config, &e, NULL), 0);
        engine_facts(e, &facts);
        assert_int_equal(engine_shape(&config, &counted, NULL), 0);
        assert_int_equal(engine_shape_kv_bytes(&counted, &config), facts.bytes_kv);
        engine_shape_done(&counted);
        close(fd);
        close(adapter);
        assert_true(plan.fits);
        assert_int_equal(plan.ram.weights, facts.bytes_weights);
        assert_int_equal(plan.ram.kv, facts.bytes_kv);
        planned = plan.ram_needed_bytes;
        used = facts.bytes_weights + facts.bytes_kv + facts.bytes_scratch;
        if (planned < used || (double)used < 0.95 * (double)planned)
            fail_msg("case %zu: planned %" PRIu64 ", used %" PRIu64, i, planned, used);
        plan_shape_done(&shape);
    }
}

/* The sums over layers and the rest are the file: nothing is counted twice, nothing forgotten but the header.
 */
static void every_tensor_is_counted_once(void **state)
{
    struct model_shape model = model_shape_default();
    struct model_writer *w = model_writer_new();
    struct plan_shape shape;
    uint64_t sum;
    int fd;

    model_writer_llama(w, &model);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    read_shape(&(struct engine_config){.fds = &fd,
                                       .n_fds = 1,
                                       .sequences_max = 1,
                                       .k_type = TENSOR_F16,
                                       .v_type = TENSOR_F16,
                                       .isa_mask = UINT32_MAX},
               &shape);
    close(fd);
    sum = shape.embedding_bytes + shape.head_bytes + shape.rest_bytes;
    for (uint32_t i = 0; i < shape.n_layers; i++)
        sum += shape.layers[i].dense_bytes + shape.layers[i].expert_bytes;
    assert_int_equal(sum, shape.n_parameters * 4);
    assert_int_equal(shape.embedding_bytes, 512 * 256 * 4);
    assert_int_equal(shape.head_bytes, 512 * 256 * 4);
    assert_int_equal(shape.rest_bytes, 256 * 4); /* the last norm */
    assert_true(sum < shape.file_bytes && shape.file_bytes < sum + 65536);
    assert_true(shape.read_gbps == 12.5);
    plan_shape_done(&shape);
}

static void a_header_is_enough_for_a_plan_of_70b(void **state)
{
    struct model_shape model = model_shape_default();
    struct model_writer *w = model_writer_new();
    struct plan_device device = {.budget_bytes = UINT64_C(8) << 30,
                                 .overhead_bytes = PLAN_DEVICE_OVERHEAD_BYTES};
    struct plan_wish wish = {.context_tokens = 8192,
                             .sequences = 4,
                             .k = "f16",
                             .v = "f16",
                             .gpu_layers = PLAN_AUTO,
                             .ram_bytes = UINT64_C(16) << 30,
                             .n_threads = 8,
                             .devices = &device,
                             .n_devices = 1};
    struct plan_alternative alternatives[PLAN_ALTERNATIVES_MAX];
    struct plan_result plan;
    struct plan_shape shape;
    struct stat st;
    size_t n;
    int fd;

    model.n_layers = 80;
    model.dim = 8192;
    model.ff = 28672;
    model.n_heads = 64;
    model.n_kv_heads = 8;
    model.n_vocab = 128256;
    model.context = 131072;
    model.type = TENSOR_Q4_K;
    model.output_type = TENSOR_Q6_K;
    model_writer_llama(w, &model);
    fd = memfd_create("70b", MFD_CLOEXEC);
    assert_true(fd >= 0);
    model_writer_write_sparse(w, fd);
    model_writer_free(w);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > (INT64_C(36) << 30) && st.st_blocks * 512 < (64 << 20));
    read_shape(&(struct engine_config){.fds = &fd,
                                       .n_fds = 1,
                                       .context_tokens = 8192,
                                       .sequences_max = 16,
                                       .kv_tokens = 4 * 8192,
                                       .outputs_max = 4,
                                       .k_type = TENSOR_F16,
                                       .v_type = TENSOR_F16,
                                       .isa_mask = UINT32_MAX},
               &shape);
    close(fd);
    assert_int_equal(shape.n_layers, 80);
    assert_true(shape.n_parameters > UINT64_C(70) * 1000 * 1000 * 1000);
    /* 80 layers, 8 heads of 128, K and V, 2 bytes, 4 times 8192 tokens: 10 GiB. */
    assert_int_equal(plan_make(&shape, &wish, &plan), 0);
    assert_false(plan.fits);
    assert_int_equal(plan.context_tokens, 8192);
    wish.ram_bytes = UINT64_C(64) << 30;
    assert_int_equal(plan_make(&shape, &wish, &plan), 0);
    assert_true(plan.fits);
    assert_int_equal(plan.ram.kv + plan.devices[0].kv, UINT64_C(10) << 30);
    assert_in_range(plan.gpu_layers, 10, 17);
    wish.ram_bytes = UINT64_C(16) << 30;
    assert_int_equal(plan_make(&shape, &wish, &plan), 0);
    n = plan_alternatives(&shape, &wish, &plan, alternatives);
    assert_true(n > 0 && alternatives[0].fits);
    plan_shape_done(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planned_is_what_is_allocated),
        cmocka_unit_test(every_tensor_is_counted_once),
        cmocka_unit_test(a_header_is_enough_for_a_plan_of_70b),
    };

    return cmocka_run_group_tests_name("engine-shape", tests, NULL, NULL);
}
