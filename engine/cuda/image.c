/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GPU's kernels lie in a library of their own beside the programs, which holds nothing else: so the programs are
 * the same whether they were built with the CUDA toolkit or not, and a package of its own brings the kernels.
 *
 * The loader keeps it, and finds it again without opening a file: a worker asks once before its sandbox. No path but
 * the programs' own is looked at.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/cuda/launch.h"

#define LIBRARY "gpu-kernels.so"

/* Kernels of another build may take other arguments, and then read and write anywhere. */
static const char *image_of(const char *path, size_t *ret_bytes)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *begin, *end, *build;

    if (!library)
        return NULL;
    begin = dlsym(library, "launch_image_begin");
    end = dlsym(library, "launch_image_end");
    build = dlsym(library, "launch_image_build");
    if (!begin || !end || end <= begin || !build || strcmp(build, RESIDENTD_BUILD) != 0) {
        dlclose(library);
        return NULL;
    }
    *ret_bytes = (size_t)(end - begin);
    return begin;
}

const void *launch_image(size_t *ret_bytes)
{
    /* Beside the program when installed in one folder, and where the build puts it. */
    static const char *const places[] = {"", "../cuda/device/"};
    char own[PATH_MAX], path[PATH_MAX + sizeof(LIBRARY) + 32];
    const char *image = NULL, *slash = NULL;
    ssize_t n;

    *ret_bytes = 0;
    n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (n > 0) {
        own[n] = '\0';
        slash = strrchr(own, '/');
    }
    for (size_t i = 0; !image && slash && i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, sizeof(path), "%.*s/%s%s", (int)(slash - own), own, places[i], LIBRARY);
        image = image_of(path, ret_bytes);
    }
    return image ? image : image_of(RESIDENTD_LIBEXECDIR "/" LIBRARY, ret_bytes);
}
