/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Texts whose computed state all users may share (models.*.public_prefixes): read when a worker is started. What can't
 * be read is left out and said in the log: the model answers the same without it, only later.
 */

#include <stdbool.h>
#include <sys/types.h>

struct json_object;
struct log;
struct policy_model;

/**
 * prefixes_add() - put the texts into a worker's configuration
 * @own_uid: besides root, whose files count as the administrator's
 * False: no memory.
 */
bool prefixes_add(struct json_object *config, const struct policy_model *rules, uid_t own_uid, const struct log *log);
