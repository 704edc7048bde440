/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models in several files: parts that belong together are one model, everything else is told apart by name.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/gguf/read.h"
#include "tests/model-writer/model_writer.h"

#define N_PARTS 3

struct model {
    struct gguf_part parts[N_PARTS];
    struct model_writer *whole;
};

static struct gguf_part part_of(struct model_writer *w_take)
{
    struct gguf_part part;
    size_t n;

    part.data = model_writer_bytes(w_take, &n);
    part.n_bytes = n;
    model_writer_free(w_take);
    return part;
}

static int make(void **state)
{
    struct model *m = calloc(1, sizeof(*m));
    struct model_shape shape = model_shape_default();

    assert_non_null(m);
    shape.dim = 32;
    shape.ff = 64;
    shape.n_heads = 2;
    shape.n_kv_heads = 1;
    m->whole = model_writer_new();
    model_writer_llama(m->whole, &shape);
    for (size_t i = 0; i < N_PARTS; i++)
        m->parts[i] = part_of(model_writer_split(m->whole, i, N_PARTS));
    *state = m;
    return 0;
}

static int unmake(void **state)
{
    struct model *m = *state;

    for (size_t i = 0; i < N_PARTS; i++)
        free((void *)m->parts[i].data);
    model_writer_free(m->whole);
    free(m);
    return 0;
}

static void expect_refused(const struct gguf_part *parts, size_t n, const char *reason)
{
    struct gguf *g = NULL;
    struct fault fault = {0};

    assert_int_equal(gguf_read(parts, n, &g, &fault), -EINVAL);
    if (!strstr(fault.reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", fault.reason, reason);
}

static void parts_are_one_model(void **state)
{
    struct model *m = *state;
    struct gguf *g = NULL, *whole = NULL;
    struct gguf_part one = {0};
    struct fault fault = {0};
    size_t n;
    uint8_t *bytes = model_writer_bytes(m->whole, &n);

    one = (struct gguf_part){.data = bytes, .n_bytes = n};
    assert_int_equal(gguf_read(&one, 1, &whole, &fault), 0);
    if (gguf_read(m->parts, N_PARTS, &g, &fault) < 0)
        fail_msg("%s", fault.reason);
    assert_int_equal(gguf_n_parts(g), N_PARTS);
    assert_int_equal(gguf_n_tensors(g), gguf_n_tensors(whole));
    assert_int_equal(gguf_n_keys(g), gguf_n_keys(whole) + 3);
    for (size_t i = 0; i < gguf_n_tensors(whole); i++) {
        const struct gguf_tensor *expected = gguf_tensor(whole, i), *t = gguf_find_tensor(g, expected->name);

        assert_non_null(t);
        assert_int_equal(t->n_bytes, expected->n_bytes);
        assert_memory_equal(t->data, expected->data, t->n_bytes);
        assert_ptr_equal(t->data, (const uint8_t *)m->parts[t->part].data + t->offset);
    }
    assert_int_equal(gguf_find_tensor(g, "token_embd.weight")->part, 0);
    assert_int_equal(gguf_find_tensor(g, "output.weight")->part, 2);
    gguf_free(whole);
    gguf_free(g);
    free(bytes);
}

static void a_missing_part_is_named(void **state)
{
    struct model *m = *state;

    expect_refused(m->parts, 1, "split.count says that the model has 3 parts, 1 given");
    expect_refused(m->parts, 2, "part 1 of 2: split.count says that the model has 3 parts, 2 given");
    expect_refused(m->parts + 1, 1, "split.count says that the model has 3 parts, 1 given");
}

static void an_extra_part_is_named(void **state)
{
    struct model *m = *state;
    struct gguf_part parts[4] = {m->parts[0], m->parts[1], m->parts[2], m->parts[2]};

    expect_refused(parts, 4, "part 1 of 4: split.count says that the model has 3 parts, 4 given");
    expect_refused(parts, 0, "0 files given");
}

static void parts_in_the_wrong_order_are_named(void **state)
{
    struct model *m = *state;
    struct gguf_part swapped[N_PARTS] = {m->parts[0], m->parts[2], m->parts[1]};
    struct gguf_part twice[N_PARTS] = {m->parts[0], m->parts[1], m->parts[1]};

    expect_refused(swapped, N_PARTS, "part 2 of 3: split.no says that this is part 3 of 3, it was given as part 2");
    expect_refused(twice, N_PARTS, "part 3 of 3: split.no says that this is part 2 of 3, it was given as part 3");
}

static void a_file_that_is_no_part_is_named(void **state)
{
    struct model *m = *state;
    struct model_writer *w = model_writer_new();
    struct gguf_part parts[N_PARTS] = {m->parts[0], m->parts[1], {0}};

    model_writer_u32(w, "general.alignment", 32);
    parts[2] = part_of(w);
    expect_refused(parts, N_PARTS, "part 3 of 3: 3 files are given, and this one has no split.count: it is no part");
    free((void *)parts[2].data);
}

/* A part with one tensor called @name, numbered as asked. */
static struct gguf_part small_part(uint16_t no, uint16_t count, int32_t n_tensors, const char *name)
{
    struct model_writer *w = model_writer_new();

    model_writer_u16(w, "split.no", no);
    model_writer_u16(w, "split.count", count);
    model_writer_i32(w, "split.tensors.count", n_tensors);
    model_writer_tensor_random(w, name, TENSOR_F32, 1, (uint64_t[]){8}, 1, 1);
    return part_of(w);
}

static void the_number_of_tensors_is_checked(void **state)
{
    struct gguf_part parts[2] = {small_part(0, 2, 3, "a"), small_part(1, 2, 3, "b")};

    expect_refused(parts, 2, "part 1 of 2: split.tensors.count is 3, the parts have 2 tensors");
    free((void *)parts[0].data);
    free((void *)parts[1].data);
}

static void a_tensor_in_two_parts_is_named(void **state)
{
    struct gguf_part parts[2] = {small_part(0, 2, 2, "a"), small_part(1, 2, 2, "a")};

    expect_refused(parts, 2, "part 2 of 2: tensor a is there twice, before in part 1");
    free((void *)parts[0].data);
    free((void *)parts[1].data);
}

static void an_error_says_in_which_part(void **state)
{
    struct model *m = *state;
    struct gguf_part parts[N_PARTS] = {m->parts[0], m->parts[1], m->parts[2]};

    parts[1].n_bytes = 30;
    expect_refused(parts, N_PARTS, "part 2 of 3: the ");
    parts[1] = (struct gguf_part){.data = "GGUF\1\0\0\0", .n_bytes = 8};
    expect_refused(parts, N_PARTS, "part 2 of 3: GGUF version 1 found");
}

static void numbers_of_the_wrong_type_are_named(void **state)
{
    struct model_writer *w = model_writer_new();
    struct gguf_part part;

    model_writer_string(w, "split.count", "1");
    part = part_of(w);
    expect_refused(&part, 1, "split.count is no number of the right size (type string)");
    free((void *)part.data);
    part = small_part(0, 1, -1, "a");
    expect_refused(&part, 1, "split.tensors.count is no number of the right size");
    free((void *)part.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_one_model),
        cmocka_unit_test(a_missing_part_is_named),
        cmocka_unit_test(an_extra_part_is_named),
        cmocka_unit_test(parts_in_the_wrong_order_are_named),
        cmocka_unit_test(a_file_that_is_no_part_is_named),
        cmocka_unit_test(the_number_of_tensors_is_checked),
        cmocka_unit_test(a_tensor_in_two_parts_is_named),
        cmocka_unit_test(an_error_says_in_which_part),
        cmocka_unit_test(numbers_of_the_wrong_type_are_named),
    };

    return cmocka_run_group_tests_name("gguf/split", tests, make, unmake);
}
