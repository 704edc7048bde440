/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Between the threads of a worker:
 *
 *   link thread ──SUBMIT──► jobs ──► helper thread ──work──► commands ──► compute thread
 *        └──────────────── all other commands ───────────────────┘
 *
 * A job is a request as it came: JSON. The helper thread renders and tokenises it, one job at a time, tenants
 * in turn by fair queueing over the time that their jobs took, so that long texts hold up neither the steps
 * nor, for longer than one text, other tenants. What comes out is a struct work, which the compute thread
 * runs.
 *
 * All functions may be called from any thread, but for those that say whose they are. -ENOMEM ends the
 * process: the link thread has nobody to tell.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/proto/worker-proto.h"
#include "engine/sched/fair.h"

struct intake;
struct work;

struct job {
    struct fair_item item;
    struct job *next, *prev; /* all that are not done */
    struct packet_submit submit;
    uint64_t epoch;
    uint64_t received_ns;
    bool dropped; /* while the helper has it: cancelled, or of another epoch */
    char *json;   /* [n_json], owned */
    size_t n_json;
};

enum command_kind {
    COMMAND_MODEL,
    COMMAND_WORK,
    COMMAND_CANCEL,
    COMMAND_PAUSE,
    COMMAND_RESUME,
    COMMAND_TENANT,
    COMMAND_SPENT,
    COMMAND_THREADS,
    COMMAND_TRIM,
    COMMAND_DRAIN,
    COMMAND_RESET,
};

struct command {
    struct command *next;
    enum command_kind kind;
    uint64_t epoch;
    union {
        uint64_t request; /* CANCEL, PAUSE, RESUME */
        uint32_t n_threads;
        uint64_t bytes;       /* TRIM */
        uint64_t deadline_ns; /* DRAIN */
        struct packet_tenant tenant;
        struct packet_spent spent;
        struct {
            struct work *work; /* owned */
            uint64_t cost_ns;  /* of making it */
        };
        struct {
            char *json; /* [n_json], owned */
            size_t n_json;
            int *fds; /* [n_fds], both owned */
            size_t n_fds;
        } model;
    };
};

/**
 * intake_new() - empty. Returns 0 or a negative errno
 */
int intake_new(struct intake **ret);

/**
 * intake_submit() - a request to be prepared; link thread
 * @submit, @json: copied
 * Returns 0 or -ENOMEM.
 */
int intake_submit(struct intake *in, const struct packet_submit *submit, uint64_t epoch, const char *json,
                  size_t n_json);

/**
 * intake_cancel() - the request is not wanted any more; link thread
 * Returns 1 when it had not been prepared yet and is gone now (the caller says so to the daemon), 0 when the
 * compute thread will deal with it, -ENOMEM.
 */
int intake_cancel(struct intake *in, uint64_t request, uint64_t epoch);

/**
 * intake_reset() - a new daemon: drop all jobs, and tell the compute thread; link thread. Returns 0 or
 * -ENOMEM
 */
int intake_reset(struct intake *in, uint64_t epoch);

/**
 * intake_tenant() - weights of a tenant, or that it is to be forgotten, for both queues; link thread
 * Returns 0 or -ENOMEM.
 */
int intake_tenant(struct intake *in, const struct packet_tenant *tenant, uint64_t epoch);

/**
 * intake_post() - any other command; copied, with what it owns. Returns 0 or -ENOMEM (nothing was taken)
 */
int intake_post(struct intake *in, const struct command *command);

/**
 * intake_park() - whether the compute thread should rest: nobody knows whether the daemon still lives
 */
void intake_park(struct intake *in, bool parked);

/**
 * intake_wake() - make intake_take() return
 */
void intake_wake(struct intake *in);

/**
 * intake_next_job() - wait for a job and take it; helper thread. It stays known until intake_job_done()
 */
struct job *intake_next_job(struct intake *in);

/**
 * intake_job_done() - the helper is through with a job, which took @cost_ns; helper thread
 * @work: taken if there is one: handed to the compute thread, unless the job was dropped meanwhile
 * Frees @job. Returns 0; 1 when the job was dropped: nothing is to be said about it; -ENOMEM.
 */
int intake_job_done(struct intake *in, struct job *job, uint64_t cost_ns, struct work *work);

/**
 * intake_is_empty() - whether nothing is being prepared, and no command waits
 */
bool intake_is_empty(struct intake *in);

/**
 * intake_take() - all commands so far, oldest first; compute thread
 * @until_ns: wait for one until then (0: not at all)
 * @ret_parked: may be NULL
 * Returns a list that the caller owns (command_free() each), NULL when there is none.
 */
struct command *intake_take(struct intake *in, uint64_t until_ns, bool *ret_parked);

/**
 * command_free() - the command and what it still owns
 */
void command_free(struct command *c);
