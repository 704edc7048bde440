/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/model-files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/build.h"
#include "daemon/residency.h"
#include "policy/policy.h"

/* The policy was checked: a draft names a model of it. */
static const char *draft_path(const struct policy *p, const struct policy_model *rules)
{
    const struct policy_model *draft = rules->draft ? policy_find_model(p, rules->draft) : NULL;

    return draft ? draft->path : NULL;
}

int model_files_others(const struct policy *p, const struct policy_model *rules, const char ***ret, size_t *ret_n)
{
    const char *draft = draft_path(p, rules), **list;

    *ret = NULL;
    *ret_n = 0;
    if (!draft)
        return 0;
    list = calloc(1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    list[0] = draft;
    *ret = list;
    *ret_n = 1;
    return 0;
}

bool model_files_add(json_object *config, const struct policy_model *rules, const struct residency *residency)
{
    return add_count(config, "files", residency_n_files(residency, 0)) &&
           add_count_if(config, rules->draft != NULL, "draft_files", residency_n_files(residency, 1));
}

bool model_files_alike(const struct policy *p, const struct policy_model *a, const struct policy *q,
                       const struct policy_model *b)
{
    const char *x = draft_path(p, a), *y = draft_path(q, b);

    return x && y ? strcmp(x, y) == 0 : x == y;
}
