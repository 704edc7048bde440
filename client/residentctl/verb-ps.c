/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl ps and cancel.
 */
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/status.h"

int verb_ps(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    bool all = argc == 2 && (strcmp(argv[1], "--all") == 0 || strcmp(argv[1], "-a") == 0);
    _cleanup_json_ json_object *reply = NULL;
    json_object *parameters;
    int status;

    if (argc > 2 || (argc == 2 && !all))
        return ctl_usage(verb, "nothing but --all is expected");
    parameters = json_object_new_object();
    if (!parameters)
        return ctl_no_memory();
    /* root has few requests of its own, and comes to see those of others. */
    if ((all || geteuid() == 0) && !put(parameters, "uid", json_object_new_int(-1))) {
        json_object_put(parameters);
        return ctl_no_memory();
    }
    status = ctl_call(ctl, RESIDENT_USAGE "Requests", parameters, &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    return status_print_requests(get_array(reply, "requests")) ? STATUS_DONE : ctl_no_memory();
}

int verb_cancel(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    json_object *parameters;
    int64_t id;

    if (argc != 2 || !parse_int(argv[1], 0, INT64_MAX, &id))
        return ctl_usage(verb, "the number of a request is expected");
    parameters = json_object_new_object();
    if (!parameters || !put(parameters, "request", json_object_new_int64(id))) {
        json_object_put(parameters);
        return ctl_no_memory();
    }
    return ctl_call(ctl, RESIDENT_USAGE "Cancel", parameters, NULL);
}
