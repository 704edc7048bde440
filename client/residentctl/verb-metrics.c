/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl metrics and reload.
 */
#include <string.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

int verb_metrics(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    _cleanup_json_ json_object *reply = NULL;
    const char *text;
    int status;

    if (argc != 1)
        return ctl_usage(verb, "no argument is expected");
    status = ctl_call(ctl, RESIDENT_MODELS "Metrics", NULL, &reply);
    text = get_text(reply, "text");
    if (status == STATUS_DONE && text)
        print_text(stdout, text, strlen(text), ctl->is_terminal);
    return status;
}

int verb_reload(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    _cleanup_json_ json_object *reply = NULL;
    json_object *changed;
    int status;

    if (argc != 1)
        return ctl_usage(verb, "no argument is expected");
    status = ctl_call(ctl, RESIDENT_MODELS "Reload", NULL, &reply);
    changed = get_array(reply, "changed");
    for (size_t i = 0; status == STATUS_DONE && i < length_of(changed); i++) {
        const char *key = json_object_get_string(json_object_array_get_idx(changed, i));

        print_text(stdout, key, strlen(key), ctl->is_terminal);
        fputc('\n', stdout);
    }
    return status;
}
