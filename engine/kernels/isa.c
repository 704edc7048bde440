/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the processor can do and what the names mean that limit it. cpuid is asked directly: the compilers' own
 * __builtin_cpu_supports() does not know the same names in each version that we build with.
 */
#include "engine/kernels/kernels.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>

static uint64_t saved_state(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

uint32_t kernels_isa_detect(void)
{
    const uint64_t ymm = 0x6, zmm = 0xE6; /* XCR0: SSE and AVX state; and the three AVX-512 states */
    uint32_t a, b, c, d, mask = 0;
    uint32_t leaf1_c, b7, c7, a71 = 0;
    uint64_t state;

    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || !(leaf1_c & bit_OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d))
        return 0;
    if (a >= 1)
        __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    state = saved_state();
    if ((state & ymm) != ymm || !(leaf1_c & bit_AVX) || !(leaf1_c & bit_FMA) || !(leaf1_c & bit_F16C) ||
        !(b7 & bit_AVX2))
        return 0;
    mask |= ISA_AVX2;
    if (a71 & 1u << 4)
        mask |= ISA_AVX_VNNI;
    /* F, DQ, CD, BW, VL: bits 16, 17, 28, 30, 31 of ebx */
    if ((state & zmm) != zmm || (b7 & 0xD0030000u) != 0xD0030000u)
        return mask;
    mask |= ISA_AVX512;
    if (c7 & 1u << 11)
        mask |= ISA_AVX512_VNNI;
    if ((c7 & 1u << 1) && (c7 & 1u << 8))
        mask |= ISA_AVX512_VBMI;
    if (a71 & 1u << 5)
        mask |= ISA_AVX512_BF16;
    return mask;
}
#else
uint32_t kernels_isa_detect(void)
{
    return 0;
}
#endif

/* Rising; "avx512" is what a person means by it: all of AVX-512 that the machine has. */
static const struct {
    const char *name;
    uint32_t mask;
} names[] = {
    {"scalar", 0},
    {"avx2", ISA_AVX2},
    {"avx-vnni", ISA_AVX2 | ISA_AVX_VNNI},
    {"avx512f", ISA_AVX2 | ISA_AVX512},
    {"avx512-vnni", ISA_AVX2 | ISA_AVX512 | ISA_AVX512_VNNI},
    {"avx512-vbmi", ISA_AVX2 | ISA_AVX512 | ISA_AVX512_VNNI | ISA_AVX512_VBMI},
    {"avx512-bf16", ISA_AVX2 | ISA_AVX512 | ISA_AVX512_VNNI | ISA_AVX512_VBMI | ISA_AVX512_BF16},
};

int kernels_isa_parse(const char *name, uint32_t *ret_mask)
{
    if (strcmp(name, "all") == 0 || strcmp(name, "avx512") == 0) {
        *ret_mask = ISA_ALL;
        return 0;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (strcmp(name, names[i].name) == 0) {
            *ret_mask = names[i].mask;
            return 0;
        }
    }
    return -EINVAL;
}

const char *kernels_isa_name(uint32_t mask)
{
    const char *name = names[0].name;

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if ((mask & names[i].mask) == names[i].mask)
            name = names[i].name;
    }
    return name;
}
