/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Quotas by name and by group, for those who enforce and report them; who may have how much is in policy.h.
 */

#include "policy/policy.h"

/**
 * policy_totals_for() - the groups of @s that may have so much as a whole (has_total)
 * @ret: [p->n_quota_groups] filled from the front; they belong to @p
 * Returns how many.
 */
size_t policy_totals_for(const struct policy *p, const struct policy_subject *s, const struct policy_quota_entry **ret);

/**
 * policy_quota_key_name() - "tokens_per_day"; a static string
 */
const char *policy_quota_key_name(enum policy_quota_key key);

/**
 * policy_quota_value() - the ceiling of one key, as a number; POLICY_UNLIMITED: none
 */
uint64_t policy_quota_value(const struct policy_quota *q, enum policy_quota_key key);
