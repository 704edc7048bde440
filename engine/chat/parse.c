/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recursive descent in the order of Jinja2's parser.py, so that precedences are its own:
 * condition < or < and < not < comparison < + - < ~ < * / // % < ** < unary < postfix, filters, tests.
 * Every function that can call itself counts depth: a template can't exhaust the stack.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "engine/chat/ast.h"
#include "engine/chat/lex.h"

/* Parentheses and blocks inside each other. Each level takes about ten C frames. */
enum { DEPTH_MAX = 100 };

struct parser {
    struct arena *arena;
    const struct token *t; /* the next token */
    unsigned depth;
    unsigned loops; /* that enclose the statement: break and continue need one */
    struct fault *fault;
};

static int parse_expression(struct parser *p, struct chat_node **ret);
static int parse_statements(struct parser *p, const char *const *ends, struct chat_node **ret);

__attribute__((format(printf, 2, 3))) static int refuse(struct parser *p, const char *format, ...)
{
    char what[200];
    va_list ap;

    va_start(ap, format);
    vsnprintf(what, sizeof(what), format, ap);
    va_end(ap);
    fault_model_invalid(p->fault, FAULT_NO_OFFSET, "chat template, line %u: %s", p->t->line, what);
    return -EINVAL;
}

static int new_node(struct parser *p, enum node_kind kind, struct chat_node **ret)
{
    struct chat_node *node = arena_alloc(p->arena, sizeof(*node));

    if (!node)
        return -ENOMEM;
    *node = (struct chat_node){.kind = kind, .line = p->t->line, .text = {"", 0}};
    *ret = node;
    return 0;
}

static int wrap(struct parser *p, enum node_kind kind, char op, struct chat_node *a, struct chat_node *b,
                struct chat_node **ret)
{
    struct chat_node *node;
    int r = new_node(p, kind, &node);

    if (r < 0)
        return r;
    node->op = op;
    node->a = a;
    node->b = b;
    *ret = node;
    return 0;
}

static bool is_operator(const struct parser *p, const char *op)
{
    return p->t->kind == TOKEN_OPERATOR && text_is(p->t->text, op);
}

static bool is_name(const struct parser *p, const char *name)
{
    return p->t->kind == TOKEN_NAME && text_is(p->t->text, name);
}

static bool take_operator(struct parser *p, const char *op)
{
    if (!is_operator(p, op))
        return false;
    p->t++;
    return true;
}

static bool take_name(struct parser *p, const char *name)
{
    if (!is_name(p, name))
        return false;
    p->t++;
    return true;
}

static int expect_operator(struct parser *p, const char *op)
{
    return take_operator(p, op) ? 0 : refuse(p, "expected '%s'", op);
}

static int expect_name(struct parser *p, struct text *ret)
{
    if (p->t->kind != TOKEN_NAME)
        return refuse(p, "expected a name");
    *ret = p->t++->text;
    return 0;
}

static int expect_block_end(struct parser *p)
{
    if (p->t->kind != TOKEN_BLOCK_END)
        return refuse(p, "expected the end of the tag");
    p->t++;
    return 0;
}

/* Arguments behind an opening parenthesis that has been taken. */
static int parse_arguments(struct parser *p, struct chat_node **ret)
{
    struct chat_node *first = NULL, **last = &first;

    while (!take_operator(p, ")")) {
        struct chat_node *node;
        int r;

        if (first) {
            r = expect_operator(p, ",");
            if (r < 0)
                return r;
            if (take_operator(p, ")"))
                break;
        }
        r = new_node(p, NODE_ARGUMENT, &node);
        if (r < 0)
            return r;
        if (p->t->kind == TOKEN_NAME && p->t[1].kind == TOKEN_OPERATOR && text_is(p->t[1].text, "=")) {
            node->text = p->t->text;
            p->t += 2;
        } else if (is_operator(p, "*") || is_operator(p, "**")) {
            return refuse(p, "argument lists with '*' are not supported");
        }
        r = parse_expression(p, &node->a);
        if (r < 0)
            return r;
        *last = node;
        last = &node->next;
    }
    *ret = first;
    return 0;
}

/* Items up to the closing bracket @end. @ret_comma: whether there was a comma, which makes (x,) a tuple. */
static int parse_items(struct parser *p, const char *end, struct chat_node **ret, bool *ret_comma)
{
    struct chat_node *first = NULL, **last = &first;

    *ret_comma = false;
    while (!take_operator(p, end)) {
        int r;

        if (first) {
            r = expect_operator(p, ",");
            if (r < 0)
                return r;
            *ret_comma = true;
            if (take_operator(p, end))
                break;
        }
        r = parse_expression(p, last);
        if (r < 0)
            return r;
        last = &(*last)->next;
    }
    *ret = first;
    return 0;
}

static int parse_dict(struct parser *p, struct chat_node *dict)
{
    struct chat_node **last = &dict->a;

    while (!take_operator(p, "}")) {
        struct chat_node *pair;
        int r;

        if (dict->a) {
            r = expect_operator(p, ",");
            if (r < 0)
                return r;
            if (take_operator(p, "}"))
                break;
        }
        r = new_node(p, NODE_PAIR, &pair);
        if (r >= 0)
            r = parse_expression(p, &pair->a);
        if (r >= 0)
            r = expect_operator(p, ":");
        if (r >= 0)
            r = parse_expression(p, &pair->b);
        if (r < 0)
            return r;
        *last = pair;
        last = &pair->next;
    }
    return 0;
}

static int parse_strings(struct parser *p, struct chat_node *node)
{
    struct builder b = {.arena = p->arena};

    while (p->t->kind == TOKEN_STRING) {
        if (builder_add(&b, p->t->text.data, p->t->text.n) < 0)
            return -ENOMEM;
        p->t++;
    }
    node->value = builder_value(&b);
    return 0;
}

static bool take_constant(struct parser *p, struct value *ret)
{
    static const struct {
        const char *name;
        enum value_kind kind;
        bool boolean;
    } constants[] = {
        {"true", VALUE_BOOL, true},   {"True", VALUE_BOOL, true},  {"false", VALUE_BOOL, false},
        {"False", VALUE_BOOL, false}, {"none", VALUE_NONE, false}, {"None", VALUE_NONE, false},
    };

    for (size_t i = 0; i < sizeof(constants) / sizeof(*constants); i++) {
        if (take_name(p, constants[i].name)) {
            *ret = constants[i].kind == VALUE_NONE ? value_none() : value_bool(constants[i].boolean);
            return true;
        }
    }
    return false;
}

static int parse_primary(struct parser *p, struct chat_node **ret)
{
    struct chat_node *node;
    bool comma;
    int r = new_node(p, NODE_LITERAL, &node);

    if (r < 0)
        return r;
    *ret = node;
    switch (p->t->kind) {
    case TOKEN_STRING:
        return parse_strings(p, node);
    case TOKEN_INT:
        node->value = value_int(p->t++->integer);
        return 0;
    case TOKEN_FLOAT:
        node->value = value_float(p->t++->real);
        return 0;
    case TOKEN_NAME:
        if (take_constant(p, &node->value))
            return 0;
        node->kind = NODE_NAME;
        node->text = p->t++->text;
        return 0;
    default:
        break;
    }
    if (take_operator(p, "(")) {
        node->kind = NODE_TUPLE;
        r = parse_items(p, ")", &node->a, &comma);
        if (r >= 0 && node->a && !comma)
            *ret = node->a;
        return r;
    }
    if (take_operator(p, "[")) {
        node->kind = NODE_LIST;
        return parse_items(p, "]", &node->a, &comma);
    }
    if (take_operator(p, "{")) {
        node->kind = NODE_DICT;
        return parse_dict(p, node);
    }
    return refuse(p, "expected an expression");
}

/* What stands in brackets, behind the opening one: an index or a slice. */
static int parse_subscript(struct parser *p, struct chat_node **ret)
{
    struct chat_node *part[3] = {NULL}, *slice;
    unsigned colons = 0;
    int r;

    for (;;) {
        if (!is_operator(p, ":") && !is_operator(p, "]")) {
            r = parse_expression(p, &part[colons]);
            if (r < 0)
                return r;
        }
        if (colons == 2 || !take_operator(p, ":"))
            break;
        colons++;
    }
    r = expect_operator(p, "]");
    if (r < 0)
        return r;
    if (colons == 0) {
        *ret = part[0];
        return part[0] ? 0 : refuse(p, "expected an index before ']'");
    }
    r = new_node(p, NODE_SLICE, &slice);
    if (r < 0)
        return r;
    slice->a = part[0];
    slice->b = part[1];
    slice->c = part[2];
    *ret = slice;
    return 0;
}

static int parse_postfix(struct parser *p, struct chat_node **node)
{
    for (;;) {
        int r;

        if (take_operator(p, ".")) {
            r = wrap(p, NODE_ATTRIBUTE, 0, *node, NULL, node);
            if (r >= 0 && p->t->kind == TOKEN_INT) {
                /* foo.0 is foo[0] */
                struct chat_node *object = (*node)->a;

                r = new_node(p, NODE_LITERAL, node);
                if (r >= 0) {
                    (*node)->value = value_int(p->t++->integer);
                    r = wrap(p, NODE_ITEM, 0, object, *node, node);
                }
            } else if (r >= 0) {
                r = expect_name(p, &(*node)->text);
            }
        } else if (take_operator(p, "[")) {
            struct chat_node *subscript;

            r = parse_subscript(p, &subscript);
            if (r >= 0)
                r = wrap(p, NODE_ITEM, 0, *node, subscript, node);
        } else if (take_operator(p, "(")) {
            r = wrap(p, NODE_CALL, 0, *node, NULL, node);
            if (r >= 0)
                r = parse_arguments(p, &(*node)->b);
        } else {
            return 0;
        }
        if (r < 0)
            return r;
    }
}

static int parse_filter(struct parser *p, struct chat_node **node)
{
    int r = wrap(p, NODE_FILTER, 0, *node, NULL, node);

    if (r >= 0)
        r = expect_name(p, &(*node)->text);
    if (r >= 0 && take_operator(p, "("))
        r = parse_arguments(p, &(*node)->b);
    return r;
}

/* Behind `is`. A test may have one argument without parentheses: `x is divisibleby 3`. */
static int parse_test(struct parser *p, struct chat_node **node)
{
    bool negated = take_name(p, "not");
    int r = wrap(p, NODE_TEST, 0, *node, NULL, node);

    if (r >= 0)
        r = expect_name(p, &(*node)->text);
    if (r < 0)
        return r;
    if (take_operator(p, "(")) {
        r = parse_arguments(p, &(*node)->b);
    } else if (p->t->kind == TOKEN_STRING || p->t->kind == TOKEN_INT || p->t->kind == TOKEN_FLOAT ||
               is_operator(p, "[") || is_operator(p, "{") ||
               (p->t->kind == TOKEN_NAME && !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and") &&
                !is_name(p, "is") && !is_name(p, "if") && !is_name(p, "not") && !is_name(p, "in"))) {
        r = new_node(p, NODE_ARGUMENT, &(*node)->b);
        if (r >= 0)
            r = parse_primary(p, &(*node)->b->a);
        if (r >= 0)
            r = parse_postfix(p, &(*node)->b->a);
    }
    return r >= 0 && negated ? wrap(p, NODE_NOT, 0, *node, NULL, node) : r;
}

static int parse_filters(struct parser *p, struct chat_node **node)
{
    for (;;) {
        int r;

        if (take_operator(p, "|"))
            r = parse_filter(p, node);
        else if (take_name(p, "is"))
            r = parse_test(p, node);
        else if (is_operator(p, "("))
            r = parse_postfix(p, node);
        else
            return 0;
        if (r < 0)
            return r;
    }
}

static int parse_unary(struct parser *p, bool with_filters, struct chat_node **ret)
{
    bool minus = take_operator(p, "-"), plus = !minus && take_operator(p, "+");
    int r;

    if (minus || plus) {
        if (++p->depth > DEPTH_MAX)
            return refuse(p, "nested too deeply");
        r = parse_unary(p, false, ret);
        p->depth--;
        if (r >= 0)
            r = wrap(p, minus ? NODE_NEGATE : NODE_PLUS, 0, *ret, NULL, ret);
    } else {
        r = parse_primary(p, ret);
        if (r >= 0)
            r = parse_postfix(p, ret);
    }
    return r >= 0 && with_filters ? parse_filters(p, ret) : r;
}

static int parse_power(struct parser *p, struct chat_node **ret)
{
    int r = parse_unary(p, true, ret);

    while (r >= 0 && take_operator(p, "**")) {
        struct chat_node *right;

        r = parse_unary(p, true, &right);
        if (r >= 0)
            r = wrap(p, NODE_BINARY, 'p', *ret, right, ret);
    }
    return r;
}

/* Left-associative levels from the tightest: 0: * / // %, 1: ~, 2: + - */
static int parse_binary(struct parser *p, unsigned level, struct chat_node **ret)
{
    static const struct {
        const char *text;
        char op;
    } operators[3][4] = {
        {{"*", '*'}, {"/", '/'}, {"//", 'f'}, {"%", '%'}},
        {{"~", '~'}},
        {{"+", '+'}, {"-", '-'}},
    };
    int r = level == 0 ? parse_power(p, ret) : parse_binary(p, level - 1, ret);

    while (r >= 0) {
        struct chat_node *right;
        char op = 0;

        for (size_t i = 0; i < 4 && operators[level][i].text && !op; i++) {
            if (take_operator(p, operators[level][i].text))
                op = operators[level][i].op;
        }
        if (!op)
            return 0;
        r = level == 0 ? parse_power(p, &right) : parse_binary(p, level - 1, &right);
        if (r >= 0)
            r = wrap(p, NODE_BINARY, op, *ret, right, ret);
    }
    return r;
}

static char take_comparison(struct parser *p)
{
    static const struct {
        const char *text;
        char op;
    } operators[] = {{"==", '='}, {"!=", '!'}, {"<=", 'l'}, {">=", 'g'}, {"<", '<'}, {">", '>'}};

    for (size_t i = 0; i < sizeof(operators) / sizeof(*operators); i++) {
        if (take_operator(p, operators[i].text))
            return operators[i].op;
    }
    if (take_name(p, "in"))
        return 'i';
    if (is_name(p, "not") && p->t[1].kind == TOKEN_NAME && text_is(p->t[1].text, "in")) {
        p->t += 2;
        return 'n';
    }
    return 0;
}

static int parse_comparison(struct parser *p, struct chat_node **ret)
{
    struct chat_node **last = NULL;
    int r = parse_binary(p, 2, ret);

    while (r >= 0) {
        struct chat_node *operand;
        char op = take_comparison(p);

        if (!op)
            return 0;
        if (!last) {
            r = wrap(p, NODE_COMPARE, 0, *ret, NULL, ret);
            if (r < 0)
                return r;
            last = &(*ret)->b;
        }
        r = wrap(p, NODE_OPERAND, op, NULL, NULL, &operand);
        if (r >= 0)
            r = parse_binary(p, 2, &operand->a);
        if (r < 0)
            return r;
        *last = operand;
        last = &operand->next;
    }
    return r;
}

static int parse_not(struct parser *p, struct chat_node **ret)
{
    unsigned n = 0;
    int r;

    while (take_name(p, "not"))
        n++;
    r = parse_comparison(p, ret);
    /* An even number of them is not the value itself but its truth. */
    for (unsigned i = 0; i < (n > 2 ? 2 - n % 2 : n) && r >= 0; i++)
        r = wrap(p, NODE_NOT, 0, *ret, NULL, ret);
    return r;
}

static int parse_and(struct parser *p, struct chat_node **ret)
{
    int r = parse_not(p, ret);

    while (r >= 0 && take_name(p, "and")) {
        struct chat_node *right;

        r = parse_not(p, &right);
        if (r >= 0)
            r = wrap(p, NODE_AND, 0, *ret, right, ret);
    }
    return r;
}

static int parse_or(struct parser *p, struct chat_node **ret)
{
    int r = parse_and(p, ret);

    while (r >= 0 && take_name(p, "or")) {
        struct chat_node *right;

        r = parse_and(p, &right);
        if (r >= 0)
            r = wrap(p, NODE_OR, 0, *ret, right, ret);
    }
    return r;
}

static int parse_expression(struct parser *p, struct chat_node **ret)
{
    int r;

    if (++p->depth > DEPTH_MAX)
        return refuse(p, "nested too deeply");
    r = parse_or(p, ret);
    while (r >= 0 && take_name(p, "if")) {
        r = wrap(p, NODE_CONDITION, 0, *ret, NULL, ret);
        if (r >= 0)
            r = parse_or(p, &(*ret)->b);
        if (r >= 0 && take_name(p, "else"))
            r = parse_expression(p, &(*ret)->c);
    }
    p->depth--;
    return r;
}

/* `a, b` without parentheses is a tuple where a statement allows it. */
static int parse_tuple(struct parser *p, struct chat_node **ret)
{
    struct chat_node *tuple, **last;
    int r = parse_expression(p, ret);

    if (r < 0 || !is_operator(p, ","))
        return r;
    r = wrap(p, NODE_TUPLE, 0, *ret, NULL, &tuple);
    if (r < 0)
        return r;
    last = &tuple->a->next;
    while (take_operator(p, ",") && p->t->kind != TOKEN_BLOCK_END && p->t->kind != TOKEN_OUTPUT_END) {
        r = parse_expression(p, last);
        if (r < 0)
            return r;
        last = &(*last)->next;
    }
    *ret = tuple;
    return 0;
}

/* Names, tuples of names in parentheses or without, and (with @attributes) ns.name. */
static int parse_target(struct parser *p, bool attributes, struct chat_node **ret)
{
    bool parentheses = take_operator(p, "(");
    struct chat_node *first = NULL, **last = &first;
    unsigned n = 0;
    int r;

    do {
        r = new_node(p, NODE_NAME, last);
        if (r >= 0)
            r = expect_name(p, &(*last)->text);
        if (r >= 0 && attributes && take_operator(p, ".")) {
            r = wrap(p, NODE_ATTRIBUTE, 0, *last, NULL, last);
            if (r >= 0)
                r = expect_name(p, &(*last)->text);
        }
        if (r < 0)
            return r;
        last = &(*last)->next;
        n++;
    } while (take_operator(p, ","));
    if (parentheses) {
        r = expect_operator(p, ")");
        if (r < 0)
            return r;
    }
    if (n == 1) {
        *ret = first;
        return 0;
    }
    return wrap(p, NODE_TUPLE, 0, first, NULL, ret);
}

/* After a body: the closing tag's name has been checked by parse_statements(); takes "name %}". */
static int end_block(struct parser *p)
{
    p->t++;
    return expect_block_end(p);
}

static int parse_if(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    int r = parse_tuple(p, &node->a);

    if (r >= 0)
        r = expect_block_end(p);
    if (r >= 0)
        r = parse_statements(p, ends, &node->b);
    if (r < 0)
        return r;
    if (take_name(p, "elif")) {
        r = new_node(p, NODE_IF, &node->c);
        if (++p->depth > DEPTH_MAX)
            return refuse(p, "nested too deeply");
        if (r >= 0)
            r = parse_if(p, node->c);
        p->depth--;
        return r;
    }
    if (take_name(p, "else")) {
        r = expect_block_end(p);
        if (r >= 0)
            r = parse_statements(p, last, &node->c);
    }
    return r < 0 ? r : end_block(p);
}

static int parse_for(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    int r = parse_target(p, false, &node->a);

    if (r >= 0 && !take_name(p, "in"))
        r = refuse(p, "expected 'in'");
    if (r >= 0) {
        /* Not a whole expression: `for x in y if z` must leave the condition to the loop. */
        r = parse_or(p, &node->b);
    }
    if (r >= 0 && take_name(p, "if"))
        r = parse_expression(p, &node->c);
    if (r >= 0 && is_name(p, "recursive"))
        r = refuse(p, "recursive loops are not supported");
    if (r >= 0)
        r = expect_block_end(p);
    p->loops++;
    if (r >= 0)
        r = parse_statements(p, ends, &node->d);
    p->loops--;
    if (r >= 0 && take_name(p, "else")) {
        r = expect_block_end(p);
        if (r >= 0)
            r = parse_statements(p, ends + 1, &node->e);
    }
    return r < 0 ? r : end_block(p);
}

static int parse_set(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"endset", NULL};
    int r = parse_target(p, true, &node->a);

    if (r < 0)
        return r;
    if (take_operator(p, "=")) {
        r = parse_tuple(p, &node->b);
        return r < 0 ? r : expect_block_end(p);
    }
    node->kind = NODE_SET_BLOCK;
    while (r >= 0 && take_operator(p, "|"))
        r = parse_filter(p, &node->c);
    if (r >= 0)
        r = expect_block_end(p);
    if (r >= 0)
        r = parse_statements(p, ends, &node->b);
    return r < 0 ? r : end_block(p);
}

/* Behind the opening parenthesis. */
static int parse_parameters(struct parser *p, struct chat_node **ret)
{
    struct chat_node *first = NULL, **last = &first;

    while (!take_operator(p, ")")) {
        int r;

        if (first) {
            r = expect_operator(p, ",");
            if (r < 0)
                return r;
        }
        r = new_node(p, NODE_PARAMETER, last);
        if (r >= 0)
            r = expect_name(p, &(*last)->text);
        if (r >= 0 && take_operator(p, "="))
            r = parse_expression(p, &(*last)->a);
        if (r < 0)
            return r;
        last = &(*last)->next;
    }
    *ret = first;
    return 0;
}

static int parse_body(struct parser *p, const char *const *ends, struct chat_node **ret)
{
    unsigned loops = p->loops;
    int r = expect_block_end(p);

    p->loops = 0;
    if (r >= 0)
        r = parse_statements(p, ends, ret);
    p->loops = loops;
    return r < 0 ? r : end_block(p);
}

static int parse_macro(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"endmacro", NULL};
    int r = expect_name(p, &node->text);

    if (r >= 0)
        r = expect_operator(p, "(");
    if (r >= 0)
        r = parse_parameters(p, &node->a);
    return r < 0 ? r : parse_body(p, ends, &node->b);
}

static int parse_call_block(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"endcall", NULL};
    int r = 0;

    if (take_operator(p, "("))
        r = parse_parameters(p, &node->c);
    if (r >= 0)
        r = parse_expression(p, &node->a);
    if (r >= 0 && node->a->kind != NODE_CALL)
        r = refuse(p, "expected a call");
    return r < 0 ? r : parse_body(p, ends, &node->b);
}

static int parse_filter_block(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"endfilter", NULL};
    int r = parse_filter(p, &node->a);

    while (r >= 0 && take_operator(p, "|"))
        r = parse_filter(p, &node->a);
    if (r >= 0)
        r = expect_block_end(p);
    if (r >= 0)
        r = parse_statements(p, ends, &node->b);
    return r < 0 ? r : end_block(p);
}

static int parse_with(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"endwith", NULL};
    struct chat_node **last = &node->a;
    int r = 0;

    while (r >= 0 && p->t->kind != TOKEN_BLOCK_END) {
        if (node->a) {
            r = expect_operator(p, ",");
            if (r < 0)
                return r;
        }
        r = new_node(p, NODE_SET, last);
        if (r >= 0)
            r = new_node(p, NODE_NAME, &(*last)->a);
        if (r >= 0)
            r = expect_name(p, &(*last)->a->text);
        if (r >= 0)
            r = expect_operator(p, "=");
        if (r >= 0)
            r = parse_expression(p, &(*last)->b);
        if (r >= 0)
            last = &(*last)->next;
    }
    if (r >= 0)
        r = expect_block_end(p);
    if (r >= 0)
        r = parse_statements(p, ends, &node->b);
    return r < 0 ? r : end_block(p);
}

/* {% generation %} marks the assistant's text for training; its body is written as if the tags were not
 * there. */
static int parse_generation(struct parser *p, struct chat_node *node)
{
    static const char *const ends[] = {"endgeneration", NULL};
    int r = expect_block_end(p);

    if (r >= 0)
        r = parse_statements(p, ends, &node->b);
    return r < 0 ? r : end_block(p);
}

static int parse_jump(struct parser *p, struct chat_node *node)
{
    if (p->loops == 0)
        return refuse(p, "break and continue stand in loops only");
    return expect_block_end(p);
}

/* A tag; its name is the next token. */
static int parse_block(struct parser *p, struct chat_node **ret)
{
    static const struct {
        const char *name;
        enum node_kind kind;
        int (*parse)(struct parser *p, struct chat_node *node);
    } tags[] = {
        {"if", NODE_IF, parse_if},
        {"for", NODE_FOR, parse_for},
        {"set", NODE_SET, parse_set},
        {"macro", NODE_MACRO, parse_macro},
        {"call", NODE_CALL_BLOCK, parse_call_block},
        {"filter", NODE_FILTER_BLOCK, parse_filter_block},
        {"with", NODE_WITH, parse_with},
        {"generation", NODE_GENERATION, parse_generation},
        {"break", NODE_BREAK, parse_jump},
        {"continue", NODE_CONTINUE, parse_jump},
    };

    for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++) {
        int r;

        if (!is_name(p, tags[i].name))
            continue;
        r = new_node(p, tags[i].kind, ret);
        p->t++;
        if (++p->depth > DEPTH_MAX)
            return refuse(p, "nested too deeply");
        if (r >= 0)
            r = tags[i].parse(p, *ret);
        p->depth--;
        return r;
    }
    return refuse(p, "unknown tag '%.*s'", (int)(p->t->text.n < 60 ? p->t->text.n : 60), p->t->text.data);
}

static int parse_output(struct parser *p, struct chat_node **ret)
{
    int r = new_node(p, NODE_OUTPUT, ret);

    p->t++;
    if (r >= 0)
        r = parse_tuple(p, &(*ret)->a);
    if (r < 0)
        return r;
    if (p->t->kind != TOKEN_OUTPUT_END)
        return refuse(p, "expected '}}'");
    p->t++;
    return 0;
}

static bool is_end(const struct parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++) {
        if (is_name(p, *ends))
            return true;
    }
    return false;
}

/* Up to a tag whose name is in @ends (left as the next token), or with NULL up to the end. */
static int parse_statements(struct parser *p, const char *const *ends, struct chat_node **ret)
{
    struct chat_node *first = NULL, **last = &first;

    for (;;) {
        int r;

        switch (p->t->kind) {
        case TOKEN_TEXT:
            r = new_node(p, NODE_TEXT, last);
            if (r >= 0)
                (*last)->text = p->t++->text;
            break;
        case TOKEN_OUTPUT_BEGIN:
            r = parse_output(p, last);
            break;
        case TOKEN_BLOCK_BEGIN:
            p->t++;
            if (is_end(p, ends)) {
                *ret = first;
                return 0;
            }
            r = parse_block(p, last);
            break;
        default:
            if (ends)
                return refuse(p, "the template ends before '%s'", ends[0]);
            *ret = first;
            return 0;
        }
        if (r < 0)
            return r;
        last = &(*last)->next;
    }
}

int parse_template(struct arena *arena, const struct token *tokens, struct chat_node **ret,
                   struct fault *reterr)
{
    struct parser p = {.arena = arena, .t = tokens, .fault = reterr};

    return parse_statements(&p, NULL, ret);
}
