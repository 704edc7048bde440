/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Models.Plan: what would happen to a model, of the policy or of a file that the client sent along, under
 * other limits. A worker reads the file's directory, nothing is loaded.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fault.h"
#include "daemon/manager.h"
#include "policy/plan.h"

struct plan_job;

struct plan_job_wish {
    const char *model; /* name or alias; NULL: @fd */
    int fd;            /* consumed, on failure too; -EBADF: none */
    bool has_ram; /* else what there would be beside the other models; devices alike */
    uint64_t ram_bytes;
    uint64_t vram_bytes[PLAN_DEVICES_MAX]; /* [n_devices] */
    size_t n_devices;
    uint32_t context_tokens, sequences; /* 0: as the policy says; of a file, as trained, and 4 */
    const char *kv_type;                /* NULL: as the policy says; of a file, f16 */
};

/* All borrowed for the call. */
struct plan_job_result {
    const struct plan_shape *shape;
    const struct plan_result *plan;
    const struct plan_alternative *alternatives; /* [n_alternatives] */
    size_t n_alternatives;
    /* [n_leave] names of the models that would leave memory for it, as a load would have them, in order of the names;
     * also of those that the asker may not use. */
    const char *const *leave;
    size_t n_leave;
};

/* From the loop only; exactly one of the two, after which the job is gone. */
struct plan_job_callbacks {
    void (*done)(struct plan_job *job, const struct plan_job_result *result, void *userdata);
    void (*failed)(struct plan_job *job, const struct fault *fault, void *userdata);
};

/**
 * manager_plan() - begin to plan for @s
 * Returns 0; REQUEST_REFUSED (NoSuchModel, NotAllowed, QueueFull, ShuttingDown, InvalidParameter); a negative
 * errno.
 */
int manager_plan(struct manager *m, const struct policy_subject *s, const struct plan_job_wish *wish,
                 const struct plan_job_callbacks *callbacks, void *userdata, struct plan_job **ret,
                 struct fault *reterr_fault);

/**
 * plan_job_cancel() - nobody wants to know any more; no callback comes. Takes NULL, returns NULL
 */
struct plan_job *plan_job_cancel(struct plan_job *job);
