/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Those who wait for a model to come or to go: administrators behind Load, Unload and Pin. They are answered
 * from the loop only (model.c's kick), since a callback may start or end anything.
 */
#include <errno.h>
#include <stdlib.h>

#include "daemon/internal.h"

struct model_wait {
    struct list entry;
    struct model *model; /* NULL: the answer is on its way */
    bool for_absence;
    const struct model_wait_callbacks *callbacks;
    void *userdata;
};

static bool wait_is_settled(const struct model_wait *w)
{
    if (w->for_absence)
        return w->model->state == MODEL_ABSENT || w->model->state == MODEL_FAILED;
    return w->model->state == MODEL_READY || w->model->state == MODEL_FAILED;
}

void model_settle_waits(struct model *model)
{
    struct list *at, *after;
    bool again;

    do {
        again = false;
        list_foreach(at, after, &model->waits)
        {
            struct model_wait *w = list_entry(at, struct model_wait, entry);

            if (!wait_is_settled(w))
                continue;
            list_remove(&w->entry);
            if (!w->for_absence && model->state == MODEL_FAILED)
                w->callbacks->failed(w, &model->fault, w->userdata);
            else
                w->callbacks->done(w, model->state, model->bytes_total, w->userdata);
            free(w);
            again = true; /* a callback may have changed the list */
            break;
        }
    } while (again);
}

int model_wait_new(struct model *model, bool for_absence, const struct model_wait_callbacks *callbacks,
                   void *userdata, struct model_wait **ret)
{
    struct model_wait *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    w->model = model;
    w->for_absence = for_absence;
    w->callbacks = callbacks;
    w->userdata = userdata;
    list_init(&w->entry);
    list_append(&model->waits, &w->entry);
    model_kick(model);
    *ret = w;
    return 0;
}

struct model_wait *model_wait_cancel(struct model_wait *w)
{
    if (!w)
        return NULL;
    list_remove(&w->entry);
    free(w);
    return NULL;
}

void model_tell_progress(struct model *model)
{
    struct list *at, *after;

    list_foreach(at, after, &model->waits)
    {
        struct model_wait *w = list_entry(at, struct model_wait, entry);

        if (w->callbacks->progress)
            w->callbacks->progress(w, model->state, model->bytes_done, model->bytes_total, w->userdata);
    }
    requests_tell_waiting(model->manager, model);
}

void model_move_waits(struct model *from, struct model *to)
{
    while (!list_is_empty(&from->waits)) {
        struct model_wait *w = list_entry(from->waits.next, struct model_wait, entry);

        list_remove(&w->entry);
        w->model = to;
        list_append(&to->waits, &w->entry);
    }
}

void model_abandon_waits(struct model *model)
{
    while (!list_is_empty(&model->waits)) {
        struct model_wait *w = list_entry(model->waits.next, struct model_wait, entry);

        list_remove(&w->entry);
        w->model = NULL;
    }
}
