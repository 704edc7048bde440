/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a worker gets to see of a call: the client's parameters, which the interface's types have been checked against,
 * minus what is the daemon's business, plus the defaults of the policy where the client says nothing, with max_tokens
 * kept under what model and user may have. The text holds a prompt: it is zeroed when it is freed (request.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "daemon/internal.h"

static bool is_ours(const char *name)
{
    static const char *const names[] = {"model", "app", "priority", "deadline_ms"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

/* Adds a value that someone else owns, too. */
static int add(json_object *object, const char *name, json_object *value)
{
    if (json_object_object_add(object, name, json_object_get(value)) == 0)
        return 0;
    json_object_put(value);
    return -ENOMEM;
}

static int add_system(json_object *into, json_object *system)
{
    _cleanup_json_ json_object *messages = NULL, *message = NULL, *role = NULL;
    json_object *given, *first, *first_role;
    int r;

    if (!json_object_object_get_ex(into, "messages", &given) || !json_object_is_type(given, json_type_array))
        return 0;
    first = json_object_array_get_idx(given, 0);
    if (first && json_object_object_get_ex(first, "role", &first_role) &&
        strcmp(json_object_get_string(first_role), "system") == 0)
        return 0;
    messages = json_object_new_array();
    message = json_object_new_object();
    role = json_object_new_string("system");
    if (!messages || !message || !role)
        return -ENOMEM;
    r = add(message, "role", role);
    if (r == 0)
        r = add(message, "content", system);
    if (r < 0)
        return r;
    if (json_object_array_add(messages, json_object_get(message)) < 0) {
        json_object_put(message);
        return -ENOMEM;
    }
    for (size_t i = 0; i < json_object_array_length(given); i++) {
        json_object *entry = json_object_array_get_idx(given, i);

        if (json_object_array_add(messages, json_object_get(entry)) < 0) {
            json_object_put(entry);
            return -ENOMEM;
        }
    }
    return add(into, "messages", messages);
}

static int add_defaults(json_object *into, enum request_kind kind, json_object *defaults)
{
    if (!defaults || (kind != REQUEST_COMPLETE && kind != REQUEST_CHAT))
        return 0;
    json_object_object_foreach(defaults, name, value)
    {
        int r = 0;

        if (strcmp(name, "system") == 0)
            r = kind == REQUEST_CHAT ? add_system(into, value) : 0;
        else if (!json_object_object_get_ex(into, name, NULL))
            r = add(into, name, value);
        if (r < 0)
            return r;
    }
    return 0;
}

static int limit_output(json_object *into, uint64_t limit)
{
    json_object *given = NULL;

    if (limit >= INT32_MAX)
        return 0;
    if (json_object_object_get_ex(into, "max_tokens", &given) && json_object_get_int64(given) <= (int64_t)limit)
        return 0;
    given = json_object_new_int64((int64_t)limit);
    if (!given)
        return -ENOMEM;
    if (json_object_object_add(into, "max_tokens", given) < 0) {
        json_object_put(given);
        return -ENOMEM;
    }
    return 0;
}

static uint64_t output_of(json_object *parameters)
{
    json_object *given = NULL;
    int64_t n;

    if (!json_object_object_get_ex(parameters, "max_tokens", &given))
        return POLICY_UNLIMITED;
    n = json_object_get_int64(given);
    return n > 0 ? (uint64_t)n : 0;
}

/* An adapter is one of those that the policy lists for the model. */
static int check_adapter(json_object *parameters, const struct policy_model *rules, struct fault *reterr_fault)
{
    json_object *adapter;

    if (!json_object_object_get_ex(parameters, "adapter", &adapter))
        return 0;
    for (size_t i = 0; i < rules->n_adapters; i++) {
        if (strcmp(rules->adapters[i].name, json_object_get_string(adapter)) == 0)
            return 0;
    }
    fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "adapter", "an adapter that the policy lists for this model");
    return REQUEST_REFUSED;
}

int request_parameters(enum request_kind kind, struct json_object *parameters, const struct policy_model *rules,
                       const struct policy_quota *quota, char **ret, size_t *ret_n, uint64_t *ret_output_max,
                       struct fault *reterr_fault)
{
    _cleanup_json_ json_object *into = json_object_new_object();
    uint64_t output = rules->max_tokens == POLICY_AUTO ? POLICY_UNLIMITED : rules->max_tokens;
    uint64_t output_max = 0;
    const char *text;
    int r;

    if (!into)
        return -ENOMEM;
    json_object_object_foreach(parameters, name, value)
    {
        if (!value || is_ours(name))
            continue;
        r = add(into, name, value);
        if (r < 0)
            return r;
    }
    r = check_adapter(into, rules, reterr_fault);
    if (r != 0)
        return r;
    r = add_defaults(into, kind, rules->defaults);
    if (r < 0)
        return r;
    if (quota->output_tokens < output)
        output = quota->output_tokens;
    if (kind == REQUEST_COMPLETE || kind == REQUEST_CHAT) {
        r = limit_output(into, output);
        if (r < 0)
            return r;
        output_max = output_of(into);
    }
    text = json_text(into);
    if (!text)
        return -ENOMEM;
    *ret_n = strlen(text);
    *ret_output_max = output_max;
    *ret = strdup(text);
    return *ret ? 0 : -ENOMEM;
}
