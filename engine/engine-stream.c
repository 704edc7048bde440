/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the weights for other ends than computing: so that all of them are where they can be read, and to see how
 * fast that is. Of the built-in stream test, each thread adds up its share of the mapped weights, word by word, front
 * to back. It fetches ahead as the kernels do: without that, a processor whose own prefetching stops at each page reads
 * at half the speed.
 */

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "engine/engine-internal.h"

#define STREAM_AHEAD 6144 /* bytes; as far as the kernels' (docs/performance.md, What was tried) */

struct stream {
    const struct gguf_part *parts;
    size_t n_parts;
    uint64_t n_bytes;         /* to read, over all parts */
    _Atomic uint64_t checksum; /* so that nobody can leave the reading out */
};

static uint64_t add_up(const uint8_t *p, uint64_t n)
{
    uint64_t sum[16] = {0};

    for (uint64_t i = 0; i + sizeof(sum) <= n; i += sizeof(sum)) {
        uint64_t word[16];

        __builtin_prefetch(p + i + STREAM_AHEAD, 0, 2); /* a hint: the address may lie behind the end */
        __builtin_prefetch(p + i + STREAM_AHEAD + 64, 0, 2);
        memcpy(word, p + i, sizeof(word));
        for (size_t k = 0; k < 16; k++)
            sum[k] += word[k];
    }
    for (size_t k = 1; k < 16; k++)
        sum[0] += sum[k];
    return sum[0];
}

static void stream_share(void *userdata, uint32_t thread, uint32_t n_threads)
{
    struct stream *s = userdata;
    uint64_t share = s->n_bytes / n_threads / 4096 * 4096, from = thread * share;
    uint64_t to = thread + 1 == n_threads ? s->n_bytes : from + share, part0 = 0, sum = 0;

    for (size_t i = 0; i < s->n_parts && part0 < to; part0 += s->parts[i++].n_bytes) {
        uint64_t past = part0 + s->parts[i].n_bytes;
        uint64_t first = from > part0 ? from : part0, end = to < past ? to : past;

        if (first < end)
            sum += add_up((const uint8_t *)s->parts[i].data + (first - part0), end - first);
    }
    atomic_fetch_add_explicit(&s->checksum, sum, memory_order_relaxed);
}

/* Pieces that a thread touches at a time. */
#define TOUCH_BYTES ((uint64_t)2 << 20)

static bool is_released(const struct engine *e, size_t part, uint64_t at)
{
    for (size_t i = 0; i < e->facts.n_released; i++) {
        const struct engine_range *r = &e->facts.released[i];

        if (r->file == part && at >= r->from && at - r->from < r->n_bytes)
            return true;
    }
    return false;
}

static void touch_share(void *userdata, uint32_t thread, uint32_t n_threads)
{
    const struct engine *e = userdata;
    size_t n_parts;
    const struct gguf_part *parts = gguf_map_parts(e->map, &n_parts);
    uint64_t i_piece = 0;

    for (size_t i = 0; i < n_parts; i++) {
        for (uint64_t at = 0; at < parts[i].n_bytes; at += TOUCH_BYTES) {
            uint64_t left = parts[i].n_bytes - at, n = left < TOUCH_BYTES ? left : TOUCH_BYTES;

            if (i_piece++ % n_threads != thread || is_released(e, i, at))
                continue;
            for (uint64_t k = 0; k < n; k += 4096)
                (void)*((const volatile uint8_t *)parts[i].data + at + k);
        }
    }
}

void engine_touch(struct engine *e)
{
    threads_run(e->threads, touch_share, e);
}

static uint64_t run(struct threads *threads, struct stream *s)
{
    struct timespec start, end;

    clock_gettime(CLOCK_MONOTONIC, &start);
    threads_run(threads, stream_share, s);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (uint64_t)(end.tv_sec - start.tv_sec) * 1000000000u + (uint64_t)end.tv_nsec - (uint64_t)start.tv_nsec;
}

uint64_t engine_stream_memory(struct threads *threads, const void *memory, uint64_t n_bytes)
{
    const struct gguf_part part = {.data = memory, .n_bytes = n_bytes};
    struct stream s = {.parts = &part, .n_parts = 1, .n_bytes = n_bytes};

    return run(threads, &s);
}

void engine_stream(struct engine *e, uint64_t bytes_max, uint64_t *ret_bytes, uint64_t *ret_ns)
{
    struct stream s = {.n_bytes = gguf_map_bytes(e->map)};

    if (s.n_bytes > bytes_max)
        s.n_bytes = bytes_max;
    s.parts = gguf_map_parts(e->map, &s.n_parts);
    *ret_ns = run(e->threads, &s);
    *ret_bytes = s.n_bytes;
}
