/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/kv/pages.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model-writer/random_blocks.h"

/* A page of these tests holds one 32-bit stamp for each token. */
#define PAGE_BYTES (PAGES_TOKENS * sizeof(uint32_t))

static uint32_t *slot(const struct pages *p, const struct page_table *t, uint32_t position)
{
    uint32_t *stamps = pages_memory(p, t->ids[position / PAGES_TOKENS]);

    return &stamps[position % PAGES_TOKENS];
}

/* Feeds @n tokens: room for them, and a stamp for each. */
static void feed(struct pages *p, struct page_table *t, uint32_t from, uint32_t n, uint32_t stamp)
{
    page_table_reserve(t, p, from, n);
    for (uint32_t i = from; i < from + n; i++)
        *slot(p, t, i) = stamp + i;
}

static void pages_come_to_new_owners_empty(void **state)
{
    struct pages *p;
    struct page_table a, b;

    assert_int_equal(pages_new(3, PAGE_BYTES, &p), 0);
    assert_int_equal(page_table_init(&a, 3), 0);
    assert_int_equal(page_table_init(&b, 3), 0);
    for (uint32_t round = 0; round < 3; round++) {
        feed(p, &a, 0, 96, 1000);
        page_table_truncate(&a, p, 0);
        page_table_reserve(&b, p, 0, 65);
        for (uint32_t i = 0; i < 96; i++)
            assert_int_equal(*slot(p, &b, i), 0);
        page_table_truncate(&b, p, 0);
    }
    page_table_done(&a, p);
    page_table_done(&b, p);
    pages_free(p);
}

static void pages_are_taken_as_tokens_need_them(void **state)
{
    struct pages *p;
    struct page_table t;

    assert_int_equal(pages_new(4, PAGE_BYTES, &p), 0);
    assert_int_equal(pages_total(p), 4);
    assert_int_equal(page_table_init(&t, 4), 0);
    assert_int_equal(page_table_need(&t, p, 0, 0), 0);
    assert_int_equal(page_table_need(&t, p, 0, 1), 1);
    assert_int_equal(page_table_need(&t, p, 0, 32), 1);
    assert_int_equal(page_table_need(&t, p, 0, 33), 2);
    page_table_reserve(&t, p, 0, 33);
    assert_int_equal(pages_left(p), 2);
    assert_int_equal(page_table_need(&t, p, 33, 31), 0);
    assert_int_equal(page_table_need(&t, p, 33, 32), 1);
    page_table_truncate(&t, p, 32);
    assert_int_equal(pages_left(p), 3);
    page_table_truncate(&t, p, 1);
    assert_int_equal(pages_left(p), 3);
    page_table_done(&t, p);
    assert_int_equal(pages_left(p), 4);
    pages_free(p);
}

static void shared_pages_are_copied_before_they_are_written(void **state)
{
    struct pages *p;
    struct page_table a, b;

    assert_int_equal(pages_new(6, PAGE_BYTES, &p), 0);
    assert_int_equal(page_table_init(&a, 6), 0);
    assert_int_equal(page_table_init(&b, 6), 0);
    feed(p, &a, 0, 64, 100);
    page_table_fork(&b, p, &a, 64);
    assert_int_equal(pages_left(p), 4);
    assert_int_equal(pages_holders(p, a.ids[0]), 2);
    assert_int_equal(a.ids[1], b.ids[1]);

    /* b goes back into the second page and writes it anew. */
    page_table_truncate(&b, p, 40);
    assert_int_equal(page_table_need(&b, p, 40, 10), 1);
    feed(p, &b, 40, 10, 900);
    assert_int_not_equal(a.ids[1], b.ids[1]);
    assert_int_equal(a.ids[0], b.ids[0]);
    assert_int_equal(*slot(p, &a, 40), 140);
    assert_int_equal(*slot(p, &b, 40), 940);
    assert_int_equal(*slot(p, &b, 39), 139);
    assert_int_equal(pages_holders(p, a.ids[1]), 1);

    page_table_done(&a, p);
    assert_int_equal(*slot(p, &b, 0), 100);
    page_table_done(&b, p);
    assert_int_equal(pages_left(p), 6);
    pages_free(p);
}

static void a_window_gives_its_past_back(void **state)
{
    struct pages *p;
    struct page_table a, b;

    assert_int_equal(pages_new(4, PAGE_BYTES, &p), 0);
    assert_int_equal(page_table_init(&a, 4), 0);
    assert_int_equal(page_table_init(&b, 4), 0);
    feed(p, &a, 0, 100, 0);
    assert_int_equal(pages_left(p), 0);
    page_table_release_before(&a, p, 31);
    assert_int_equal(pages_left(p), 0);
    page_table_release_before(&a, p, 64);
    assert_int_equal(pages_left(p), 2);
    assert_int_equal(*slot(p, &a, 64), 64);
    page_table_fork(&b, p, &a, 96);
    assert_int_equal(pages_left(p), 2);
    page_table_truncate(&a, p, 0);
    assert_int_equal(pages_left(p), 3);
    assert_int_equal(*slot(p, &b, 95), 95);
    page_table_done(&b, p);
    page_table_done(&a, p);
    assert_int_equal(pages_left(p), 4);
    pages_free(p);
}

#define TABLES 5
#define TOKENS 150u
#define PAGES  18u

struct shadow {
    struct page_table table;
    uint32_t n;
    uint32_t stamps[TOKENS];
};

static void assert_as_shadowed(const struct pages *p, const struct shadow *all)
{
    uint32_t holders[PAGES] = {0}, n_held = 0;

    for (uint32_t s = 0; s < TABLES; s++) {
        for (uint32_t i = 0; i < all[s].n; i++)
            assert_int_equal(*slot(p, &all[s].table, i), all[s].stamps[i]);
        for (uint32_t i = 0; i < all[s].table.n; i++)
            n_held += holders[all[s].table.ids[i]]++ == 0;
    }
    for (uint32_t i = 0; i < PAGES; i++)
        if (holders[i])
            assert_int_equal(pages_holders(p, i), holders[i]);
    assert_int_equal(pages_left(p), PAGES - n_held);
}

static void feed_shadowed(struct pages *p, struct shadow *s, uint32_t n, uint32_t stamp)
{
    if (page_table_need(&s->table, p, s->n, n) > pages_left(p))
        return;
    feed(p, &s->table, s->n, n, stamp);
    for (uint32_t i = 0; i < n; i++)
        s->stamps[s->n + i] = stamp + s->n + i;
    s->n += n;
}

/* Tables that are fed, cut, forked and emptied at random beside plain arrays that never share anything. */
static void any_history_keeps_every_token(void **state)
{
    struct shadow all[TABLES] = {};
    uint64_t seed = 11;
    struct pages *p;

    assert_int_equal(pages_new(PAGES, PAGE_BYTES, &p), 0);
    for (uint32_t s = 0; s < TABLES; s++)
        assert_int_equal(page_table_init(&all[s].table, 5), 0);
    for (uint32_t round = 0; round < 5000; round++) {
        uint64_t r = random_next(&seed);
        struct shadow *s = &all[r % TABLES], *other = &all[(r >> 8) % TABLES];
        uint32_t n = (uint32_t)(r >> 16) % 40;

        if (r >> 60 < 10) {
            feed_shadowed(p, s, n < TOKENS - s->n ? n : TOKENS - s->n, round * 1000);
        } else if (r >> 60 < 13) {
            s->n = n < s->n ? s->n - n : 0;
            page_table_truncate(&s->table, p, s->n);
        } else if (s != other && pages_left(p) > 0) {
            page_table_truncate(&s->table, p, 0);
            s->n = n < other->n ? other->n - n : 0;
            page_table_fork(&s->table, p, &other->table, s->n);
            memcpy(s->stamps, other->stamps, sizeof(s->stamps));
        }
        assert_as_shadowed(p, all);
    }
    for (uint32_t s = 0; s < TABLES; s++)
        page_table_done(&all[s].table, p);
    assert_int_equal(pages_left(p), PAGES);
    pages_free(p);
}

static void pools_of_no_sense_are_refused(void **state)
{
    struct pages *p = NULL;

    assert_int_equal(pages_new(1, 63, &p), -EINVAL);
    assert_int_equal(pages_new(UINT32_MAX, UINT64_MAX & ~(uint64_t)63, &p), -EOVERFLOW);
    assert_null(p);
    assert_null(pages_free(NULL));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_come_to_new_owners_empty),
        cmocka_unit_test(pages_are_taken_as_tokens_need_them),
        cmocka_unit_test(shared_pages_are_copied_before_they_are_written),
        cmocka_unit_test(a_window_gives_its_past_back),
        cmocka_unit_test(any_history_keeps_every_token),
        cmocka_unit_test(pools_of_no_sense_are_refused),
    };

    return cmocka_run_group_tests_name("pages", tests, NULL, NULL);
}
