/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The record of who used what, kept by a thread of its own, so that no disk ever holds up the loop. A
 * request that ended is handed in with ledger_record(); once it is in the file (ledger-file.h), its callback
 * comes, and only then is its last reply sent: what a client saw finished is never missing after kill -9,
 * and never there twice.
 *
 * A ledger that can't write (a full disk, a damaged file, no directory) never keeps anybody from an answer: callbacks
 * come at once, what is not written waits in memory and is tried again, and ledger_status() says so. A damaged file is
 * set aside and a new one begun with what is known of the day.
 *
 * All functions belong to the loop's thread.
 */

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "daemon/ledger-file.h"

struct ledger;
struct ledger_record;

/* What the file said of the day when it was first opened: mostly before ledger_new() returns, otherwise from the loop.
 * What was recorded since the start is not in it. Borrowed for the call. */
typedef void (*ledger_loaded_t)(const struct ledger_day *list, size_t n, void *userdata);

/* @is_new: false: it was in the file before */
typedef void (*ledger_recorded_t)(bool is_new, void *userdata);

struct ledger_options {
    const char *dir; /* NULL: nothing is kept */
    ledger_loaded_t loaded;
    void *userdata;
    const struct log *log; /* borrowed for the ledger's life; only the loop's thread writes to it */
};

/**
 * ledger_new() - start the thread, and give it a moment to open the file
 * A file that can't be opened is no error. Returns 0 or a negative errno.
 */
int ledger_new(sd_event *event, const struct ledger_options *options, struct ledger **ret);

/**
 * ledger_free() - write what waits, as far as that works; no callback comes any more. Takes NULL, returns NULL
 */
struct ledger *ledger_free(struct ledger *l);

DEFINE_CLEANUP(struct ledger *, ledger_free)

/**
 * ledger_record() - put a request that ended into the file
 * @entry:    copied
 * @recorded: from the loop, never from here: it is in the file, or can't be for now. NULL: nobody waits for that
 * @ret:      to call the callback off with ledger_forget(); gone once it came. NULL without @recorded
 * Returns 0 or -ENOMEM.
 */
int ledger_record(struct ledger *l, const struct ledger_entry *entry, ledger_recorded_t recorded, void *userdata,
                  struct ledger_record **ret);

/**
 * ledger_forget() - the callback is not wanted any more; the record stays. Takes NULL, returns NULL
 */
struct ledger_record *ledger_forget(struct ledger_record *record);

enum ledger_state {
    LEDGER_OK,
    LEDGER_OFF,      /* there is no directory for it */
    LEDGER_DEGRADED, /* it can't be written at the moment, or not all of the day is known */
    LEDGER_STATE_MAX,
};

struct ledger_status {
    enum ledger_state state;
    char reason[256];     /* "": none */
    char set_aside[256];  /* where a damaged file was put; "": there was none since the start */
    uint64_t n_unwritten; /* requests that wait in memory to be written */
    uint64_t n_lost;      /* that were too many for that */
};

/**
 * ledger_status() - how it is
 */
void ledger_status(struct ledger *l, struct ledger_status *ret);

/**
 * ledger_state_to_string() - "ok", "off", "degraded"
 */
const char *ledger_state_to_string(enum ledger_state state);
