/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What one daemon tells the next of the workers that it leaves running, as a sealed memfd in systemd's keeping: a head
 * (magic, version, length, SHA-256) and JSON. It is read like a stranger's: it may come from another version, or from
 * a daemon that was ending for a bug. Whatever is odd makes the whole of it void, and everything is loaded cold.
 *
 * It names descriptors (the links and the copies of files that lie beside it) by number, and says what identifies the
 * files in use, so that what was read, locked or checked against a digest need not be read again.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "daemon/gpus.h"
#include "daemon/mark.h"
#include "daemon/residency.h"

#define SNAPSHOT_VERSION UINT32_C(2)
#define SNAPSHOT_BYTES_MAX (8u << 20) /* a thousand models with long paths */
#define SNAPSHOT_MODELS_MAX 4096
#define SNAPSHOT_STARTS_MAX 8

struct snapshot_model {
    char *name;
    char *loading;      /* what of the policy it was loaded with (model_loading_text()); NULL: not loaded */
    uint32_t pin;       /* enum model_pin */
    uint64_t link_id;   /* of the worker's link; all from here on: only where it is loaded */
    uint64_t copies_id; /* of the copied files, 0: they are used in place */
    pid_t pid;
    uid_t uid;
    uint64_t granted_bytes, kv_bytes, scratch_bytes;
    struct residency_identity *files; /* [n_files] */
    size_t n_files;
};

struct snapshot {
    uint64_t epoch;   /* of the daemon that wrote it; the next one's is higher */
    uint64_t next_id; /* above all that are in use */
    struct mark_key mark_key; /* under which workers know users */
    char gpus[GPUS_MAX][GPUS_BUS_ID_MAX]; /* those that were there, as struct gpus: the next looks for them, too */
    uint64_t starts_us[SNAPSHOT_STARTS_MAX]; /* [n_starts] CLOCK_BOOTTIME, of daemons that did not end in order */
    size_t n_starts;
    struct snapshot_model *models; /* [n_models] */
    size_t n_models;
};

/**
 * snapshot_write() - into a fresh sealed memfd
 * @ret: owned by the caller. Returns 0 or a negative errno (-E2BIG: more than SNAPSHOT_BYTES_MAX).
 */
int snapshot_write(const struct snapshot *s, int *ret);

/**
 * snapshot_read() - what a memfd says, if it is a snapshot
 * @reterr_why: why not; a static text
 * Returns 0, -EBADMSG (with the reason), -ENOMEM.
 */
int snapshot_read(int fd, struct snapshot **ret, const char **reterr_why);

/**
 * snapshot_parse() - the same from bytes in memory
 */
int snapshot_parse(const void *data, size_t n, struct snapshot **ret, const char **reterr_why);

/**
 * snapshot_free() - takes NULL, returns NULL
 */
struct snapshot *snapshot_free(struct snapshot *s);

DEFINE_CLEANUP(struct snapshot *, snapshot_free)
