/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Expressions: names, attributes, items and slices, operators, calls. Undefined is Jinja2's default one: it
 * prints as nothing and is false, but reading an attribute of it or computing with it is an error.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/chat/eval.h"
#include "engine/chat/format.h"

static int fail_undefined(struct eval *e, struct value v)
{
    return eval_fail(e, "'%.*s' is undefined", (int)(v.string.n < 100 ? v.string.n : 100), v.string.data);
}

static int lookup(struct eval *e, struct text name, struct value *ret)
{
    struct value key = value_text(name.data, name.n);

    for (const struct scope *scope = e->scope; scope; scope = scope->parent) {
        const struct value *v = dict_get(&scope->variables, key);

        if (v) {
            *ret = *v;
            return eval_spend(e, 0);
        }
    }
    if (!function_find(name, ret))
        *ret = value_undefined(name);
    return 0;
}

static bool loop_attribute(const struct loop *l, struct text name, struct value *ret)
{
    static const struct text previous = {"there is no previous item", 25},
                             next = {"there is no next item", 21};
    int64_t i = (int64_t)l->i, n = (int64_t)l->n;

    if (text_is(name, "index0"))
        *ret = value_int(i);
    else if (text_is(name, "index"))
        *ret = value_int(i + 1);
    else if (text_is(name, "first"))
        *ret = value_bool(i == 0);
    else if (text_is(name, "last"))
        *ret = value_bool(i == n - 1);
    else if (text_is(name, "length"))
        *ret = value_int(n);
    else if (text_is(name, "revindex"))
        *ret = value_int(n - i);
    else if (text_is(name, "revindex0"))
        *ret = value_int(n - i - 1);
    else if (text_is(name, "depth"))
        *ret = value_int(1); /* only recursive loops, which are not supported, are deeper */
    else if (text_is(name, "depth0"))
        *ret = value_int(0);
    else if (text_is(name, "previtem"))
        *ret = l->i > 0 ? l->items->items[l->i - 1] : value_undefined(previous);
    else if (text_is(name, "nextitem"))
        *ret = l->i + 1 < l->n ? l->items->items[l->i + 1] : value_undefined(next);
    else
        return false;
    return true;
}

int eval_attribute(struct eval *e, struct value object, struct text name, struct value *ret)
{
    const struct value *found = NULL;
    struct method *method;

    if (object.kind == VALUE_UNDEFINED)
        return fail_undefined(e, object);
    if (method_exists(object, name)) {
        method = arena_alloc(&e->arena, sizeof(*method));
        if (!method)
            return eval_memory(e);
        *method = (struct method){.receiver = object, .name = name};
        *ret = (struct value){.kind = VALUE_METHOD, .method = method};
        return 0;
    }
    if (object.kind == VALUE_LOOP && loop_attribute(object.loop, name, ret))
        return 0;
    if (object.kind == VALUE_DICT || object.kind == VALUE_NAMESPACE)
        found = dict_get(object.dict, value_text(name.data, name.n));
    *ret = found ? *found : value_undefined(name);
    return 0;
}

/* The byte range of character @i (which exists) of a string. */
static struct value character(struct text t, size_t i)
{
    uint32_t code;
    int n = 1;

    for (size_t at = 0; at < t.n; at += (size_t)n) {
        n = utf8_decode(t.data + at, t.n - at, &code);
        if (n <= 0)
            n = 1;
        if (i-- == 0)
            return value_text(t.data + at, (size_t)n);
    }
    return value_text("", 0);
}

static size_t n_characters(struct text t)
{
    size_t n = 0;

    for (size_t i = 0; i < t.n; i++)
        n += ((unsigned char)t.data[i] & 0xC0) != 0x80;
    return n;
}

int eval_item(struct eval *e, struct value object, struct value index, struct value *ret)
{
    const struct value *found = NULL;
    int64_t i, n;

    if (object.kind == VALUE_UNDEFINED)
        return fail_undefined(e, object);
    if ((object.kind == VALUE_LIST || object.kind == VALUE_STRING) &&
        (index.kind == VALUE_INT || index.kind == VALUE_BOOL)) {
        i = index.kind == VALUE_INT ? index.integer : index.boolean;
        n = object.kind == VALUE_LIST ? (int64_t)object.list->n : (int64_t)n_characters(object.string);
        if (i < 0)
            i += n;
        if (i < 0 || i >= n)
            *ret = value_undefined((struct text){"list index", 10});
        else
            *ret = object.kind == VALUE_LIST ? object.list->items[i] : character(object.string, (size_t)i);
        return eval_spend(e, object.kind == VALUE_STRING ? object.string.n : 0);
    }
    if (object.kind == VALUE_DICT) {
        found = dict_get(object.dict, index);
        if (found) {
            *ret = *found;
            return eval_spend(e, object.dict->n);
        }
    }
    if (index.kind == VALUE_STRING)
        return eval_attribute(e, object, index.string, ret);
    *ret = value_undefined((struct text){"item", 4});
    return 0;
}

/* Python's slice.indices(): where to begin and how many steps to take. */
static int slice_bounds(struct eval *e, const struct chat_node *node, int64_t n, int64_t *start,
                        int64_t *step, int64_t *count)
{
    const struct chat_node *parts[3] = {node->a, node->b, node->c};
    int64_t given[3] = {0, 0, 1}, stop;
    bool has[3] = {false};

    for (int i = 0; i < 3; i++) {
        struct value v = value_none();
        int r = parts[i] ? eval_expression(e, parts[i], &v) : 0;

        if (r < 0)
            return r;
        if (v.kind == VALUE_NONE)
            continue;
        if (v.kind != VALUE_INT)
            return eval_fail(e, "slice indices must be integers");
        given[i] = v.integer;
        has[i] = true;
    }
    *step = given[2];
    if (*step == 0)
        return eval_fail(e, "slice step cannot be zero");
    /* Clamping first keeps every sum below within range. */
    for (int i = 0; i < 2; i++) {
        if (given[i] < 0)
            given[i] = given[i] < -n ? -1 : given[i] + n;
        if (given[i] >= n)
            given[i] = *step > 0 ? n : n - 1;
        if (given[i] < 0 && *step > 0)
            given[i] = 0;
    }
    *start = has[0] ? given[0] : *step > 0 ? 0 : n - 1;
    stop = has[1] ? given[1] : *step > 0 ? n : -1;
    if (*step > 0)
        *count = stop > *start ? (stop - *start - 1) / *step + 1 : 0;
    else
        *count = *start > stop ? (*start - stop - 1) / -(*step < -n ? -n - 1 : *step) + 1 : 0;
    return 0;
}

static int eval_slice(struct eval *e, struct value object, const struct chat_node *node, struct value *ret)
{
    struct builder b = {.arena = &e->arena};
    struct value list = value_list_new(&e->arena, object.is_tuple);
    struct list *items;
    int64_t start = 0, step = 1, count = 0;
    int r;

    if (object.kind == VALUE_UNDEFINED)
        return fail_undefined(e, object);
    if (object.kind != VALUE_LIST && object.kind != VALUE_STRING)
        return eval_fail(e, "'%s' object can't be sliced", value_kind_to_string(object.kind));
    if (list.kind != VALUE_LIST)
        return eval_memory(e);
    r = eval_items(e, object, &items);
    if (r >= 0)
        r = slice_bounds(e, node, (int64_t)items->n, &start, &step, &count);
    if (r >= 0)
        r = eval_spend(e, (size_t)count * 16);
    for (int64_t i = 0; r >= 0 && i < count; i++) {
        struct value item = items->items[start + i * step];

        if (object.kind == VALUE_STRING)
            r = builder_add(&b, item.string.data, item.string.n);
        else
            r = list_add(&e->arena, list.list, item);
        if (r < 0)
            return eval_memory(e);
    }
    *ret = object.kind == VALUE_STRING ? builder_value(&b) : list;
    return r;
}

static int concatenate(struct eval *e, struct text a, struct text b, struct value *ret)
{
    struct builder builder = {.arena = &e->arena};
    int r = eval_spend(e, a.n + b.n);

    if (r < 0)
        return r;
    if (builder_add(&builder, a.data, a.n) < 0 || builder_add(&builder, b.data, b.n) < 0)
        return eval_memory(e);
    *ret = builder_value(&builder);
    return 0;
}

/* What is not marked as safe is escaped before it joins what is. (Functionary's template has such a sum.) */
static int join_markup(struct eval *e, struct value a, struct value b, struct value *ret)
{
    int r = a.is_markup ? 0 : format_escape(e, a.string, &a);

    if (r >= 0 && !b.is_markup)
        r = format_escape(e, b.string, &b);
    if (r >= 0)
        r = concatenate(e, a.string, b.string, ret);
    ret->is_markup = true;
    return r;
}

static int join_lists(struct eval *e, struct value a, struct value b, struct value *ret)
{
    struct value list = value_list_new(&e->arena, a.is_tuple);
    int r = eval_spend(e, (a.list->n + b.list->n) * 16);

    if (r < 0)
        return r;
    for (size_t i = 0; list.kind == VALUE_LIST && i < a.list->n + b.list->n; i++) {
        if (list_add(&e->arena, list.list, i < a.list->n ? a.list->items[i] : b.list->items[i - a.list->n]) <
            0)
            return eval_memory(e);
    }
    if (list.kind != VALUE_LIST)
        return eval_memory(e);
    *ret = list;
    return 0;
}

static int repeat(struct eval *e, struct value v, int64_t n, struct value *ret)
{
    struct builder b = {.arena = &e->arena};

    for (int64_t i = 0; i < n && v.string.n > 0; i++) {
        int r = eval_spend(e, v.string.n);

        if (r < 0)
            return r;
        if (builder_add(&b, v.string.data, v.string.n) < 0)
            return eval_memory(e);
    }
    *ret = builder_value(&b);
    return 0;
}

/* Integers as Python has them, but for the size: what does not fit into 64 bits is an error, not a wrong
 * number. */
static int integer_arithmetic(struct eval *e, char op, int64_t a, int64_t b, struct value *ret)
{
    int64_t result = 1;
    bool overflow = false;

    switch (op) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case '-':
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    case 'f':
    case '%':
        if (b == 0)
            return eval_fail(e, "division by zero");
        if (b == -1) {
            overflow = op == 'f' && __builtin_sub_overflow(0, a, &result);
            result = op == 'f' ? result : 0;
            break;
        }
        /* Python rounds towards minus infinity. */
        result = op == 'f' ? a / b - (a % b != 0 && (a < 0) != (b < 0)) : a % b;
        if (op == '%' && result != 0 && (result < 0) != (b < 0))
            result += b;
        break;
    default: /* 'p', b >= 0 */
        for (int64_t i = 0; i < b && !overflow && result != 0 && (a != 1); i++) {
            overflow = __builtin_mul_overflow(result, a, &result);
            if (a == -1 && i > 1)
                return integer_arithmetic(e, 'p', a, b & 1, ret);
        }
        break;
    }
    if (overflow)
        return eval_fail(e, "the result of this computation is out of range");
    *ret = value_int(result);
    return 0;
}

static int float_arithmetic(struct eval *e, char op, double a, double b, struct value *ret)
{
    double m;

    if ((op == '/' || op == 'f' || op == '%') && b == 0)
        return eval_fail(e, "division by zero");
    switch (op) {
    case '+':
        *ret = value_float(a + b);
        break;
    case '-':
        *ret = value_float(a - b);
        break;
    case '*':
        *ret = value_float(a * b);
        break;
    case '/':
        *ret = value_float(a / b);
        break;
    case 'f':
        *ret = value_float(floor(a / b));
        break;
    case '%':
        m = fmod(a, b);
        *ret = value_float(m != 0 && (m < 0) != (b < 0) ? m + b : m);
        break;
    default:
        *ret = value_float(pow(a, b));
        break;
    }
    return 0;
}

static int binary(struct eval *e, char op, struct value a, struct value b, struct value *ret)
{
    struct text x, y;
    double f, g;
    int r;

    if (op == '~') {
        r = eval_write(e, a, &x);
        if (r >= 0)
            r = eval_write(e, b, &y);
        return r < 0 ? r : concatenate(e, x, y, ret);
    }
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
        return fail_undefined(e, a.kind == VALUE_UNDEFINED ? a : b);
    if (op == '+' && a.kind == VALUE_STRING && b.kind == VALUE_STRING)
        return a.is_markup || b.is_markup ? join_markup(e, a, b, ret) : concatenate(e, a.string, b.string, ret);
    if (op == '%' && a.kind == VALUE_STRING) {
        const struct list *values = b.kind == VALUE_LIST && b.is_tuple ? b.list : NULL;

        return format_percents(e, a.string, values ? values->items : &b, values ? values->n : 1, ret);
    }
    if (op == '+' && a.kind == VALUE_LIST && b.kind == VALUE_LIST)
        return join_lists(e, a, b, ret);
    if (op == '*' && a.kind == VALUE_STRING && b.kind == VALUE_INT)
        return repeat(e, a, b.integer, ret);
    if (op == '*' && a.kind == VALUE_INT && b.kind == VALUE_STRING)
        return repeat(e, b, a.integer, ret);
    if (!value_is_number(a, &f) || !value_is_number(b, &g))
        return eval_fail(e, "unsupported operand types: '%s' and '%s'", value_kind_to_string(a.kind),
                         value_kind_to_string(b.kind));
    if (a.kind == VALUE_FLOAT || b.kind == VALUE_FLOAT || op == '/' || (op == 'p' && g < 0))
        return float_arithmetic(e, op, f, g, ret);
    return integer_arithmetic(e, op, a.kind == VALUE_INT ? a.integer : a.boolean,
                              b.kind == VALUE_INT ? b.integer : b.boolean, ret);
}

int eval_in(struct eval *e, struct value needle, struct value haystack, bool *ret)
{
    struct list *items;
    int r;

    *ret = false;
    if (haystack.kind == VALUE_STRING) {
        if (needle.kind != VALUE_STRING)
            return eval_fail(e, "'in <string>' requires string as left operand, not %s",
                             value_kind_to_string(needle.kind));
        *ret = needle.string.n == 0 ||
               memmem(haystack.string.data, haystack.string.n, needle.string.data, needle.string.n) != NULL;
        return eval_spend(e, haystack.string.n);
    }
    if (haystack.kind == VALUE_DICT) {
        *ret = dict_get(haystack.dict, needle) != NULL;
        return eval_spend(e, haystack.dict->n * 8);
    }
    r = eval_items(e, haystack, &items);
    for (size_t i = 0; r >= 0 && i < items->n && !*ret; i++)
        *ret = value_is_equal(items->items[i], needle);
    return r < 0 ? r : eval_spend(e, items->n * 8);
}

static int compare(struct eval *e, char op, struct value a, struct value b, bool *ret)
{
    int order, r;

    switch (op) {
    case '=':
    case '!':
        *ret = value_is_equal(a, b) == (op == '=');
        return eval_spend(e, a.kind == VALUE_STRING ? a.string.n : 0);
    case 'i':
    case 'n':
        r = eval_in(e, a, b, ret);
        *ret = *ret == (op == 'i');
        return r;
    default:
        break;
    }
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
        return fail_undefined(e, a.kind == VALUE_UNDEFINED ? a : b);
    if (!value_compare(a, b, &order))
        return eval_fail(e, "'%s' and '%s' have no order", value_kind_to_string(a.kind),
                         value_kind_to_string(b.kind));
    *ret = op == '<' ? order < 0 : op == '>' ? order > 0 : op == 'l' ? order <= 0 : order >= 0;
    return 0;
}

static int eval_comparison(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct value left, right;
    bool holds = true;
    int r = eval_expression(e, node->a, &left);

    for (const struct chat_node *operand = node->b; operand && r >= 0 && holds; operand = operand->next) {
        r = eval_expression(e, operand->a, &right);
        if (r >= 0)
            r = compare(e, operand->op, left, right, &holds);
        left = right;
    }
    *ret = value_bool(holds);
    return r;
}

int eval_arguments(struct eval *e, const struct chat_node *first, struct arguments *ret)
{
    size_t n = 0;

    for (const struct chat_node *node = first; node; node = node->next)
        n++;
    *ret = (struct arguments){.n = n, .items = arena_alloc(&e->arena, (n + 1) * sizeof(*ret->items))};
    if (!ret->items)
        return eval_memory(e);
    n = 0;
    for (const struct chat_node *node = first; node; node = node->next, n++) {
        int r = eval_expression(e, node->a, &ret->items[n].value);

        if (r < 0)
            return r;
        ret->items[n].name = node->text;
    }
    return 0;
}

struct value eval_argument(const struct arguments *arguments, size_t position, const char *name,
                           struct value fallback)
{
    for (size_t i = 0; i < arguments->n; i++) {
        const struct argument *a = &arguments->items[i];

        if (a->name.n == 0 ? i == position : text_is(a->name, name))
            return a->value;
    }
    return fallback;
}

int eval_call(struct eval *e, struct value callee, const struct arguments *arguments, struct value caller,
              struct value *ret)
{
    int r = eval_spend(e, 0);

    if (r < 0)
        return r;
    switch (callee.kind) {
    case VALUE_MACRO:
        return eval_call_macro(e, callee.macro, arguments, caller, ret);
    case VALUE_FUNCTION:
        return function_call(e, callee.string, arguments, ret);
    case VALUE_METHOD:
        return method_call(e, callee.method, arguments, ret);
    case VALUE_UNDEFINED:
        return fail_undefined(e, callee);
    default:
        return eval_fail(e, "'%s' object is not callable", value_kind_to_string(callee.kind));
    }
}

static int eval_collection(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct value list = value_list_new(&e->arena, node->kind == NODE_TUPLE);

    if (list.kind != VALUE_LIST)
        return eval_memory(e);
    for (const struct chat_node *item = node->a; item; item = item->next) {
        struct value v;
        int r = eval_expression(e, item, &v);

        if (r < 0)
            return r;
        if (list_add(&e->arena, list.list, v) < 0)
            return eval_memory(e);
    }
    *ret = list;
    return 0;
}

static int eval_dict(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct value dict = value_dict_new(&e->arena);

    if (dict.kind != VALUE_DICT)
        return eval_memory(e);
    for (const struct chat_node *pair = node->a; pair; pair = pair->next) {
        struct value key, v;
        int r = eval_expression(e, pair->a, &key);

        if (r >= 0)
            r = eval_expression(e, pair->b, &v);
        if (r >= 0)
            r = eval_spend(e, dict.dict->n * 8);
        if (r < 0)
            return r;
        if (dict_set(&e->arena, dict.dict, key, v) < 0)
            return eval_memory(e);
    }
    *ret = dict;
    return 0;
}

static int eval_sign(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct value v;
    int r = eval_expression(e, node->a, &v);

    if (r < 0)
        return r;
    if (v.kind == VALUE_UNDEFINED)
        return fail_undefined(e, v);
    if (!value_is_number(v, NULL))
        return eval_fail(e, "'%s' has no sign", value_kind_to_string(v.kind));
    if (v.kind == VALUE_FLOAT) {
        *ret = value_float(node->kind == NODE_NEGATE ? -v.real : v.real);
        return 0;
    }
    return integer_arithmetic(e, node->kind == NODE_NEGATE ? '-' : '+', 0,
                              v.kind == VALUE_INT ? v.integer : v.boolean, ret);
}

static int eval_condition(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct value condition;
    int r = eval_expression(e, node->b, &condition);

    if (r < 0)
        return r;
    if (value_is_true(condition))
        return eval_expression(e, node->a, ret);
    if (node->c)
        return eval_expression(e, node->c, ret);
    *ret = value_undefined((struct text){"the inline if-expression", 24});
    return 0;
}

/* `x is defined`, `x | default('')`: an attribute of an undefined name is an error even there, as in Jinja2.
 */
static int eval_applied(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct arguments arguments;
    struct value v;
    bool holds = false;
    int r = eval_expression(e, node->a, &v);

    if (r >= 0)
        r = eval_arguments(e, node->b, &arguments);
    if (r < 0)
        return r;
    e->line = node->line;
    if (node->kind == NODE_FILTER)
        return filter_apply(e, node->text, v, &arguments, ret);
    r = test_apply(e, node->text, v, &arguments, &holds);
    *ret = value_bool(holds);
    return r;
}

static int eval_node(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct arguments arguments;
    struct value a, b;
    int r;

    switch (node->kind) {
    case NODE_LITERAL:
        *ret = node->value;
        return 0;
    case NODE_NAME:
        return lookup(e, node->text, ret);
    case NODE_LIST:
    case NODE_TUPLE:
        return eval_collection(e, node, ret);
    case NODE_DICT:
        return eval_dict(e, node, ret);
    case NODE_NEGATE:
    case NODE_PLUS:
        return eval_sign(e, node, ret);
    case NODE_COMPARE:
        return eval_comparison(e, node, ret);
    case NODE_CONDITION:
        return eval_condition(e, node, ret);
    case NODE_FILTER:
    case NODE_TEST:
        return eval_applied(e, node, ret);
    default:
        break;
    }
    r = eval_expression(e, node->a, &a);
    if (r < 0)
        return r;
    switch (node->kind) {
    case NODE_ATTRIBUTE:
        return eval_attribute(e, a, node->text, ret);
    case NODE_NOT:
        *ret = value_bool(!value_is_true(a));
        return 0;
    case NODE_AND:
    case NODE_OR:
        if (value_is_true(a) == (node->kind == NODE_OR)) {
            *ret = a;
            return 0;
        }
        return eval_expression(e, node->b, ret);
    case NODE_CALL:
        r = eval_arguments(e, node->b, &arguments);
        e->line = node->line;
        return r < 0 ? r : eval_call(e, a, &arguments, value_none(), ret);
    case NODE_ITEM:
        if (node->b->kind == NODE_SLICE)
            return eval_slice(e, a, node->b, ret);
        r = eval_expression(e, node->b, &b);
        return r < 0 ? r : eval_item(e, a, b, ret);
    case NODE_BINARY:
        r = eval_expression(e, node->b, &b);
        return r < 0 ? r : binary(e, node->op, a, b, ret);
    default:
        return eval_fail(e, "no expression");
    }
}

int eval_expression(struct eval *e, const struct chat_node *node, struct value *ret)
{
    int r = eval_spend(e, 0);

    if (r < 0)
        return r;
    if (++e->depth > EVAL_DEPTH_MAX)
        return eval_fail(e, "this expression is nested too deeply");
    r = eval_node(e, node, ret);
    e->depth--;
    return r;
}
