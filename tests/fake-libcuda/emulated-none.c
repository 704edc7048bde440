/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A build in which the GPU's kernels can't be run: without a C++ compiler, or elsewhere than on x86-64.
 */

#include <stddef.h>

#include "tests/fake-libcuda/fake-internal.h"

const struct emulation_kernel *fake_emulated(const char *name)
{
    (void)name;
    return NULL;
}
