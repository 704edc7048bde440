/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names in the store: residentd-link-N, residentd-copy-N-I (file I of a model), residentd-shared-N (a copy that only
 * other programs have), residentd-state-N. Each N is used once, and what names something is written after it: a
 * snapshot never speaks of what is not there, unless that has died. It does not speak of shared copies: they say all
 * of themselves.
 * A new snapshot is put before the one before it is removed, and the highest N is the one that counts.
 */
#include "daemon/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/fdstore.h"
#include "daemon/internal.h"
#include "daemon/limits.h"
#include "daemon/messages.h"
#include "daemon/shared.h"
#include "daemon/worker-start.h"

#define STATE_PREFIX "residentd-state-"
#define SHARED_PREFIX "residentd-shared-"
#define COPY_PREFIX "residentd-copy-"
#define NAME_BYTES 64

struct handover {
    struct manager *manager;
    struct fdstore *store;
    struct snapshot *before; /* until it was taken back; NULL: nothing was left that is of use */
    uint64_t epoch_before;
    struct mark_key mark_key;
    uint64_t next_id;
    uint64_t state_id; /* of the snapshot in the store, 0: none */
    uint64_t starts_us[SNAPSHOT_STARTS_MAX]; /* [n_starts] this one's included */
    size_t n_starts;
    sd_event_source *defer;
};

static uint64_t boottime_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void name_link(uint64_t id, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "residentd-link-%" PRIu64, id);
}

static void name_copy(uint64_t id, size_t i, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, COPY_PREFIX "%" PRIu64 "-%zu", id, i);
}

static void name_state(uint64_t id, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, STATE_PREFIX "%" PRIu64, id);
}

static void name_shared(uint64_t id, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, SHARED_PREFIX "%" PRIu64, id);
}

/* ---- at start ---- */

/* The snapshot with the highest number, if it is one. */
static void read_state(struct handover *h)
{
    _cleanup_close_ int newest = -EBADF;
    const char *name, *why = "";
    uint64_t highest = 0;
    int r;

    while ((name = fdstore_next(h->store, STATE_PREFIX))) {
        uint64_t id = strtoull(name + strlen(STATE_PREFIX), NULL, 10);
        char copy[NAME_BYTES];
        int fd;

        snprintf(copy, sizeof(copy), "%s", name);
        fd = fdstore_take(h->store, name);
        fdstore_remove(h->store, copy);
        if (id >= highest) {
            closep(&newest);
            newest = fd;
            highest = id;
        } else {
            close(fd);
        }
    }
    h->next_id = highest + 1;
    if (newest < 0)
        return;
    r = snapshot_read(newest, &h->before, &why);
    if (r < 0) {
        log_line(h->manager->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_KEPT_DROPPED},
                 "what the daemon before left is of no use: %s",
                 r == -EBADMSG ? why : strerror(-r));
        return;
    }
    h->epoch_before = h->before->epoch;
    if (h->before->next_id > h->next_id)
        h->next_id = h->before->next_id;
}

/* Adds this start to those before it in the last minute. */
static void count_starts(struct handover *h)
{
    uint64_t now_us = boottime_us();

    for (size_t i = 0; h->before && i < h->before->n_starts; i++) {
        uint64_t at_us = h->before->starts_us[i];

        if (at_us <= now_us && now_us - at_us < LIMIT_STARTS_US && h->n_starts < SNAPSHOT_STARTS_MAX - 1)
            h->starts_us[h->n_starts++] = at_us;
    }
    h->starts_us[h->n_starts++] = now_us;
    if (!h->before || h->n_starts < LIMIT_STARTS)
        return;
    log_line(h->manager->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_STARTS_TOO_MANY},
             "the daemon ended without being told to %zu times in a minute: what it left is thrown away, models are "
             "loaded anew",
             h->n_starts - 1);
    h->before = snapshot_free(h->before);
}

static int on_defer(sd_event_source *s, void *userdata);

int handover_new(struct manager *m, struct handover **ret)
{
    struct handover *h = calloc(1, sizeof(*h));
    int r;

    if (!h)
        return -ENOMEM;
    h->manager = m;
    r = fdstore_open(worker_start_is_unit(m->worker_path), &h->store);
    if (r >= 0)
        r = sd_event_add_defer(m->event, &h->defer, on_defer, h);
    if (r >= 0)
        r = sd_event_source_set_enabled(h->defer, SD_EVENT_OFF);
    if (r >= 0)
        r = mark_key_new(&h->mark_key);
    if (r < 0) {
        handover_free(h);
        return r;
    }
    read_state(h);
    count_starts(h);
    if (h->before)
        h->mark_key = h->before->mark_key;
    *ret = h;
    return 0;
}

struct handover *handover_free(struct handover *h)
{
    if (!h)
        return NULL;
    sd_event_source_disable_unref(h->defer);
    snapshot_free(h->before);
    fdstore_close(h->store);
    free(h);
    return NULL;
}

const struct mark_key *handover_mark_key(const struct handover *h)
{
    return &h->mark_key;
}

uint64_t handover_epoch(const struct handover *h, uint64_t now_us)
{
    return now_us > h->epoch_before ? now_us : h->epoch_before + 1;
}

/* The descriptors of one model; the link may be gone, with its worker. False: a copy is missing; what there is stays
 * with what is dropped. */
static bool take_fds(struct handover *h, const struct snapshot_model *kept, int *ret_link, int **ret_copies)
{
    size_t n_copies = kept->copies_id > 0 ? kept->n_files : 0;
    _cleanup_free_ int *copies = NULL;
    char name[NAME_BYTES];

    for (size_t i = 0; i < n_copies; i++) {
        name_copy(kept->copies_id, i, name);
        if (!fdstore_has(h->store, name))
            return false;
    }
    if (n_copies > 0) {
        copies = calloc(n_copies, sizeof(*copies));
        if (!copies)
            return false;
    }
    for (size_t i = 0; i < n_copies; i++) {
        name_copy(kept->copies_id, i, name);
        copies[i] = fdstore_take(h->store, name);
    }
    name_link(kept->link_id, name);
    *ret_link = fdstore_take(h->store, name);
    *ret_copies = TAKE_PTR(copies);
    return true;
}

/* Whether the policy, as it is now, would load it as it was. */
static bool is_wanted_alike(const struct model *model, const struct snapshot_model *kept)
{
    _cleanup_free_ char *loading = NULL;

    if (model->state != MODEL_ABSENT || model->worker)
        return false;
    if ((kept->copies_id > 0) != (model->rules->residency.ram == POLICY_RAM_COPY))
        return false;
    return model_loading_text(model->rules_of, model->rules, &loading) == 0 && strcmp(loading, kept->loading) == 0;
}

/* Files that are in place and held whole may be others' as well; @ret: [RESIDENCY_FILES_MAX]. */
static size_t granted_files(const struct policy_model *rules, const struct snapshot_model *kept,
                            struct budget_file *ret, uint64_t *ret_own_bytes)
{
    uint64_t beside = kept->kv_bytes + kept->scratch_bytes, left = kept->granted_bytes;

    *ret_own_bytes = kept->granted_bytes;
    if (rules->residency.ram != POLICY_RAM_LOCK || model_has_limit(rules) || kept->n_files > RESIDENCY_FILES_MAX)
        return 0;
    for (size_t i = 0; i < kept->n_files; i++) {
        const struct residency_identity *f = &kept->files[i];

        if (left < beside || f->n_bytes > left - beside)
            return 0;
        ret[i] = (struct budget_file){f->device, f->inode, f->n_bytes, f->n_bytes};
        left -= f->n_bytes;
    }
    *ret_own_bytes = left;
    return kept->n_files;
}

/* The budget may have less for it than before. */
static bool gets_room(struct model *model, const struct snapshot_model *kept)
{
    struct budget_file files[RESIDENCY_FILES_MAX];
    struct fault fault;
    uint64_t own;
    size_t n = granted_files(model->rules, kept, files, &own);

    if (grant_new(&model->manager->grants, &model->grant) < 0)
        return false;
    if (grant_set(model->grant, own, files, n) == 0 &&
        manager_make_room(model->manager, model, &model->grant->memory, &fault) == 0) {
        model->grant->is_given = true;
        return true;
    }
    model->grant = grant_leave(model->grant);
    return false;
}

static void take_back_pin(struct model *model, const struct snapshot_model *kept)
{
    if (kept->pin == PIN_BY_POLICY)
        return;
    model_pin(model, (enum model_pin)kept->pin);
    model->wanted = kept->pin == PIN_ON;
}

/* They count before models do, whatever the snapshot is worth: the memory is taken. */
static void take_back_shared(struct handover *h)
{
    const char *name;

    while ((name = fdstore_next(h->store, SHARED_PREFIX))) {
        uint64_t id = strtoull(name + strlen(SHARED_PREFIX), NULL, 10);
        char copy[NAME_BYTES];

        snprintf(copy, sizeof(copy), "%s", name);
        if (h->next_id <= id)
            h->next_id = id + 1;
        if (shared_take(&h->manager->shared, fdstore_take(h->store, copy), id) == 0)
            fdstore_remove(h->store, copy);
    }
}

/* Of models that do not go on: as long as somebody has them (for a moment that may be the worker that ends). */
static void take_dropped_copies(struct handover *h)
{
    const char *name;

    while ((name = fdstore_next(h->store, COPY_PREFIX))) {
        char copy[NAME_BYTES];

        snprintf(copy, sizeof(copy), "%s", name);
        shared_take(&h->manager->shared, fdstore_take(h->store, copy), /* id= */ 0);
        fdstore_remove(h->store, copy);
    }
    handover_keep_shared(h);
}

void handover_take_back(struct handover *h)
{
    unsigned n_models = 0, n_dropped;

    take_back_shared(h);
    for (uint32_t i = 0; h->before && i < GPUS_MAX; i++)
        if (h->before->gpus[i][0])
            gpus_remember(&h->manager->gpus, i, h->before->gpus[i]);
    for (size_t i = 0; h->before && i < h->before->n_models; i++) {
        const struct snapshot_model *kept = &h->before->models[i];
        struct model *model = model_find(h->manager, kept->name);
        _cleanup_free_ int *copies = NULL;
        int link_fd;

        if (!model)
            continue;
        take_back_pin(model, kept);
        if (!kept->loading || !is_wanted_alike(model, kept) || !gets_room(model, kept))
            continue;
        if (!take_fds(h, kept, &link_fd, &copies)) {
            model->grant = grant_leave(model->grant);
            continue;
        }
        model_take_back(model, kept, link_fd, copies);
        n_models++;
    }
    h->before = snapshot_free(h->before);
    take_dropped_copies(h);
    n_dropped = fdstore_drop_rest(h->store);
    if (n_models > 0 || n_dropped > 0)
        log_line(h->manager->log, LOG_NOTICE, NULL, "models that go on as the daemon before left them: %u; descriptors "
                 "that are of no use and dropped: %u", n_models, n_dropped);
    handover_changed(h->manager);
}

/* ---- while it runs ---- */

static int put_link(struct handover *h, struct model *model)
{
    char name[NAME_BYTES];

    if (model->link_id > 0)
        return 0;
    name_link(h->next_id, name);
    model->link_id = h->next_id++;
    return fdstore_put(h->store, name, worker_link_fd(model->worker));
}

static int put_copies(struct handover *h, struct model *model)
{
    char name[NAME_BYTES];
    int r = 0;

    if (model->copies_id > 0 || residency_copy_fd(model->residency, 0) < 0)
        return 0;
    model->copies_id = h->next_id++;
    model->n_copies = residency_n_parts(model->residency);
    for (size_t i = 0; r == 0 && i < model->n_copies; i++) {
        name_copy(model->copies_id, i, name);
        r = fdstore_put(h->store, name, residency_copy_fd(model->residency, i));
    }
    return r;
}

/* Ready, and no version of a model that another one is about to follow. */
static bool can_be_left(const struct model *model)
{
    return model->state == MODEL_READY && !model->removed && !model->predecessor && model->worker &&
           worker_link_fd(model->worker) >= 0 && worker_uid(model->worker) != (uid_t)-1;
}

static int describe_loaded(struct model *model, struct snapshot_model *ret)
{
    ret->link_id = model->link_id;
    ret->copies_id = model->copies_id;
    ret->pid = worker_pid(model->worker);
    ret->uid = worker_uid(model->worker);
    ret->granted_bytes = grant_bytes(model->grant);
    ret->kv_bytes = model->kv_bytes;
    ret->scratch_bytes = model->scratch_bytes;
    ret->files = calloc(residency_n_parts(model->residency), sizeof(*ret->files));
    if (!ret->files)
        return -ENOMEM;
    ret->n_files = residency_n_parts(model->residency);
    for (size_t i = 0; i < ret->n_files; i++)
        residency_identity(model->residency, i, &ret->files[i]);
    return model_loading_text(model->loaded_of, model->loaded, &ret->loading);
}

static int describe(struct handover *h, struct model *model, struct snapshot_model *ret)
{
    int r;

    ret->name = strdup(model->rules->name);
    if (!ret->name)
        return -ENOMEM;
    ret->pin = model->pin;
    if (!can_be_left(model))
        return 0;
    r = put_link(h, model);
    if (r >= 0)
        r = put_copies(h, model);
    return r < 0 ? r : describe_loaded(model, ret);
}

static int make_snapshot(struct handover *h, struct snapshot **ret)
{
    _cleanup_(snapshot_freep) struct snapshot *s = calloc(1, sizeof(*s));
    struct list *at, *after;
    size_t n = 0;

    if (!s)
        return -ENOMEM;
    list_foreach (at, after, &h->manager->models)
        n++;
    s->models = calloc(n + 1, sizeof(*s->models));
    if (!s->models)
        return -ENOMEM;
    s->epoch = h->manager->epoch;
    s->mark_key = h->mark_key;
    memcpy(s->gpus, h->manager->gpus.bus_ids, sizeof(s->gpus));
    memcpy(s->starts_us, h->starts_us, sizeof(s->starts_us));
    s->n_starts = h->n_starts;
    list_foreach (at, after, &h->manager->models) {
        struct model *model = list_entry(at, struct model, entry);
        int r;

        if (model->removed || model->predecessor)
            continue;
        r = describe(h, model, &s->models[s->n_models++]);
        if (r < 0)
            return r;
    }
    s->next_id = h->next_id + 1;
    *ret = TAKE_PTR(s);
    return 0;
}

static int put_state(struct handover *h)
{
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    _cleanup_close_ int fd = -EBADF;
    uint64_t before = h->state_id;
    char name[NAME_BYTES];
    int r;

    r = make_snapshot(h, &s);
    if (r >= 0)
        r = snapshot_write(s, &fd);
    if (r < 0)
        return r;
    h->state_id = h->next_id++;
    name_state(h->state_id, name);
    r = fdstore_put(h->store, name, fd);
    if (before > 0) {
        name_state(before, name);
        fdstore_remove(h->store, name);
    }
    return r;
}

static void update(struct handover *h)
{
    int r;

    if (!fdstore_is_there(h->store))
        return;
    r = put_state(h);
    if (r < 0)
        log_line(h->manager->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_STORE_FAILED},
                 "can't have systemd keep what a restart needs, models would be loaded anew: %s", strerror(-r));
}

static int on_defer(sd_event_source *s, void *userdata)
{
    update(userdata);
    return 0;
}

void handover_changed(struct manager *m)
{
    sd_event_source_set_enabled(m->handover->defer, SD_EVENT_ONESHOT);
}

void handover_forget_link(struct model *model)
{
    struct handover *h = model->manager->handover;
    char name[NAME_BYTES];

    if (model->link_id == 0)
        return;
    name_link(model->link_id, name);
    fdstore_remove(h->store, name);
    model->link_id = 0;
    handover_changed(model->manager);
}

void handover_forget_copies(struct model *model)
{
    struct handover *h = model->manager->handover;
    char name[NAME_BYTES];

    if (model->copies_id == 0)
        return;
    for (size_t i = 0; i < model->n_copies; i++) {
        name_copy(model->copies_id, i, name);
        fdstore_remove(h->store, name);
    }
    model->copies_id = 0;
    handover_changed(model->manager);
}

void handover_keep_shared(struct handover *h)
{
    struct list *at, *after;
    char name[NAME_BYTES];

    if (!fdstore_is_there(h->store))
        return;
    list_foreach (at, after, &h->manager->shared) {
        struct shared *s = list_entry(at, struct shared, entry);

        if (s->id > 0)
            continue;
        name_shared(h->next_id, name);
        if (fdstore_put(h->store, name, s->fd) < 0)
            continue;
        s->id = h->next_id++;
        handover_changed(h->manager);
    }
}

void handover_forget_shared(struct handover *h, uint64_t id)
{
    char name[NAME_BYTES];

    name_shared(id, name);
    fdstore_remove(h->store, name);
}

/* ---- at the end ---- */

void handover_stopping(struct handover *h)
{
    h->n_starts = 0;
    update(h);
}

void handover_leave(struct handover *h)
{
    struct list *at, *after;

    if (!fdstore_is_there(h->store))
        return;
    list_foreach (at, after, &h->manager->models) {
        struct model *model = list_entry(at, struct model, entry);

        if (model->link_id > 0)
            model->worker = worker_leave(model->worker);
    }
}
