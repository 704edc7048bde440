/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * NVIDIA's management library, if it is there: what a device is doing beside us. Found at run time as the driver is
 * (libnvidia-ml.so.1); what is needed of it is declared here, after its public reference. Nothing depends on it.
 *
 * Threads: any, the library has locks of its own.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct nvml;

/* Why a device's clocks are lower than they could be (nvmlClocksThrottleReasons): those that are worth an alarm. */
enum nvml_throttle {
    NVML_POWER_CAP = 0x04,
    NVML_HW_SLOWDOWN = 0x08,
    NVML_SW_THERMAL = 0x20,
    NVML_HW_THERMAL = 0x40,
    NVML_POWER_BRAKE = 0x80,
};

struct nvml_sample {
    uint64_t total_bytes, free_bytes; /* of its memory, over all programs */
    bool has_temperature;
    uint32_t temperature_celsius;
    uint64_t throttle; /* bits of enum nvml_throttle, and others; 0: unknown or none */
};

/**
 * nvml_open() - load the library and initialise it
 * Returns 0; -ENOENT where there is none, or it does not work; -ENOMEM.
 */
int nvml_open(struct nvml **ret);

/**
 * nvml_close() - takes NULL, returns NULL. The library stays loaded
 */
struct nvml *nvml_close(struct nvml *n);

DEFINE_CLEANUP(struct nvml *, nvml_close)

/**
 * nvml_sample() - what the device at @bus_id ("0000:01:00.0") is doing now
 * Returns 0 or -ENOENT when the library does not say so.
 */
int nvml_sample(const struct nvml *n, const char *bus_id, struct nvml_sample *ret);

/**
 * nvml_throttle_to_string() - the worst of the reasons, for people; NULL: none of those above
 */
const char *nvml_throttle_to_string(uint64_t throttle);
