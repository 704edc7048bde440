/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One connection: frames in, one call at a time, replies out.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "daemon/account.h"
#include "daemon/identity.h"
#include "daemon/manager.h"
#include "daemon/method-table.h"
#include "daemon/nss.h"

struct session;

/* What the listener lends to each of its sessions; it outlives them. */
struct session_host {
    struct manager *manager;
    struct nss *nss;
    const struct method_table *methods;
    void (*ended)(struct session *s,
                  void *userdata); /* to be freed now; from the loop, with nothing of @s running */
    const char *(*user_name)(uid_t uid, void *userdata);
    void *userdata;
};

/**
 * session_new() - begin to serve a connection
 * @fd:       non-blocking; taken on success
 * @identity: moved out of on success
 * @charge:   of the connection; moved out of on success
 * @refusal:  NULL; otherwise every call is answered with this, and the connection is closed after the first
 * Returns 0 or a negative errno.
 */
int session_new(const struct session_host *host, int fd, struct identity *identity,
                struct account_charge *charge, const struct fault *refusal, struct session **ret);

/**
 * session_free() - cancel what runs, close, release; takes NULL, returns NULL. Not from a handler of the session
 */
struct session *session_free(struct session *s);

DEFINE_CLEANUP(struct session *, session_free)

/**
 * session_is_idle() - whether no call runs or waits, and the session is no refused one
 */
bool session_is_idle(const struct session *s);

/**
 * session_refuse() - an idle one: the next call is answered with @refusal, and the connection closed after it
 */
void session_refuse(struct session *s, const struct fault *refusal);

/**
 * session_identity() - who it is; the name is there once NSS has answered
 */
const struct identity *session_identity(const struct session *s);
