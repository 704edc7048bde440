/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * mlock(2) and munlock(2) as the kernel has them: AddressSanitizer replaces libc's by functions that do nothing and say
 * that it worked, and a build for tests would then prove nothing about residency.
 */

#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* 0, or -1 and errno. */
static inline int memlock(const void *at, size_t n_bytes)
{
    return (int)syscall(SYS_mlock, at, n_bytes);
}

/* The same. */
static inline int memunlock(const void *at, size_t n_bytes)
{
    return (int)syscall(SYS_munlock, at, n_bytes);
}
