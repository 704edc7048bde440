/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One lock, held for pointer work only. Invariant: a job is in @jobs from intake_submit() until it is dropped
 * or the helper hands it back; the one that the helper works on is in @jobs, too, but not waiting in @fair.
 */
#include "engine/worker/intake.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/worker/clock.h"
#include "engine/worker/work.h"

struct intake {
    pthread_mutex_t lock;
    pthread_cond_t for_compute, for_helper;
    struct command *first, **end;
    bool woken, parked;
    struct fair *fair; /* jobs */
    struct job *jobs;
};

int intake_new(struct intake **ret)
{
    struct intake *in = calloc(1, sizeof(*in));
    pthread_condattr_t attr;
    int r;

    if (!in)
        return -ENOMEM;
    r = fair_new(&in->fair);
    if (r < 0) {
        free(in);
        return r;
    }
    in->end = &in->first;
    pthread_mutex_init(&in->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&in->for_compute, &attr);
    pthread_cond_init(&in->for_helper, &attr);
    pthread_condattr_destroy(&attr);
    *ret = in;
    return 0;
}

void command_free(struct command *c)
{
    if (c->kind == COMMAND_WORK)
        work_free(c->work);
    if (c->kind == COMMAND_MODEL) {
        for (size_t i = 0; i < c->model.n_fds; i++)
            close(c->model.fds[i]);
        free(c->model.fds);
        free(c->model.json);
    }
    free(c);
}

/* With the lock held. */
static void append(struct intake *in, struct command *c)
{
    *in->end = c;
    in->end = &c->next;
    pthread_cond_signal(&in->for_compute);
}

static struct command *command_dup(const struct command *from)
{
    struct command *c = malloc(sizeof(*c));

    if (c) {
        *c = *from;
        c->next = NULL;
    }
    return c;
}

int intake_post(struct intake *in, const struct command *command)
{
    struct command *c = command_dup(command);

    if (!c)
        return -ENOMEM;
    pthread_mutex_lock(&in->lock);
    append(in, c);
    pthread_mutex_unlock(&in->lock);
    return 0;
}

static void job_free(struct job *j)
{
    explicit_bzero(j->json, j->n_json);
    free(j->json);
    free(j);
}

/* With the lock held. */
static void job_unlink(struct intake *in, struct job *j)
{
    fair_leave(in->fair, &j->item);
    if (j->prev)
        j->prev->next = j->next;
    else
        in->jobs = j->next;
    if (j->next)
        j->next->prev = j->prev;
}

int intake_submit(struct intake *in, const struct packet_submit *submit, uint64_t epoch, const char *json,
                  size_t n_json)
{
    struct job *j = malloc(sizeof(*j));
    int r;

    if (!j)
        return -ENOMEM;
    *j = (struct job){.submit = *submit, .epoch = epoch, .received_ns = clock_now_ns(), .n_json = n_json};
    j->json = malloc(n_json + 1);
    if (!j->json) {
        free(j);
        return -ENOMEM;
    }
    memcpy(j->json, json, n_json);
    pthread_mutex_lock(&in->lock);
    r = fair_join(in->fair, &j->item, submit->tenant, submit->priority);
    if (r == 0) {
        j->next = in->jobs;
        if (j->next)
            j->next->prev = j;
        in->jobs = j;
        fair_wait(in->fair, &j->item);
        pthread_cond_signal(&in->for_helper);
    }
    pthread_mutex_unlock(&in->lock);
    if (r < 0)
        job_free(j);
    return r;
}

int intake_cancel(struct intake *in, uint64_t request, uint64_t epoch)
{
    struct job *j;
    int r = 0;

    pthread_mutex_lock(&in->lock);
    for (j = in->jobs; j && (j->submit.request != request || j->dropped); j = j->next)
        ;
    if (j) {
        r = 1;
        if (j->item.active) {
            j->dropped = true;
        } else {
            job_unlink(in, j);
            job_free(j);
        }
    }
    pthread_mutex_unlock(&in->lock);
    /* Whatever the helper has handed over is before this in the queue. */
    return r == 1 ? 1
                  : intake_post(
                        in, &(struct command){.kind = COMMAND_CANCEL, .epoch = epoch, .request = request});
}

int intake_reset(struct intake *in, uint64_t epoch)
{
    struct command *c = command_dup(&(struct command){.kind = COMMAND_RESET, .epoch = epoch});

    if (!c)
        return -ENOMEM;
    pthread_mutex_lock(&in->lock);
    for (struct job *j = in->jobs, *next; j; j = next) {
        next = j->next;
        if (j->item.active) {
            j->dropped = true;
        } else {
            job_unlink(in, j);
            job_free(j);
        }
    }
    fair_forget_all(in->fair);
    append(in, c);
    pthread_mutex_unlock(&in->lock);
    return 0;
}

int intake_tenant(struct intake *in, const struct packet_tenant *tenant, uint64_t epoch)
{
    int r;

    pthread_mutex_lock(&in->lock);
    if (tenant->weight == 0) {
        fair_forget(in->fair, tenant->tenant);
        r = 0;
    } else {
        r = fair_tenant_set(in->fair, tenant->tenant, tenant->weight, tenant->tenant_class, tenant->class_weight,
                            NULL);
    }
    pthread_mutex_unlock(&in->lock);
    if (r < 0)
        return r;
    return intake_post(in, &(struct command){.kind = COMMAND_TENANT, .epoch = epoch, .tenant = *tenant});
}

void intake_park(struct intake *in, bool parked)
{
    pthread_mutex_lock(&in->lock);
    if (in->parked != parked) {
        in->parked = parked;
        in->woken = true;
        pthread_cond_signal(&in->for_compute);
    }
    pthread_mutex_unlock(&in->lock);
}

void intake_wake(struct intake *in)
{
    pthread_mutex_lock(&in->lock);
    in->woken = true;
    pthread_cond_signal(&in->for_compute);
    pthread_mutex_unlock(&in->lock);
}

struct job *intake_next_job(struct intake *in)
{
    struct fair_item *item;

    pthread_mutex_lock(&in->lock);
    while (!(item = fair_next(in->fair)))
        pthread_cond_wait(&in->for_helper, &in->lock);
    fair_activate(in->fair, item);
    pthread_mutex_unlock(&in->lock);
    return (struct job *)(void *)((char *)item - offsetof(struct job, item));
}

int intake_job_done(struct intake *in, struct job *j, uint64_t cost_ns, struct work *work)
{
    struct command *c = NULL;
    bool dropped;

    if (work) {
        c = command_dup(
            &(struct command){.kind = COMMAND_WORK, .epoch = j->epoch, .work = work, .cost_ns = cost_ns});
        if (!c) {
            work_free(work);
            return -ENOMEM;
        }
    }
    pthread_mutex_lock(&in->lock);
    fair_charge(in->fair, j->item.tenant, cost_ns);
    job_unlink(in, j);
    dropped = j->dropped;
    if (c && !dropped)
        append(in, TAKE_PTR(c));
    /* A drain may wait for just this. */
    in->woken = true;
    pthread_cond_signal(&in->for_compute);
    pthread_mutex_unlock(&in->lock);
    if (c)
        command_free(c);
    job_free(j);
    return dropped;
}

bool intake_is_empty(struct intake *in)
{
    bool r;

    pthread_mutex_lock(&in->lock);
    r = !in->jobs && !in->first;
    pthread_mutex_unlock(&in->lock);
    return r;
}

struct command *intake_take(struct intake *in, uint64_t until_ns, bool *ret_parked)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};
    struct command *list;

    pthread_mutex_lock(&in->lock);
    while (until_ns > 0 && !in->first && !in->woken)
        if (pthread_cond_timedwait(&in->for_compute, &in->lock, &until) == ETIMEDOUT)
            break;
    list = in->first;
    in->first = NULL;
    in->end = &in->first;
    in->woken = false;
    if (ret_parked)
        *ret_parked = in->parked;
    pthread_mutex_unlock(&in->lock);
    return list;
}
