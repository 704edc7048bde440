/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models that the policy lets others map themselves.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/units.h"
#include "daemon/internal.h"
#include "daemon/shared.h"

static int find_shared(struct manager *m, const struct policy_subject *s, const char *name, struct model **ret,
                       struct fault *reterr_fault)
{
    const struct policy_model *rules = policy_find_model(m->policy, name);

    if (!rules || !model_find(m, rules->name)) {
        fault_init(reterr_fault, FAULT_NO_SUCH_MODEL, name);
        return REQUEST_REFUSED;
    }
    if (!policy_may_use(m->policy, rules, s)) {
        fault_set(reterr_fault, FAULT_NOT_ALLOWED, rules->name, "policy");
        return REQUEST_REFUSED;
    }
    if (!policy_may_share(m->policy, rules, s)) {
        fault_set(reterr_fault, FAULT_NOT_ALLOWED, rules->name, "share");
        return REQUEST_REFUSED;
    }
    *ret = model_find(m, rules->name);
    return 0;
}

int manager_share(struct manager *m, const struct policy_subject *s, const char *name,
                  const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                  struct fault *reterr_fault)
{
    struct model *model;
    int r;

    r = find_shared(m, s, name, &model, reterr_fault);
    if (r != 0)
        return r;
    if (m->stopping) {
        fault_init(reterr_fault, FAULT_SHUTTING_DOWN, NULL);
        return REQUEST_REFUSED;
    }
    if (!model_want(model, reterr_fault))
        return REQUEST_REFUSED;
    return model_wait_new(model, false, callbacks, userdata, ret);
}

int manager_shared_files(struct manager *m, const struct policy_subject *s, const char *name,
                         struct manager_share *ret, struct fault *reterr_fault)
{
    struct model *model;
    size_t n_all = 0, n;
    int *fds = NULL, r;

    /* Again: it may have been a while, and another policy be in force. */
    r = find_shared(m, s, name, &model, reterr_fault);
    if (r != 0)
        return r;
    if (model->state != MODEL_READY || model->is_kept) {
        fault_set(reterr_fault, FAULT_MODEL_UNAVAILABLE, model->rules->name, "it is not in memory at the moment");
        reterr_fault->retry_after_ms = 1000;
        return REQUEST_REFUSED;
    }
    r = residency_open_fds(model->residency, &fds, &n_all);
    if (r < 0)
        return r;
    /* Adapters and a draft model have not been asked for. */
    n = residency_n_files(model->residency, 0);
    for (size_t i = n; i < n_all; i++)
        close(fds[i]);
    *ret = (struct manager_share){.fds = fds, .n_fds = n, .sha256 = model->loaded->sha256};
    for (size_t i = 0; i < n; i++) {
        struct residency_identity identity;

        residency_identity(model->residency, i, &identity);
        ret->n_bytes += identity.n_bytes;
    }
    return 0;
}

static void forget_shared(uint64_t id, void *userdata)
{
    const struct manager *m = userdata;

    handover_forget_shared(m->handover, id);
}

void manager_look_at_shared(struct manager *m)
{
    char size[UNITS_TEXT_MAX];
    uint64_t n = shared_look(&m->shared, forget_shared, m);

    if (n == 0)
        return;
    log_line(m->log, LOG_INFO, NULL, "%s of models that had left came back from the programs that shared them",
             units_format_size(n, size));
    manager_room_came(m);
}

void manager_keep_shared(struct model *model)
{
    const struct log_fields fields = {.model = model->rules->name};
    char size[UNITS_TEXT_MAX];
    uint64_t n;

    /* Whom nobody may share, nobody has; of a worker that crashed, the descriptors may still be on their way out. */
    if (!model->residency || !model->loaded->share.given)
        return;
    n = shared_keep(&model->manager->shared, model->residency);
    handover_keep_shared(model->manager->handover);
    if (n > 0)
        log_line(model->manager->log, LOG_NOTICE, &fields,
                 "model %s: %s of it stay in memory, and in the budget, until the programs that share it let it go",
                 model->rules->name, units_format_size(n, size));
}
