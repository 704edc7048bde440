/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A whole file into memory at the speed of its device: large blocks, several at a time, past the page cache.
 */

#include <stdint.h>

/* From the fastest down. What can't be had is replaced by the next. */
enum readin_way {
    READIN_RING,     /* io_uring, with O_DIRECT where the file system has it */
    READIN_DIRECT,   /* one block at a time, O_DIRECT */
    READIN_BUFFERED, /* one block at a time through the page cache */
};

#define READIN_BLOCK_BYTES (UINT64_C(16) << 20)

struct readin {
    int fd; /* of the file, readable; borrowed */
    uint64_t n_bytes;
    uint8_t *to; /* starts a page; [n_bytes, rounded up to a whole page] */
    enum readin_way best; /* what to try first */
    /* A block of @n bytes at @at is about to be read, in order; NULL: nothing to do. */
    void (*prepare)(uint64_t at, uint64_t n, void *userdata);
    /* The first @n_bytes are there, never fewer than the time before. Negative: to be given up with that. */
    int (*arrived)(uint64_t n_bytes, void *userdata);
    void *userdata;
};

/**
 * readin_run() - read it; blocks until it is all there, for helper threads
 * Callbacks run in the calling thread.
 * @ret_way:   how it was read; may be NULL
 * @reterr_at: where in the file it failed; may be NULL
 * Returns 0; -ENODATA: the file is shorter than n_bytes; what arrived() returned; or another negative errno. No read
 * is under way any more.
 */
int readin_run(const struct readin *r, enum readin_way *ret_way, uint64_t *reterr_at);

/**
 * readin_way_to_string() - for the log
 */
const char *readin_way_to_string(enum readin_way way);
