/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The loop's side. Two jobs, each in a helper thread: open (find, open and check the files: residency-open.c) and load
 * (map, populate, lock or copy, verify: residency-load.c, residency-copy.c). Between them the loop decides whether
 * there is room. What is loaded is looked after by a third, now and then.
 *
 *   new → OPENING → OPENED → LOADING → LOADED        any → failed (the reason was told; only residency_free() is left)
 *
 * Invariants:
 *  1. While a thread runs, all members but the two atomics and what the loop alone uses (marked) are the thread's. The
 *     job that looks after what is LOADED writes nothing but sampled, result and fault, and the loop reads the others
 *     meanwhile.
 *  2. The thread hands over by writing to @event_fd as its last act; the loop joins it before it looks at the results.
 *  3. Nobody just reads through the mappings: a file that is cut short under them would kill the reader (SIGBUS). Pages
 *     are brought in by madvise(2) and mlock(2), which fail instead, and digests are computed by mapread.h.
 *  4. Work is done in chunks; after each the thread looks whether it should stop.
 */
#include "daemon/residency-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROGRESS_INTERVAL_US 250000
/* Files that the service has read, whose cached pages are as it wants them: so many are remembered, the oldest are
 * forgotten and would be read again. */
#define OURS_MAX 256

struct residencies {
    sd_event *event;
    uid_t own_uid;
    struct list abandoned; /* of struct residency: released, thread still at work */
    struct residency_identity ours[OURS_MAX]; /* a ring; unused ones are all zero, which no file is */
    size_t next_ours;
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

uid_t residencies_own_uid(const struct residencies *rs)
{
    return rs->own_uid;
}

static bool is_same_file(const struct residency_identity *a, const struct residency_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->n_bytes == b->n_bytes && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

static bool is_ours(const struct residencies *rs, const struct residency_identity *identity)
{
    for (size_t i = 0; i < OURS_MAX; i++) {
        if (is_same_file(&rs->ours[i], identity))
            return true;
    }
    return false;
}

static void remember_as_ours(struct residency *r)
{
    struct residencies *rs = r->owner;

    for (size_t i = 0; r->ram == POLICY_RAM_LOCK && i < r->n_parts; i++) {
        if (!is_ours(rs, &r->parts[i].identity))
            rs->ours[rs->next_ours++ % OURS_MAX] = r->parts[i].identity;
    }
}

static void *thread_main(void *userdata)
{
    struct residency *r = userdata;
    const uint64_t one = 1;

    if (r->phase == OPENING)
        r->result = residency_open_all(r);
    else
        r->result = r->phase == LOADED ? residency_sample_all(r) : residency_load_all(r);
    /* Can't fail on an eventfd that holds 0. */
    (void)!write(r->event_fd, &one, sizeof(one));
    return NULL;
}

static int start_thread(struct residency *r, enum residency_phase phase)
{
    sigset_t all, before;
    int error;

    r->phase = phase;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&r->thread, NULL, thread_main, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        r->phase = phase == LOADED ? LOADED : FAILED;
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
    for (size_t i = 0; i < r->n_paths; i++) {
        free(r->paths[i]);
        free(r->sha256s[i]);
    }
    free(r->paths);
    free(r->sha256s);
    free(r->left_out);
    if (r->unhold)
        r->unhold(r->held);
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

static uint64_t bytes_lost(const struct residency *r)
{
    uint64_t held = r->figures.locked_bytes + r->figures.hugetlb_bytes, wanted = residency_held_bytes(r);

    return r->ram == POLICY_RAM_MAP || residency_is_partial(r, NULL) || held >= wanted ? 0 : wanted - held;
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
        for (size_t i = 0; i < r->n_parts; i++)
            r->parts[i].is_ours = is_ours(r->owner, &r->parts[i].identity);
        r->callbacks->opened(r, r->bytes_total, r->userdata);
    } else if (r->phase == LOADED) {
        r->figures = r->sampled;
        r->callbacks->sampled(r, bytes_lost(r), r->userdata);
    } else {
        r->phase = LOADED;
        remember_as_ours(r);
        r->timer = sd_event_source_disable_unref(r->timer);
        r->callbacks->loaded(r, r->userdata);
    }
    return 0;
}

static int copy_paths(struct residency *r, const struct residency_options *options)
{
    r->paths = calloc(1 + options->n_others, sizeof(char *));
    r->sha256s = calloc(1 + options->n_others, sizeof(char *));
    if (!r->paths || !r->sha256s)
        return -ENOMEM;
    for (size_t i = 0; i <= options->n_others; i++) {
        const struct residency_file *file = i == 0 ? &options->file : &options->others[i - 1];

        r->n_paths++;
        r->paths[i] = strdup(file->path);
        r->sha256s[i] = file->sha256 ? strdup(file->sha256) : NULL;
        if (!r->paths[i] || (file->sha256 && !r->sha256s[i]))
            return -ENOMEM;
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
    r->numa = options->numa;
    r->numa_node = options->numa_node;
    r->bytes_max = options->bytes_max;
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

void residency_hold(struct residency *r, void *held, void (*unhold)(void *held))
{
    r->held = held;
    r->unhold = unhold;
}

static bool are_left_out(const struct residency *r, const struct plan_range *ranges, size_t n)
{
    for (size_t i = 0; n == r->n_left_out && i < n; i++) {
        const struct plan_range *a = &ranges[i], *b = &r->left_out[i];

        if (a->file != b->file || a->from != b->from || a->n_bytes != b->n_bytes)
            return false;
    }
    return n == r->n_left_out;
}

int residency_leave_out(struct residency *r, const struct plan_range *ranges, size_t n)
{
    struct plan_range *copy;

    n = r->ram == POLICY_RAM_LOCK ? n : 0;
    if (are_left_out(r, ranges, n))
        return RESIDENCY_AS_BEFORE;
    if (r->thread_runs)
        return -EBUSY;
    copy = calloc(n + 1, sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        copy[i] = ranges[i];
    free(r->left_out);
    r->left_out = copy;
    r->n_left_out = n;
    /* What is held again then comes from the disk. */
    for (size_t i = 0; i < r->n_parts; i++)
        r->parts[i].is_read = false;
    return 0;
}

bool residency_is_busy(const struct residency *r)
{
    return r->thread_runs;
}

int residency_load(struct residency *r)
{
    int q;

    if (r->thread_runs)
        return -EBUSY;
    q = sd_event_add_time_relative(r->owner->event, &r->timer, CLOCK_MONOTONIC, PROGRESS_INTERVAL_US, 0,
                                   on_progress, r);
    if (q < 0)
        return q;
    atomic_store_explicit(&r->bytes_done, 0, memory_order_relaxed);
    return start_thread(r, LOADING);
}

int residency_sample(struct residency *r)
{
    if (r->phase != LOADED || r->thread_runs)
        return 0;
    return start_thread(r, LOADED);
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

bool residency_is_partial(const struct residency *r, uint64_t *ret_own_bytes)
{
    uint64_t others = 0;

    if (r->bytes_max == 0 || r->bytes_total <= r->bytes_max)
        return false;
    for (size_t i = 0; i < r->n_parts; i++)
        others += r->parts[i].i_path == 0 ? 0 : r->parts[i].n_bytes;
    if (ret_own_bytes)
        *ret_own_bytes = others < r->bytes_max ? r->bytes_max - others : 1;
    return true;
}

uint64_t residency_needs_bytes(const struct residency *r)
{
    uint64_t left_out = 0, all = residency_bytes(r);

    if (r->ram == POLICY_RAM_MAP)
        return 0;
    if (residency_is_partial(r, NULL))
        return r->bytes_max;
    for (size_t i = 0; i < r->n_left_out; i++)
        left_out += r->left_out[i].n_bytes;
    return left_out < all ? all - left_out : 0;
}

uint64_t residency_file_needs_bytes(const struct residency *r, size_t i)
{
    uint64_t n_bytes = r->parts[i].n_bytes;

    for (size_t k = 0; k < r->n_left_out; k++)
        n_bytes -= r->left_out[k].file == i ? r->left_out[k].n_bytes : 0;
    return n_bytes;
}

static const struct smaps_figures *figures(const struct residency *r)
{
    static const struct smaps_figures none = {.size_bytes = 0};

    return r->phase == LOADED ? &r->figures : &none;
}

uint64_t residency_locked_bytes(const struct residency *r)
{
    return figures(r)->locked_bytes + figures(r)->hugetlb_bytes;
}

uint64_t residency_huge_bytes(const struct residency *r)
{
    return figures(r)->huge_bytes + figures(r)->hugetlb_bytes;
}

uint64_t residency_reserved_bytes(const struct residency *r)
{
    return figures(r)->hugetlb_bytes;
}

bool residency_is_read(const struct residency *r)
{
    bool is_read = r->phase == LOADED && r->n_parts > 0;

    for (size_t i = 0; i < r->n_parts; i++)
        is_read = is_read && r->parts[i].is_read;
    return is_read;
}

const char *residency_read_by(const struct residency *r)
{
    return r->phase == LOADED && r->ram == POLICY_RAM_COPY && !r->kept ? readin_way_to_string(r->way) : NULL;
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

static int reopen(int fd)
{
    char link[64];
    int fresh;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    fresh = open(link, O_RDONLY | O_CLOEXEC);
    return fresh < 0 ? -errno : fresh;
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
