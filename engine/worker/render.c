/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/render.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/fault.h"
#include "engine/chat/chat.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/member.h"
#include "engine/worker/model.h"
#include "engine/worker/shield.h"

/* More than any conversation that fits into a context; bounds the work before the template's own limits do.
 */
#define MESSAGES_MAX 65536

static int add(json_object *to, const char *name, json_object *value_take)
{
    if (!value_take)
        return -ENOMEM;
    if (json_object_object_add(to, name, value_take) < 0) {
        json_object_put(value_take);
        return -ENOMEM;
    }
    return 0;
}

static int append(json_object *to, json_object *value_take)
{
    if (!value_take)
        return -ENOMEM;
    if (json_object_array_add(to, value_take) < 0) {
        json_object_put(value_take);
        return -ENOMEM;
    }
    return 0;
}

static int invalid(struct fault *reterr, const char *reason)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, "messages", "%s", reason);
    return -EINVAL;
}

/* {id, name, arguments: text} → {type, id, function: {name, arguments: object}}, which is what templates were
 * written for. Arguments that are no JSON object stay text. */
static int convert_tool_call(json_object *from, json_object *to, struct fault *reterr)
{
    const struct json_limits limits = {.bytes_max = 1 << 20, .depth_max = 32, .values_max = 100000};
    json_object *call, *function, *arguments = NULL;
    const char *name, *text = "", *id;
    size_t n_name, n_text = 0, n_id;

    if (!json_object_is_type(from, json_type_object) || member_string(from, "name", &name, &n_name, NULL) < 0)
        return invalid(reterr, "a tool call has a name");
    call = json_object_new_object();
    if (append(to, call) < 0 || add(call, "type", json_object_new_string("function")) < 0)
        return -ENOMEM;
    if (member_string(from, "id", &id, &n_id, NULL) == 0 &&
        add(call, "id", json_object_new_string_len(id, (int)n_id)) < 0)
        return -ENOMEM;
    function = json_object_new_object();
    if (add(call, "function", function) < 0 ||
        add(function, "name", json_object_new_string_len(name, (int)n_name)) < 0)
        return -ENOMEM;
    if (member_string(from, "arguments", &text, &n_text, NULL) == 0 &&
        json_parse(text, n_text, &limits, &arguments, NULL, NULL) == 0 &&
        json_object_is_type(arguments, json_type_object))
        return add(function, "arguments", arguments);
    json_object_put(arguments);
    return add(function, "arguments", json_object_new_string_len(text, (int)n_text));
}

static int convert_message(json_object *from, json_object *to, struct fault *reterr)
{
    static const struct {
        const char *name, *as;
    } texts[] = {{"role", "role"},
                 {"reasoning", "reasoning_content"},
                 {"name", "name"},
                 {"tool_call_id", "tool_call_id"}};
    json_object *m, *calls = NULL, *converted;
    const char *text;
    size_t n;
    int r;

    if (!json_object_is_type(from, json_type_object))
        return invalid(reterr, "a message is an object");
    m = json_object_new_object();
    if (append(to, m) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        r = member_string(from, texts[i].name, &text, &n, NULL);
        if (r == -EINVAL || (r == -ENOENT && i == 0))
            return invalid(reterr, "a message has a role, and its other members are texts");
        if (r == 0 && add(m, texts[i].as, json_object_new_string_len(text, (int)n)) < 0)
            return -ENOMEM;
    }
    /* Most templates add it up without asking whether it is there. */
    r = member_string(from, "content", &text, &n, NULL);
    if (r == -EINVAL)
        return invalid(reterr, "the content of a message is text");
    if (add(m, "content", json_object_new_string_len(r == 0 ? text : "", r == 0 ? (int)n : 0)) < 0)
        return -ENOMEM;
    r = member_array(from, "tool_calls", &calls, NULL);
    if (r == -EINVAL)
        return invalid(reterr, "tool_calls is an array");
    if (r == -ENOENT || json_object_array_length(calls) == 0)
        return 0;
    converted = json_object_new_array();
    if (add(m, "tool_calls", converted) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(calls); i++) {
        r = convert_tool_call(json_object_array_get_idx(calls, i), converted, reterr);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool has_system(json_object *messages)
{
    for (size_t i = 0; i < json_object_array_length(messages); i++) {
        json_object *m = json_object_array_get_idx(messages, i);
        const char *role;
        size_t n;

        if (json_object_is_type(m, json_type_object) && member_string(m, "role", &role, &n, NULL) == 0 &&
            (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0))
            return true;
    }
    return false;
}

static int add_messages(const struct model *m, json_object *call, json_object *variables,
                        struct fault *reterr)
{
    json_object *messages = NULL, *converted, *system;
    const char *text;
    size_t n;
    int r = member_array(call, "messages", &messages, reterr);

    if (r == -EINVAL)
        return r;
    if (r == -ENOENT || json_object_array_length(messages) == 0)
        return invalid(reterr, "expected at least one message");
    if (json_object_array_length(messages) > MESSAGES_MAX)
        return invalid(reterr, "too many messages");
    converted = json_object_new_array();
    if (add(variables, "messages", converted) < 0)
        return -ENOMEM;
    if (m->config.defaults && member_string(m->config.defaults, "system", &text, &n, NULL) == 0 && n > 0 &&
        !has_system(messages)) {
        system = json_object_new_object();
        if (append(converted, system) < 0 || add(system, "role", json_object_new_string("system")) < 0 ||
            add(system, "content", json_object_new_string_len(text, (int)n)) < 0)
            return -ENOMEM;
    }
    for (size_t i = 0; i < json_object_array_length(messages); i++) {
        r = convert_message(json_object_array_get_idx(messages, i), converted, reterr);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_token(const struct model *m, const char *name, int32_t id, json_object *variables)
{
    size_t n = 0;
    const char *text = id >= 0 ? tokenizer_token_text(m->tokenizer, id, &n) : NULL;

    return add(variables, name, json_object_new_string_len(text ? text : "", (int)n));
}

/* What the caller gives for the template itself, enable_thinking and the like. Nothing of ours can be
 * replaced. */
static int add_parameters(json_object *call, json_object *variables, struct fault *reterr)
{
    json_object *parameters = NULL;
    int r = member_object(call, "template_parameters", &parameters, reterr);

    if (r == -EINVAL)
        return r;
    if (r == -ENOENT)
        return 0;
    json_object_object_foreach(parameters, name, value)
    {
        if (json_object_object_get_ex(variables, name, NULL)) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "template_parameters", "%s is the service's own",
                      name);
            return -EINVAL;
        }
        if (json_object_object_add(variables, name, json_object_get(value)) < 0) {
            json_object_put(value);
            return -ENOMEM;
        }
    }
    return 0;
}

int worker_render(const struct model *m, json_object *call, json_object *tools, char **ret, size_t *ret_n,
                  struct fault *reterr)
{
    _cleanup_json_ json_object *variables = json_object_new_object(), *shielded = NULL;
    const struct chat_template *template = tools && m->tool_template ? m->tool_template : m->chat_template;
    struct chat_limits limits = CHAT_LIMITS_DEFAULT;
    time_t now = time(NULL);
    struct tm local;
    int r;

    if (!variables)
        return -ENOMEM;
    /* A fault beside a template is that of the one for tools. */
    if (!template || (tools && m->template_fault)) {
        if (m->template_fault && reterr) {
            *reterr = *m->template_fault;
            fault_subject(reterr, m->config.model);
        } else {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "model", "it has no chat template: use Complete");
        }
        return -EINVAL;
    }
    if (add(variables, "add_generation_prompt", json_object_new_boolean(true)) < 0 ||
        add_token(m, "bos_token", tokenizer_bos(m->tokenizer), variables) < 0 ||
        add_token(m, "eos_token", tokenizer_eos(m->tokenizer), variables) < 0)
        return -ENOMEM;
    if (tools && add(variables, "tools", json_object_get(tools)) < 0)
        return -ENOMEM;
    r = add_messages(m, call, variables, reterr);
    if (r == 0)
        r = add_parameters(call, variables, reterr);
    if (r == 0)
        r = shield_variables(m->tokenizer, variables, &shielded);
    if (r < 0)
        return r;
    /* A default system message comes on top of the call's own texts, which have been counted. */
    limits.output_max = (size_t)m->config.prompt_bytes_max + (1 << 20);
    localtime_r(&now, &local);
    return chat_render(template, shielded, &limits, &local, ret, ret_n, reterr);
}
