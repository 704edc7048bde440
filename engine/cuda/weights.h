/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What of a model's file a device holds: the matrices and vectors that its operations read, each once, in the quantised
 * form of the file, in one block of device memory.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/cuda/driver.h"
#include "engine/cuda/upload.h"
#include "engine/graph/ops.h"

#define WEIGHTS_ALIGN 256 /* of each one's address */

struct weights_entry {
    const uint8_t *data; /* in the mapping */
    uint64_t n_bytes;
    uint64_t offset; /* in the device's block */
};

struct weights {
    struct weights_entry *entries; /* [n], by address in the mapping */
    size_t n, n_room;
    uint64_t n_bytes; /* of the block */
    cuda_pointer memory;
};

/**
 * weights_find() - list what the operations of @g with @places[i] == @place read
 * @places: [g->n_ops]
 * Returns 0, -ENOMEM, -EOVERFLOW.
 */
int weights_find(struct weights *w, const struct graph *g, const uint8_t *places, uint8_t place);

/**
 * weights_done() - release the list; the block is its device's
 */
void weights_done(struct weights *w);

/**
 * weights_upload() - copy all of it to w->memory; returns as upload_add()
 */
int weights_upload(const struct weights *w, struct upload *u, struct fault *reterr);

/**
 * weights_at() - where the device has what lies at @data in the mapping; 0 for NULL. It must have been found
 */
cuda_pointer weights_at(const struct weights *w, const void *data);
