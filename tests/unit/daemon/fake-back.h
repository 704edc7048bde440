/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A back half for tests of the daemon's front: the functions of manager.h, model.h and request.h over lists that the
 * test holds in its hands. Requests stay where they are until the test moves them. Accounts and policy are the real
 * ones; the policy is a struct that the test fills in.
 */

#include "daemon/manager.h"
#include "daemon/usage.h"
#include "daemon/watch.h"
#include "daemon/plan-job.h"

struct request {
    struct manager *manager; /* NULL: the slot is free */
    uint64_t id;
    enum request_kind kind;
    char model[64];
    char parameters[4096]; /* as JSON */
    uid_t uid;
    bool paused;
    const struct request_callbacks *callbacks;
    void *userdata;
};

struct model_wait {
    struct manager *manager; /* NULL: free */
    const struct model_wait_callbacks *callbacks;
    void *userdata;
};

enum { FAKE_REQUESTS_MAX = 64 };

struct manager {
    sd_event *event;
    struct log log;
    struct policy policy;
    struct accounts *accounts;
    bool stopping;
    struct fault refusal; /* what request_start() answers, if its kind is set */
    struct request requests[FAKE_REQUESTS_MAX];
    unsigned n_started, n_cancelled;
    struct model_wait wait;
    void (*watched)(void *userdata); /* of Models.Watch; NULL: nobody does */
    void *watched_userdata;
    unsigned n_waits_cancelled;
    manager_reloaded_t reload_done; /* of manager_reload() */
    void *reload_userdata;
    void (*reloaded)(void *userdata);
    void *reloaded_userdata;
    struct plan_job_wish plan_wish;
    const struct plan_job_callbacks *plan_callbacks;
    void *plan_userdata;
};

/* The request at index @i of those that live, in order of their ids; NULL: there are fewer. */
struct request *fake_request(struct manager *m, unsigned i);

/**
 * fake_reloaded() - the policy has been read that Models.Reload asked for
 */
void fake_reloaded(struct manager *m);

/* The worker says something; done and failed end the request. */
void fake_piece(struct request *r, const char *text, const char *extra_json);
void fake_queue(struct request *r, int64_t position, int64_t eta_ms);
void fake_progress(struct request *r, uint64_t done, uint64_t total);
void fake_done(struct request *r, const char *finish, const char *extra_json);
void fake_failed(struct request *r, const struct fault *fault);
