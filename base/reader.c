/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bounded cursor of reader.h. Numbers are put together byte by byte, so alignment and the host's byte order do
 * not matter.
 */
#include "base/reader.h"

#include <string.h>

void reader_init(struct reader *r, const void *data, size_t size)
{
    *r = (struct reader){.data = data, .size = size};
}

size_t reader_left(const struct reader *r)
{
    return r->size - r->offset;
}

static bool reader_le(struct reader *r, unsigned n_bytes, uint64_t *ret)
{
    uint64_t v = 0;

    if (reader_left(r) < n_bytes)
        return false;
    for (unsigned i = 0; i < n_bytes; i++)
        v |= (uint64_t)r->data[r->offset + i] << (8 * i);
    r->offset += n_bytes;
    *ret = v;
    return true;
}

bool reader_u8(struct reader *r, uint8_t *ret)
{
    uint64_t v;

    if (!reader_le(r, 1, &v))
        return false;
    *ret = (uint8_t)v;
    return true;
}

bool reader_u16(struct reader *r, uint16_t *ret)
{
    uint64_t v;

    if (!reader_le(r, 2, &v))
        return false;
    *ret = (uint16_t)v;
    return true;
}

bool reader_u32(struct reader *r, uint32_t *ret)
{
    uint64_t v;

    if (!reader_le(r, 4, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

bool reader_u64(struct reader *r, uint64_t *ret)
{
    return reader_le(r, 8, ret);
}

bool reader_i32(struct reader *r, int32_t *ret)
{
    uint32_t v;

    if (!reader_u32(r, &v))
        return false;
    memcpy(ret, &v, sizeof(v));
    return true;
}

bool reader_i64(struct reader *r, int64_t *ret)
{
    uint64_t v;

    if (!reader_u64(r, &v))
        return false;
    memcpy(ret, &v, sizeof(v));
    return true;
}

bool reader_f32(struct reader *r, float *ret)
{
    uint32_t v;

    if (!reader_u32(r, &v))
        return false;
    memcpy(ret, &v, sizeof(v));
    return true;
}

bool reader_f64(struct reader *r, double *ret)
{
    uint64_t v;

    if (!reader_u64(r, &v))
        return false;
    memcpy(ret, &v, sizeof(v));
    return true;
}

bool reader_bytes(struct reader *r, uint64_t n, const uint8_t **ret)
{
    if (reader_left(r) < n)
        return false;
    *ret = r->data + r->offset;
    r->offset += n;
    return true;
}

bool reader_skip(struct reader *r, uint64_t n)
{
    const uint8_t *p;

    return reader_bytes(r, n, &p);
}
