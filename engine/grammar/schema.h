/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

struct ir;
struct json_object;

/**
 * schema_compile() - JSON texts that satisfy a JSON Schema into @ir, whose root is set; errors are in
 * ir->error docs/structured-output.md lists the keywords. Private to engine/grammar.
 */
void schema_compile(struct ir *ir, struct json_object *schema);

/**
 * schema_compile_node() - the same as a part of something larger; @path: of the schema, for errors
 */
uint32_t schema_compile_node(struct ir *ir, struct json_object *schema, const char *path);
