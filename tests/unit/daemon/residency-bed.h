/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A file in a folder of its own and what loads it, for tests of residencies. Failures are cmocka's.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/residency.h"

struct bed {
    char folder[40], path[80];
    size_t n_bytes; /* of the file */
    sd_event *event;
    struct residencies *residencies;
};

/* What a residency's callbacks said. */
struct bed_outcome {
    bool over, loaded, sampled;
    uint64_t bytes_lost;
    enum fault_kind kind;
    char why[512];
    void (*prepare)(struct residency *r); /* see bed_load_prepared() */
};

/**
 * bed_setup() - with a file of @n_bytes "x"; for a test's own setup function
 */
int bed_setup(void **state, size_t n_bytes);

/**
 * bed_teardown() - of a cmocka test
 */
int bed_teardown(void **state);

/**
 * bed_write_file() - (re)write the file with @fill
 */
void bed_write_file(const struct bed *bed, char fill);

/**
 * bed_load() - the residency, for the caller to free; loaded, or *@ret says why not
 */
struct residency *bed_load(struct bed *bed, struct residency_options options, struct bed_outcome *ret);

/**
 * bed_load_prepared() - the same, with @prepare called once the files are open
 */
struct residency *bed_load_prepared(struct bed *bed, struct residency_options options,
                                    void (*prepare)(struct residency *r), struct bed_outcome *ret);

/**
 * bed_load_again() - residency_load() of one that is loaded, and what comes of it; @ret is that of bed_load()
 */
void bed_load_again(struct bed *bed, struct residency *r, struct bed_outcome *ret);

/**
 * bed_sample() - the same of residency_sample()
 */
void bed_sample(struct bed *bed, struct residency *r, struct bed_outcome *ret);

/**
 * bed_may_lock() - whether this process may lock @n_bytes
 */
bool bed_may_lock(size_t n_bytes);
