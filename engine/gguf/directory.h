/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a struct gguf is made of; private to engine/gguf. read.c builds it, keys.c answers questions about metadata.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/read.h"

struct directory_key {
    struct gguf_key key;
    const uint8_t *value;    /* into the copy: the value, or the first element */
    const uint32_t *strings; /* [key.n], for arrays of strings: where each begins, from value on */
};

/* One file's head: our copy of its bytes, and the index over it. */
struct directory {
    uint8_t *copy;
    uint64_t n_copy;
    char *names;       /* keys and tensors, each terminated */
    uint32_t *strings; /* of all arrays of strings */
    struct directory_key *keys;
    uint32_t *key_order; /* [n_keys] by name: lookup by bisection has no bad case that a file could choose */
    size_t n_keys, n_tensors;
    uint32_t version;
    uint32_t alignment;
    uint64_t data_offset; /* where the data section begins in the file */
};

struct gguf {
    struct directory *directories; /* [n_parts] */
    size_t n_parts;
    struct gguf_tensor *tensors; /* [n_tensors] */
    uint32_t *tensor_order;      /* [n_tensors] by name */
    uint64_t *tensor_records;    /* [n_tensors] where each one's entry stands in its file, for messages */
    size_t n_tensors;
};

/**
 * directory_find() - the key called @name in one file's directory, or NULL
 */
const struct directory_key *directory_find(const struct directory *d, const char *name);

/**
 * directory_integer() - the value of a scalar integer key; false when it is of another type or does not fit
 */
bool directory_integer(const struct directory_key *key, int64_t *ret);
