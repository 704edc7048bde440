/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory and launches of emulated-device.h through a driver: a GPU's, or the test double's. What a test sees of
 * memory is a copy of the host's, carried there before each launch and back after it.
 */
#include "tests/cuda-emulation/emulated-device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/cuda/device.h"

enum { MEMORIES_MAX = 64 };

static struct driver *driver;
static struct device *device;
static struct {
    cuda_pointer at;
    uint8_t *mirror;
    size_t n_bytes;
    bool writable;
} memories[MEMORIES_MAX];
static uint32_t n_memories;

static void check(int error, const char *call)
{
    struct fault f = {.kind = FAULT_NONE};

    if (driver_check(driver, error, call, &f) != 0)
        fail_msg("%s", f.reason);
}

/* The device of all tests of the program, closed with it. */
static void open_once(void)
{
    struct fault f = {.kind = FAULT_NONE};
    size_t n_bytes;

    if (!driver && (driver_open(&driver, &f) != 0 || device_open(driver, 0, launch_image(&n_bytes), &device, &f) != 0))
        fail_msg("%s", f.reason);
    assert_int_equal(device_enter(device, NULL), 0);
}

static launch_address add(const void *from, size_t n_bytes, bool writable)
{
    uint32_t i = n_memories;

    open_once();
    assert_true(n_memories < MEMORIES_MAX);
    memories[i].mirror = malloc(n_bytes);
    memories[i].n_bytes = n_bytes;
    memories[i].writable = writable;
    assert_non_null(memories[i].mirror);
    check(driver->memory_alloc(&memories[i].at, n_bytes), "cuMemAlloc");
    n_memories++;
    if (from)
        memcpy(memories[i].mirror, from, n_bytes);
    else
        memset(memories[i].mirror, 0xFF, n_bytes);
    return memories[i].at;
}

launch_address device_copy(const void *from, size_t n_bytes)
{
    return add(from, n_bytes, false);
}

launch_address device_new(size_t n_bytes)
{
    return add(NULL, n_bytes, true);
}

void *device_memory(launch_address at)
{
    for (uint32_t i = 0; i < n_memories; i++)
        if (at >= memories[i].at && at < memories[i].at + memories[i].n_bytes)
            return memories[i].mirror + (at - memories[i].at);
    return (void *)(uintptr_t)at; /* not the device's, but laid out as if */
}

void device_reset(void)
{
    while (n_memories > 0) {
        check(driver->memory_free(memories[--n_memories].at), "cuMemFree");
        free(memories[n_memories].mirror);
    }
}

void device_launch(uint32_t kernel, const void *args)
{
    void *params[] = {(void *)(uintptr_t)args};
    struct cuda_function *function;
    struct launch_shape s;
    struct fault f = {.kind = FAULT_NONE};

    assert_int_equal(launch_shape(kernel, args, &s), 0);
    if (device_function(device, launch_kernel_name(kernel), s.shared_bytes, &function, &f) != 0)
        fail_msg("%s", f.reason);
    for (uint32_t i = 0; i < n_memories; i++)
        check(driver->copy_to_device(memories[i].at, memories[i].mirror, memories[i].n_bytes, device->stream),
              "cuMemcpyHtoDAsync");
    check(driver->launch(function, s.grid[0], s.grid[1], s.grid[2], s.block, 1, 1, s.shared_bytes, device->stream,
                         params, NULL),
          launch_kernel_name(kernel));
    for (uint32_t i = 0; i < n_memories; i++)
        if (memories[i].writable)
            check(driver->copy_to_host(memories[i].mirror, memories[i].at, memories[i].n_bytes, device->stream),
                  "cuMemcpyDtoHAsync");
    if (device_wait(device, &f) != 0)
        fail_msg("%s: %s", launch_kernel_name(kernel), f.reason);
}
