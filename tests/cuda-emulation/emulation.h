/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Runs the GPU's kernels on the CPU: the same sources, compiled by a C++ compiler against an emulation of blocks, warps,
 * barriers, shuffles, mma and shared memory. Each thread of a block is a fiber; blocks run one after the other.
 *
 * There are two libraries. "cuda-emulation-checked" watches every access (see enum emulation_fault), for the kernels'
 * tests. "cuda-emulation" does not, for whole models. What neither shows: speed, the memory model between blocks, and
 * what the compiler for the GPU makes of the source.
 *
 * Any thread may launch kernels; each has an emulated device of its own. Memory is the host's: an address of device
 * memory is a pointer.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum emulation_fault {
    EMULATION_OK,
    EMULATION_OUT_OF_BOUNDS, /* outside shared memory and all memory that was allowed */
    EMULATION_READ_ONLY,     /* a write to memory that was allowed for reading */
    EMULATION_MISALIGNED,    /* for the type of the access */
    EMULATION_UNINITIALISED, /* shared memory that no thread of this block has written */
    EMULATION_RACE,          /* two threads, at least one writes, and no barrier between them */
    EMULATION_DIVERGED,      /* lanes of a warp, or warps, wait for each other at different places */
    EMULATION_SHAPE,         /* more threads or shared memory than there is */
};

/* The signature of a launch: grid and block as in cuLaunchKernel(), and its array of pointers to parameters. */
typedef int (*emulation_run_fn)(const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void **params);

struct emulation_kernel {
    const char *name;
    size_t args_bytes; /* of the one parameter */
    emulation_run_fn run; /* 0, or an enum emulation_fault; emulation_message() says where */
};

/**
 * emulated_kernel() - the kernel called @name (launch_kernel_name()); NULL: there is none
 */
const struct emulation_kernel *emulated_kernel(const char *name);

/**
 * emulation_message() - what the last fault in this thread was; "" when there was none
 */
const char *emulation_message(void);

/**
 * emulation_order() - in which order fibers run from now on, in this thread; 0: ascending. Others shuffle lanes and warps.
 */
void emulation_order(uint32_t seed);

/* --- the checked library only --- */

/**
 * emulation_allow() - kernels may read, and with @writable write, these bytes
 */
void emulation_allow(const void *memory, size_t n_bytes, int writable);

/**
 * emulation_forget() - none of what was allowed in this thread is any more
 */
void emulation_forget(void);

#ifdef __cplusplus
}
#endif
