/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * GPUs in the daemon's back half: a model's part of them (model-gpu.c), and what is left of each (manager-gpu.c).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/gpus.h"

struct manager;
struct model;
struct plan_range;

/* Which part of a model is on GPUs: what was planned, and what its worker said of it. */
struct model_gpu {
    uint32_t layers, expert_layers; /* the last so many; 0 layers: nothing, and the rest means nothing */
    bool kv, head;
    bool exact; /* the policy says how many: no fewer will do */
    bool small_steps; /* there is no room for larger ones */
    uint32_t devices[GPUS_MAX], device_layers[GPUS_MAX]; /* [n_devices] */
    size_t n_devices;
    uint32_t layers_there;
    bool all_there; /* … are all that it has */
    uint32_t known;      /* bits: GPUs that were there when it was planned */
    uint64_t tried_us;   /* gpus.looked_us of when it was last seen whether more could be there */
    bool returns;        /* a worker with more layers there is on its way; it goes on without, too */
    uint64_t stayed_us;  /* since when it is known that that one can't be beside it; 0: it is not */
    uint64_t kv_bytes; /* in VRAM */
    struct plan_range *released; /* [n_released] of its files, what its worker does not lock, since only GPUs read it */
    size_t n_released;
    char reason[256];  /* why not more of it, "" if all that was wanted is there */
};

/**
 * manager_look_for_gpus() - have a worker look for GPUs, if there are workers for them and none is at it
 * Returns 0 or a negative errno.
 */
int manager_look_for_gpus(struct manager *m);

/**
 * manager_look_at_gpus() - at each tick: has a worker look again after one was lost, less and less often
 */
void manager_look_at_gpus(struct manager *m);

/**
 * manager_vram_left() - how much of a GPU may be used for @model (NULL: one that is not there)
 * What the policy gives and is free, beside what models hold; with @evict beside those only that can't leave.
 * @gone: in the order of m->models, who is thought to have left; NULL: nobody
 */
uint64_t manager_vram_left(const struct manager *m, const struct gpu_known *gpu, const struct model *model, bool evict,
                           const bool *gone);

/**
 * manager_vram_used() - held by models of the GPU with this number
 */
uint64_t manager_vram_used(const struct manager *m, uint32_t number);

/**
 * manager_vram_budget() - of a GPU, for manager_evict() and manager_would_evict()
 * What others than models hold makes it smaller than the policy's.
 */
uint64_t manager_vram_budget(const struct manager *m, const struct gpu_known *gpu, const struct model *model);

/**
 * manager_make_vram_room() - idle models leave until @needed bytes are free of a GPU for @model
 * Returns as manager_make_room(), without a fault.
 */
int manager_make_vram_room(struct manager *m, const struct model *model, const struct gpu_known *gpu, uint64_t needed);
