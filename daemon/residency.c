/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two jobs, each in a helper thread: open (find, open and check the files) and load (map, populate, lock or copy,
 * verify). Between them the loop decides whether there is room.
 *
 *   new → OPENING → OPENED → LOADING → LOADED        any → failed (the reason was told; only residency_free() is left)
 *
 * Invariants:
 *  1. While a thread runs, all members but the two atomics and what the loop alone uses (marked) are the thread's.
 *  2. The thread hands over by writing to @event_fd as its last act; the loop joins it before it looks at the results.
 *  3. Nobody reads through the mappings: a file that is cut short under them would kill the reader (SIGBUS). Pages are
 *     brought in by madvise(2) and mlock(2), which fail instead, and digests are computed from read(2).
 *  4. Work is done in chunks of CHUNK_BYTES; after each the thread looks whether it should stop.
 *
 * Mappings start at 2 MiB and have MADV_HUGEPAGE before they are populated, so that file systems with large folios
 * give 2 MiB pages; they are kept out of child processes (MADV_DONTFORK).
 */
#include "daemon/residency.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/list.h"
#include "base/memlock.h"
#include "base/pagecache.h"
#include "base/sha256.h"
#include "base/trust.h"
#include "base/units.h"
#include "daemon/smaps.h"

#define HUGE_BYTES (UINT64_C(2) << 20)
/* Large enough for the device's bandwidth, small enough that progress and cancelling feel prompt on a slow one. */
#define CHUNK_BYTES (UINT64_C(32) << 20)
#define READ_BYTES (UINT64_C(1) << 20)
#define PROGRESS_INTERVAL_US 250000
/* What makes a copy unchangeable for everybody. */
#define COPY_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

enum phase { OPENING, OPENED, LOADING, LOADED, FAILED };

struct part {
    int fd;
    size_t i_path; /* whose file it is */
    uint64_t n_bytes;
    struct residency_identity identity;
    uint8_t *map; /* NULL: not mapped */
    uint64_t map_bytes;
};

struct residencies {
    sd_event *event;
    uid_t own_uid;
    struct list abandoned; /* of struct residency: released, thread still at work */
};

struct residency {
    struct residencies *owner;
    struct list entry;
    const struct residency_callbacks *callbacks;
    void *userdata;
    char **paths; /* [n_paths] the model's, then those of others */
    size_t n_paths;
    char *path, *sha256; /* path is paths[0] */
    enum policy_ram ram;
    enum policy_huge huge;
    struct residency_identity *kept; /* [n_kept] NULL: loaded afresh */
    int *kept_fds;                   /* [n_kept] NULL: files are used in place */
    size_t n_kept;

    enum phase phase;         /* loop */
    bool abandoned;           /* loop */
    bool thread_runs;         /* loop */
    sd_event_source *wakeup;  /* loop */
    sd_event_source *timer;   /* loop */
    int event_fd;
    pthread_t thread;
    _Atomic uint64_t bytes_done; /* thread → loop, a figure for display only: relaxed */
    _Atomic bool stop;           /* loop → thread, looked at between chunks: relaxed */

    int result;
    struct fault fault;
    struct part *parts; /* [n_parts] */
    size_t n_parts;
    uint64_t bytes_total;
    struct smaps_figures figures;
};

int residencies_new(sd_event *event, uid_t own_uid, struct residencies **ret)
{
    struct residencies *rs = calloc(1, sizeof(*rs));

    if (!rs)
        return -ENOMEM;
    rs->event = sd_event_ref(event);
    rs->own_uid = own_uid;
    list_init(&rs->abandoned);
    *ret = rs;
    return 0;
}

int residency_part_path(const char *first, size_t i, char **ret, size_t *ret_n_parts)
{
    /* "…-00001-of-00005.gguf": 5 digits each, as the tools that split files write them. */
    static const char suffix[] = ".gguf";
    size_t n = strlen(first);
    unsigned part, n_parts;
    int end = 0;
    const char *at;
    char *path;

    if (n < 20 || strcmp(first + n - strlen(suffix), suffix) != 0)
        goto single;
    at = first + n - 20;
    if (sscanf(at, "-%5u-of-%5u%n", &part, &n_parts, &end) != 2 || end != 15 ||
        strspn(at + 1, "0123456789") != 5 || strspn(at + 10, "0123456789") != 5)
        goto single;
    if (part != 1 || n_parts < 1 || n_parts > RESIDENCY_FILES_MAX || i >= n_parts)
        return -EINVAL;
    if (asprintf(&path, "%.*s-%05zu-of-%05u%s", (int)(n - 20), first, i + 1, n_parts, suffix) < 0)
        return -ENOMEM;
    *ret = path;
    *ret_n_parts = n_parts;
    return 0;
single:
    path = strdup(first);
    if (!path)
        return -ENOMEM;
    *ret = path;
    *ret_n_parts = 1;
    return 0;
}

/* ---- in the thread ---- */

static int fail_errno(struct residency *r, const char *what, int error)
{
    if (error == ENOMEM)
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL, "%s: out of memory", what);
    else
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s: %s", what, strerror(error));
    return -error;
}

static int identify(struct residency *r, struct part *part, const char *path)
{
    struct stat st;

    if (fstat(part->fd, &st) < 0)
        return fail_errno(r, path, errno);
    if (st.st_size <= 0) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s is empty", path);
        return -EINVAL;
    }
    part->identity = (struct residency_identity){
        .device = st.st_dev,
        .inode = st.st_ino,
        .n_bytes = (uint64_t)st.st_size,
        .mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec,
        .ctime_ns = st.st_ctim.tv_sec * INT64_C(1000000000) + st.st_ctim.tv_nsec,
    };
    return 0;
}

/* A file that an earlier daemon had loaded is the same file, untouched. */
static int check_kept(struct residency *r, const struct part *part, const char *path)
{
    const struct residency_identity *a = &part->identity, *b;
    size_t i = (size_t)(part - r->parts);

    if (!r->kept)
        return 0;
    b = i < r->n_kept ? &r->kept[i] : NULL;
    if (b && a->device == b->device && a->inode == b->inode && a->n_bytes == b->n_bytes &&
        a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns)
        return 0;
    fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s is not the file that was loaded", path);
    return -EINVAL;
}

static int take_copy(struct residency *r, struct part *part, const char *path)
{
    size_t i = (size_t)(part - r->parts);
    int seals;

    if (i >= r->n_kept)
        return check_kept(r, part, path);
    part->fd = TAKE_FD(r->kept_fds[i]);
    seals = fcntl(part->fd, F_GET_SEALS);
    if (seals < 0 || (seals & COPY_SEALS) != COPY_SEALS) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "the copy of %s is not sealed", path);
        return -EINVAL;
    }
    return 0;
}

/* Part @i of the files that paths[i_path] begins. */
static int open_part(struct residency *r, struct part *part, size_t i)
{
    _cleanup_free_ char *path = NULL;
    struct trust_error why;
    size_t n_parts;
    unsigned flags = 0;
    int q;

    q = residency_part_path(r->paths[part->i_path], i, &path, &n_parts);
    if (q < 0)
        return fail_errno(r, r->paths[part->i_path], -q);
    if (r->ram == POLICY_RAM_COPY && r->sha256 && part->i_path == 0)
        flags = TRUST_ANYBODY; /* the copy can't be changed, and the digest says what it is */
    q = r->kept_fds ? take_copy(r, part, path) : trust_open(path, r->owner->own_uid, flags, &part->fd, &why);
    if (q == -EPERM) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s must be %s", why.path, why.reason);
        return q;
    }
    if (q < 0)
        return r->kept_fds ? q : fail_errno(r, path, -q);
    q = identify(r, part, path);
    if (q == 0)
        q = check_kept(r, part, path);
    if (q < 0)
        return q;
    part->n_bytes = part->identity.n_bytes;
    if (!checked_add(r->bytes_total, part->n_bytes, &r->bytes_total))
        return fail_errno(r, path, EOVERFLOW);
    return 0;
}

/* Room for the parts of paths[i_path], behind those of the paths before. */
static int add_parts(struct residency *r, size_t i_path)
{
    _cleanup_free_ char *path = NULL;
    struct part *grown;
    size_t n;
    int q;

    q = residency_part_path(r->paths[i_path], 0, &path, &n);
    if (q == -EINVAL) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET,
                            "%s is a split file: the policy has to name part 00001, and of at most %d",
                            r->paths[i_path], RESIDENCY_FILES_MAX);
        return q;
    }
    if (q < 0)
        return fail_errno(r, r->paths[i_path], -q);
    if (n > RESIDENCY_FILES_MAX - r->n_parts) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "with %s it has more than %d files", r->paths[i_path],
                            RESIDENCY_FILES_MAX);
        return -EINVAL;
    }
    grown = reallocarray(r->parts, r->n_parts + n, sizeof(*grown));
    if (!grown)
        return fail_errno(r, r->paths[i_path], ENOMEM);
    r->parts = grown;
    for (size_t i = 0; i < n; i++)
        r->parts[r->n_parts++] = (struct part){.fd = -EBADF, .i_path = i_path};
    return 0;
}

static int open_all(struct residency *r)
{
    for (size_t i_path = 0; i_path < r->n_paths; i_path++) {
        size_t first = r->n_parts;
        int q = add_parts(r, i_path);

        for (size_t i = first; q == 0 && i < r->n_parts; i++)
            q = open_part(r, &r->parts[i], i - first);
        if (q < 0)
            return q;
    }
    if (r->kept && r->n_kept != r->n_parts) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s has another number of files now", r->path);
        return -EINVAL;
    }
    return 0;
}

static bool may_lock_anything(void)
{
    cap_flag_value_t value = CAP_CLEAR;
    cap_t caps = cap_get_proc();

    if (!caps)
        return false;
    cap_get_flag(caps, CAP_IPC_LOCK, CAP_EFFECTIVE, &value);
    cap_free(caps);
    return value == CAP_SET;
}

static uint64_t locked_so_far(void)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    uint64_t kb = 0;

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmLck: %" SCNu64 " kB", &kb) == 1)
            break;
    }
    return kb * 1024;
}

void residency_lock_advice(uint64_t bytes, uint64_t locked_bytes, uint64_t limit_bytes, struct fault *fault)
{
    char need[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX];

    fault_set(fault, FAULT_MODEL_UNAVAILABLE, NULL,
              "can't lock %s: RLIMIT_MEMLOCK is %s and the service has no CAP_IPC_LOCK. Raise the limit to %s or more: "
              "LimitMEMLOCK=infinity in residentd.service (without systemd: ulimit -l unlimited). Or grant the "
              "capability: AmbientCapabilities=CAP_IPC_LOCK (without systemd: setcap cap_ipc_lock=ep on residentd). Or "
              "set residency.ram to \"map\"",
              units_format_size(bytes, need), units_format_size(limit_bytes, limit),
              units_format_size(bytes + locked_bytes, all));
}

static int lock_refused(struct residency *r)
{
    struct rlimit limit = {.rlim_cur = 0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    residency_lock_advice(r->bytes_total, locked_so_far(), limit.rlim_cur, &r->fault);
    return -EPERM;
}

/* Before gigabytes are read in vain. What is refused later all the same gets the same answer. */
static int check_lock_limit(struct residency *r)
{
    struct rlimit limit;
    uint64_t whole = 0;

    if (r->ram == POLICY_RAM_MAP || may_lock_anything())
        return 0;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return 0;
    for (size_t i = 0; i < r->n_parts; i++)
        whole += r->parts[i].map_bytes;
    if (!checked_add(whole, locked_so_far(), &whole) || whole > limit.rlim_cur)
        return lock_refused(r);
    return 0;
}

/* A private corner of the address space that starts at 2 MiB: reserved larger, then trimmed. */
static uint8_t *reserve(uint64_t n_bytes)
{
    uint64_t whole;
    uint8_t *at, *aligned;

    if (!checked_add(n_bytes, HUGE_BYTES, &whole))
        return NULL;
    at = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    aligned = (uint8_t *)(((uintptr_t)at + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    if (aligned > at)
        munmap(at, (size_t)(aligned - at));
    if (aligned + n_bytes < at + whole)
        munmap(aligned + n_bytes, (size_t)(at + whole - aligned - n_bytes));
    return aligned;
}

static int map_fd(struct residency *r, int fd, uint64_t map_bytes, int protection, uint8_t **ret)
{
    uint8_t *at = reserve(map_bytes);

    if (!at)
        return fail_errno(r, "mmap", ENOMEM);
    if (mmap(at, map_bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int error = errno;

        munmap(at, map_bytes);
        return fail_errno(r, "mmap", error);
    }
    if (r->huge != POLICY_HUGE_OFF)
        (void)madvise(at, map_bytes, MADV_HUGEPAGE); /* a wish; what came of it is read back from smaps */
    (void)madvise(at, map_bytes, MADV_DONTFORK);
    *ret = at;
    return 0;
}

static int map_part(struct residency *r, struct part *part)
{
    return map_fd(r, part->fd, part->map_bytes, PROT_READ, &part->map);
}

static bool stopped(struct residency *r)
{
    return atomic_load_explicit(&r->stop, memory_order_relaxed);
}

static void advance(struct residency *r, uint64_t n_bytes)
{
    atomic_fetch_add_explicit(&r->bytes_done, n_bytes, memory_order_relaxed);
}

/* The digest of a piece, by read(2); this also brings it into the page cache. */
static int digest_piece(struct residency *r, int fd, uint64_t at, uint64_t n_bytes, uint8_t *buffer,
                        struct sha256 *digest)
{
    while (n_bytes > 0) {
        ssize_t n = pread(fd, buffer, n_bytes < READ_BYTES ? n_bytes : READ_BYTES, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(r, r->path, errno);
        if (n == 0) {
            fault_model_invalid(&r->fault, (int64_t)at, "%s became shorter while it was read", r->path);
            return -EIO;
        }
        sha256_add(digest, buffer, (size_t)n);
        at += (uint64_t)n;
        n_bytes -= (uint64_t)n;
    }
    return 0;
}

static int populate_piece(struct residency *r, struct part *part, uint64_t at, uint64_t n_bytes)
{
    uint8_t *from = part->map + at;

    if (madvise(from, n_bytes, MADV_POPULATE_READ) < 0 && errno != EINVAL) {
        if (errno == EFAULT || errno == EHWPOISON) {
            fault_model_invalid(&r->fault, (int64_t)at, "%s can't be read here, or became shorter", r->path);
            return -EIO;
        }
        return fail_errno(r, r->path, errno);
    }
    if (r->ram == POLICY_RAM_MAP || memlock(from, n_bytes) == 0)
        return 0;
    if (errno == ENOMEM || errno == EPERM || errno == EAGAIN) {
        struct stat st;

        if (fstat(part->fd, &st) == 0 && (uint64_t)st.st_size < part->n_bytes) {
            fault_model_invalid(&r->fault, st.st_size, "%s became shorter while it was read", r->path);
            return -EIO;
        }
        if (!may_lock_anything())
            return lock_refused(r);
    }
    return fail_errno(r, "mlock", errno);
}

static int populate_part(struct residency *r, struct part *part, uint8_t *buffer, struct sha256 *digest)
{
    for (uint64_t at = 0; at < part->n_bytes; at += CHUNK_BYTES) {
        uint64_t left = part->n_bytes - at, n = left < CHUNK_BYTES ? left : CHUNK_BYTES;
        uint64_t whole = part->map_bytes - at;
        int q;

        if (stopped(r))
            return -ECANCELED;
        if (digest) {
            q = digest_piece(r, part->fd, at, n, buffer, digest);
            if (q < 0)
                return q;
        }
        q = populate_piece(r, part, at, whole < CHUNK_BYTES ? whole : CHUNK_BYTES);
        if (q < 0)
            return q;
        if (r->ram != POLICY_RAM_COPY) /* there the copying counted */
            advance(r, n);
    }
    return 0;
}

static int copy_bytes(struct residency *r, const struct part *part, uint8_t *to, struct sha256 *digest)
{
    for (uint64_t at = 0; at < part->n_bytes;) {
        uint64_t left = part->n_bytes - at;
        ssize_t n;

        if (stopped(r))
            return -ECANCELED;
        n = pread(part->fd, to + at, left < READ_BYTES ? left : READ_BYTES, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(r, r->path, errno);
        if (n == 0) {
            fault_model_invalid(&r->fault, (int64_t)at, "%s became shorter while it was read", r->path);
            return -EIO;
        }
        if (digest)
            sha256_add(digest, to + at, (size_t)n);
        at += (uint64_t)n;
        advance(r, (uint64_t)n);
    }
    return 0;
}

static int reopen(int fd)
{
    char link[64];
    int fresh;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    fresh = open(link, O_RDONLY | O_CLOEXEC);
    return fresh < 0 ? -errno : fresh;
}

/* Replaces the part's file by a memfd with its content that nobody can change any more. Only after the writable
 * mapping is gone can it be sealed, and only sealed does anybody else get to see it. */
static int copy_part(struct residency *r, struct part *part, struct sha256 *digest)
{
    _cleanup_close_ int fd = -EBADF;
    uint8_t *to = NULL;
    int q;

    fd = memfd_create("residentd-model", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return fail_errno(r, "memfd_create", errno);
    if (ftruncate(fd, (off_t)part->n_bytes) < 0)
        return fail_errno(r, "memfd", errno);
    q = map_fd(r, fd, part->map_bytes, PROT_READ | PROT_WRITE, &to);
    if (q < 0)
        return q;
    q = copy_bytes(r, part, to, digest);
    munmap(to, part->map_bytes);
    if (q < 0)
        return q;
    if (fcntl(fd, F_ADD_SEALS, COPY_SEALS) < 0)
        return fail_errno(r, "sealing", errno);
    q = reopen(fd);
    if (q < 0)
        return fail_errno(r, "memfd", -q);
    close(part->fd);
    part->fd = q;
    return identify(r, part, r->paths[part->i_path]);
}

static int verify(struct residency *r)
{
    struct smaps_range ranges[RESIDENCY_FILES_MAX];
    uint64_t size = 0;
    int q;

    for (size_t i = 0; i < r->n_parts; i++) {
        ranges[i] = (struct smaps_range){.start = (uintptr_t)r->parts[i].map,
                                         .end = (uintptr_t)r->parts[i].map + r->parts[i].map_bytes};
        size += r->parts[i].map_bytes;
    }
    q = smaps_read(ranges, r->n_parts, &r->figures);
    if (q < 0)
        return fail_errno(r, "/proc/self/smaps", -q);
    if (r->ram != POLICY_RAM_MAP && (r->figures.rss_bytes != size || r->figures.locked_bytes != size)) {
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "the kernel shows %" PRIu64 " bytes in RAM and %" PRIu64 " locked of %" PRIu64, r->figures.rss_bytes,
                  r->figures.locked_bytes, size);
        return -EIO;
    }
    return 0;
}

static int load_parts(struct residency *r, uint8_t *buffer, struct sha256 *digest)
{
    int q;

    for (size_t i = 0; i < r->n_parts; i++) {
        struct part *part = &r->parts[i];
        struct sha256 *d = i == 0 ? digest : NULL;

        if (r->ram == POLICY_RAM_COPY && !r->kept) {
            q = copy_part(r, part, d);
            if (q < 0)
                return q;
        }
        /* What others read of the file lies in small pages, on their account. */
        if (r->ram == POLICY_RAM_LOCK && !r->kept)
            (void)pagecache_drop(part->fd);
        q = map_part(r, part);
        if (q < 0)
            return q;
        q = populate_part(r, part, buffer, r->ram == POLICY_RAM_COPY ? NULL : d);
        if (q < 0)
            return q;
    }
    return 0;
}

static int load_all(struct residency *r)
{
    _cleanup_free_ uint8_t *buffer = NULL;
    char text[SHA256_TEXT_MAX];
    struct sha256 digest;
    int q;

    for (size_t i = 0; i < r->n_parts; i++) {
        if (!checked_align(r->parts[i].n_bytes, (uint64_t)sysconf(_SC_PAGESIZE), &r->parts[i].map_bytes))
            return fail_errno(r, r->path, EOVERFLOW);
    }
    q = check_lock_limit(r);
    if (q < 0)
        return q;
    if (r->sha256 && !r->kept) {
        buffer = malloc(READ_BYTES);
        if (!buffer)
            return fail_errno(r, r->path, ENOMEM);
        sha256_init(&digest);
    }
    q = load_parts(r, buffer, buffer ? &digest : NULL);
    if (q < 0)
        return q;
    if (buffer && strcmp(sha256_text(&digest, text), r->sha256) != 0) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "SHA-256 of %s is %s, the policy says %s", r->path, text,
                            r->sha256);
        return -EINVAL;
    }
    return verify(r);
}

static void *thread_main(void *userdata)
{
    struct residency *r = userdata;
    const uint64_t one = 1;

    r->result = r->phase == OPENING ? open_all(r) : load_all(r);
    /* Can't fail on an eventfd that holds 0. */
    (void)!write(r->event_fd, &one, sizeof(one));
    return NULL;
}

/* ---- in the loop ---- */

static int start_thread(struct residency *r, enum phase phase)
{
    sigset_t all, before;
    int error;

    r->phase = phase;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&r->thread, NULL, thread_main, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        r->phase = FAILED;
        return -error;
    }
    r->thread_runs = true;
    return 0;
}

static void release(struct residency *r)
{
    list_remove(&r->entry);
    sd_event_source_disable_unref(r->wakeup);
    sd_event_source_disable_unref(r->timer);
    if (r->event_fd >= 0)
        close(r->event_fd);
    for (size_t i = 0; i < r->n_parts; i++) {
        if (r->parts[i].map)
            munmap(r->parts[i].map, r->parts[i].map_bytes);
        if (r->parts[i].fd >= 0)
            close(r->parts[i].fd);
    }
    free(r->parts);
    for (size_t i = 0; r->kept_fds && i < r->n_kept; i++)
        closep(&r->kept_fds[i]);
    free(r->kept_fds);
    free(r->kept);
    for (size_t i = 0; i < r->n_paths; i++)
        free(r->paths[i]);
    free(r->paths);
    free(r->sha256);
    free(r);
}

static int on_progress(sd_event_source *s, uint64_t now, void *userdata)
{
    struct residency *r = userdata;
    int q;

    q = sd_event_source_set_time_relative(s, PROGRESS_INTERVAL_US);
    if (q >= 0)
        q = sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
    if (r->phase == LOADING && r->callbacks->progress)
        r->callbacks->progress(r, atomic_load_explicit(&r->bytes_done, memory_order_relaxed), r->bytes_total,
                               r->userdata);
    return q;
}

static int on_thread_done(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
    struct residency *r = userdata;
    struct fault fault;
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    pthread_join(r->thread, NULL);
    r->thread_runs = false;
    if (r->abandoned) {
        release(r);
        return 0;
    }
    if (r->result < 0) {
        r->phase = FAILED;
        fault = r->fault;
        r->callbacks->failed(r, &fault, r->userdata);
    } else if (r->phase == OPENING) {
        r->phase = OPENED;
        r->callbacks->opened(r, r->bytes_total, r->userdata);
    } else {
        r->phase = LOADED;
        r->timer = sd_event_source_disable_unref(r->timer);
        r->callbacks->loaded(r, r->userdata);
    }
    return 0;
}

static int copy_paths(struct residency *r, const struct residency_options *options)
{
    r->paths = calloc(1 + options->n_others, sizeof(char *));
    if (!r->paths)
        return -ENOMEM;
    for (size_t i = 0; i <= options->n_others; i++) {
        r->paths[i] = strdup(i == 0 ? options->path : options->others[i - 1]);
        if (!r->paths[i])
            return -ENOMEM;
        r->n_paths++;
    }
    r->path = r->paths[0];
    return 0;
}

static int copy_kept(struct residency *r, const struct residency_options *options)
{
    if (!options->kept)
        return 0;
    r->kept = calloc(options->n_kept, sizeof(*r->kept));
    if (!r->kept)
        return -ENOMEM;
    memcpy(r->kept, options->kept, options->n_kept * sizeof(*r->kept));
    if (!options->kept_fds)
        return 0;
    r->kept_fds = calloc(options->n_kept, sizeof(int));
    if (!r->kept_fds)
        return -ENOMEM;
    memcpy(r->kept_fds, options->kept_fds, options->n_kept * sizeof(int));
    return 0;
}

static void close_kept(const struct residency_options *options)
{
    for (size_t i = 0; options->kept_fds && i < options->n_kept; i++)
        close(options->kept_fds[i]);
}

int residency_new(struct residencies *owner, const struct residency_options *options,
                  const struct residency_callbacks *callbacks, void *userdata, struct residency **ret)
{
    _cleanup_(residency_freep) struct residency *r = calloc(1, sizeof(*r));
    int q;

    if (!r) {
        close_kept(options);
        return -ENOMEM;
    }
    list_init(&r->entry);
    r->owner = owner;
    r->event_fd = -EBADF;
    r->callbacks = callbacks;
    r->userdata = userdata;
    r->ram = options->ram;
    r->huge = options->huge;
    r->phase = FAILED;
    fault_init(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL);
    r->n_kept = options->n_kept;
    q = copy_kept(r, options);
    if (q < 0) {
        close_kept(options);
        return q;
    }
    q = copy_paths(r, options);
    if (q < 0)
        return q;
    if (options->sha256) {
        r->sha256 = strdup(options->sha256);
        if (!r->sha256)
            return -ENOMEM;
    }
    r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->event_fd < 0)
        return -errno;
    q = sd_event_add_io(owner->event, &r->wakeup, r->event_fd, EPOLLIN, on_thread_done, r);
    if (q < 0)
        return q;
    q = start_thread(r, OPENING);
    if (q < 0)
        return q;
    *ret = TAKE_PTR(r);
    return 0;
}

int residency_load(struct residency *r)
{
    int q;

    q = sd_event_add_time_relative(r->owner->event, &r->timer, CLOCK_MONOTONIC, PROGRESS_INTERVAL_US, 0,
                                   on_progress, r);
    if (q < 0)
        return q;
    return start_thread(r, LOADING);
}

struct residency *residency_free(struct residency *r)
{
    if (!r)
        return NULL;
    if (!r->thread_runs) {
        release(r);
        return NULL;
    }
    atomic_store_explicit(&r->stop, true, memory_order_relaxed);
    r->abandoned = true;
    r->timer = sd_event_source_disable_unref(r->timer);
    list_append(&r->owner->abandoned, &r->entry);
    return NULL;
}

struct residencies *residencies_free(struct residencies *rs)
{
    if (!rs)
        return NULL;
    while (!list_is_empty(&rs->abandoned)) {
        struct residency *r = list_entry(rs->abandoned.next, struct residency, entry);

        pthread_join(r->thread, NULL);
        release(r);
    }
    sd_event_unref(rs->event);
    free(rs);
    return NULL;
}

uint64_t residency_bytes(const struct residency *r)
{
    return r->phase == OPENING || r->phase == FAILED ? 0 : r->bytes_total;
}

uint64_t residency_needs_bytes(const struct residency *r)
{
    return r->ram == POLICY_RAM_MAP ? 0 : residency_bytes(r);
}

uint64_t residency_locked_bytes(const struct residency *r)
{
    return r->phase == LOADED ? r->figures.locked_bytes : 0;
}

uint64_t residency_huge_bytes(const struct residency *r)
{
    return r->phase == LOADED ? r->figures.huge_bytes : 0;
}

size_t residency_n_files(const struct residency *r, size_t i)
{
    size_t n = 0;

    for (size_t k = 0; r->phase != OPENING && k < r->n_parts; k++)
        n += r->parts[k].i_path == i;
    return n;
}

size_t residency_n_parts(const struct residency *r)
{
    return r->phase == OPENING ? 0 : r->n_parts;
}

void residency_identity(const struct residency *r, size_t i, struct residency_identity *ret)
{
    *ret = r->parts[i].identity;
}

int residency_copy_fd(const struct residency *r, size_t i)
{
    return r->ram == POLICY_RAM_COPY && r->phase == LOADED ? r->parts[i].fd : -EBADF;
}

int residency_open_fds(const struct residency *r, int **ret, size_t *ret_n)
{
    _cleanup_free_ int *fds = calloc(r->n_parts, sizeof(*fds));

    if (!fds)
        return -ENOMEM;
    for (size_t i = 0; i < r->n_parts; i++) {
        fds[i] = reopen(r->parts[i].fd);
        if (fds[i] < 0) {
            int q = fds[i];

            while (i-- > 0)
                close(fds[i]);
            return q;
        }
    }
    *ret = TAKE_PTR(fds);
    *ret_n = r->n_parts;
    return 0;
}
