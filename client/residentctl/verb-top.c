/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl top: Watch, drawn over the last picture on a terminal and below it elsewhere.
 */
#include <string.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"
#include "client/residentctl/status.h"

static int draw(const struct resident_reply *reply, void *userdata)
{
    const struct ctl *ctl = userdata;
    static const struct json_limits limits = {.bytes_max = 1 << 24, .depth_max = 16, .values_max = 1 << 20};
    const char *text = resident_reply_json(reply);
    _cleanup_json_ json_object *object = NULL;
    bool ok;

    if (ctl->json) {
        print_json(stdout, text, ctl->is_terminal);
        return fflush(stdout);
    }
    if (json_parse(text, strlen(text), &limits, &object, NULL, NULL) < 0)
        return -1;
    if (ctl->is_terminal)
        fputs("\033[H\033[2J", stdout);
    ok = status_print_models(get_array(object, "models"));
    fputc('\n', stdout);
    ok = ok && status_print_requests(get_array(object, "requests"));
    if (!ctl->is_terminal)
        fputc('\n', stdout);
    return ok ? fflush(stdout) : -1;
}

int verb_top(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    struct resident_error *error = NULL;
    int r, status;

    if (argc != 1)
        return ctl_usage(verb, "no argument is expected");
    status = ctl_connect(ctl);
    if (status != STATUS_DONE)
        return status;
    r = resident_stream(ctl->connection, RESIDENT_MODELS "Watch", NULL, draw, ctl, &error);
    status = r == RESIDENT_STOPPED ? STATUS_FAILED : ctl_report(ctl, r, error);
    resident_error_free(error);
    return status;
}
