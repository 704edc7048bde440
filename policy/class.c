/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/class.h"

#include "policy/internal.h"

uint32_t policy_class_for(const struct policy *p, const struct policy_subject *s, uint32_t *ret_weight)
{
    const struct policy_quota_entry *best = NULL;

    for (size_t i = 0; i < p->n_quota_groups; i++) {
        const struct policy_quota_entry *group = &p->quota_groups[i];

        if (!group->known || !(group->total_given & (1u << POLICY_QUOTA_WEIGHT)) || !policy_is_member(s, group->id))
            continue;
        if (!best || group->total.weight < best->total.weight)
            best = group;
    }
    if (!best)
        return 0;
    *ret_weight = (uint32_t)best->total.weight;
    /* No group has the number -1. */
    return best->id + 1;
}
