/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The first job of a residency's thread: find, open and check the files.
 */
#include "daemon/residency-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/trust.h"

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

int residency_fail_errno(struct residency *r, const char *what, int error)
{
    if (error == ENOMEM)
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL, "%s: out of memory", what);
    else
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s: %s", what, strerror(error));
    return -error;
}

int residency_identify(struct residency *r, struct residency_part *part, const char *path)
{
    struct stat st;

    if (fstat(part->fd, &st) < 0)
        return residency_fail_errno(r, path, errno);
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
static int check_kept(struct residency *r, const struct residency_part *part, const char *path)
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

static int take_copy(struct residency *r, struct residency_part *part, const char *path)
{
    size_t i = (size_t)(part - r->parts);
    int seals;

    if (i >= r->n_kept)
        return check_kept(r, part, path);
    part->fd = TAKE_FD(r->kept_fds[i]);
    seals = fcntl(part->fd, F_GET_SEALS);
    if (seals < 0 || (seals & RESIDENCY_SEALS) != RESIDENCY_SEALS) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "the copy of %s is not sealed", path);
        return -EINVAL;
    }
    return 0;
}

/* Part @i of the files that paths[i_path] begins. */
static int open_part(struct residency *r, struct residency_part *part, size_t i)
{
    _cleanup_free_ char *path = NULL;
    struct trust_error why;
    size_t n_parts;
    unsigned flags = 0;
    int q;

    q = residency_part_path(r->paths[part->i_path], i, &path, &n_parts);
    if (q < 0)
        return residency_fail_errno(r, r->paths[part->i_path], -q);
    if (r->ram == POLICY_RAM_COPY && r->sha256s[part->i_path])
        flags = TRUST_ANYBODY; /* the copy can't be changed, and the digest says what it is */
    q = r->kept_fds ? take_copy(r, part, path)
                    : trust_open(path, residencies_own_uid(r->owner), flags, &part->fd, &why);
    if (q == -EPERM) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s must be %s", why.path, why.reason);
        return q;
    }
    if (q < 0)
        return r->kept_fds ? q : residency_fail_errno(r, path, -q);
    q = residency_identify(r, part, path);
    if (q == 0)
        q = check_kept(r, part, path);
    if (q < 0)
        return q;
    part->n_bytes = part->identity.n_bytes;
    if (!checked_add(r->bytes_total, part->n_bytes, &r->bytes_total))
        return residency_fail_errno(r, path, EOVERFLOW);
    return 0;
}

/* Room for the parts of paths[i_path], behind those of the paths before. */
static int add_parts(struct residency *r, size_t i_path)
{
    _cleanup_free_ char *path = NULL;
    struct residency_part *grown;
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
        return residency_fail_errno(r, r->paths[i_path], -q);
    if (n > RESIDENCY_FILES_MAX - r->n_parts) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "with %s it has more than %d files", r->paths[i_path],
                            RESIDENCY_FILES_MAX);
        return -EINVAL;
    }
    grown = reallocarray(r->parts, r->n_parts + n, sizeof(*grown));
    if (!grown)
        return residency_fail_errno(r, r->paths[i_path], ENOMEM);
    r->parts = grown;
    for (size_t i = 0; i < n; i++)
        r->parts[r->n_parts++] = (struct residency_part){.fd = -EBADF, .i_path = i_path};
    return 0;
}

int residency_open_all(struct residency *r)
{
    for (size_t i_path = 0; i_path < r->n_paths; i_path++) {
        size_t first = r->n_parts;
        int q = add_parts(r, i_path);

        for (size_t i = first; q == 0 && i < r->n_parts; i++)
            q = open_part(r, &r->parts[i], i - first);
        if (q < 0)
            return q;
    }
    if (r->ram == POLICY_RAM_COPY && residency_is_partial(r, NULL)) {
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "residency.limit is smaller than the model, and a copy is always whole: residency.ram has to be "
                  "\"lock\" or \"map\"");
        return -EINVAL;
    }
    if (r->huge == POLICY_HUGE_ON && residency_is_partial(r, NULL)) {
        fault_set(&r->fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "residency.limit is smaller than the model, whose pages then come and go: residency.huge has to be "
                  "\"auto\" or \"off\"");
        return -EINVAL;
    }
    if (r->kept && r->n_kept != r->n_parts) {
        fault_model_invalid(&r->fault, FAULT_NO_OFFSET, "%s has another number of files now", r->path);
        return -EINVAL;
    }
    return 0;
}
