/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The messages of a Chat call as the text that the model was trained on: what the interface calls messages is
 * turned into what templates expect, and the template is run.
 */

#include "base/json.h"

struct fault;
struct model;

/**
 * worker_render() - the prompt for a call of Chat
 * @call: its parameters; borrowed
 * @tools: for the template, which is the model's second one then if it has two; NULL: none
 * @ret:  [*ret_n] text in which control tokens are spelled out, the caller frees it
 * Returns 0; -EINVAL or -E2BIG with a fault; -ENOMEM.
 */
int worker_render(const struct model *m, json_object *call, json_object *tools, char **ret, size_t *ret_n,
                  struct fault *reterr);
