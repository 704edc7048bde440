/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Metrics: figures for monitoring, in the OpenMetrics text format (openmetrics.io). Names and labels are
 * promised in docs/metrics.md. Everybody gets the state of the models that they may use and their own figures;
 * administrators those of all users, of the models' work and of the service. Labels are models' names, which policies
 * bound to harmless characters, uids, and words of ours, so nothing has to be escaped.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"
#include "daemon/usage.h"

static void family(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, help);
}

static void gauge(FILE *f, const char *name, const char *help, uint64_t value)
{
    family(f, name, "gauge", help);
    fprintf(f, "%s %" PRIu64 "\n", name, value);
}

/* ---- models ---- */

struct model_figure {
    const char *name, *type, *suffix, *help;
    const char *label; /* besides the model, or "" */
    uint64_t (*value)(const struct model_status *m);
};

static uint64_t ram_locked(const struct model_status *m)
{
    return m->ram_locked_bytes;
}

static uint64_t ram_mapped(const struct model_status *m)
{
    return m->ram_mapped_bytes;
}

static uint64_t ram_lost(const struct model_status *m)
{
    return m->ram_lost_bytes;
}

static uint64_t vram(const struct model_status *m)
{
    return m->vram_bytes;
}

static uint64_t kv(const struct model_status *m)
{
    return (uint64_t)m->kv_bytes;
}

static uint64_t pages_running(const struct model_status *m)
{
    return m->kv_pages_running;
}

static uint64_t pages_kept(const struct model_status *m)
{
    return m->kv_pages_kept;
}

static uint64_t pages_all(const struct model_status *m)
{
    return m->kv_pages;
}

static uint64_t sequences(const struct model_status *m)
{
    return (uint64_t)m->sequences_active;
}

static uint64_t requests(const struct model_status *m)
{
    return m->counters.n_requests;
}

static uint64_t prompt_tokens(const struct model_status *m)
{
    return m->counters.prompt_tokens;
}

static uint64_t cached_tokens(const struct model_status *m)
{
    return m->counters.cached_tokens;
}

static uint64_t output_tokens(const struct model_status *m)
{
    return m->counters.output_tokens;
}

static uint64_t drafted_tokens(const struct model_status *m)
{
    return (uint64_t)m->tokens_drafted;
}

static uint64_t accepted_tokens(const struct model_status *m)
{
    return (uint64_t)m->tokens_accepted;
}

/* Rows of one family stand together; only the first says what it is. */
static const struct model_figure for_all[] = {
    {"residentd_model_ram_locked_bytes", "gauge", "", "Locked in main memory, as the kernel counts.", "", ram_locked},
    {"residentd_model_ram_mapped_bytes", "gauge", "", "Mapped of the model's files.", "", ram_mapped},
    {"residentd_model_ram_lost_bytes", "gauge", "", "That should be held and are not any more.", "", ram_lost},
    {"residentd_model_vram_bytes", "gauge", "", "Held in memory of GPUs.", "", vram},
};

static const struct model_figure for_admins[] = {
    {"residentd_model_kv_bytes", "gauge", "", "KV cache.", "", kv},
    {"residentd_model_kv_pages", "gauge", "", "Pages of the KV cache, as the worker said last.", ",use=\"running\"",
     pages_running},
    {"residentd_model_kv_pages", NULL, "", NULL, ",use=\"kept\"", pages_kept},
    {"residentd_model_kv_pages", NULL, "", NULL, ",use=\"all\"", pages_all},
    {"residentd_model_sequences_active", "gauge", "", "Requests that are being computed.", "", sequences},
    {"residentd_model_requests", "counter", "_total", "Requests that ended.", "", requests},
    {"residentd_model_tokens", "counter", "_total", "Tokens of requests that ended; cached are part of prompt.",
     ",kind=\"prompt\"", prompt_tokens},
    {"residentd_model_tokens", NULL, "_total", NULL, ",kind=\"cached\"", cached_tokens},
    {"residentd_model_tokens", NULL, "_total", NULL, ",kind=\"output\"", output_tokens},
    {"residentd_model_draft_tokens", "counter", "_total", "Tokens of speculation since the worker was started.",
     ",result=\"drafted\"", drafted_tokens},
    {"residentd_model_draft_tokens", NULL, "_total", NULL, ",result=\"accepted\"", accepted_tokens},
};

static void put_models(FILE *f, const struct manager_status *s, const struct model_figure *figures, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct model_figure *figure = &figures[i];

        if (figure->help)
            family(f, figure->name, figure->type, figure->help);
        for (size_t j = 0; j < s->n_models; j++)
            fprintf(f, "%s%s{model=\"%s\"%s} %" PRIu64 "\n", figure->name, figure->suffix, s->models[j].name,
                    figure->label, figure->value(&s->models[j]));
    }
}

static void put_states(FILE *f, const struct manager_status *s)
{
    family(f, "residentd_model_state", "gauge", "1 for the state that the model is in.");
    for (size_t i = 0; i < s->n_models; i++)
        fprintf(f, "residentd_model_state{model=\"%s\",state=\"%s\"} 1\n", s->models[i].name,
                model_state_to_string(s->models[i].state));
}

static void put_seconds(FILE *f, const struct manager_status *s)
{
    family(f, "residentd_model_request_seconds", "counter",
           "Time from the first to the last step of requests that ended.");
    for (size_t i = 0; i < s->n_models; i++)
        fprintf(f, "residentd_model_request_seconds_total{model=\"%s\"} %" PRIu64 ".%06" PRIu64 "\n", s->models[i].name,
                s->models[i].counters.duration_us / 1000000, s->models[i].counters.duration_us % 1000000);
}

/* ---- users ---- */

struct user_figure {
    const char *name, *help;
    enum policy_quota_key key;
};

static const struct user_figure user_figures[] = {
    {"residentd_user_connections", "Connections that are open.", POLICY_QUOTA_CONNECTIONS},
    {"residentd_user_requests_running", "Requests that a worker has.", POLICY_QUOTA_CONCURRENT},
    {"residentd_user_requests_waiting", "Requests that wait in the service.", POLICY_QUOTA_QUEUED},
    {"residentd_user_kv_bytes", "KV cache held by running requests.", POLICY_QUOTA_KV},
    {"residentd_user_tokens_today", "Tokens since local midnight, those that are reserved included.",
     POLICY_QUOTA_TOKENS_PER_DAY},
};

static void put_users(FILE *f, struct manager *m, const uid_t *uids, size_t n)
{
    for (size_t i = 0; i < sizeof(user_figures) / sizeof(user_figures[0]); i++) {
        family(f, user_figures[i].name, "gauge", user_figures[i].help);
        for (size_t j = 0; j < n; j++) {
            /* Groups only decide limits, which are not shown. */
            const struct policy_subject s = {.uid = uids[j], .gid = (gid_t)-1};
            struct usage usage;

            manager_usage(m, &s, &usage);
            fprintf(f, "%s{uid=\"%u\"} %" PRIu64 "\n", user_figures[i].name, uids[j],
                    usage.items[user_figures[i].key].used);
        }
    }
}

/* ---- GPUs ---- */

static uint64_t vram_budget(const struct vram_status *v)
{
    return v->budget_bytes;
}

static uint64_t vram_used(const struct vram_status *v)
{
    return v->used_bytes;
}

static uint64_t vram_others(const struct vram_status *v)
{
    return (uint64_t)v->others_bytes;
}

static uint64_t temperature(const struct vram_status *v)
{
    return (uint64_t)v->temperature_celsius;
}

static uint64_t throttled(const struct vram_status *v)
{
    return v->throttled != NULL;
}

static const struct vram_figure {
    const char *name, *help;
    uint64_t (*value)(const struct vram_status *v);
    bool is_sampled; /* left out where nobody can say */
} vram_figures[] = {
    {"residentd_vram_budget_bytes", "Memory of a GPU that all models together may take.", vram_budget, false},
    {"residentd_vram_used_bytes", "Memory of a GPU that they hold, its driver's for them too.", vram_used, false},
    {"residentd_vram_others_bytes", "Memory of a GPU that other programs hold.", vram_others, true},
    {"residentd_gpu_temperature_celsius", "Temperature of a GPU.", temperature, true},
    {"residentd_gpu_throttled", "1 while a GPU is too hot, or short of power.", throttled, true},
};

static void put_vram(FILE *f, const struct manager_status *s)
{
    for (size_t i = 0; s->n_vram > 0 && i < sizeof(vram_figures) / sizeof(vram_figures[0]); i++) {
        const struct vram_figure *figure = &vram_figures[i];

        family(f, figure->name, "gauge", figure->help);
        for (size_t j = 0; j < s->n_vram; j++)
            if (!figure->is_sampled || (s->vram[j].others_bytes >= 0 && s->vram[j].temperature_celsius >= 0))
                fprintf(f, "%s{device=\"%u\"} %" PRIu64 "\n", figure->name, s->vram[j].number,
                        figure->value(&s->vram[j]));
    }
}

/* ---- the service ---- */

static void put_service(FILE *f, const struct manager_status *s)
{
    gauge(f, "residentd_ram_budget_bytes", "Main memory that all models together may take.", s->ram_budget_bytes);
    gauge(f, "residentd_ram_used_bytes", "Main memory that they take or were granted.", s->ram_used_bytes);
    gauge(f, "residentd_ram_locked_bytes", "Main memory that is locked.", s->ram_locked_bytes);
    gauge(f, "residentd_ledger_unwritten_requests", "Requests that ended and wait to be written into the ledger.",
          s->ledger.n_unwritten);
    family(f, "residentd_ledger_lost_requests", "counter", "Requests that were too many to wait for that.");
    fprintf(f, "residentd_ledger_lost_requests_total %" PRIu64 "\n", s->ledger.n_lost);
}

static int put_all(FILE *f, struct call *call, const struct manager_status *s)
{
    struct manager *m = call_manager(call);
    uid_t own = call_subject(call)->uid;
    _cleanup_free_ uid_t *uids = NULL;
    size_t n = 0;

    family(f, "residentd_build", "info", "The service.");
    fprintf(f, "residentd_build_info{version=\"%s\"} 1\n", RESIDENTD_VERSION);
    gauge(f, "residentd_ledger_ok", "Whether usage is recorded, and all of today is known.",
          s->ledger.state == LEDGER_OK);
    put_states(f, s);
    put_models(f, s, for_all, sizeof(for_all) / sizeof(for_all[0]));
    if (!s->has_users) {
        put_users(f, m, &own, 1);
        return 0;
    }
    if (manager_usage_uids(m, &uids, &n) < 0)
        return -ENOMEM;
    put_users(f, m, uids, n);
    put_models(f, s, for_admins, sizeof(for_admins) / sizeof(for_admins[0]));
    put_seconds(f, s);
    put_service(f, s);
    put_vram(f, s);
    return 0;
}

static int make_text(struct call *call, char **ret)
{
    struct manager_status status;
    char *text = NULL;
    size_t n = 0;
    FILE *f;
    int r;

    r = manager_status(call_manager(call), call_subject(call), &status);
    if (r < 0)
        return r;
    f = open_memstream(&text, &n);
    r = f ? put_all(f, call, &status) : -ENOMEM;
    manager_status_done(&status);
    if (f) {
        fprintf(f, "# EOF\n");
        if (ferror(f))
            r = -ENOMEM;
        if (fclose(f) != 0)
            r = -ENOMEM;
    }
    if (r < 0) {
        free(text);
        return r;
    }
    *ret = text;
    return 0;
}

int method_metrics(struct call *call, struct fault *reterr_fault)
{
    _cleanup_json_ json_object *reply = json_object_new_object();
    _cleanup_free_ char *text = NULL;
    int r = make_text(call, &text);

    if (r < 0)
        return r;
    if (!reply || !add_text(reply, "text", text))
        return -ENOMEM;
    call_reply_take(call, TAKE_PTR(reply));
    return 0;
}
