/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records go to the thread in a queue under the lock and come back in another. The thread takes all that there is and
 * writes it in one transaction, so many requests that end together cost one.
 *
 *   loop: ledger_record() → queue → thread: ledger_file_add() → done → eventfd → loop: recorded()
 *
 * A record is the thread's from the queue until it is in done, except for its first four members, which are the loop's.
 * The loop keeps those with a callback in `waiting`, so it can answer them all when the thread says that it can't
 * write, or when it says nothing for a while (a disk that hangs).
 *
 * The thread also keeps the day's sums (`day`): with them a new file begins after a damaged one was set aside.
 */
#include "daemon/ledger.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/list.h"
#include "daemon/calendar.h"
#include "daemon/limits.h"
#include "daemon/messages.h"

#define SYNC_S 1  /* from the first change that is not on the disk to the disk */
#define RETRY_S 2 /* between tries of a file that can't be written */
#define BATCH_MAX 1024

struct ledger_record {
    struct list by_waiting;
    ledger_recorded_t recorded; /* NULL: nobody waits (any more) */
    void *userdata;
    uint64_t since_us;
    struct ledger_record *next;
    bool is_new; /* once it is in done */
    struct ledger_entry entry; /* model and groups lie behind it */
};

struct queue {
    struct ledger_record *first, **end;
    size_t n;
};

/* What the thread has found out; under the lock. */
struct news {
    bool fails; /* the last try */
    char reason[256];
    char set_aside[256]; /* "": nothing was */
    unsigned n_set_aside;
    char note[256]; /* what is not known of which day */
    int64_t note_day;
    struct ledger_day *loaded; /* [n_loaded] for the loop to take once */
    size_t n_loaded;
    bool has_loaded;
};

struct ledger {
    sd_event_source *source, *timer;
    const struct log *log;
    ledger_loaded_t loaded;
    void *userdata;
    char *dir;
    struct list waiting; /* of struct ledger_record, oldest first; the loop's */
    bool said_fails, said_slow;
    unsigned said_set_aside;
    uint64_t n_lost;
    int event_fd;
    bool has_thread;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t work, opened;
    bool stop, tried;
    struct queue queue, done;
    size_t n_unwritten; /* in the queue or with the thread */
    struct news news;

    /* the thread's alone */
    struct ledger_file *file;
    bool was_loaded, was_partial, is_dirty;
    int64_t day, pruned_hour;
    struct ledger_day *days; /* [n_days] sorted by id: of the day */
    size_t n_days, n_days_room;
};

static const char *const state_names[LEDGER_STATE_MAX] = {
    [LEDGER_OK] = "ok", [LEDGER_OFF] = "off", [LEDGER_DEGRADED] = "degraded"};

const char *ledger_state_to_string(enum ledger_state state)
{
    return state_names[state];
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int64_t wall_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

static void queue_init(struct queue *q)
{
    *q = (struct queue){.end = &q->first};
}

static void queue_append(struct queue *q, struct ledger_record *r)
{
    r->next = NULL;
    *q->end = r;
    q->end = &r->next;
    q->n++;
}

static struct ledger_record *queue_pop(struct queue *q)
{
    struct ledger_record *r = q->first;

    if (!r)
        return NULL;
    q->first = r->next;
    if (!q->first)
        q->end = &q->first;
    q->n--;
    return r;
}

/* @from comes before what is in @q. */
static void queue_prepend_all(struct queue *q, struct queue *from)
{
    if (!from->first)
        return;
    *from->end = q->first;
    if (!q->first)
        q->end = from->end;
    q->first = from->first;
    q->n += from->n;
    queue_init(from);
}

/* ---- the thread: the day's sums ---- */

static void add_to_day(struct ledger *l, uint64_t id, uint64_t tokens)
{
    size_t low = 0, high = l->n_days;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (l->days[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == l->n_days || l->days[low].id != id) {
        if (l->n_days == l->n_days_room) {
            size_t n_room = 2 * l->n_days_room + 64;
            struct ledger_day *grown = reallocarray(l->days, n_room, sizeof(*grown));

            if (!grown)
                return; /* missing only where a file is damaged later */
            l->days = grown;
            l->n_days_room = n_room;
        }
        memmove(l->days + low + 1, l->days + low, (l->n_days - low) * sizeof(*l->days));
        l->days[low] = (struct ledger_day){.id = id};
        l->n_days++;
    }
    l->days[low].tokens += tokens;
}

static void count_entry(struct ledger *l, const struct ledger_entry *e)
{
    uint64_t tokens = ledger_entry_tokens(e);

    if (e->day > l->day) {
        l->day = e->day;
        l->n_days = 0;
    }
    if (e->day != l->day || tokens == 0)
        return;
    add_to_day(l, e->uid, tokens);
    for (size_t i = 0; i < e->n_groups; i++)
        add_to_day(l, LEDGER_GROUP | e->groups[i], tokens);
}

/* ---- the thread: the file ---- */

static void wake_loop(struct ledger *l)
{
    uint64_t one = 1;

    /* Can't fail short of 2^64 - 1 wake-ups that nobody picked up. */
    (void)!write(l->event_fd, &one, sizeof(one));
}

static void say(struct ledger *l, bool fails, const char *reason)
{
    pthread_mutex_lock(&l->lock);
    if (fails)
        snprintf(l->news.reason, sizeof(l->news.reason), "%s", reason);
    if (l->news.fails != fails || fails) {
        l->news.fails = fails;
        wake_loop(l);
    }
    pthread_mutex_unlock(&l->lock);
}

static void say_note(struct ledger *l, const char *note)
{
    pthread_mutex_lock(&l->lock);
    snprintf(l->news.note, sizeof(l->news.note), "%s", note);
    l->news.note_day = l->day;
    wake_loop(l);
    pthread_mutex_unlock(&l->lock);
}

/* The day as the file has it, into the sums; for the loop too, if it has not had it. */
static int load_day(struct ledger *l, char *reason, size_t n_reason)
{
    struct ledger_day *list = NULL;
    size_t n = 0;
    int r = ledger_file_day(l->file, l->day, &list, &n, reason, n_reason);

    if (r < 0)
        return LEDGER_FAILED;
    if (r == LEDGER_FAILED) {
        free(list);
        return r;
    }
    for (size_t i = 0; i < n; i++)
        add_to_day(l, list[i].id, list[i].tokens);
    l->was_loaded = true;
    l->was_partial = r == LEDGER_DAMAGED;
    pthread_mutex_lock(&l->lock);
    l->news.loaded = list;
    l->news.n_loaded = n;
    l->news.has_loaded = true;
    wake_loop(l);
    pthread_mutex_unlock(&l->lock);
    return r;
}

/* What could be known of the day is in l->days; what can't be is said, and remembered until it is over. */
static void note_loss(struct ledger *l)
{
    time_t now = (time_t)wall_s();
    char stamp[16] = "", note[256], reason[256];
    struct tm tm;

    if (localtime_r(&now, &tm))
        strftime(stamp, sizeof(stamp), "%H:%M", &tm);
    snprintf(note, sizeof(note),
             "it was damaged: what was used today before %s is known in part or not at all, and the quotas of the day "
             "count without the rest",
             stamp);
    (void)ledger_file_note(l->file, l->day, note, reason, sizeof(reason));
    say_note(l, note);
}

/* The file is damaged: it is renamed, and a new one begins with what is known of the day. */
static int replace(struct ledger *l, char *reason, size_t n_reason)
{
    bool was_known = l->was_loaded && !l->was_partial;
    _cleanup_free_ char *aside = NULL;
    int r;

    l->file = ledger_file_close(l->file);
    r = ledger_file_set_aside(l->dir, wall_s(), &aside);
    if (r < 0) {
        snprintf(reason, n_reason, "it is damaged and can't be renamed: %s", strerror(-r));
        return LEDGER_FAILED;
    }
    l->was_loaded = true;
    l->was_partial = false;
    pthread_mutex_lock(&l->lock);
    snprintf(l->news.set_aside, sizeof(l->news.set_aside), "%s", aside);
    l->news.n_set_aside++;
    wake_loop(l);
    pthread_mutex_unlock(&l->lock);
    r = ledger_file_open(l->dir, &l->file, reason, n_reason);
    if (r == 0)
        r = ledger_file_carry(l->file, l->day, l->days, l->n_days, reason, n_reason);
    if (r == 0 && !was_known)
        note_loss(l);
    return r == 0 ? 0 : LEDGER_FAILED;
}

static int open_file(struct ledger *l, char *reason, size_t n_reason)
{
    char *note = NULL;
    int r;

    if (l->file)
        return 0;
    r = ledger_file_open(l->dir, &l->file, reason, n_reason);
    if (r == 0 && !l->was_loaded)
        r = load_day(l, reason, n_reason);
    if (r < 0)
        snprintf(reason, n_reason, "out of memory");
    if (r != 0)
        return r;
    if (ledger_file_get_note(l->file, l->day, &note) == 0 && note)
        say_note(l, note);
    free(note);
    return 0;
}

/* Once an hour, and not before the first try: it looks at each request of two days, and the service's start waits for
 * that try, with all who wait for the service. */
static bool is_to_be_pruned(const struct ledger *l)
{
    return l->tried && l->file && calendar_hour(wall_s()) != l->pruned_hour;
}

static int prune(struct ledger *l, char *reason, size_t n_reason)
{
    int64_t now = wall_s();

    l->pruned_hour = calendar_hour(now);
    return ledger_file_prune(l->file, now, reason, n_reason);
}

static int write_batch(struct ledger *l, const struct queue *batch, char *reason, size_t n_reason)
{
    const struct ledger_entry *entries[BATCH_MAX];
    bool is_new[BATCH_MAX];
    size_t n = 0, i = 0;
    int r = open_file(l, reason, n_reason);

    for (struct ledger_record *record = batch->first; record; record = record->next)
        entries[n++] = &record->entry;
    if (r == 0 && n > 0) {
        r = ledger_file_add(l->file, entries, n, is_new, reason, n_reason);
        l->is_dirty |= r == 0;
        for (struct ledger_record *record = batch->first; r == 0 && record; record = record->next)
            record->is_new = is_new[i++];
    }
    /* Nobody's answer waits for it. */
    if (r == 0 && n == 0 && is_to_be_pruned(l))
        r = prune(l, reason, n_reason);
    return r;
}

/* One try; a damaged file is replaced and tried once more. */
static bool try_batch(struct ledger *l, const struct queue *batch)
{
    char reason[256] = "";
    int r = write_batch(l, batch, reason, sizeof(reason));

    if (r == LEDGER_DAMAGED) {
        r = replace(l, reason, sizeof(reason));
        if (r == 0)
            r = write_batch(l, batch, reason, sizeof(reason));
    }
    if (r != 0)
        l->file = ledger_file_close(l->file);
    say(l, r != 0, reason);
    if (r == 0)
        for (struct ledger_record *record = batch->first; record; record = record->next)
            if (record->is_new)
                count_entry(l, &record->entry);
    return r == 0;
}

static void wait_for_work(struct ledger *l, int seconds)
{
    struct timespec until;

    if (seconds == 0) {
        pthread_cond_wait(&l->work, &l->lock);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    (void)pthread_cond_timedwait(&l->work, &l->lock, &until);
}

static void sync_file(struct ledger *l)
{
    char reason[256];

    /* What fails here shows again when something is written. */
    if (l->is_dirty && l->file)
        (void)ledger_file_sync(l->file, reason, sizeof(reason));
    l->is_dirty = false;
}

/* Not more often than every so often, however many records come. */
static void pause_after_failure(struct ledger *l)
{
    uint64_t until = now_us() + RETRY_S * UINT64_C(1000000);

    while (!l->stop && now_us() < until)
        wait_for_work(l, RETRY_S);
}

static void *run(void *userdata)
{
    struct ledger *l = userdata;
    struct queue batch;
    uint64_t synced_us = now_us();
    bool ok;

    queue_init(&batch);
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (batch.n < BATCH_MAX && l->queue.n > 0)
            queue_append(&batch, queue_pop(&l->queue));
        if (batch.n == 0 && l->tried && l->stop)
            break;
        if (batch.n == 0 && l->tried && !l->news.fails && !is_to_be_pruned(l) &&
            (!l->is_dirty || now_us() - synced_us < SYNC_S * UINT64_C(1000000))) {
            wait_for_work(l, l->is_dirty ? SYNC_S : 0);
            continue;
        }
        pthread_mutex_unlock(&l->lock);
        ok = true;
        if (batch.n > 0 || !l->file || is_to_be_pruned(l))
            ok = try_batch(l, &batch);
        if (ok && now_us() - synced_us >= SYNC_S * UINT64_C(1000000)) {
            sync_file(l);
            synced_us = now_us();
        }
        pthread_mutex_lock(&l->lock);
        l->tried = true;
        pthread_cond_broadcast(&l->opened);
        if (ok) {
            l->n_unwritten -= batch.n;
            queue_prepend_all(&l->done, &batch);
            wake_loop(l);
            continue;
        }
        queue_prepend_all(&l->queue, &batch);
        if (l->stop)
            break;
        pause_after_failure(l);
    }
    pthread_mutex_unlock(&l->lock);
    sync_file(l);
    l->file = ledger_file_close(l->file);
    return NULL;
}

/* ---- the loop ---- */

static void answer(struct ledger_record *r, bool is_new)
{
    ledger_recorded_t recorded = r->recorded;

    list_remove(&r->by_waiting);
    r->recorded = NULL;
    if (recorded)
        recorded(is_new, r->userdata);
}

static void answer_all(struct ledger *l)
{
    while (!list_is_empty(&l->waiting))
        answer(list_entry(l->waiting.next, struct ledger_record, by_waiting), /* is_new= */ true);
}

static void deliver_loaded(struct ledger *l)
{
    struct ledger_day *list = NULL;
    size_t n = 0;
    bool has;

    pthread_mutex_lock(&l->lock);
    has = l->news.has_loaded;
    if (has) {
        list = TAKE_PTR(l->news.loaded);
        n = l->news.n_loaded;
        l->news.has_loaded = false;
    }
    pthread_mutex_unlock(&l->lock);
    if (has && l->loaded)
        l->loaded(list, n, l->userdata);
    free(list);
}

/* Changes go to the log, once each. */
static void log_news(struct ledger *l)
{
    pthread_mutex_lock(&l->lock);
    if (l->news.n_set_aside != l->said_set_aside)
        log_line(l->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_LEDGER_DAMAGED},
                 "The ledger was damaged and a new one was begun; the old file is %s; %s",
                 l->news.set_aside, l->news.note[0] ? l->news.note : "nothing of the day is lost");
    if (l->news.fails && !l->said_fails)
        log_line(l->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_LEDGER_UNWRITTEN},
                 "The ledger in %s can't be written; usage waits in memory and is lost if the service ends: %s", l->dir,
                 l->news.reason);
    if (!l->news.fails && l->said_fails)
        log_line(l->log, LOG_NOTICE, &(struct log_fields){.message_id = MESSAGE_LEDGER_WRITTEN},
                 "The ledger in %s is written again", l->dir);
    l->said_set_aside = l->news.n_set_aside;
    l->said_fails = l->news.fails;
    pthread_mutex_unlock(&l->lock);
}

static int on_event(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct ledger *l = userdata;
    struct ledger_record *r;
    uint64_t count;
    bool fails;

    (void)!read(fd, &count, sizeof(count));
    deliver_loaded(l);
    log_news(l);
    for (;;) {
        pthread_mutex_lock(&l->lock);
        r = queue_pop(&l->done);
        fails = l->news.fails;
        pthread_mutex_unlock(&l->lock);
        if (!r)
            break;
        answer(r, r->is_new);
        free(r);
    }
    if (list_is_empty(&l->waiting))
        l->said_slow = false;
    if (fails || !l->has_thread)
        answer_all(l);
    return 0;
}

/* Whether the oldest has waited too long for the disk. */
static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct ledger *l = userdata;
    uint64_t now = now_us();
    struct ledger_record *oldest;

    if (list_is_empty(&l->waiting))
        return 0;
    oldest = list_entry(l->waiting.next, struct ledger_record, by_waiting);
    if (now - oldest->since_us >= LIMIT_LEDGER_US) {
        if (!l->said_slow)
            log_line(l->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_LEDGER_UNWRITTEN},
                     "The ledger in %s does not answer; requests no longer wait for it", l->dir);
        l->said_slow = true;
        answer_all(l);
        return 0;
    }
    if (sd_event_source_set_time_relative(s, LIMIT_LEDGER_US - (now - oldest->since_us)) < 0 ||
        sd_event_source_set_enabled(s, SD_EVENT_ONESHOT) < 0)
        answer_all(l);
    return 0;
}

static struct ledger_record *record_new(const struct ledger_entry *entry)
{
    size_t n_model = strlen(entry->model) + 1, n_groups = entry->n_groups * sizeof(gid_t);
    struct ledger_record *r = calloc(1, sizeof(*r) + n_groups + n_model);
    gid_t *groups;
    char *model;

    if (!r)
        return NULL;
    groups = (gid_t *)(void *)(r + 1);
    model = (char *)groups + n_groups;
    if (n_groups > 0)
        memcpy(groups, entry->groups, n_groups);
    memcpy(model, entry->model, n_model);
    r->is_new = true;
    r->entry = *entry;
    r->entry.groups = groups;
    r->entry.model = model;
    list_init(&r->by_waiting);
    return r;
}

/* From the loop, as soon as it has control; or when a disk has had its time. */
static void answer_later(struct ledger *l, bool at_once)
{
    int enabled = SD_EVENT_OFF;

    if (at_once) {
        wake_loop(l);
        return;
    }
    (void)sd_event_source_get_enabled(l->timer, &enabled);
    if (enabled == SD_EVENT_OFF && (sd_event_source_set_time_relative(l->timer, LIMIT_LEDGER_US) < 0 ||
                                    sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT) < 0))
        wake_loop(l);
}

int ledger_record(struct ledger *l, const struct ledger_entry *entry, ledger_recorded_t recorded, void *userdata,
                  struct ledger_record **ret)
{
    struct ledger_record *r = record_new(entry);
    bool at_once, keep;

    if (!r)
        return -ENOMEM;
    r->recorded = recorded;
    r->userdata = userdata;
    r->since_us = now_us();
    if (recorded) {
        list_append(&l->waiting, &r->by_waiting);
        *ret = r;
    }
    pthread_mutex_lock(&l->lock);
    keep = l->has_thread && l->n_unwritten < LIMIT_LEDGER_RECORDS;
    at_once = !keep || l->news.fails || l->said_slow;
    if (keep) {
        queue_append(&l->queue, r);
        l->n_unwritten++;
        pthread_cond_signal(&l->work);
    } else {
        queue_append(&l->done, r);
        l->n_lost += l->has_thread;
    }
    pthread_mutex_unlock(&l->lock);
    answer_later(l, at_once);
    return 0;
}

struct ledger_record *ledger_forget(struct ledger_record *record)
{
    if (!record)
        return NULL;
    list_remove(&record->by_waiting);
    record->recorded = NULL;
    return NULL;
}

void ledger_status(struct ledger *l, struct ledger_status *ret)
{
    const char *reason = NULL;

    *ret = (struct ledger_status){.state = LEDGER_OK, .n_lost = l->n_lost};
    pthread_mutex_lock(&l->lock);
    snprintf(ret->set_aside, sizeof(ret->set_aside), "%s", l->news.set_aside);
    ret->n_unwritten = l->n_unwritten;
    if (!l->has_thread)
        reason = "there is no directory for it (--state)";
    else if (l->news.fails)
        reason = l->news.reason;
    else if (l->said_slow)
        reason = "the disk does not answer";
    else if (l->news.note[0] && l->news.note_day == calendar_day(wall_s()))
        reason = l->news.note;
    else if (l->n_lost > 0)
        reason = "it could not be written for too long, and the usage of some requests was dropped";
    if (reason) {
        snprintf(ret->reason, sizeof(ret->reason), "%s", reason);
        ret->state = l->has_thread ? LEDGER_DEGRADED : LEDGER_OFF;
    }
    pthread_mutex_unlock(&l->lock);
}

/* ---- life ---- */

static int start_thread(struct ledger *l)
{
    struct timespec until;
    sigset_t all, before;
    int r;

    /* Signals are the loop's business. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&l->thread, NULL, run, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    l->has_thread = r == 0;
    if (r != 0)
        return -r;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LIMIT_LEDGER_US / 1000000;
    pthread_mutex_lock(&l->lock);
    while (!l->tried && pthread_cond_timedwait(&l->opened, &l->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&l->lock);
    return 0;
}

static void init_locks(struct ledger *l)
{
    pthread_condattr_t clock;

    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, &clock);
    pthread_cond_init(&l->opened, &clock);
    pthread_condattr_destroy(&clock);
}

int ledger_new(sd_event *event, const struct ledger_options *options, struct ledger **ret)
{
    _cleanup_(ledger_freep) struct ledger *l = calloc(1, sizeof(*l));
    int r;

    if (!l)
        return -ENOMEM;
    l->event_fd = -EBADF;
    l->log = options->log;
    l->loaded = options->loaded;
    l->userdata = options->userdata;
    l->day = calendar_day(wall_s());
    list_init(&l->waiting);
    queue_init(&l->queue);
    queue_init(&l->done);
    init_locks(l);
    l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->event_fd < 0)
        return -errno;
    r = sd_event_add_io(event, &l->source, l->event_fd, EPOLLIN, on_event, l);
    if (r >= 0)
        r = sd_event_add_time_relative(event, &l->timer, CLOCK_MONOTONIC, 0, 0, on_timer, l);
    if (r >= 0)
        r = sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
    if (r < 0)
        return r;
    if (options->dir) {
        l->dir = strdup(options->dir);
        if (!l->dir)
            return -ENOMEM;
        r = start_thread(l);
        if (r < 0)
            return r;
        deliver_loaded(l);
        log_news(l);
    }
    *ret = TAKE_PTR(l);
    return 0;
}

static void free_all(struct queue *q)
{
    struct ledger_record *r;

    while ((r = queue_pop(q)))
        free(r);
}

struct ledger *ledger_free(struct ledger *l)
{
    if (!l)
        return NULL;
    if (l->has_thread) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->work);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    if (l->queue.n > 0)
        log_line(l->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_LEDGER_LOST},
                 "Usage of %zu requests could not be written to the ledger and is lost",
                 l->queue.n);
    free_all(&l->queue);
    free_all(&l->done);
    sd_event_source_disable_unref(l->source);
    sd_event_source_disable_unref(l->timer);
    closep(&l->event_fd);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->opened);
    pthread_mutex_destroy(&l->lock);
    free(l->news.loaded);
    free(l->days);
    free(l->dir);
    free(l);
    return NULL;
}
