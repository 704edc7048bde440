/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test double of libnvidia-ml.so.1, for the devices of the double of libcuda in the same process:
 *   FAKE_NVML_OFF          not empty: the library does not work
 *   FAKE_NVML_TEMPERATURE  degrees Celsius; default 41
 *   FAKE_NVML_THROTTLE     nvmlClocksThrottleReasons; default 1, idle
 */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, NOT_FOUND = 6, UNKNOWN = 999 };

struct memory {
    unsigned long long total_bytes, free_bytes, used_bytes;
};

static unsigned long long setting(const char *name, unsigned long long missing)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : missing;
}

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlInit_v2(void)
{
    const char *off = getenv("FAKE_NVML_OFF");

    return off && *off ? UNKNOWN : SUCCESS;
}

EXPORT int nvmlShutdown(void);
EXPORT int nvmlShutdown(void)
{
    return SUCCESS;
}

/* The handle is the device's number from 1. */
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret);
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret)
{
    unsigned bus, n_gone = (unsigned)setting("FAKE_CUDA_GONE", 0);

    if (sscanf(bus_id, "0000:%02x:00.0", &bus) != 1 || bus <= n_gone || bus - n_gone > setting("FAKE_CUDA_DEVICES", 1))
        return NOT_FOUND;
    *ret = (void *)(uintptr_t)(bus - n_gone);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *ret);
EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *ret)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), *p;
    uint64_t (*used)(int device);

    p = cuda ? dlsym(cuda, "fake_cuda_used") : NULL;
    if (!p)
        return UNKNOWN;
    memcpy(&used, &p, sizeof(used));
    ret->total_bytes = setting("FAKE_CUDA_VRAM", 8ULL << 30);
    ret->used_bytes = used((int)(uintptr_t)device - 1);
    ret->free_bytes = ret->total_bytes - ret->used_bytes;
    dlclose(cuda);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *ret);
EXPORT int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *ret)
{
    (void)device;
    *ret = (unsigned)setting("FAKE_NVML_TEMPERATURE", 41);
    return sensor == 0 ? SUCCESS : NOT_FOUND;
}

EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *ret);
EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *ret)
{
    (void)device;
    *ret = setting("FAKE_NVML_THROTTLE", 1);
    return SUCCESS;
}
