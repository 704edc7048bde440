/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/kv/prefix.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model-writer/random_blocks.h"

/* A page of these tests holds the tokens whose keys and values it stands for, so that any mix-up shows. */
#define PAGE_BYTES (PAGES_TOKENS * sizeof(int32_t))
#define DEPTH_MAX  16

struct fixture {
    struct pages *pools[PREFIX_GROUPS_MAX];
    uint32_t windows[PREFIX_GROUPS_MAX];
    uint32_t n_groups;
    struct prefix *x;
};

struct sequence {
    struct page_table tables[PREFIX_GROUPS_MAX];
    uint32_t node, n_put, n_tokens;
};

static void begin(struct fixture *f, uint32_t n_pages, uint32_t n_windowed, uint32_t window)
{
    struct prefix_config config = {.n_groups = window ? 2 : 1, .n_nodes_max = n_pages, .seed = 1};

    *f = (struct fixture){.n_groups = config.n_groups, .windows = {0, window}};
    assert_int_equal(pages_new(n_pages, PAGE_BYTES, &f->pools[0]), 0);
    if (window)
        assert_int_equal(pages_new(n_windowed, PAGE_BYTES, &f->pools[1]), 0);
    memcpy(config.pools, f->pools, sizeof(config.pools));
    memcpy(config.windows, f->windows, sizeof(config.windows));
    assert_int_equal(prefix_new(&config, &f->x), 0);
}

/* pages_free() asserts that nobody holds a page any more. */
static void end(struct fixture *f)
{
    prefix_free(f->x);
    for (uint32_t g = 0; g < f->n_groups; g++) {
        assert_int_equal(pages_left(f->pools[g]), pages_total(f->pools[g]));
        pages_free(f->pools[g]);
    }
}

/* Tokens of a conversation: @fork pages of the common beginning, then its own. */
static void tokens_of(uint32_t conversation, uint32_t fork, int32_t *ret)
{
    for (int32_t i = 0; i < DEPTH_MAX * PAGES_TOKENS; i++)
        ret[i] = i < (int32_t)fork * PAGES_TOKENS ? i : i + 1000 * (1 + (int32_t)conversation);
}

static uint32_t begin_sequence(struct fixture *f, struct sequence *s, struct prefix_scope scope, const int32_t *tokens,
                               uint32_t n_tokens)
{
    struct prefix_hit hit = prefix_find(f->x, scope, tokens, n_tokens);

    *s = (struct sequence){.node = PREFIX_NONE};
    for (uint32_t g = 0; g < f->n_groups; g++)
        assert_int_equal(page_table_init(&s->tables[g], DEPTH_MAX), 0);
    if (hit.node != PREFIX_NONE)
        prefix_share(f->x, hit, s->tables);
    s->node = hit.node;
    s->n_put = hit.n_pages;
    s->n_tokens = hit.n_pages * PAGES_TOKENS;
    return hit.n_pages;
}

static uint32_t window_begin(const struct fixture *f, uint32_t g, uint32_t position)
{
    return f->windows[g] && position >= f->windows[g] ? position - f->windows[g] + 1 : 0;
}

/* What the engine does: the past of windows goes, room is made, all that is seen is read, keys are written. False:
 * there is no room. */
static bool feed(struct fixture *f, struct sequence *s, const int32_t *tokens, uint32_t n)
{
    for (uint32_t g = 0; g < f->n_groups; g++)
        page_table_release_before(&s->tables[g], f->pools[g], window_begin(f, g, s->n_tokens));
    for (uint32_t g = 0; g < f->n_groups; g++) {
        uint32_t need = page_table_need(&s->tables[g], f->pools[g], s->n_tokens, n);

        if (need > pages_left(f->pools[g]) && !prefix_evict(f->x, g, need))
            return false;
    }
    for (uint32_t g = 0; g < f->n_groups; g++) {
        struct page_table *t = &s->tables[g];

        page_table_reserve(t, f->pools[g], s->n_tokens, n);
        for (uint32_t i = window_begin(f, g, s->n_tokens); i < s->n_tokens + n; i++) {
            int32_t *slots = pages_memory(f->pools[g], t->ids[i / PAGES_TOKENS]);

            if (i >= s->n_tokens)
                slots[i % PAGES_TOKENS] = tokens[i];
            assert_int_equal(slots[i % PAGES_TOKENS], tokens[i]);
        }
    }
    s->n_tokens += n;
    return true;
}

static void put_all(struct fixture *f, struct sequence *s, struct prefix_scope scope, const int32_t *tokens,
                    uint32_t n_public)
{
    while (s->n_put < s->n_tokens / PAGES_TOKENS) {
        struct prefix_scope to = {.owner = s->n_put < n_public ? PREFIX_PUBLIC : scope.owner,
                                  .adapter = scope.adapter};
        uint32_t node = prefix_put(f->x, to, s->node, tokens + s->n_put * PAGES_TOKENS, s->n_put, s->tables);

        if (node == PREFIX_NONE)
            return;
        s->node = node;
        s->n_put++;
    }
}

static void end_sequence(struct fixture *f, struct sequence *s)
{
    prefix_unpin(f->x, s->node);
    for (uint32_t g = 0; g < f->n_groups; g++)
        page_table_done(&s->tables[g], f->pools[g]);
}

/* A whole life: as many pages as were found. */
static uint32_t live(struct fixture *f, struct prefix_scope scope, const int32_t *tokens, uint32_t n_tokens,
                     uint32_t n_public)
{
    struct sequence s;
    uint32_t n = begin_sequence(f, &s, scope, tokens, n_tokens - 1);

    assert_true(feed(f, &s, tokens, n_tokens - s.n_tokens));
    put_all(f, &s, scope, tokens, n_public);
    end_sequence(f, &s);
    return n;
}

static const struct prefix_scope alice = {.owner = 1}, bob = {.owner = 2};

static void what_was_computed_is_found_in_whole_pages(void **state)
{
    int32_t a[DEPTH_MAX * PAGES_TOKENS], b[DEPTH_MAX * PAGES_TOKENS];
    struct fixture f;

    begin(&f, 32, 0, 0);
    tokens_of(0, 3, a);
    tokens_of(1, 3, b);
    assert_int_equal(live(&f, alice, a, 5 * 32 + 7, 0), 0);
    assert_int_equal(prefix_n_owned(f.x, 1), 5);
    assert_int_equal(prefix_n_kept(f.x), 5);
    assert_int_equal(prefix_find(f.x, alice, a, 31).n_pages, 0);
    assert_int_equal(prefix_find(f.x, alice, a, 32).n_pages, 1);
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32 + 7).n_pages, 5);
    assert_int_equal(prefix_find(f.x, alice, a, 9 * 32).n_pages, 5);
    /* Another conversation with the same beginning branches off. */
    assert_int_equal(live(&f, alice, b, 5 * 32, 0), 3);
    assert_int_equal(prefix_n_owned(f.x, 1), 7);
    assert_int_equal(pages_left(f.pools[0]), 32 - 7);
    assert_int_equal(prefix_find(f.x, alice, b, 5 * 32).n_pages, 5);
    /* A page of others in the middle is no prefix. */
    assert_int_equal(prefix_find(f.x, alice, b + 3 * 32, 64).n_pages, 0);
    end(&f);
}

static void nothing_is_found_by_others(void **state)
{
    const struct prefix_scope adapted = {.owner = 1, .adapter = 1};
    int32_t a[DEPTH_MAX * PAGES_TOKENS];
    struct fixture f;

    begin(&f, 32, 0, 0);
    tokens_of(0, 3, a);
    assert_int_equal(live(&f, alice, a, 130, 0), 0);
    assert_int_equal(prefix_find(f.x, bob, a, 130).n_pages, 0);
    assert_int_equal(prefix_find(f.x, adapted, a, 130).n_pages, 0);
    /* Pages of their own, although the tokens are the same. */
    assert_int_equal(live(&f, bob, a, 130, 0), 0);
    assert_int_equal(live(&f, adapted, a, 130, 0), 0);
    assert_int_equal(pages_left(f.pools[0]), 32 - 12);
    assert_int_equal(live(&f, bob, a, 130, 0), 4);
    end(&f);
}

static void what_is_public_is_found_by_all(void **state)
{
    int32_t a[DEPTH_MAX * PAGES_TOKENS], b[DEPTH_MAX * PAGES_TOKENS];
    struct fixture f;

    begin(&f, 8, 0, 0);
    tokens_of(0, 3, a);
    tokens_of(1, 3, b);
    assert_int_equal(live(&f, alice, a, 5 * 32, 2), 0);
    assert_int_equal(prefix_n_owned(f.x, PREFIX_PUBLIC), 2);
    assert_int_equal(prefix_n_owned(f.x, 1), 3);
    /* The third page is the same, too, but hers. */
    assert_int_equal(prefix_find(f.x, bob, b, 5 * 32).n_pages, 2);
    assert_int_equal(prefix_find(f.x, alice, b, 5 * 32).n_pages, 3);
    assert_int_equal(live(&f, bob, b, 4 * 32, 2), 2);
    assert_int_equal(pages_left(f.pools[0]), 8 - 7);
    /* Under what others began stands what is theirs; it goes last. */
    assert_true(prefix_evict(f.x, 0, 6));
    assert_int_equal(prefix_n_owned(f.x, PREFIX_PUBLIC), 2);
    assert_int_equal(prefix_n_owned(f.x, 1) + prefix_n_owned(f.x, 2), 0);
    assert_true(prefix_evict(f.x, 0, 8));
    assert_int_equal(prefix_n_owned(f.x, PREFIX_PUBLIC), 0);
    end(&f);
}

static void who_has_most_gives_what_was_used_least(void **state)
{
    int32_t a[DEPTH_MAX * PAGES_TOKENS], b[DEPTH_MAX * PAGES_TOKENS], c[DEPTH_MAX * PAGES_TOKENS];
    struct fixture f;

    begin(&f, 16, 0, 0);
    tokens_of(0, 1, a);
    tokens_of(1, 1, b);
    tokens_of(2, 1, c);
    assert_int_equal(live(&f, bob, a, 4 * 32, 0), 0);
    assert_int_equal(live(&f, alice, a, 5 * 32, 0), 0);
    assert_int_equal(live(&f, alice, b, 5 * 32, 0), 1);
    assert_int_equal(pages_left(f.pools[0]), 3);
    /* Used again, so the other branch is older. */
    assert_int_equal(live(&f, alice, a, 5 * 32, 0), 4);
    assert_true(prefix_evict(f.x, 0, 5));
    assert_int_equal(prefix_find(f.x, bob, a, 4 * 32).n_pages, 4);
    assert_int_equal(prefix_find(f.x, alice, b, 5 * 32).n_pages, 3);
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 5);
    /* A limit of her own. */
    prefix_limit(f.x, 1, 3);
    assert_int_equal(prefix_n_owned(f.x, 1), 3);
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 3);
    assert_int_equal(prefix_find(f.x, alice, b, 5 * 32).n_pages, 1);
    prefix_limit(f.x, 1, 0);
    assert_int_equal(pages_left(f.pools[0]), 12);
    assert_int_equal(prefix_find(f.x, bob, a, 4 * 32).n_pages, 4);
    assert_int_equal(live(&f, bob, c, 4 * 32, 0), 1);
    end(&f);
}

static void what_a_sequence_has_stays(void **state)
{
    int32_t a[DEPTH_MAX * PAGES_TOKENS];
    struct sequence one, two;
    struct fixture f;

    begin(&f, 8, 0, 0);
    tokens_of(0, 1, a);
    assert_int_equal(live(&f, alice, a, 4 * 32, 0), 0);
    assert_int_equal(begin_sequence(&f, &one, alice, a, 3 * 32), 3);
    assert_false(prefix_evict(f.x, 0, 6));
    prefix_limit(f.x, 1, 0);
    assert_int_equal(prefix_n_owned(f.x, 1), 3);
    assert_int_equal(pages_left(f.pools[0]), 5);
    /* Two that compute the same at the same time come to have the same pages. */
    assert_int_equal(begin_sequence(&f, &two, alice, a, 3 * 32), 3);
    assert_true(feed(&f, &one, a, 40));
    assert_true(feed(&f, &two, a, 40));
    assert_int_equal(pages_left(f.pools[0]), 1);
    put_all(&f, &one, alice, a, 0);
    put_all(&f, &two, alice, a, 0);
    assert_int_equal(pages_left(f.pools[0]), 2);
    assert_int_equal(pages_holders(f.pools[0], one.tables[0].ids[3]), 3);
    end_sequence(&f, &one);
    end_sequence(&f, &two);
    assert_true(prefix_evict(f.x, 0, 8));
    end(&f);
}

static void a_sequence_that_is_cut_goes_its_own_way(void **state)
{
    int32_t a[DEPTH_MAX * PAGES_TOKENS], b[DEPTH_MAX * PAGES_TOKENS];
    struct sequence s;
    struct fixture f;

    begin(&f, 12, 0, 0);
    tokens_of(0, 2, a);
    tokens_of(1, 2, b);
    assert_int_equal(live(&f, alice, a, 5 * 32, 0), 0);
    assert_int_equal(begin_sequence(&f, &s, alice, a, 5 * 32), 5);
    s.node = prefix_retreat(f.x, s.node, 2);
    s.n_put = 2;
    s.n_tokens = 70;
    page_table_truncate(&s.tables[0], f.pools[0], 70);
    /* The page in which it goes on is another's, too: it is copied. */
    memcpy(b + 64, a + 64, 6 * sizeof(*b));
    assert_true(feed(&f, &s, b, 60));
    put_all(&f, &s, alice, b, 0);
    end_sequence(&f, &s);
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 5);
    assert_int_equal(prefix_find(f.x, alice, b, 5 * 32).n_pages, 4);
    assert_int_equal(begin_sequence(&f, &s, alice, a, 2 * 32), 2);
    s.node = prefix_retreat(f.x, s.node, 0);
    assert_int_equal(s.node, PREFIX_NONE);
    end_sequence(&f, &s);
    end(&f);
}

static void windows_need_the_last_pages_only(void **state)
{
    int32_t a[DEPTH_MAX * PAGES_TOKENS];
    struct fixture f;

    /* A window of 40: the token behind 5 pages sees from 121 on, which is in the fourth. */
    begin(&f, 16, 16, 40);
    tokens_of(0, 1, a);
    for (uint32_t n = 32; n <= 5 * 32; n += 32)
        live(&f, alice, a, n, 0);
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 5);
    /* Of the windowed pool ends go first: the last page, then the one before. */
    assert_true(prefix_evict(f.x, 1, 12));
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 4);
    assert_int_equal(pages_left(f.pools[0]), 11);
    /* All five are computed again from the fourth on, and fill the gap. */
    assert_int_equal(live(&f, alice, a, 5 * 32, 0), 4);
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 5);
    assert_true(prefix_evict(f.x, 1, 16));
    assert_int_equal(prefix_find(f.x, alice, a, 5 * 32).n_pages, 0);
    assert_int_equal(live(&f, alice, a, 5 * 32, 0), 0);
    end(&f);
}

/* Any history: what is found has the right contents (feed() looks), and whoever needs pages gets all that no sequence
 * has. */
static void any_history_keeps_contents_and_counts(void **state)
{
    enum { SEQUENCES = 5, CONVERSATIONS = 6 };
    static const uint32_t windows[] = {0, 40, 100};

    for (uint64_t history = 0; history < 12; history++) {
        int32_t tokens[CONVERSATIONS][DEPTH_MAX * PAGES_TOKENS];
        struct sequence all[SEQUENCES];
        uint32_t conversations[SEQUENCES], n_found = 0;
        bool runs[SEQUENCES] = {false};
        uint64_t seed = history;
        struct fixture f;

        begin(&f, SEQUENCES * DEPTH_MAX, SEQUENCES * 6, windows[history % 3]);
        for (uint32_t c = 0; c < CONVERSATIONS; c++)
            tokens_of(c, 2 + c, tokens[c]);
        for (uint32_t round = 0; round < 4000; round++) {
            uint64_t r = random_next(&seed);
            uint32_t i = r % SEQUENCES, c, n = 1 + (r >> 8) % 50;
            const struct prefix_scope scope = {.owner = 1 + i % 2, .adapter = history % 2};

            if (!runs[i]) {
                conversations[i] = (r >> 16) % CONVERSATIONS;
                n_found += begin_sequence(&f, &all[i], scope, tokens[conversations[i]], (r >> 24) % 500);
                runs[i] = true;
            }
            c = conversations[i];
            if ((r >> 40) % 12 == 0) {
                end_sequence(&f, &all[i]);
                runs[i] = false;
                continue;
            }
            if (n > DEPTH_MAX * PAGES_TOKENS - all[i].n_tokens)
                n = DEPTH_MAX * PAGES_TOKENS - all[i].n_tokens;
            assert_true(feed(&f, &all[i], tokens[c], n));
            if ((r >> 50) % 3 > 0)
                put_all(&f, &all[i], scope, tokens[c], history % 4 / 2 * 2);
        }
        assert_true(n_found > 500);
        for (uint32_t i = 0; i < SEQUENCES; i++)
            if (runs[i])
                end_sequence(&f, &all[i]);
        for (uint32_t g = 0; g < f.n_groups; g++)
            assert_true(prefix_evict(f.x, g, pages_total(f.pools[g])));
        end(&f);
    }
}

static void pools_of_no_sense_are_refused(void **state)
{
    struct prefix *x = NULL;

    assert_int_equal(prefix_new(&(struct prefix_config){.n_groups = 0, .n_nodes_max = 1}, &x), -EINVAL);
    assert_int_equal(prefix_new(&(struct prefix_config){.n_groups = 3, .n_nodes_max = 1}, &x), -EINVAL);
    assert_int_equal(prefix_new(&(struct prefix_config){.n_groups = 1, .n_nodes_max = 0}, &x), -EINVAL);
    assert_null(prefix_free(x));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_computed_is_found_in_whole_pages),
        cmocka_unit_test(nothing_is_found_by_others),
        cmocka_unit_test(what_is_public_is_found_by_all),
        cmocka_unit_test(who_has_most_gives_what_was_used_least),
        cmocka_unit_test(what_a_sequence_has_stays),
        cmocka_unit_test(a_sequence_that_is_cut_goes_its_own_way),
        cmocka_unit_test(windows_need_the_last_pages_only),
        cmocka_unit_test(any_history_keeps_contents_and_counts),
        cmocka_unit_test(pools_of_no_sense_are_refused),
    };

    return cmocka_run_group_tests_name("prefix", tests, NULL, NULL);
}
