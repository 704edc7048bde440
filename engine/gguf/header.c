/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records of a GGUF file, one by one. Called by read.c only. Rules that hold throughout:
 *  1. A count is compared with limits.h and with what the bytes left could hold at best, before anything is done
 *     n times.
 *  2. A length is compared with the bytes left by reader_bytes(), which does not add.
 *  3. Every refusal names the field and the offset of its first byte.
 *
 * Not here: what depends on more than one record (duplicates, tensor sizes against the file) is read.c's.
 */
#include "engine/gguf/header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/fault.h"
#include "base/utf8.h"
#include "engine/gguf/limits.h"
#include "engine/gguf/read.h"

/* The least bytes that a record can take, for the check of the counts: lengths, a name of one byte, types, a value. */
#define KEY_BYTES_MIN (8 + 1 + 4 + 1)
#define TENSOR_BYTES_MIN (8 + 1 + 4 + 8 + 4 + 8)
#define STRING_BYTES_MIN 8

static const uint8_t value_bytes[GGUF_VALUE_TYPE_MAX] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2,  [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

uint32_t header_value_bytes(uint32_t type)
{
    return type < GGUF_VALUE_TYPE_MAX ? value_bytes[type] : 0;
}

int header_refuse(const struct header *h, uint64_t offset, const char *format, ...)
{
    char text[448], prefix[64] = "";
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (h->n_parts > 1)
        snprintf(prefix, sizeof(prefix), "part %zu of %zu: ", h->part + 1, h->n_parts);
    fault_model_invalid(h->reterr, (int64_t)offset, "%s%s", prefix, text);
    return -EINVAL;
}

/* The bytes ran out at the field called @what. */
static int cut_off(const struct header *h, const char *what)
{
    if (h->r.size < h->file_bytes)
        return header_refuse(h, h->r.offset, "the directory does not end within %" PRIu64 " bytes (at %s)",
                             (uint64_t)h->r.size, what);
    return header_refuse(h, h->r.offset, "the file ends at %" PRIu64 " bytes, inside %s", h->file_bytes, what);
}

static int read_magic(struct header *h)
{
    const uint8_t *magic;

    if (!reader_bytes(&h->r, 4, &magic))
        return cut_off(h, "the magic number");
    if (memcmp(magic, "GGUF", 4) == 0)
        return 0;
    return header_refuse(h, 0, "not a GGUF file: it begins with the bytes %02x %02x %02x %02x", magic[0], magic[1],
                         magic[2], magic[3]);
}

static int read_version(struct header *h)
{
    if (!reader_u32(&h->r, &h->version))
        return cut_off(h, "the version");
    if (h->version == 2 || h->version == 3)
        return 0;
    /* Versions are small numbers: with its two low bytes empty it was written by a big-endian machine. */
    if (h->version != 0 && (h->version & 0xFFFF) == 0)
        return header_refuse(h, 4, "big-endian file of GGUF version %" PRIu32 "; little-endian files of versions 2 "
                             "and 3 are read", __builtin_bswap32(h->version));
    return header_refuse(h, 4, "GGUF version %" PRIu32 " found; versions 2 and 3 are read", h->version);
}

static int read_count(struct header *h, const char *what, uint64_t max, uint64_t bytes_min, uint64_t *ret)
{
    uint64_t at = h->r.offset, n;

    if (!reader_u64(&h->r, &n))
        return cut_off(h, what);
    if (n > max)
        return header_refuse(h, at, "%s is %" PRIu64 ", at most %" PRIu64 " are read", what, n, max);
    if (n > reader_left(&h->r) / bytes_min)
        return header_refuse(h, at, "%s is %" PRIu64 ", more than the %zu bytes that are left can hold", what, n,
                             reader_left(&h->r));
    *ret = n;
    return 0;
}

int header_begin(struct header *h, const void *data, size_t n_bytes, uint64_t file_bytes, size_t part, size_t n_parts,
                 struct fault *reterr)
{
    int r;

    *h = (struct header){.file_bytes = file_bytes, .part = part, .n_parts = n_parts, .reterr = reterr};
    reader_init(&h->r, data, n_bytes);
    r = read_magic(h);
    if (r < 0)
        return r;
    r = read_version(h);
    if (r < 0)
        return r;
    r = read_count(h, "the number of tensors", GGUF_TENSORS_MAX, TENSOR_BYTES_MIN, &h->n_tensors);
    if (r < 0)
        return r;
    return read_count(h, "the number of keys", GGUF_KEYS_MAX, KEY_BYTES_MIN, &h->n_keys);
}

static int read_name(struct header *h, const char *what, uint64_t n_bytes_max, const char **ret, size_t *ret_n)
{
    uint64_t at = h->r.offset, n;
    const uint8_t *name;
    size_t bad;

    if (!reader_u64(&h->r, &n))
        return cut_off(h, what);
    if (n == 0 || n > n_bytes_max)
        return header_refuse(h, at, "%s is %" PRIu64 " bytes long, 1 to %" PRIu64 " are allowed", what, n, n_bytes_max);
    if (!reader_bytes(&h->r, n, &name))
        return cut_off(h, what);
    if (!utf8_is_valid((const char *)name, n, &bad))
        return header_refuse(h, at + 8 + bad, "%s is not UTF-8", what);
    for (size_t i = 0; i < n; i++) {
        if (name[i] < 0x20 || name[i] == 0x7F)
            return header_refuse(h, at + 8 + i, "%s holds the control character 0x%02x", what, name[i]);
    }
    *ret = (const char *)name;
    *ret_n = n;
    return 0;
}

/* Names in messages: long keys are cut, at a character. */
static int shown(const struct header_key *key)
{
    return key->n_name <= 64 ? (int)key->n_name : (int)utf8_cut(key->name, 64);
}

static int skip_strings(struct header *h, struct header_key *key)
{
    if (key->n > reader_left(&h->r) / STRING_BYTES_MIN)
        return header_refuse(h, key->value_offset - 8, "key %.*s has %" PRIu64 " strings, more than the %zu bytes that "
                             "are left can hold", shown(key), key->name, key->n, reader_left(&h->r));
    for (uint64_t i = 0; i < key->n; i++) {
        uint64_t at = h->r.offset, n;

        if (!reader_u64(&h->r, &n))
            return cut_off(h, "the length of a string");
        if (!reader_skip(&h->r, n))
            return header_refuse(h, at, "string %" PRIu64 " of key %.*s is %" PRIu64 " bytes long, %zu are left", i,
                                 shown(key), key->name, n, reader_left(&h->r));
    }
    return 0;
}

static int skip_fixed(struct header *h, struct header_key *key)
{
    uint64_t n_bytes;

    if (!checked_mul(key->n, value_bytes[key->element_type], &n_bytes) || !reader_skip(&h->r, n_bytes))
        return header_refuse(
            h, key->value_offset - (key->type == GGUF_ARRAY ? 8 : 0),
            "key %.*s has %" PRIu64 " values of type %s, more than the %zu bytes that are left can hold",
            shown(key), key->name, key->n, gguf_value_type_name(key->element_type), reader_left(&h->r));
    if (key->element_type != GGUF_BOOL)
        return 0;
    for (uint64_t i = 0; i < key->n; i++) {
        if (key->value[i] > 1)
            return header_refuse(h, key->value_offset + i, "key %.*s holds the boolean %u, neither 0 nor 1", shown(key),
                                 key->name, key->value[i]);
    }
    return 0;
}

/* What stands between the type of an array and its first element. */
static int read_array_head(struct header *h, struct header_key *key)
{
    uint64_t at = h->r.offset;

    if (!reader_u32(&h->r, &key->element_type))
        return cut_off(h, "the type of an array");
    if (key->element_type == GGUF_ARRAY)
        return header_refuse(h, at, "key %.*s is an array of arrays, which is not read", shown(key), key->name);
    if (key->element_type >= GGUF_VALUE_TYPE_MAX)
        return header_refuse(h, at, "key %.*s is an array of values of the unknown type %" PRIu32, shown(key),
                             key->name, key->element_type);
    if (!reader_u64(&h->r, &key->n))
        return cut_off(h, "the length of an array");
    return 0;
}

int header_key(struct header *h, struct header_key *ret)
{
    struct header_key key = {.offset = h->r.offset, .n = 1};
    uint64_t at;
    int r;

    r = read_name(h, "the name of a key", GGUF_KEY_BYTES_MAX, &key.name, &key.n_name);
    if (r < 0)
        return r;
    at = h->r.offset;
    if (!reader_u32(&h->r, &key.type))
        return cut_off(h, "the type of a value");
    if (key.type >= GGUF_VALUE_TYPE_MAX)
        return header_refuse(h, at, "key %.*s has a value of the unknown type %" PRIu32, shown(&key), key.name,
                             key.type);
    key.element_type = key.type;
    if (key.type == GGUF_ARRAY) {
        r = read_array_head(h, &key);
        if (r < 0)
            return r;
    }
    key.value = h->r.data + h->r.offset;
    key.value_offset = h->r.offset;
    if (key.element_type == GGUF_STRING)
        r = skip_strings(h, &key);
    else
        r = skip_fixed(h, &key);
    if (r < 0)
        return r;
    key.n_value_bytes = h->r.offset - key.value_offset;
    *ret = key;
    return 0;
}

int header_tensor(struct header *h, struct header_tensor *ret)
{
    struct header_tensor t = {.offset = h->r.offset, .dims = {1, 1, 1, 1}};
    uint64_t at;
    int r;

    r = read_name(h, "the name of a tensor", GGUF_TENSOR_NAME_BYTES_MAX, &t.name, &t.n_name);
    if (r < 0)
        return r;
    at = h->r.offset;
    if (!reader_u32(&h->r, &t.n_dims))
        return cut_off(h, "a tensor's number of dimensions");
    if (t.n_dims == 0 || t.n_dims > GGUF_DIMS_MAX)
        return header_refuse(h, at, "tensor %.*s has %" PRIu32 " dimensions, 1 to %u are allowed",
                             (int)t.n_name, t.name, t.n_dims, GGUF_DIMS_MAX);
    t.dims_offset = h->r.offset;
    for (uint32_t i = 0; i < t.n_dims; i++) {
        at = h->r.offset;
        if (!reader_u64(&h->r, &t.dims[i]))
            return cut_off(h, "the dimensions of a tensor");
        if (t.dims[i] == 0)
            return header_refuse(h, at, "dimension %" PRIu32 " of tensor %.*s is 0", i, (int)t.n_name, t.name);
    }
    t.type_offset = h->r.offset;
    if (!reader_u32(&h->r, &t.type))
        return cut_off(h, "the type of a tensor");
    t.data_field_offset = h->r.offset;
    if (!reader_u64(&h->r, &t.data))
        return cut_off(h, "the offset of a tensor");
    *ret = t;
    return 0;
}
