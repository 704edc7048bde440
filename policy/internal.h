/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files of this folder share and nobody else sees.
 */

#include "base/json.h"
#include "policy/policy.h"

/* The files that made up a policy, in merge order, with the positions of their values. */
struct policy_sources {
    struct policy_source {
        char *file;
        struct json_index *index;
    } *files; /* [n_files] */
    size_t n_files;
};

/* Lays @from over @into: objects key by key, all else replaces, null removes. Depth is bounded by the parser's. */
int policy_merge(json_object *into, json_object *from);

/* The last file that has a value at @path (it wins), or that has the nearest value around it. */
bool policy_sources_find(const struct policy_sources *sources, const char *path, const char **ret_file,
                         uint32_t *ret_line, uint32_t *ret_column);

/* Fills the typed half of @p from p->document. p->sources, p->own_uid are set. */
int policy_check(struct policy *p, const struct policy_names *names, struct fault *reterr_fault);

void policy_set_done(struct policy_set *set);

/* Sorts, for policy_set_has_uid() and _gid(). */
void policy_set_sort(struct policy_set *set);

/* Whether @s is in the group, by whatever word: what counts for quotas. */
bool policy_is_member(const struct policy_subject *s, gid_t gid);
