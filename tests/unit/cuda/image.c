/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module for the test double, which knows its kernels by name: in place of the engine's own, which builds without the
 * CUDA toolkit don't have. On a GPU it is the engine's own, out of the build's folder.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/cuda/launch.h"

const void *launch_image(size_t *ret_bytes)
{
    const char *build = getenv("RESIDENTD_BUILD"), *begin, *end;
    char path[4096];
    void *library;

    *ret_bytes = sizeof("image");
    if (!getenv("RESIDENTD_GPU"))
        return "image";
    snprintf(path, sizeof(path), "%s/engine/cuda/device/gpu-kernels.so", build ? build : ".");
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    begin = library ? dlsym(library, "launch_image_begin") : NULL;
    end = library ? dlsym(library, "launch_image_end") : NULL;
    *ret_bytes = begin && end ? (size_t)(end - begin) : 0;
    return begin;
}
