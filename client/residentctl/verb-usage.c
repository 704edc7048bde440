/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl usage.
 */
#include <inttypes.h>

#include "base/json.h"
#include "base/units.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

/* Quotas are the union of what is used and what is limited. */
static void add_row(struct table *t, json_object *reply, const char *quota)
{
    json_object *limits = NULL, *used = NULL, *renews = NULL;
    char text[UNITS_TEXT_MAX];
    int64_t limit, renews_ms;

    (void)json_object_object_get_ex(reply, "limits", &limits);
    (void)json_object_object_get_ex(reply, "used", &used);
    (void)json_object_object_get_ex(reply, "renews_ms", &renews);
    limit = get_int(limits, quota);
    renews_ms = get_int(renews, quota);
    table_add(t, quota);
    table_add_int(t, get_int(used, quota));
    if (limit < 0)
        table_add(t, "unlimited");
    else
        table_add_int(t, limit);
    table_add(t, renews_ms < 0 ? NULL : units_format_duration((uint64_t)renews_ms * 1000, text));
}

int verb_usage(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    static const char *const headers[] = {"QUOTA", ">USED", ">LIMIT", ">RENEWS IN"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));
    _cleanup_json_ json_object *reply = NULL;
    json_object *parameters, *limits = NULL, *used = NULL;
    int64_t uid = -1;
    int status;

    if (argc > 2 || (argc == 2 && !parse_int(argv[1], 0, UINT32_MAX, &uid)))
        return ctl_usage(verb, "at most a uid is expected");
    parameters = json_object_new_object();
    if (!t || !parameters || (uid >= 0 && !put(parameters, "uid", json_object_new_int64(uid)))) {
        json_object_put(parameters);
        return ctl_no_memory();
    }
    status = ctl_call(ctl, RESIDENT_USAGE "Get", parameters, &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    if (json_object_object_get_ex(reply, "used", &used) && json_object_is_type(used, json_type_object)) {
        json_object_object_foreach (used, quota, value) {
            (void)value;
            add_row(t, reply, quota);
        }
    }
    if (json_object_object_get_ex(reply, "limits", &limits) &&
        json_object_is_type(limits, json_type_object)) {
        json_object_object_foreach (limits, name, limit) {
            (void)limit;
            if (!json_object_object_get_ex(used, name, NULL))
                add_row(t, reply, name);
        }
    }
    return table_print(t, stdout) ? STATUS_DONE : ctl_no_memory();
}
