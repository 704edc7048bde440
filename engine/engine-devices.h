/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The GPUs of the machine, open: the driver is loaded, each device has its context and the kernels. A process that
 * gives up its rights before it looks at a model opens them before that: afterwards no file can be opened any more, and
 * what an engine takes of them needs none.
 *
 * Threads: opened and closed by one; the engines that use them belong to the same.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct device;
struct engine_devices;
struct fault;

/* One that can be used. */
struct engine_device_info {
    uint32_t i_device; /* as policies name it */
    char name[96], bus_id[16];
    uint64_t total_bytes;
    uint64_t free_bytes;   /* now, beside what the driver takes for this process */
    uint64_t driver_bytes; /* … which is this; 0: unknown */
};

/* What one is doing, over all programs. */
struct engine_device_sample {
    uint32_t i_device;
    const char *bus_id; /* the devices' */
    uint64_t total_bytes, free_bytes;
    bool has_temperature;
    uint32_t temperature_celsius;
    const char *throttled; /* why it is slower than it could be, for people; NULL: it is not, or nobody knows */
};

/**
 * engine_devices_open() - open the driver and GPUs
 * @wanted: [@n_wanted] their numbers; none: all there are
 * @ret:    owned by the caller; there may be none in it, and engine_devices_reason() says why
 * Sets CUDA_* variables of the environment, so call it before there are threads. Returns 0 or -ENOMEM.
 */
int engine_devices_open(const uint32_t *wanted, size_t n_wanted, struct engine_devices **ret);

/**
 * engine_devices_close() - no engine uses them any more; takes NULL, returns NULL
 */
struct engine_devices *engine_devices_close(struct engine_devices *d);

DEFINE_CLEANUP(struct engine_devices *, engine_devices_close)

/**
 * engine_devices_list() - what can be used, and what is free there now
 * @ret: [ENGINE_DEVICES_MAX]; how many there are is returned
 */
size_t engine_devices_list(const struct engine_devices *d, struct engine_device_info *ret);

/**
 * engine_devices_reason() - why there are none, or which can't be used; "" when all can. Belongs to @d
 */
const char *engine_devices_reason(const struct engine_devices *d);

/**
 * engine_devices_keep() - close all but these, so that their memory is free for others
 */
void engine_devices_keep(struct engine_devices *d, const uint32_t *numbers, size_t n_numbers);

/**
 * engine_devices_rest() - close all: what the driver took of them is free for others, and what they are doing can be
 * asked for as before
 */
void engine_devices_rest(struct engine_devices *d);

/**
 * engine_devices_can_sample() - whether NVIDIA's management library is there to be asked
 */
bool engine_devices_can_sample(const struct engine_devices *d);

/**
 * engine_devices_sample() - ask NVIDIA's management library what they are doing
 * From any thread, while no other opens or closes devices.
 * @ret: [ENGINE_DEVICES_MAX]; how many it knows is returned, 0 where it is not there
 */
size_t engine_devices_sample(const struct engine_devices *d, struct engine_device_sample *ret);

/**
 * engine_devices_find() - the device with this number, for engine-gpu.c; NULL: there is none that can be used
 */
const struct device *engine_devices_find(const struct engine_devices *d, uint32_t i_device);
