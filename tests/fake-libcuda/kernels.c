/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernels that the test double knows. Those of its own are for tests of what is around a launch.
 */

#include <string.h>

#include "engine/cuda/driver.h"
#include "tests/fake-libcuda/fake-internal.h"

/* x[i] += y */
static int run_add(const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void **params)
{
    const struct fake_add *a = params[0];
    float *x = (float *)(uintptr_t)a->x;

    (void)shared_bytes;
    for (uint32_t i = 0; i < grid[0] * block[0] && i < a->n; i++)
        x[i] += a->y;
    return 0;
}

static int run_fault(const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void **params)
{
    (void)grid;
    (void)block;
    (void)shared_bytes;
    (void)params;
    return 1;
}

static const struct emulation_kernel kernels[] = {
    {"fake_add", sizeof(struct fake_add), run_add},
    {"fake_fault", 0, run_fault},
};

const struct emulation_kernel *fake_kernel_find(const char *name)
{
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++)
        if (strcmp(kernels[i].name, name) == 0)
            return &kernels[i];
    return fake_emulated(name);
}
