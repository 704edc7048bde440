/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One call of a method, as its handler sees it. The session has parsed it and checked it against the interface before
 * the handler hears of it. A handler either answers before it returns, or leaves something running with call_begin()
 * and answers later from the event loop; the answer ends the call. When the client goes away first, the session calls
 * `cancel` and nothing more.
 *
 * Replies are queued and written from the event loop, so answering never ends the session under the handler's feet.
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/fault.h"
#include "base/log.h"
#include "daemon/identity.h"
#include "daemon/manager.h"

struct call;
struct method_table;

/* What a call left running. Both get the data of call_begin(). */
struct call_ops {
    void (*cancel)(void *data); /* the client is gone: stop, release @data */
    /* Nothing was sent for a while: call_continue() something; only with `more`. NULL: there is nothing to say. */
    void (*heartbeat)(void *data);
    void (*drained)(void *data); /* the client has read what waited; may be NULL */
};

/* A method's handler. Returns 0 (it has answered or begun), CALL_REFUSED with the fault set, or a negative errno. */
enum { CALL_REFUSED = 1 };
typedef int (*call_handler_t)(struct call *call, struct fault *reterr_fault);

/**
 * call_parameters() - an object that has the type of the method's parameters, without nulls; borrowed until the end
 */
json_object *call_parameters(struct call *call);

/**
 * call_string() - the parameter @name as text, NULL when it is absent; borrowed until the end of the call
 */
const char *call_string(struct call *call, const char *name);

/**
 * call_take_fd() - descriptor @index of those that the client sent along; the caller's from now on
 * Returns it or -EBADF.
 */
int call_take_fd(struct call *call, int64_t index);

/**
 * call_more() - whether the client wants pieces
 */
bool call_more(const struct call *call);

/**
 * call_manager() - the daemon's back half
 */
struct manager *call_manager(struct call *call);

/**
 * call_subject() - who calls; lives as long as what the call leaves running
 */
const struct policy_subject *call_subject(const struct call *call);

/**
 * call_unit() - the systemd unit that the caller runs in, as a label; NULL where that can't be told
 */
const char *call_unit(struct call *call);

/**
 * call_is_admin() - whether the policy in force counts the caller among the administrators
 */
bool call_is_admin(const struct call *call);

/**
 * call_methods() - the table in which the method was found
 */
const struct method_table *call_methods(const struct call *call);

/**
 * call_user_name() - the name of a uid that is connected at the moment, NULL otherwise; asks nobody
 */
const char *call_user_name(const struct call *call, uid_t uid);

/**
 * call_nss() - the user database, to ask it for somebody else
 */
struct nss *call_nss(const struct call *call);

/**
 * call_note() - what the log line about this call shall carry; strings are borrowed until the end of the call
 */
void call_note(struct call *call, const char *model, uint64_t request);

/**
 * call_begin() - the answer comes later. At most once a call, and only from its handler
 */
void call_begin(struct call *call, const struct call_ops *ops, void *data);

/**
 * call_continue_take() - one piece, more follow; only when call_more()
 * @parameters: taken; NULL (no memory for it) ends the connection
 */
void call_continue_take(struct call *call, json_object *parameters);

/**
 * call_reply_take() - the answer, or its last piece; ends the call
 * @parameters: taken; NULL (no memory for it) ends the connection
 */
void call_reply_take(struct call *call, json_object *parameters);

/**
 * call_reply_fds_take() - call_reply_take(), with descriptors that go along
 * @fds: [@n_fds] at most FRAME_FDS_SENT_MAX; the descriptors are taken, the array is not
 */
void call_reply_fds_take(struct call *call, json_object *parameters, const int *fds, size_t n_fds);

/**
 * call_fail() - the answer is an error; ends the call
 */
void call_fail(struct call *call, const struct fault *fault);

/**
 * call_is_slow() - the client has not read what waits, and more should not be made for it now
 */
bool call_is_slow(const struct call *call);
