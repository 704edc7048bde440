/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/ir.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/grammar/limits.h"

#define COLUMN_BITS 12
#define COLUMN_MAX  ((1u << COLUMN_BITS) - 1)
#define CODE_MAX    0x10FFFFu

/* Room for @more elements behind @n of them; every array is bounded by what one node or one byte of input
 * adds. */
static bool grow(struct ir *ir, void **array, uint32_t n, size_t more, uint32_t *allocated, size_t size,
                 size_t max)
{
    size_t wanted = n + more, room = *allocated ? *allocated : 64;
    void *grown;

    if (ir->error)
        return false;
    if (wanted <= *allocated)
        return true;
    if (wanted > max) {
        ir_fail(ir, ir->place, "the grammar is too large");
        return false;
    }
    while (room < wanted)
        room *= 2;
    grown = reallocarray(*array, room, size);
    if (!grown) {
        ir->error = -ENOMEM;
        return false;
    }
    *array = grown;
    *allocated = (uint32_t)room;
    return true;
}

int ir_init(struct ir *ir, bool is_schema, struct fault *reterr)
{
    *ir = (struct ir){.is_schema = is_schema, .reterr = reterr};
    ir->tokens = calloc(GRAMMAR_TOKENS_MAX, sizeof(*ir->tokens));
    if (!ir->tokens ||
        !grow(ir, (void **)&ir->nodes, 0, 1, &ir->nodes_allocated, sizeof(*ir->nodes), GRAMMAR_NODES_MAX) ||
        !grow(ir, (void **)&ir->bytes, 0, 1, &ir->bytes_allocated, 1, 16 * GRAMMAR_TEXT_MAX))
        return -ENOMEM;
    ir->nodes[0] = (struct ir_node){.kind = IR_EMPTY};
    ir->n_nodes = 1;
    ir->bytes[0] = 0; /* place 0 of a schema: its root */
    ir->n_bytes = 1;
    return 0;
}

void ir_done(struct ir *ir)
{
    free(ir->nodes);
    free(ir->ranges);
    free(ir->rules);
    free(ir->children);
    free(ir->needed);
    free(ir->bytes);
    free(ir->tokens);
    *ir = (struct ir){0};
}

void ir_fail(struct ir *ir, uint32_t place, const char *format, ...)
{
    char reason[320];
    va_list args;

    if (ir->error)
        return;
    ir->error = -EINVAL;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    if (ir->is_schema)
        fault_set(ir->reterr, FAULT_INVALID_PARAMETER, "json_schema", "#%.100s: %s",
                  ir->bytes ? ir->bytes + place : "", reason);
    else if (place == 0)
        fault_set(ir->reterr, FAULT_INVALID_PARAMETER, "grammar", "%s", reason);
    else
        fault_set(ir->reterr, FAULT_INVALID_PARAMETER, "grammar", "line %u, column %u: %s",
                  place >> COLUMN_BITS, place & COLUMN_MAX, reason);
}

uint32_t ir_place(uint32_t line, uint32_t column)
{
    return (line > UINT32_MAX >> COLUMN_BITS ? UINT32_MAX >> COLUMN_BITS : line) << COLUMN_BITS |
           (column < COLUMN_MAX ? column : COLUMN_MAX);
}

static uint32_t store(struct ir *ir, const char *bytes, size_t n)
{
    uint32_t at = ir->n_bytes;

    if (!grow(ir, (void **)&ir->bytes, ir->n_bytes, n + 1, &ir->bytes_allocated, 1, 16 * GRAMMAR_TEXT_MAX))
        return 0;
    if (n > 0)
        memcpy(ir->bytes + at, bytes, n);
    ir->bytes[at + n] = 0;
    ir->n_bytes += (uint32_t)n + 1;
    return at;
}

uint32_t ir_path(struct ir *ir, const char *path)
{
    return store(ir, path, strlen(path));
}

static uint32_t add_node(struct ir *ir, struct ir_node node)
{
    if (!grow(ir, (void **)&ir->nodes, ir->n_nodes, 1, &ir->nodes_allocated, sizeof(*ir->nodes),
              GRAMMAR_NODES_MAX))
        return 0;
    node.place = ir->place;
    ir->nodes[ir->n_nodes] = node;
    return ir->n_nodes++;
}

uint32_t ir_bytes(struct ir *ir, const char *bytes, size_t n)
{
    uint32_t at;

    if (n == 0 || ir->error)
        return 0;
    at = store(ir, bytes, n);
    return add_node(ir, (struct ir_node){.kind = IR_BYTES, .at = at, .n = (uint32_t)n});
}

uint32_t ir_text(struct ir *ir, const char *text)
{
    return ir_bytes(ir, text, strlen(text));
}

uint32_t ir_token(struct ir *ir, int32_t token)
{
    uint32_t at = 0;

    while (at < ir->n_tokens && ir->tokens[at] != token)
        at++;
    if (at == GRAMMAR_TOKENS_MAX) {
        ir_fail(ir, ir->place, "more than %u special tokens", GRAMMAR_TOKENS_MAX);
        return 0;
    }
    if (at == ir->n_tokens)
        ir->tokens[ir->n_tokens++] = token;
    return add_node(ir, (struct ir_node){.kind = IR_TOKEN, .at = at, .n = 1});
}

static int by_low(const void *a, const void *b)
{
    const struct ir_range *x = a, *y = b;

    return x->low < y->low ? -1 : x->low > y->low;
}

size_t ir_normalise(struct ir_range *ranges, size_t n)
{
    size_t n_out = 0;

    if (n == 0)
        return 0;
    qsort(ranges, n, sizeof(*ranges), by_low);
    for (size_t i = 0; i < n; i++) {
        if (ranges[i].low > ranges[i].high)
            continue;
        if (n_out > 0 && ranges[i].low <= ranges[n_out - 1].high + 1) {
            if (ranges[i].high > ranges[n_out - 1].high)
                ranges[n_out - 1].high = ranges[i].high;
        } else {
            ranges[n_out++] = ranges[i];
        }
    }
    return n_out;
}

/* Adds what lies between @low and @high and is a character, without what is missing in JSON strings if @json.
 */
static void add_range(struct ir *ir, uint32_t low, uint32_t high, bool json)
{
    static const struct ir_range unusable[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0xD800, 0xDFFF}};

    if (high > CODE_MAX)
        high = CODE_MAX;
    for (size_t i = json ? 0 : 3; i < 4 && low <= high; i++) {
        const struct ir_range *u = &unusable[i];

        if (u->high < low || u->low > high)
            continue;
        if (low < u->low)
            add_range(ir, low, u->low - 1, json);
        low = u->high + 1;
    }
    if (low > high || !grow(ir, (void **)&ir->ranges, ir->n_ranges, 1, &ir->ranges_allocated,
                            sizeof(*ir->ranges), GRAMMAR_NODES_MAX))
        return;
    ir->ranges[ir->n_ranges++] = (struct ir_range){low, high};
}

static uint32_t class_node(struct ir *ir, const struct ir_range *ranges, size_t n, bool negate, bool json)
{
    uint32_t at = ir->n_ranges, from = 0;

    for (size_t i = 0; i < n; i++) {
        if (!negate)
            add_range(ir, ranges[i].low, ranges[i].high, json);
        else if (ranges[i].low > from)
            add_range(ir, from, ranges[i].low - 1, json);
        from = ranges[i].high < UINT32_MAX ? ranges[i].high + 1 : UINT32_MAX;
    }
    if (negate && from <= CODE_MAX)
        add_range(ir, from, CODE_MAX, json);
    return add_node(ir, (struct ir_node){.kind = IR_CLASS, .at = at, .n = ir->n_ranges - at});
}

uint32_t ir_class(struct ir *ir, struct ir_range *ranges, size_t n, bool negate)
{
    return class_node(ir, ranges, ir_normalise(ranges, n), negate, /* json= */ false);
}

static bool has(const struct ir_range *ranges, size_t n, bool negate, uint32_t code)
{
    for (size_t i = 0; i < n; i++)
        if (ranges[i].low <= code && code <= ranges[i].high)
            return !negate;
    return negate;
}

uint32_t ir_json_class(struct ir *ir, struct ir_range *ranges, size_t n, bool negate)
{
    static const char short_escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    uint32_t nodes[64];
    size_t n_nodes = 0;

    n = ir_normalise(ranges, n);
    nodes[n_nodes++] = class_node(ir, ranges, n, negate, /* json= */ true);
    for (size_t i = 0; short_escapes[i]; i += 2)
        if (has(ranges, n, negate, (uint8_t)short_escapes[i]))
            nodes[n_nodes++] = ir_bytes(ir, (const char[]){'\\', short_escapes[i + 1]}, 2);
    for (uint32_t code = 0; code < 0x20; code++) {
        char text[8];

        if (!has(ranges, n, negate, code) || (code > 0 && strchr("\b\f\n\r\t", (int)code)))
            continue;
        snprintf(text, sizeof(text), "\\u%04x", code);
        nodes[n_nodes++] = ir_text(ir, text);
    }
    return ir_alt(ir, nodes, n_nodes);
}

static uint32_t add_children(struct ir *ir, enum ir_kind kind, const uint32_t *nodes, const bool *needed,
                             size_t n)
{
    uint32_t at = ir->n_children, allocated = ir->children_allocated;
    uint8_t *grown;

    if (!grow(ir, (void **)&ir->children, at, n, &ir->children_allocated, sizeof(*ir->children),
              4 * GRAMMAR_NODES_MAX))
        return 0;
    if (ir->children_allocated != allocated) {
        grown = realloc(ir->needed, ir->children_allocated);
        if (!grown) {
            ir->error = -ENOMEM;
            return 0;
        }
        ir->needed = grown;
    }
    for (size_t i = 0; i < n; i++) {
        ir->children[at + i] = nodes[i];
        ir->needed[at + i] = needed ? needed[i] : 1;
    }
    ir->n_children += (uint32_t)n;
    return add_node(ir, (struct ir_node){.kind = kind, .at = at, .n = (uint32_t)n});
}

uint32_t ir_cat(struct ir *ir, const uint32_t *nodes, size_t n)
{
    return n == 0 ? 0 : n == 1 ? nodes[0] : add_children(ir, IR_CAT, nodes, NULL, n);
}

uint32_t ir_alt(struct ir *ir, const uint32_t *nodes, size_t n)
{
    return n == 1 ? nodes[0] : add_children(ir, IR_ALT, nodes, NULL, n);
}

uint32_t ir_list(struct ir *ir, uint32_t separator, const uint32_t *nodes, const bool *needed, size_t n)
{
    uint32_t *all;
    bool *all_needed;
    uint32_t node = 0;

    if (n == 0 || ir->error)
        return 0;
    all = calloc(n + 1, sizeof(*all));
    all_needed = calloc(n + 1, sizeof(*all_needed));
    if (all && all_needed) {
        all[0] = separator;
        memcpy(all + 1, nodes, n * sizeof(*all));
        memcpy(all_needed + 1, needed, n * sizeof(*all_needed));
        node = add_children(ir, IR_LIST, all, all_needed, n + 1);
    } else {
        ir->error = -ENOMEM;
    }
    free(all);
    free(all_needed);
    return node;
}

uint32_t ir_repeat(struct ir *ir, uint32_t node, uint32_t min, uint32_t max)
{
    if (min > GRAMMAR_REPEAT_MAX || (max != IR_FOREVER && max > GRAMMAR_REPEAT_MAX)) {
        ir_fail(ir, ir->place, "at most %u repetitions can be asked for", GRAMMAR_REPEAT_MAX);
        return 0;
    }
    if (max == 0 || node == 0)
        return 0;
    if (min == 1 && max == 1)
        return node;
    return add_node(ir, (struct ir_node){.kind = IR_REPEAT, .at = node, .n = 1, .min = min, .max = max});
}

uint32_t ir_call(struct ir *ir, uint32_t rule)
{
    return add_node(ir, (struct ir_node){.kind = IR_RULE, .at = rule, .n = 1});
}

uint32_t ir_rule_new(struct ir *ir, const char *name, size_t n)
{
    uint32_t at = store(ir, name, n);

    if (!grow(ir, (void **)&ir->rules, ir->n_rules, 1, &ir->rules_allocated, sizeof(*ir->rules),
              GRAMMAR_RULES_MAX))
        return 0;
    ir->rules[ir->n_rules] = (struct ir_rule){.name = at, .place = ir->place};
    return ir->n_rules++;
}

void ir_rule_set(struct ir *ir, uint32_t rule, uint32_t body)
{
    if (ir->error)
        return;
    ir->rules[rule].body = body;
    ir->rules[rule].defined = true;
}

const char *ir_rule_name(const struct ir *ir, uint32_t rule)
{
    return ir->bytes + ir->rules[rule].name;
}
