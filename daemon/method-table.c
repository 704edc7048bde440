/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rows, and the parsed interfaces they are looked up with. A name is first split at its last dot: which error
 * a wrong name gets depends on which part nobody knows.
 */
#include "daemon/method-table.h"

#include <errno.h>
#include <string.h>

#include "client/varlink/interfaces.h"

enum { INTERFACES_MAX = 16 };

static const struct method rows[] = {
    {"org.varlink.service.GetInfo", METHOD_ANYONE, method_get_info, .quiet = true},
    {"org.varlink.service.GetInterfaceDescription", METHOD_ANYONE, method_get_interface_description,
     .quiet = true},
    {"io.residentd.Inference.ListModels", METHOD_ANYONE, method_list_models, .quiet = true},
    {"io.residentd.Inference.Complete", METHOD_ANYONE, method_complete},
    {"io.residentd.Inference.Chat", METHOD_ANYONE, method_chat},
    {"io.residentd.Inference.Embed", METHOD_ANYONE, method_embed},
    {"io.residentd.Inference.Tokenize", METHOD_ANYONE, method_tokenize},
    {"io.residentd.Inference.Detokenize", METHOD_ANYONE, method_detokenize},
    {"io.residentd.Inference.Share", METHOD_ANYONE, method_share},
    {"io.residentd.Models.Load", METHOD_ADMINS, method_load},
    {"io.residentd.Models.Unload", METHOD_ADMINS, method_unload},
    {"io.residentd.Models.Pin", METHOD_ADMINS, method_pin},
    {"io.residentd.Models.Unpin", METHOD_ADMINS, method_unpin},
    {"io.residentd.Models.Reload", METHOD_ADMINS, method_reload},
    {"io.residentd.Models.Plan", METHOD_ANYONE, method_plan},
    {"io.residentd.Models.Status", METHOD_ANYONE, method_status, .quiet = true},
    {"io.residentd.Models.Metrics", METHOD_ANYONE, method_metrics, .quiet = true},
    {"io.residentd.Models.Watch", METHOD_ANYONE, method_watch, .quiet = true},
    {"io.residentd.Usage.Get", METHOD_ANYONE, method_usage_get, .quiet = true},
    {"io.residentd.Usage.Requests", METHOD_ANYONE, method_usage_requests, .quiet = true},
    {"io.residentd.Usage.Cancel", METHOD_ANYONE, method_usage_cancel},
};

struct method_table {
    struct idl *interfaces[INTERFACES_MAX];
    size_t n_interfaces;
};

static const struct idl *find_interface(const struct method_table *t, const char *name, size_t n)
{
    for (size_t i = 0; i < t->n_interfaces; i++) {
        const char *found = idl_name(t->interfaces[i]);

        if (strlen(found) == n && memcmp(found, name, n) == 0)
            return t->interfaces[i];
    }
    return NULL;
}

/* A row that no interface declares would be reachable by nobody. */
static int check_rows(const struct method_table *t)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct method *method;
        const struct idl_method *idl;

        if (method_table_find(t, rows[i].name, &method, &idl, NULL) != 0)
            return -EINVAL;
    }
    return 0;
}

int method_table_new(struct method_table **ret)
{
    _cleanup_(method_table_freep) struct method_table *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return -ENOMEM;
    for (const struct interface_text *text = interface_texts; text->name; text++) {
        if (t->n_interfaces == INTERFACES_MAX)
            return -EINVAL;
        r = idl_parse(text->text, text->n, &t->interfaces[t->n_interfaces], NULL);
        if (r < 0)
            return r;
        t->n_interfaces++;
    }
    r = check_rows(t);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

struct method_table *method_table_free(struct method_table *t)
{
    if (!t)
        return NULL;
    for (size_t i = 0; i < t->n_interfaces; i++)
        idl_free(t->interfaces[i]);
    free(t);
    return NULL;
}

static const struct method *find_row(const char *name)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

int method_table_find(const struct method_table *t, const char *name, const struct method **ret,
                      const struct idl_method **ret_idl, struct fault *reterr_fault)
{
    const char *dot = strrchr(name, '.');
    const struct idl *interface = dot ? find_interface(t, name, (size_t)(dot - name)) : NULL;
    const struct idl_method *idl;
    const struct method *row;

    if (!interface) {
        _cleanup_free_ char *part = strndup(name, dot ? (size_t)(dot - name) : strlen(name));

        if (!part)
            return -ENOMEM;
        fault_init(reterr_fault, FAULT_INTERFACE_NOT_FOUND, part);
        return CALL_REFUSED;
    }
    idl = idl_find_method(interface, dot + 1);
    if (!idl) {
        fault_init(reterr_fault, FAULT_METHOD_NOT_FOUND, name);
        return CALL_REFUSED;
    }
    row = find_row(name);
    if (!row) {
        fault_init(reterr_fault, FAULT_METHOD_NOT_IMPLEMENTED, name);
        return CALL_REFUSED;
    }
    *ret = row;
    *ret_idl = idl;
    return 0;
}
