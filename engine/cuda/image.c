/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GPU's kernels, which engine/cuda/device/build-image.py compiled and wrapped in an object of two symbols.
 */
#include "engine/cuda/launch.h"

extern const char launch_image_begin[], launch_image_end[];

const void *launch_image(size_t *ret_bytes)
{
    *ret_bytes = (size_t)(launch_image_end - launch_image_begin);
    return launch_image_begin;
}
