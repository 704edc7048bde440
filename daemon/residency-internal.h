/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files residency*.c share. residency.c has the loop's side and the invariants; the rest runs in the helper
 * thread of a residency.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "daemon/digest.h"
#include "daemon/readin.h"
#include "daemon/residency.h"
#include "daemon/smaps.h"

#define RESIDENCY_HUGE_BYTES (UINT64_C(2) << 20)
/* What makes a copy unchangeable for everybody. */
#define RESIDENCY_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

enum residency_phase { OPENING, OPENED, LOADING, LOADED, FAILED };

struct residency_part {
    int fd;
    size_t i_path; /* whose file it is */
    uint64_t n_bytes;
    struct residency_identity identity;
    bool is_ours;    /* what the page cache has of it, this service read */
    bool is_hugetlb; /* a copy on reserved huge pages */
    bool is_read;    /* the processor has read of each of its pages since they came */
    uint8_t *map;    /* NULL: not mapped */
    uint64_t map_bytes;
};

struct residency {
    struct residencies *owner;
    struct list entry;
    const struct residency_callbacks *callbacks;
    void *userdata;
    char **paths;   /* [n_paths] the model's, then those of others */
    char **sha256s; /* [n_paths] of each, all its parts in order; NULL: not checked */
    size_t n_paths;
    char *path; /* paths[0] */
    enum policy_ram ram;
    enum policy_huge huge;
    enum policy_numa numa;
    uint32_t numa_node;
    uint64_t bytes_max; /* 0: none */
    struct residency_identity *kept; /* [n_kept] NULL: loaded afresh */
    int *kept_fds;                   /* [n_kept] NULL: files are used in place */
    size_t n_kept;
    struct plan_range *left_out;     /* [n_left_out] not to be held */
    size_t n_left_out;

    enum residency_phase phase; /* loop */
    bool abandoned;             /* loop */
    void *held;                 /* loop */
    void (*unhold)(void *held); /* loop */
    bool thread_runs;           /* loop */
    sd_event_source *wakeup;    /* loop */
    sd_event_source *timer;     /* loop */
    int event_fd;
    pthread_t thread;
    _Atomic uint64_t bytes_done; /* thread → loop, a figure for display only: relaxed */
    _Atomic bool stop;           /* loop → thread, looked at between chunks: relaxed */

    int result;
    struct fault fault;
    struct residency_part *parts; /* [n_parts] */
    size_t n_parts;
    uint64_t bytes_total;
    struct smaps_figures figures; /* loop, once LOADED */
    struct smaps_figures sampled; /* the third job's result */
    enum readin_way way; /* of copies: how the last one was read */
};

/* ---- residency.c ---- */

uid_t residencies_own_uid(const struct residencies *rs);

/* ---- residency-open.c ---- */

/* The first job: finds, opens and checks the files. */
int residency_open_all(struct residency *r);

/* What the part's descriptor is known by, into part->identity. @path: for the message. */
int residency_identify(struct residency *r, struct residency_part *part, const char *path);

/* Fills in the fault for @error, a positive errno. Returns it negated. */
int residency_fail_errno(struct residency *r, const char *what, int error);

/* ---- residency-limit.c ---- */

bool residency_may_lock_anything(void);

/* Before gigabytes are read in vain. What is refused later all the same gets the same answer. */
int residency_check_lock_limit(struct residency *r);
int residency_lock_refused(struct residency *r);

/* ---- residency-load.c ---- */

/* The second job: brings the files into memory, locks them, and has the kernel show that they are there. */
int residency_load_all(struct residency *r);

/* What is to be held of all parts, in whole pages. */
uint64_t residency_held_bytes(const struct residency *r);

/* The third, now and then: whether they still are, and whether the files are still the same. */
int residency_sample_all(struct residency *r);

/* At a 2 MiB-aligned address, with the wish for huge pages. */
int residency_map_fd(struct residency *r, int fd, uint64_t map_bytes, int protection, uint8_t **ret);

/* Fills in the fault for what a digest failed with. Returns it. */
int residency_digest_failed(struct residency *r, size_t i_path, int error);

bool residency_is_stopped(struct residency *r);
void residency_advance(struct residency *r, uint64_t n_bytes);

/* ---- residency-copy.c ---- */

/* Replaces the part's file by a sealed copy of it in memory. @digest: gets to see it; NULL: nobody asks. */
int residency_copy_part(struct residency *r, struct residency_part *part, struct digest *digest);
