/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who was there when a worker crashed. Which request of a step was to blame nobody can tell, so all of them are
 * suspects; a user who was in two crashes of one model has to wait before the next request to it, longer each time, as
 * with OpenSSH's PerSourcePenalties. Everybody else is innocent. Pure: times and users in, delays out.
 *
 * Only for crashes that a request can cause: memory that ran out, a file or a device that failed, and a watchdog on a
 * busy machine are nobody's fault, and the caller says nothing of them.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

#define BLAME_FORGET_US (UINT64_C(3600) * 1000000) /* a crash that nothing followed for so long is forgotten */
#define BLAME_DELAY_FIRST_US (UINT64_C(30) * 1000000)
#define BLAME_DELAY_MAX_US (UINT64_C(600) * 1000000)
#define BLAME_ENTRIES_MAX 4096 /* pairs of a model and a user; the oldest gives way */

struct blame;

/**
 * blame_new() - nobody is suspected. Returns 0 or -ENOMEM
 */
int blame_new(struct blame **ret);

/**
 * blame_free() - takes NULL, returns NULL
 */
struct blame *blame_free(struct blame *b);

DEFINE_CLEANUP(struct blame *, blame_free)

/**
 * blame_crash() - a worker of @model crashed while it computed requests of @uids [@n], each of which may be there
 * several times
 * @now_us: on any one clock, never going back
 */
void blame_crash(struct blame *b, const char *model, const uid_t *uids, size_t n, uint64_t now_us);

/**
 * blame_delay_us() - how much longer @uid has to wait before it may use @model; 0: not at all
 */
uint64_t blame_delay_us(const struct blame *b, const char *model, uid_t uid, uint64_t now_us);
