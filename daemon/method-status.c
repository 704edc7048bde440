/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Status: the service at a glance. Which models, users and live numbers the caller sees, the manager decides.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"

static json_object *model_to_json(const struct model_status *m)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "name", m->name) || !add_text(o, "state", model_state_to_string(m->state)) ||
        !add_text_if(o, "reason", m->reason) ||
        !add_count_if(o, m->worker_pid > 0, "worker_pid", (uint64_t)m->worker_pid) ||
        !add_count(o, "ram_locked_bytes", m->ram_locked_bytes) ||
        !add_count(o, "ram_mapped_bytes", m->ram_mapped_bytes) ||
        !add_count(o, "ram_huge_bytes", m->ram_huge_bytes) || !add_text_if(o, "ram_pages", m->ram_pages) ||
        !add_count_if(o, m->ram_lost_bytes > 0, "ram_lost_bytes", m->ram_lost_bytes) ||
        !add_count(o, "vram_bytes", m->vram_bytes) ||
        !add_count_if(o, m->kv_bytes >= 0, "kv_bytes", (uint64_t)m->kv_bytes) ||
        !add_count(o, "gpu_layers", m->gpu_layers) || !add_text_if(o, "gpu_reason", m->gpu_reason) ||
        !add_count_if(o, m->sequences_active >= 0, "sequences_active", (uint64_t)m->sequences_active) ||
        !add_count_if(o, m->tokens_drafted >= 0, "tokens_drafted", (uint64_t)m->tokens_drafted) ||
        !add_count_if(o, m->tokens_accepted >= 0, "tokens_accepted", (uint64_t)m->tokens_accepted))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *ram_to_json(const struct manager_status *s)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_count(o, "budget_bytes", s->ram_budget_bytes) ||
        !add_count(o, "locked_bytes", s->ram_locked_bytes) || !add_count(o, "kv_bytes", s->ram_kv_bytes) ||
        !add_count(o, "used_bytes", s->ram_used_bytes))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *vram_to_json(const struct manager_status *s)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < s->n_vram; i++) {
        const struct vram_status *v = &s->vram[i];
        json_object *o = json_object_new_object();

        if (!append_take(array, o) || !add_count(o, "device", v->number) || !add_text(o, "name", v->name) ||
            !add_count(o, "budget_bytes", v->budget_bytes) || !add_count(o, "used_bytes", v->used_bytes) ||
            !add_count(o, "total_bytes", v->total_bytes) ||
            !add_count_if(o, v->others_bytes >= 0, "others_bytes", (uint64_t)v->others_bytes) ||
            !add_count_if(o, v->temperature_celsius >= 0, "temperature_celsius", (uint64_t)v->temperature_celsius) ||
            !add_text_if(o, "throttled", v->throttled))
            return NULL;
    }
    return TAKE_PTR(array);
}

static json_object *user_to_json(const struct call *call, const struct account_status *u, uint64_t kv_bytes)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_count(o, "uid", u->uid) || !add_text_if(o, "name", call_user_name(call, u->uid)) ||
        !add_count(o, "connections", u->used[ACCOUNT_CONNECTIONS]) ||
        !add_count(o, "requests", u->used[ACCOUNT_REQUESTS] + u->used[ACCOUNT_QUEUED]) ||
        !add_count(o, "kv_bytes", kv_bytes))
        return NULL;
    return TAKE_PTR(o);
}

json_object *status_models_to_json(const struct manager_status *s)
{
    _cleanup_json_ json_object *models = json_object_new_array();

    if (!models)
        return NULL;
    for (size_t i = 0; i < s->n_models; i++)
        if (!append_take(models, model_to_json(&s->models[i])))
            return NULL;
    return TAKE_PTR(models);
}

static json_object *ledger_to_json(const struct manager_status *s)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "state", ledger_state_to_string(s->ledger.state)) ||
        !add_text_if(o, "reason", s->ledger.reason[0] ? s->ledger.reason : NULL) ||
        !add_text_if(o, "set_aside", s->has_users && s->ledger.set_aside[0] ? s->ledger.set_aside : NULL) ||
        !add_count_if(o, s->has_users, "unwritten", s->ledger.n_unwritten) ||
        !add_count_if(o, s->has_users, "lost", s->ledger.n_lost))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *status_to_json(const struct call *call, const struct manager_status *s)
{
    _cleanup_json_ json_object *o = json_object_new_object(), *users = NULL;

    if (!o)
        return NULL;
    if (!add_text(o, "version", RESIDENTD_VERSION) || !add_take(o, "ram", ram_to_json(s)) ||
        !add_take(o, "vram", vram_to_json(s)) || !add_text_if(o, "gpu_reason", s->gpu_reason) ||
        !add_take(o, "models", status_models_to_json(s)) ||
        !add_take(o, "ledger", ledger_to_json(s)))
        return NULL;
    if (!s->has_users)
        return TAKE_PTR(o);
    users = json_object_new_array();
    if (!users)
        return NULL;
    for (size_t i = 0; i < s->n_users; i++)
        if (!append_take(users, user_to_json(call, &s->users[i], s->user_kv_bytes[i])))
            return NULL;
    return add_take(o, "users", TAKE_PTR(users)) ? TAKE_PTR(o) : NULL;
}

int method_status(struct call *call, struct fault *reterr_fault)
{
    struct manager_status status;
    json_object *reply;
    int r;

    r = manager_status(call_manager(call), call_subject(call), &status);
    if (r < 0)
        return r;
    reply = status_to_json(call, &status);
    manager_status_done(&status);
    if (!reply)
        return -ENOMEM;
    call_reply_take(call, reply);
    return 0;
}
