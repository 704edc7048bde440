/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The lowest layer of the reader, private to engine/gguf: steps through the records at the head of one file, checking
 * every count and length against the bytes that are left before using it. Used twice on each file: over the mapped
 * bytes, to learn how long the directory is, and over our own copy of it, whose results are kept.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/reader.h"

struct fault;

struct header {
    struct reader r;
    uint64_t file_bytes; /* of the whole file; r may be limited to less */
    size_t part, n_parts; /* which file this is, for messages */
    struct fault *reterr;
    uint32_t version;
    uint64_t n_tensors, n_keys;
};

/* Names are not terminated here; both are checked: 1 … max bytes of printable UTF-8. */
struct header_key {
    const char *name;
    size_t n_name;
    uint64_t offset; /* of the record */
    uint32_t type, element_type;
    uint64_t n;             /* elements; 1 when no array */
    const uint8_t *value;   /* first byte of the value or of the first element */
    uint64_t value_offset;  /* of that byte */
    uint64_t n_value_bytes;
};

struct header_tensor {
    const char *name;
    size_t n_name;
    uint64_t offset; /* of the record */
    uint32_t n_dims, type;
    uint64_t dims[4]; /* 1 where unused; none is 0 */
    uint64_t dims_offset, type_offset;
    uint64_t data; /* relative to the start of the data section */
    uint64_t data_field_offset;
};

/**
 * header_begin() - read magic, version and counts of the @n_bytes at @data, the first of @file_bytes
 * Counts are checked against limits.h and against the bytes that are left. Returns 0 or -EINVAL, as all here do.
 */
int header_begin(struct header *h, const void *data, size_t n_bytes, uint64_t file_bytes, size_t part,
                 size_t n_parts, struct fault *reterr);

/**
 * header_key() - the next metadata record; to be called h->n_keys times
 * The pointers in *ret point into the header's bytes.
 */
int header_key(struct header *h, struct header_key *ret);

/**
 * header_tensor() - the next tensor record; to be called h->n_tensors times after the keys
 */
int header_tensor(struct header *h, struct header_tensor *ret);

/**
 * header_refuse() - say that the file is wrong at @offset, naming the part where there are several; returns -EINVAL
 */
int header_refuse(const struct header *h, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/**
 * header_value_bytes() - bytes of a value of a fixed-size type, 0 for strings, arrays and unknown types
 */
uint32_t header_value_bytes(uint32_t type);
