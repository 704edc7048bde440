/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tests' own model writer: what others prove with its models hangs on these being what they say.
 */
#include "tests/model-writer/model_writer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/gguf/map.h"
#include "engine/kernels/dequantise.h"
#include "tests/model-writer/random_blocks.h"

static struct gguf *read_bytes(const uint8_t *bytes, size_t n)
{
    struct gguf_part part = {.data = bytes, .n_bytes = n};
    struct gguf *g = NULL;
    struct fault fault = {0};

    if (gguf_read(&part, 1, &g, &fault) < 0)
        fail_msg("%s", fault.reason);
    return g;
}

static void random_values_of_every_type_spread_as_asked(void **state)
{
    enum { N = 16384 };
    float *values = malloc(N * sizeof(*values));
    size_t n_types = 0;

    assert_non_null(values);
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
        double sum = 0, squares = 0, std;
        struct random_blocks random;
        uint64_t n_bytes;
        uint8_t *bytes;

        if (!tensor_traits(type) || !dequantise_has_type(type))
            continue;
        assert_int_equal(tensor_row_bytes(type, N, &n_bytes), 0);
        bytes = malloc(n_bytes);
        assert_non_null(bytes);
        random_blocks_init(&random, (enum tensor_type)type, 0.05f, 1);
        random_blocks_fill(&random, bytes, n_bytes);
        dequantise_row((enum tensor_type)type, bytes, N, values);
        for (size_t i = 0; i < N; i++) {
            sum += (double)values[i];
            squares += (double)values[i] * (double)values[i];
        }
        std = sqrt(squares / N);
        if (!(std > 0.03 && std < 0.08) || fabs(sum / N) > 0.015)
            fail_msg("%s: deviation %g, mean %g", tensor_traits(type)->name, std, sum / N);
        free(bytes);
        n_types++;
    }
    assert_true(n_types >= 15);
    free(values);
}

static void data_do_not_depend_on_the_sink(void **state)
{
    struct model_writer *w = model_writer_new();
    struct model_shape shape = model_shape_default();
    struct gguf_map *map = NULL;
    size_t n, n_parts;
    uint8_t *bytes;
    int fd;

    shape.type = TENSOR_Q4_K;
    shape.n_vocab = 4000;
    model_writer_llama(w, &shape);
    bytes = model_writer_bytes(w, &n);
    fd = model_writer_memfd(w);
    assert_int_equal(gguf_map(&fd, 1, 0, &map, NULL), 0);
    assert_int_equal(gguf_map_bytes(map), n);
    assert_memory_equal(gguf_map_parts(map, &n_parts)->data, bytes, n);
    gguf_unmap(map);
    close(fd);
    free(bytes);
    model_writer_free(w);
}

static void models_have_the_shape_that_was_asked_for(void **state)
{
    struct model_shape shape = model_shape_default();
    const struct gguf_tensor *t;
    struct model_writer *w = model_writer_new();
    struct gguf_array tokens;
    struct gguf *g;
    uint32_t value;
    uint8_t *bytes;
    size_t n;

    shape.n_layers = 3;
    shape.dim = 96;
    shape.n_heads = 6;
    shape.n_kv_heads = 3;
    shape.head_dim = 32;
    shape.ff = 320;
    shape.type = TENSOR_Q8_0;
    shape.down_type = TENSOR_Q6_K;
    shape.tied = true;
    shape.rope_scaling = "llama3";
    model_writer_llama(w, &shape);
    bytes = model_writer_bytes(w, &n);
    g = read_bytes(bytes, n);
    /* token_embd, 9 a layer, output_norm, rope_freqs */
    assert_int_equal(gguf_n_tensors(g), 1 + 3 * 9 + 1 + 1);
    assert_null(gguf_find_tensor(g, "output.weight"));
    t = gguf_find_tensor(g, "blk.2.attn_q.weight");
    assert_int_equal(t->type, TENSOR_Q8_0);
    assert_int_equal(t->dims[0], 96);
    assert_int_equal(t->dims[1], 192);
    /* 320 is no multiple of 256. */
    assert_int_equal(gguf_find_tensor(g, "blk.0.ffn_down.weight")->type, TENSOR_F16);
    assert_int_equal(gguf_find_tensor(g, "rope_freqs.weight")->dims[0], 16);
    assert_int_equal(gguf_get_u32(g, "llama.attention.head_count_kv", &value, NULL), 0);
    assert_int_equal(value, 3);
    assert_int_equal(gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL), 0);
    assert_int_equal(tokens.n, shape.n_vocab);
    gguf_free(g);
    free(bytes);
    model_writer_free(w);
}

static void each_tensor_has_values_of_its_own(void **state)
{
    struct model_shape shape = model_shape_default();
    struct model_writer *w = model_writer_new(), *other = model_writer_new();
    uint8_t *bytes, *other_bytes;
    struct gguf *g;
    size_t n, n_other;

    model_writer_llama(w, &shape);
    shape.seed = 2;
    model_writer_llama(other, &shape);
    bytes = model_writer_bytes(w, &n);
    other_bytes = model_writer_bytes(other, &n_other);
    assert_int_equal(n, n_other);
    g = read_bytes(bytes, n);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        assert_memory_not_equal(t->data, other_bytes + t->offset, t->n_bytes);
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(t->data, gguf_tensor(g, k)->data, 64);
    }
    gguf_free(g);
    free(bytes);
    free(other_bytes);
    model_writer_free(w);
    model_writer_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_values_of_every_type_spread_as_asked),
        cmocka_unit_test(data_do_not_depend_on_the_sink),
        cmocka_unit_test(models_have_the_shape_that_was_asked_for),
        cmocka_unit_test(each_tensor_has_values_of_its_own),
    };

    return cmocka_run_group_tests_name("gguf/model-writer", tests, NULL, NULL);
}
