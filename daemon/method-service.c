/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * org.varlink.service: the service describes itself.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "client/varlink/interfaces.h"
#include "daemon/method-table.h"

int method_get_info(struct call *call, struct fault *reterr_fault)
{
    _cleanup_json_ json_object *reply = json_object_new_object(), *names = json_object_new_array();
    bool ok = reply && names;

    for (const struct interface_text *row = interface_texts; ok && row->name; row++)
        ok = append_take(names, json_object_new_string(row->name));
    ok = ok && add_text(reply, "vendor", "residentd") && add_text(reply, "product", "residentd") &&
         add_text(reply, "version", RESIDENTD_VERSION) && add_text(reply, "url", "") &&
         add_take(reply, "interfaces", TAKE_PTR(names));
    if (!ok)
        return -ENOMEM;
    call_reply_take(call, TAKE_PTR(reply));
    return 0;
}

int method_get_interface_description(struct call *call, struct fault *reterr_fault)
{
    const char *name = call_string(call, "interface");
    const struct interface_text *text = interface_text_find(name);
    _cleanup_json_ json_object *reply = NULL;

    if (!text) {
        fault_init(reterr_fault, FAULT_INTERFACE_NOT_FOUND, name);
        return CALL_REFUSED;
    }
    reply = json_object_new_object();
    if (!reply || !add_text(reply, "description", text->text))
        return -ENOMEM;
    call_reply_take(call, TAKE_PTR(reply));
    return 0;
}
