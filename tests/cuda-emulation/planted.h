/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Kernels with faults, to see that the emulation finds them, and one without.
 */

#include "engine/cuda/launch-args.h"

struct planted {
    launch_address in, out; /* u32 [n] */
    uint32_t n, which;
};

enum planted_fault {
    PLANTED_NONE,          /* out[block] = sum of its 64 words of in, by shared memory, shuffles and barriers */
    PLANTED_NO_BARRIER,    /* the same without the barrier between warps */
    PLANTED_NO_WARP_SYNC,  /* lanes hand words to each other without warp_sync() */
    PLANTED_WRITE_AFTER_READ, /* shared memory is used again while another warp may still read it */
    PLANTED_UNINITIALISED, /* a shared word that no thread has written is read */
    PLANTED_OUT_OF_BOUNDS, /* one word behind in is read */
    PLANTED_SHARED_BOUNDS, /* one word behind the shared memory */
    PLANTED_READ_ONLY,     /* in is written */
    PLANTED_MISALIGNED,    /* a word at an odd address */
    PLANTED_MISALIGNED_VECTOR, /* four words at a multiple of 4 */
    PLANTED_DIVERGED_BARRIER, /* half of the threads pass another barrier's place */
    PLANTED_DIVERGED_SHUFFLE, /* half a warp shuffles, the other waits at a barrier */
    PLANTED_BLOCKS,        /* two blocks write the same word */
    PLANTED_BLOCKS_READ,   /* a block reads what another writes */
    PLANTED_MAX,
};
