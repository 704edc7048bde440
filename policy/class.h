/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Groups whose members share one weight (quotas.groups.*.total.weight): however many of them ask at the same time,
 * together they get no more than one user of that weight.
 */

#include "policy/policy.h"

/**
 * policy_class_for() - the group whose total weight @s shares with its other members: of several the lightest
 * @ret_weight: untouched without one
 * Returns a number of the group's that stays the same over reloads, 0: there is none.
 */
uint32_t policy_class_for(const struct policy *p, const struct policy_subject *s, uint32_t *ret_weight);
