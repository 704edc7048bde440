/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A pool of threads that run one function together, with barriers inside it. The caller of threads_run() is thread 0
 * and works too. Between and within runs a waiting thread spins for at most THREADS_SPIN_NS and then sleeps: a pool
 * that has nothing to do costs nothing, and one that shares its cores with others gives them up.
 *
 * What is computed must not depend on who computes it: a run hands out thread numbers, never an order.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

#define THREADS_MAX     1024
#define THREADS_SPIN_NS 50000

struct threads;

typedef void (*threads_fn)(void *userdata, uint32_t thread, uint32_t n_threads);
typedef void (*threads_serial_fn)(void *userdata);

/**
 * threads_cores() - how many threads are worth having: the physical cores among the CPUs that the process may use
 */
uint32_t threads_cores(void);

/**
 * threads_new() - a pool of @n threads (1 … THREADS_MAX), of which @n - 1 are created
 * They are pinned, one to a core, only where the pool has a thread for each core that the process may use: then
 * nothing else of ours can want those cores, and a thread that wanders would share one with a neighbour.
 * Returns 0, -EINVAL, -ENOMEM, -EAGAIN.
 */
int threads_new(uint32_t n, struct threads **ret);

/**
 * threads_free() - end the threads; not during a run. Takes NULL, returns NULL
 */
struct threads *threads_free(struct threads *t);

DEFINE_CLEANUP(struct threads *, threads_free)

/**
 * threads_count() - the threads of the pool, the caller's included
 */
uint32_t threads_count(const struct threads *t);

/**
 * threads_run() - call fn(@userdata, i, n) on all threads and return when all have returned
 * One run at a time. Memory written before the call is seen by all threads, and what they wrote by the caller.
 */
void threads_run(struct threads *t, threads_fn fn, void *userdata);

/**
 * threads_barrier() - within a run: return once all threads of the pool have called it
 * @serial: may be NULL; called by the last thread to arrive, before the others go on
 */
void threads_barrier(struct threads *t, threads_serial_fn serial, void *userdata);
