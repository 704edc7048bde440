/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A bounded cursor over bytes that nobody has checked yet (model files, packets). Every getter checks first and moves
 * only on success, so a failed read leaves the offset at the field that did not fit. All numbers are little-endian.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reader {
    const uint8_t *data; /* borrowed from whoever called reader_init() */
    size_t size;
    size_t offset; /* of the next unread byte, <= size */
};

/**
 * reader_init() - start reading at the first of @size bytes at @data, which must outlive the reader
 */
void reader_init(struct reader *r, const void *data, size_t size);

/**
 * reader_left() - number of bytes that have not been read
 */
size_t reader_left(const struct reader *r);

/**
 * reader_u8() - reader_u16(), reader_u32(), reader_u64(), reader_i32(), reader_i64(), reader_f32(), reader_f64()
 * read one little-endian number.
 * Returns false, with nothing moved and *ret untouched, when too few bytes are left.
 */
bool reader_u8(struct reader *r, uint8_t *ret);
bool reader_u16(struct reader *r, uint16_t *ret);
bool reader_u32(struct reader *r, uint32_t *ret);
bool reader_u64(struct reader *r, uint64_t *ret);
bool reader_i32(struct reader *r, int32_t *ret);
bool reader_i64(struct reader *r, int64_t *ret);
bool reader_f32(struct reader *r, float *ret);
bool reader_f64(struct reader *r, double *ret);

/**
 * reader_bytes() - hand out the next @n bytes in place
 * *ret points into the reader's data and lives as long as that does. Returns false when fewer are left.
 */
bool reader_bytes(struct reader *r, uint64_t n, const uint8_t **ret);

/**
 * reader_skip() - move over @n bytes; false when fewer are left
 */
bool reader_skip(struct reader *r, uint64_t n);
