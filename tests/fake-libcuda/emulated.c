/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine's own kernels, as tests/cuda-emulation runs them.
 */

#include "tests/fake-libcuda/fake-internal.h"

const struct emulation_kernel *fake_emulated(const char *name)
{
    return emulated_kernel(name);
}
