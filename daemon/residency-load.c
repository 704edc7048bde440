/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The jobs of a residency's thread behind opening: loading, and looking now and then whether what was loaded is there.
 *
 * Mappings start at 2 MiB and have MADV_HUGEPAGE before they are populated, so that file systems with large folios
 * give 2 MiB pages; they are kept out of child processes (MADV_DONTFORK). The kernel gives none for what it has cached
 * in small pages already, as every file is that was copied or downloaded: so what others have read is dropped first,
 * which also has the pages charged to the service. What the service read itself is left: a model that comes back after
 * it was idle is not read again.
 */
#include "daemon/residency-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/memlock.h"
#include "base/pagecache.h"
#include "base/units.h"
#include "daemon/numa.h"

/* Large enough for the device's bandwidth; small enough that a digest, which is slower than many devices, begins soon,
 * and that progress and cancelling feel prompt on a slow one. */
#define CHUNK_BYTES (UINT64_C(8) << 20)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* A private corner of the address space that starts at 2 MiB: reserved larger, then trimmed. */
static uint8_t *reserve(uint64_t n_bytes)
{
    uint64_t whole;
    uint8_t *at, *aligned;

    if (!checked_add(n_bytes, RESIDENCY_HUGE_BYTES, &whole))
        return NULL;
    at = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    aligned = (uint8_t *)(((uintptr_t)at + RESIDENCY_HUGE_BYTES - 1) & ~(uintptr_t)(RESIDENCY_HUGE_BYTES - 1));
    if (aligned > at)
        munmap(at, (size_t)(aligned - at));
    if (aligned + n_bytes < at + whole)
        munmap(aligned + n_bytes, (size_t)(at + whole - aligned - n_bytes));
    return aligned;
}

int residency_map_fd(struct residency *r, int fd, uint64_t map_bytes, int protection, uint8_t **ret)
{
    uint8_t *at = reserve(map_bytes);

    if (!at)
        return residency_fail_errno(r, "mmap", ENOMEM);
    if (mmap(at, map_bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int error = errno;

        munmap(at, map_bytes);
        return residency_fail_errno(r, "mmap", error);
    }
    /* A wish; what came of it is read back from smaps. */
    (void)madvise(at, map_bytes, r->huge == POLICY_HUGE_OFF ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    (void)madvise(at, map_bytes, MADV_DONTFORK);
    *ret = at;
    return 0;
}

bool residency_is_stopped(struct residency *r)
{
    return atomic_load_explicit(&r->stop, memory_order_relaxed);
}

void residency_advance(struct residency *r, uint64_t n_bytes)
{
    atomic_fetch_add_explicit(&r->bytes_done, n_bytes, memory_order_relaxed);
}

static int lock_failed(struct residency *r, const struct residency_part *part, int error)
{
    struct stat st;

    if (error == ENOMEM || error == EPERM || error == EAGAIN) {
        if (fstat(part->fd, &st) == 0 && (uint64_t)st.st_size < part->n_bytes) {
            fault_model_invalid(&r->fault, st.st_size, "%s became shorter while it was read", r->paths[part->i_path]);
            return -EIO;
        }
        if (!residency_may_lock_anything())
            return residency_lock_refused(r);
    }
    return residency_fail_errno(r, "mlock", error);
}

/* Where a range that is left out ends: a file's last page is there as a whole. */
static uint64_t end_of(const struct residency *r, const struct plan_range *range)
{
    const struct residency_part *part = &r->parts[range->file];
    uint64_t to = range->from + range->n_bytes;

    return to < part->n_bytes ? to : part->map_bytes;
}

static uint64_t held_of(const struct residency *r, const struct residency_part *part)
{
    uint64_t n_bytes = part->map_bytes;

    for (size_t i = 0; i < r->n_left_out; i++) {
        if (&r->parts[r->left_out[i].file] == part)
            n_bytes -= end_of(r, &r->left_out[i]) - r->left_out[i].from;
    }
    return n_bytes;
}

uint64_t residency_held_bytes(const struct residency *r)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < r->n_parts; i++)
        n_bytes += held_of(r, &r->parts[i]);
    return n_bytes;
}

/* Before the rest is brought in: where a range begins or ends within a huge page, all of that is unmapped. */
static int let_go_of_left_out(struct residency *r, const struct residency_part *part)
{
    for (size_t i = 0; i < r->n_left_out; i++) {
        const struct plan_range *range = &r->left_out[i];

        if (&r->parts[range->file] == part && memunlock(part->map + range->from, end_of(r, range) - range->from) < 0)
            return residency_fail_errno(r, "munlock", errno);
    }
    return 0;
}

/* Whether the part is held from @at on, and how far from there that is so, or is not. */
static uint64_t run_at(const struct residency *r, const struct residency_part *part, uint64_t at, bool *ret_is_held)
{
    uint64_t to = part->map_bytes;

    *ret_is_held = true;
    for (size_t i = 0; i < r->n_left_out; i++) {
        const struct plan_range *range = &r->left_out[i];
        uint64_t end = end_of(r, range);

        if (&r->parts[range->file] != part || end <= at)
            continue;
        *ret_is_held = range->from > at;
        to = *ret_is_held ? range->from : end;
        break;
    }
    return to - at;
}

static int populate_piece(struct residency *r, const struct residency_part *part, uint64_t at, uint64_t n_bytes,
                          bool is_held)
{
    uint8_t *from = part->map + at;
    const char *path = r->paths[part->i_path];

    if (madvise(from, n_bytes, MADV_POPULATE_READ) < 0 && errno != EINVAL) {
        if (errno == EFAULT || errno == EHWPOISON) {
            fault_model_invalid(&r->fault, (int64_t)at, "%s can't be read here, or became shorter", path);
            return -EIO;
        }
        return residency_fail_errno(r, path, errno);
    }
    if (r->ram != POLICY_RAM_MAP && is_held && memlock(from, n_bytes) < 0)
        return lock_failed(r, part, errno);
    return 0;
}

/* What is left out is only read where somebody has to see it. */
static int populate_range(struct residency *r, const struct residency_part *part, uint64_t at, uint64_t to,
                          bool is_seen)
{
    int q = 0;

    while (q == 0 && at < to) {
        bool is_held;
        uint64_t run = run_at(r, part, at, &is_held), n = run < to - at ? run : to - at;

        if (is_held || is_seen)
            q = populate_piece(r, part, at, n, is_held);
        at += n;
    }
    return q;
}

static int populate_part(struct residency *r, const struct residency_part *part, struct digest *digest, bool counts)
{
    for (uint64_t at = 0; at < part->map_bytes; at += CHUNK_BYTES) {
        uint64_t left = part->map_bytes - at, n = left < CHUNK_BYTES ? left : CHUNK_BYTES;
        int q;

        if (residency_is_stopped(r))
            return -ECANCELED;
        q = populate_range(r, part, at, at + n, digest != NULL);
        if (q < 0)
            return q;
        if (digest)
            digest_advance(digest, at + n);
        if (counts)
            residency_advance(r, at + n < part->n_bytes ? n : part->n_bytes - at);
    }
    return 0;
}

static int figures_of(struct residency *r, size_t first, size_t n, struct smaps_figures *ret)
{
    struct smaps_range ranges[RESIDENCY_FILES_MAX];
    int q;

    for (size_t i = 0; i < n; i++)
        ranges[i] = (struct smaps_range){.start = (uintptr_t)r->parts[first + i].map,
                                         .end = (uintptr_t)r->parts[first + i].map + r->parts[first + i].map_bytes};
    q = smaps_read(ranges, n, ret);
    return q < 0 ? residency_fail_errno(r, "/proc/self/smaps", -q) : 0;
}

int residency_digest_failed(struct residency *r, size_t i_path, int error)
{
    if (error != -ENODATA && error != -EFAULT)
        return residency_fail_errno(r, r->paths[i_path], -error);
    fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s can't be read here, or became shorter", r->paths[i_path]);
    return error;
}

/* What the service read of it earlier, the kernel may have let go, and another program have read again. */
static int is_in_small_pages(struct residency *r, const struct residency_part *part, bool *ret)
{
    struct smaps_figures f;
    int q = figures_of(r, (size_t)(part - r->parts), 1, &f);

    if (q == 0)
        *ret = r->huge != POLICY_HUGE_OFF && f.huge_bytes < held_of(r, part) / 2;
    return q;
}

/* Larger than what may be in memory: its worker reads it, and what it can't keep lets go. A digest takes one reading,
 * which leaves nothing behind. */
static int only_look_at(struct residency *r, const struct residency_part *part, struct digest *digest)
{
    int q = digest ? digest_file(digest, part->fd, part->n_bytes) : 0;

    for (uint64_t at = 0; q == 0 && digest && at < part->n_bytes; at += CHUNK_BYTES) {
        uint64_t left = part->n_bytes - at, n = left < CHUNK_BYTES ? left : CHUNK_BYTES;

        if (residency_is_stopped(r))
            return -ECANCELED;
        q = -posix_fadvise(part->fd, (off_t)at, (off_t)n, POSIX_FADV_WILLNEED);
        digest_advance(digest, at + n);
        q = q < 0 ? q : digest_wait(digest, at + n);
        (void)posix_fadvise(part->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
        residency_advance(r, n);
    }
    return q < 0 ? residency_digest_failed(r, part->i_path, q) : 0;
}

static int use_in_place(struct residency *r, struct residency_part *part, struct digest *digest)
{
    bool is_small = false, is_first = !part->map;
    int q;

    if (r->ram == POLICY_RAM_LOCK && !part->is_ours && !r->kept && is_first)
        (void)pagecache_drop(part->fd);
    q = part->map ? 0 : residency_map_fd(r, part->fd, part->map_bytes, PROT_READ, &part->map);
    if (q < 0)
        return q;
    q = digest ? digest_mapping(digest, part->map, part->n_bytes) : 0;
    if (q < 0)
        return residency_digest_failed(r, part->i_path, q);
    q = let_go_of_left_out(r, part);
    if (q == 0)
        q = populate_part(r, part, digest, /* counts= */ true);
    if (q == 0 && part->is_ours && is_first)
        q = is_in_small_pages(r, part, &is_small);
    if (q < 0 || !is_small)
        return q;
    q = digest ? digest_wait(digest, part->n_bytes) : 0;
    if (q < 0)
        return residency_digest_failed(r, part->i_path, q);
    munmap(part->map, part->map_bytes);
    part->map = NULL;
    part->is_read = false;
    (void)pagecache_drop(part->fd);
    q = residency_map_fd(r, part->fd, part->map_bytes, PROT_READ, &part->map);
    return q < 0 ? q : populate_part(r, part, NULL, /* counts= */ false);
}

static int use_copy(struct residency *r, struct residency_part *part, struct digest *digest)
{
    int q = r->kept || part->map ? 0 : residency_copy_part(r, part, digest);

    if (q == 0 && !part->map)
        q = residency_map_fd(r, part->fd, part->map_bytes, PROT_READ, &part->map);
    return q < 0 ? q : populate_part(r, part, NULL, /* counts= */ false);
}

static int check_digest(struct residency *r, size_t i_path, struct digest *digest)
{
    char text[SHA256_TEXT_MAX];
    int q = digest_end(digest, text);

    if (q < 0)
        return residency_digest_failed(r, i_path, q);
    if (strcmp(text, r->sha256s[i_path]) == 0)
        return 0;
    fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "SHA-256 of %s is %s, the policy says %s", r->paths[i_path], text,
                        r->sha256s[i_path]);
    return -EINVAL;
}

/* Of what nobody sums all is read once, too: a byte of each page. What is left out must not be read for that. */
static bool is_read_through(const struct residency *r)
{
    return r->ram == POLICY_RAM_LOCK && r->n_left_out == 0 && !residency_is_partial(r, NULL);
}

/* All parts of one path, from *i on, which becomes the next path's first. */
static int load_path(struct residency *r, size_t *i)
{
    _cleanup_(digest_freep) struct digest *digest = NULL;
    size_t i_path = r->parts[*i].i_path;
    bool sums = r->sha256s[i_path];
    int q = 0;

    /* What was loaded before was checked then. */
    if ((sums || is_read_through(r)) && !r->kept && !r->parts[*i].map) {
        q = sums ? digest_new(&digest) : digest_new_reader(&digest);
        if (q < 0)
            return residency_fail_errno(r, r->paths[i_path], -q);
    }
    for (; q == 0 && *i < r->n_parts && r->parts[*i].i_path == i_path; ++*i) {
        r->parts[*i].is_read |= digest && !residency_is_partial(r, NULL);
        if (r->ram == POLICY_RAM_COPY)
            q = use_copy(r, &r->parts[*i], digest);
        else if (residency_is_partial(r, NULL))
            q = only_look_at(r, &r->parts[*i], digest);
        else
            q = use_in_place(r, &r->parts[*i], digest);
    }
    if (q < 0 || !digest)
        return q;
    if (sums)
        return check_digest(r, i_path, digest);
    q = digest_wait(digest, UINT64_MAX);
    return q < 0 ? residency_digest_failed(r, i_path, q) : 0;
}

/* Who says "on" would rather have no model than a slow one. Single pieces may be small for reasons that nobody
 * controls; a file's end always is. */
static int check_huge(struct residency *r)
{
    char got_text[UNITS_TEXT_MAX], whole_text[UNITS_TEXT_MAX];
    uint64_t got = r->figures.huge_bytes + r->figures.hugetlb_bytes, whole = 0, n_reserved = 0;

    for (size_t i = 0; i < r->n_parts; i++) {
        uint64_t held = held_of(r, &r->parts[i]), n = held < r->parts[i].n_bytes ? held : r->parts[i].n_bytes;

        whole += n / RESIDENCY_HUGE_BYTES * RESIDENCY_HUGE_BYTES;
        n_reserved += (r->parts[i].n_bytes + RESIDENCY_HUGE_BYTES - 1) / RESIDENCY_HUGE_BYTES;
    }
    if (r->huge != POLICY_HUGE_ON || got >= whole - whole / 10)
        return 0;
    units_format_size(got, got_text);
    units_format_size(whole, whole_text);
    if (r->ram == POLICY_RAM_COPY)
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "residency.huge is \"on\", and only %s of %s came in 2 MiB pages. Reserve some (vm.nr_hugepages, "
                  "%" PRIu64 " for this model), or set residency.huge to \"auto\"",
                  got_text, whole_text, n_reserved);
    else
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "residency.huge is \"on\", and only %s of %s came in 2 MiB pages: the file's file system has none, "
                  "memory is in pieces, or another program has the file in memory in small ones. Set residency.ram to "
                  "\"copy\", or residency.huge to \"auto\"",
                  got_text, whole_text);
    return -ENOMEM;
}

/* Of reserved huge pages the kernel shows neither Rss nor a lock; they are never taken away. */
static int verify(struct residency *r)
{
    uint64_t held = residency_held_bytes(r), in_ram, locked;
    int q = figures_of(r, 0, r->n_parts, &r->figures);

    if (q < 0)
        return q;
    in_ram = r->figures.rss_bytes + r->figures.hugetlb_bytes;
    locked = r->figures.locked_bytes + r->figures.hugetlb_bytes;
    if (r->ram != POLICY_RAM_MAP && (in_ram < held || locked != held)) {
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "the kernel shows %" PRIu64 " bytes in RAM and %" PRIu64 " locked of %" PRIu64, in_ram, locked, held);
        return -EIO;
    }
    return check_huge(r);
}

static int place(struct residency *r)
{
    if (numa_place(numa_calls_real(), r->numa, r->numa_node) == 0)
        return 0;
    fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
              "residency.numa is %" PRIu32 ", and this machine has no memory node of that number for the service",
              r->numa_node);
    return -ENODEV;
}

/* What is only mapped is in the kernel's cache now, and its worker's mapping is the one that counts. With this one, in
 * small pages, an end of the daemon takes some tenths of a second, for which its next start waits. */
static void let_go_of_mapped(struct residency *r)
{
    for (size_t i = 0; i < r->n_parts; i++) {
        munmap(r->parts[i].map, r->parts[i].map_bytes);
        r->parts[i].map = NULL;
    }
}

int residency_load_all(struct residency *r)
{
    int q;

    for (size_t i = 0; i < r->n_parts; i++) {
        if (!checked_align(r->parts[i].n_bytes, (uint64_t)sysconf(_SC_PAGESIZE), &r->parts[i].map_bytes))
            return residency_fail_errno(r, r->path, EOVERFLOW);
    }
    q = residency_check_lock_limit(r);
    if (q == 0)
        q = place(r);
    for (size_t i = 0; q == 0 && i < r->n_parts;)
        q = load_path(r, &i);
    if (q < 0 || residency_is_partial(r, NULL))
        return q;
    q = verify(r);
    if (q == 0 && r->ram == POLICY_RAM_MAP)
        let_go_of_mapped(r);
    return q;
}

/* A sealed copy is what it is. A file that is used in place belongs to somebody who may write to it and should not
 * have; what it holds now is not what was checked. Returns a negative errno and the fault if so. */
static int check_same(const struct residency *r, const struct residency_part *part, struct fault *reterr)
{
    const char *path = r->paths[part->i_path];
    struct stat st;

    if (r->ram == POLICY_RAM_COPY || fstat(part->fd, &st) < 0)
        return 0;
    if ((uint64_t)st.st_size != part->n_bytes) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET,
                            "%s was %" PRIu64 " bytes long when it was loaded and is %" PRIu64 " now", path,
                            part->n_bytes, (uint64_t)st.st_size);
        return -EINVAL;
    }
    if (st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec != part->identity.mtime_ns) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "%s was written to after it was loaded", path);
        return -EINVAL;
    }
    return 0;
}

int residency_check_files(const struct residency *r, struct fault *reterr)
{
    int q = 0;

    for (size_t i = 0; q == 0 && i < r->n_parts; i++)
        q = check_same(r, &r->parts[i], reterr);
    return q;
}

int residency_sample_all(struct residency *r)
{
    int q = residency_check_files(r, &r->fault);

    r->sampled = r->figures;
    if (q < 0 || residency_is_partial(r, NULL) || r->ram == POLICY_RAM_MAP)
        return q;
    return figures_of(r, 0, r->n_parts, &r->sampled);
}
