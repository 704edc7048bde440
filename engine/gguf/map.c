/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mapping a model's files. Called by engine.c (and the tools) once a model.
 *
 * The order matters and was measured on ext4: an address that is a multiple of 2 MiB, then MADV_HUGEPAGE, then
 * populating. Only so does the page cache come mapped in 2 MiB pages, on which decoding runs a quarter faster;
 * populating first leaves 4 KiB entries for good. Locking comes last: it then finds the pages present.
 *
 * Mappings are shared and read-only, so every process on the machine that maps the file uses the same pages.
 */
#include "engine/gguf/map.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/memlock.h"
#include "engine/gguf/limits.h"

/* Linux 5.14; older C libraries do not know the name. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define HUGE_PAGE_BYTES (2ull << 20)

struct gguf_map {
    size_t n_parts;
    uint64_t n_bytes, n_bytes_locked;
    struct gguf_part parts[];
};

DEFINE_CLEANUP(struct gguf_map *, gguf_unmap)

struct gguf_map *gguf_unmap(struct gguf_map *m)
{
    if (!m)
        return NULL;
    for (size_t i = 0; i < m->n_parts; i++) {
        if (m->parts[i].data)
            munmap((void *)m->parts[i].data, m->parts[i].n_bytes);
    }
    free(m);
    return NULL;
}

static int unavailable(struct fault *reterr, int error, const char *doing)
{
    fault_set(reterr, FAULT_MODEL_UNAVAILABLE, NULL, "%s: %s", doing, strerror(error));
    return -error;
}

/*
 * Reserves a little more than needed, so that a multiple of 2 MiB is in it, and gives back what lies around. The hole
 * is ours throughout: nothing else can be mapped there in between.
 */
static int reserve_aligned(uint64_t n_bytes, void **ret)
{
    uint64_t n_span, head;
    uint8_t *span;

    if (!checked_align(n_bytes, HUGE_PAGE_BYTES, &n_bytes) || !checked_add(n_bytes, HUGE_PAGE_BYTES, &n_span))
        return -ENOMEM;
    span = mmap(NULL, n_span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (span == MAP_FAILED)
        return -errno;
    head = -(uint64_t)(uintptr_t)span & (HUGE_PAGE_BYTES - 1);
    if (head > 0)
        munmap(span, head);
    munmap(span + head + n_bytes, HUGE_PAGE_BYTES - head);
    *ret = span + head;
    return 0;
}

static int map_file(int fd, uint64_t n_bytes, const void **ret)
{
    uint64_t n_reserved;
    void *at = NULL, *data;
    int r;

    r = reserve_aligned(n_bytes, &at);
    if (r < 0)
        return r;
    /* Before Linux 6.7 a memfd sealed against writing can't be mapped shared; a private read-only view is the same. */
    data = mmap(at, n_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
    if (data == MAP_FAILED && errno == EPERM)
        data = mmap(at, n_bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    r = data == MAP_FAILED ? -errno : 0;
    n_reserved = (n_bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
    if (r < 0) {
        munmap(at, n_reserved);
        return r;
    }
    /* What is left of the reservation behind the file; page by page, as the kernel rounds the file's own end up. */
    n_bytes = (n_bytes + (uint64_t)sysconf(_SC_PAGESIZE) - 1) & ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
    if (n_reserved > n_bytes)
        munmap((uint8_t *)at + n_bytes, n_reserved - n_bytes);
    *ret = data;
    return 0;
}

/*
 * Kernels before 5.14 have no MADV_POPULATE_READ: touch a byte of each page. A disk that can't be read shows here as
 * EFAULT, where touching the page would end the process.
 */
static int populate(const uint8_t *data, uint64_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (madvise((void *)data, n_bytes, MADV_POPULATE_READ) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == EFAULT ? -EIO : -errno;
    for (uint64_t at = 0; at < n_bytes; at += page)
        (void)*(const volatile uint8_t *)(data + at);
    return 0;
}

static bool has_cap_ipc_lock(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    if (syscall(SYS_capget, &head, data) < 0)
        return false;
    return data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

/* mlock() says ENOMEM for too low a limit and for too little memory: find out which, since the remedies differ. */
static int lock_failed(const struct gguf_map *m, int error, struct fault *reterr)
{
    struct rlimit limit = {0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (has_cap_ipc_lock() || limit.rlim_cur >= m->n_bytes) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, NULL, "cannot lock the model's %" PRIu64 " bytes in memory: %s",
                  m->n_bytes, strerror(error));
    } else {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, NULL,
                  "cannot lock the model's %" PRIu64 " bytes in memory: RLIMIT_MEMLOCK is %" PRIu64
                  " bytes and the process does not "
                  "have CAP_IPC_LOCK; raise the limit (LimitMEMLOCK=infinity in the unit, ulimit -l in a "
                  "shell) or give "
                  "the capability (AmbientCapabilities=CAP_IPC_LOCK in the unit)",
                  m->n_bytes, (uint64_t)limit.rlim_cur);
    }
    return -error;
}

static int check_file(int fd, size_t i, size_t n, uint64_t *ret_bytes, struct fault *reterr)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return unavailable(reterr, errno, "cannot look at the model's file");
    if (!S_ISREG(st.st_mode)) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "file %zu of %zu is no regular file", i + 1, n);
        return -EINVAL;
    }
    if (st.st_size <= 0) {
        fault_model_invalid(reterr, 0, "file %zu of %zu is empty", i + 1, n);
        return -EINVAL;
    }
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

static int bring_in(const uint8_t *data, uint64_t n_bytes, struct fault *reterr)
{
    int r = populate(data, n_bytes);

    return r < 0 ? unavailable(reterr, -r, "cannot read the model's file into memory") : 0;
}

int gguf_map(const int *fds, size_t n_fds, unsigned flags, struct gguf_map **ret, struct fault *reterr)
{
    _cleanup_(gguf_unmapp) struct gguf_map *m = NULL;
    int r;

    if (n_fds == 0 || n_fds > GGUF_PARTS_MAX) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "%zu files given, a model has 1 to %u", n_fds, GGUF_PARTS_MAX);
        return -EINVAL;
    }
    m = calloc(1, sizeof(*m) + n_fds * sizeof(m->parts[0]));
    if (!m)
        return -ENOMEM;
    for (size_t i = 0; i < n_fds; i++) {
        uint64_t n_bytes = 0;

        r = check_file(fds[i], i, n_fds, &n_bytes, reterr);
        if (r < 0)
            return r;
        if (!checked_add(m->n_bytes, n_bytes, &m->n_bytes))
            return -EINVAL;
        r = map_file(fds[i], n_bytes, &m->parts[i].data);
        if (r < 0)
            return unavailable(reterr, -r, "cannot map the model's file");
        m->parts[i].n_bytes = n_bytes;
        m->n_parts = i + 1;
        if (flags & GGUF_MAP_HUGE)
            madvise((void *)m->parts[i].data, n_bytes, MADV_HUGEPAGE);
        else if (flags & GGUF_MAP_SMALL)
            madvise((void *)m->parts[i].data, n_bytes, MADV_NOHUGEPAGE);
    }
    for (size_t i = 0; i < n_fds; i++) {
        if (flags & GGUF_MAP_LOCK)
            r = gguf_map_lock(m, i, 0, m->parts[i].n_bytes, reterr);
        else
            r = flags & GGUF_MAP_POPULATE ? bring_in(m->parts[i].data, m->parts[i].n_bytes, reterr) : 0;
        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(m);
    return 0;
}

int gguf_map_lock(struct gguf_map *m, size_t i_part, uint64_t from, uint64_t n_bytes, struct fault *reterr)
{
    const uint8_t *data = (const uint8_t *)m->parts[i_part].data + from;
    int r = bring_in(data, n_bytes, reterr);

    if (r < 0)
        return r;
    if (memlock(data, n_bytes) < 0)
        return lock_failed(m, errno, reterr);
    m->n_bytes_locked += n_bytes;
    return 0;
}

void gguf_map_forget(const struct gguf_map *m, size_t i_part, uint64_t from, uint64_t n_bytes)
{
    (void)madvise((uint8_t *)(uintptr_t)m->parts[i_part].data + from, n_bytes, MADV_DONTNEED);
}

const struct gguf_part *gguf_map_parts(const struct gguf_map *m, size_t *ret_n)
{
    *ret_n = m->n_parts;
    return m->parts;
}

uint64_t gguf_map_bytes(const struct gguf_map *m)
{
    return m->n_bytes;
}

uint64_t gguf_map_bytes_locked(const struct gguf_map *m)
{
    return m->n_bytes_locked;
}
