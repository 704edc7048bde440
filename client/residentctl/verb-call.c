/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl call: any method of the service, for what has no verb and where there is no varlinkctl.
 */
#include <errno.h>
#include <string.h>

#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

static int on_piece(const struct resident_reply *reply, void *userdata)
{
    const struct ctl *ctl = userdata;

    print_json(stdout, resident_reply_json(reply), ctl->is_terminal);
    return fflush(stdout);
}

int verb_call(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    bool more = argc > 2 && strcmp(argv[argc - 1], "--more") == 0;
    struct resident_reply *reply = NULL;
    struct resident_error *error = NULL;
    const char *parameters;
    int r, status;

    argc -= more;
    if (argc < 2 || argc > 3 || argv[1][0] == '-')
        return ctl_usage(verb, "a method and at most one JSON object are expected");
    parameters = argc == 3 ? argv[2] : NULL;
    status = ctl_connect(ctl);
    if (status != STATUS_DONE)
        return status;
    if (more)
        r = resident_stream(ctl->connection, argv[1], parameters, on_piece, ctl, &error);
    else
        r = resident_call(ctl->connection, argv[1], parameters, &reply, &error);
    if (r == -EINVAL)
        return ctl_usage(verb, "the parameters are no JSON object");
    status = ctl_report(ctl, r, error);
    if (reply)
        (void)on_piece(reply, ctl);
    resident_error_free(error);
    resident_reply_free(reply);
    return status;
}
