/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Weights on their way from the mapped file to a device. Where driver and kernel allow it the file's own pages are
 * pinned for the time of the copy and the device fetches them; else two pinned buffers take turns, one being filled
 * while the device copies the other.
 *
 * An upload belongs to one thread; its device must not be closed before it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/cuda/device.h"

/* Of each of the two buffers: a copy of so many bytes takes longer than beginning it. */
#define UPLOAD_BUFFER_BYTES ((size_t)8 << 20)

struct upload;

/* Called between pieces, with what is copied so far. False ends the upload. */
typedef bool (*upload_progress)(void *userdata, uint64_t n_bytes);

/**
 * upload_new() - take the buffers
 * @progress: may be NULL
 * Returns as driver_check(), -ENOMEM.
 */
int upload_new(struct device *d, upload_progress progress, void *userdata, struct upload **ret, struct fault *reterr);

/**
 * upload_free() - give the buffers back; takes NULL, returns NULL. What is under way is waited for
 */
struct upload *upload_free(struct upload *u);

DEFINE_CLEANUP(struct upload *, upload_free)

/**
 * upload_add() - copy @n_bytes from @from, read-only memory that stays until upload_finish(), to @to on the device
 * Returns as driver_check(); -ECANCELED when progress() said so.
 */
int upload_add(struct upload *u, cuda_pointer to, const void *from, uint64_t n_bytes, struct fault *reterr);

/**
 * upload_finish() - wait until everything has arrived
 */
int upload_finish(struct upload *u, struct fault *reterr);

/**
 * upload_bytes_registered() - how much was fetched from the file's own pages, for reports
 */
uint64_t upload_bytes_registered(const struct upload *u);
