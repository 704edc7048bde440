/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sequences that begin with what earlier ones computed come to the same bits, in every kind of model and cache,
 * whatever was evicted meanwhile; and memory that changes its owner holds nothing of the one before.
 */
#include "engine/engine-prefix.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/engine-internal.h"
#include "tests/model-writer/random_blocks.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

#define N 200 /* tokens of a sequence: 6 full pages */

static struct model_shape shape_of(const char *architecture, uint32_t window)
{
    struct model_shape s = models_deep();

    s.architecture = architecture;
    s.window = window;
    s.n_layers = 7; /* of gemma3 one is without a window */
    return s;
}

static int adapter_of(const struct model_shape *shape)
{
    const struct adapter_shape adapter = {
        .architecture = shape->architecture, .rank = 8, .alpha = 4, .type = TENSOR_F16, .period = 1};
    struct model_writer *model = model_writer_new(), *w = model_writer_new();
    int fd;

    model_writer_llama(model, shape);
    model_writer_adapter(w, model, &adapter);
    fd = model_writer_memfd(w);
    model_writer_free(model);
    model_writer_free(w);
    return fd;
}

/* Logits of the last of @n tokens, in a sequence that nobody shares anything with. */
static void alone(struct engine *e, uint32_t adapter, const int32_t *tokens, uint32_t n, float *ret)
{
    const float *logits;
    uint32_t s;

    assert_int_equal(engine_sequence_open(e, &s), 0);
    assert_int_equal(engine_sequence_adapt(e, s, adapter), 0);
    assert_int_equal(feed_step(e, s, tokens, n, &logits), 0);
    memcpy(ret, logits + (size_t)(n - 1) * feed_n_vocab(e), feed_n_vocab(e) * sizeof(*ret));
    engine_sequence_close(e, s);
}

/* The same with whatever @owner computed before. Returns how much of it that was. */
static uint32_t shared(struct engine *e, uint64_t owner, uint32_t adapter, const int32_t *tokens, uint32_t n,
                       uint32_t chunk, float *ret)
{
    uint32_t s, length, expected = engine_prefix_find(e, owner, adapter, tokens, n - 1);
    const float *logits = NULL;

    assert_int_equal(engine_sequence_open(e, &s), 0);
    assert_int_equal(engine_sequence_adapt(e, s, adapter), 0);
    assert_int_equal(engine_prefix_begin(e, s, owner, tokens, n - 1, &length), 0);
    assert_int_equal(length, expected);
    assert_int_equal(engine_sequence_length(e, s), length);
    assert_true(length < n && length % ENGINE_PAGE_TOKENS == 0);
    for (uint32_t at = length, size; at < n; at += size) {
        size = chunk < n - at ? chunk : n - at;
        assert_int_equal(feed_step(e, s, tokens + at, size, &logits), 0);
        assert_int_equal(engine_prefix_keep(e, s, tokens, 0), 0);
        logits += (size_t)(size - 1) * feed_n_vocab(e);
    }
    memcpy(ret, logits, feed_n_vocab(e) * sizeof(*ret));
    engine_sequence_close(e, s);
    return length;
}

static void assert_reuse(const struct model_shape *shape, enum tensor_type k, enum tensor_type v, uint32_t n_pages,
                         uint32_t rounds)
{
    enum { CONVERSATIONS = 4 };
    struct engine_config config = models_config(3, N);
    int adapter = adapter_of(shape);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ float *expected = NULL, *got = NULL;
    int32_t *tokens[CONVERSATIONS];
    uint64_t seed = n_pages;
    uint32_t n_reused = 0, n_without = 0;

    config.k_type = k;
    config.v_type = v;
    config.context_tokens = 256;
    config.kv_tokens = n_pages * ENGINE_PAGE_TOKENS;
    config.adapters = &adapter;
    config.n_adapters = 1;
    e = models_open(shape, &config);
    close(adapter);
    expected = calloc(shape->n_vocab, sizeof(*expected));
    got = calloc(shape->n_vocab, sizeof(*got));
    assert_true(expected && got);
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        tokens[c] = models_tokens(1 + c, N, shape->n_vocab);
        memcpy(tokens[c], tokens[0], c * 40 * sizeof(int32_t));
    }
    for (uint32_t i = 0; i < rounds; i++) {
        uint64_t r = random_next(&seed);
        uint32_t c = r % CONVERSATIONS, n = 1 + (r >> 8) % N, adapted = (r >> 20) % 4 == 0, reused;

        alone(e, adapted, tokens[c], n, expected);
        reused = shared(e, 1 + (r >> 24) % 2, adapted, tokens[c], n, 1 + (r >> 32) % 70, got);
        assert_memory_equal(got, expected, shape->n_vocab * sizeof(*got));
        n_reused += reused;
        n_without += n > 64 && reused == 0;
    }
    assert_true(n_reused > rounds * 10 && n_without > 0);
    /* Nothing but what is kept holds pages. */
    assert_int_equal(engine_pages_free(e) + engine_prefix_pages(e), pages_total(e->pages[0]));
    engine_prefix_limit(e, 1, 0);
    engine_prefix_limit(e, 2, 0);
    assert_int_equal(engine_pages_free(e), pages_total(e->pages[0]));
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        free(tokens[c]);
}

static void what_is_reused_has_the_same_bits(void **state)
{
    struct model_shape shape = shape_of("llama", 0);

    assert_reuse(&shape, TENSOR_F32, TENSOR_F32, 40, 150);
    /* So few pages that most of what was kept is evicted again. */
    assert_reuse(&shape, TENSOR_F16, TENSOR_F16, 14, 150);
    assert_reuse(&shape, TENSOR_Q8_0, TENSOR_Q4_0, 20, 100);
}

static void windows_are_no_hindrance(void **state)
{
    struct model_shape all = shape_of("llama", 48), some = shape_of("gemma3", 40),
                       every_other = shape_of("gemma2", 70);

    assert_reuse(&all, TENSOR_F16, TENSOR_F16, 40, 150);
    assert_reuse(&some, TENSOR_F16, TENSOR_F16, 40, 150);
    assert_reuse(&some, TENSOR_F32, TENSOR_Q8_0, 14, 150);
    assert_reuse(&every_other, TENSOR_F16, TENSOR_F16, 30, 150);
}

static void latent_attention_is_reused_too(void **state)
{
    struct model_shape shape = shape_of("deepseek2", 0);

    shape.n_layers = 3;
    shape.n_experts = 8;
    shape.n_experts_used = 2;
    shape.head_dim = 32;
    shape.latent.kv_rank = 64;
    shape.latent.n_rot = 16;
    shape.latent.v_dim = 24;
    shape.latent.compressed = true;
    assert_reuse(&shape, TENSOR_F16, TENSOR_F16, 30, 60);
}

/* Forty requests with the same beginning at once take little more room than one. */
static void sequences_share_what_one_of_them_computed(void **state)
{
    enum { USERS = 10 };
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(USERS, N);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab);
    _cleanup_engine_ struct engine *e = NULL;
    uint32_t s[USERS], length;

    config.kv_tokens = (6 + 2 * USERS) * ENGINE_PAGE_TOKENS;
    config.context_tokens = 256;
    e = models_open(&shape, &config);
    for (uint32_t i = 0; i < USERS; i++) {
        assert_int_equal(engine_sequence_open(e, &s[i]), 0);
        assert_int_equal(engine_prefix_begin(e, s[i], 1, tokens, N, &length), 0);
        assert_int_equal(length, i > 0 ? 6 * 32 : 0);
        feed_tokens(e, s[i], tokens + length, N - length, N, NULL);
        assert_int_equal(engine_prefix_keep(e, s[i], tokens, 0), 0);
    }
    assert_int_equal(engine_pages_free(e), USERS);
    assert_int_equal(engine_prefix_pages(e), 0);
    for (uint32_t i = 0; i < USERS; i++)
        engine_sequence_close(e, s[i]);
    assert_int_equal(engine_prefix_pages(e), 6);
    assert_int_equal(engine_prefix_owned(e, 1), 6);
}

static void only_what_is_public_crosses_over(void **state)
{
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(2, N);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    _cleanup_free_ float *expected = calloc(shape.n_vocab, sizeof(*expected)),
                         *got = calloc(shape.n_vocab, sizeof(*got));
    uint32_t s, length;

    assert_true(expected && got);
    alone(e, 0, tokens, N, expected);
    assert_int_equal(engine_sequence_open(e, &s), 0);
    assert_int_equal(engine_prefix_keep(e, s, tokens, 0), -EINVAL);
    assert_int_equal(engine_prefix_begin(e, s, ENGINE_PREFIX_PUBLIC, tokens, N, &length), -EINVAL);
    assert_int_equal(engine_prefix_begin(e, s, 1, tokens, N, &length), 0);
    feed_tokens(e, s, tokens, N, N, NULL);
    /* 70 tokens are no secret: two whole pages. */
    assert_int_equal(engine_prefix_keep(e, s, tokens, 70), 0);
    assert_int_equal(engine_prefix_find(e, 2, 0, tokens, N), 64);
    assert_int_equal(engine_prefix_find(e, 1, 0, tokens, N), 192);
    assert_int_equal(engine_prefix_begin(e, s, 1, tokens, N, &length), -EINVAL);
    engine_sequence_close(e, s);
    assert_int_equal(engine_prefix_begin(e, s, 1, tokens, N, &length), -EINVAL);
    assert_int_equal(shared(e, 2, 0, tokens, N, N, got), 64);
    assert_memory_equal(got, expected, shape.n_vocab * sizeof(*got));
    assert_int_equal(engine_prefix_owned(e, ENGINE_PREFIX_PUBLIC), 2);
    assert_int_equal(engine_prefix_owned(e, 2), 4);
    engine_prefix_limit(e, 2, 0);
    engine_prefix_limit(e, 1, 0);
    assert_int_equal(engine_prefix_pages(e), 2);
}

/* What speculation takes back, and a cancelled sequence, leave nothing wrong behind. */
static void what_is_taken_back_is_not_found(void **state)
{
    struct model_shape shape = shape_of("gemma3", 40);
    struct engine_config config = models_config(2, N);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab), *others = models_tokens(2, N, shape.n_vocab);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    _cleanup_free_ float *expected = calloc(shape.n_vocab, sizeof(*expected)),
                         *got = calloc(shape.n_vocab, sizeof(*got));
    uint32_t s, length;

    assert_true(expected && got);
    assert_int_equal(engine_sequence_open(e, &s), 0);
    assert_int_equal(engine_prefix_begin(e, s, 1, tokens, N, &length), 0);
    feed_tokens(e, s, tokens, 90, 90, NULL);
    assert_int_equal(engine_prefix_keep(e, s, tokens, 0), 0);
    /* A draft over two borders of pages, all of it wrong. */
    feed_tokens(e, s, others, 70, 70, NULL);
    assert_int_equal(engine_sequence_truncate(e, s, 91), 0);
    memcpy(tokens + 90, others, sizeof(*tokens));
    assert_int_equal(engine_prefix_keep(e, s, tokens, 0), 0);
    assert_int_equal(engine_prefix_owned(e, 1), 2);
    feed_tokens(e, s, tokens + 91, N - 91, 33, NULL);
    assert_int_equal(engine_prefix_keep(e, s, tokens, 0), 0);
    engine_sequence_close(e, s);
    alone(e, 0, tokens, N, expected);
    assert_int_equal(shared(e, 1, 0, tokens, N, N, got), 192);
    assert_memory_equal(got, expected, shape.n_vocab * sizeof(*got));
}

/* Every byte of the pages of a sequence, behind one another. */
static uint8_t *memory_of(struct engine *e, uint32_t sequence, size_t *ret_n)
{
    const struct page_table *tables = e->sequences[sequence].tables;
    uint8_t *bytes = NULL;
    size_t n = 0;

    for (uint32_t g = 0; g < e->graph.n_groups; g++) {
        size_t page_bytes = e->layouts[g].page_bytes * e->graph.groups[g].n_layers;

        for (uint32_t i = tables[g].n_gone; i < tables[g].n; i++) {
            bytes = realloc(bytes, n + page_bytes);
            assert_non_null(bytes);
            memcpy(bytes + n, pages_memory(e->pages[g], tables[g].ids[i]), page_bytes);
            n += page_bytes;
        }
    }
    *ret_n = n;
    return bytes;
}

static void owners_leave_no_byte_behind(void **state)
{
    struct model_shape shape = shape_of("gemma2", 40);
    struct engine_config config = models_config(2, N);
    _cleanup_free_ int32_t *hers = models_tokens(1, N, shape.n_vocab), *his = models_tokens(2, N, shape.n_vocab);
    _cleanup_engine_ struct engine *fresh = NULL, *used = NULL;
    _cleanup_free_ float *logits = calloc(shape.n_vocab, sizeof(*logits));
    uint32_t a, b, length;

    config.kv_tokens = 7 * ENGINE_PAGE_TOKENS;
    config.k_type = config.v_type = TENSOR_F16;
    fresh = models_open(&shape, &config);
    used = models_open(&shape, &config);
    assert_non_null(logits);
    for (uint32_t n = 1; n < N; n += 37) {
        uint8_t *expected, *got;
        size_t n_expected, n_got;

        /* Her pages are all there is: kept, and evicted for his. */
        shared(used, 1, 0, hers, N, N, logits);
        assert_int_equal(engine_prefix_owned(used, 1), 6);
        assert_int_equal(engine_sequence_open(fresh, &a), 0);
        assert_int_equal(engine_sequence_open(used, &b), 0);
        assert_int_equal(engine_prefix_begin(used, b, 2, his, n, &length), 0);
        assert_int_equal(length, 0);
        feed_tokens(fresh, a, his, n, n, NULL);
        feed_tokens(used, b, his, n, n, NULL);
        expected = memory_of(fresh, a, &n_expected);
        got = memory_of(used, b, &n_got);
        assert_int_equal(n_got, n_expected);
        assert_memory_equal(got, expected, n_got);
        free(expected);
        free(got);
        engine_sequence_close(fresh, a);
        engine_sequence_close(used, b);
    }
    /* Trimmed, the pool holds nothing of anybody any more: not a byte of it is in memory. */
    engine_prefix_trim(used, UINT32_MAX);
    assert_int_equal(engine_pages_free(used), 7);
    for (uint32_t g = 0; g < used->graph.n_groups; g++) {
        size_t page_bytes = used->layouts[g].page_bytes * used->graph.groups[g].n_layers;

        for (uint32_t i = 0; i < pages_total(used->pages[g]); i++) {
            const uint8_t *page = pages_memory(used->pages[g], i);

            for (size_t k = 0; k < page_bytes; k++)
                assert_int_equal(page[k], 0);
        }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_reused_has_the_same_bits),
        cmocka_unit_test(windows_are_no_hindrance),
        cmocka_unit_test(latent_attention_is_reused_too),
        cmocka_unit_test(sequences_share_what_one_of_them_computed),
        cmocka_unit_test(only_what_is_public_crosses_over),
        cmocka_unit_test(what_is_taken_back_is_not_found),
        cmocka_unit_test(owners_leave_no_byte_behind),
    };

    return cmocka_run_group_tests_name("engine-prefix", tests, NULL, NULL);
}
