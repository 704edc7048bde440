/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * tools and tool_choice of a Chat call. Helper thread.
 */

#include "base/json.h"

struct fault;
struct matcher;
struct model;

enum tool_choice { TOOLS_NONE, TOOLS_AUTO, TOOLS_REQUIRED };

struct tools {
    enum tool_choice choice; /* NONE: none are given, or none may be called */
    json_object *list; /* [{type, function: {name, description, parameters}}], for the template; owned */
    size_t only;       /* index of the one that has to be called, SIZE_MAX: any */
};

/**
 * tools_parse() - read and check them
 * @ret: to be given to tools_done()
 * Returns 0; -EINVAL with an InvalidParameter; -ENOMEM.
 */
int tools_parse(const struct model *m, json_object *call, struct tools *ret, struct fault *reterr);
void tools_done(struct tools *t);

/**
 * tools_matcher() - where a call is asked for (TOOLS_REQUIRED): what it has to look like in the model's form
 * @ret: NULL: the answer is free
 * Returns 0; -EINVAL with an InvalidParameter about "tools"; -ENOMEM.
 */
int tools_matcher(const struct model *m, const struct tools *t, struct matcher **ret, struct fault *reterr);
