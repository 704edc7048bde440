/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory of a model: what the writer wrote is read back, and whatever a file can get wrong is refused at the
 * right offset. Files lie in buffers of exactly their size, so that a sanitizer sees every byte read too far.
 */
#include "engine/gguf/read.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/gguf/limits.h"
#include "tests/model-writer/model_writer.h"
#include "tests/model-writer/random_blocks.h"

static int read_bytes(const uint8_t *bytes, size_t n, struct gguf **ret, struct fault *fault)
{
    struct gguf_part part = {.data = bytes, .n_bytes = n};

    return gguf_read(&part, 1, ret, fault);
}

static void expect_bytes_refused(const uint8_t *bytes, size_t n, int64_t offset, const char *reason)
{
    struct gguf *g = NULL;
    struct fault fault = {0};

    assert_int_equal(read_bytes(bytes, n, &g, &fault), -EINVAL);
    assert_null(g);
    assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
    if (!strstr(fault.reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", fault.reason, reason);
    assert_int_equal(fault.offset, offset);
}

static void expect_refused(struct model_writer *w_take, int64_t offset, const char *reason)
{
    size_t n;
    uint8_t *bytes = model_writer_bytes(w_take, &n), *exact = malloc(n);

    assert_non_null(exact);
    memcpy(exact, bytes, n);
    expect_bytes_refused(exact, n, offset, reason);
    free(exact);
    free(bytes);
    model_writer_free(w_take);
}

static struct gguf *expect_read(const uint8_t *bytes, size_t n)
{
    struct gguf *g = NULL;
    struct fault fault = {0};

    if (read_bytes(bytes, n, &g, &fault) < 0)
        fail_msg("%s (offset %ld)", fault.reason, (long)fault.offset);
    return g;
}

static void expect_accepted(struct model_writer *w_take)
{
    size_t n;
    uint8_t *bytes = model_writer_bytes(w_take, &n);

    gguf_free(expect_read(bytes, n));
    free(bytes);
    model_writer_free(w_take);
}

/* A key of each type, arrays, and two tensors. */
static struct model_writer *sample(void)
{
    static const float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const char *const strings[] = {"one", "", "three"};
    static const int16_t numbers[] = {-1, 0, 300};
    struct model_writer *w = model_writer_new();

    model_writer_string(w, "general.architecture", "llama");
    model_writer_u32(w, "a.u32", 4000000000u);
    model_writer_i32(w, "a.i32", -7);
    model_writer_u64(w, "a.u64", UINT64_MAX);
    model_writer_f32(w, "a.f32", 0.5f);
    model_writer_bool(w, "a.bool", true);
    model_writer_u16(w, "a.u16", 65535);
    model_writer_strings(w, "a.strings", strings, 3);
    model_writer_array(w, "a.numbers", GGUF_I16, numbers, 3, sizeof(numbers));
    model_writer_array(w, "a.floats", GGUF_F32, values, 8, sizeof(values));
    model_writer_tensor(w, "first", TENSOR_F32, 2, (uint64_t[]){4, 2}, values, sizeof(values));
    model_writer_tensor_random(w, "second", TENSOR_Q4_0, 1, (uint64_t[]){64}, 1, 1);
    return w;
}

static void reads_what_was_written(void **state)
{
    struct model_writer *w = sample();
    size_t n;
    uint8_t *bytes = model_writer_bytes(w, &n);
    struct gguf *g = expect_read(bytes, n);
    const struct gguf_tensor *t;

    assert_int_equal(gguf_version(g), 3);
    assert_int_equal(gguf_n_parts(g), 1);
    assert_int_equal(gguf_alignment(g), 32);
    assert_int_equal(gguf_n_keys(g), 10);
    assert_string_equal(gguf_key(g, 1)->name, "a.u32");
    assert_int_equal(gguf_key(g, 7)->type, GGUF_ARRAY);
    assert_int_equal(gguf_key(g, 7)->element_type, GGUF_STRING);
    assert_int_equal(gguf_key(g, 7)->n, 3);
    assert_int_equal(gguf_n_tensors(g), 2);

    t = gguf_find_tensor(g, "first");
    assert_ptr_equal(t, gguf_tensor(g, 0));
    assert_int_equal(t->type, TENSOR_F32);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 4);
    assert_int_equal(t->dims[1], 2);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->row_bytes, 16);
    assert_int_equal(t->n_rows, 2);
    assert_int_equal(t->n_bytes, 32);
    assert_int_equal(t->offset % 32, 0);
    assert_ptr_equal(t->data, bytes + t->offset);
    assert_true(((const float *)t->data)[7] == 8.0f);

    t = gguf_find_tensor(g, "second");
    assert_int_equal(t->n_bytes, 36);
    assert_int_equal(t->offset, gguf_tensor(g, 0)->offset + 32);
    assert_null(gguf_find_tensor(g, "third"));
    assert_null(gguf_find_tensor(g, ""));
    gguf_free(g);
    free(bytes);
    model_writer_free(w);
}

static void metadata_survive_a_change_of_the_file(void **state)
{
    struct model_writer *w = sample();
    size_t n;
    uint8_t *bytes = model_writer_bytes(w, &n);
    struct gguf *g = expect_read(bytes, n);
    struct gguf_string s;

    memset(bytes, 0xFF, n);
    assert_int_equal(gguf_get_string(g, "general.architecture", &s, NULL), 0);
    assert_int_equal(s.n_bytes, 5);
    assert_memory_equal(s.data, "llama", 5);
    assert_string_equal(gguf_tensor(g, 1)->name, "second");
    gguf_free(g);
    free(bytes);
    model_writer_free(w);
}

static void refuses_other_versions_by_number(void **state)
{
    static const struct {
        uint32_t version;
        const char *reason;
    } cases[] = {
        {0, "GGUF version 0 found; versions 2 and 3 are read"},
        {1, "GGUF version 1 found; versions 2 and 3 are read"},
        {4, "GGUF version 4 found; versions 2 and 3 are read"},
        {0x02000000, "big-endian file of GGUF version 2; little-endian files of versions 2 and 3 are read"},
        {0x03000000, "big-endian file of GGUF version 3; little-endian files of versions 2 and 3 are read"},
    };
    struct model_writer *w;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        w = sample();
        model_writer_version(w, cases[i].version);
        expect_refused(w, 4, cases[i].reason);
    }
    w = sample();
    model_writer_version(w, 2);
    expect_accepted(w);
}

static void refuses_what_is_no_gguf(void **state)
{
    expect_bytes_refused((const uint8_t *)"GGML\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, 0,
                         "not a GGUF file: it begins with the bytes 47 47 4d 4c");
    expect_bytes_refused((const uint8_t *)"", 0, 0, "the file ends at 0 bytes, inside the magic number");
    /* The least that is one: no keys, no tensors. */
    gguf_free(expect_read((const uint8_t *)"GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24));
}

static void refuses_a_file_cut_at_any_byte(void **state)
{
    struct model_writer *w = sample();
    size_t n;
    uint8_t *bytes = model_writer_bytes(w, &n);
    struct gguf *g = expect_read(bytes, n);
    const struct gguf_tensor *last = gguf_tensor(g, 1);
    size_t end = last->offset + last->n_bytes;

    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1);
        struct gguf *none = NULL;
        struct fault fault = {0};

        assert_non_null(exact);
        memcpy(exact, bytes, cut);
        if (cut < end) {
            assert_int_equal(read_bytes(exact, cut, &none, &fault), -EINVAL);
            assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
            assert_in_range(fault.offset, 0, cut);
        } else {
            /* Only padding is missing, which many writers leave out. */
            gguf_free(expect_read(exact, cut));
        }
        free(exact);
    }
    gguf_free(g);
    free(bytes);
    model_writer_free(w);
}

static void refuses_counts_beyond_the_file(void **state)
{
    static const uint64_t counts[] = {100, 70000, 1ull << 31, 1ull << 32, 1ull << 60, INT64_MAX, UINT64_MAX};

    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        struct model_writer *w = sample();
        size_t n;
        uint8_t *bytes = model_writer_bytes(w, &n);

        memcpy(bytes + 8, &counts[i], 8);
        expect_bytes_refused(bytes, n, 8, "the number of tensors is");
        free(bytes);
        bytes = model_writer_bytes(w, &n);
        memcpy(bytes + 16, &counts[i], 8);
        expect_bytes_refused(bytes, n, 16, "the number of keys is");
        free(bytes);
        model_writer_free(w);
    }
}

static void checks_the_alignment(void **state)
{
    static const uint32_t bad[] = {0, 1, 3, 4, 24, 33, 1u << 22, 1u << 31, UINT32_MAX};
    static const uint32_t good[] = {8, 32, 64, 4096, 2u << 20};
    struct model_writer *w;
    uint64_t at, wide = 32;
    float real = 32;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        w = model_writer_new();
        at = model_writer_u32(w, "general.alignment", bad[i]);
        expect_refused(w, (int64_t)at, "it has to be a power of two from 8 to 2097152");
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        w = model_writer_new();
        model_writer_u32(w, "general.alignment", good[i]);
        model_writer_align(w, good[i]);
        model_writer_tensor_random(w, "one", TENSOR_F32, 1, (uint64_t[]){3}, 1, 1);
        model_writer_tensor_random(w, "two", TENSOR_F32, 1, (uint64_t[]){3}, 1, 1);
        expect_accepted(w);
    }
    w = model_writer_new();
    at = model_writer_string(w, "general.alignment", "32");
    expect_refused(w, (int64_t)at, "general.alignment is of type string, it has to be u32");
    w = model_writer_new();
    at = model_writer_key(w, "general.alignment", GGUF_U64, &wide, 8);
    expect_refused(w, (int64_t)at, "general.alignment is of type u64");
    w = model_writer_new();
    at = model_writer_key(w, "general.alignment", GGUF_F32, &real, 4);
    expect_refused(w, (int64_t)at, "general.alignment is of type f32");
    w = model_writer_new();
    at = model_writer_array(w, "general.alignment", GGUF_U32, &wide, 1, 4);
    expect_refused(w, (int64_t)at, "general.alignment is of type array");
}

static void refuses_double_names(void **state)
{
    struct model_writer *w = model_writer_new();
    uint64_t at;

    model_writer_u32(w, "twice", 1);
    model_writer_u32(w, "other", 1);
    at = model_writer_string(w, "twice", "x");
    expect_refused(w, (int64_t)at, "key twice is there twice, before with its value at offset 41");

    w = model_writer_new();
    model_writer_tensor_random(w, "twice", TENSOR_F32, 1, (uint64_t[]){8}, 1, 1);
    model_writer_tensor_random(w, "twice", TENSOR_F32, 1, (uint64_t[]){8}, 1, 1);
    expect_refused(w, 24 + 37, "tensor twice is there twice, before in part 1 at offset 24");
}

static void refuses_bad_names(void **state)
{
    static const struct {
        const char *name;
        int64_t offset;
        const char *reason;
    } cases[] = {
        {"", 24, "the name of a key is 0 bytes long, 1 to 65535 are allowed"},
        {"a\nb", 24 + 8 + 1, "the name of a key holds the control character 0x0a"},
        {"ab\xC0\x80", 24 + 8 + 2, "the name of a key is not UTF-8"},
        {"\x7F", 24 + 8, "holds the control character 0x7f"},
    };
    char *longest = malloc(GGUF_KEY_BYTES_MAX + 2);
    char name[GGUF_TENSOR_NAME_BYTES_MAX + 2];
    struct model_writer *w;
    uint64_t at;
    size_t n;
    uint8_t *bytes;

    assert_non_null(longest);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        w = model_writer_new();
        model_writer_u32(w, cases[i].name, 1);
        expect_refused(w, cases[i].offset, cases[i].reason);
    }
    /* A name with a NUL inside must not pass for the shorter one. */
    w = model_writer_new();
    model_writer_u32(w, "general.alignmentX", 3);
    bytes = model_writer_bytes(w, &n);
    bytes[24 + 8 + 17] = 0;
    expect_bytes_refused(bytes, n, 24 + 8 + 17, "holds the control character 0x00");
    free(bytes);
    model_writer_free(w);

    memset(longest, 'k', GGUF_KEY_BYTES_MAX + 1);
    longest[GGUF_KEY_BYTES_MAX + 1] = 0;
    w = model_writer_new();
    model_writer_u32(w, longest, 1);
    expect_refused(w, 24, "the name of a key is 65536 bytes long, 1 to 65535 are allowed");
    longest[GGUF_KEY_BYTES_MAX] = 0;
    w = model_writer_new();
    model_writer_u32(w, longest, 1);
    expect_accepted(w);
    free(longest);

    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = 0;
    w = model_writer_new();
    at = model_writer_tensor_random(w, name, TENSOR_F32, 1, (uint64_t[]){8}, 1, 1);
    expect_refused(w, (int64_t)at, "the name of a tensor is 65 bytes long, 1 to 64 are allowed");
    name[sizeof(name) - 2] = 0;
    w = model_writer_new();
    model_writer_tensor_random(w, name, TENSOR_F32, 1, (uint64_t[]){8}, 1, 1);
    expect_accepted(w);
}

static void refuses_bad_values(void **state)
{
    static const uint64_t lengths[] = {1ull << 32, 1ull << 61, (1ull << 62) + 1, UINT64_MAX, UINT64_MAX - 7};
    struct {
        uint32_t type;
        uint64_t n;
    } __attribute__((packed)) inner = {GGUF_U8, 0};
    uint8_t two = 2, flags[] = {1, 0, 7};
    struct model_writer *w;
    uint64_t at;

    w = model_writer_new();
    at = model_writer_key(w, "key", 13, "", 0);
    model_writer_string(w, "more", "more");
    expect_refused(w, (int64_t)at - 4, "key key has a value of the unknown type 13");
    w = model_writer_new();
    at = model_writer_key(w, "key", GGUF_BOOL, &two, 1);
    expect_refused(w, (int64_t)at, "key key holds the boolean 2, neither 0 nor 1");
    w = model_writer_new();
    at = model_writer_array(w, "key", GGUF_BOOL, flags, 3, 3);
    expect_refused(w, (int64_t)at + 2, "key key holds the boolean 7");
    w = model_writer_new();
    at = model_writer_array(w, "key", GGUF_ARRAY, &inner, 1, sizeof(inner));
    expect_refused(w, (int64_t)at - 12, "key key is an array of arrays, which is not read");
    w = model_writer_new();
    at = model_writer_array(w, "key", 77, flags, 3, 3);
    expect_refused(w, (int64_t)at - 12, "key key is an array of values of the unknown type 77");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        w = model_writer_new();
        at = model_writer_array(w, "key", GGUF_U32, flags, lengths[i], 3);
        expect_refused(w, (int64_t)at - 8, "values of type u32, more than the 3 bytes that are left can hold");
        w = model_writer_new();
        at = model_writer_array(w, "key", GGUF_STRING, "\0\0\0\0\0\0\0\0", lengths[i], 8);
        expect_refused(w, (int64_t)at - 8, "strings, more than the 8 bytes that are left can hold");
        w = model_writer_new();
        at = model_writer_key(w, "key", GGUF_STRING, &lengths[i], 8);
        expect_refused(w, (int64_t)at, "string 0 of key key is");
    }
}

static void refuses_bad_dimensions(void **state)
{
    static const uint64_t big = 1ull << 32;
    struct model_writer *w = model_writer_new();
    uint64_t at;

    /* Offsets within a record: name 8 + 1, number of dimensions 4, dimensions, type 4, offset 8. */
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 0, NULL, 0);
    model_writer_tensor_at(w, "u", TENSOR_F32, 1, (uint64_t[]){1}, 0);
    expect_refused(w, (int64_t)at + 9, "tensor t has 0 dimensions, 1 to 4 are allowed");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0);
    expect_refused(w, (int64_t)at + 9, "tensor t has 5 dimensions");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 3, (uint64_t[]){4, 0, 4}, 0);
    expect_refused(w, (int64_t)at + 13 + 8, "dimension 1 of tensor t is 0");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 2, (uint64_t[]){big, big}, 0);
    expect_refused(w, (int64_t)at + 13, "the dimensions of tensor t multiply to more than 2^64");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 4, (uint64_t[]){32, big, big, 1}, 0);
    expect_refused(w, (int64_t)at + 13, "the dimensions of tensor t multiply to more than 2^64");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_I8, 2, (uint64_t[]){big, big / 2}, 0);
    expect_refused(w, (int64_t)at + 13, "tensor t has 9223372036854775808 values, more than 2^63");
    /* The number of values fits, their bytes do not. */
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 2, (uint64_t[]){big, big / 4}, 0);
    expect_refused(w, (int64_t)at + 13, "the size of tensor t does not fit into 63 bits");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F64, 1, (uint64_t[]){(1ull << 61) + 1}, 0);
    expect_refused(w, (int64_t)at + 13, "the size of tensor t does not fit into 63 bits");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_Q4_K, 2, (uint64_t[]){128, 2}, 0);
    expect_refused(w, (int64_t)at + 13, "rows of tensor t have 128 values, which is no multiple of the 256 in a block of "
                                        "type q4_k");
}

static void refuses_unknown_tensor_types(void **state)
{
    static const uint32_t types[] = {4, 5, 9, 15, 31, 36, 40, 1000, UINT32_MAX};

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        struct model_writer *w = model_writer_new();
        uint64_t at = model_writer_tensor_at(w, "t", types[i], 1, (uint64_t[]){256}, 0);

        expect_refused(w, (int64_t)at + 21, "tensor t has the unknown type");
    }
}

static void refuses_tensors_outside_the_file(void **state)
{
    static const uint64_t dims[] = {8};
    static const uint64_t offsets[] = {32, 64, 1ull << 40, 1ull << 62, UINT64_MAX - 255};
    struct model_writer *w;
    uint64_t at;

    for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
        w = model_writer_new();
        model_writer_tensor_random(w, "inside", TENSOR_F32, 1, dims, 1, 1);
        at = model_writer_tensor_at(w, "outside", TENSOR_F32, 1, dims, offsets[i]);
        expect_refused(w, (int64_t)at, "tensor outside would take the bytes");
    }
    /* Sums that wrap: the start of the data plus the offset, and the start of the tensor plus its size. */
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_F32, 1, dims, UINT64_MAX - 31);
    expect_refused(w, (int64_t)at, "the end of tensor t lies beyond 2^64");
    w = model_writer_new();
    model_writer_tensor_random(w, "inside", TENSOR_F32, 1, dims, 1, 1);
    at = model_writer_tensor_at(w, "t", TENSOR_I8, 1, (uint64_t[]){INT64_MAX - 31}, 1ull << 62);
    expect_refused(w, (int64_t)at, "tensor t would take the bytes");
    w = model_writer_new();
    at = model_writer_tensor_at(w, "t", TENSOR_I8, 1, (uint64_t[]){INT64_MAX - 31}, (1ull << 63) + 32);
    expect_refused(w, (int64_t)at, "the end of tensor t lies beyond 2^64");
}

/* A known hole of readers that add up padded sizes: 2^63 twice is 0, and the data section seems to need no bytes. */
static void refuses_sizes_whose_sum_wraps(void **state)
{
    struct model_writer *w = model_writer_new();
    uint64_t at = model_writer_tensor_at(w, "a", TENSOR_I8, 1, (uint64_t[]){INT64_MAX}, 0);

    model_writer_tensor_at(w, "b", TENSOR_I8, 1, (uint64_t[]){INT64_MAX}, 1ull << 63);
    expect_refused(w, (int64_t)at, "tensor a would take the bytes");
}

static void refuses_unaligned_and_overlapping_tensors(void **state)
{
    static const uint64_t dims[] = {16};
    struct model_writer *w = model_writer_new();
    uint64_t at;

    model_writer_tensor_random(w, "a", TENSOR_F32, 1, dims, 1, 1);
    at = model_writer_tensor_at(w, "b", TENSOR_F32, 1, (uint64_t[]){4}, 48);
    expect_refused(w, (int64_t)at + 25, "the offset of tensor b, 48, is no multiple of the alignment 32");
    w = model_writer_new();
    model_writer_tensor_random(w, "a", TENSOR_F32, 1, dims, 1, 1);
    at = model_writer_tensor_at(w, "b", TENSOR_F32, 1, (uint64_t[]){8}, 32);
    expect_refused(w, (int64_t)at, "tensor b at 128 overlaps tensor a, whose 64 bytes begin at 96");
    w = model_writer_new();
    model_writer_tensor_random(w, "a", TENSOR_F32, 1, dims, 1, 1);
    at = model_writer_tensor_at(w, "b", TENSOR_F32, 1, dims, 0);
    expect_refused(w, (int64_t)at, "overlaps tensor a");
}

static void takes_tensors_in_any_order_and_with_gaps(void **state)
{
    struct model_writer *w = model_writer_new();
    size_t n;
    uint8_t *bytes;
    struct gguf *g;

    model_writer_tensor_at(w, "late", TENSOR_F32, 1, (uint64_t[]){8}, 256);
    model_writer_tensor_at(w, "early", TENSOR_F32, 1, (uint64_t[]){8}, 0);
    model_writer_tensor_random(w, "big", TENSOR_F32, 1, (uint64_t[]){128}, 1, 1);
    bytes = model_writer_bytes(w, &n);
    expect_bytes_refused(bytes, n, 24 + 36 + 37, "tensor big at 160 overlaps tensor early, whose 32 bytes begin at 160");
    free(bytes);
    model_writer_free(w);

    w = model_writer_new();
    model_writer_tensor_at(w, "late", TENSOR_F32, 1, (uint64_t[]){8}, 64);
    model_writer_tensor_random(w, "early", TENSOR_F32, 1, (uint64_t[]){8}, 1, 1);
    bytes = model_writer_bytes(w, &n);
    bytes = realloc(bytes, n + 64);
    assert_non_null(bytes);
    g = expect_read(bytes, n + 64);
    assert_int_equal(gguf_find_tensor(g, "late")->offset, gguf_find_tensor(g, "early")->offset + 64);
    gguf_free(g);
    free(bytes);
    model_writer_free(w);
}

/* Reads whatever comes out of an accepted directory, as a user of it would. */
static void touch_everything(const struct gguf *g)
{
    volatile uint8_t sum = 0;

    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        sum = (uint8_t)(sum + *(const uint8_t *)t->data + ((const uint8_t *)t->data)[t->n_bytes - 1]);
        assert_ptr_equal(gguf_find_tensor(g, t->name), t);
    }
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        const struct gguf_key *key = gguf_key(g, i);
        struct gguf_array a;
        struct gguf_string s;

        assert_ptr_equal(gguf_find_key(g, key->name), key);
        if (gguf_get_array(g, key->name, GGUF_STRING, &a, NULL) == 0) {
            for (uint64_t k = 0; k < a.n; k++) {
                s = gguf_array_string(&a, k);
                sum = (uint8_t)(sum + (s.n_bytes ? s.data[s.n_bytes - 1] : 0));
            }
        }
        if (gguf_get_array(g, key->name, GGUF_I32, &a, NULL) == 0 && a.n > 0)
            sum = (uint8_t)(sum + gguf_array_i32(&a, a.n - 1));
        if (gguf_get_string(g, key->name, &s, NULL) == 0 && s.n_bytes > 0)
            sum = (uint8_t)(sum + s.data[s.n_bytes - 1]);
    }
}

static void survives_any_changed_byte(void **state)
{
    struct model_writer *w = sample();
    uint64_t random = 7;
    size_t n, n_read = 0;
    uint8_t *bytes = model_writer_bytes(w, &n), *changed = malloc(n);

    assert_non_null(changed);
    for (size_t i = 0; i < 20 * n; i++) {
        struct gguf *g = NULL;
        struct fault fault = {0};
        uint64_t bits = random_next(&random);
        int r;

        memcpy(changed, bytes, n);
        changed[i % n] = (uint8_t)bits;
        if (bits >> 63)
            changed[(bits >> 8) % n] = (uint8_t)(bits >> 40);
        r = read_bytes(changed, n, &g, &fault);
        if (r == 0) {
            n_read++;
            touch_everything(g);
        } else {
            assert_int_equal(r, -EINVAL);
            assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
        }
        gguf_free(g);
    }
    /* Changes of values and data are none of the reader's business. */
    assert_true(n_read > n);
    free(changed);
    free(bytes);
    model_writer_free(w);
}

/* Another process may write the file while it is read; here another thread does. */
struct writer {
    uint8_t *bytes;
    size_t n;
    atomic_bool stop;
};

static void *write_over(void *argument)
{
    struct writer *w = argument;
    uint64_t random = 13;

    while (!atomic_load(&w->stop)) {
        uint64_t bits = random_next(&random);
        volatile uint8_t *at = w->bytes + bits % w->n;
        uint8_t before = *at;

        *at = (uint8_t)(bits >> 32);
        *at = before;
    }
    return NULL;
}

static void survives_a_file_that_changes_meanwhile(void **state)
{
    struct model_writer *w = sample();
    struct writer writer = {0};
    pthread_t thread;

    writer.bytes = model_writer_bytes(w, &writer.n);
    assert_int_equal(pthread_create(&thread, NULL, write_over, &writer), 0);
    for (int i = 0; i < 3000; i++) {
        struct gguf *g = NULL;
        struct fault fault = {0};

        if (read_bytes(writer.bytes, writer.n, &g, &fault) == 0)
            touch_everything(g);
        else
            assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
        gguf_free(g);
    }
    atomic_store(&writer.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    free(writer.bytes);
    model_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(metadata_survive_a_change_of_the_file),
        cmocka_unit_test(refuses_other_versions_by_number),
        cmocka_unit_test(refuses_what_is_no_gguf),
        cmocka_unit_test(refuses_a_file_cut_at_any_byte),
        cmocka_unit_test(refuses_counts_beyond_the_file),
        cmocka_unit_test(checks_the_alignment),
        cmocka_unit_test(refuses_double_names),
        cmocka_unit_test(refuses_bad_names),
        cmocka_unit_test(refuses_bad_values),
        cmocka_unit_test(refuses_bad_dimensions),
        cmocka_unit_test(refuses_unknown_tensor_types),
        cmocka_unit_test(refuses_tensors_outside_the_file),
        cmocka_unit_test(refuses_sizes_whose_sum_wraps),
        cmocka_unit_test(refuses_unaligned_and_overlapping_tensors),
        cmocka_unit_test(takes_tensors_in_any_order_and_with_gaps),
        cmocka_unit_test(survives_any_changed_byte),
        cmocka_unit_test(survives_a_file_that_changes_meanwhile),
    };

    return cmocka_run_group_tests_name("gguf/read", tests, NULL, NULL);
}
