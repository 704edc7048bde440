/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The emulation's half of engine/cuda/device/device.cuh: included before a kernel's source. With EMULATION_CHECKED a
 * device_ptr is a class that asks before each access, else it is a pointer.
 */

#define DEVICE_EMULATED

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>

#include "engine/cuda/launch-args.h"
#include "engine/gguf/half.h"
#include "tests/cuda-emulation/emulation.h"

#define DEV static inline
#define DEV_TABLE static const
#define UNROLL
#define UNROLL_NOT

/* What a fiber waits for. */
enum emulation_wait { EMULATION_RUNS, EMULATION_WARP, EMULATION_BARRIER, EMULATION_ENDED };

/* The running thread, as its kernel sees it. */
struct emulation_self {
    uint32_t thread, block[3], grid[3];
    unsigned char *dynamic; /* shared memory of the launch */
};

extern thread_local struct emulation_self emulation_self;

void emulation_wait_for(enum emulation_wait what);
/* Hands 8 words to the warp; returns all lanes' words, [32][8], valid until the next but one exchange. @what: must agree. */
const uint32_t (*emulation_exchange(uint32_t what, const uint32_t words[8]))[8];
void emulation_access(const void *at, size_t n_bytes, size_t align, bool is_write);
void *emulation_shared(const void *id, size_t n_bytes);
int emulation_launch(void (*body)(const void *args), const char *name, size_t args_bytes, const unsigned grid[3],
                     const unsigned block[3], unsigned shared_bytes, const void *args);

struct emulation_entry {
    emulation_entry(const char *name, size_t args_bytes, emulation_run_fn run);
    struct emulation_kernel kernel;
    struct emulation_entry *next;
};

#define KERNEL(name, args, threads)                                                                                \
    static void name##_kernel(const struct args &a);                                                               \
    static void name##_body(const void *a)                                                                         \
    {                                                                                                              \
        name##_kernel(*(const struct args *)a);                                                                    \
    }                                                                                                              \
    static int name##_run(const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void **params)   \
    {                                                                                                              \
        return emulation_launch(name##_body, "kernel_" #name, sizeof(struct args), grid, block, shared_bytes, params[0]);    \
    }                                                                                                              \
    static emulation_entry name##_entry("kernel_" #name, sizeof(struct args), name##_run);                                   \
    static void name##_kernel(const struct args &a)

#ifdef EMULATION_CHECKED

template <class T> struct checked_ref {
    T *at;

    operator std::remove_const_t<T>() const
    {
        std::remove_const_t<T> value;

        emulation_access(at, sizeof(T), alignof(T), false);
        memcpy((void *)&value, (const void *)at, sizeof(T));
        return value;
    }

    void operator=(const T &value) const
    {
        emulation_access(at, sizeof(T), alignof(T), true);
        memcpy((void *)at, (const void *)&value, sizeof(T));
    }

    void operator=(const checked_ref &other) const
    {
        *this = (T)other;
    }

    void operator+=(const T &value) const
    {
        *this = (T)((T)*this + value);
    }
};

template <class T> struct device_ptr {
    T *at;

    device_ptr() : at(nullptr) {}
    explicit device_ptr(T *p) : at(p) {}
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>> device_ptr(const device_ptr<U> &other) : at(other.at) {}
    device_ptr(const device_ptr &) = default;
    device_ptr &operator=(const device_ptr &) = default;

    template <class I> checked_ref<T> operator[](I i) const
    {
        return {at + i};
    }

    checked_ref<T> operator*() const
    {
        return {at};
    }

    template <class I> device_ptr operator+(I i) const
    {
        return device_ptr(at + i);
    }

    template <class I> device_ptr &operator+=(I i)
    {
        at += i;
        return *this;
    }

    explicit operator bool() const
    {
        return at != nullptr;
    }
};

template <class T, class U> DEV device_ptr<T> recast(device_ptr<U> p)
{
    return device_ptr<T>((T *)(void *)const_cast<std::remove_const_t<U> *>(p.at));
}

template <class T> DEV device_ptr<T> emulation_ptr(void *p)
{
    return device_ptr<T>((T *)p);
}

#else

template <class T> using device_ptr = T *;

template <class T, class U> DEV T *recast(U *p)
{
    return (T *)(void *)const_cast<std::remove_const_t<U> *>(p);
}

template <class T> DEV T *emulation_ptr(void *p)
{
    return (T *)p;
}

#endif

/* The address of a variable of its own is what tells a declaration from others. */
#define SHARED(type, name, n)                                                                                      \
    static const char name##_id = 0;                                                                               \
    device_ptr<type> name = emulation_ptr<type>(emulation_shared(&name##_id, sizeof(type) * (n)))

template <class T> DEV device_ptr<T> dynamic_shared()
{
    return emulation_ptr<T>(emulation_self.dynamic);
}

template <class T> DEV device_ptr<T> at_address(launch_address address)
{
    return emulation_ptr<T>((void *)(uintptr_t)address);
}

DEV uint32_t thread_index()
{
    return emulation_self.thread;
}

DEV uint32_t block_x()
{
    return emulation_self.block[0];
}

DEV uint32_t block_y()
{
    return emulation_self.block[1];
}

DEV uint32_t block_z()
{
    return emulation_self.block[2];
}

DEV uint32_t grid_y()
{
    return emulation_self.grid[1];
}

DEV void barrier()
{
    emulation_wait_for(EMULATION_BARRIER);
}

DEV void warp_sync()
{
    emulation_wait_for(EMULATION_WARP);
}

enum { EMULATION_SHUFFLE = 1, EMULATION_MMA_K32, EMULATION_MMA_K16 };

template <class T> DEV T shuffle(T value, uint32_t lane)
{
    uint32_t words[8] = {0};
    T result;

    static_assert(sizeof(T) == 4, "shuffles are of 32 bits");
    memcpy(words, &value, 4);
    memcpy(&result, emulation_exchange(EMULATION_SHUFFLE, words)[lane % 32], 4);
    return result;
}

template <class T> DEV T shuffle_xor(T value, uint32_t mask)
{
    return shuffle(value, (thread_index() ^ mask) % 32);
}

DEV int dot4(int a, int b, int c)
{
    uint32_t sum = (uint32_t)c; /* wraps, as the instruction does */

    for (int i = 0; i < 4; i++)
        sum += (uint32_t)((int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i));
    return (int)sum;
}

DEV void mma_k32(int d[4], const int a[4], const int b[2])
{
    uint32_t words[8] = {(uint32_t)a[0], (uint32_t)a[1], (uint32_t)a[2], (uint32_t)a[3], (uint32_t)b[0], (uint32_t)b[1], 0, 0};
    const uint32_t(*all)[8] = emulation_exchange(EMULATION_MMA_K32, words);
    uint32_t lane = thread_index() % 32, g = lane / 4, i = lane % 4;

    for (uint32_t n = 0; n < 4; n++)
        for (uint32_t k = 0; k < 8; k++) /* row g + 8 * (n / 2), column 2 i + n % 2, word k */
            d[n] = dot4((int)all[g * 4 + k % 4][n / 2 + k / 4 * 2], (int)all[(2 * i + n % 2) * 4 + k % 4][4 + k / 4], d[n]);
}

DEV void mma_k16(int d[4], const int a[2], int b)
{
    uint32_t words[8] = {(uint32_t)a[0], (uint32_t)a[1], (uint32_t)b, 0, 0, 0, 0, 0};
    const uint32_t(*all)[8] = emulation_exchange(EMULATION_MMA_K16, words);
    uint32_t lane = thread_index() % 32, g = lane / 4, i = lane % 4;

    for (uint32_t n = 0; n < 4; n++)
        for (uint32_t k = 0; k < 4; k++)
            d[n] = dot4((int)all[g * 4 + k][n / 2], (int)all[(2 * i + n % 2) * 4 + k][2], d[n]);
}

DEV uint32_t count_bits(uint32_t x)
{
    return (uint32_t)__builtin_popcount(x);
}

DEV uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t r = 0;

    for (int i = 0; i < 4; i++)
        r |= (uint32_t)(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return r;
}

DEV float bits_to_float(uint32_t bits)
{
    return float_from_bits(bits);
}

DEV uint32_t float_bits(float x)
{
    return float_to_bits(x);
}

DEV float half_float(uint16_t half)
{
    return half_to_float(half);
}

DEV uint16_t float_half(float x)
{
    return float_to_half(x);
}

DEV float fused(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}

DEV float square_root(float x)
{
    return __builtin_sqrtf(x);
}

DEV float divide(float a, float b)
{
    return a / b;
}
