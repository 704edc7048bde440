/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A worker that looks which GPUs there are, and then, where NVIDIA's management library is there, says every few
 * seconds what they are doing, also while no model uses them.
 */

#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct fault;
struct gpus;
struct look;
struct workers;

/* From the loop only. */
struct look_callbacks {
    /* @gpus are as it saw them; it goes on with what they are doing. */
    void (*looked)(struct look *l, void *userdata);
    /* It saw nothing, or has nothing more to say; only look_free() is left. @fault: why; NULL: it did what it can. */
    void (*ended)(struct look *l, const struct fault *fault, void *userdata);
};

struct look_options {
    const char *worker_path;
    struct gpus *gpus; /* outlives the look */
    const struct look_callbacks *callbacks;
    void *userdata;
};

/**
 * look_new() - start a worker for it
 * Returns 0 or a negative errno.
 */
int look_new(sd_event *event, struct workers *workers, const struct look_options *options, struct look **ret);

/**
 * look_free() - end the worker; no callback comes any more. Takes NULL, returns NULL
 */
struct look *look_free(struct look *l);

DEFINE_CLEANUP(struct look *, look_free)
