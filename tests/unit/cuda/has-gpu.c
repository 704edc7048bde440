/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether tests can run on a GPU of this machine: exits with 0, or says why not.
 */
#include <stdio.h>

#include "base/fault.h"
#include "engine/cuda/device.h"
#include "engine/cuda/launch.h"

int main(void)
{
    _cleanup_(driver_closep) struct driver *driver = NULL;
    _cleanup_(device_closep) struct device *device = NULL;
    struct fault f = {.kind = FAULT_NONE};
    size_t n_bytes;
    const void *image = launch_image(&n_bytes);

    if (!image) {
        printf("# not on a GPU: this build has no kernels for one\n");
        return 1;
    }
    if (driver_open(&driver, &f) != 0 || device_open(driver, 0, image, &device, &f) != 0) {
        printf("# not on a GPU: %s\n", f.reason);
        return 1;
    }
    printf("# on %s\n", device->info.name);
    return 0;
}
