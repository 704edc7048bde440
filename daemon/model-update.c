/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New rules for a model that stays in the policy. What it was loaded with (@loaded) and what the policy says
 * now
 * (@rules) are kept apart: a worker that is started again in between gets what it had.
 *
 * When the two differ, whoever uses the model should notice nothing. So a successor, a second model with the
 * same name that nobody can ask for yet, is loaded beside it:
 *
 *   successor ready            takes over name, waiting requests and waits; the one before drains and goes
 *   no room for both           the one before drains first, then the new version is loaded in its place
 *   successor failed           the one before stays, and status says why; the next reload tries again
 *   the one before failed      the successor takes over at once, ready or not
 *
 * A model that nobody uses and nothing pins is just unloaded: the next request loads the new version.
 *
 * The same way leads back to a GPU that was lost (model-gpu.c), but that there the one before stays in any case.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/internal.h"
#include "daemon/model-files.h"

int model_collect_aliases(struct model *model)
{
    const struct policy *p = model->rules_of;
    const char **aliases = calloc(p->n_aliases ? p->n_aliases : 1, sizeof(*aliases));
    size_t n = 0;

    if (!aliases)
        return -ENOMEM;
    for (size_t i = 0; i < p->n_aliases; i++) {
        if (strcmp(p->aliases[i].value, model->rules->name) == 0)
            aliases[n++] = p->aliases[i].name;
    }
    free(model->aliases);
    model->aliases = aliases;
    model->n_aliases = n;
    return 0;
}

static json_object *file_texts(const struct residency_file *files, size_t n)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < n; i++) {
        if (!append_take(array, json_object_new_string(files[i].path)) ||
            !append_take(array, json_object_new_string(files[i].sha256 ? files[i].sha256 : "")))
            return NULL;
    }
    return TAKE_PTR(array);
}

static json_object *path_texts(char *const *paths, size_t n)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < n; i++) {
        if (!append_take(array, json_object_new_string(paths[i])))
            return NULL;
    }
    return TAKE_PTR(array);
}

static json_object *adapter_names(const struct policy_model *rules)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < rules->n_adapters; i++) {
        if (!append_take(array, json_object_new_string(rules->adapters[i].name)))
            return NULL;
    }
    return TAKE_PTR(array);
}

int model_loading_text(const struct policy *p, const struct policy_model *rules, char **ret)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    _cleanup_free_ struct residency_file *others = NULL;
    const char *text;
    size_t n_others;

    if (!o || model_files_others(p, rules, &others, &n_others) < 0 || !add_text(o, "path", rules->path) ||
        !add_text_if(o, "sha256", rules->sha256) || !add_count(o, "ram", rules->residency.ram) ||
        !add_count(o, "huge", rules->residency.huge) || !add_count(o, "numa", rules->residency.numa) ||
        !add_count(o, "numa_node", rules->residency.numa_node) ||
        !add_count_if(o, rules->residency.limit.bytes > 0, "limit", rules->residency.limit.bytes) ||
        !add_count_if(o, rules->residency.limit.is_share, "limit_ppm", rules->residency.limit.share_ppm) ||
        !add_count(o, "tokens", rules->context.tokens) ||
        !add_count(o, "sequences", rules->context.sequences) || !add_text(o, "k", rules->context.k) ||
        !add_text(o, "v", rules->context.v) || !add_bool(o, "draft", rules->draft != NULL) ||
        !add_take(o, "others", file_texts(others, n_others)) ||
        !add_take(o, "public_prefixes", path_texts(rules->public_prefixes, rules->n_public_prefixes)) ||
        !add_take(o, "adapters", adapter_names(rules)))
        return -ENOMEM;
    text = json_text(o);
    *ret = text ? strdup(text) : NULL;
    return *ret ? 0 : -ENOMEM;
}

/* Whether what was loaded under @a, of policy @p, would be loaded alike under @b, of policy @q. Without memory to tell,
 * what is loaded stays. */
static bool loads_alike(const struct policy *p, const struct policy_model *a, const struct policy *q,
                        const struct policy_model *b)
{
    _cleanup_free_ char *x = NULL, *y = NULL;

    return model_loading_text(p, a, &x) < 0 || model_loading_text(q, b, &y) < 0 || strcmp(x, y) == 0;
}

void model_set_loaded(struct model *model)
{
    struct policy *before = model->loaded_of;

    model->loaded_of = policy_ref(model->rules_of);
    model->loaded = model->rules;
    policy_unref(before);
}

bool model_is_pinned(const struct model *model)
{
    if (model->pin == PIN_BY_POLICY)
        return model->rules->residency.when == POLICY_WHEN_ALWAYS;
    return model->pin == PIN_ON;
}

void model_pin(struct model *model, enum model_pin pin)
{
    model->pin = pin;
    if (model->successor)
        model->successor->pin = pin;
    model_used(model);
}

static void unlink_successor(struct model *model)
{
    model->successor->predecessor = NULL;
    model->successor = NULL;
}

static void leave(struct model *model)
{
    model->removed = true;
    model->wanted = model->reload = model->renews = false;
    model_handle(model, MODEL_UNLOAD);
    model_kick(model);
}

void model_drop_successor(struct model *model)
{
    struct model *successor = model->successor;

    if (!successor)
        return;
    model->gpu.returns = false;
    unlink_successor(model);
    leave(successor);
}

void model_take_over(struct model *successor)
{
    struct model *before = successor->predecessor;

    if (!before)
        return;
    unlink_successor(before);
    requests_move_held(before, successor);
    model_move_waits(before, successor);
    leave(before);
    model_kick(successor);
}

void model_successor_failed(struct model *successor)
{
    struct model *before = successor->predecessor;
    char why[448];

    if (!before)
        return;
    unlink_successor(before);
    if (before->gpu.returns) {
        before->gpu.returns = false;
        before->gpu.stayed_us = manager_now_us(before->manager);
        before->note[0] = 0;
    } else if (successor->fault.kind == FAULT_INSUFFICIENT_MEMORY) {
        before->reload = true;
        model_handle(before, MODEL_UNLOAD);
    } else {
        snprintf(before->note, sizeof(before->note),
                 "the new version can't be loaded, the one before stays: %s",
                 fault_describe(&successor->fault, why, sizeof(why)));
    }
    leave(successor);
}

int model_begin_successor(struct model *model, const char *note)
{
    struct model *successor;
    int r = model_new(model->manager, model->rules_of, model->rules, &successor);

    if (r < 0)
        return r;
    successor->predecessor = model;
    model->successor = successor;
    successor->wanted = true;
    snprintf(model->note, sizeof(model->note), "%s", note);
    model_kick(successor);
    return 0;
}

static void replace(struct model *model)
{
    bool in_use = model_is_pinned(model) || model->n_submitted > 0 || model->n_held > 0;

    /* Without memory for one the way without a successor is left. */
    if (model->state == MODEL_READY && in_use && model_begin_successor(model, "its new version is being loaded") == 0)
        return;
    model->reload = in_use;
    model_handle(model, MODEL_UNLOAD);
}

static int take_rules(struct model *model, struct policy *policy, const struct policy_model *rules)
{
    struct policy *before = model->rules_of;

    model->rules_of = policy_ref(policy);
    model->rules = rules;
    policy_unref(before);
    return model_collect_aliases(model);
}

int model_update(struct model *model, struct policy *policy, const struct policy_model *rules)
{
    bool is_loaded =
        model->state != MODEL_ABSENT && model->state != MODEL_FAILED && model->state != MODEL_DRAINING;
    int r;

    r = take_rules(model, policy, rules);
    if (r < 0)
        return r;
    model->pin = PIN_BY_POLICY; /* Pin and Unpin hold until here */
    if (model->state == MODEL_READY && !model->successor)
        model->note[0] = 0;
    if (model->successor) {
        const struct model *s = model->successor;

        if (!s->loaded || loads_alike(s->loaded_of, s->loaded, policy, rules))
            r = take_rules(model->successor, policy, rules);
        else
            model_drop_successor(model);
    }
    if (is_loaded && !model->successor && !loads_alike(model->loaded_of, model->loaded, policy, rules))
        replace(model);
    if (model->renews && !loads_alike(model->loaded_of, model->loaded, policy, rules)) {
        model->renews = false;
        model->reload = true;
    }
    if (model_is_pinned(model) && (model->state == MODEL_ABSENT || model->state == MODEL_FAILED))
        model->wanted = true;
    /* A policy that is read is no use of its models: who leaves first stays the same. */
    model_watch_idle(model);
    model_kick(model);
    return r;
}
