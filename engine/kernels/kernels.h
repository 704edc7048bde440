/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The table of compute kernels: which function does what on this machine. It is filled once, by kernels_select(), and
 * handed to whoever computes; it is plain data, holds no state and may be shared by any number of threads.
 */

#include <stdint.h>

#include "engine/kernels/linear.h"
#include "engine/kernels/vector.h"

/* Instruction sets, as bits of a mask. Each bit stands for its own instructions only; a kernel names all it needs. */
enum isa {
    ISA_AVX2 = 1 << 0,        /* AVX2, FMA, F16C */
    ISA_AVX_VNNI = 1 << 1,    /* vpdpbusd on 256-bit registers, VEX-coded */
    ISA_AVX512 = 1 << 2,      /* AVX512 F, BW, DQ, VL, CD */
    ISA_AVX512_VNNI = 1 << 3,
    ISA_AVX512_VBMI = 1 << 4, /* with GFNI, which all have that have VBMI and VNNI */
    ISA_AVX512_BF16 = 1 << 5,
};

#define ISA_ALL ((1u << 6) - 1)

struct kernels {
    struct linear_table linear;
    struct vector_table vector;
    uint32_t isa; /* the mask that the table was selected for */
};

/**
 * kernels_isa_detect() - what the processor has and the operating system saves
 * Returns a mask of enum isa; 0 (scalar code only) on processors other than x86-64.
 */
uint32_t kernels_isa_detect(void);

/**
 * kernels_isa_parse() - the limit that a person named ("scalar", "avx2", "avx512", …)
 * @name:     one of the names that kernels_isa_name() gives, or "all"
 * @ret_mask: all bits that the name allows; to be and-ed with kernels_isa_detect()
 * Returns 0; -EINVAL when there is no such name.
 */
int kernels_isa_parse(const char *name, uint32_t *ret_mask);

/**
 * kernels_isa_name() - the name of the highest step that @mask has in full, for logs and status; constant text
 */
const char *kernels_isa_name(uint32_t mask);

/**
 * kernels_select() - fill the table with the best kernels that @isa_mask allows
 * @isa_mask: what may be used; bits that the processor lacks must not be set (and with kernels_isa_detect())
 * @ret:      always filled completely: scalar kernels stand where nothing better is allowed
 */
void kernels_select(uint32_t isa_mask, struct kernels *ret);
