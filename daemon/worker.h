/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One worker process and the link to it: greeting, heartbeat, packets out of requests and callbacks out of packets, and
 * the process' end. Knows nothing of states of models or requests; model.c decides what an event means.
 *
 *   new: process started, HELLO sent → HELLO of the worker, credentials checked: MODEL sent → facts → ready
 *   adopt: the link of a worker that an earlier daemon left running, RESET sent → HELLO of the worker → ready
 *   worker_free(): link closed, the process ends by itself (a link thread sees the end) or is killed a little later
 *   worker_leave(): let go of, for the next daemon
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "daemon/mark.h"
#include "daemon/worker-report.h"
#include "engine/proto/worker-proto.h"

struct json_object;

/* All workers of a daemon: what they share, and the ended ones whose process has not gone yet. */
struct workers;
struct worker;

/* From the loop only. Any of them may free the worker. What only a loaded model has to say may be NULL, which is not
 * listened to: progress, piece, spent, step, done, gpus, log; used, where none is adopted. */
struct worker_callbacks {
    void (*facts)(struct worker *w, struct json_object *facts, void *userdata);
    void (*progress)(struct worker *w, uint64_t bytes_done, uint64_t bytes_total, void *userdata);
    void (*ready)(struct worker *w, struct json_object *facts, void *userdata);
    /* One piece of one request. */
    void (*piece)(struct worker *w, const struct step_piece *piece, const char *text, struct json_object *extra,
                  void *userdata);
    /* What a step was for a user, in time of one thread. Must not free the worker. */
    void (*spent)(struct worker *w, uid_t uid, uint64_t thread_ns, void *userdata);
    /* After a step's pieces: figures of the whole. */
    void (*step)(struct worker *w, const struct packet_step *step, void *userdata);
    void (*done)(struct worker *w, const struct packet_done *done, struct json_object *extra, void *userdata);
    /* Of one that was adopted: what a request of an earlier daemon has used. */
    void (*used)(struct worker *w, uid_t uid, const struct packet_used *used, void *userdata);
    void (*failed)(struct worker *w, uint64_t request, const struct fault *fault, void *userdata);
    /* What GPUs are doing, as engine/worker/gpus.h has it. */
    void (*gpus)(struct worker *w, struct json_object *samples, void *userdata);
    void (*log)(struct worker *w, int level, uint64_t request, uint32_t tenant, const char *text, void *userdata);
    /* The process ended, the link broke or the worker did what it must not do; only worker_free() is left.
     * @expected: it was told to drain. */
    void (*gone)(struct worker *w, const char *reason, bool expected, void *userdata);
};

struct worker_options {
    const char *path; /* of the binary, or of the socket at which systemd starts one */
    const int *fds;   /* [n_fds] the model's files; consumed, on failure too */
    size_t n_fds;
    const char *config; /* the JSON text of MODEL; copied */
    uint32_t n_threads;
    bool gpu; /* one for GPUs (worker_start_has_gpu()) */
};

/**
 * workers_new() - no worker yet
 * @epoch: the daemon's, > 0
 * @key:   of the marks by which workers know users; copied
 */
int workers_new(sd_event *event, uint64_t epoch, const struct mark_key *key, struct workers **ret);

/**
 * workers_expect_reports() - workers are units of systemd: hear from their ExecStopPost= why they ended
 * @worker_socket: where they are asked for; reports come to "daemon/report" beside it
 * Returns 0 or a negative errno.
 */
int workers_expect_reports(struct workers *ws, const char *worker_socket);

/**
 * workers_report() - the unit that runs as @uid has ended, for @reason; nothing happens if there is none
 */
void workers_report(struct workers *ws, uid_t uid, const char *reason, enum worker_end end);

/**
 * workers_free() - kill and reap what has not ended; all workers must have been released. NULL is fine, returns NULL
 */
struct workers *workers_free(struct workers *ws);

DEFINE_CLEANUP(struct workers *, workers_free)

/**
 * worker_new() - start a process for a model
 * Returns 0 or a negative errno.
 */
int worker_new(struct workers *owner, const struct worker_options *options, const struct worker_callbacks *callbacks,
               void *userdata, struct worker **ret);

/**
 * worker_hold() - @unhold(@held), from the loop, when the process has ended, which may be after worker_free(), or the
 * worker was left to another daemon; once
 */
void worker_hold(struct worker *w, void *held, void (*unhold)(void *held));

struct worker_adoption {
    int link_fd;  /* consumed, on failure too */
    pid_t pid;    /* who has to answer, and as whom */
    uid_t uid;
    uint32_t n_threads;
};

/**
 * worker_adopt() - go on with the worker at the other end of a link that an earlier daemon kept
 * It forgets what it was doing. ready follows once it has answered; gone, if it is not the process of @adoption, not
 * ready, or speaks another version of the protocol.
 * Returns 0 or a negative errno.
 */
int worker_adopt(struct workers *owner, const struct worker_adoption *adoption,
                 const struct worker_callbacks *callbacks, void *userdata, struct worker **ret);

/**
 * worker_leave() - let go of a worker without ending it: somebody else holds a copy of its link
 * No callback comes any more. Not from a callback. Takes NULL, returns NULL
 */
struct worker *worker_leave(struct worker *w);

/**
 * worker_link_fd() - our end of the link, borrowed; -EBADF: the worker is a child, which ends with its parent
 */
int worker_link_fd(const struct worker *w);

/**
 * worker_uid() - that the process runs as; (uid_t)-1 before its HELLO
 */
uid_t worker_uid(const struct worker *w);

/**
 * worker_end() - whose fault its end was, as far as can be told; after gone()
 * Of a crash, what it computed may be to blame.
 */
enum worker_end worker_end(const struct worker *w);

/**
 * worker_is_outdated() - it was adopted, and comes from another build than this daemon
 */
bool worker_is_outdated(const struct worker *w);

/**
 * worker_free() - end the process; no callback comes any more. Takes NULL, returns NULL
 */
struct worker *worker_free(struct worker *w);

/**
 * worker_pid() - of the process
 */
pid_t worker_pid(const struct worker *w);

struct worker_submit {
    uint64_t request;
    uid_t uid; /* becomes an opaque number */
    uint32_t weight;
    uint64_t kv_max_bytes; /* 0: no limit */
    uint32_t tenant_class; /* whose total weight it shares with others, 0: none */
    uint32_t class_weight;
    int32_t priority;
    uint64_t deadline_ns; /* CLOCK_MONOTONIC, 0: none */
    enum submit_kind kind;
    uint32_t tokens_max; /* of prompt and answer together, 0: as many as the model has room for */
    const char *parameters; /* JSON text */
    size_t n_parameters;
};

/**
 * worker_submit() - hand a request to a worker that is ready
 * Never blocks. If the link turns out to be broken, gone follows and the request is lost with the others: that is no
 * error here. Returns 0 or -ENOMEM (nothing was sent).
 */
int worker_submit(struct worker *w, const struct worker_submit *submit);

/**
 * worker_cancel() - the answer to @request is not wanted any more
 */
void worker_cancel(struct worker *w, uint64_t request);

/**
 * worker_pause() - compute nothing more for @request until it is called again without @pause
 */
void worker_pause(struct worker *w, uint64_t request, bool pause);

/**
 * worker_threads() - how many cores it may use from now on
 */
void worker_threads(struct worker *w, uint32_t n_threads);

/**
 * worker_trim() - give back up to @bytes of what is only cached
 */
void worker_trim(struct worker *w, uint64_t bytes);

/**
 * worker_drain() - finish what runs, then end; gone follows with expected
 */
void worker_drain(struct worker *w);

/**
 * worker_spend() - another worker computed something for @uid, which took @thread_ns of one thread's time
 * It counts for its share here as long as it has requests with this worker; else nothing happens.
 */
void worker_spend(struct worker *w, uid_t uid, uint64_t thread_ns);

/**
 * worker_kv_pages() - of the KV cache, that the running requests of @uid held in its last step
 */
uint32_t worker_kv_pages(const struct worker *w, uid_t uid);

/**
 * worker_tenant_uid() - whom a tenant's number stands for; false for one that was never given, or is forgotten
 */
bool worker_tenant_uid(const struct worker *w, uint32_t tenant, uid_t *ret);
