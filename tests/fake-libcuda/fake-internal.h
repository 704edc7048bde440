/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files of the test double share. One lock is held during each call, kernels included.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/cuda-emulation/emulation.h"
#include "tests/fake-libcuda/fake.h"

#define FAKE_DEVICES_MAX 8

/* Memory that was given out: of a device, or of the host. */
struct fake_memory {
    struct fake_memory *next;
    uint8_t *data;
    size_t n_bytes, charged_bytes;
    int device; /* -1: pinned; -2: registered */
};

enum fake_command_type { FAKE_COPY, FAKE_SET, FAKE_LAUNCH, FAKE_EVENT };

struct cuda_event {
    uint64_t n_waiting; /* records that a stream has not come to */
    struct cuda_stream *stream;
};

/* What a stream will do, in order. */
struct fake_command {
    struct fake_command *next;
    enum fake_command_type type;
    void *to;
    const void *from;
    size_t n_bytes;
    unsigned char value;
    struct cuda_event *event;
    const struct emulation_kernel *kernel;
    unsigned grid[3], block[3], shared_bytes;
    void *argument; /* copied at the launch */
};

struct fake_list {
    struct fake_command *first, **last;
};

struct cuda_stream {
    struct cuda_stream *next;
    int device;
    struct fake_list commands;
    struct cuda_graph *capturing;
    bool spoiled; /* by a call that a capture does not allow */
};

struct cuda_graph {
    struct fake_list commands;
};

struct fake {
    pthread_mutex_t lock;
    bool initialised, lost;
    struct fake_counts counts;
    int n_devices, n_gone, capability, init_error, module_error, lost_error;
    uint64_t vram_bytes, others_bytes, context_bytes, refuse, refuse_all, full, full_all, lost_at, copy_ns;
    uint64_t n_with_file; /* calls since FAKE_CUDA_FULL_FILE is there */
    bool no_register;
    const char *lost_file, *full_file, *report;
    uint64_t held[FAKE_DEVICES_MAX];
    unsigned n_contexts[FAKE_DEVICES_MAX];
    struct fake_memory *memory;
    struct cuda_stream *streams;
};

/* The one state of the library: a driver has one, too. */
extern struct fake fake;

/* The device of the calling thread's context; -1: none. */
extern _Thread_local int fake_device;

/* What the calling thread captures; NULL. */
extern _Thread_local struct cuda_stream *fake_capturing;

/**
 * fake_enter() - begin a call: takes the lock and counts; the error that the call must return at once, or 0
 */
int fake_enter(void);

/**
 * fake_work() - the same, of a call that has the device do something, for which the driver may have no memory
 */
int fake_work(void);

/**
 * fake_leave() - end it; returns @error
 */
int fake_leave(int error);

/**
 * fake_memory_of() - the memory that @n_bytes from @p on are all in; NULL: none, which is counted
 */
struct fake_memory *fake_memory_of(const void *p, size_t n_bytes);

/**
 * fake_list_add() - append a copy of @c, whose argument is taken over; CUDA_SUCCESS or CUDA_OUT_OF_MEMORY
 */
int fake_list_add(struct fake_list *l, const struct fake_command *c);

/**
 * fake_list_clear() - forget all commands
 */
void fake_list_clear(struct fake_list *l);

/**
 * fake_stream_run() - do what the stream has to, up to the last record of @event (NULL: all); an error of a kernel or 0
 */
int fake_stream_run(struct cuda_stream *s, struct cuda_event *event);

/**
 * fake_uncapturable() - @error, or the error of a call that the calling thread's capture does not allow, and ends
 */
int fake_uncapturable(int error);

/**
 * fake_is_refused() - count an allocation; whether it is one of those that are refused
 */
bool fake_is_refused(void);

/**
 * fake_emulated() - the kernel of the GPU's own of this name; NULL: none, or this build can't run them
 */
const struct emulation_kernel *fake_emulated(const char *name);

/**
 * fake_kernel_find() - the kernel of this name; NULL
 */
const struct emulation_kernel *fake_kernel_find(const char *name);
