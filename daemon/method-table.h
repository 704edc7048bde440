/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which methods there are: one const row each with its name, who may call it and its handler, beside the interfaces
 * that say what its parameters are. To add a method, declare it in its .varlink file and write its row and handler; a
 * declared method without a row is answered with MethodNotImplemented.
 */

#include "base/cleanup.h"
#include "base/fault.h"
#include "client/varlink/idl.h"
#include "daemon/call.h"

enum method_who { METHOD_ANYONE, METHOD_ADMINS };

struct method {
    const char *name; /* fully qualified */
    enum method_who who;
    call_handler_t handler;
    bool quiet; /* questions that programs ask again and again: logged at debug level */
};

struct method_table;

/**
 * method_table_new() - parse the interfaces; each row must be declared in one. Returns 0, -ENOMEM, -EINVAL
 */
int method_table_new(struct method_table **ret);

/**
 * method_table_free() - release; takes NULL, returns NULL
 */
struct method_table *method_table_free(struct method_table *t);

DEFINE_CLEANUP(struct method_table *, method_table_free)

/**
 * method_table_find() - the method with a fully qualified name
 * Returns 0; CALL_REFUSED (InterfaceNotFound, MethodNotFound, MethodNotImplemented); -ENOMEM.
 */
int method_table_find(const struct method_table *t, const char *name, const struct method **ret,
                      const struct idl_method **ret_idl, struct fault *reterr_fault);

/**
 * method_() - the handlers, in method-*.c: each is a call_handler_t
 */
int method_get_info(struct call *call, struct fault *reterr_fault);
int method_get_interface_description(struct call *call, struct fault *reterr_fault);
int method_list_models(struct call *call, struct fault *reterr_fault);
int method_complete(struct call *call, struct fault *reterr_fault);
int method_chat(struct call *call, struct fault *reterr_fault);
int method_embed(struct call *call, struct fault *reterr_fault);
int method_tokenize(struct call *call, struct fault *reterr_fault);
int method_detokenize(struct call *call, struct fault *reterr_fault);
int method_share(struct call *call, struct fault *reterr_fault);
int method_load(struct call *call, struct fault *reterr_fault);
int method_unload(struct call *call, struct fault *reterr_fault);
int method_pin(struct call *call, struct fault *reterr_fault);
int method_unpin(struct call *call, struct fault *reterr_fault);
int method_reload(struct call *call, struct fault *reterr_fault);
int method_plan(struct call *call, struct fault *reterr_fault);
int method_status(struct call *call, struct fault *reterr_fault);
int method_metrics(struct call *call, struct fault *reterr_fault);
int method_watch(struct call *call, struct fault *reterr_fault);
int method_usage_get(struct call *call, struct fault *reterr_fault);
int method_usage_requests(struct call *call, struct fault *reterr_fault);
int method_usage_cancel(struct call *call, struct fault *reterr_fault);

/**
 * request_to_json(), status_models_to_json() - parts that several methods reply with: NULL when memory is short
 */
json_object *request_to_json(const struct request_status *q);
json_object *status_models_to_json(const struct manager_status *status);

/**
 * usage_whose() - whose usage a call asks for with its parameter uid; of others only administrators may know
 * @ret_all: of everybody's (-1). Returns 0 or CALL_REFUSED.
 */
int usage_whose(struct call *call, bool *ret_all, uid_t *ret_uid, struct fault *reterr_fault);
