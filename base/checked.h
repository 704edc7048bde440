/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Arithmetic on numbers that came from outside. Each helper returns false when the mathematical result does not fit;
 * *ret is then not to be used. size_t is 64 bits on every platform that the project supports.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

static inline bool checked_sub(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_sub_overflow(a, b, ret);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}

/* Rounds up to a multiple of @align, which is a power of two. */
static inline bool checked_align(uint64_t value, uint64_t align, uint64_t *ret)
{
    uint64_t sum;

    if (!checked_add(value, align - 1, &sum))
        return false;
    *ret = sum & ~(align - 1);
    return true;
}

/* Narrowing: true when @value fits into the type of *ret. */
#define checked_cast(value, ret) (!__builtin_add_overflow((value), 0, (ret)))

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "64-bit platforms only");
