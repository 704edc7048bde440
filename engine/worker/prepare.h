/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * From a SUBMIT's JSON to something that can be computed, or answered at once: parameters are checked, chats
 * rendered, texts tokenised. Helper thread. Pure but for the clock (templates may ask for the date) and
 * random seeds.
 */

#include "base/json.h"
#include "engine/worker/intake.h"

struct fault;
struct model;
struct work;

/**
 * prepare() - what a job asks for
 * @ret_work:  a request to be computed, or NULL
 * @ret_reply: where there is nothing to compute: the answer, for DONE; NULL with *ret_work
 * @reterr:    why not: InvalidParameter, ContextTooLong, MethodNotImplemented …
 * Returns 0; -EINVAL (with a fault); -ENOMEM.
 */
int prepare(const struct model *m, const struct job *job, struct work **ret_work, json_object **ret_reply,
            struct fault *reterr);
