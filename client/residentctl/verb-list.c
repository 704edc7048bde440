/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl list.
 */
#include <string.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

static void add_names(struct table *t, json_object *names)
{
    char text[256] = "";
    size_t n = 0;

    for (size_t i = 0; i < length_of(names) && n < sizeof(text); i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i > 0 ? "," : "",
                              json_object_get_string(json_object_array_get_idx(names, i)));
    table_add(t, text);
}

/* "7.6B": what people call a model by. */
static void add_parameters(struct table *t, int64_t n)
{
    if (n < 0)
        table_add(t, NULL);
    else if (n >= 999500000)
        table_add_format(t, "%.3gB", (double)n / 1e9);
    else if (n >= 1000000)
        table_add_format(t, "%.3gM", (double)n / 1e6);
    else
        table_add_format(t, "%.3gk", (double)n / 1e3);
}

int verb_list(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    static const char *const headers[] = {"MODEL",        "ALIASES", "STATE",   ">PARAMETERS",
                                          "QUANTIZATION", ">SIZE",   ">CONTEXT"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));
    _cleanup_json_ json_object *reply = NULL;
    json_object *models;
    int status;

    if (argc != 1)
        return ctl_usage(verb, "no argument is expected");
    status = ctl_call(ctl, RESIDENT_INFERENCE "ListModels", NULL, &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    models = get_array(reply, "models");
    for (size_t i = 0; t && i < length_of(models); i++) {
        json_object *m = json_object_array_get_idx(models, i);

        table_add(t, get_text(m, "name"));
        add_names(t, get_array(m, "aliases"));
        table_add(t, get_text(m, "state"));
        add_parameters(t, get_int(m, "parameters"));
        table_add(t, get_text(m, "quantization"));
        table_add_size(t, get_int(m, "size_bytes"));
        table_add_int(t, get_int(m, "context_tokens") == 0 ? -1 : get_int(m, "context_tokens"));
    }
    return t && table_print(t, stdout) ? STATUS_DONE : ctl_no_memory();
}
