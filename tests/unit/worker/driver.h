/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The daemon's part in the tests of resident-worker: starts the real binary, greets it, loads a model,
 * collects what comes back. Everything asserts (cmocka); waiting has a generous end, so that a worker that
 * hangs fails a test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"
#include "engine/proto/channel.h"

#define DRIVER_REQUESTS_MAX 512
#define DRIVER_EPOCH        7

struct answer {
    uint64_t request;
    char *text; /* all pieces; terminated */
    size_t n_text;
    char *extra; /* of the last piece that had one, or of DONE; terminated */
    uint32_t n_tokens, n_pieces;
    int32_t position; /* the last queue position heard, 0: none */
    bool done, failed;
    struct packet_done usage;
    struct fault fault;
};

struct driver {
    struct channel *c;
    pid_t pid;
    int pidfd;
    bool hello, ready, pong, model_failed;
    uint32_t hello_state;
    struct ucred credentials;
    char *facts;
    uint64_t cookie;
    struct packet_step step; /* the last one */
    struct step_tenant tenants[64];
    uint32_t n_tenants;
    uint64_t n_steps_heard, cost_ns, n_drafted, n_accepted, n_prompt, n_output;
    struct packet_used used[64];
    uint32_t n_used;
    struct fault model_fault;
    struct answer answers[DRIVER_REQUESTS_MAX];
    size_t n_answers;
};

/**
 * driver_start() - a new process that has said HELLO
 */
void driver_start(struct driver *d);

/**
 * driver_load() - MODEL with a memfd (consumed) and a JSON text, until READY or failure
 */
void driver_load(struct driver *d, int fd_take, const char *config);

/**
 * driver_load_files() - the same with several files
 */
void driver_load_files(struct driver *d, const int *fds_take, size_t n_fds, const char *config);

/**
 * driver_model() - a small random model as a memfd; @context tokens
 */
int driver_model(uint32_t context);

/**
 * driver_model_that_chats() - the same with another chat template
 */
int driver_model_that_chats(uint32_t context, const char *chat_template);

/**
 * driver_submit() - a request; its answer is collected from now on
 */
struct answer *driver_submit(struct driver *d, uint32_t tenant, enum submit_kind kind, uint64_t deadline_ns,
                             const char *json);

/**
 * driver_send() - any other packet without a blob
 */
void driver_send(struct driver *d, enum packet_type type, const void *fixed, size_t n_fixed);

/**
 * driver_receive() - take one packet; false when none came for @timeout_ms or the worker is gone
 */
bool driver_receive(struct driver *d, int timeout_ms);

/**
 * driver_wait() - until a request has ended
 */
void driver_wait(struct driver *d, struct answer *a);

/**
 * driver_complete() - submit and wait
 */
struct answer *driver_complete(struct driver *d, enum submit_kind kind, const char *json);

/**
 * driver_exit_status() - wait for the process to end; its status as of waitpid()
 */
int driver_exit_status(struct driver *d);

/**
 * driver_take_over() - what the next daemon does: RESET on the same link. Answers of before are forgotten
 */
void driver_take_over(struct driver *d);

/**
 * driver_stop() - close the connection, wait for the end, release everything; returns the status
 */
int driver_stop(struct driver *d);
