/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models and requests as tables.
 */
#include "client/residentctl/status.h"

#include <inttypes.h>

#include "base/units.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

/* The question that people come with: is all of it held in memory? */
static void add_locked(struct table *t, json_object *m)
{
    int64_t locked = get_int(m, "ram_locked_bytes"), mapped = get_int(m, "ram_mapped_bytes");
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    if (mapped <= 0)
        table_add(t, NULL);
    else if (locked >= mapped)
        table_add_format(t, "all %s", units_format_size((uint64_t)mapped, a));
    else
        table_add_format(t, "%s of %s", units_format_size(locked > 0 ? (uint64_t)locked : 0, a),
                         units_format_size((uint64_t)mapped, b));
}

/* … and by which pages. An alarm stands before whatever else there is to say. */
static void add_reason(struct table *t, json_object *m)
{
    int64_t lost = get_int(m, "ram_lost_bytes");
    char size[UNITS_TEXT_MAX];

    if (lost > 0)
        table_add_format(t, "ALARM: %s not in memory any more", units_format_size((uint64_t)lost, size));
    else if (get_text(m, "reason") || get_int(m, "gpu_layers") <= 0)
        table_add(t, get_text(m, "reason"));
    else
        table_add(t, get_text(m, "gpu_reason"));
}

/* Whether speculation pays: how many of the tokens that were drafted were right. */
static void add_drafts(struct table *t, json_object *m)
{
    int64_t drafted = get_int(m, "tokens_drafted"), right = get_int(m, "tokens_accepted");

    if (drafted <= 0 || right < 0)
        table_add(t, NULL);
    else
        table_add_format(t, "%.0f %% of %" PRId64, 100.0 * (double)right / (double)drafted, drafted);
}

bool status_print_models(json_object *models)
{
    static const char *const headers[] = {"MODEL", "STATE",    "LOCKED IN RAM", "PAGES", ">VRAM",
                                          ">KV",   ">RUNNING", ">DRAFTS RIGHT", ">WORKER PID", "REASON"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));

    if (!t)
        return false;
    for (size_t i = 0; i < length_of(models); i++) {
        json_object *m = json_object_array_get_idx(models, i);

        table_add(t, get_text(m, "name"));
        table_add(t, get_text(m, "state"));
        add_locked(t, m);
        table_add(t, get_text(m, "ram_pages"));
        table_add_size(t, get_int(m, "vram_bytes") == 0 ? -1 : get_int(m, "vram_bytes"));
        table_add_size(t, get_int(m, "kv_bytes"));
        table_add_int(t, get_int(m, "sequences_active"));
        add_drafts(t, m);
        table_add_int(t, get_int(m, "worker_pid"));
        add_reason(t, m);
    }
    return table_print(t, stdout);
}

bool status_print_requests(json_object *requests)
{
    static const char *const headers[] = {">REQUEST", ">UID",    "APP",       "UNIT",   "MODEL",
                                          "STATE",    ">PROMPT", ">OUTPUT",   ">TOKENS/S", ">PLACE",
                                          ">FIRST TOKEN IN"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));

    if (!t)
        return false;
    for (size_t i = 0; i < length_of(requests); i++) {
        json_object *q = json_object_array_get_idx(requests, i), *rate;
        char text[UNITS_TEXT_MAX];
        int64_t eta = get_int(q, "eta_ms");

        table_add_int(t, get_int(q, "request"));
        table_add_int(t, get_int(q, "uid"));
        table_add(t, get_text(q, "app"));
        table_add(t, get_text(q, "unit"));
        table_add(t, get_text(q, "model"));
        table_add(t, get_text(q, "state"));
        table_add_int(t, get_int(q, "prompt_tokens"));
        table_add_int(t, get_int(q, "output_tokens"));
        if (json_object_object_get_ex(q, "decode_tps", &rate))
            table_add_format(t, "%.1f", json_object_get_double(rate));
        else
            table_add(t, NULL);
        table_add_int(t, get_int(q, "queue_position"));
        table_add(t, eta < 0 || eta > INT32_MAX ? NULL : units_format_duration((uint64_t)eta * 1000, text));
    }
    return table_print(t, stdout);
}
