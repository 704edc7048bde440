/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/gguf/read.h"
#include "tests/model-writer/model_writer.h"

static struct gguf *take(struct model_writer *w_take, uint8_t **ret_bytes)
{
    struct gguf_part part;
    struct gguf *g = NULL;
    struct fault fault = {0};
    size_t n;

    *ret_bytes = model_writer_bytes(w_take, &n);
    part = (struct gguf_part){.data = *ret_bytes, .n_bytes = n};
    if (gguf_read(&part, 1, &g, &fault) < 0)
        fail_msg("%s", fault.reason);
    model_writer_free(w_take);
    return g;
}

static void integers_of_any_width_are_read_if_they_fit(void **state)
{
    struct model_writer *w = model_writer_new();
    int8_t i8 = -5;
    int64_t i64 = INT64_MIN;
    uint8_t *bytes;
    uint64_t at_negative, at_large;
    struct fault fault = {0};
    struct gguf *g;
    uint32_t u32 = 17;
    uint64_t u64 = 0;
    int32_t s32 = 0;
    int64_t s64 = 0;

    at_negative = model_writer_key(w, "i8", GGUF_I8, &i8, 1);
    model_writer_u16(w, "u16", 65535);
    at_large = model_writer_u64(w, "u64", UINT64_MAX);
    model_writer_key(w, "i64", GGUF_I64, &i64, 8);
    g = take(w, &bytes);

    assert_int_equal(gguf_get_u32(g, "u16", &u32, &fault), 0);
    assert_int_equal(u32, 65535);
    assert_int_equal(gguf_get_i32(g, "i8", &s32, &fault), 0);
    assert_int_equal(s32, -5);
    assert_int_equal(gguf_get_u64(g, "u64", &u64, &fault), 0);
    assert_true(u64 == UINT64_MAX);
    assert_int_equal(gguf_get_i64(g, "i64", &s64, &fault), 0);
    assert_true(s64 == INT64_MIN);

    u32 = 17;
    assert_int_equal(gguf_get_u32(g, "i8", &u32, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key i8 is -5, outside 0 to 4294967295");
    assert_int_equal(fault.offset, at_negative);
    assert_int_equal(gguf_get_u32(g, "u64", &u32, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key u64 is 18446744073709551615, outside 0 to 4294967295");
    assert_int_equal(fault.offset, at_large);
    assert_int_equal(gguf_get_i64(g, "u64", &s64, &fault), -EINVAL);
    assert_int_equal(gguf_get_u64(g, "i64", &u64, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key i64 is -9223372036854775808, outside 0 to 18446744073709551615");
    assert_int_equal(u32, 17);
    gguf_free(g);
    free(bytes);
}

static void absent_keys_leave_the_default(void **state)
{
    struct model_writer *w = model_writer_new();
    struct fault fault = {0};
    uint8_t *bytes;
    struct gguf *g = take(w, &bytes);
    struct gguf_array array;
    struct gguf_string string = {.data = "default", .n_bytes = 7};
    uint32_t u32 = 9;
    float f32 = 0.25f;
    bool flag = true;

    assert_int_equal(gguf_get_u32(g, "none", &u32, &fault), -ENOENT);
    assert_int_equal(gguf_get_f32(g, "none", &f32, &fault), -ENOENT);
    assert_int_equal(gguf_get_bool(g, "none", &flag, &fault), -ENOENT);
    assert_int_equal(gguf_get_string(g, "none", &string, &fault), -ENOENT);
    assert_int_equal(gguf_get_array(g, "none", GGUF_U32, &array, &fault), -ENOENT);
    assert_int_equal(u32, 9);
    assert_true(f32 == 0.25f && flag && string.n_bytes == 7);
    assert_int_equal(fault.kind, FAULT_NONE);
    assert_null(gguf_find_key(g, "none"));
    gguf_free(g);
    free(bytes);
}

static void wrong_types_are_named(void **state)
{
    struct model_writer *w = model_writer_new();
    static const uint32_t numbers[] = {1, 2};
    struct fault fault = {0};
    struct gguf_array array;
    struct gguf_string string;
    uint8_t *bytes;
    struct gguf *g;
    uint32_t u32;
    float f32;
    bool flag;

    model_writer_string(w, "text", "1");
    model_writer_f32(w, "real", 1);
    model_writer_f32(w, "infinite", INFINITY);
    model_writer_array(w, "array", GGUF_U32, numbers, 2, sizeof(numbers));
    g = take(w, &bytes);
    assert_int_equal(gguf_get_u32(g, "text", &u32, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key text is of type string, an integer is wanted");
    assert_int_equal(gguf_get_u32(g, "real", &u32, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key real is of type f32, an integer is wanted");
    assert_int_equal(gguf_get_f32(g, "text", &f32, &fault), -EINVAL);
    assert_int_equal(gguf_get_f32(g, "infinite", &f32, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key infinite is no finite number");
    assert_int_equal(gguf_get_bool(g, "real", &flag, &fault), -EINVAL);
    assert_int_equal(gguf_get_string(g, "array", &string, &fault), -EINVAL);
    assert_string_equal(fault.reason, "key array is of type array of u32, string is wanted");
    assert_int_equal(gguf_get_array(g, "text", GGUF_U32, &array, &fault), -EINVAL);
    assert_int_equal(gguf_get_array(g, "array", GGUF_STRING, &array, &fault), -EINVAL);
    assert_int_equal(gguf_get_array(g, "array", GGUF_F32, &array, &fault), -EINVAL);
    assert_int_equal(gguf_get_array(g, "array", GGUF_BOOL, &array, &fault), -EINVAL);
    assert_int_equal(gguf_get_array(g, "array", GGUF_U8, &array, &fault), -EINVAL);
    gguf_free(g);
    free(bytes);
}

static void arrays_give_their_elements(void **state)
{
    struct model_writer *w = model_writer_new();
    static const char *const strings[] = {"first", "", "\xFFthird"};
    static const int8_t small[] = {1, -1, 127};
    static const uint64_t large[] = {0, UINT32_MAX, (uint64_t)UINT32_MAX + 1};
    static const double reals[] = {0.5, -2};
    static const uint8_t flags[] = {1, 0};
    struct fault fault = {0};
    struct gguf_array a;
    uint64_t at_strings, at_large;
    uint8_t *bytes;
    struct gguf *g;

    at_strings = model_writer_strings(w, "strings", strings, 3);
    model_writer_array(w, "small", GGUF_I8, small, 3, sizeof(small));
    at_large = model_writer_array(w, "large", GGUF_U64, large, 3, sizeof(large));
    model_writer_array(w, "reals", GGUF_F64, reals, 2, sizeof(reals));
    model_writer_array(w, "flags", GGUF_BOOL, flags, 2, sizeof(flags));
    model_writer_array(w, "empty", GGUF_STRING, "", 0, 0);
    g = take(w, &bytes);

    assert_int_equal(gguf_get_array(g, "strings", GGUF_STRING, &a, &fault), 0);
    assert_int_equal(a.n, 3);
    assert_int_equal(gguf_array_string(&a, 0).n_bytes, 5);
    assert_memory_equal(gguf_array_string(&a, 0).data, "first", 5);
    assert_int_equal(gguf_array_string(&a, 1).n_bytes, 0);
    assert_memory_equal(gguf_array_string(&a, 2).data, "\xFFthird", 6);
    assert_int_equal(gguf_array_offset(&a, 2), at_strings + 8 + 5 + 8);
    assert_int_equal(gguf_get_array(g, "small", GGUF_I32, &a, &fault), 0);
    assert_int_equal(gguf_array_i32(&a, 1), -1);
    assert_int_equal(gguf_get_array(g, "small", GGUF_U32, &a, &fault), -EINVAL);
    assert_string_equal(fault.reason, "element 1 of key small is outside 0 to 4294967295");
    assert_int_equal(gguf_get_array(g, "large", GGUF_U32, &a, &fault), -EINVAL);
    assert_int_equal(fault.offset, at_large + 16);
    assert_int_equal(gguf_get_array(g, "reals", GGUF_F32, &a, &fault), 0);
    assert_true(gguf_array_f32(&a, 1) == -2.0f);
    assert_int_equal(gguf_get_array(g, "flags", GGUF_BOOL, &a, &fault), 0);
    assert_true(gguf_array_bool(&a, 0) && !gguf_array_bool(&a, 1));
    assert_int_equal(gguf_get_array(g, "empty", GGUF_STRING, &a, &fault), 0);
    assert_int_equal(a.n, 0);
    gguf_free(g);
    free(bytes);
}

static void many_keys_are_found(void **state)
{
    struct model_writer *w = model_writer_new();
    uint8_t *bytes;
    struct gguf *g;
    char name[32];

    for (uint32_t i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "key.%u", i * 7919 % 2000);
        model_writer_u32(w, name, i);
    }
    g = take(w, &bytes);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t value;

        snprintf(name, sizeof(name), "key.%u", i * 7919 % 2000);
        assert_int_equal(gguf_get_u32(g, name, &value, NULL), 0);
        assert_int_equal(value, i);
        assert_string_equal(gguf_key(g, i)->name, name);
    }
    gguf_free(g);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_any_width_are_read_if_they_fit),
        cmocka_unit_test(absent_keys_leave_the_default),
        cmocka_unit_test(wrong_types_are_named),
        cmocka_unit_test(arrays_give_their_elements),
        cmocka_unit_test(many_keys_are_found),
    };

    return cmocka_run_group_tests_name("gguf/keys", tests, NULL, NULL);
}
