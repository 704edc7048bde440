/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pool. Two words are waited on, each with the same loop (spin, then futex): `run`, which counts runs, by the
 * helpers; `phase`, which counts barriers passed, by everybody. The end of a run is a barrier too.
 *
 * Memory order: whoever changes a word releases what it wrote before, whoever sees the change acquires it. The count
 * of arrivals is acq_rel, so that the last thread to arrive, which runs the serial part, sees all others' work.
 * `sleepers` and the word are both sequentially consistent: either the waker sees the sleeper and wakes it, or the
 * sleeper's futex call sees the changed word and returns.
 */

#include "engine/cpu/threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "engine/cpu/topology.h"

/* A word that threads wait on, alone in its cache line. */
struct signal {
    _Alignas(128) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
};

struct helper {
    struct threads *pool;
    pthread_t thread;
    uint32_t number;
};

struct threads {
    struct signal run, phase;
    _Alignas(128) _Atomic uint32_t arrived;
    uint32_t n;
    threads_fn fn; /* NULL: end */
    void *userdata;
    uint32_t n_helpers; /* created so far */
    struct helper *helpers;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void signal_wait(struct signal *s, uint32_t old)
{
    uint64_t start = 0;

    for (;;) {
        /* The clock is looked at every few dozen pauses: reading it costs as much as they do. */
        for (int i = 0; i < 64; i++) {
            if (atomic_load_explicit(&s->value, memory_order_acquire) != old)
                return;
            relax();
        }
        if (start == 0)
            start = now_ns();
        else if (now_ns() - start > THREADS_SPIN_NS)
            break;
    }
    atomic_fetch_add(&s->sleepers, 1);
    while (atomic_load(&s->value) == old)
        syscall(SYS_futex, &s->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&s->sleepers, 1);
}

static void signal_raise(struct signal *s)
{
    atomic_fetch_add(&s->value, 1);
    if (atomic_load(&s->sleepers) > 0)
        syscall(SYS_futex, &s->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void threads_barrier(struct threads *t, threads_serial_fn serial, void *userdata)
{
    uint32_t phase;

    if (t->n == 1) {
        if (serial)
            serial(userdata);
        return;
    }
    /* Read before arriving: the phase can't change until this thread has arrived. */
    phase = atomic_load_explicit(&t->phase.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == t->n) {
        if (serial)
            serial(userdata);
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        signal_raise(&t->phase);
    } else {
        signal_wait(&t->phase, phase);
    }
}

static void *helper_main(void *userdata)
{
    struct helper *h = userdata;
    struct threads *t = h->pool;
    uint32_t seen = 0;

    for (;;) {
        signal_wait(&t->run, seen);
        seen++;
        if (!t->fn)
            return NULL;
        t->fn(t->userdata, h->number, t->n);
        threads_barrier(t, NULL, NULL);
    }
}

void threads_run(struct threads *t, threads_fn fn, void *userdata)
{
    t->fn = fn;
    t->userdata = userdata;
    if (t->n > 1)
        signal_raise(&t->run);
    fn(userdata, 0, t->n);
    threads_barrier(t, NULL, NULL);
}

/* Failure to pin is no failure: a seccomp filter or a cpuset may forbid it, and nothing but speed depends on it. */
static void pin(pthread_t thread, uint16_t cpu)
{
    union {
        cpu_set_t set;
        unsigned char bytes[TOPOLOGY_CPUS_MAX / 8];
    } one = {.bytes = {0}};

    CPU_SET_S(cpu, sizeof(one.bytes), &one.set);
    (void)pthread_setaffinity_np(thread, sizeof(one.bytes), &one.set);
}

uint32_t threads_cores(void)
{
    struct topology topology;

    topology_read(&topology);
    return topology.n_cores < THREADS_MAX ? (uint32_t)topology.n_cores : THREADS_MAX;
}

int threads_new(uint32_t n, struct threads **ret)
{
    _cleanup_(threads_freep) struct threads *t = NULL;
    struct topology topology;
    sigset_t all, old;
    int r = 0;

    if (n == 0 || n > THREADS_MAX)
        return -EINVAL;
    t = aligned_alloc(_Alignof(struct threads), sizeof(*t));
    if (!t)
        return -ENOMEM;
    *t = (struct threads){.n = n};
    t->helpers = calloc(n, sizeof(*t->helpers));
    if (!t->helpers)
        return -ENOMEM;

    /* Signals are for the program's own threads, but for the one that a thread brings upon itself where a file's pages
     * are gone: blocked, it would kill and not be handled. */
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (uint32_t i = 1; i < n && r == 0; i++) {
        struct helper *h = &t->helpers[i - 1];

        *h = (struct helper){.pool = t, .number = i};
        r = -pthread_create(&h->thread, NULL, helper_main, h);
        if (r == 0)
            t->n_helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r < 0)
        return r;

    topology_read(&topology);
    if (topology.n_cores > 1 && n == topology.n_cores)
        for (uint32_t i = 1; i < n; i++)
            pin(t->helpers[i - 1].thread, topology.cpus[i]);

    *ret = TAKE_PTR(t);
    return 0;
}

struct threads *threads_free(struct threads *t)
{
    if (!t)
        return NULL;
    if (t->n_helpers > 0) {
        t->fn = NULL;
        signal_raise(&t->run);
        for (uint32_t i = 0; i < t->n_helpers; i++)
            pthread_join(t->helpers[i].thread, NULL);
    }
    free(t->helpers);
    free(t);
    return NULL;
}

uint32_t threads_count(const struct threads *t)
{
    return t->n;
}
