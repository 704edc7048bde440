/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists: the items that the schema names by their places, then others. Items that are all different are
 * written for values that can be listed: what is there already is remembered as a set, one rule for each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/intern.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/nodes.h"
#include "engine/grammar/schema-internal.h"

#define CONTAINED_MAX     256u /* rules are made one inside the other */
#define UNIQUE_VALUES_MAX 64u
#define UNIQUE_STATES_MAX 4096u

static uint32_t array_items(struct schema *s, json_object *schema, json_object *rest, struct nodes *list,
                            uint32_t min, uint32_t max)
{
    json_object *first = schema_get(schema, "prefixItems");
    uint32_t comma = ir_cat_of(s->ir, ir_text(s->ir, ","), schema_space(s)), item, n = 0, least;
    size_t n_path;

    if (first && !json_object_is_type(first, json_type_array)) {
        schema_fail(s, "prefixItems: expected a list of schemas");
        return 0;
    }
    n_path = schema_enter(s, "prefixItems");
    for (size_t i = 0; first && i < json_object_array_length(first) && n < max && !s->ir->error; i++, n++) {
        size_t n_inner = schema_enter_index(s, i);

        nodes_add_optional(s->ir, list, schema_node(s, json_object_array_get_idx(first, i)), n < min);
        schema_leave(s, n_inner);
    }
    schema_leave(s, n_path);
    if (n < max &&
        !(rest && json_object_is_type(rest, json_type_boolean) && !json_object_get_boolean(rest))) {
        n_path = schema_enter(s, "items");
        item = schema_shared(s, rest ? schema_node(s, rest) : schema_any(s));
        schema_leave(s, n_path);
        least = min > n ? min - n : 0;
        nodes_add_optional(s->ir, list,
                           schema_separated(s, item, comma, least, max == IR_FOREVER ? IR_FOREVER : max - n),
                           least > 0);
    } else if (n < min) {
        schema_fail(s, "minItems is %u, but there can be only %u items", min, n);
    }
    return comma;
}

/* An item of a list may be absent only if all behind it are: ir_list() alone would leave holes. */
static uint32_t prefix_list(struct schema *s, uint32_t comma, const struct nodes *list)
{
    uint32_t node = 0;

    for (size_t i = list->n; i > 0 && !s->ir->error; i--) {
        uint32_t rest = i == 1 ? ir_cat_of(s->ir, list->nodes[0], node)
                               : ir_cat_of(s->ir, comma, list->nodes[i - 1], node);

        node = list->needed[i - 1] ? rest : ir_repeat(s->ir, rest, 0, 1);
    }
    return node;
}

/* ---- items that are all different ---- */

static bool are_unique(struct schema *s, json_object *schema)
{
    json_object *unique = schema_get(schema, "uniqueItems");

    if (unique && !json_object_is_type(unique, json_type_boolean))
        schema_fail(s, "uniqueItems: expected true or false");
    return unique && json_object_get_boolean(unique);
}

struct unique {
    struct schema *s;
    json_object *values;
    uint32_t min, max, comma;
    uint32_t literals[UNIQUE_VALUES_MAX]; /* rules */
    struct intern states;                 /* which values are there already, as two words */
    uint32_t rules[UNIQUE_STATES_MAX];
};

/* How many sets of fewer than @max of @n values there are: so much has to be remembered. */
static uint64_t n_sets(size_t n, uint32_t max)
{
    uint64_t sum = 0, choose = 1;

    for (uint64_t k = 0; k < max && k <= n && sum <= UNIQUE_STATES_MAX; k++) {
        sum += choose;
        choose = choose * (n - k) / (k + 1);
    }
    return sum;
}

static uint32_t unique_rest(struct unique *u, uint64_t used);

static uint32_t make_rest(struct unique *u, uint64_t used)
{
    struct ir *ir = u->s->ir;
    _cleanup_nodes_ struct nodes list = {0};

    if ((uint32_t)__builtin_popcountll(used) >= u->min)
        nodes_add(ir, &list, 0);
    for (size_t i = 0; i < json_object_array_length(u->values) && !ir->error; i++)
        if (!(used >> i & 1))
            nodes_add(ir, &list,
                      ir_cat_of(ir, used ? u->comma : 0, ir_call(ir, u->literals[i]),
                                unique_rest(u, used | UINT64_C(1) << i)));
    return ir_alt(ir, list.nodes, list.n);
}

/* Behind the values in @used: none, or a comma and one of the others. */
static uint32_t unique_rest(struct unique *u, uint64_t used)
{
    uint32_t words[] = {(uint32_t)used, (uint32_t)(used >> 32)}, state, n = u->states.n;
    size_t bytes = 0;

    if ((uint32_t)__builtin_popcountll(used) == u->max || u->s->ir->error)
        return 0;
    state = intern_put(&u->states, words, 2, &bytes);
    if (state == INTERN_NONE) {
        u->s->ir->error = -ENOMEM;
        return 0;
    }
    if (state == n) {
        u->rules[state] = ir_rule_new(u->s->ir, "", 0);
        ir_rule_set(u->s->ir, u->rules[state], make_rest(u, used));
    }
    return ir_call(u->s->ir, u->rules[state]);
}

static uint32_t unique_items(struct schema *s, json_object *schema, uint32_t min, uint32_t max)
{
    _cleanup_free_ struct unique *u = calloc(1, sizeof(*u));
    json_object *items = schema_get(schema, "items");
    size_t n;
    uint32_t node;

    if (!u) {
        s->ir->error = -ENOMEM;
        return 0;
    }
    *u = (struct unique){.s = s, .min = min, .max = max, .values = items ? schema_values(s, items) : NULL};
    if (!u->values || schema_get(schema, "prefixItems")) {
        schema_fail(
            s, "uniqueItems is supported for items of an enum, of const alternatives, of bounded integers or "
               "of booleans, without prefixItems; give such items, or leave it out and check the answer");
        return 0;
    }
    n = json_object_array_length(u->values);
    if (n < min) {
        schema_fail(s, "minItems is %u, but there are only %zu different items", min, n);
        return 0;
    }
    if (n > UNIQUE_VALUES_MAX || n_sets(n, max) > UNIQUE_STATES_MAX) {
        schema_fail(
            s,
            "uniqueItems: %zu different items are too many to remember which are there already (%u sets of "
            "them can be told apart, and at most %u items); ask for fewer by maxItems, or leave it out and "
            "check the answer",
            n, UNIQUE_STATES_MAX, UNIQUE_VALUES_MAX);
        return 0;
    }
    u->comma = ir_cat_of(s->ir, ir_text(s->ir, ","), schema_space(s));
    for (size_t i = 0; i < n; i++)
        u->literals[i] = schema_shared(s, schema_literal(s, json_object_array_get_idx(u->values, i)));
    node = unique_rest(u, 0);
    intern_done(&u->states);
    return node;
}

/* ---- an item of a kind ---- */

/* How many items are written, and whether the one that is asked for is among them. */
struct contained {
    struct schema *s;
    uint32_t min, max, comma;
    uint32_t n_most;        /* counts from there on are the same */
    uint32_t item, special; /* rules */
    uint32_t rules[2][CONTAINED_MAX + 1];
};

static uint32_t contained_rest(struct contained *c, bool found, uint32_t n)
{
    struct ir *ir = c->s->ir;
    _cleanup_nodes_ struct nodes list = {0};
    uint32_t count = n < c->n_most ? n : c->n_most, *rule = &c->rules[found][count],
             comma = count > 0 ? c->comma : 0;

    if (ir->error)
        return 0;
    if (*rule != IR_NO_RULE)
        return ir_call(ir, *rule);
    *rule = ir_rule_new(ir, "", 0);
    if (found && count >= c->min)
        nodes_add(ir, &list, 0);
    if (count < c->max)
        nodes_add(ir, &list, ir_cat_of(ir, comma, ir_call(ir, c->item), contained_rest(c, found, count + 1)));
    if (count < c->max && !found)
        nodes_add(ir, &list,
                  ir_cat_of(ir, comma, ir_call(ir, c->special), contained_rest(c, true, count + 1)));
    ir_rule_set(ir, *rule, ir_alt(ir, list.nodes, list.n));
    return ir_call(ir, *rule);
}

static uint32_t containing(struct schema *s, json_object *schema, json_object *contains, uint32_t min,
                           uint32_t max)
{
    json_object *items = schema_get(schema, "items"), *both = schema_own(s, json_object_new_array()),
                *all = schema_own(s, json_object_new_object());
    struct contained c = {.s = s, .min = min > 0 ? min : 1, .max = max};
    size_t n_path;

    if (!both || !all)
        return 0;
    if (schema_get(schema, "prefixItems") || are_unique(s, schema) || schema_get(schema, "minContains") ||
        schema_get(schema, "maxContains")) {
        schema_fail(
            s, "contains is not supported beside prefixItems, uniqueItems, minContains and maxContains: give "
               "the item its place by prefixItems, or check the answer");
        return 0;
    }
    c.n_most = max != IR_FOREVER ? max : c.min;
    if (c.n_most > CONTAINED_MAX) {
        schema_fail(s, "contains: beside it at most %u items can be asked for", CONTAINED_MAX);
        return 0;
    }
    schema_append(s, both, json_object_get(contains));
    if (items)
        schema_append(s, both, json_object_get(items));
    schema_add(s, all, "allOf", json_object_get(both));
    memset(c.rules, 0xFF, sizeof(c.rules));
    c.comma = ir_cat_of(s->ir, ir_text(s->ir, ","), schema_space(s));
    n_path = schema_enter(s, "items");
    c.item = schema_shared(s, items ? schema_node(s, items) : schema_any(s));
    schema_leave(s, n_path);
    n_path = schema_enter(s, "contains");
    c.special = schema_shared(s, schema_node(s, all));
    schema_leave(s, n_path);
    return contained_rest(&c, false, 0);
}

/* ---- any array ---- */

uint32_t schema_array(struct schema *s, json_object *schema)
{
    _cleanup_nodes_ struct nodes list = {0};
    uint32_t min = schema_count(s, schema, "minItems", 0),
             max = schema_count(s, schema, "maxItems", IR_FOREVER);
    uint32_t space = schema_space(s), comma, items;
    json_object *contains = NULL;

    if (max < min) {
        schema_fail(s, "maxItems is smaller than minItems");
        return 0;
    }
    if (min > GRAMMAR_REPEAT_MAX || (max != IR_FOREVER && max > GRAMMAR_REPEAT_MAX)) {
        schema_fail(s, "at most %u items can be asked for", GRAMMAR_REPEAT_MAX);
        return 0;
    }
    if (json_object_object_get_ex(schema, "contains", &contains)) {
        items = containing(s, schema, contains, min, max);
    } else if (are_unique(s, schema) && max > 1) {
        items = unique_items(s, schema, min, max);
    } else {
        comma = array_items(s, schema, schema_get(schema, "items"), &list, min, max);
        items = prefix_list(s, comma, &list);
    }
    return ir_cat_of(s->ir, ir_text(s->ir, "["), space, items, space, ir_text(s->ir, "]"));
}
