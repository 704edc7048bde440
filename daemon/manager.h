/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The one object from which everything in residentd hangs: event loop, policy, accounts, models with their workers,
 * requests. main.c makes it, then opens the listener on it (listener.h), runs the loop, closes the listener (which
 * ends the sessions and so cancels their requests) and frees it.
 *
 * What the methods of the socket need is declared here, in request.h and in account.h.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/fault.h"
#include "base/log.h"
#include "daemon/account.h"
#include "daemon/ledger.h"
#include "daemon/model.h"
#include "daemon/request.h"
#include "policy/policy.h"

struct json_object;
struct manager;
struct nss;

struct manager_options {
    const char *const *policy_paths; /* [n_policy_paths] none: the system places */
    size_t n_policy_paths;
    const char *state_dir;   /* may be NULL */
    const char *pressure_path; /* NULL: the kernel's, of this process' cgroup or of the machine */
    const char *worker_path; /* NULL: beside the daemon's binary, else libexecdir */
    const struct log *log;   /* borrowed for the manager's life */
};

/**
 * manager_new() - load the policy, set up the loop and begin to load the pinned models
 * @reterr_fault: set when the policy is at fault (-EINVAL)
 * Returns 0 or a negative errno.
 */
int manager_new(const struct manager_options *options, struct manager **ret, struct fault *reterr_fault);

/**
 * manager_free() - end the workers, let go of all memory; no request may be left (sessions are closed first)
 * Takes NULL, returns NULL.
 */
struct manager *manager_free(struct manager *m);

DEFINE_CLEANUP(struct manager *, manager_free)

/**
 * manager_listening() - clients can connect from now on: tells systemd, now or when the policy says
 */
void manager_listening(struct manager *m);

/**
 * manager_event() - the event loop; borrowed
 */
sd_event *manager_event(struct manager *m);

/**
 * manager_log() - where log lines go; borrowed
 */
const struct log *manager_log(const struct manager *m);

/**
 * manager_policy() - the policy that new requests meet; borrowed until control goes back to the event loop
 */
const struct policy *manager_policy(const struct manager *m);

/**
 * manager_accounts() - who holds what; for charging connections and bytes
 */
struct accounts *manager_accounts(struct manager *m);

/**
 * manager_group_accounts() - the same by gid, of groups that have a total
 */
struct accounts *manager_group_accounts(struct manager *m);

/**
 * manager_is_stopping() - true from SIGTERM on: new calls are answered with ShuttingDown
 */
bool manager_is_stopping(const struct manager *m);

/**
 * manager_list_models() - the models that @s may use, in order of their names
 * @ret: [*ret_n], the array belongs to the caller (free()), what it points to does not. Returns 0 or -ENOMEM.
 */
int manager_list_models(struct manager *m, const struct policy_subject *s, struct model_info **ret, size_t *ret_n);

/* One GPU. The name is borrowed until control goes back to the event loop. */
struct vram_status {
    uint32_t number;
    const char *name;
    uint64_t budget_bytes, used_bytes; /* for models; held by them, with what the driver takes for each */
    uint64_t total_bytes;
    int64_t others_bytes; /* held by other programs; -1: nobody knows, as with the next two */
    int temperature_celsius;
    const char *throttled; /* why it is slower than it could be; NULL: it is not, or nobody knows */
};

#define VRAM_STATUS_MAX 16

struct manager_status {
    uint64_t ram_budget_bytes, ram_locked_bytes, ram_kv_bytes, ram_used_bytes;
    struct vram_status vram[VRAM_STATUS_MAX]; /* [n_vram] by number */
    size_t n_vram;
    const char *gpu_reason; /* why there are no GPUs, or not all; NULL: nothing is wrong. Borrowed as models' strings */
    struct model_status *models; /* [n_models] those that the asker may use; an administrator sees all */
    size_t n_models;
    bool has_users; /* the asker is an administrator */
    struct account_status *users; /* [n_users] */
    uint64_t *user_kv_bytes; /* [n_users] that they hold in all models */
    size_t n_users;
    struct ledger_status ledger;
};

/**
 * manager_status() - what Status reports to @s
 * @ret: to be released by manager_status_done(). Returns 0 or -ENOMEM.
 */
int manager_status(struct manager *m, const struct policy_subject *s, struct manager_status *ret);

/**
 * manager_status_done() - release what manager_status() filled in
 */
void manager_status_done(struct manager_status *status);

/**
 * manager_requests() - live requests of one uid, or of all
 * @ret: [*ret_n], owned by the caller (free()). Returns 0 or -ENOMEM.
 */
int manager_requests(struct manager *m, bool all, uid_t uid, struct request_status **ret, size_t *ret_n);

/**
 * manager_cancel() - end request @id with Cancelled, if it is @s's own or @s is an administrator
 * Its own callbacks hear of it from the loop. Returns 0; REQUEST_REFUSED (NoSuchRequest, also for those of others).
 */
int manager_cancel(struct manager *m, const struct policy_subject *s, uint64_t id, struct fault *reterr_fault);

/* Somebody who waits for a model to come or go. */
struct model_wait;

/* Called from the loop only; exactly one of done and failed, after which the wait is gone. */
struct model_wait_callbacks {
    void (*progress)(struct model_wait *w, enum model_state state, uint64_t bytes_done, uint64_t bytes_total,
                     void *userdata); /* may be NULL */
    void (*done)(struct model_wait *w, enum model_state state, uint64_t bytes_total, void *userdata);
    void (*failed)(struct model_wait *w, const struct fault *fault, void *userdata);
};

/**
 * manager_load() - an administrator wants the model in memory; done comes when it is ready
 * Returns 0; REQUEST_REFUSED (NoSuchModel, NotAllowed admins_only, ShuttingDown); -ENOMEM.
 */
int manager_load(struct manager *m, const struct policy_subject *s, const char *model,
                 const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                 struct fault *reterr_fault);

/**
 * manager_unload() - an administrator wants the model gone; running requests finish first, done comes when it is absent
 * Returns as manager_load().
 */
int manager_unload(struct manager *m, const struct policy_subject *s, const char *model,
                   const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                   struct fault *reterr_fault);

/* Descriptors of a model's files. */
struct manager_share {
    int *fds; /* [n_fds] read-only, opened for this; the caller closes each and frees the array */
    size_t n_fds;
    uint64_t n_bytes;
    const char *sha256; /* NULL: the policy gives none; borrowed until control goes back to the event loop */
};

/**
 * manager_share() - @s wants to map the model itself; done comes when it is in memory
 * Returns 0; REQUEST_REFUSED (NoSuchModel; NotAllowed policy or share; ModelUnavailable, ShuttingDown); -ENOMEM.
 */
int manager_share(struct manager *m, const struct policy_subject *s, const char *model,
                  const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                  struct fault *reterr_fault);

/**
 * manager_shared_files() - after that: what it is to get
 * A file that is used in place is one that others can't write; a copy is sealed, and counts in the budget until its
 * last holder is gone.
 * Returns 0; REQUEST_REFUSED as above; a negative errno.
 */
int manager_shared_files(struct manager *m, const struct policy_subject *s, const char *model,
                         struct manager_share *ret, struct fault *reterr_fault);

/**
 * model_wait_cancel() - stop listening; the loading goes on. Takes NULL, returns NULL; no callback comes afterwards
 */
struct model_wait *model_wait_cancel(struct model_wait *w);

/**
 * manager_pin() - an administrator wants the model in memory and to stay there, until the policy is read again
 * Returns as manager_load().
 */
int manager_pin(struct manager *m, const struct policy_subject *s, const char *model,
                const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                struct fault *reterr_fault);

/**
 * manager_unpin() - the model may leave when it is idle, or when others need its room
 * Holds for models that the policy pins, too, until it is read again. Returns as manager_cancel().
 */
int manager_unpin(struct manager *m, const struct policy_subject *s, const char *model, struct fault *reterr_fault);

/* The policy was read: @result 0, and @changed are the keys that differ, as policy_diff() has them; REQUEST_REFUSED,
 * and @fault is FAULT_POLICY_INVALID; or a negative errno. All borrowed for the call. */
typedef void (*manager_reloaded_t)(int result, struct json_object *changed, const struct fault *fault, void *userdata);

struct reload_wait;

/**
 * manager_reload() - read the policy again, aside, and swap it as a whole or keep the old one
 * @done: called from the loop when that is done
 * @ret:  to call it off; gone once @done was called
 * Returns 0 or a negative errno.
 */
int manager_reload(struct manager *m, manager_reloaded_t done, void *userdata, struct reload_wait **ret);

/**
 * reload_wait_cancel() - nobody wants to know any more; the policy is read all the same. Takes NULL, returns NULL
 */
struct reload_wait *reload_wait_cancel(struct reload_wait *wait);

/**
 * manager_set_reloaded() - have @reloaded called, from the loop, after each reload with the new policy in force
 */
void manager_set_reloaded(struct manager *m, void (*reloaded)(void *userdata), void *userdata);

/**
 * manager_set_stopping() - have @stopping called, from the loop, when the daemon begins to stop
 * It returns whether anybody is connected, who has a moment then to ask and to be answered.
 */
void manager_set_stopping(struct manager *m, bool (*stopping)(void *userdata), void *userdata);

/**
 * manager_set_nss() - the user database, to ask for the groups of users who are not connected; borrowed until NULL
 */
void manager_set_nss(struct manager *m, struct nss *nss_borrow);
