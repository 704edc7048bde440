/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake-back.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

sd_event *manager_event(struct manager *m)
{
    return m->event;
}

const struct log *manager_log(const struct manager *m)
{
    return &m->log;
}

const struct policy *manager_policy(const struct manager *m)
{
    return &m->policy;
}

struct accounts *manager_accounts(struct manager *m)
{
    return m->accounts;
}

/* No group has a total here. */
struct accounts *manager_group_accounts(struct manager *m)
{
    return m->accounts;
}

bool manager_is_stopping(const struct manager *m)
{
    return m->stopping;
}

static const char *const aliases[] = {"chat"};
static const char *const capabilities[] = {"complete", "chat"};

int manager_list_models(struct manager *m, const struct policy_subject *s, struct model_info **ret,
                        size_t *ret_n)
{
    struct model_info *list = calloc(2, sizeof(*list));

    if (!list)
        return -ENOMEM;
    list[0] = (struct model_info){.name = "tiny",
                                  .aliases = aliases,
                                  .n_aliases = 1,
                                  .architecture = "llama",
                                  .n_parameters = 260000,
                                  .quantization = "q8_0",
                                  .size_bytes = 300000,
                                  .context_tokens = 512,
                                  .state = MODEL_READY,
                                  .capabilities = capabilities,
                                  .n_capabilities = 2};
    list[1] = (struct model_info){.name = "unread", .size_bytes = 1, .state = MODEL_MAPPING};
    *ret = list;
    *ret_n = 2;
    return 0;
}

int manager_status(struct manager *m, const struct policy_subject *s, struct manager_status *ret)
{
    *ret = (struct manager_status){.ram_budget_bytes = 1000, .ram_locked_bytes = 500, .n_models = 1};
    ret->models = calloc(1, sizeof(*ret->models));
    if (!ret->models)
        return -ENOMEM;
    ret->models[0] = (struct model_status){.name = "tiny",
                                           .state = MODEL_READY,
                                           .worker_pid = 42,
                                           .ram_locked_bytes = 500,
                                           .ram_mapped_bytes = 500,
                                           .kv_bytes = policy_is_admin(&m->policy, s) ? 7 : -1,
                                           .sequences_active = -1};
    ret->has_users = policy_is_admin(&m->policy, s);
    ret->user_kv_bytes = calloc(64, sizeof(*ret->user_kv_bytes));
    return ret->has_users ? accounts_list(m->accounts, &ret->users, &ret->n_users) : 0;
}

void manager_status_done(struct manager_status *status)
{
    free(status->models);
    free(status->users);
    free(status->user_kv_bytes);
}

int manager_requests(struct manager *m, bool all, uid_t uid, struct request_status **ret, size_t *ret_n)
{
    struct request_status *list = calloc(FAKE_REQUESTS_MAX, sizeof(*list));
    size_t n = 0;

    if (!list)
        return -ENOMEM;
    for (unsigned i = 0; i < FAKE_REQUESTS_MAX; i++)
        if (m->requests[i].manager && (all || m->requests[i].uid == uid))
            list[n++] = (struct request_status){.request = m->requests[i].id,
                                                .uid = m->requests[i].uid,
                                                .model = m->requests[i].model,
                                                .state = REQUEST_QUEUED,
                                                .queue_position = 1,
                                                .eta_ms = -1};
    *ret = list;
    *ret_n = n;
    return 0;
}

int manager_cancel(struct manager *m, const struct policy_subject *s, uint64_t id, struct fault *reterr_fault)
{
    for (unsigned i = 0; i < FAKE_REQUESTS_MAX; i++)
        if (m->requests[i].manager && m->requests[i].id == id) {
            struct fault fault;

            fault_set(&fault, FAULT_CANCELLED, NULL, "client");
            fake_failed(&m->requests[i], &fault);
            return 0;
        }
    fault_init(reterr_fault, FAULT_NO_SUCH_REQUEST, NULL);
    reterr_fault->request = id;
    return REQUEST_REFUSED;
}

int manager_load(struct manager *m, const struct policy_subject *s, const char *model,
                 const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                 struct fault *reterr_fault)
{
    if (strcmp(model, "tiny") != 0) {
        fault_init(reterr_fault, FAULT_NO_SUCH_MODEL, model);
        return REQUEST_REFUSED;
    }
    m->wait = (struct model_wait){.manager = m, .callbacks = callbacks, .userdata = userdata};
    *ret = &m->wait;
    return 0;
}

int manager_share(struct manager *m, const struct policy_subject *s, const char *model,
                  const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                  struct fault *reterr_fault)
{
    return manager_load(m, s, model, callbacks, userdata, ret, reterr_fault);
}

int manager_shared_files(struct manager *m, const struct policy_subject *s, const char *model,
                         struct manager_share *ret, struct fault *reterr_fault)
{
    fault_set(reterr_fault, FAULT_NOT_ALLOWED, model, "share");
    return REQUEST_REFUSED;
}

int manager_unload(struct manager *m, const struct policy_subject *s, const char *model,
                   const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                   struct fault *reterr_fault)
{
    return manager_load(m, s, model, callbacks, userdata, ret, reterr_fault);
}

int manager_pin(struct manager *m, const struct policy_subject *s, const char *model,
                const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                struct fault *reterr_fault)
{
    return manager_load(m, s, model, callbacks, userdata, ret, reterr_fault);
}

int manager_unpin(struct manager *m, const struct policy_subject *s, const char *model, struct fault *reterr_fault)
{
    if (strcmp(model, "tiny") == 0)
        return 0;
    fault_init(reterr_fault, FAULT_NO_SUCH_MODEL, model);
    return REQUEST_REFUSED;
}

int manager_reload(struct manager *m, manager_reloaded_t done, void *userdata, struct reload_wait **ret)
{
    m->reload_done = done;
    m->reload_userdata = userdata;
    *ret = (struct reload_wait *)m;
    return 0;
}

void fake_reloaded(struct manager *m)
{
    _cleanup_json_ json_object *changed = json_object_new_array();

    assert(changed);
    if (json_object_array_add(changed, json_object_new_string("quotas.default.connections")) < 0)
        abort();
    m->reloaded(m->reloaded_userdata);
    m->reload_done(0, changed, NULL, m->reload_userdata);
}

struct reload_wait *reload_wait_cancel(struct reload_wait *wait)
{
    return NULL;
}

int manager_plan(struct manager *m, const struct policy_subject *s, const struct plan_job_wish *wish,
                 const struct plan_job_callbacks *callbacks, void *userdata, struct plan_job **ret,
                 struct fault *reterr_fault)
{
    m->plan_wish = *wish;
    m->plan_callbacks = callbacks;
    m->plan_userdata = userdata;
    *ret = (struct plan_job *)m;
    return 0;
}

struct plan_job *plan_job_cancel(struct plan_job *job)
{
    return NULL;
}

void manager_set_reloaded(struct manager *m, void (*reloaded)(void *userdata), void *userdata)
{
    m->reloaded = reloaded;
    m->reloaded_userdata = userdata;
}

void manager_set_stopping(struct manager *m, bool (*stopping)(void *userdata), void *userdata)
{
}

void manager_set_nss(struct manager *m, struct nss *nss_borrow)
{
}

struct model_wait *model_wait_cancel(struct model_wait *w)
{
    if (w) {
        w->manager->n_waits_cancelled++;
        w->manager = NULL;
    }
    return NULL;
}

const char *model_state_to_string(enum model_state state)
{
    static const char *const names[MODEL_STATE_MAX] = {"absent", "loading",  "loading",
                                                       "ready",  "draining", "failed"};

    return names[state];
}

const char *request_state_to_string(enum request_state state)
{
    static const char *const names[REQUEST_STATE_MAX] = {"held", "queued", "running"};

    return names[state];
}

int request_start(struct manager *m, const struct request_params *params,
                  const struct request_callbacks *callbacks, void *userdata, struct request **ret,
                  struct fault *reterr_fault)
{
    if (m->refusal.kind != FAULT_NONE) {
        *reterr_fault = m->refusal;
        return REQUEST_REFUSED;
    }
    for (unsigned i = 0; i < FAKE_REQUESTS_MAX; i++) {
        struct request *r = &m->requests[i];

        if (r->manager)
            continue;
        *r = (struct request){.manager = m,
                              .id = ++m->n_started,
                              .kind = params->kind,
                              .uid = params->subject->uid,
                              .callbacks = callbacks,
                              .userdata = userdata};
        snprintf(r->model, sizeof(r->model), "%s", params->model);
        snprintf(r->parameters, sizeof(r->parameters), "%s", json_text(params->parameters));
        *ret = r;
        return 0;
    }
    return -ENOMEM;
}

struct request *request_cancel(struct request *r)
{
    if (r) {
        assert(r->manager);
        r->manager->n_cancelled++;
        r->manager = NULL;
    }
    return NULL;
}

void request_pause(struct request *r, bool pause)
{
    assert(r->manager);
    r->paused = pause;
}

uint64_t request_id(const struct request *r)
{
    return r->id;
}

const char *request_model(const struct request *r)
{
    return r->model;
}

struct request *fake_request(struct manager *m, unsigned i)
{
    struct request *found = NULL;
    uint64_t after = 0;

    for (unsigned k = 0; k <= i; k++) {
        found = NULL;
        for (unsigned j = 0; j < FAKE_REQUESTS_MAX; j++) {
            struct request *r = &m->requests[j];

            if (r->manager && r->id > after && (!found || r->id < found->id))
                found = r;
        }
        if (!found)
            return NULL;
        after = found->id;
    }
    return found;
}

void fake_piece(struct request *r, const char *text, const char *extra_json)
{
    _cleanup_json_ json_object *extra = extra_json ? json_tokener_parse(extra_json) : NULL;

    r->callbacks->piece(r, text, strlen(text), extra, r->userdata);
}

void fake_queue(struct request *r, int64_t position, int64_t eta_ms)
{
    r->callbacks->queue(r, position, eta_ms, r->userdata);
}

void fake_progress(struct request *r, uint64_t done, uint64_t total)
{
    r->callbacks->progress(r, done, total, r->userdata);
}

void fake_done(struct request *r, const char *finish, const char *extra_json)
{
    _cleanup_json_ json_object *extra = extra_json ? json_tokener_parse(extra_json) : NULL;
    struct request_result result = {
        .finish = finish, .extra = extra, .usage = {.prompt_tokens = 3, .output_tokens = 2, .decode_ms = 5}};

    r->callbacks->done(r, &result, r->userdata);
    r->manager = NULL;
}

void fake_failed(struct request *r, const struct fault *fault)
{
    r->callbacks->failed(r, fault, r->userdata);
    r->manager = NULL;
}

int manager_watch(struct manager *m, void (*changed)(void *userdata), void *userdata, struct watch **ret)
{
    m->watched = changed;
    m->watched_userdata = userdata;
    *ret = (struct watch *)m;
    return 0;
}

struct watch *watch_free(struct watch *w)
{
    if (w)
        ((struct manager *)w)->watched = NULL;
    return NULL;
}

void manager_usage(struct manager *m, const struct policy_subject *s, struct usage *ret)
{
    *ret = (struct usage){.items = {[POLICY_QUOTA_CONNECTIONS] = {.limit = 5, .has_used = true, .renews_ms = -1}}};
    for (enum policy_quota_key key = 0; key < POLICY_QUOTA_KEY_MAX; key++)
        if (key != POLICY_QUOTA_CONNECTIONS)
            ret->items[key].limit = POLICY_UNLIMITED;
    ret->items[POLICY_QUOTA_CONNECTIONS].used = account_used(m->accounts, s->uid, ACCOUNT_CONNECTIONS);
    ret->items[POLICY_QUOTA_TOKENS_PER_DAY] = (struct usage_item){
        .limit = 1000, .has_used = true, .used = s->n_nss_groups, .renews_ms = 3600000};
}

void manager_group_usage(struct manager *m, const struct policy_quota_entry *group, struct usage *ret)
{
    *ret = (struct usage){.items = {{.limit = 1}}};
}

int manager_usage_uids(struct manager *m, uid_t **ret, size_t *ret_n)
{
    *ret = calloc(2, sizeof(**ret));
    if (!*ret)
        return -ENOMEM;
    (*ret)[0] = getuid();
    (*ret)[1] = getuid() + 1;
    *ret_n = 2;
    return 0;
}
