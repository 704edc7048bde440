/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the kernels are written in: the only file that holds intrinsics and PTX. Kernels compile with nvcc, where all of
 * this is what its names say, and with a C++ compiler against an emulation of the execution model
 * (tests/cuda-emulation/emulated.hh, which is included first and replaces the second half), where every access to memory
 * is checked.
 *
 * Rules, which make the emulation a proof and not a likeness:
 *   - memory is only reached through device_ptr<T>, shared memory only through SHARED() and dynamic_shared<T>();
 *   - shuffles and mma are done by whole warps, never in code that lanes of a warp pass differently;
 *   - what lanes of a warp hand to each other in memory needs warp_sync(), what warps do, barrier();
 *   - no block waits for another, no atomics: the order of every sum is fixed.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/cuda/launch-args.h"
#include "engine/cuda/launch-grid.h"

#ifndef DEVICE_EMULATED

#define DEV static __device__ __forceinline__
#define DEV_TABLE static __device__ const
#define UNROLL _Pragma("unroll")
#define UNROLL_NOT _Pragma("unroll 1")

/* Begins a kernel, whose entry is called kernel_<name>: KERNEL(name, launch_name, threads) { … a.member … } */
#define KERNEL(name, args, threads) extern "C" __global__ void __launch_bounds__(threads, 1) \
    kernel_##name(const __grid_constant__ struct args a)

template <class T> using device_ptr = T *;

/* Static shared memory of a block, uninitialised. */
#define SHARED(type, name, n)                 \
    __shared__ __align__(16) type name##_array[n]; \
    device_ptr<type> name = name##_array

extern __shared__ __align__(16) unsigned char device_dynamic_shared[];

/* The shared memory that the launch asked for. */
template <class T> DEV device_ptr<T> dynamic_shared()
{
    return (T *)device_dynamic_shared;
}

template <class T> DEV device_ptr<T> at_address(launch_address address)
{
    return (T *)address;
}

/* The same bytes as another type, whose alignment they must have. */
template <class T, class U> DEV device_ptr<T> recast(device_ptr<U> p)
{
    return (T *)p;
}

DEV uint32_t thread_index()
{
    return threadIdx.x;
}

DEV uint32_t block_x()
{
    return blockIdx.x;
}

DEV uint32_t block_y()
{
    return blockIdx.y;
}

DEV uint32_t block_z()
{
    return blockIdx.z;
}

DEV uint32_t grid_y()
{
    return gridDim.y;
}

DEV void barrier()
{
    __syncthreads();
}

DEV void warp_sync()
{
    __syncwarp();
}

/* The value of lane (own lane ^ mask). */
template <class T> DEV T shuffle_xor(T value, uint32_t mask)
{
    return __shfl_xor_sync(0xFFFFFFFFu, value, (int)mask);
}

template <class T> DEV T shuffle(T value, uint32_t lane)
{
    return __shfl_sync(0xFFFFFFFFu, value, (int)lane);
}

/* c + the sum of four products of signed bytes. */
DEV int dot4(int a, int b, int c)
{
#if __CUDA_ARCH__ >= 610
    return __dp4a(a, b, c);
#else
    return c;
#endif
}

/*
 * d[16, 8] += a[16, 32] . b[8, 32]ᵀ of signed bytes, by a warp. Of lane l, g = l / 4 and i = l % 4: words i and i + 4 (of
 * eight a row) of rows g (a[0], a[2]) and g + 8 (a[1], a[3]) and of column g (b[0], b[1]); d[0], d[1] are columns 2 i
 * and 2 i + 1 of row g, d[2], d[3] of row g + 8.
 */
DEV void mma_k32(int d[4], const int a[4], const int b[2])
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    UNROLL
    for (int i = 0; i < 4; i++)
        asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1},{%2},{%3},{%0,%1};"
            : "+r"(d[i % 2 * 2]), "+r"(d[i % 2 * 2 + 1])
            : "r"(a[i]), "r"(b[i / 2]));
#endif
}

/* The same over 16 values: word i of four; a[0] of row g, a[1] of row g + 8. */
DEV void mma_k16(int d[4], const int a[2], int b)
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
#else
    UNROLL
    for (int i = 0; i < 2; i++)
        asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1},{%2},{%3},{%0,%1};"
            : "+r"(d[i * 2]), "+r"(d[i * 2 + 1])
            : "r"(a[i]), "r"(b));
#endif
}

DEV uint32_t count_bits(uint32_t x)
{
    return (uint32_t)__popc(x);
}

/* Bytes of a and b (0 … 3 and 4 … 7) chosen by the four nibbles of @selector. */
DEV uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector)
{
    return __byte_perm(a, b, selector);
}

DEV float bits_to_float(uint32_t bits)
{
    return __uint_as_float(bits);
}

DEV uint32_t float_bits(float x)
{
    return __float_as_uint(x);
}

DEV float half_float(uint16_t half)
{
    float x;

    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
    return x;
}

/* To nearest, ties to even. */
DEV uint16_t float_half(float x)
{
    uint16_t half;

    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

/* a * b + c, rounded once. All other arithmetic is not contracted (-fmad=false) and rounds as IEEE says. */
DEV float fused(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}

DEV float square_root(float x)
{
    return __fsqrt_rn(x);
}

DEV float divide(float a, float b)
{
    return __fdiv_rn(a, b);
}

#endif

/* --- for both --- */

struct __attribute__((aligned(8))) words2 {
    uint32_t at[2];
};

struct __attribute__((aligned(16))) words4 {
    uint32_t at[4];
};

struct __attribute__((aligned(16))) floats4 {
    float at[4];
};

DEV uint32_t lane_index()
{
    return thread_index() % 32;
}

DEV uint32_t warp_index()
{
    return thread_index() / 32;
}
