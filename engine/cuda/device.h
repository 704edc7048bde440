/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One GPU in use: its context, the kernels loaded into it, the stream on which all of a model's work is ordered, and
 * the memory that was taken of it. Memory is taken in a few large blocks while a model is loaded, all of them before
 * anything is copied, so that a GPU which is too full is found at once; nothing is taken or given back in a step.
 *
 * Results are those of driver_check(): 0, a positive enum driver_result, a negative errno.
 *
 * Threads: a device belongs to the thread that runs steps. device_enter() makes it the one that calls of this thread
 * work on, and has to come before them wherever several devices are in use.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/cuda/driver.h"

struct fault;

/* Of one device: weights, keys and values of each group, scratch, constants, what a step brings; and as many pinned. */
#define DEVICE_BLOCKS_MAX 16

struct device {
    const struct driver *driver;
    struct driver_device info;
    struct cuda_context *context;
    struct cuda_stream *stream;
    struct cuda_module *module;
    cuda_pointer blocks[DEVICE_BLOCKS_MAX];
    uint64_t block_bytes[DEVICE_BLOCKS_MAX];
    uint32_t n_blocks;
    void *pinned[DEVICE_BLOCKS_MAX];
    uint32_t n_pinned;
    bool borrows_module;    /* of the device that it shares */
    uint64_t bytes_held;    /* of its memory, as the driver hands it out: device_charged_bytes() */
    uint64_t bytes_context; /* gone by the context and the kernels alone; 0 where others gave some back meanwhile */
};

/**
 * device_open() - begin to use a device
 * @driver: borrowed for the device's life
 * @image:  the kernels, as cuModuleLoadData() takes them; borrowed for the call
 * @ret:    owned by the caller: device_close()
 */
int device_open(const struct driver *driver, uint32_t i_device, const void *image, struct device **ret,
                struct fault *reterr);

/**
 * device_share() - the same device once more, for another model: with a stream of its own, and the kernels of @root
 * @root: stays open for the new one's life. No file is opened, so this can be done in a sandbox
 */
int device_share(const struct device *root, struct device **ret, struct fault *reterr);

/**
 * device_close() - wait for what runs, give all memory back; takes NULL, returns NULL. Works on a lost device
 * Memory is zeroed before it goes to whoever asks for it next: it held what users said.
 */
struct device *device_close(struct device *d);

DEFINE_CLEANUP(struct device *, device_close)

/**
 * device_enter() - let this thread's calls work on the device
 */
int device_enter(const struct device *d, struct fault *reterr);

/**
 * device_free_bytes() - what others and we have left of its memory, now
 */
int device_free_bytes(const struct device *d, uint64_t *ret, struct fault *reterr);

/**
 * device_charged_bytes() - what a block of @n_bytes takes of a device's memory: the driver hands it out in grains
 */
uint64_t device_charged_bytes(uint64_t n_bytes);

/**
 * device_alloc() - take a block of the device's memory, with all bytes 0; it is released with the device
 * @ret: aligned to 256; 0 when @n_bytes is 0
 * What another program had there before is thus not to be read by ours; ordered before all later work on the stream.
 */
int device_alloc(struct device *d, uint64_t n_bytes, cuda_pointer *ret, struct fault *reterr);

/**
 * device_pinned() - memory of the host that the device copies from and to while the processor goes on
 * Released with the device.
 */
int device_pinned(struct device *d, size_t n_bytes, void **ret, struct fault *reterr);

/**
 * device_function() - the kernel called @name, allowed to use @shared_bytes of shared memory beside its own
 */
int device_function(const struct device *d, const char *name, uint32_t shared_bytes, struct cuda_function **ret,
                    struct fault *reterr);

/**
 * device_wait() - until all work that was handed in is done
 */
int device_wait(const struct device *d, struct fault *reterr);
