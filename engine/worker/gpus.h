/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A worker for GPUs: opens them before it gives up its rights, and says what there is:
 *
 *   "gpus": [{"device": number, "name", "bus_id", "total", "free", "driver"}] those that can be used, in bytes; free is
 *           what is left beside what the driver takes for such a process, which is the last
 *   "gpu_reason": why there are none, or what is wrong with others; "" if nothing is
 *   "gpus_watched": whether packets GPUS follow; of one that only looks
 *
 * While a model has layers on some of them, a packet GPUS says every few seconds what those are doing, where NVIDIA's
 * management library is there to be asked; one that only looks closes them, and says it of all:
 *
 *   "gpus": [{"device", "total", "free", "temperature": degrees Celsius or left out, "throttled": text or left out}]
 */

#include "base/json.h"

struct engine_devices;
struct link;

/**
 * gpus_add_facts() - the members above into @to; 0 or -ENOMEM
 * @devices: NULL: the worker was not started for GPUs, and nothing is added
 */
int gpus_add_facts(const struct engine_devices *devices, json_object *to);

/**
 * gpus_add_looked() - the same, by one that only looks: has them closed, and adds whether it can go on watching them
 * Returns 0 or -ENOMEM.
 */
int gpus_add_looked(struct engine_devices *devices, json_object *to);

/**
 * gpus_watch() - say from now on what they are doing; no device is opened or closed any more
 * In a thread of its own: the library may take its time. Returns 0 or a negative errno.
 */
int gpus_watch(const struct engine_devices *devices, struct link *link);
