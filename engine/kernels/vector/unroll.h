/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Loops over accumulators must disappear, or the accumulators live in memory; each compiler has its own word
 * for it. FORGET makes a pointer's value unknown, so that what was computed from it is not kept in registers.
 */
#define FORGET(pointer) __asm__("" : "+r"(pointer))

/* No registers to keep anything in; gcc's sanitizers take loops apart before it looks for the annotated one. */
#if defined(LANES_SCALAR) || defined(__SANITIZE_ADDRESS__)
#define UNROLL
#define UNROLL_NOT
#elif defined(__clang__)
#define UNROLL     _Pragma("clang loop unroll(full)")
#define UNROLL_NOT _Pragma("clang loop unroll(disable)")
#else
#define UNROLL     _Pragma("GCC unroll 32")
#define UNROLL_NOT _Pragma("GCC unroll 1")
#endif
