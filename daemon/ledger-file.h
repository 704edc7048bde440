/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The ledger's SQLite file: who used which model how much in which hour. Everything here blocks on the disk, so only
 * the ledger's thread calls it (ledger.h).
 *
 *   usage     one row for each hour, uid and model: requests, tokens, microseconds of computing
 *   totals    tokens of an hour that count against the total of a group
 *   recorded  which requests are in those sums already: adding one again changes nothing
 *   notes     texts that outlive a restart
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

#define LEDGER_FILE_NAME "usage.sqlite"

struct ledger_file;

/* One request that ended. */
struct ledger_entry {
    uint64_t epoch, request; /* of the daemon that had it, and its number there: together never used twice */
    uid_t uid;
    const char *model;
    int64_t day, hour; /* calendar.h, of the moment at which it was admitted */
    uint64_t prompt_tokens, cached_tokens, output_tokens, duration_us;
    const gid_t *groups; /* [n_groups] those whose total it counts against */
    size_t n_groups;
};

/* Tokens that count against a quota: those that were computed. */
uint64_t ledger_entry_tokens(const struct ledger_entry *e);

/* What one user or group has used of a day. */
struct ledger_day {
    uint64_t id; /* uid, or LEDGER_GROUP | gid */
    uint64_t tokens;
};

#define LEDGER_GROUP (UINT64_C(1) << 32)

/* Expected outcomes. The file is closed on both; the second is for ledger_file_set_aside(). */
enum { LEDGER_FAILED = 1, LEDGER_DAMAGED = 2 };

/**
 * ledger_file_open() - open or make the file in @dir
 * @reason: [n_reason] what was wrong, set when the result is not 0
 * Returns 0; LEDGER_FAILED (the disk, permissions: another time it may work); LEDGER_DAMAGED (it is no ledger, or not
 * a whole one); -ENOMEM.
 */
int ledger_file_open(const char *dir, struct ledger_file **ret, char *reason, size_t n_reason);

/**
 * ledger_file_close() - takes NULL, returns NULL
 */
struct ledger_file *ledger_file_close(struct ledger_file *f);

DEFINE_CLEANUP(struct ledger_file *, ledger_file_close)

/**
 * ledger_file_add() - all of @entries or none; those that are in it already are left out
 * @ret_is_new: [n] whether each was not in it
 * In the kernel's hands when it returns: the end of the process takes nothing back.
 * Returns 0, LEDGER_FAILED, LEDGER_DAMAGED.
 */
int ledger_file_add(struct ledger_file *f, const struct ledger_entry *const *entries, size_t n, bool *ret_is_new,
                    char *reason, size_t n_reason);

/**
 * ledger_file_day() - who has used how much since @day
 * @ret: [*ret_n] sorted by id; the caller's. Of a damaged file: what could be read
 * Returns 0, LEDGER_FAILED, LEDGER_DAMAGED (with *ret set), -ENOMEM.
 */
int ledger_file_day(struct ledger_file *f, int64_t day, struct ledger_day **ret, size_t *ret_n, char *reason,
                    size_t n_reason);

/**
 * ledger_file_carry() - begin a new file with what is known of the day: rows of no model
 * Returns as ledger_file_add().
 */
int ledger_file_carry(struct ledger_file *f, int64_t day, const struct ledger_day *list, size_t n, char *reason,
                      size_t n_reason);

/**
 * ledger_file_sync() - onto the disk: until then a power cut may take what was added last
 * Returns as ledger_file_add().
 */
int ledger_file_sync(struct ledger_file *f, char *reason, size_t n_reason);

/**
 * ledger_file_prune() - forget what is older than is kept. Returns as ledger_file_add().
 */
int ledger_file_prune(struct ledger_file *f, int64_t now_s, char *reason, size_t n_reason);

/**
 * ledger_file_note() - remember a text with the file; NULL: forget it. Returns as ledger_file_add().
 */
int ledger_file_note(struct ledger_file *f, int64_t day, const char *text, char *reason, size_t n_reason);

/**
 * ledger_file_get_note() - the text, if it is of @day
 * Returns 0 with a copy that is the caller's, or with NULL; LEDGER_FAILED; -ENOMEM.
 */
int ledger_file_get_note(struct ledger_file *f, int64_t day, char **ret);

/**
 * ledger_file_set_aside() - rename a damaged file of @dir, with what belongs to it, so that a new one can be made
 * @ret: its new path, the caller's. Returns 0 or a negative errno.
 */
int ledger_file_set_aside(const char *dir, int64_t now_s, char **ret);
