/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The test double of libcuda, seen by tests in the same process: its settings and its counts. On a GPU (tests/cuda-run)
 * there are none, and what is asked of them holds.
 */

#include <stdbool.h>

#include "tests/fake-libcuda/fake.h"

/**
 * counts_on_gpu() - whether this runs on a GPU instead
 */
bool counts_on_gpu(void);

/**
 * counts_need_double() - skip the running test on a GPU: it is about the double's settings or its memory
 */
void counts_need_double(void);

/**
 * counts_need_devices() - have the double pretend so many devices; skip the test where there are fewer GPUs
 */
void counts_need_devices(uint32_t n);

/**
 * counts_assert_equal() - a count of the double's
 */
void counts_assert_equal(uint64_t count, uint64_t expected);

/**
 * counts_forget_settings() - a test's set-up: no setting of another test's is left
 */
int counts_forget_settings(void **state);

/**
 * counts_set() - a setting for the drivers that are opened from now on
 */
void counts_set(const char *name, const char *value);

/**
 * counts_set_number() - likewise
 */
void counts_set_number(const char *name, uint64_t value);

/**
 * counts_read() - what was done and is held; all 0 on a GPU
 */
struct fake_counts counts_read(void);

/**
 * counts_block() - the newest block of device memory of @n_bytes; there must be one
 */
const uint8_t *counts_block(size_t n_bytes);

/**
 * counts_copy() - a copy of all memory that devices and pinned memory hold, block after block; the caller frees it
 */
uint8_t *counts_copy(size_t *ret_n_bytes);

/**
 * counts_assert_none() - nothing is held, and no copy left its memory
 */
void counts_assert_none(void);
