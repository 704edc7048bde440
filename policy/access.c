/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may do what. Two rules carry everything: a grant by group looks only at the groups that the kernel attached to
 * the connection (and the primary one), a denial also at what NSS says, so that an old login session can't escape a
 * denial and a stale NSS answer can't grant anything.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/internal.h"

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

_Static_assert(sizeof(uid_t) == sizeof(uint32_t) && sizeof(gid_t) == sizeof(uint32_t), "ids are 32 bits");

void policy_set_sort(struct policy_set *set)
{
    if (set->n_uids > 0)
        qsort(set->uids, set->n_uids, sizeof(*set->uids), compare_ids);
    if (set->n_gids > 0)
        qsort(set->gids, set->n_gids, sizeof(*set->gids), compare_ids);
}

void policy_set_done(struct policy_set *set)
{
    free(set->uids);
    free(set->gids);
    *set = (struct policy_set){.given = false};
}

static bool has_uid(const struct policy_set *set, uid_t uid)
{
    return set->n_uids > 0 && bsearch(&uid, set->uids, set->n_uids, sizeof(*set->uids), compare_ids);
}

static bool has_gid(const struct policy_set *set, gid_t gid)
{
    return set->n_gids > 0 && bsearch(&gid, set->gids, set->n_gids, sizeof(*set->gids), compare_ids);
}

/* By the groups that the kernel knows of. */
static bool has_group_of(const struct policy_set *set, const struct policy_subject *s)
{
    if (has_gid(set, s->gid))
        return true;
    for (size_t i = 0; i < s->n_groups; i++) {
        if (has_gid(set, s->groups[i]))
            return true;
    }
    return false;
}

/* What is granted to a user by name is not for what runs in the user's containers. */
static bool grants(const struct policy_set *set, const struct policy_subject *s)
{
    return set->everybody || (!s->is_subordinate && has_uid(set, s->uid)) || has_group_of(set, s);
}

static bool denies(const struct policy_set *set, const struct policy_subject *s)
{
    if (set->everybody || has_uid(set, s->uid) || has_group_of(set, s))
        return true;
    for (size_t i = 0; i < s->n_nss_groups; i++) {
        if (has_gid(set, s->nss_groups[i]))
            return true;
    }
    return false;
}

bool policy_is_admin(const struct policy *p, const struct policy_subject *s)
{
    if (s->is_subordinate)
        return false;
    if (!p->admins.given)
        return s->uid == 0 || s->uid == p->own_uid;
    return grants(&p->admins, s);
}

bool policy_may_use(const struct policy *p, const struct policy_model *model, const struct policy_subject *s)
{
    if (denies(&model->deny, s))
        return false;
    return !model->allow.given || grants(&model->allow, s);
}

bool policy_may_share(const struct policy *p, const struct policy_model *model, const struct policy_subject *s)
{
    return policy_may_use(p, model, s) && model->share.given && grants(&model->share, s);
}

bool policy_name_is_valid(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);

    return n > 0 && n <= POLICY_NAME_MAX && strspn(name, letters) == n;
}

static int compare_model(const void *key, const void *model)
{
    return strcmp(key, ((const struct policy_model *)model)->name);
}

static int compare_pair(const void *key, const void *pair)
{
    return strcmp(key, ((const struct policy_pair *)pair)->name);
}

const struct policy_model *policy_find_model(const struct policy *p, const char *name_or_alias)
{
    const struct policy_pair *alias;

    if (p->n_models == 0)
        return NULL;
    if (p->n_aliases > 0) {
        alias = bsearch(name_or_alias, p->aliases, p->n_aliases, sizeof(*p->aliases), compare_pair);
        if (alias)
            name_or_alias = alias->value;
    }
    return bsearch(name_or_alias, p->models, p->n_models, sizeof(*p->models), compare_model);
}

uint64_t policy_size_of(const struct policy_size *size, uint64_t whole)
{
    if (!size->is_share)
        return size->bytes;
    return (uint64_t)((unsigned __int128)whole * size->share_ppm / 1000000);
}

const char *policy_ram_to_string(enum policy_ram ram)
{
    static const char *const names[POLICY_RAM_MAX] = {"map", "lock", "copy"};

    return names[ram];
}

const char *policy_when_to_string(enum policy_when when)
{
    static const char *const names[POLICY_WHEN_MAX] = {"on-demand", "always"};

    return names[when];
}
