/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device that can't be used is left out and its reason kept: the others can be all the same.
 */
#include "engine/engine-devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/cuda/device.h"
#include "engine/cuda/launch.h"
#include "engine/cuda/nvml.h"
#include "engine/engine.h"

struct engine_devices {
    struct driver *driver; /* NULL: there is none */
    struct nvml *nvml;     /* NULL: the same */
    struct device *devices[ENGINE_DEVICES_MAX]; /* [n_devices] */
    size_t n_devices;
    struct driver_device watched[ENGINE_DEVICES_MAX]; /* [n_watched] the same, or all that were open once */
    size_t n_watched;
    char reason[256];
};

/* Nothing is unavailable, it is computed elsewhere: of such a fault only the reason is true. */
static void keep_reason(struct engine_devices *d, const struct fault *f)
{
    if (f->kind == FAULT_MODEL_UNAVAILABLE)
        snprintf(d->reason, sizeof(d->reason), "%.*s", (int)sizeof(d->reason) - 1, f->reason);
    else if (f->kind != FAULT_NONE)
        fault_describe(f, d->reason, sizeof(d->reason));
}

static int open_device(struct engine_devices *d, uint32_t i_device, const void *image)
{
    struct fault f = {.kind = FAULT_NONE};
    struct nvml_sample before, after;
    struct device *device = NULL;
    struct driver_device info;
    bool has_before;
    int r;

    if (i_device >= d->driver->n_devices) {
        snprintf(d->reason, sizeof(d->reason), "there is no GPU %u, they are counted from 0", i_device);
        return 0;
    }
    r = driver_device(d->driver, i_device, &info, &f);
    has_before = r == 0 && d->nvml && nvml_sample(d->nvml, info.bus_id, &before) == 0;
    if (r == 0)
        r = device_open(d->driver, i_device, image, &device, &f);
    if (r != 0) {
        keep_reason(d, &f);
        return r == -ENOMEM ? r : 0;
    }
    /* The driver itself can only be asked once there is a context. */
    if (has_before && nvml_sample(d->nvml, info.bus_id, &after) == 0 && before.free_bytes > after.free_bytes)
        device->bytes_context = before.free_bytes - after.free_bytes;
    d->devices[d->n_devices++] = device;
    d->watched[d->n_watched++] = device->info;
    return 0;
}

int engine_devices_open(const uint32_t *wanted, size_t n_wanted, struct engine_devices **ret)
{
    _cleanup_(engine_devices_closep) struct engine_devices *d = calloc(1, sizeof(*d));
    struct fault f = {.kind = FAULT_NONE};
    const void *image;
    size_t n_bytes;
    int r;

    if (!d)
        return -ENOMEM;
    image = launch_image(&n_bytes);
    if (!image) {
        snprintf(d->reason, sizeof(d->reason),
                 "the kernels for GPUs are not installed in the same version (package residentd-cuda)");
        *ret = TAKE_PTR(d);
        return 0;
    }
    r = driver_open(&d->driver, &f);
    if (r == -ENOMEM)
        return r;
    if (r != 0) {
        keep_reason(d, &f);
        *ret = TAKE_PTR(d);
        return 0;
    }
    r = nvml_open(&d->nvml);
    if (r == -ENOENT)
        r = 0;
    for (uint32_t i = 0; r == 0 && i < (n_wanted ? n_wanted : d->driver->n_devices); i++)
        if (d->n_devices < ENGINE_DEVICES_MAX)
            r = open_device(d, n_wanted ? wanted[i] : i, image);
    if (r == 0)
        *ret = TAKE_PTR(d);
    return r;
}

struct engine_devices *engine_devices_close(struct engine_devices *d)
{
    if (!d)
        return NULL;
    for (size_t i = 0; i < d->n_devices; i++)
        device_close(d->devices[i]);
    nvml_close(d->nvml);
    driver_close(d->driver);
    free(d);
    return NULL;
}

size_t engine_devices_list(const struct engine_devices *d, struct engine_device_info *ret)
{
    for (size_t i = 0; i < d->n_devices; i++) {
        const struct device *device = d->devices[i];

        ret[i] = (struct engine_device_info){.i_device = device->info.i_device,
                                             .total_bytes = device->info.vram_bytes,
                                             .driver_bytes = device->bytes_context};
        snprintf(ret[i].name, sizeof(ret[i].name), "%s", device->info.name);
        snprintf(ret[i].bus_id, sizeof(ret[i].bus_id), "%s", device->info.bus_id);
        /* One that was lost meanwhile has nothing free. */
        (void)device_free_bytes(device, &ret[i].free_bytes, NULL);
    }
    return d->n_devices;
}

const char *engine_devices_reason(const struct engine_devices *d)
{
    return d->reason;
}

void engine_devices_keep(struct engine_devices *d, const uint32_t *numbers, size_t n_numbers)
{
    size_t n = 0;

    for (size_t i = 0; i < d->n_devices; i++) {
        bool kept = false;

        for (size_t k = 0; k < n_numbers; k++)
            kept |= numbers[k] == d->devices[i]->info.i_device;
        if (kept) {
            d->watched[n] = d->devices[i]->info;
            d->devices[n++] = d->devices[i];
        } else {
            device_close(d->devices[i]);
        }
    }
    d->n_devices = d->n_watched = n;
}

void engine_devices_rest(struct engine_devices *d)
{
    for (size_t i = 0; i < d->n_devices; i++)
        device_close(d->devices[i]);
    d->n_devices = 0;
}

bool engine_devices_can_sample(const struct engine_devices *d)
{
    return d->nvml && d->n_watched > 0;
}

size_t engine_devices_sample(const struct engine_devices *d, struct engine_device_sample *ret)
{
    size_t n = 0;

    for (size_t i = 0; d->nvml && i < d->n_watched; i++) {
        const struct driver_device *info = &d->watched[i];
        struct nvml_sample s;

        if (nvml_sample(d->nvml, info->bus_id, &s) == 0)
            ret[n++] = (struct engine_device_sample){.i_device = info->i_device,
                                                     .bus_id = info->bus_id,
                                                     .total_bytes = s.total_bytes,
                                                     .free_bytes = s.free_bytes,
                                                     .has_temperature = s.has_temperature,
                                                     .temperature_celsius = s.temperature_celsius,
                                                     .throttled = nvml_throttle_to_string(s.throttle)};
    }
    return n;
}

const struct device *engine_devices_find(const struct engine_devices *d, uint32_t i_device)
{
    for (size_t i = 0; i < d->n_devices; i++)
        if (d->devices[i]->info.i_device == i_device)
            return d->devices[i];
    return NULL;
}
