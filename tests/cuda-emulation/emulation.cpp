/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fibers, and what they may do. A block's threads are fibers that run until they have to wait: at an exchange for the
 * other lanes of their warp, at a barrier for all threads of the block. The scheduler goes round all of them until none
 * can go on.
 *
 * The shadow. For every byte of shared memory, and of global memory that was allowed, it is kept who wrote it last and
 * who read it last since, and when: the number of barriers that its block had passed, and of synchronisations that its
 * warp had. Two accesses by different threads, one of them a write, are a race unless a barrier (or, within a warp,
 * warp_sync()) lies between them. Shuffles order no memory. Different blocks of one launch are always concurrent.
 */
#include "tests/cuda-emulation/emulated.hh"

#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

enum {
    THREADS_MAX = 1024,
    STACK_BYTES = 32768,
    SHARED_BYTES = 49152,
    SHARED_IDS_MAX = 32,
    REGIONS_MAX = 64,
};

extern "C" void emulation_switch(void **from, void *to);

/* Saves what a called function must preserve, changes the stack, restores. */
asm(".text\n"
    ".globl emulation_switch\n"
    ".type emulation_switch, @function\n"
    "emulation_switch:\n"
    "    pushq %rbx\n    pushq %rbp\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbp\n    popq %rbx\n"
    "    ret\n"
    ".size emulation_switch, . - emulation_switch\n");

struct fiber {
    void *stack_at;
    enum emulation_wait state;
    uint32_t what;         /* of an exchange */
    uint32_t n_exchanges;  /* parity chooses the box */
    uint32_t words[2][8];
};

/* Who touched a byte last. Threads are numbered from 1 within their block. */
struct stamp {
    uint32_t block;   /* of the launch, counted over all launches; another one: nobody of this launch */
    uint16_t writer, reader; /* reader: MANY or MANY_OF_WARP when there are several */
    uint32_t write_barrier, read_barrier;
    uint32_t write_sync, read_sync;
};

#define MANY UINT16_MAX
#define MANY_OF_WARP 0x8000u /* and the warp's number: several of its lanes */

struct region {
    const unsigned char *at;
    size_t n_bytes;
    bool writable;
    struct stamp *stamps;
};

struct machine {
    struct fiber fibers[THREADS_MAX];
    unsigned char *stacks;
    void *scheduler_at;
    void (*body)(const void *);
    const void *args;
    const char *name;
    uint32_t n_threads, n_barriers, block_number, launch_first_block;
    uint32_t n_syncs[THREADS_MAX / 32];
    alignas(16) unsigned char shared[SHARED_BYTES];
    struct stamp shared_stamps[SHARED_BYTES];
    const void *shared_ids[SHARED_IDS_MAX];
    size_t shared_ats[SHARED_IDS_MAX];
    uint32_t n_shared_ids;
    size_t shared_used;
    uint32_t seed;
    int fault;
    char message[256];
    struct region regions[REGIONS_MAX];
    uint32_t n_regions;
    uint32_t boxes[THREADS_MAX / 32][2][32][8];
};

thread_local struct emulation_self emulation_self;

/* Large, and zero until used: calloc() takes it from the kernel, page by page as it is touched. */
static struct machine *machine_new()
{
    struct machine *m = (struct machine *)calloc(1, sizeof(*m));

    if (!m)
        abort();
    m->stacks = (unsigned char *)mmap(NULL, (size_t)THREADS_MAX * STACK_BYTES, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->stacks == MAP_FAILED)
        abort();
    return m;
}

static void machine_free(struct machine *m)
{
    if (!m)
        return;
    munmap(m->stacks, (size_t)THREADS_MAX * STACK_BYTES);
    for (uint32_t i = 0; i < m->n_regions; i++)
        free(m->regions[i].stamps);
    free(m);
}

/* Each thread has its own, freed when it ends. */
static struct machine &the_machine()
{
    struct owner {
        struct machine *m = nullptr;
        ~owner()
        {
            machine_free(m);
        }
    };
    static thread_local struct owner owner;

    if (!owner.m)
        owner.m = machine_new();
    return *owner.m;
}

/* --- the list of kernels --- */

static struct emulation_entry *&entries()
{
    static struct emulation_entry *first;

    return first;
}

emulation_entry::emulation_entry(const char *name, size_t args_bytes, emulation_run_fn run)
    : kernel{name, args_bytes, run}, next(entries())
{
    entries() = this;
}

const struct emulation_kernel *emulated_kernel(const char *name)
{
    for (struct emulation_entry *e = entries(); e; e = e->next)
        if (strcmp(e->kernel.name, name) == 0)
            return &e->kernel;
    return NULL;
}

const char *emulation_message(void)
{
    return the_machine().message;
}

void emulation_order(uint32_t seed)
{
    the_machine().seed = seed;
}

void emulation_forget(void)
{
    struct machine &m = the_machine();

    for (uint32_t i = 0; i < m.n_regions; i++)
        free(m.regions[i].stamps);
    m.n_regions = 0;
}

void emulation_allow(const void *memory, size_t n_bytes, int writable)
{
    struct machine &m = the_machine();

    if (m.n_regions == REGIONS_MAX)
        abort();
    m.regions[m.n_regions++] = {(const unsigned char *)memory, n_bytes, writable != 0,
                                (struct stamp *)calloc(n_bytes ? n_bytes : 1, sizeof(struct stamp))};
}

/* --- faults --- */

/* Ends the launch: this fiber never runs again. */
__attribute__((format(printf, 2, 3))) static void fail(int fault, const char *format, ...)
{
    struct machine &m = the_machine();

    if (m.fault == EMULATION_OK) {
        int n = snprintf(m.message, sizeof(m.message), "%s, block (%u, %u, %u), thread %u: ", m.name, emulation_self.block[0],
                         emulation_self.block[1], emulation_self.block[2], emulation_self.thread);
        va_list list;

        va_start(list, format);
        vsnprintf(m.message + n, sizeof(m.message) - (size_t)n, format, list);
        va_end(list);
        m.fault = fault;
    }
    for (;;)
        emulation_wait_for(EMULATION_ENDED);
}

/* The warp of whoever read; none for MANY. */
static uint32_t reader_warp(uint16_t reader)
{
    if (reader == MANY)
        return UINT32_MAX;
    return reader & MANY_OF_WARP ? reader & ~MANY_OF_WARP : (reader - 1u) / 32;
}

static void touch(struct machine &m, struct stamp *s, bool is_write, bool is_shared, const void *at)
{
    uint16_t self = (uint16_t)(emulation_self.thread + 1);
    uint32_t warp = emulation_self.thread / 32, sync = m.n_syncs[warp];
    bool this_launch = s->block >= m.launch_first_block;

    if (this_launch && !is_shared && s->block != m.block_number) {
        /* Of another block, which has ended here and need not have on a GPU. */
        if (is_write ? (s->writer != 0 || s->reader != 0) : s->writer != 0)
            fail(EMULATION_RACE, "%s %p, which another block %s", is_write ? "write to" : "read of", at,
                 s->writer != 0 ? "writes" : "reads");
    }
    if (!this_launch || s->block != m.block_number) {
        if (is_shared && !is_write)
            fail(EMULATION_UNINITIALISED, "read of shared byte %zu, which nobody wrote", (size_t)((const unsigned char *)at - m.shared));
        /* What an earlier block read stays known, so that a later block's write is seen: only for global memory. */
        *s = {m.block_number, 0, 0, 0, 0, 0, 0};
    }
    if (is_shared && !is_write && s->writer == 0)
        fail(EMULATION_UNINITIALISED, "read of shared byte %zu, which nobody wrote", (size_t)((const unsigned char *)at - m.shared));

    if (s->writer != 0 && s->writer != self && s->write_barrier == m.n_barriers &&
        ((uint32_t)(s->writer - 1) / 32 != warp || s->write_sync == sync))
        fail(EMULATION_RACE, "%s %p, written by thread %u without a barrier between", is_write ? "write to" : "read of",
             at, s->writer - 1u);
    if (is_write && s->reader != 0 && s->reader != self && s->read_barrier == m.n_barriers &&
        (reader_warp(s->reader) != warp || s->read_sync == sync))
        fail(EMULATION_RACE, "write to %p, read by another thread (%u) without a barrier between", at, s->reader - 1u);

    if (is_write) {
        s->writer = self;
        s->write_barrier = m.n_barriers;
        s->write_sync = sync;
        s->reader = 0;
        return;
    }
    if (s->reader == 0 || s->read_barrier != m.n_barriers || (reader_warp(s->reader) == warp && s->read_sync != sync))
        s->reader = self;
    else if (reader_warp(s->reader) != warp)
        s->reader = MANY;
    else if (s->reader != self)
        s->reader = (uint16_t)(MANY_OF_WARP | warp);
    s->read_barrier = m.n_barriers;
    s->read_sync = sync;
}

void emulation_access(const void *p, size_t n_bytes, size_t align, bool is_write)
{
    struct machine &m = the_machine();
    const unsigned char *at = (const unsigned char *)p;

    if ((uintptr_t)at % align != 0)
        fail(EMULATION_MISALIGNED, "%s %zu bytes at %p", is_write ? "write of" : "read of", n_bytes, p);
    if (at >= m.shared && at < m.shared + SHARED_BYTES) {
        size_t i = (size_t)(at - m.shared);

        if (i + n_bytes > m.shared_used)
            fail(EMULATION_OUT_OF_BOUNDS, "shared byte %zu of %zu", i + n_bytes - 1, m.shared_used);
        for (size_t k = 0; k < n_bytes; k++)
            touch(m, &m.shared_stamps[i + k], is_write, true, at + k);
        return;
    }
    for (uint32_t r = m.n_regions; r-- > 0;) {
        struct region *region = &m.regions[r];

        if (at < region->at || at >= region->at + region->n_bytes)
            continue;
        if ((size_t)(region->at + region->n_bytes - at) < n_bytes)
            break;
        if (is_write && !region->writable)
            fail(EMULATION_READ_ONLY, "write to %p", p);
        if (region->writable)
            for (size_t k = 0; k < n_bytes; k++)
                touch(m, &region->stamps[at - region->at + (ptrdiff_t)k], is_write, false, at + k);
        return;
    }
    fail(EMULATION_OUT_OF_BOUNDS, "%s %zu bytes at %p, which are nobody's", is_write ? "write of" : "read of", n_bytes, p);
}

void *emulation_shared(const void *id, size_t n_bytes)
{
    struct machine &m = the_machine();
    size_t at;

    for (uint32_t i = 0; i < m.n_shared_ids; i++)
        if (m.shared_ids[i] == id)
            return m.shared + m.shared_ats[i];
    at = (m.shared_used + 15) / 16 * 16;
    if (m.n_shared_ids == SHARED_IDS_MAX || at + n_bytes > SHARED_BYTES)
        fail(EMULATION_SHAPE, "%zu bytes of shared memory", at + n_bytes);
    m.shared_ids[m.n_shared_ids] = id;
    m.shared_ats[m.n_shared_ids++] = at;
    m.shared_used = at + n_bytes;
    return m.shared + at;
}

/* --- fibers --- */

void emulation_wait_for(enum emulation_wait what)
{
    struct machine &m = the_machine();
    struct fiber *f = &m.fibers[emulation_self.thread];

    f->state = what;
    if (what == EMULATION_WARP)
        f->what = 0;
    emulation_switch(&f->stack_at, m.scheduler_at);
}

const uint32_t (*emulation_exchange(uint32_t what, const uint32_t words[8]))[8]
{
    struct machine &m = the_machine();
    struct fiber *f = &m.fibers[emulation_self.thread];
    uint32_t box = f->n_exchanges++ % 2, warp = emulation_self.thread / 32;

    memcpy(m.boxes[warp][box][emulation_self.thread % 32], words, sizeof(m.boxes[0][0][0]));
    f->state = EMULATION_WARP;
    f->what = what;
    emulation_switch(&f->stack_at, m.scheduler_at);
    return m.boxes[warp][box];
}

static void fiber_main()
{
    struct machine &m = the_machine();

    m.body(m.args);
    for (;;)
        emulation_wait_for(EMULATION_ENDED);
}

static void fiber_begin(struct machine &m, uint32_t i)
{
    void **top = (void **)(void *)(m.stacks + ((size_t)i + 1) * STACK_BYTES);

    /* At the first instruction of fiber_main() the stack is as behind a call: 8 below a multiple of 16. */
    *--top = NULL;
    *--top = (void *)fiber_main;
    for (int k = 0; k < 6; k++)
        *--top = NULL;
    m.fibers[i] = {};
    m.fibers[i].stack_at = top;
}

/* Runs thread @i until it waits. */
static void fiber_run(struct machine &m, uint32_t i)
{
    emulation_self.thread = i;
    emulation_switch(&m.scheduler_at, m.fibers[i].stack_at);
}

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

/* Lets all lanes of @warp run that can; true if any did. */
static bool warp_run(struct machine &m, uint32_t warp, uint32_t random)
{
    bool ran = false;

    for (uint32_t k = 0; k < 32; k++) {
        uint32_t i = warp * 32 + (k * (random | 1) + random / 64) % 32;

        if (i < m.n_threads && m.fibers[i].state == EMULATION_RUNS) {
            fiber_run(m, i);
            ran = true;
            if (m.fault)
                return true;
        }
    }
    return ran;
}

/* Lets a warp go on whose lanes all wait for each other; true if it does. */
static bool warp_release(struct machine &m, uint32_t warp)
{
    uint32_t first = warp * 32;

    for (uint32_t i = first; i < first + 32; i++)
        if (i >= m.n_threads || m.fibers[i].state != EMULATION_WARP || m.fibers[i].what != m.fibers[first].what)
            return false;
    if (m.fibers[first].what == 0)
        m.n_syncs[warp]++;
    for (uint32_t i = first; i < first + 32; i++)
        m.fibers[i].state = EMULATION_RUNS;
    return true;
}

/* True when the block has ended, or gone past a barrier. */
static bool block_release(struct machine &m, bool *ret_ended)
{
    uint32_t n_waiting = 0, n_ended = 0;

    for (uint32_t i = 0; i < m.n_threads; i++) {
        n_waiting += m.fibers[i].state == EMULATION_BARRIER;
        n_ended += m.fibers[i].state == EMULATION_ENDED;
    }
    *ret_ended = n_ended == m.n_threads;
    if (n_waiting + n_ended < m.n_threads || *ret_ended)
        return *ret_ended;
    for (uint32_t i = 0; i < m.n_threads; i++)
        if (m.fibers[i].state == EMULATION_BARRIER)
            m.fibers[i].state = EMULATION_RUNS;
    m.n_barriers++;
    return true;
}

static void block_run(struct machine &m, unsigned shared_bytes)
{
    uint32_t n_warps = (m.n_threads + 31) / 32, random = m.seed;
    bool ended = false;

    m.block_number++;
    m.n_barriers = 0;
    m.n_shared_ids = 0;
    m.shared_used = shared_bytes;
#ifdef EMULATION_CHECKED
    memset(m.shared, 0xFE, sizeof(m.shared)); /* NaN as floats */
#endif
    memset(m.n_syncs, 0, sizeof(m.n_syncs));
    for (uint32_t i = 0; i < m.n_threads; i++)
        fiber_begin(m, i);
    while (!ended && !m.fault) {
        bool moved = false;
        uint32_t turn = random ? next_random(&random) : 0;

        for (uint32_t k = 0; k < n_warps && !m.fault; k++) {
            uint32_t warp = (k + turn) % n_warps;

            /* As long as it can go on by itself: switching between warps would only cost time. */
            do {
                moved = warp_run(m, warp, random ? next_random(&random) : 0) || moved;
            } while (!m.fault && warp_release(m, warp) && (!random || next_random(&random) % 4));
        }
        if (m.fault)
            return;
        if (block_release(m, &ended) || moved)
            continue;
        emulation_self.thread = 0;
        snprintf(m.message, sizeof(m.message), "%s, block (%u, %u, %u): threads wait at different places", m.name,
                 emulation_self.block[0], emulation_self.block[1], emulation_self.block[2]);
        m.fault = EMULATION_DIVERGED;
    }
}

int emulation_launch(void (*body)(const void *), const char *name, size_t args_bytes, const unsigned grid[3],
                     const unsigned block[3], unsigned shared_bytes, const void *args)
{
    struct machine &m = the_machine();

    (void)args_bytes;
    m.body = body;
    m.args = args;
    m.name = name;
    m.n_threads = block[0] * block[1] * block[2];
    m.fault = EMULATION_OK;
    m.message[0] = '\0';
    if (m.n_threads == 0 || m.n_threads > THREADS_MAX || shared_bytes > SHARED_BYTES || block[1] != 1 || block[2] != 1) {
        snprintf(m.message, sizeof(m.message), "%s: %u threads, %u bytes of shared memory", name, m.n_threads, shared_bytes);
        return EMULATION_SHAPE;
    }
    m.launch_first_block = m.block_number + 1;
    emulation_self.dynamic = m.shared;
    for (uint32_t i = 0; i < 3; i++)
        emulation_self.grid[i] = grid[i];
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0] && !m.fault; x++) {
                emulation_self.block[0] = x;
                emulation_self.block[1] = y;
                emulation_self.block[2] = z;
                block_run(m, shared_bytes);
            }
    return m.fault;
}
