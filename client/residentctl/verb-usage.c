/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/units.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

static void add_amount(struct table *t, const char *quota, int64_t n)
{
    char text[UNITS_TEXT_MAX];

    if (n >= 0 && strcmp(quota, "kv") == 0)
        table_add(t, units_format_size((uint64_t)n, text));
    else if (n >= 0)
        table_add_int(t, n);
    else
        table_add(t, NULL);
}

/* @who: NULL without a column for it. */
static void add_row(struct table *t, const char *who, json_object *usage, const char *quota)
{
    json_object *limits = NULL, *used = NULL, *renews = NULL;
    char text[UNITS_TEXT_MAX];
    int64_t limit, n_used, renews_ms;

    (void)json_object_object_get_ex(usage, "limits", &limits);
    (void)json_object_object_get_ex(usage, "used", &used);
    (void)json_object_object_get_ex(usage, "renews_ms", &renews);
    limit = get_int(limits, quota);
    n_used = get_int(used, quota);
    renews_ms = get_int(renews, quota);
    if (who)
        table_add(t, who);
    table_add(t, quota);
    add_amount(t, quota, n_used);
    if (limit < 0)
        table_add(t, "unlimited");
    else
        add_amount(t, quota, limit);
    add_amount(t, quota, limit < 0 || n_used < 0 ? -1 : n_used > limit ? 0 : limit - n_used);
    /* Parts of a second are of no use to a reader. */
    table_add(t, renews_ms <= 0 ? NULL : units_format_duration(((uint64_t)renews_ms + 999) / 1000 * 1000000, text));
}

/* Quotas are the union of what is used and what is limited; with @short_list what is neither is left out. */
static void add_rows(struct table *t, const char *who, json_object *usage, bool short_list)
{
    json_object *limits = NULL, *used = NULL;

    if (json_object_object_get_ex(usage, "used", &used) && json_object_is_type(used, json_type_object)) {
        json_object_object_foreach (used, quota, value) {
            if (!short_list || json_object_get_int64(value) > 0)
                add_row(t, who, usage, quota);
        }
    }
    if (json_object_object_get_ex(usage, "limits", &limits) && json_object_is_type(limits, json_type_object)) {
        json_object_object_foreach (limits, name, limit) {
            (void)limit;
            if (!short_list && !json_object_object_get_ex(used, name, NULL))
                add_row(t, who, usage, name);
        }
    }
}

static void add_everybody(struct table *t, json_object *list, const char *number, const char *prefix)
{
    for (size_t i = 0; i < length_of(list); i++) {
        json_object *one = json_object_array_get_idx(list, i);
        const char *name = get_text(one, "name");
        char who[128];

        if (name)
            snprintf(who, sizeof(who), "%s%s", prefix, name);
        else
            snprintf(who, sizeof(who), "%s%" PRId64, prefix, get_int(one, number));
        add_rows(t, who, one, /* short_list= */ true);
    }
}

/* A uid, or "all". */
static bool parse_whom(const char *text, int64_t *ret)
{
    if (strcmp(text, "all") == 0) {
        *ret = -1;
        return true;
    }
    return parse_int(text, 0, UINT32_MAX, ret);
}

int verb_usage(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    static const char *const headers[] = {"USER", "QUOTA", ">USED", ">LIMIT", ">LEFT", ">RENEWS IN"};
    _cleanup_json_ json_object *reply = NULL;
    json_object *parameters;
    int64_t uid = 0;
    struct table *t;
    bool all;
    int status;

    if (argc > 2 || (argc == 2 && !parse_whom(argv[1], &uid)))
        return ctl_usage(verb, "at most a uid, or \"all\", is expected");
    all = uid == -1;
    parameters = json_object_new_object();
    if (!parameters || (argc == 2 && !put(parameters, "uid", json_object_new_int64(uid)))) {
        json_object_put(parameters);
        return ctl_no_memory();
    }
    status = ctl_call(ctl, RESIDENT_USAGE "Get", parameters, &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    t = all ? table_new(headers, 6) : table_new(headers + 1, 5);
    if (!t)
        return ctl_no_memory();
    if (all) {
        add_everybody(t, get_array(reply, "users"), "uid", "");
        add_everybody(t, get_array(reply, "groups"), "gid", "group ");
    } else {
        add_rows(t, NULL, reply, /* short_list= */ false);
    }
    status = table_print(t, stdout) ? STATUS_DONE : ctl_no_memory();
    table_free(t);
    return status;
}
