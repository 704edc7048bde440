/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine beside the forward pass in doubles (tests/plain), on models that the reference folder does not
 * have: rows of many blocks in every weight type, long sequences, every scaling of rope, tied and split
 * files.
 *
 * Weights of a quantised type are compared twice: with activations through int8 as in the rule of sums, where
 * only the rounding of single values may differ, and with exact ones, where the distance is the
 * quantisation's own.
 */
#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/kernels/dequantise.h"
#include "engine/kernels/kernels.h"
#include "tests/plain/plain.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

/*
 * Logits have a deviation of about 3; float arithmetic leaves a millionth of it. Through int8 most tokens
 * come out as close, but where a value lies so near the middle between two steps that float and double round
 * it apart, a token's logits (and through attention later ones') move by about a hundredth: so half of the
 * tokens have to be close.
 */
#define MAX_FLOAT  1e-4
#define RMS_INT8   0.02
#define RMS_EXACT  0.1
#define MAX_F16_KV 0.02

struct distance {
    double max, rms;
    double median; /* of the tokens' largest differences */
};

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static struct distance distance_from_plain(struct engine *e, const struct plain_options *o,
                                           const int32_t *tokens, uint32_t n, const float *ours)
{
    uint32_t n_vocab = feed_n_vocab(e);
    size_t n_values = (size_t)n * n_vocab;
    _cleanup_free_ double *truth = calloc(n_values, sizeof(*truth)), *largest = calloc(n, sizeof(*largest));
    struct distance d = {};

    assert_true(truth && largest);
    plain_logits(engine_gguf(e), o, tokens, n, truth);
    for (size_t i = 0; i < n_values; i++) {
        double apart = fabs((double)ours[i] - truth[i]);

        assert_true(isfinite(apart));
        largest[i / n_vocab] = fmax(largest[i / n_vocab], apart);
        d.max = fmax(d.max, apart);
        d.rms += apart * apart;
    }
    qsort(largest, n, sizeof(*largest), by_size);
    d.median = largest[n / 2];
    d.rms = sqrt(d.rms / (double)n_values);
    return d;
}

static float *logits_of(struct engine *e, const int32_t *tokens, uint32_t n, uint32_t chunk)
{
    float *logits = calloc((size_t)n * feed_n_vocab(e), sizeof(*logits));

    assert_non_null(logits);
    feed_new(e, tokens, n, chunk, logits);
    return logits;
}

/* An F32 model that has to be as good as exact. */
static void check_exact(const struct model_shape *shape, uint32_t n, uint32_t chunk)
{
    struct engine_config config = models_config(1, chunk);
    _cleanup_engine_ struct engine *e = models_open(shape, &config);
    _cleanup_free_ int32_t *tokens = models_tokens(7, n, shape->n_vocab);
    _cleanup_free_ float *ours = logits_of(e, tokens, n, chunk);
    struct distance d = distance_from_plain(e, &(struct plain_options){}, tokens, n, ours);

    if (d.max > MAX_FLOAT)
        fail_msg("max |difference| is %g, expected at most %g", d.max, MAX_FLOAT);
}

static void check_int8(struct engine *e, const int32_t *tokens, uint32_t n, const float *ours, double scale)
{
    struct distance d = distance_from_plain(e, &(struct plain_options){.act_int8 = true}, tokens, n, ours);

    if (d.median > MAX_FLOAT * scale || d.rms > RMS_INT8 * scale)
        fail_msg("with int8 activations half of the tokens are within %g, rms is %g; expected %g and %g",
                 d.median, d.rms, MAX_FLOAT * scale, RMS_INT8 * scale);
}

/*
 * 17 tokens at once and in chunks take all the kernels' ways to walk along a row; since all agree, doubles
 * for the first 8 tokens are enough.
 */
static void check_type(enum tensor_type type)
{
    enum { N = 17, N_PLAIN = 8 };
    static const uint32_t chunks[] = {1, 3, 8};
    struct model_shape shape = models_wide(type);
    struct engine_config config = models_config(1, N);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(3, N, shape.n_vocab);
    _cleanup_free_ float *ours = NULL;
    struct distance d;

    /* Random blocks of some types have a mean; as an embedding that would make all tokens alike. */
    shape.embedding_type = TENSOR_F32;
    e = models_open(&shape, &config);
    ours = logits_of(e, tokens, N, N);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
        _cleanup_free_ float *other = logits_of(e, tokens, N, chunks[i]);

        assert_memory_equal(other, ours, (size_t)N * shape.n_vocab * sizeof(float));
    }
    if (tensor_traits(type)->block_values > 1)
        check_int8(e, tokens, N_PLAIN, ours, 1);
    d = distance_from_plain(e, &(struct plain_options){}, tokens, N_PLAIN, ours);
    if (tensor_traits(type)->block_values == 1 ? d.max > MAX_FLOAT : d.rms > RMS_EXACT)
        fail_msg("with exact activations rms is %g, max %g", d.rms, d.max);
}

/* A case for each type: the state is its number. */
static void rows_of_many_blocks(void **state)
{
    check_type(*(const enum tensor_type *)*state);
}

static void long_sequences_of_many_segments(void **state)
{
    struct model_shape shape = models_deep();

    check_exact(&shape, 1100, 256);
}

static void eight_heads_share_keys_and_values(void **state)
{
    struct model_shape shape = models_deep();

    shape.n_heads = 8;
    shape.n_kv_heads = 1;
    shape.head_dim = 128;
    check_exact(&shape, 150, 37);
}

static void heads_need_not_be_a_share_of_the_width(void **state)
{
    struct model_shape shape = models_deep();

    shape.dim = 72;
    shape.n_heads = 3;
    shape.n_kv_heads = 3;
    shape.head_dim = 40;
    check_exact(&shape, 70, 70);
}

static void rope_scaling(const char *scaling, float factor)
{
    struct model_shape shape = models_deep();

    shape.head_dim = 64;
    shape.rope_scaling = scaling;
    shape.rope_factor = factor;
    check_exact(&shape, 600, 200);
}

static void rope_scaling_linear(void **state)
{
    rope_scaling("linear", 4);
}

static void rope_scaling_yarn(void **state)
{
    rope_scaling("yarn", 8);
}

static void rope_scaling_llama3(void **state)
{
    rope_scaling("llama3", 8);
}

static void rope_base_of_llama3(void **state)
{
    struct model_shape shape = models_deep();

    shape.rope_base = 500000;
    check_exact(&shape, 300, 300);
}

static void tied_quantised_embedding(void **state)
{
    struct model_shape shape = models_wide(TENSOR_Q8_0);
    struct engine_config config = models_config(1, 12);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(5, 12, shape.n_vocab);
    _cleanup_free_ float *ours = NULL;

    shape.tied = true;
    shape.embedding_type = TENSOR_Q6_K;
    e = models_open(&shape, &config);
    ours = logits_of(e, tokens, 12, 12);
    /* The embedding's deviation is 1, not 3 / sqrt(dim): the logits, and their errors, are 12 times as large.
     */
    check_int8(e, tokens, 12, ours, 12);
}

/* Like Q4_K_M files: other types for v, down and output; and rows that are no multiple of 256. */
static void mixed_types(void **state)
{
    struct model_shape shape = models_wide(TENSOR_Q4_K);
    struct engine_config config = models_config(1, 12);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(5, 12, shape.n_vocab);
    _cleanup_free_ float *ours = NULL;

    shape.v_type = shape.output_type = TENSOR_Q6_K;
    shape.ff = 2784;
    shape.down_type = TENSOR_Q5_0;
    e = models_open(&shape, &config);
    ours = logits_of(e, tokens, 12, 12);
    check_int8(e, tokens, 12, ours, 1);
}

static void cache_of_f16(void **state)
{
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, 100);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(9, 600, shape.n_vocab);
    _cleanup_free_ float *ours = NULL;
    struct distance d;

    config.k_type = config.v_type = TENSOR_F16;
    e = models_open(&shape, &config);
    ours = logits_of(e, tokens, 600, 100);
    d = distance_from_plain(e, &(struct plain_options){.kv_f16 = true}, tokens, 600, ours);
    if (d.max > MAX_F16_KV)
        fail_msg("max |difference| is %g, expected at most %g", d.max, MAX_F16_KV);
}

/* Parts are mapped apart; nothing else changes, so the bits are the same. */
static void split_files_compute_the_same(void **state)
{
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, 64);
    _cleanup_engine_ struct engine *whole = models_open(&shape, &config);
    _cleanup_engine_ struct engine *parts = models_open_parts(&shape, 3, &config);
    _cleanup_free_ int32_t *tokens = models_tokens(9, 64, shape.n_vocab);
    _cleanup_free_ float *a = logits_of(whole, tokens, 64, 64), *b = logits_of(parts, tokens, 64, 64);

    assert_memory_equal(a, b, 64 * shape.n_vocab * sizeof(float));
}

#define N_CASES_MAX (TENSOR_TYPE_MAX + 16)

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(long_sequences_of_many_segments),
        cmocka_unit_test(eight_heads_share_keys_and_values),
        cmocka_unit_test(heads_need_not_be_a_share_of_the_width),
        cmocka_unit_test(rope_scaling_linear),
        cmocka_unit_test(rope_scaling_yarn),
        cmocka_unit_test(rope_scaling_llama3),
        cmocka_unit_test(rope_base_of_llama3),
        cmocka_unit_test(tied_quantised_embedding),
        cmocka_unit_test(mixed_types),
        cmocka_unit_test(cache_of_f16),
        cmocka_unit_test(split_files_compute_the_same),
    };
    struct CMUnitTest tests[N_CASES_MAX];
    enum tensor_type types[TENSOR_TYPE_MAX];
    char names[TENSOR_TYPE_MAX][64];
    struct kernels kernels;
    size_t n = 0;

    kernels_select(kernels_isa_detect(), &kernels);
    for (uint32_t i = 0; i < TENSOR_TYPE_MAX; i++) {
        if (!tensor_traits(i) || !dequantise_has_type(i) || !linear_has_type((enum tensor_type)i))
            continue;
        types[i] = (enum tensor_type)i;
        snprintf(names[i], sizeof(names[i]), "rows_of_many_blocks_%s", tensor_traits(i)->name);
        tests[n++] = (struct CMUnitTest){
            .name = names[i], .test_func = rows_of_many_blocks, .initial_state = &types[i]};
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        tests[n++] = others[i];
    return _cmocka_run_group_tests("plain", tests, n, NULL, NULL);
}
