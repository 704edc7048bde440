/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Where a model would go if it were loaded now, and who would have to leave for it: the way that a load takes
 * (model-measure.c), on which nobody leaves.
 */

#include <stdbool.h>

#include "policy/plan.h"

struct manager;
struct model;
struct policy_model;
struct residency;

struct plan_room {
    struct manager *manager;
    const struct policy_model *rules; /* NULL: of a file that is no model of the policy */
    struct residency *residency;      /* the files of a model of the policy, open and not loaded */
    bool counts_ram, counts_vram;     /* what there is of it, beside the others; else what the wish says */
};

/**
 * plan_room_make() - as plan_make(), beside the models that are there
 * One of the same name would be loaded anew.
 * @wish:     what counts_* name is filled in
 * @devices:  [PLAN_DEVICES_MAX] of @wish
 * @ret_gone: who would leave, in the order of the manager's models; the caller frees it. Nobody leaves in vain
 * Returns 0; -EINVAL (the model has no such KV type); -ENOMEM.
 */
int plan_room_make(const struct plan_room *room, const struct plan_shape *shape, struct plan_wish *wish,
                   struct plan_device *devices, struct plan_result *ret, bool **ret_gone);
