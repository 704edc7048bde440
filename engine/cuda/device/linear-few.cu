/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Products for any number of tokens, at their best for up to 16: linear.cuh; and the end of those that adapters change.
 */
#include "engine/cuda/device/blocks-grid.cuh"
#include "engine/cuda/device/linear.cuh"

/* Behind what adapters add. */
KERNEL(linear_finish, launch_linear, LAUNCH_THREADS)
{
    uint32_t t = block_x(), r = block_y() * LAUNCH_THREADS + thread_index();
    struct product p = {};

    if (r < a.n_rows)
        product_finish(a, p, r, t, at_address<const float>(a.out)[(uint64_t)t * a.out_stride + r]);
}

LINEAR_FLOATS(f32, TENSOR_F32)
LINEAR_FLOATS(f16, TENSOR_F16)
LINEAR_FLOATS(bf16, TENSOR_BF16)
LINEAR_FEW(q4_0)
LINEAR_FEW(q4_1)
LINEAR_FEW(q5_0)
LINEAR_FEW(q5_1)
LINEAR_FEW(q8_0)
LINEAR_FEW(iq4_nl)
LINEAR_FEW(mxfp4)
LINEAR_FEW(q2_k)
LINEAR_FEW(q3_k)
LINEAR_FEW(q4_k)
LINEAR_FEW(q5_k)
LINEAR_FEW(q6_k)
LINEAR_FEW(iq4_xs)
LINEAR_FEW(iq2_xxs)
LINEAR_FEW(iq2_xs)
LINEAR_FEW(iq2_s)
LINEAR_FEW(iq3_xxs)
LINEAR_FEW(iq3_s)
LINEAR_FEW(iq1_s)
LINEAR_FEW(iq1_m)
LINEAR_FEW(tq1_0)
LINEAR_FEW(tq2_0)
