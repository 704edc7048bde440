/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Products for many tokens: linear.cuh. The sums are those of linear-few.cu.
 */
#include "engine/cuda/device/blocks-grid.cuh"
#include "engine/cuda/device/linear.cuh"

LINEAR_TILES(q4_0)
LINEAR_TILES(q4_1)
LINEAR_TILES(q5_0)
LINEAR_TILES(q5_1)
LINEAR_TILES(q8_0)
LINEAR_TILES(iq4_nl)
LINEAR_TILES(mxfp4)
LINEAR_TILES(q2_k)
LINEAR_TILES(q3_k)
LINEAR_TILES(q4_k)
LINEAR_TILES(q5_k)
LINEAR_TILES(q6_k)
LINEAR_TILES(iq4_xs)
LINEAR_TILES(iq2_xxs)
LINEAR_TILES(iq2_xs)
LINEAR_TILES(iq2_s)
LINEAR_TILES(iq3_xxs)
LINEAR_TILES(iq3_s)
LINEAR_TILES(iq1_s)
LINEAR_TILES(iq1_m)
LINEAR_TILES(tq1_0)
LINEAR_TILES(tq2_0)
