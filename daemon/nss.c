/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The helper thread owns nothing but the question that it answers: it takes an entry from the queue under the lock,
 * asks without it, puts the answer into the entry and writes the eventfd. Entries are made, delivered and freed by the
 * event loop's thread. One entry serves everybody who asks for its uid while it waits, and stays as the cache.
 *
 * Answers are kept for a minute, "nobody has this uid" for five seconds (an account that was just made should work),
 * a failure of the database not at all.
 */
#include "daemon/nss.h"

#include <assert.h>
#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "daemon/subuid.h"

enum {
    ENTRIES_KEPT = 1024, /* answered ones; more are forgotten, oldest first */
    BUFFER_BYTES_MAX = 1024 * 1024,
    GROUPS_MAX = 65536,
};

#define KEEP_FOUND_US  (60 * UINT64_C(1000000))
#define KEEP_NOBODY_US (5 * UINT64_C(1000000))

enum entry_state { ENTRY_WAITING, ENTRY_RUNNING, ENTRY_ANSWERED };

struct entry {
    struct entry *next;
    uid_t uid;
    enum entry_state state; /* under the lock until ANSWERED was seen by the loop */
    int error;
    struct nss_user user;
    uint64_t answered_us; /* 0: not delivered yet */
    struct nss_query *queries;
};

struct nss_query {
    struct nss_query *next;
    struct nss *nss;
    struct entry *entry;
    nss_answer_t answer;
    void *userdata;
};

struct nss {
    sd_event *event;
    sd_event_source *source;
    nss_lookup_t lookup;
    int event_fd;
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool stop;                      /* under the lock */
    struct entry *entries;          /* newest first; the list is changed under the lock */
    const struct entry *delivering; /* must not be forgotten now; the loop's alone */
};

static void user_done(struct nss_user *user)
{
    free(user->name);
    free(user->groups);
    *user = (struct nss_user){0};
}

static int lookup_groups(const char *name, gid_t gid, struct nss_user *ret)
{
    int n_room = 32;

    for (;;) {
        _cleanup_free_ gid_t *groups = malloc((size_t)n_room * sizeof(gid_t));
        int n = n_room;

        if (!groups)
            return -ENOMEM;
        if (getgrouplist(name, gid, groups, &n) >= 0) {
            ret->n_groups = (size_t)n;
            ret->groups = TAKE_PTR(groups);
            return 0;
        }
        if (n_room >= GROUPS_MAX)
            return -ERANGE;
        n_room = n > n_room ? n : 2 * n_room;
    }
}

/* From a name or, without one, a uid. Room for the entry grows as it must. */
static int lookup_passwd(const char *name, uid_t uid, struct passwd *ret, char **ret_buffer)
{
    for (size_t size = 1024; size <= BUFFER_BYTES_MAX; size *= 4) {
        _cleanup_free_ char *buffer = malloc(size);
        struct passwd *found = NULL;
        int r;

        if (!buffer)
            return -ENOMEM;
        r = name ? getpwnam_r(name, ret, buffer, size, &found) : getpwuid_r(uid, ret, buffer, size, &found);
        if (r == ERANGE)
            continue;
        if (!found)
            return r == 0 || r == ENOENT || r == ESRCH ? -ESRCH : -r;
        *ret_buffer = TAKE_PTR(buffer);
        return 0;
    }
    return -ERANGE;
}

static int uid_of_name(const char *name, uid_t *ret, void *userdata)
{
    _cleanup_free_ char *buffer = NULL;
    struct passwd passwd;
    int r = lookup_passwd(name, 0, &passwd, &buffer);

    if (r == 0)
        *ret = passwd.pw_uid;
    return r;
}

/* A range comes before the user database: else who runs a container could be whoever there has the same uid. */
static int lookup_system(uid_t uid, struct nss_user *ret)
{
    _cleanup_free_ char *buffer = NULL;
    struct nss_user user = {.uid = uid};
    struct passwd passwd;
    int r;

    r = subuid_owner(SUBUID_PATH, uid, uid_of_name, NULL, &user.uid);
    if (r < 0)
        return r;
    r = lookup_passwd(NULL, user.uid, &passwd, &buffer);
    if (r < 0)
        return r;
    user.name = strdup(passwd.pw_name);
    if (!user.name)
        return -ENOMEM;
    r = lookup_groups(user.name, passwd.pw_gid, &user);
    if (r < 0) {
        user_done(&user);
        return r;
    }
    *ret = user;
    return 0;
}

/* Oldest first, so that nobody is overtaken for ever. */
static struct entry *next_waiting(struct nss *nss)
{
    struct entry *found = NULL;

    for (struct entry *e = nss->entries; e; e = e->next)
        if (e->state == ENTRY_WAITING)
            found = e;
    return found;
}

static void *run(void *userdata)
{
    struct nss *nss = userdata;

    pthread_mutex_lock(&nss->lock);
    while (!nss->stop) {
        struct entry *e = next_waiting(nss);
        struct nss_user user = {.uid = 0};
        uint64_t one = 1;
        int error;

        if (!e) {
            pthread_cond_wait(&nss->work, &nss->lock);
            continue;
        }
        e->state = ENTRY_RUNNING;
        pthread_mutex_unlock(&nss->lock);
        user.uid = e->uid; /* unless the lookup knows better */
        error = nss->lookup(e->uid, &user);
        pthread_mutex_lock(&nss->lock);
        e->error = error;
        e->user = user;
        e->state = ENTRY_ANSWERED;
        /* Can't fail short of 2^64 - 1 answers that nobody picked up. */
        (void)!write(nss->event_fd, &one, sizeof(one));
    }
    pthread_mutex_unlock(&nss->lock);
    return NULL;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Whether a new question may be answered from @e. */
static bool is_fresh(const struct entry *e, uint64_t now)
{
    if (e->state != ENTRY_ANSWERED || e->answered_us == 0)
        return true; /* the answer is on its way */
    if (e->error == 0)
        return now - e->answered_us < KEEP_FOUND_US;
    return e->error == -ESRCH && now - e->answered_us < KEEP_NOBODY_US;
}

static void entry_free(struct entry *e)
{
    user_done(&e->user);
    while (e->queries) {
        struct nss_query *q = e->queries;

        e->queries = q->next;
        free(q);
    }
    free(e);
}

/* Forget answers that are too old to be used, and the oldest ones beyond what is kept. Under the lock. */
static void forget_old(struct nss *nss, uint64_t now)
{
    struct entry **at = &nss->entries;
    size_t n = 0;

    while (*at) {
        struct entry *e = *at;

        if (e->state == ENTRY_ANSWERED && e->answered_us != 0 && !e->queries && e != nss->delivering &&
            (n >= ENTRIES_KEPT || !is_fresh(e, now))) {
            *at = e->next;
            entry_free(e);
            continue;
        }
        n++;
        at = &e->next;
    }
}

static void deliver(struct entry *e)
{
    /* An answer may cancel other queries or ask new ones, so the list is looked at afresh each time. */
    while (e->queries) {
        struct nss_query *q = e->queries;
        nss_answer_t answer = q->answer;
        void *userdata = q->userdata;

        e->queries = q->next;
        free(q);
        answer(e->error, e->error == 0 ? &e->user : NULL, userdata);
    }
}

static struct entry *next_to_deliver(struct nss *nss)
{
    struct entry *found = NULL;

    pthread_mutex_lock(&nss->lock);
    for (struct entry *e = nss->entries; e && !found; e = e->next)
        if (e->state == ENTRY_ANSWERED && (e->queries || e->answered_us == 0))
            found = e;
    pthread_mutex_unlock(&nss->lock);
    return found;
}

static int on_answers(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct nss *nss = userdata;
    struct entry *e;
    uint64_t count;

    (void)!read(fd, &count, sizeof(count));
    while ((e = next_to_deliver(nss))) {
        if (e->answered_us == 0)
            e->answered_us = now_us();
        nss->delivering = e;
        deliver(e);
        nss->delivering = NULL;
    }
    return 0;
}

static int start_thread(struct nss *nss)
{
    sigset_t all, before;
    int r;

    /* Signals are the loop's business. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&nss->thread, NULL, run, nss);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    nss->has_thread = r == 0;
    return -r;
}

int nss_new(sd_event *event, nss_lookup_t lookup, struct nss **ret)
{
    _cleanup_(nss_freep) struct nss *nss = calloc(1, sizeof(*nss));
    int r;

    if (!nss)
        return -ENOMEM;
    nss->event_fd = -EBADF;
    nss->event = sd_event_ref(event);
    nss->lookup = lookup ? lookup : lookup_system;
    pthread_mutex_init(&nss->lock, NULL);
    pthread_cond_init(&nss->work, NULL);
    nss->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (nss->event_fd < 0)
        return -errno;
    r = sd_event_add_io(event, &nss->source, nss->event_fd, EPOLLIN, on_answers, nss);
    if (r < 0)
        return r;
    (void)sd_event_source_set_description(nss->source, "nss-answers");
    r = start_thread(nss);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(nss);
    return 0;
}

struct nss *nss_free(struct nss *nss)
{
    if (!nss)
        return NULL;
    if (nss->has_thread) {
        pthread_mutex_lock(&nss->lock);
        nss->stop = true;
        pthread_cond_signal(&nss->work);
        pthread_mutex_unlock(&nss->lock);
        pthread_join(nss->thread, NULL);
    }
    while (nss->entries) {
        struct entry *e = nss->entries;

        nss->entries = e->next;
        entry_free(e);
    }
    sd_event_source_disable_unref(nss->source);
    sd_event_unref(nss->event);
    closep(&nss->event_fd);
    pthread_cond_destroy(&nss->work);
    pthread_mutex_destroy(&nss->lock);
    free(nss);
    return NULL;
}

static struct entry *find_fresh(struct nss *nss, uid_t uid)
{
    for (struct entry *e = nss->entries; e; e = e->next)
        if (e->uid == uid)
            return is_fresh(e, now_us()) ? e : NULL;
    return NULL;
}

int nss_ask(struct nss *nss, uid_t uid, nss_answer_t answer, void *userdata, struct nss_query **ret)
{
    _cleanup_free_ struct nss_query *query = calloc(1, sizeof(*query));
    struct entry *e;
    uint64_t one = 1;

    if (!query)
        return -ENOMEM;
    pthread_mutex_lock(&nss->lock);
    forget_old(nss, now_us());
    e = find_fresh(nss, uid);
    if (!e) {
        e = calloc(1, sizeof(*e));
        if (!e) {
            pthread_mutex_unlock(&nss->lock);
            return -ENOMEM;
        }
        e->uid = uid;
        e->next = nss->entries;
        nss->entries = e;
        pthread_cond_signal(&nss->work);
    } else if (e->state == ENTRY_ANSWERED) {
        (void)!write(nss->event_fd, &one, sizeof(one)); /* delivered from the loop, as every answer */
    }
    pthread_mutex_unlock(&nss->lock);
    *query = (struct nss_query){
        .next = e->queries, .nss = nss, .entry = e, .answer = answer, .userdata = userdata};
    e->queries = query;
    *ret = TAKE_PTR(query);
    return 0;
}

struct nss_query *nss_query_cancel(struct nss_query *query)
{
    struct nss_query **at;

    if (!query)
        return NULL;
    for (at = &query->entry->queries; *at && *at != query; at = &(*at)->next)
        ;
    assert(*at);
    *at = query->next;
    free(query);
    return NULL;
}
