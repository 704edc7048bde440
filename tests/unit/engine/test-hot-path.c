/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A step allocates nothing: the linker sends every call of an allocator that our code makes through the
 * functions here (meson.build, --wrap), which count while a step runs.
 */
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "tests/unit/engine/models.h"

static _Atomic bool counting;
static _Atomic unsigned n_calls;

#define COUNT() (counting ? (void)n_calls++ : (void)0)

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
void __real_free(void *p);
void __wrap_free(void *p);
void *__real_mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t n)
{
    COUNT();
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    COUNT();
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    COUNT();
    return __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    COUNT();
    return __real_aligned_alloc(alignment, n);
}

void __wrap_free(void *p)
{
    COUNT();
    __real_free(p);
}

void *__wrap_mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset)
{
    COUNT();
    return __real_mmap(p, n, protection, flags, fd, offset);
}

#define SEQUENCES 4u
#define STEPS     70u /* over two borders of pages */

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

/* One prompt chunk and then decode steps of all sequences, every other one with an adapter; all arrays are ready before
 * counting begins. */
static unsigned count_calls(enum tensor_type type, uint32_t n_threads)
{
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(SEQUENCES, 40);
    _cleanup_engine_ struct engine *e = NULL;
    uint32_t sequences[40], positions[40], numbers[SEQUENCES];
    uint8_t wants[40] = {0};
    int32_t tokens[40] = {0};
    struct engine_batch batch = {
        .tokens = tokens, .sequences = sequences, .positions = positions, .wants_logits = wants};
    const float *logits;
    int adapter;

    shape.dim = shape.ff = 256;
    shape.type = type;
    config.n_threads = n_threads;
    config.k_type = config.v_type = TENSOR_F16;
    adapter = adapter_of(&shape);
    config.adapters = &adapter;
    config.n_adapters = 1;
    e = models_open(&shape, &config);
    close(adapter);
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        assert_int_equal(engine_sequence_open(e, &numbers[s]), 0);
        assert_int_equal(engine_sequence_adapt(e, numbers[s], s % 2), 0);
    }

    n_calls = 0;
    counting = true;
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        batch.n_tokens = 20;
        for (uint32_t i = 0; i < 20; i++) {
            sequences[i] = numbers[s];
            positions[i] = i;
        }
        if (engine_step(e, &batch, &logits, NULL) != 0)
            abort();
    }
    batch.n_tokens = SEQUENCES;
    for (uint32_t i = 0; i < STEPS; i++) {
        for (uint32_t s = 0; s < SEQUENCES; s++) {
            sequences[s] = numbers[s];
            positions[s] = 20 + i;
            wants[s] = 1;
        }
        if (engine_step(e, &batch, &logits, NULL) != 0)
            abort();
    }
    counting = false;
    return n_calls;
}

static void steps_allocate_nothing(void **state)
{
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_Q8_0, TENSOR_Q4_K};

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        assert_int_equal(count_calls(types[i], 1), 0);
        assert_int_equal(count_calls(types[i], 3), 0);
    }
}

/* The guard itself: loading a model does allocate, and that is seen. */
static void the_guard_sees_allocations(void **state)
{
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, 1);
    struct engine *e;

    n_calls = 0;
    counting = true;
    e = models_open(&shape, &config);
    counting = false;
    engine_free(e);
    assert_true(n_calls > 10);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(the_guard_sees_allocations),
    };

    return cmocka_run_group_tests_name("hot path", tests, NULL, NULL);
}
