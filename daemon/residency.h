/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model's files in memory: opened safely, mapped, populated, locked or copied as the policy says, and shown to be so
 * by the kernel. All that can block happens in a helper thread of each residency; the event loop hears of it through
 * callbacks. Nothing here looks at what the files hold.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "policy/plan.h"
#include "policy/policy.h"

#define RESIDENCY_FILES_MAX 128 /* splits of one model; what one MODEL packet can carry (PROTO_FDS_MAX) */

/* All residencies of a process; the owner of their threads. */
struct residencies;
struct residency;

/* From the loop only. */
struct residency_callbacks {
    /* The files are open and @bytes_total long: residency_load() may follow, now or later. */
    void (*opened)(struct residency *r, uint64_t bytes_total, void *userdata);
    void (*progress)(struct residency *r, uint64_t bytes_done, uint64_t bytes_total, void *userdata);
    void (*loaded)(struct residency *r, void *userdata);
    /* After residency_sample(): so many bytes are not held any more that have to be. Figures are those of now. A file
     * that was changed under the mapping is failed() with FAULT_MODEL_INVALID. */
    void (*sampled)(struct residency *r, uint64_t bytes_lost, void *userdata);
    /* Fault without a subject: the caller knows the model's name. */
    void (*failed)(struct residency *r, const struct fault *fault, void *userdata);
};

/* What a file is known by as long as nobody touches it. Of a copy: the copy. */
struct residency_identity {
    uint64_t device, inode, n_bytes;
    int64_t mtime_ns, ctime_ns;
};

struct residency_file {
    const char *path;   /* of the (first) file; copied */
    const char *sha256; /* of all its files in order, as if they were one; NULL: not checked; copied */
};

struct residency_options {
    struct residency_file file;
    enum policy_ram ram;
    enum policy_huge huge;
    enum policy_numa numa;
    uint32_t numa_node; /* of POLICY_NUMA_BIND */
    uint64_t bytes_max; /* a larger model is only opened and checked: its worker keeps part of it; 0: no limit */
    const struct residency_file *others; /* [n_others] what is to be held with it, behind it in order; copied */
    size_t n_others;
    /* What an earlier daemon had loaded: files must be the same still, and are neither copied nor checked against
     * their SHA-256 again, which took reading them. NULL: nothing. */
    const struct residency_identity *kept; /* [n_kept] of all files in order; copied */
    const int *kept_fds; /* [n_kept] sealed copies, consumed, on failure too; NULL: the files are used in place */
    size_t n_kept;
};

/**
 * residencies_new() - no residency yet
 * @own_uid: besides root, whose files may be used in place
 */
int residencies_new(sd_event *event, uid_t own_uid, struct residencies **ret);

/**
 * residencies_free() - wait for the threads of released residencies; all must have been released
 */
struct residencies *residencies_free(struct residencies *r);

DEFINE_CLEANUP(struct residencies *, residencies_free)

/**
 * residency_new() - begin to open the files of @options
 * Files used in place must be regular, owned by root or the service, not writable by others, in such directories.
 * With POLICY_RAM_COPY, others are taken if their SHA-256 is given. A split model's further files are found by name.
 * Returns 0 or a negative errno.
 */
int residency_new(struct residencies *owner, const struct residency_options *options,
                  const struct residency_callbacks *callbacks, void *userdata, struct residency **ret);

/**
 * residency_hold() - @unhold(@held), from the loop, when the memory has been let go of, which may be after
 * residency_free(); once
 */
void residency_hold(struct residency *r, void *held, void (*unhold)(void *held));

/**
 * residency_leave_out() - what need not be held, since it is elsewhere, too; from the next
 * residency_load() on, instead of what was said before
 * Only of what is locked in place: a copy is whole.
 * @ranges: [@n] in order, whole pages, of the first file's parts; copied
 * Returns 0; RESIDENCY_AS_BEFORE: that was said already; -ENOMEM, or -EBUSY while it is loaded or looked at.
 */
#define RESIDENCY_AS_BEFORE 1

int residency_leave_out(struct residency *r, const struct plan_range *ranges, size_t n);

/**
 * residency_is_busy() - whether it is being opened, loaded or looked at
 */
bool residency_is_busy(const struct residency *r);

/**
 * residency_load() - after opened: bring the files into memory; loaded or failed follows
 * Of one that is loaded: hold what is to be held now, and nothing else; not while it is being looked at (-EBUSY).
 * Returns 0 or a negative errno.
 */
int residency_load(struct residency *r);

/**
 * residency_sample() - see whether what was loaded is still in memory and the files are the same; sampled or failed
 * follows. Nothing happens where it is not loaded, or being looked at already.
 * Returns 0 or a negative errno (no thread could be made; try again later).
 */
int residency_sample(struct residency *r);

/**
 * residency_check_files() - whether the files of a loaded residency are as they were; takes no longer than fstat(2)
 * @reterr: FAULT_MODEL_INVALID without a subject: one was cut short or written to
 * Returns 0 or a negative errno.
 */
int residency_check_files(const struct residency *r, struct fault *reterr);

/**
 * residency_free() - let go of the memory; no callback comes any more. Takes NULL, returns NULL
 * A thread that is still at work is told to stop and is joined from the loop later.
 */
struct residency *residency_free(struct residency *r);

DEFINE_CLEANUP(struct residency *, residency_free)

/**
 * residency_bytes() - of all files; 0 before opened
 */
uint64_t residency_bytes(const struct residency *r);

/**
 * residency_needs_bytes() - what it will hold in RAM for good: 0 for POLICY_RAM_MAP
 */
uint64_t residency_needs_bytes(const struct residency *r);

/**
 * residency_file_needs_bytes() - the same of file @i of all, in order, one that is locked in place
 */
uint64_t residency_file_needs_bytes(const struct residency *r, size_t i);

/**
 * residency_is_partial() - whether it is larger than bytes_max: nothing of it is in memory here
 * @ret_own_bytes: what is left of bytes_max for the model itself, at least 1, since others' files are held whole; may
 *                 be NULL
 */
bool residency_is_partial(const struct residency *r, uint64_t *ret_own_bytes);

/**
 * residency_locked_bytes() - what the kernel showed as locked and resident when it last looked; 0 before
 */
uint64_t residency_locked_bytes(const struct residency *r);

/**
 * residency_huge_bytes() - how much of that the kernel maps by huge pages
 */
uint64_t residency_huge_bytes(const struct residency *r);

/**
 * residency_reserved_bytes() - how much of that is on huge pages that were reserved (hugetlbfs)
 */
uint64_t residency_reserved_bytes(const struct residency *r);

/**
 * residency_is_read() - whether the processor has read of each page of a loaded residency, so that nobody has to wait
 * for what only a disk has written to (daemon/digest.h)
 */
bool residency_is_read(const struct residency *r);

/**
 * residency_read_by() - how a copy came into memory, for the log; NULL: it is none, or not loaded here
 */
const char *residency_read_by(const struct residency *r);

/**
 * residency_n_files() - how many files @i has: 0 the model itself, from 1 on others[i - 1]; 0 before opened
 */
size_t residency_n_files(const struct residency *r, size_t i);

/**
 * residency_n_parts() - how many files they are in all; 0 before opened
 */
size_t residency_n_parts(const struct residency *r);

/**
 * residency_identity() - what file @i of all, in order, is known by; of a loaded residency
 */
void residency_identity(const struct residency *r, size_t i, struct residency_identity *ret);

/**
 * residency_copy_fd() - the sealed copy of file @i, borrowed; -EBADF: it is used in place, or not loaded yet
 */
int residency_copy_fd(const struct residency *r, size_t i);

/**
 * residency_open_fds() - fresh read-only descriptors of the loaded files, in order, for a worker
 * @ret: [*ret_n], the caller closes each and frees the array. Returns 0 or a negative errno.
 */
int residency_open_fds(const struct residency *r, int **ret, size_t *ret_n);

/**
 * residency_part_path() - the name of file @i (from 0) of a split model, found from the name of the first
 * @ret_n_parts: how many there are: 1 for a name without "-00001-of-0000N.gguf"
 * @ret:         the path, owned by the caller
 * Returns 0, -EINVAL (a split, but not the first part, or too many parts), -ENOMEM.
 */
int residency_part_path(const char *first, size_t i, char **ret, size_t *ret_n_parts);

/**
 * residency_lock_advice() - why @bytes can't be locked and what to do, into @fault
 * @limit_bytes: RLIMIT_MEMLOCK; @locked_bytes: what is locked already
 */
void residency_lock_advice(uint64_t bytes, uint64_t locked_bytes, uint64_t limit_bytes, struct fault *fault);
