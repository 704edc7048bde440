/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/cuda-emulation/emulated.hh"

#include "engine/cuda/device/device.cuh"
#include "tests/cuda-emulation/planted.h"

KERNEL(planted, planted, 64)
{
    SHARED(uint32_t, parts, 64);
    device_ptr<const uint32_t> in = at_address<const uint32_t>(a.in) + 64 * block_x();
    device_ptr<uint32_t> out = at_address<uint32_t>(a.out);
    uint32_t thread = thread_index(), sum = in[thread];

    if (a.which != PLANTED_UNINITIALISED) {
        parts[thread] = 0;
        barrier();
    }
    if (a.which == PLANTED_OUT_OF_BOUNDS && block_x() == a.n / 64 - 1)
        sum += in[thread + 1];
    if (a.which == PLANTED_READ_ONLY)
        at_address<uint32_t>(a.in)[thread] = 0;
    if (a.which == PLANTED_MISALIGNED)
        sum += *recast<const uint32_t>(recast<const uint8_t>(in) + 1);
    if (a.which == PLANTED_MISALIGNED_VECTOR)
        sum += ((struct words4)*recast<const struct words4>(in + 1)).at[0];
    if (a.which == PLANTED_NO_WARP_SYNC) {
        parts[thread] = sum;
        sum = parts[thread ^ 1];
        barrier();
    }
    if (a.which == PLANTED_DIVERGED_SHUFFLE) {
        if (thread % 32 < 16)
            sum += shuffle_xor(sum, 1);
        else
            barrier();
    }
    for (uint32_t m = 16; m > 0; m /= 2)
        sum += shuffle_xor(sum, m);
    if (thread % 32 == 0)
        parts[thread / 32] = sum;
    if (a.which == PLANTED_DIVERGED_BARRIER && thread < 32)
        warp_sync();
    if (a.which == PLANTED_DIVERGED_BARRIER && thread >= 32 && thread < 48)
        barrier();
    else if (a.which == PLANTED_DIVERGED_BARRIER && thread >= 48)
        warp_sync();
    else if (a.which != PLANTED_NO_BARRIER)
        barrier();
    sum = parts[0] + parts[1];
    if (a.which == PLANTED_WRITE_AFTER_READ && thread == 40)
        parts[0] = 0;
    if (a.which == PLANTED_UNINITIALISED)
        sum += parts[2];
    if (a.which == PLANTED_SHARED_BOUNDS)
        sum += parts[64];
    if (a.which == PLANTED_BLOCKS_READ && block_x() == 1)
        sum += out[0];
    if (thread == 0)
        out[a.which == PLANTED_BLOCKS ? 0 : block_x()] = sum;
}

struct planted_multiply {
    launch_address a, b, c; /* i8 [16, 32], i8 [8, 32], i32 [16, 8] */
    uint32_t k16, reserved;
};

KERNEL(planted_mma, planted_multiply, 32)
{
    uint32_t g = lane_index() / 4, i = lane_index() % 4;
    device_ptr<const int> x = at_address<const int>(a.a), y = at_address<const int>(a.b);
    device_ptr<int> c = at_address<int>(a.c);
    int fragment[4] = {x[g * 8 + i], x[(g + 8) * 8 + i], x[g * 8 + i + 4], x[(g + 8) * 8 + i + 4]};
    int other[2] = {y[g * 8 + i], y[g * 8 + i + 4]}, d[4] = {};

    if (a.k16) {
        mma_k16(d, fragment, other[0]);
        mma_k16(d, fragment + 2, other[1]);
    } else {
        mma_k32(d, fragment, other);
    }
    for (uint32_t e = 0; e < 4; e++)
        c[(g + 8 * (e / 2)) * 8 + 2 * i + e % 2] = d[e];
}
