/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Statements, scopes and the limits of a rendering; chat_template_new() and chat_render().
 *
 * Scopes are Jinja2's: a loop's body, a macro and a `with` block have their own, `if` has none. A name is
 * looked up from the inside out; `set` writes to the innermost. `break` and `continue` travel as positive
 * results.
 */
#include "engine/chat/eval.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/utf8.h"
#include "engine/chat/lex.h"

enum { FLOW_BREAK = 1, FLOW_CONTINUE };

struct chat_template {
    struct arena arena;
    struct chat_node *first;
};

int eval_fail(struct eval *e, const char *format, ...)
{
    char what[400];
    va_list ap;

    va_start(ap, format);
    vsnprintf(what, sizeof(what), format, ap);
    va_end(ap);
    fault_set(e->fault, FAULT_INVALID_PARAMETER, "messages", "chat template, line %u: %s", e->line, what);
    return -EINVAL;
}

static int limit(struct eval *e, const char *what)
{
    eval_fail(e, "the template takes too %s", what);
    return -E2BIG;
}

int eval_memory(struct eval *e)
{
    return limit(e, "much memory");
}

int eval_spend(struct eval *e, size_t n_bytes)
{
    e->steps += 1 + n_bytes / 64;
    return e->steps > e->limits->steps_max ? limit(e, "many steps") : 0;
}

int eval_write(struct eval *e, struct value v, struct text *ret)
{
    struct builder b = {.arena = &e->arena};

    if (v.kind == VALUE_STRING) {
        *ret = v.string;
        return 0;
    }
    if (value_write(&b, v, false) < 0)
        return eval_memory(e);
    *ret = builder_value(&b).string;
    return eval_spend(e, b.n);
}

int eval_set(struct eval *e, struct text name, struct value v)
{
    if (dict_set(&e->arena, &e->scope->variables, value_text(name.data, name.n), v) < 0)
        return eval_memory(e);
    return 0;
}

static int output(struct eval *e, struct text text)
{
    int r = eval_spend(e, text.n);

    if (r < 0)
        return r;
    if (text.n > e->limits->output_max - e->output->n)
        return limit(e, "much room for its output");
    return builder_add(e->output, text.data, text.n) < 0 ? eval_memory(e) : 0;
}

static int add_character(struct eval *e, struct list *list, struct text t, size_t *at)
{
    uint32_t code;
    int n = utf8_decode(t.data + *at, t.n - *at, &code);

    if (n <= 0)
        n = 1;
    if (list_add(&e->arena, list, value_text(t.data + *at, (size_t)n)) < 0)
        return eval_memory(e);
    *at += (size_t)n;
    return 0;
}

int eval_items(struct eval *e, struct value v, struct list **ret)
{
    struct value list;
    int r = 0;

    if (v.kind == VALUE_LIST) {
        *ret = v.list;
        return 0;
    }
    list = value_list_new(&e->arena, false);
    if (list.kind != VALUE_LIST)
        return eval_memory(e);
    if (v.kind == VALUE_DICT) {
        for (size_t i = 0; i < v.dict->n && r >= 0; i++)
            r = list_add(&e->arena, list.list, v.dict->entries[i].key) < 0 ? eval_memory(e) : 0;
    } else if (v.kind == VALUE_STRING) {
        for (size_t at = 0; at < v.string.n && r >= 0;)
            r = add_character(e, list.list, v.string, &at);
    } else if (v.kind != VALUE_UNDEFINED) {
        return eval_fail(e, "'%s' object is not iterable", value_kind_to_string(v.kind));
    }
    *ret = list.list;
    return r;
}

/* Sets a target (a name, ns.name, or a tuple of them) to a value. */
static int assign(struct eval *e, const struct chat_node *target, struct value v)
{
    struct list *items;
    struct value object;
    size_t i = 0;
    int r;

    if (target->kind == NODE_NAME)
        return eval_set(e, target->text, v);
    if (target->kind == NODE_ATTRIBUTE) {
        r = eval_expression(e, target->a, &object);
        if (r < 0)
            return r;
        if (object.kind != VALUE_NAMESPACE)
            return eval_fail(e, "cannot assign attribute on non-namespace object");
        if (dict_set(&e->arena, object.dict, value_text(target->text.data, target->text.n), v) < 0)
            return eval_memory(e);
        return 0;
    }
    r = eval_items(e, v, &items);
    for (const struct chat_node *name = target->a; name && r >= 0; name = name->next, i++)
        r = i < items->n ? assign(e, name, items->items[i]) : eval_fail(e, "not enough values to unpack");
    if (r >= 0 && i < items->n)
        return eval_fail(e, "too many values to unpack");
    return r;
}

/* Runs @first with its output collected into *ret. */
static int collect(struct eval *e, const struct chat_node *first, struct value *ret)
{
    struct builder b = {.arena = &e->arena}, *outer = e->output;
    int r;

    e->output = &b;
    r = eval_statements(e, first);
    e->output = outer;
    *ret = builder_value(&b);
    return r;
}

static int pass_filter(struct eval *e, struct value v, struct list *to, const struct chat_node *node,
                       bool *keep)
{
    struct value condition = value_bool(true);
    int r = assign(e, node->a, v);

    if (r >= 0 && node->c)
        r = eval_expression(e, node->c, &condition);
    *keep = r >= 0 && value_is_true(condition);
    if (*keep && list_add(&e->arena, to, v) < 0)
        return eval_memory(e);
    return r;
}

/* The items that the loop's own `if` lets through: loop.length and loop.last count only those. */
static int loop_items(struct eval *e, const struct chat_node *node, struct list **ret)
{
    struct scope scope = {.parent = e->scope};
    struct list *all = NULL;
    struct value kept, source;
    int r = eval_expression(e, node->b, &source);

    if (r >= 0)
        r = eval_items(e, source, &all);
    if (r < 0 || !node->c) {
        *ret = all;
        return r;
    }
    kept = value_list_new(&e->arena, false);
    if (kept.kind != VALUE_LIST)
        return eval_memory(e);
    e->scope = &scope;
    for (size_t i = 0; i < all->n && r >= 0; i++) {
        bool keep;

        r = pass_filter(e, all->items[i], kept.list, node, &keep);
    }
    e->scope = scope.parent;
    *ret = kept.list;
    return r;
}

static int run_for(struct eval *e, const struct chat_node *node)
{
    struct scope *outer = e->scope;
    struct loop *loop = arena_alloc(&e->arena, sizeof(*loop));
    struct list *items = NULL;
    int r;

    if (!loop)
        return eval_memory(e);
    r = loop_items(e, node, &items);
    if (r < 0)
        return r;
    if (items->n == 0)
        return node->e ? eval_statements(e, node->e) : 0;
    *loop = (struct loop){.items = items, .n = items->n};
    for (; loop->i < loop->n && r >= 0 && r != FLOW_BREAK; loop->i++) {
        struct scope scope = {.parent = outer};

        e->scope = &scope;
        r = assign(e, node->a, items->items[loop->i]);
        if (r >= 0)
            r = eval_set(e, (struct text){"loop", 4}, (struct value){.kind = VALUE_LOOP, .loop = loop});
        if (r >= 0)
            r = eval_statements(e, node->d);
    }
    e->scope = outer;
    return r < 0 ? r : 0;
}

static int run_if(struct eval *e, const struct chat_node *node)
{
    for (;;) {
        struct value condition;
        int r;

        e->line = node->line;
        r = eval_expression(e, node->a, &condition);
        if (r < 0)
            return r;
        if (value_is_true(condition))
            return eval_statements(e, node->b);
        if (!node->c || node->c->kind != NODE_IF || node->c->next)
            return node->c ? eval_statements(e, node->c) : 0;
        node = node->c;
        r = eval_spend(e, 0);
        if (r < 0)
            return r;
    }
}

/* node->kind is NODE_FILTER and the innermost operand NULL, which stands for @v. */
static int apply_filters(struct eval *e, const struct chat_node *node, struct value v, struct value *ret)
{
    struct arguments arguments;
    int r;

    if (!node) {
        *ret = v;
        return 0;
    }
    r = apply_filters(e, node->a, v, &v);
    if (r >= 0)
        r = eval_arguments(e, node->b, &arguments);
    return r < 0 ? r : filter_apply(e, node->text, v, &arguments, ret);
}

static int run_set_block(struct eval *e, const struct chat_node *node)
{
    struct value v;
    int r = collect(e, node->b, &v);

    if (r == 0)
        r = apply_filters(e, node->c, v, &v);
    return r == 0 ? assign(e, node->a, v) : r;
}

static int run_filter_block(struct eval *e, const struct chat_node *node)
{
    struct value v;
    struct text text;
    int r = collect(e, node->b, &v);

    if (r == 0)
        r = apply_filters(e, node->a, v, &v);
    if (r == 0)
        r = eval_write(e, v, &text);
    return r == 0 ? output(e, text) : r;
}

/*
 * The scopes of loops and macros are on the C stack and may end before a macro that is defined in them: it
 * keeps a copy of what they hold now. The outermost scope lives as long as the rendering and is shared.
 */
static struct scope *keep_scope(struct eval *e, struct scope *scope)
{
    struct scope *first = NULL, **last = &first;

    for (; scope->parent; scope = scope->parent) {
        struct scope *copy = arena_alloc(&e->arena, sizeof(*copy));

        if (!copy)
            return NULL;
        *copy = *scope;
        *last = copy;
        last = &copy->parent;
    }
    *last = scope;
    return first;
}

static int new_macro(struct eval *e, const struct chat_node *node, struct value *ret)
{
    struct macro *macro = arena_alloc(&e->arena, sizeof(*macro));

    if (!macro)
        return eval_memory(e);
    *macro = (struct macro){.node = node, .scope = keep_scope(e, e->scope)};
    if (!macro->scope)
        return eval_memory(e);
    *ret = (struct value){.kind = VALUE_MACRO, .macro = macro};
    return 0;
}

static int run_call_block(struct eval *e, const struct chat_node *node)
{
    struct chat_node *caller_node = arena_alloc(&e->arena, sizeof(*caller_node));
    struct macro caller = {.scope = e->scope};
    struct arguments arguments;
    struct value callee, v;
    struct text text;
    int r;

    if (!caller_node)
        return eval_memory(e);
    *caller_node = (struct chat_node){
        .kind = NODE_MACRO, .line = node->line, .text = {"caller", 6}, .a = node->c, .b = node->b};
    caller.node = caller_node;
    r = eval_expression(e, node->a->a, &callee);
    if (r >= 0)
        r = eval_arguments(e, node->a->b, &arguments);
    if (r >= 0)
        r = eval_call(e, callee, &arguments, (struct value){.kind = VALUE_MACRO, .macro = &caller}, &v);
    if (r >= 0)
        r = eval_write(e, v, &text);
    return r < 0 ? r : output(e, text);
}

static int run_with(struct eval *e, const struct chat_node *node)
{
    struct scope scope = {.parent = e->scope};
    int r = 0;

    for (const struct chat_node *set = node->a; set && r >= 0; set = set->next) {
        struct value v;

        r = eval_expression(e, set->b, &v); /* in the outer scope, as Jinja2 does */
        e->scope = &scope;
        if (r >= 0)
            r = assign(e, set->a, v);
        e->scope = scope.parent;
    }
    if (r < 0)
        return r;
    e->scope = &scope;
    r = eval_statements(e, node->b);
    e->scope = scope.parent;
    return r;
}

static int run_output(struct eval *e, const struct chat_node *node)
{
    struct value v;
    struct text text;
    int r = eval_expression(e, node->a, &v);

    if (r >= 0)
        r = eval_write(e, v, &text);
    return r < 0 ? r : output(e, text);
}

static int run_statement(struct eval *e, const struct chat_node *node)
{
    struct value v;
    int r;

    switch (node->kind) {
    case NODE_TEXT:
        return output(e, node->text);
    case NODE_OUTPUT:
        return run_output(e, node);
    case NODE_IF:
        return run_if(e, node);
    case NODE_FOR:
        return run_for(e, node);
    case NODE_SET:
        r = eval_expression(e, node->b, &v);
        return r < 0 ? r : assign(e, node->a, v);
    case NODE_SET_BLOCK:
        return run_set_block(e, node);
    case NODE_MACRO:
        r = new_macro(e, node, &v);
        return r < 0 ? r : eval_set(e, node->text, v);
    case NODE_CALL_BLOCK:
        return run_call_block(e, node);
    case NODE_FILTER_BLOCK:
        return run_filter_block(e, node);
    case NODE_WITH:
        return run_with(e, node);
    case NODE_GENERATION:
        return eval_statements(e, node->b);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        return eval_fail(e, "no statement");
    }
}

/* Returns FLOW_BREAK or FLOW_CONTINUE when one of them ended the list. */
int eval_statements(struct eval *e, const struct chat_node *first)
{
    int r = 0;

    if (++e->depth > EVAL_DEPTH_MAX)
        return limit(e, "many levels");
    for (const struct chat_node *node = first; node && r == 0; node = node->next) {
        e->line = node->line;
        r = eval_spend(e, 0);
        if (r == 0)
            r = run_statement(e, node);
    }
    e->depth--;
    return r;
}

static const struct argument *find_keyword(const struct arguments *arguments, struct text name)
{
    for (size_t i = 0; i < arguments->n; i++) {
        const struct argument *a = &arguments->items[i];

        if (a->name.n > 0 && a->name.n == name.n && memcmp(a->name.data, name.data, name.n) == 0)
            return a;
    }
    return NULL;
}

static int bind_parameters(struct eval *e, const struct chat_node *parameters,
                           const struct arguments *arguments)
{
    size_t i = 0;

    for (const struct chat_node *p = parameters; p; p = p->next, i++) {
        const struct argument *keyword = find_keyword(arguments, p->text);
        struct value v = value_undefined(p->text);
        int r = 0;

        if (i < arguments->n && arguments->items[i].name.n == 0)
            v = arguments->items[i].value;
        else if (keyword)
            v = keyword->value;
        else if (p->a)
            r = eval_expression(e, p->a, &v);
        if (r >= 0)
            r = eval_set(e, p->text, v);
        if (r < 0)
            return r;
    }
    if (i < arguments->n && arguments->items[i].name.n == 0)
        return eval_fail(e, "macro takes not more than %zu argument(s)", i);
    return 0;
}

int eval_call_macro(struct eval *e, const struct macro *macro, const struct arguments *arguments,
                    struct value caller, struct value *ret)
{
    struct scope scope = {.parent = macro->scope}, *outer = e->scope;
    int r = 0;

    if (++e->calls > e->limits->depth_max)
        return limit(e, "many nested calls");
    e->scope = &scope;
    if (caller.kind == VALUE_MACRO)
        r = eval_set(e, (struct text){"caller", 6}, caller);
    if (r >= 0)
        r = bind_parameters(e, macro->node->a, arguments);
    if (r >= 0)
        r = collect(e, macro->node->b, ret);
    e->scope = outer;
    e->calls--;
    return r;
}

int chat_template_new(const char *source, size_t n, struct chat_template **ret, struct fault *reterr)
{
    _cleanup_chat_template_ struct chat_template *t = calloc(1, sizeof(*t));
    struct token *tokens;
    char *copy;
    size_t length = 0;
    int r;

    if (!t)
        return -ENOMEM;
    if (n > CHAT_TEMPLATE_BYTES_MAX) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the chat template has %zu bytes, at most %d are read",
                            n, CHAT_TEMPLATE_BYTES_MAX);
        return -EINVAL;
    }
    /* A token takes 64 bytes, a node 160: a template can't make more of either than it has bytes. */
    t->arena.used_max = n * 512 + (1 << 16);
    copy = arena_alloc(&t->arena, n + 1);
    if (!copy)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        bool carriage = source[i] == '\r';

        copy[length++] = carriage ? '\n' : source[i];
        i += carriage && i + 1 < n && source[i + 1] == '\n';
    }
    if (!utf8_is_valid(copy, length, NULL)) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the chat template is not UTF-8");
        return -EINVAL;
    }
    r = lex_template(&t->arena, copy, length, &tokens, reterr);
    if (r >= 0)
        r = parse_template(&t->arena, tokens, &t->first, reterr);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

struct chat_template *chat_template_free(struct chat_template *t)
{
    if (t) {
        arena_done(&t->arena);
        free(t);
    }
    return NULL;
}

static int set_variables(struct eval *e, struct json_object *variables)
{
    struct value v;
    int r = value_from_json(&e->arena, variables, e->limits->depth_max, &v);

    if (r == -E2BIG)
        return limit(e, "deeply nested variables");
    if (r < 0)
        return eval_memory(e);
    if (v.kind != VALUE_DICT)
        return eval_fail(e, "the variables are no JSON object");
    e->scope->variables = *v.dict;
    return 0;
}

int chat_render(const struct chat_template *t, struct json_object *variables,
                const struct chat_limits *limits, const struct tm *now, char **ret, size_t *ret_n,
                struct fault *reterr)
{
    static const struct chat_limits usual = CHAT_LIMITS_DEFAULT;
    struct scope scope = {0};
    struct builder b;
    struct eval e = {
        .limits = limits ? limits : &usual, .now = now, .fault = reterr, .scope = &scope, .output = &b};
    char *text = NULL;
    int r;

    e.arena.used_max = e.limits->memory_max;
    b = (struct builder){.arena = &e.arena};
    r = set_variables(&e, variables);
    if (r >= 0)
        r = eval_statements(&e, t->first);
    if (r >= 0) {
        text = malloc(b.n + 1);
        r = text ? 0 : -ENOMEM;
    }
    if (r >= 0) {
        if (b.n > 0)
            memcpy(text, b.data, b.n);
        text[b.n] = 0;
        *ret = text;
        *ret_n = b.n;
    }
    arena_done(&e.arena);
    return r < 0 ? r : 0;
}
