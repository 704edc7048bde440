/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All kernels in one module: what build-image.py compiles.
 */
#include "engine/cuda/device/attention.cu"
#include "engine/cuda/device/elementwise.cu"
#include "engine/cuda/device/experts.cu"
#include "engine/cuda/device/linear-few.cu"
#include "engine/cuda/device/linear-tiles.cu"
