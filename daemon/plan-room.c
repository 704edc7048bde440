/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/plan-room.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "daemon/internal.h"

static const struct model *model_of(const struct plan_room *room)
{
    return room->rules ? model_find(room->manager, room->rules->name) : NULL;
}

static size_t n_models(struct manager *m)
{
    struct list *at, *after;
    size_t n = 0;

    list_foreach (at, after, &m->models)
        n++;
    return n;
}

/* If there were room once idle models have left the GPUs, those go, and it is planned anew. */
static int make_vram_room(const struct plan_room *room, const struct plan_shape *shape, struct plan_wish *wish,
                          struct plan_device *devices, struct plan_result *made, bool *gone)
{
    struct manager *m = room->manager;
    const struct model *model = model_of(room);
    struct plan_result widest;
    int r = 0;

    wish->n_devices = model_gpu_devices(m, room->rules, model, /* evict= */ true, NULL, devices);
    (void)plan_make(shape, wish, &widest); /* the types are known by now */
    for (size_t i = 0; r >= 0 && widest.fits && i < widest.n_devices; i++) {
        const struct plan_bytes *b = &widest.devices[i];
        const struct budget_memory needed = {.own_bytes = b->weights + b->kv + b->scratch + b->driver};
        const struct gpu_known *gpu = gpus_find(&m->gpus, devices[i].index);

        if (widest.device_layers[i] > 0)
            r = manager_would_evict(m, model, manager_vram_budget(m, gpu, model), &needed, (int)gpu->number, gone);
    }
    wish->n_devices = model_gpu_devices(m, room->rules, model, /* evict= */ false, gone, devices);
    if (r >= 0)
        (void)plan_make(shape, wish, made);
    return r < 0 ? r : 0;
}

/* What GPUs would have of it need not be held. */
static int leave_out(const struct plan_room *room, const struct plan_shape *shape, const struct plan_result *made)
{
    _cleanup_free_ struct plan_range *ranges = calloc(shape->n_runs + 1, sizeof(*ranges));
    size_t n = 0;
    int r;

    if (!ranges)
        return -ENOMEM;
    if (room->rules->residency.ram == POLICY_RAM_LOCK && !model_release_is_off(room->rules))
        (void)plan_left_out(shape, made, ranges, &n);
    if (!model_release_are_of_files(room->residency, ranges, n))
        n = 0;
    r = residency_leave_out(room->residency, ranges, n);
    return r < 0 ? r : 0;
}

/* Returns as manager_would_evict(). */
static int make_ram_room(const struct plan_room *room, const struct plan_shape *shape, const struct plan_result *made,
                         bool *gone)
{
    struct budget_file files[RESIDENCY_FILES_MAX];
    struct budget_memory needed = {.own_bytes = made->ram_needed_bytes, .files = files};
    struct manager *m = room->manager;
    int r = room->rules ? leave_out(room, shape, made) : 0;

    if (r < 0)
        return r;
    if (room->rules) {
        needed.n_files = model_files_in_place(room->residency, room->rules, files);
        needed.own_bytes = made->ram.kv + made->ram.scratch +
                           (needed.n_files > 0 ? 0 : residency_needs_bytes(room->residency));
    }
    return manager_would_evict(m, model_of(room), manager_ram_budget(m), &needed, /* gpu= */ -1, gone);
}

/* As far as it can be thought of: what there would be if everybody had left who may. */
static void widen(const struct plan_room *room, const struct plan_shape *shape, struct plan_wish *wish,
                  struct plan_device *devices, struct plan_result *made)
{
    if (room->counts_vram) {
        wish->n_devices =
            model_gpu_devices(room->manager, room->rules, model_of(room), /* evict= */ true, NULL, devices);
        (void)plan_make(shape, wish, made);
    }
    made->fits = false;
}

static int count_ram(const struct plan_room *room, struct plan_wish *wish)
{
    struct manager_ram ram;
    int r = manager_ram_for(room->manager, model_of(room), room->residency, room->rules, &ram);

    if (r < 0)
        return r;
    wish->ram_bytes = ram.bytes + ram.shared_others_bytes;
    wish->ram_shared_bytes = ram.shared_bytes;
    return 0;
}

int plan_room_make(const struct plan_room *room, const struct plan_shape *shape, struct plan_wish *wish,
                   struct plan_device *devices, struct plan_result *ret, bool **ret_gone)
{
    _cleanup_free_ bool *gone = calloc(n_models(room->manager) + 1, sizeof(*gone));
    int r = gone ? 0 : -ENOMEM;

    if (r == 0 && room->counts_ram)
        r = count_ram(room, wish);
    if (r < 0)
        return r;
    if (room->counts_vram)
        wish->n_devices = model_gpu_devices(room->manager, room->rules, model_of(room), false, NULL, devices);
    r = plan_make(shape, wish, ret);
    if (r == 0 && room->counts_vram && !ret->fits)
        r = make_vram_room(room, shape, wish, devices, ret, gone);
    if (r == 0 && room->counts_ram) {
        r = make_ram_room(room, shape, ret, gone);
        ret->fits = ret->devices_fit && r != BUDGET_TOO_SMALL;
    }
    if (r < 0)
        return r;
    if (!ret->fits)
        widen(room, shape, wish, devices, ret);
    *ret_gone = TAKE_PTR(gone);
    return 0;
}
