/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a model would take, asked of a worker that reads the directory of its files and loads nothing. The daemon itself
 * never looks into a model file, and a plan has to be made before memory is taken.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "daemon/worker.h"
#include "policy/plan.h"

struct gpus;
struct measure;
struct policy_model;
struct residency;

/* From the loop only; exactly one of the two, after which only measure_free() is left. */
struct measure_callbacks {
    /* @shape is the callee's to move out of (and to release then). */
    void (*done)(struct measure *m, struct plan_shape *shape, void *userdata);
    void (*failed)(struct measure *m, const struct fault *fault, void *userdata);
};

struct measure_options {
    const char *worker_path;
    const char *name; /* of the model, for errors */
    int *fds;         /* [n_fds] consumed, on failure too; the array as well */
    size_t n_fds;
    uint32_t context_tokens, sequences; /* 0 tokens: the model's own */
    const char *k, *v;
    const struct policy_model *rules; /* with @residency: whose files they are; NULL: one model's, all of them */
    const struct residency *residency;
    bool bandwidth; /* measure the machine's memory, too */
    uint32_t n_threads;
    struct gpus *gpus; /* NULL, or ask a worker for GPUs, and note here what it sees; outlives the measure */
};

/**
 * measure_new() - start a worker for it
 * Returns 0 or a negative errno.
 */
int measure_new(sd_event *event, struct workers *workers, const struct measure_options *options,
                const struct measure_callbacks *callbacks, void *userdata, struct measure **ret);

/**
 * measure_free() - end the worker; no callback comes any more. Takes NULL, returns NULL
 */
struct measure *measure_free(struct measure *m);

DEFINE_CLEANUP(struct measure *, measure_free)
