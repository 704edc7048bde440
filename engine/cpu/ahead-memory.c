/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/cpu/ahead-memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define PAGE_BYTES UINT64_C(4096)
/* The kernel begins to read no more than this at once, whatever it is asked for; on some devices more. */
#define BEGIN_BYTES (UINT64_C(128) << 10)

int ahead_files_copy(const struct ahead_config *config, struct ahead_files *ret)
{
    ret->all = calloc(config->n_files ? config->n_files : 1, sizeof(*ret->all));
    if (!ret->all)
        return -ENOMEM;
    for (size_t i = 0; i < config->n_files; i++) {
        ret->all[i] = config->files[i];
        ret->all[i].fd = fcntl(config->files[i].fd, F_DUPFD_CLOEXEC, 0);
        if (ret->all[i].fd < 0)
            return -errno;
        ret->n++;
    }
    return 0;
}

void ahead_files_done(struct ahead_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        close(files->all[i].fd);
    free(files->all);
}

void ahead_populate(const uint8_t *data, uint64_t n_bytes)
{
    uintptr_t from = (uintptr_t)data & ~(uintptr_t)(PAGE_BYTES - 1);

    (void)madvise((void *)from, (uintptr_t)data + n_bytes - from, MADV_POPULATE_READ);
}

void ahead_begin_to_read(const uint8_t *data, uint64_t n_bytes)
{
    uintptr_t from = (uintptr_t)data & ~(uintptr_t)(PAGE_BYTES - 1), end = (uintptr_t)data + n_bytes;

    for (; from < end; from += BEGIN_BYTES)
        (void)madvise((void *)from, end - from < BEGIN_BYTES ? end - from : BEGIN_BYTES, MADV_WILLNEED);
}

bool ahead_whole_pages(const uint8_t *data, uint64_t n_bytes, void **ret, size_t *ret_n)
{
    uintptr_t from = ((uintptr_t)data + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t to = ((uintptr_t)data + n_bytes) & ~(uintptr_t)(PAGE_BYTES - 1);

    if (from >= to)
        return false;
    *ret = (void *)from;
    *ret_n = to - from;
    return true;
}

/* Clean pages that nobody maps can be dropped at once, which leaves the kernel nothing to choose. */
void ahead_let_go(const struct ahead_files *files, const uint8_t *data, uint64_t n_bytes)
{
    void *from;
    size_t n;

    if (!ahead_whole_pages(data, n_bytes, &from, &n))
        return;
    (void)madvise(from, n, MADV_DONTNEED);
    for (size_t i = 0; i < files->n; i++) {
        const struct ahead_file *file = &files->all[i];

        if (data >= file->data && data < file->data + file->n_bytes)
            (void)posix_fadvise(file->fd, (const uint8_t *)from - file->data, (off_t)n, POSIX_FADV_DONTNEED);
    }
}
