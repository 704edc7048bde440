/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

struct ir;
struct json_object;

/**
 * schema_compile() - JSON texts that satisfy a JSON Schema into @ir, whose root is set; errors are in
 * ir->error docs/structured-output.md lists the keywords. Private to engine/grammar.
 */
void schema_compile(struct ir *ir, struct json_object *schema);
