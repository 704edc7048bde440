/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opened by its name only, as libcuda.so.1 is (driver.c).
 */
#include "engine/cuda/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"

enum { NVML_SUCCESS = 0, NVML_TEMPERATURE_GPU = 0 };

struct nvml_device;

/* nvmlMemory_t */
struct nvml_memory {
    unsigned long long total_bytes, free_bytes, used_bytes;
};

/* Field of struct nvml, name in the library, parameters. All of them return 0 or an error. */
#define NVML_CALLS(X)                                                                                                  \
    X(init, "nvmlInit_v2", (void))                                                                                     \
    X(shutdown, "nvmlShutdown", (void))                                                                                \
    X(device, "nvmlDeviceGetHandleByPciBusId_v2", (const char *bus_id, struct nvml_device **ret))                      \
    X(memory, "nvmlDeviceGetMemoryInfo", (struct nvml_device * device, struct nvml_memory * ret))                      \
    X(temperature, "nvmlDeviceGetTemperature", (struct nvml_device * device, int sensor, unsigned *ret))               \
    X(throttle, "nvmlDeviceGetCurrentClocksThrottleReasons", (struct nvml_device * device, unsigned long long *ret))

struct nvml {
#define FIELD(field, symbol, parameters) int(*field) parameters;
    NVML_CALLS(FIELD)
#undef FIELD
    bool is_initialised;
};

static bool find_calls(struct nvml *n, void *library)
{
#define FIND(field, symbol, parameters) {symbol, offsetof(struct nvml, field)},
    static const struct {
        const char *symbol;
        size_t offset;
    } calls[] = {NVML_CALLS(FIND)};
#undef FIND

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *p = dlsym(library, calls[i].symbol);

        if (!p)
            return false;
        /* POSIX: an address of dlsym() may be stored as a function's. */
        memcpy((char *)n + calls[i].offset, &p, sizeof(p));
    }
    return true;
}

int nvml_open(struct nvml **ret)
{
    _cleanup_(nvml_closep) struct nvml *n = calloc(1, sizeof(*n));
    void *library;

    if (!n)
        return -ENOMEM;
    library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library || !find_calls(n, library) || n->init() != NVML_SUCCESS)
        return -ENOENT;
    n->is_initialised = true;
    *ret = TAKE_PTR(n);
    return 0;
}

struct nvml *nvml_close(struct nvml *n)
{
    if (n && n->is_initialised)
        (void)n->shutdown();
    free(n);
    return NULL;
}

int nvml_sample(const struct nvml *n, const char *bus_id, struct nvml_sample *ret)
{
    struct nvml_sample s = {.total_bytes = 0};
    struct nvml_device *device = NULL;
    unsigned long long throttle = 0;
    struct nvml_memory memory = {0};

    if (n->device(bus_id, &device) != NVML_SUCCESS || n->memory(device, &memory) != NVML_SUCCESS)
        return -ENOENT;
    s.total_bytes = memory.total_bytes;
    s.free_bytes = memory.free_bytes;
    s.has_temperature = n->temperature(device, NVML_TEMPERATURE_GPU, &s.temperature_celsius) == NVML_SUCCESS;
    if (n->throttle(device, &throttle) == NVML_SUCCESS)
        s.throttle = throttle;
    *ret = s;
    return 0;
}

const char *nvml_throttle_to_string(uint64_t throttle)
{
    static const struct {
        enum nvml_throttle bit;
        const char *name;
    } names[] = {
        {NVML_HW_THERMAL, "too hot (hardware)"},
        {NVML_SW_THERMAL, "too hot"},
        {NVML_POWER_BRAKE, "the power supply asks for less"},
        {NVML_HW_SLOWDOWN, "slowed down by the hardware"},
        {NVML_POWER_CAP, "at its power limit"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (throttle & names[i].bit)
            return names[i].name;
    return NULL;
}
