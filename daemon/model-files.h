/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The files of a model: its own, then those of its draft model, then its adapters', one each. They are opened, held
 * and locked together, in this order, and go to a worker in one MODEL packet, whose configuration says how many belong
 * to whom (engine/worker/config.h).
 */

#include <stdbool.h>
#include <stddef.h>

struct json_object;
struct policy;
struct policy_model;
struct residency;
struct residency_file;

/**
 * model_files_others() - the files beside the model's own, in order, each with the digest that the policy gives it
 * @p:   the policy that @rules are of
 * @ret: [*ret_n] points into the policy; the caller frees the array
 * Returns 0 or -ENOMEM.
 */
int model_files_others(const struct policy *p, const struct policy_model *rules, struct residency_file **ret,
                       size_t *ret_n);

/**
 * model_files_add() - say in a worker's configuration whose files are which
 * @residency: was opened with the paths of model_files_others()
 * False: no memory.
 */
bool model_files_add(struct json_object *config, const struct policy_model *rules, const struct residency *residency);
