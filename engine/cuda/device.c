/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening and closing a GPU. The primary context is taken, which the process has once per device: two models in one
 * process (a draft beside its model) share it, and with it the driver's own memory.
 */

#include "engine/cuda/device.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"

/* In which cuMemAlloc() takes memory of the device. */
#define GRAIN_BYTES (UINT64_C(2) << 20)

/* A kernel may have so much shared memory without asking; more has to be announced. */
#define SHARED_BYTES_UNASKED (48u << 10)

static int open_context(struct device *d, const void *image, struct fault *reterr)
{
    const struct driver *v = d->driver;
    size_t before = 0, after = 0, total = 0;
    int r;

    r = driver_check(v, v->context_retain(&d->context, d->info.id), "cuDevicePrimaryCtxRetain", reterr);
    if (r != 0)
        return r;
    r = device_enter(d, reterr);
    if (r == 0)
        r = driver_check(v, v->memory_info(&before, &total), "cuMemGetInfo", reterr);
    if (r == 0)
        r = driver_check(v, v->stream_new(&d->stream, CUDA_STREAM_NON_BLOCKING), "cuStreamCreate", reterr);
    if (r == 0)
        r = driver_check(v, v->module_load(&d->module, image), "cuModuleLoadData", reterr);
    if (r == 0)
        r = driver_check(v, v->memory_info(&after, &total), "cuMemGetInfo", reterr);
    if (r != 0)
        return r;
    d->bytes_context = before > after ? before - after : 0;
    return 0;
}

int device_open(const struct driver *driver, uint32_t i_device, const void *image, struct device **ret,
                struct fault *reterr)
{
    _cleanup_(device_closep) struct device *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return -ENOMEM;
    d->driver = driver;
    r = driver_device(driver, i_device, &d->info, reterr);
    if (r != 0)
        return r;
    r = open_context(d, image, reterr);
    if (r != 0)
        return r;
    *ret = TAKE_PTR(d);
    return 0;
}

int device_share(const struct device *root, struct device **ret, struct fault *reterr)
{
    _cleanup_(device_closep) struct device *d = calloc(1, sizeof(*d));
    const struct driver *v = root->driver;
    int r;

    if (!d)
        return -ENOMEM;
    d->driver = v;
    d->info = root->info;
    r = driver_check(v, v->context_retain(&d->context, d->info.id), "cuDevicePrimaryCtxRetain", reterr);
    if (r == 0)
        r = device_enter(d, reterr);
    if (r == 0)
        r = driver_check(v, v->stream_new(&d->stream, CUDA_STREAM_NON_BLOCKING), "cuStreamCreate", reterr);
    if (r != 0)
        return r;
    d->module = root->module;
    d->borrows_module = true;
    d->bytes_context = root->bytes_context;
    *ret = TAKE_PTR(d);
    return 0;
}

uint64_t device_charged_bytes(uint64_t n_bytes)
{
    return n_bytes > UINT64_MAX - GRAIN_BYTES ? n_bytes : (n_bytes + GRAIN_BYTES - 1) / GRAIN_BYTES * GRAIN_BYTES;
}

/* Results are not looked at: what can't be given back on a lost device ends with the process. */
struct device *device_close(struct device *d)
{
    if (!d)
        return NULL;
    if (d->context) {
        (void)d->driver->context_set(d->context);
        if (d->stream) {
            for (uint32_t i = 0; i < d->n_blocks; i++)
                (void)d->driver->set_bytes(d->blocks[i], 0, d->block_bytes[i], d->stream);
            (void)d->driver->stream_wait(d->stream);
            (void)d->driver->stream_free(d->stream);
        }
        for (uint32_t i = 0; i < d->n_pinned; i++)
            (void)d->driver->host_free(d->pinned[i]);
        for (uint32_t i = 0; i < d->n_blocks; i++)
            (void)d->driver->memory_free(d->blocks[i]);
        if (d->module && !d->borrows_module)
            (void)d->driver->module_free(d->module);
        (void)d->driver->context_set(NULL);
        (void)d->driver->context_release(d->info.id);
    }
    free(d);
    return NULL;
}

int device_enter(const struct device *d, struct fault *reterr)
{
    return driver_check(d->driver, d->driver->context_set(d->context), "cuCtxSetCurrent", reterr);
}

int device_free_bytes(const struct device *d, uint64_t *ret, struct fault *reterr)
{
    size_t free_bytes = 0, total_bytes = 0;
    int r;

    r = device_enter(d, reterr);
    if (r == 0)
        r = driver_check(d->driver, d->driver->memory_info(&free_bytes, &total_bytes), "cuMemGetInfo", reterr);
    if (r == 0)
        *ret = free_bytes;
    return r;
}

/* What there is beside what was asked for, for a person and for the planner. */
static int out_of_memory(const struct device *d, uint64_t n_bytes, struct fault *reterr)
{
    uint64_t free_bytes = 0;

    fault_init(reterr, FAULT_INSUFFICIENT_MEMORY, "vram");
    if (reterr && device_free_bytes(d, &free_bytes, NULL) == 0) {
        reterr->used = n_bytes > INT64_MAX ? INT64_MAX : (int64_t)n_bytes;
        reterr->limit = (int64_t)free_bytes;
    }
    return DRIVER_OUT_OF_MEMORY;
}

int device_alloc(struct device *d, uint64_t n_bytes, cuda_pointer *ret, struct fault *reterr)
{
    cuda_pointer p = 0;
    int r;

    if (n_bytes == 0) {
        *ret = 0;
        return 0;
    }
    assert(d->n_blocks < DEVICE_BLOCKS_MAX);
    r = device_enter(d, reterr);
    if (r == 0)
        r = driver_check(d->driver, d->driver->memory_alloc(&p, n_bytes), "cuMemAlloc", reterr);
    if (r == DRIVER_OUT_OF_MEMORY)
        return out_of_memory(d, n_bytes, reterr);
    if (r != 0)
        return r;
    d->block_bytes[d->n_blocks] = n_bytes;
    d->blocks[d->n_blocks++] = p;
    d->bytes_held += device_charged_bytes(n_bytes);
    r = driver_check(d->driver, d->driver->set_bytes(p, 0, n_bytes, d->stream), "cuMemsetD8Async", reterr);
    if (r == 0)
        *ret = p;
    return r;
}

int device_pinned(struct device *d, size_t n_bytes, void **ret, struct fault *reterr)
{
    void *p = NULL;
    int r;

    assert(d->n_pinned < DEVICE_BLOCKS_MAX);
    r = device_enter(d, reterr);
    if (r == 0)
        r = driver_check(d->driver, d->driver->host_alloc(&p, n_bytes, 0), "cuMemHostAlloc", NULL);
    if (r == DRIVER_OUT_OF_MEMORY) {
        fault_init(reterr, FAULT_INSUFFICIENT_MEMORY, "ram");
        if (reterr)
            reterr->used = (int64_t)n_bytes;
    }
    if (r != 0)
        return r;
    d->pinned[d->n_pinned++] = p;
    *ret = p;
    return 0;
}

int device_function(const struct device *d, const char *name, uint32_t shared_bytes, struct cuda_function **ret,
                    struct fault *reterr)
{
    struct cuda_function *f = NULL;
    int r;

    r = device_enter(d, reterr);
    if (r == 0)
        r = driver_check(d->driver, d->driver->module_function(&f, d->module, name), name, reterr);
    if (r == 0 && shared_bytes > SHARED_BYTES_UNASKED)
        r = driver_check(d->driver, d->driver->function_set(f, CUDA_FUNCTION_SHARED_BYTES, (int)shared_bytes), name,
                         reterr);
    if (r == 0)
        *ret = f;
    return r;
}

int device_wait(const struct device *d, struct fault *reterr)
{
    int r = device_enter(d, reterr);

    return r != 0 ? r : driver_check(d->driver, d->driver->stream_wait(d->stream), "cuStreamSynchronize", reterr);
}
