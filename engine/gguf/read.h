/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The directory of a GGUF model (versions 2 and 3, little-endian): its metadata and where its tensors lie. Made from
 * mapped bytes that nobody has checked and that another process may still be able to write: what is needed of the
 * directory is copied once and checked in the copy, the tensors' data stay in place. A struct gguf that exists is
 * consistent: every tensor lies wholly inside its part, has a known type and whole blocks per row, overlaps no other,
 * and every name is unique, printable UTF-8.
 *
 * What the numbers *mean* (shapes that fit the architecture, token ids in range) is checked by those who use them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault;
struct gguf;

/* The numbers of the file format. */
enum gguf_value_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPE_MAX,
};

/* Any bytes: not terminated, may hold NUL, need not be UTF-8. */
struct gguf_string {
    const char *data;
    uint64_t n_bytes;
};

/* Mapped bytes of one file of the model; borrowed for the gguf's life. */
struct gguf_part {
    const void *data;
    uint64_t n_bytes;
};

struct gguf_tensor {
    const char *name;
    uint32_t type; /* enum tensor_type, known to tensor_traits() */
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is the row length, consecutive in memory; unused ones are 1 */
    uint64_t row_bytes, n_rows, n_bytes; /* n_bytes = row_bytes * n_rows, without padding */
    uint32_t part;   /* index into the parts given to gguf_read() */
    uint64_t offset; /* of the data, from the start of that part's file */
    const void *data; /* in place; aligned as the file's general.alignment says, relative to the file's start */
};

struct gguf_key {
    const char *name;
    uint32_t type;         /* enum gguf_value_type */
    uint32_t element_type; /* of an array; else the same as type */
    uint64_t n;            /* elements of an array; else 1 */
    uint64_t offset;       /* of the value in the first part's file, for messages */
};

/* A view of an array's elements; lives as long as the gguf. Read it with gguf_array_*(). */
struct gguf_array {
    uint32_t type; /* as stored in the file */
    uint64_t n;
    uint64_t offset;         /* in the first part's file, for messages */
    const uint8_t *elements; /* stored form; private to keys.c */
    const uint32_t *strings; /* [n] where each string begins, from elements on; NULL unless GGUF_STRING. Private too */
};

/**
 * gguf_read() - check a model's files and make their directory
 * @parts:    [n_parts] the files in the order of their numbers (-00001-of-0000N first); one for a model in one file.
 *            The array is borrowed for the call, the bytes behind it until gguf_free()
 * @reterr:   on -EINVAL: FAULT_MODEL_INVALID, with what is wrong and at which offset; may be NULL
 * Metadata are those of the first part. The parts' split.no, split.count and split.tensors.count have to agree with
 * what was given. Returns 0, -EINVAL (the file is not what it should be), -ENOMEM.
 * Time is O(n log n) in keys and tensors plus one pass over the directory. Source: GGUF specification, version 3.
 */
int gguf_read(const struct gguf_part *parts, size_t n_parts, struct gguf **ret, struct fault *reterr);

/**
 * gguf_free() - the directory goes, the mapped bytes stay the caller's; takes NULL, returns NULL
 */
struct gguf *gguf_free(struct gguf *g);

/**
 * gguf_version() - 2 or 3, of the first part
 */
uint32_t gguf_version(const struct gguf *g);

/**
 * gguf_n_parts() - number of files
 */
size_t gguf_n_parts(const struct gguf *g);

/**
 * gguf_alignment() - general.alignment of the first part
 */
uint32_t gguf_alignment(const struct gguf *g);

/**
 * gguf_n_tensors() - over all parts
 */
size_t gguf_n_tensors(const struct gguf *g);

/**
 * gguf_tensor() - tensor @i < gguf_n_tensors(), in the order of the parts and of the files' directories
 */
const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i);

/**
 * gguf_find_tensor() - the tensor called @name in any part, NULL when there is none; O(log n)
 */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/**
 * gguf_n_keys() - number of metadata keys
 */
size_t gguf_n_keys(const struct gguf *g);

/**
 * gguf_key() - key @i < gguf_n_keys(), in file order
 */
const struct gguf_key *gguf_key(const struct gguf *g, size_t i);

/**
 * gguf_find_key() - the key called @name, NULL when there is none; O(log n)
 */
const struct gguf_key *gguf_find_key(const struct gguf *g, const char *name);

/**
 * gguf_value_type_name() - "u32", "string" …; "unknown" for a number that is no type
 */
const char *gguf_value_type_name(uint32_t type);

/**
 * gguf_get_u32() - gguf_get_i32(), gguf_get_u64(), gguf_get_i64(): an integer stored in any width whose value fits;
 * gguf_get_f32(): a finite number stored as f32 or f64; gguf_get_bool(); gguf_get_string(): see each type.
 * @reterr: on -EINVAL: key, type found and offset; untouched on -ENOENT; may be NULL
 * Returns 0; -ENOENT (no such key: *ret keeps the default that the caller put there); -EINVAL (wrong type or range).
 */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct fault *reterr);
int gguf_get_i32(const struct gguf *g, const char *key, int32_t *ret, struct fault *reterr);
int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *ret, struct fault *reterr);
int gguf_get_i64(const struct gguf *g, const char *key, int64_t *ret, struct fault *reterr);
int gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct fault *reterr);
int gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct fault *reterr);
int gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *ret, struct fault *reterr);

/**
 * gguf_get_array() - an array whose elements can be read as @element_type
 * @element_type: GGUF_U32, GGUF_I32 (every stored integer has been checked to fit), GGUF_F32 (f32 or f64 stored),
 *                GGUF_BOOL, GGUF_STRING
 * Returns as gguf_get_u32(). The array may be empty.
 */
int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type element_type, struct gguf_array *ret,
                   struct fault *reterr);

/**
 * gguf_array_u32() - gguf_array_i32(), gguf_array_f32(), gguf_array_bool(), gguf_array_string(): element @i < a->n of
 * an array that gguf_get_array() gave out for that type. O(1).
 */
uint32_t gguf_array_u32(const struct gguf_array *a, uint64_t i);
int32_t gguf_array_i32(const struct gguf_array *a, uint64_t i);
float gguf_array_f32(const struct gguf_array *a, uint64_t i);
bool gguf_array_bool(const struct gguf_array *a, uint64_t i);
struct gguf_string gguf_array_string(const struct gguf_array *a, uint64_t i);

/**
 * gguf_array_offset() - where element @i < a->n stands in the first part's file, for messages
 */
uint64_t gguf_array_offset(const struct gguf_array *a, uint64_t i);
