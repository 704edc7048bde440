/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What callers give to a chat template is text to the model, whatever it spells out: names and values are shielded
 * (engine/token/tokenizer.h) before the template sees them.
 */

#include "base/json.h"

struct tokenizer;

/**
 * shield_variables() - a copy of a template's variables in which nothing but the service's own spells a control token
 * @variables: borrowed; what need not change is shared with the copy. Its bos_token and eos_token are the service's own
 * Returns 0 or -ENOMEM.
 */
int shield_variables(const struct tokenizer *t, json_object *variables, json_object **ret);
