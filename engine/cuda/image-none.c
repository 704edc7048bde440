/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A build without the CUDA toolkit has no kernels.
 */
#include "engine/cuda/launch.h"

const void *launch_image(size_t *ret_bytes)
{
    *ret_bytes = 0;
    return NULL;
}
