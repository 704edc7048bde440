/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that are good GGUF and no good model: a right model with one field changed. The engine has to refuse
 * each, name the key or tensor, and say what it expected. (What is wrong with the file as such is
 * test-gguf-read's.)
 */
#include "engine/engine.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

struct file {
    uint8_t *bytes;
    size_t n;
};

static struct model_shape shape_small(void)
{
    struct model_shape s = models_deep();

    s.context = 256;
    s.head_dim = 16;
    s.rope_original_context = 64;
    return s;
}

static struct file file_new(const struct model_shape *shape)
{
    struct model_writer *w = model_writer_new();
    struct file f;

    model_writer_llama(w, shape);
    f.bytes = model_writer_bytes(w, &f.n);
    model_writer_free(w);
    return f;
}

static void file_done(struct file *f)
{
    free(f->bytes);
}

#define _cleanup_file_ _cleanup_(file_done)

/* What stands behind a key's or a tensor's name; both are written as a 64-bit length and the text. */
static uint8_t *find(const struct file *f, const char *name)
{
    uint64_t length = strlen(name);

    for (size_t at = 0; at + 8 + length <= f->n; at++)
        if (memcmp(f->bytes + at, &length, 8) == 0 && memcmp(f->bytes + at + 8, name, length) == 0)
            return f->bytes + at + 8 + length;
    fail_msg("the test's model has no %s", name);
    return NULL;
}

/* Opens it, and computes a little when that works. */
static int open_file(const struct file *f, struct fault *reterr)
{
    static const int32_t tokens[] = {1, 2, 3, 399 - 1};
    struct engine_config config = models_config(1, 8);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_close_ int fd = memfd_create("model", MFD_CLOEXEC);
    int r;

    assert_true(fd >= 0 && write(fd, f->bytes, f->n) == (ssize_t)f->n);
    *reterr = (struct fault){.kind = FAULT_NONE};
    config.fds = &fd;
    config.n_fds = 1;
    r = engine_open(&config, &e, reterr);
    if (r == 0)
        feed_new(e, tokens, 4, 3, NULL);
    return r;
}

static void assert_says(const struct file *f, const char *first, const char *second)
{
    struct fault fault;

    assert_int_equal(open_file(f, &fault), -EINVAL);
    assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
    assert_true(fault.offset == FAULT_NO_OFFSET || (fault.offset > 0 && fault.offset < (int64_t)f->n));
    if (!strstr(fault.reason, first) || !strstr(fault.reason, second))
        fail_msg("the reason is \"%s\", expected \"%s\" and \"%s\" in it", fault.reason, first, second);
}

static const char *const matrices[] = {
    "token_embd.weight",     "output.weight",       "blk.0.attn_q.weight",
    "blk.1.attn_k.weight",   "blk.0.attn_v.weight", "blk.1.attn_output.weight",
    "blk.0.ffn_gate.weight", "blk.1.ffn_up.weight", "blk.0.ffn_down.weight",
};
static const char *const vectors[] = {"output_norm.weight", "blk.0.attn_norm.weight",
                                      "blk.1.ffn_norm.weight"};

#define N_MATRICES (sizeof(matrices) / sizeof(*matrices))
#define N_VECTORS  (sizeof(vectors) / sizeof(*vectors))

static void check_missing(const char *name)
{
    struct model_shape shape = shape_small();
    _cleanup_file_ struct file f = file_new(&shape);
    uint8_t *record = find(&f, name);

    record[-1] = '_';
    assert_says(&f, name, "missing");
}

static void a_missing_tensor_is_named(void **state)
{
    struct fault fault;
    struct model_shape shape = shape_small();
    _cleanup_file_ struct file f = file_new(&shape);

    for (size_t i = 0; i < N_MATRICES; i++)
        if (strcmp(matrices[i], "output.weight") != 0)
            check_missing(matrices[i]);
    for (size_t i = 0; i < N_VECTORS; i++)
        check_missing(vectors[i]);
    /* Without its own output a model is tied to the embedding. */
    find(&f, "output.weight")[-1] = '_';
    assert_int_equal(open_file(&f, &fault), 0);
}

/* One row less, and half of each row: both still lie inside the file. */
static void a_tensor_of_another_shape_is_named(void **state)
{
    for (size_t i = 0; i < N_MATRICES; i++) {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = file_new(&shape);
        uint8_t *record = find(&f, matrices[i]);
        bool embedding = i == 0;
        uint64_t dims[2];

        memcpy(dims, record + 4, sizeof(dims));
        dims[1]--;
        memcpy(record + 4, dims, sizeof(dims));
        /* The embedding's rows are the vocabulary: then it is the output that does not fit. */
        assert_says(&f, embedding ? "output.weight" : matrices[i], "expected");
        dims[1]++;
        dims[0] /= 2;
        memcpy(record + 4, dims, sizeof(dims));
        assert_says(&f, matrices[i], "expected");
    }
    for (size_t i = 0; i < N_VECTORS; i++) {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = file_new(&shape);

        find(&f, vectors[i])[4]--;
        assert_says(&f, vectors[i], "expected 64");
    }
}

static void a_tensor_of_another_type_is_named(void **state)
{
    static const uint32_t bad[] = {TENSOR_I32, TENSOR_I8, TENSOR_I16};
    static const char *const names[] = {"i32", "i8", "i16"};
    static const uint32_t f16 = TENSOR_F16;

    for (size_t i = 0; i < N_MATRICES; i++) {
        for (size_t k = 0; k < 3; k++) {
            struct model_shape shape = shape_small();
            _cleanup_file_ struct file f = file_new(&shape);

            memcpy(find(&f, matrices[i]) + 4 + 2 * 8, &bad[k], 4);
            assert_says(&f, matrices[i], names[k]);
        }
    }
    for (size_t i = 0; i < N_VECTORS; i++) {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = file_new(&shape);

        memcpy(find(&f, vectors[i]) + 4 + 8, &f16, 4);
        assert_says(&f, vectors[i], "expected f32");
    }
}

static void a_missing_key_is_named(void **state)
{
    static const char *const keys[] = {"block_count",          "embedding_length",
                                       "context_length",       "feed_forward_length",
                                       "attention.head_count", "attention.layer_norm_rms_epsilon"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = file_new(&shape);
        char full[128];

        snprintf(full, sizeof(full), "llama.%s", keys[i]);
        find(&f, full)[-1] = '_';
        assert_says(&f, full, "missing");
    }
}

struct bad_key {
    const char *key;
    uint32_t value; /* as bits */
    const char *first, *second;
};

static void check_keys(const struct model_shape *shape, const struct bad_key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        _cleanup_file_ struct file f = file_new(shape);

        memcpy(find(&f, keys[i].key) + 4, &keys[i].value, 4);
        assert_says(&f, keys[i].first, keys[i].second);
    }
}

static void numbers_that_no_model_has_are_named(void **state)
{
    static const struct bad_key keys[] = {
        {"llama.block_count", 0, "llama.block_count is 0", "expected 1 to"},
        {"llama.block_count", 3, "blk.2.", "missing"},
        {"llama.block_count", UINT32_MAX, "llama.block_count", "expected 1 to"},
        {"llama.embedding_length", 0, "llama.embedding_length is 0", "expected 1 to"},
        {"llama.embedding_length", 1u << 31, "llama.embedding_length is 2147483648", "expected 1 to"},
        {"llama.embedding_length", 65, "token_embd.weight", "expected 65"},
        {"llama.context_length", 0, "llama.context_length is 0", "expected 1 to"},
        {"llama.context_length", UINT32_MAX, "llama.context_length", "expected 1 to"},
        {"llama.feed_forward_length", 0, "llama.feed_forward_length is 0", "expected 1 to"},
        {"llama.feed_forward_length", UINT32_MAX, "llama.feed_forward_length", "expected 1 to"},
        {"llama.feed_forward_length", 97, "ffn_gate.weight", "x 97"},
        {"llama.attention.head_count", 0, "llama.attention.head_count is 0", "expected 1 to"},
        {"llama.attention.head_count", 3, "llama.attention.head_count is 3", "multiple"},
        {"llama.attention.head_count", 1u << 31, "llama.attention.head_count", "expected 1 to"},
        {"llama.attention.head_count", 8, "attn_q.weight", "x 128"},
        {"llama.attention.head_count_kv", 0, "llama.attention.head_count_kv is 0", "expected 1 to"},
        {"llama.attention.head_count_kv", 3, "llama.attention.head_count", "multiple"},
        {"llama.attention.head_count_kv", 4, "attn_k.weight", "x 64"},
        {"llama.attention.key_length", 0, "llama.attention.key_length is 0", "expected 1 to"},
        {"llama.attention.key_length", UINT32_MAX, "llama.attention.key_length", "expected 1 to"},
        {"llama.attention.value_length", 0, "llama.attention.value_length is 0", "expected 1 to"},
        {"llama.attention.value_length", 17, "attn_v.weight", "x 34"},
        {"llama.rope.dimension_count", 0, "llama.rope.dimension_count is 0", "expected 2 to 16"},
        {"llama.rope.dimension_count", 18, "llama.rope.dimension_count is 18", "expected 2 to 16"},
        {"llama.rope.dimension_count", 7, "llama.rope.dimension_count is 7", "even"},
    };
    struct model_shape shape = shape_small();

    check_keys(&shape, keys, sizeof(keys) / sizeof(*keys));
}

#define F32_ONE       0x3F800000u
#define F32_MINUS_ONE 0xBF800000u
#define F32_NAN       0x7FC00000u
#define F32_INFINITY  0x7F800000u

static void floats_that_make_no_sense_are_named(void **state)
{
    static const struct bad_key keys[] = {
        {"llama.attention.layer_norm_rms_epsilon", F32_MINUS_ONE,
         "llama.attention.layer_norm_rms_epsilon is -1", "expected 0 to 1"},
        {"llama.attention.layer_norm_rms_epsilon", F32_NAN, "llama.attention.layer_norm_rms_epsilon",
         "finite"},
        {"llama.attention.layer_norm_rms_epsilon", F32_INFINITY, "llama.attention.layer_norm_rms_epsilon",
         "finite"},
        {"llama.rope.freq_base", 0, "llama.rope.freq_base is 0", "expected"},
        {"llama.rope.freq_base", F32_ONE, "llama.rope.freq_base is 1", "expected"},
        {"llama.rope.freq_base", F32_MINUS_ONE, "llama.rope.freq_base is -1", "expected"},
        {"llama.rope.freq_base", F32_NAN, "llama.rope.freq_base", "finite"},
        {"llama.rope.scaling.factor", F32_NAN, "llama.rope.scaling.factor", "finite"},
        {"llama.rope.scaling.factor", F32_MINUS_ONE, "llama.rope.scaling.factor is -1", "expected"},
        {"llama.rope.scaling.original_context_length", 0, "llama.rope.scaling.original_context_length is 0",
         "expected 1 to"},
    };
    struct model_shape shape = shape_small();
    _cleanup_file_ struct file f = {};

    shape.rope_scaling = "yarn";
    check_keys(&shape, keys, sizeof(keys) / sizeof(*keys));
    f = file_new(&shape);
    memcpy(find(&f, "llama.rope.scaling.type") + 4 + 8, "yawn", 4);
    assert_says(&f, "llama.rope.scaling.type is \"yawn\"", "yarn");
}

/* Every key of the architecture as a float, or a string, where a number is due and the other way round. */
static void keys_of_another_type_are_named(void **state)
{
    static const char *const integers[] = {"llama.block_count", "llama.embedding_length",
                                           "llama.attention.head_count", "llama.rope.dimension_count"};
    static const uint32_t f32 = GGUF_F32, u32 = GGUF_U32;

    for (size_t i = 0; i < sizeof(integers) / sizeof(*integers); i++) {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = file_new(&shape);

        memcpy(find(&f, integers[i]), &f32, 4);
        assert_says(&f, integers[i], "f32");
    }
    {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = file_new(&shape);

        memcpy(find(&f, "llama.attention.layer_norm_rms_epsilon"), &u32, 4);
        assert_says(&f, "llama.attention.layer_norm_rms_epsilon", "u32");
    }
}

static void an_unknown_architecture_is_named(void **state)
{
    struct model_shape shape = shape_small();
    _cleanup_file_ struct file f = file_new(&shape);

    memcpy(find(&f, "general.architecture") + 4 + 8, "llamb", 5);
    assert_says(&f, "\"llamb\"", "llama");
    memcpy(find(&f, "general.architecture") + 4 + 8, "\x1b[2Jm", 5);
    assert_says(&f, "?[2Jm", "not supported");
    find(&f, "general.architecture")[-1] = '_';
    assert_says(&f, "general.architecture", "missing");
}

static void a_vocabulary_of_another_size_is_named(void **state)
{
    struct model_shape shape = shape_small();
    _cleanup_file_ struct file f = {};

    shape.tokenizer = "llama";
    shape.tied = true;
    f = file_new(&shape);
    find(&f, "token_embd.weight")[4 + 8]--;
    assert_says(&f, "tokenizer.ggml.tokens has 400", "token_embd.weight has 399");
}

static void factors_of_rope_give_angles(void **state)
{
    static const struct {
        float factor;
        const char *first, *second;
    } cases[] = {
        {0, "rope_freqs.weight is 0", "positive"},       {-1, "rope_freqs.weight is -1", "positive"},
        {NAN, "rope_freqs.weight is", "positive"},       {INFINITY, "rope_freqs.weight is inf", "positive"},
        {1e-30f, "pair 5 turns by", "expected at most"}, {1e-45f, "rope_freqs.weight", "expected at most"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct model_shape shape = shape_small();
        _cleanup_file_ struct file f = {};

        shape.rope_scaling = "llama3";
        f = file_new(&shape);
        /* The last tensor of the file: 8 floats. */
        memcpy(f.bytes + f.n - 8 * sizeof(float) + 5 * sizeof(float), &cases[i].factor, sizeof(float));
        assert_says(&f, cases[i].first, cases[i].second);
    }
}

static void a_tiny_scaling_factor_is_refused(void **state)
{
    static const struct bad_key keys[] = {
        {"llama.rope.scaling.factor", 1, "turns by", "expected at most"},
        {"llama.rope.scaling.factor", 0x0DA24260u, "turns by", "expected at most"}, /* 1e-30 */
    };
    struct model_shape shape = shape_small();

    shape.rope_scaling = "linear";
    check_keys(&shape, keys, 2);
    shape.rope_scaling = "yarn";
    check_keys(&shape, keys, 2);
}

/* Weights may hold anything: a model of NaN and infinities computes nonsense, and ends. */
static void weights_of_any_value_compute(void **state)
{
    struct model_shape shape = shape_small();

    for (uint32_t type = 0; type < 2; type++) {
        _cleanup_file_ struct file f = {};
        struct fault fault;

        shape.type = type ? TENSOR_Q8_0 : TENSOR_F32;
        shape.ff = 128;
        f = file_new(&shape);
        memset(f.bytes + f.n / 2, 0xFF, f.n / 4);
        assert_int_equal(open_file(&f, &fault), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_tensor_of_another_shape_is_named),
        cmocka_unit_test(a_tensor_of_another_type_is_named),
        cmocka_unit_test(a_missing_key_is_named),
        cmocka_unit_test(numbers_that_no_model_has_are_named),
        cmocka_unit_test(floats_that_make_no_sense_are_named),
        cmocka_unit_test(keys_of_another_type_are_named),
        cmocka_unit_test(an_unknown_architecture_is_named),
        cmocka_unit_test(a_vocabulary_of_another_size_is_named),
        cmocka_unit_test(factors_of_rope_give_angles),
        cmocka_unit_test(a_tiny_scaling_factor_is_refused),
        cmocka_unit_test(weights_of_any_value_compute),
    };

    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
