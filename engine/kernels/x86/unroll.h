/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Loops over arrays of registers must be unrolled completely, or the arrays land in memory: the two compilers ask for it
 * in different words, and clang ignores gcc's (a kernel ran at a quarter of its speed).
 */
#define UNROLL_PRAGMA(text) _Pragma(#text)
#ifdef __SANITIZE_ADDRESS__ /* gcc's instrumentation takes loops apart before it looks for the annotated one */
#define UNROLL(n)
#elif defined(__clang__)
#define UNROLL(n) UNROLL_PRAGMA(clang loop unroll(full))
#else
#define UNROLL(n) UNROLL_PRAGMA(GCC unroll n)
#endif

/* Templates: functions whose constant arguments must vanish by inlining. */
#define TEMPLATE static inline __attribute__((always_inline))
