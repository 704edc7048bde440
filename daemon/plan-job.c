/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A model of the policy is opened as for loading (residency.c), a file of the client's
 * comes open. Either way a worker reads it, in its sandbox. At most LIMIT_PLANS at a time, whoever asks.
 */
#include "daemon/plan-job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/internal.h"
#include "daemon/limits.h"
#include "daemon/model-files.h"
#include "daemon/plan-room.h"

#define FILE_SEQUENCES 4

struct plan_job {
    struct manager *manager;
    const struct plan_job_callbacks *callbacks;
    void *userdata;
    struct policy *rules_of; /* a reference, with @rules; NULL: a file of the client's */
    const struct policy_model *rules;
    struct residency *residency; /* while a model of the policy is opened */
    struct measure *measure;
    char name[POLICY_NAME_MAX + 1];
    struct plan_wish wish;
    struct plan_device devices[PLAN_DEVICES_MAX];
    bool counts_ram, counts_vram; /* as struct plan_room has them */
    char k[16], v[16];
};

struct plan_job *plan_job_cancel(struct plan_job *job)
{
    if (!job)
        return NULL;
    job->manager->n_plans--;
    measure_free(job->measure);
    residency_free(job->residency);
    policy_unref(job->rules_of);
    free(job);
    return NULL;
}

static void fail(struct plan_job *job, const struct fault *fault)
{
    struct fault copy = *fault;

    if (copy.kind == FAULT_MODEL_INVALID || copy.kind == FAULT_MODEL_UNAVAILABLE)
        fault_subject(&copy, job->name);
    job->callbacks->failed(job, &copy, job->userdata);
    plan_job_cancel(job);
}

static void fail_errno(struct plan_job *job, int error)
{
    struct fault fault;

    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, job->name, "can't measure the model: %s", strerror(-error));
    fail(job, &fault);
}

/* The names of those who would leave. @ret: [*ret_n]; the caller frees the array. */
static int list_leaving(struct manager *m, const bool *gone, const char ***ret, size_t *ret_n)
{
    struct list *at, *after;
    const char **names;
    size_t i = 0, n = 0;

    list_foreach (at, after, &m->models)
        i++;
    names = calloc(i + 1, sizeof(*names));
    if (!names)
        return -ENOMEM;
    i = 0;
    list_foreach (at, after, &m->models) {
        if (gone[i++])
            names[n++] = list_entry(at, struct model, entry)->rules->name;
    }
    *ret = names;
    *ret_n = n;
    return 0;
}

static void on_measured(struct measure *measure, struct plan_shape *shape, void *userdata)
{
    struct plan_alternative alternatives[PLAN_ALTERNATIVES_MAX];
    struct plan_job *job = userdata;
    const struct plan_room room = {
        .manager = job->manager,
        .rules = job->rules,
        .residency = job->residency,
        .counts_ram = job->counts_ram,
        .counts_vram = job->counts_vram,
    };
    _cleanup_free_ const char **names = NULL;
    _cleanup_free_ bool *gone = NULL;
    struct plan_result plan;
    struct plan_job_result result = {.shape = shape, .plan = &plan, .alternatives = alternatives};
    struct fault fault;
    int r;

    manager_take_bandwidth(job->manager, shape);
    if (job->residency && residency_is_partial(job->residency, NULL))
        job->wish.weights_bytes_max = residency_needs_bytes(job->residency);
    r = plan_room_make(&room, shape, &job->wish, job->devices, &plan, &gone);
    if (r == -EINVAL) {
        fault_set(&fault, FAULT_INVALID_PARAMETER, "kv_type",
                  "a type that the KV cache of this model can have");
        fail(job, &fault);
        return;
    }
    if (r == 0)
        r = list_leaving(job->manager, gone, &names, &result.n_leave);
    if (r < 0) {
        fail_errno(job, r);
        return;
    }
    result.leave = names;
    result.n_alternatives = plan_alternatives(shape, &job->wish, &plan, alternatives);
    job->callbacks->done(job, &result, job->userdata);
    plan_job_cancel(job);
}

static void on_measure_failed(struct measure *measure, const struct fault *fault, void *userdata)
{
    fail(userdata, fault);
}

static const struct measure_callbacks measure_callbacks = {.done = on_measured, .failed = on_measure_failed};

/* @fds is consumed. */
static int measure(struct plan_job *job, int *fds, size_t n_fds)
{
    const struct measure_options options = {
        .worker_path = job->manager->worker_path,
        .name = job->name,
        .fds = fds,
        .n_fds = n_fds,
        .context_tokens = job->wish.context_tokens,
        .sequences = job->wish.sequences,
        .k = job->k,
        .v = job->v,
        .rules = job->rules,
        .residency = job->residency,
        .bandwidth = true,
        .n_threads = job->manager->n_cores,
    };

    return measure_new(job->manager->event, job->manager->workers, &options, &measure_callbacks, job,
                       &job->measure);
}

static void on_opened(struct residency *residency, uint64_t bytes_total, void *userdata)
{
    struct plan_job *job = userdata;
    size_t n_fds = 0;
    int *fds = NULL;
    int r;

    r = residency_open_fds(residency, &fds, &n_fds);
    if (r >= 0)
        r = measure(job, fds, n_fds);
    if (r < 0)
        fail_errno(job, r);
}

static void on_open_failed(struct residency *residency, const struct fault *fault, void *userdata)
{
    fail(userdata, fault);
}

static const struct residency_callbacks residency_callbacks = {.opened = on_opened, .failed = on_open_failed};

static void take_wish(struct plan_job *job, const struct plan_job_wish *w, const struct policy_model *rules)
{
    struct plan_wish *wish = &job->wish;

    job->counts_ram = !w->has_ram;
    job->counts_vram = rules && w->n_devices == 0;
    snprintf(job->name, sizeof(job->name), "%s", rules ? rules->name : "(file)");
    snprintf(job->k, sizeof(job->k), "%s", w->kv_type ? w->kv_type : rules ? rules->context.k : "f16");
    snprintf(job->v, sizeof(job->v), "%s", w->kv_type ? w->kv_type : rules ? rules->context.v : "f16");
    *wish = (struct plan_wish){
        .context_tokens = w->context_tokens > 0 ? w->context_tokens
                          : rules               ? rules->context.tokens
                                                : 0,
        .sequences = w->sequences > 0 ? w->sequences
                     : rules          ? rules->context.sequences
                                      : FILE_SEQUENCES,
        .k = job->k,
        .v = job->v,
        .gpu_layers = PLAN_AUTO,
        .is_mapped_only = rules && rules->residency.ram == POLICY_RAM_MAP,
        .ram_bytes = w->ram_bytes,
        .n_threads = job->manager->n_cores,
        .devices = job->devices,
        .n_devices = w->n_devices,
    };
    if (rules)
        model_gpu_wish(rules, wish);
    for (size_t i = 0; i < w->n_devices; i++)
        job->devices[i] = (struct plan_device){.index = (uint32_t)i,
                                               .budget_bytes = w->vram_bytes[i],
                                               .overhead_bytes = PLAN_DEVICE_OVERHEAD_BYTES};
}

/* A fresh descriptor of the client's file, for reading only; what is no regular file could block a reader for
 * ever. */
static int open_file(int fd, struct fault *reterr_fault)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    if (fd < 0 || flags < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH)) {
        fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "fd",
                  "a regular file, open for reading, that was sent along");
        return REQUEST_REFUSED;
    }
    return 0;
}

static int check(struct manager *m, const struct policy_subject *s, const struct plan_job_wish *wish,
                 const struct policy_model **ret, struct fault *reterr_fault)
{
    const struct policy_model *rules = wish->model ? policy_find_model(m->policy, wish->model) : NULL;

    if (m->stopping)
        fault_init(reterr_fault, FAULT_SHUTTING_DOWN, NULL);
    else if (wish->model && !rules)
        fault_init(reterr_fault, FAULT_NO_SUCH_MODEL, wish->model);
    else if (rules && !policy_may_use(m->policy, rules, s) && !policy_is_admin(m->policy, s))
        fault_set(reterr_fault, FAULT_NOT_ALLOWED, rules->name, "policy");
    else if (m->n_plans >= LIMIT_PLANS) {
        fault_init(reterr_fault, FAULT_QUEUE_FULL, NULL);
        reterr_fault->limit = LIMIT_PLANS;
        reterr_fault->retry_after_ms = 1000;
    } else {
        *ret = rules;
        return rules ? 0 : open_file(wish->fd, reterr_fault);
    }
    return REQUEST_REFUSED;
}

static int begin(struct plan_job *job, const struct policy_model *rules, int *fd)
{
    _cleanup_free_ struct residency_file *others = NULL;
    struct residency_options options;
    size_t n_others;
    int *fds, r;

    if (!rules) {
        fds = malloc(sizeof(*fds));
        if (!fds)
            return -ENOMEM;
        *fds = TAKE_FD(*fd);
        return measure(job, fds, 1);
    }
    job->rules_of = policy_ref(job->manager->policy);
    job->rules = rules;
    r = model_files_others(job->rules_of, rules, &others, &n_others);
    if (r < 0)
        return r;
    options = (struct residency_options){
        .file = {.path = rules->path, .sha256 = rules->sha256},
        .ram = rules->residency.ram,
        .huge = rules->residency.huge,
        .numa = rules->residency.numa,
        .numa_node = rules->residency.numa_node,
        .bytes_max = policy_size_of(&rules->residency.limit, job->manager->ram_total_bytes),
        .others = others,
        .n_others = n_others,
    };
    return residency_new(job->manager->residencies, &options, &residency_callbacks, job, &job->residency);
}

int manager_plan(struct manager *m, const struct policy_subject *s, const struct plan_job_wish *wish,
                 const struct plan_job_callbacks *callbacks, void *userdata, struct plan_job **ret,
                 struct fault *reterr_fault)
{
    _cleanup_close_ int fd = wish->fd;
    const struct policy_model *rules = NULL;
    struct plan_job *job;
    int r;

    r = check(m, s, wish, &rules, reterr_fault);
    if (r != 0)
        return r;
    job = calloc(1, sizeof(*job));
    if (!job)
        return -ENOMEM;
    m->n_plans++;
    job->manager = m;
    job->callbacks = callbacks;
    job->userdata = userdata;
    take_wish(job, wish, rules);
    r = begin(job, rules, &fd);
    if (r < 0) {
        plan_job_cancel(job);
        return r;
    }
    *ret = job;
    return 0;
}
