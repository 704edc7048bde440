/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/model-files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json-build.h"
#include "daemon/residency.h"
#include "policy/policy.h"

/* The policy was checked: a draft names a model of it. */
static const struct policy_model *draft_of(const struct policy *p, const struct policy_model *rules)
{
    return rules->draft ? policy_find_model(p, rules->draft) : NULL;
}

int model_files_others(const struct policy *p, const struct policy_model *rules, struct residency_file **ret,
                       size_t *ret_n)
{
    const struct policy_model *draft = draft_of(p, rules);
    struct residency_file *list;
    size_t n = 0;

    list = calloc(rules->n_adapters + 1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    if (draft)
        list[n++] = (struct residency_file){.path = draft->path, .sha256 = draft->sha256};
    for (size_t i = 0; i < rules->n_adapters; i++)
        list[n++] = (struct residency_file){.path = rules->adapters[i].value};
    *ret = list;
    *ret_n = n;
    return 0;
}

static bool add_adapters(json_object *config, const struct policy_model *rules)
{
    json_object *names = json_object_new_array();

    for (size_t i = 0; names && i < rules->n_adapters; i++)
        if (!append_take(names, json_object_new_string(rules->adapters[i].name))) {
            json_object_put(names);
            return false;
        }
    return add_take(config, "adapters", names);
}

bool model_files_add(json_object *config, const struct policy_model *rules, const struct residency *residency)
{
    uint64_t left = 0;
    bool is_partial = residency_is_partial(residency, &left);

    return add_count_if(config, is_partial, "weights_bytes_max", left) &&
           add_count(config, "files", residency_n_files(residency, 0)) &&
           add_count_if(config, rules->draft != NULL, "draft_files", residency_n_files(residency, 1)) &&
           add_adapters(config, rules);
}
