/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loading of libcuda.so.1 and the meaning of its errors. The library is opened by its name only, where the system's
 * loader finds it: a program with capabilities or a sandbox takes no other path.
 */

#include "engine/cuda/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

#define LIBRARY "libcuda.so.1"

/* What the oldest kernels in the program need. */
#define CAPABILITY_MIN 75

/* Lost: a context with such an error gives it for every further call, whatever the call is. */
static int result_of(int error)
{
    switch (error) {
    case CUDA_SUCCESS:
        return 0;
    case CUDA_OUT_OF_MEMORY:
        return DRIVER_OUT_OF_MEMORY;
    case CUDA_NO_DEVICE:
    case CUDA_STUB_LIBRARY:
    case CUDA_INVALID_DEVICE:
    case CUDA_SYSTEM_NOT_READY:
        return DRIVER_NO_GPU;
    case CUDA_NO_BINARY_FOR_GPU:
    case CUDA_JIT_COMPILER_NOT_FOUND:
    case CUDA_UNSUPPORTED_PTX_VERSION:
    case CUDA_SYSTEM_DRIVER_MISMATCH:
        return DRIVER_TOO_OLD;
    case CUDA_DEINITIALIZED:
    case CUDA_DEVICE_UNAVAILABLE:
    case CUDA_ECC_UNCORRECTABLE:
    case CUDA_NVLINK_UNCORRECTABLE:
    case CUDA_ILLEGAL_ADDRESS:
    case CUDA_LAUNCH_TIMEOUT:
    case CUDA_CONTEXT_IS_DESTROYED:
    case CUDA_HARDWARE_STACK_ERROR:
    case CUDA_ILLEGAL_INSTRUCTION:
    case CUDA_MISALIGNED_ADDRESS:
    case CUDA_INVALID_ADDRESS_SPACE:
    case CUDA_INVALID_PC:
    case CUDA_LAUNCH_FAILED:
    case CUDA_UNKNOWN:
        return DRIVER_LOST;
    default:
        return -EIO;
    }
}

int driver_check(const struct driver *d, int error, const char *call, struct fault *reterr)
{
    int r = result_of(error);
    const char *name = NULL;

    if (r == 0)
        return 0;
    if (r == DRIVER_OUT_OF_MEMORY) {
        fault_init(reterr, FAULT_INSUFFICIENT_MEMORY, "vram");
        return r;
    }
    if (d->error_name(error, &name) != CUDA_SUCCESS || !name)
        name = "unknown error";
    switch (r) {
    case DRIVER_NO_GPU:
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "there is no GPU that can be used: %s (%d) from %s", name, error,
                  call);
        break;
    case DRIVER_TOO_OLD:
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "",
                  "the NVIDIA driver (CUDA %d.%d) can't run these kernels, a newer one can: %s (%d) from %s",
                  d->version_number / 1000, d->version_number % 1000 / 10, name, error, call);
        break;
    case DRIVER_LOST:
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "the GPU was lost: %s (%d) from %s", name, error, call);
        break;
    default:
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "the GPU can't be used: %s (%d) from %s", name, error, call);
        break;
    }
    return r;
}

struct call {
    const char *symbol;
    size_t offset; /* of the field */
};

#define FIND(field, symbol, parameters) {symbol, offsetof(struct driver, field)},

static const struct call calls[] = {DRIVER_CALLS(FIND)};
static const struct call graph_calls[] = {DRIVER_GRAPH_CALLS(FIND)};

#undef FIND

/* Looks functions up. Returns the first that is missing: what an old driver lacks. */
static const char *find_calls(struct driver *d, const struct call *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *p = dlsym(d->library, list[i].symbol);

        if (!p)
            return list[i].symbol;
        /* POSIX: an address of dlsym() may be stored as a function's. */
        memcpy((char *)d + list[i].offset, &p, sizeof(p));
    }
    return NULL;
}

static int open_library(struct driver *d, struct fault *reterr)
{
    const char *missing;

    d->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!d->library) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "no NVIDIA driver is installed (%s was not found)", LIBRARY);
        return DRIVER_NO_GPU;
    }
    missing = find_calls(d, calls, sizeof(calls) / sizeof(calls[0]));
    d->has_graphs = !find_calls(d, graph_calls, sizeof(graph_calls) / sizeof(graph_calls[0]));
    if (missing) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "the NVIDIA driver is too old: %s has no %s", LIBRARY, missing);
        return DRIVER_TOO_OLD;
    }
    return 0;
}

int driver_open(struct driver **ret, struct fault *reterr)
{
    _cleanup_(driver_closep) struct driver *d = calloc(1, sizeof(*d));
    int n = 0, r;

    if (!d)
        return -ENOMEM;
    if (!getenv("CUDA_CACHE_PATH"))
        (void)setenv("CUDA_CACHE_DISABLE", "1", /* overwrite= */ 0);
    (void)setenv("CUDA_MODULE_LOADING", "EAGER", /* overwrite= */ 0);
    r = open_library(d, reterr);
    if (r != 0)
        return r;
    /* First, for the messages; it can be asked before anything else. */
    (void)d->version(&d->version_number);
    r = driver_check(d, d->init(0), "cuInit", reterr);
    if (r == 0)
        r = driver_check(d, d->device_count(&n), "cuDeviceGetCount", reterr);
    if (r != 0)
        return r;
    if (n <= 0) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "the NVIDIA driver is installed, but there is no GPU");
        return DRIVER_NO_GPU;
    }
    d->n_devices = (uint32_t)n;
    *ret = TAKE_PTR(d);
    return 0;
}

struct driver *driver_close(struct driver *d)
{
    free(d);
    return NULL;
}

/* Attributes that an old driver does not know count as 0. */
static uint32_t attribute(const struct driver *d, cuda_device_id id, enum cuda_attribute which)
{
    int value = 0;

    return d->device_attribute(&value, (int)which, id) == CUDA_SUCCESS && value > 0 ? (uint32_t)value : 0;
}

int driver_device(const struct driver *d, uint32_t i_device, struct driver_device *ret, struct fault *reterr)
{
    struct driver_device v = {.i_device = i_device};
    size_t n_bytes = 0;
    int r;

    r = driver_check(d, d->device_get(&v.id, (int)i_device), "cuDeviceGet", reterr);
    if (r == 0)
        r = driver_check(d, d->device_name(v.name, (int)sizeof(v.name), v.id), "cuDeviceGetName", reterr);
    if (r == 0)
        r = driver_check(d, d->device_memory(&n_bytes, v.id), "cuDeviceTotalMem", reterr);
    if (r != 0)
        return r;
    v.name[sizeof(v.name) - 1] = '\0';
    if (d->device_bus_id(v.bus_id, (int)sizeof(v.bus_id), v.id) != CUDA_SUCCESS)
        v.bus_id[0] = '\0';
    v.vram_bytes = n_bytes;
    v.capability = 10 * attribute(d, v.id, CUDA_CAPABILITY_MAJOR) + attribute(d, v.id, CUDA_CAPABILITY_MINOR);
    v.n_multiprocessors = attribute(d, v.id, CUDA_MULTIPROCESSORS);
    v.shared_bytes_max = attribute(d, v.id, CUDA_SHARED_BYTES_MAX);
    v.registers_read_only = attribute(d, v.id, CUDA_HOST_REGISTER_READ_ONLY) != 0;
    if (attribute(d, v.id, CUDA_COMPUTE_MODE) == CUDA_COMPUTE_PROHIBITED) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "GPU %u (%s) is set not to compute (nvidia-smi --compute-mode)",
                  i_device, v.name);
        return DRIVER_NO_GPU;
    }
    if (v.capability < CAPABILITY_MIN) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "",
                  "GPU %u (%s) has compute capability %u.%u, the kernels need %u.%u or later", i_device, v.name,
                  v.capability / 10, v.capability % 10, CAPABILITY_MIN / 10u, CAPABILITY_MIN % 10u);
        return DRIVER_TOO_OLD;
    }
    *ret = v;
    return 0;
}
