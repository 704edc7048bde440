/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Filters: `value | name(arguments)`. Each is one function; the table at the end names them. What Jinja2 has
 * as both a filter and a string method shares the method.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/chat/eval.h"
#include "engine/chat/format.h"

typedef int (*filter_fn)(struct eval *e, struct value v, const struct arguments *arguments,
                         struct value *ret);

static int no_number(struct eval *e, struct value v)
{
    return eval_fail(e, "'%s' is no number", value_kind_to_string(v.kind));
}

static int new_list(struct eval *e, struct value *ret)
{
    *ret = value_list_new(&e->arena, false);
    return ret->kind == VALUE_LIST ? 0 : eval_memory(e);
}

static int add_item(struct eval *e, struct value list, struct value item)
{
    return list_add(&e->arena, list.list, item) < 0 ? eval_memory(e) : eval_spend(e, 0);
}

static int as_method(struct eval *e, const char *name, struct value v, const struct arguments *arguments,
                     struct value *ret)
{
    struct method method = {.name = {name, strlen(name)}};
    struct text text;
    int r = eval_write(e, v, &text);

    method.receiver = value_text(text.data, text.n);
    return r < 0 ? r : method_call(e, &method, arguments, ret);
}

static int filter_trim(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return as_method(e, "strip", v, a, ret);
}

static int filter_upper(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return as_method(e, "upper", v, a, ret);
}

static int filter_lower(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return as_method(e, "lower", v, a, ret);
}

/* Not str.title(): only white space, '-' and opening brackets begin a word here, so "it's" stays one. */
static int filter_title(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    bool first = true;
    struct text text;
    char *copy;
    int r = eval_write(e, v, &text);

    (void)a;
    if (r < 0)
        return r;
    copy = arena_alloc(&e->arena, text.n + 1);
    if (!copy)
        return eval_memory(e);
    for (size_t i = 0; i < text.n; i++) {
        char c = text.data[i];

        if (first && c >= 'a' && c <= 'z')
            c = (char)(c - 32);
        else if (!first && c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        copy[i] = c;
        first =
            c == ' ' || (c >= '\t' && c <= '\r') || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    }
    *ret = value_text(copy, text.n);
    return eval_spend(e, text.n);
}

static int filter_capitalize(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return as_method(e, "capitalize", v, a, ret);
}

static int filter_replace(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return as_method(e, "replace", v, a, ret);
}

static int filter_default(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    bool boolean = value_is_true(eval_argument(a, 1, "boolean", value_bool(false)));

    (void)e;
    *ret = v.kind == VALUE_UNDEFINED || (boolean && !value_is_true(v))
               ? eval_argument(a, 0, "default_value", value_string(""))
               : v;
    return 0;
}

static int filter_length(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct list *items;
    int r;

    (void)a;
    if (v.kind == VALUE_DICT) {
        *ret = value_int((int64_t)v.dict->n);
        return 0;
    }
    r = eval_items(e, v, &items);
    *ret = value_int(r < 0 ? 0 : (int64_t)items->n);
    return r;
}

static int filter_first(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct list *items;
    int r = eval_items(e, v, &items);

    (void)a;
    if (r >= 0)
        *ret = items->n > 0 ? items->items[0] : value_undefined((struct text){"first item", 10});
    return r;
}

static int filter_last(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct list *items;
    int r = eval_items(e, v, &items);

    (void)a;
    if (r >= 0)
        *ret = items->n > 0 ? items->items[items->n - 1] : value_undefined((struct text){"last item", 9});
    return r;
}

/* An attribute path of map(), sort(), …: "function.name" or an index. */
static int attribute_of(struct eval *e, struct value v, struct value path, struct value *ret)
{
    struct text rest;

    if (path.kind != VALUE_STRING)
        return eval_item(e, v, path, ret);
    rest = path.string;
    for (;;) {
        const char *dot = memchr(rest.data, '.', rest.n);
        size_t n = dot ? (size_t)(dot - rest.data) : rest.n;
        int r = eval_item(e, v, value_text(rest.data, n), &v);

        if (r < 0)
            return r;
        if (!dot)
            break;
        rest = (struct text){dot + 1, rest.n - n - 1};
    }
    *ret = v;
    return 0;
}

static int filter_join(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value attribute = eval_argument(a, 1, "attribute", value_none());
    struct builder b = {.arena = &e->arena};
    struct text separator, text;
    struct list *items;
    int r = eval_write(e, eval_argument(a, 0, "d", value_string("")), &separator);

    if (r >= 0)
        r = eval_items(e, v, &items);
    for (size_t i = 0; r >= 0 && i < items->n; i++) {
        struct value item = items->items[i];

        if (attribute.kind != VALUE_NONE)
            r = attribute_of(e, item, attribute, &item);
        if (r >= 0)
            r = eval_write(e, item, &text);
        if (r >= 0 && ((i > 0 && builder_add(&b, separator.data, separator.n) < 0) ||
                       builder_add(&b, text.data, text.n) < 0))
            r = eval_memory(e);
        if (r >= 0)
            r = eval_spend(e, separator.n + text.n);
    }
    *ret = builder_value(&b);
    return r;
}

static int filter_list(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct list *items;
    int r = eval_items(e, v, &items);

    (void)a;
    *ret = (struct value){.kind = VALUE_LIST, .list = items};
    return r;
}

static int filter_string(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct text text;
    int r = eval_write(e, v, &text);

    (void)a;
    *ret = value_text(text.data, text.n);
    return r;
}

/* A number in a string, up to its end; false if it is none. */
static bool number_in(struct text t, double *ret)
{
    char copy[64], *end;

    while (t.n > 0 && (t.data[t.n - 1] == ' ' || t.data[t.n - 1] == '\n'))
        t.n--;
    if (t.n == 0 || t.n >= sizeof(copy))
        return false;
    memcpy(copy, t.data, t.n);
    copy[t.n] = 0;
    *ret = strtod(copy, &end);
    return *end == 0;
}

static int filter_int(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    double f;

    (void)e;
    if (v.kind == VALUE_INT)
        *ret = v;
    else if ((value_is_number(v, &f) || (v.kind == VALUE_STRING && number_in(v.string, &f))) &&
             fabs(f) < 9e18)
        *ret = value_int((int64_t)f);
    else
        *ret = eval_argument(a, 0, "default", value_int(0));
    return 0;
}

static int filter_float(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    double f;

    (void)e;
    if (value_is_number(v, &f) || (v.kind == VALUE_STRING && number_in(v.string, &f)))
        *ret = value_float(f);
    else
        *ret = eval_argument(a, 0, "default", value_float(0));
    return 0;
}

static int filter_abs(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    (void)a;
    if (v.kind == VALUE_INT && v.integer != INT64_MIN)
        *ret = value_int(v.integer < 0 ? -v.integer : v.integer);
    else if (v.kind == VALUE_FLOAT)
        *ret = value_float(fabs(v.real));
    else
        return no_number(e, v);
    return 0;
}

static int filter_round(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value precision = eval_argument(a, 0, "precision", value_int(0));
    struct value method = eval_argument(a, 1, "method", value_string("common"));
    double f, scale;
    char text[64];

    if (!value_is_number(v, &f) || precision.kind != VALUE_INT || precision.integer < 0 ||
        precision.integer > 15)
        return no_number(e, v);
    if (v.kind == VALUE_INT && value_is_named(method, "common")) {
        *ret = v;
        return 0;
    }
    scale = pow(10, (double)precision.integer);
    if (value_is_named(method, "ceil"))
        f = ceil(f * scale) / scale;
    else if (value_is_named(method, "floor"))
        f = floor(f * scale) / scale;
    else if (fabs(f) < 1e15) {
        snprintf(text, sizeof(text), "%.*f", (int)precision.integer,
                 f); /* decimal half to even, as Python's round() */
        f = strtod(text, NULL);
    }
    *ret = value_float(f);
    return 0;
}

static struct text text_or(struct value v, const char *fallback)
{
    return v.kind == VALUE_STRING ? v.string : (struct text){fallback, strlen(fallback)};
}

static int filter_tojson(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value indent = eval_argument(a, 0, "indent", value_none());
    struct value separators = eval_argument(a, 99, "separators", value_none());
    struct dumps_style style = {
        .indent = indent.kind == VALUE_INT && indent.integer >= 0 && indent.integer <= 16
                      ? (int)indent.integer
                      : -1,
        .sort_keys = value_is_true(eval_argument(a, 99, "sort_keys", value_bool(false))),
        .ascii = value_is_true(eval_argument(a, 99, "ensure_ascii", value_bool(false))),
    };
    struct builder b = {.arena = &e->arena};
    int r;

    style.item_separator = text_or(value_none(), style.indent >= 0 ? "," : ", ");
    style.key_separator = text_or(value_none(), ": ");
    if (separators.kind == VALUE_LIST && separators.list->n == 2) {
        style.item_separator = text_or(separators.list->items[0], ", ");
        style.key_separator = text_or(separators.list->items[1], ": ");
    }
    r = value_dumps(&b, v, &style);
    if (r == -EINVAL)
        return eval_fail(e, "an object of type '%s' is no JSON", value_kind_to_string(v.kind));
    if (r < 0)
        return eval_memory(e);
    *ret = builder_value(&b);
    return eval_spend(e, b.n);
}

static int filter_items(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct method method = {.receiver = v, .name = {"items", 5}};

    if (v.kind == VALUE_UNDEFINED)
        return new_list(e, ret);
    if (v.kind != VALUE_DICT)
        return eval_fail(e, "can only get item pairs from a mapping");
    return method_call(e, &method, a, ret);
}

struct sort_key {
    struct value key, item;
    size_t i; /* sorting is stable */
};

struct sort_order {
    bool reverse, failed;
};

static int compare_keys(const void *x, const void *y, void *data)
{
    const struct sort_key *a = x, *b = y;
    struct sort_order *order = data;
    int r = 0;

    if (!value_compare(a->key, b->key, &r))
        order->failed = true;
    if (r != 0)
        return order->reverse ? -r : r;
    return a->i < b->i ? -1 : a->i > b->i;
}

static int lower_key(struct eval *e, bool case_sensitive, struct value *key)
{
    static const struct arguments none;

    if (case_sensitive || key->kind != VALUE_STRING)
        return 0;
    return as_method(e, "lower", *key, &none, key);
}

/* Sorts @items by an attribute (or themselves) into a new list. */
static int sort_items(struct eval *e, const struct list *items, struct value attribute, bool case_sensitive,
                      bool reverse, struct value *ret)
{
    struct sort_order order = {.reverse = reverse};
    struct sort_key *keys = arena_alloc(&e->arena, (items->n + 1) * sizeof(*keys));
    int r = new_list(e, ret);

    if (!keys)
        return eval_memory(e);
    for (size_t i = 0; i < items->n && r >= 0; i++) {
        keys[i] = (struct sort_key){.key = items->items[i], .item = items->items[i], .i = i};
        if (attribute.kind != VALUE_NONE)
            r = attribute_of(e, keys[i].item, attribute, &keys[i].key);
        if (r >= 0)
            r = lower_key(e, case_sensitive, &keys[i].key);
    }
    if (r < 0)
        return r;
    r = eval_spend(e, items->n * 256);
    if (r < 0)
        return r;
    qsort_r(keys, items->n, sizeof(*keys), compare_keys, &order);
    if (order.failed)
        return eval_fail(e, "these items have no order");
    for (size_t i = 0; i < items->n && r >= 0; i++)
        r = add_item(e, *ret, keys[i].item);
    return r;
}

static int filter_sort(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct list *items;
    int r = eval_items(e, v, &items);

    if (r < 0)
        return r;
    return sort_items(e, items, eval_argument(a, 2, "attribute", value_none()),
                      value_is_true(eval_argument(a, 1, "case_sensitive", value_bool(false))),
                      value_is_true(eval_argument(a, 0, "reverse", value_bool(false))), ret);
}

static int filter_dictsort(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value pairs, by = eval_argument(a, 1, "by", value_string("key"));
    int r = filter_items(e, v, &(struct arguments){0}, &pairs);

    if (r < 0)
        return r;
    return sort_items(e, pairs.list, value_int(value_is_named(by, "value")),
                      value_is_true(eval_argument(a, 0, "case_sensitive", value_bool(false))),
                      value_is_true(eval_argument(a, 2, "reverse", value_bool(false))), ret);
}

static int filter_reverse(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct builder b = {.arena = &e->arena};
    struct list *items;
    int r = eval_items(e, v, &items);

    (void)a;
    if (r >= 0)
        r = new_list(e, ret);
    for (size_t i = r < 0 ? 0 : items->n; i > 0 && r >= 0; i--) {
        r = add_item(e, *ret, items->items[i - 1]);
        if (r >= 0 && v.kind == VALUE_STRING &&
            builder_add(&b, items->items[i - 1].string.data, items->items[i - 1].string.n) < 0)
            r = eval_memory(e);
    }
    if (v.kind == VALUE_STRING)
        *ret = builder_value(&b);
    return r;
}

static int filter_unique(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value seen, attribute = eval_argument(a, 1, "attribute", value_none());
    bool sensitive = value_is_true(eval_argument(a, 0, "case_sensitive", value_bool(false)));
    struct list *items;
    int r = eval_items(e, v, &items);

    if (r >= 0)
        r = new_list(e, ret);
    if (r >= 0)
        r = new_list(e, &seen);
    for (size_t i = 0; r >= 0 && i < items->n; i++) {
        struct value key = items->items[i];
        bool found = false;

        if (attribute.kind != VALUE_NONE)
            r = attribute_of(e, key, attribute, &key);
        if (r >= 0)
            r = lower_key(e, sensitive, &key);
        if (r >= 0)
            r = eval_in(e, key, seen, &found);
        if (r >= 0 && !found) {
            r = add_item(e, seen, key);
            if (r >= 0)
                r = add_item(e, *ret, items->items[i]);
        }
    }
    return r;
}

static int map_item(struct eval *e, struct value item, const struct arguments *a, struct value attribute,
                    struct value *ret)
{
    struct arguments rest = {.n = a->n > 0 ? a->n - 1 : 0, .items = a->items + 1};
    int r;

    if (attribute.kind != VALUE_NONE) {
        r = attribute_of(e, item, attribute, ret);
        if (r >= 0 && ret->kind == VALUE_UNDEFINED)
            *ret = eval_argument(a, 99, "default", *ret);
        return r;
    }
    if (a->n == 0 || a->items[0].value.kind != VALUE_STRING)
        return eval_fail(e, "map requires a filter argument");
    return filter_apply(e, a->items[0].value.string, item, &rest, ret);
}

/* As eval_items(), but what is false has none: None, too, which can't be gone through otherwise. */
static int items_if_any(struct eval *e, struct value v, struct list **ret)
{
    struct value empty;

    if (value_is_true(v))
        return eval_items(e, v, ret);
    empty = value_list_new(&e->arena, false);
    if (empty.kind != VALUE_LIST)
        return eval_memory(e);
    *ret = empty.list;
    return 0;
}

static int filter_map(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value attribute = eval_argument(a, 99, "attribute", value_none());
    struct list *items;
    int r = items_if_any(e, v, &items);

    if (r >= 0)
        r = new_list(e, ret);
    for (size_t i = 0; r >= 0 && i < items->n; i++) {
        struct value mapped;

        r = map_item(e, items->items[i], a, attribute, &mapped);
        if (r >= 0)
            r = add_item(e, *ret, mapped);
    }
    return r;
}

/* select, reject, selectattr, rejectattr: a test of the items, or of an attribute of them. */
static int choose(struct eval *e, struct value v, const struct arguments *a, bool by_attribute, bool wanted,
                  struct value *ret)
{
    size_t skip = by_attribute ? 1 : 0;
    struct arguments rest = {.n = a->n > skip + 1 ? a->n - skip - 1 : 0, .items = a->items + skip + 1};
    struct list *items;
    int r = items_if_any(e, v, &items);

    if (r >= 0)
        r = new_list(e, ret);
    if (r >= 0 && by_attribute && a->n == 0)
        return eval_fail(e, "an attribute is missing");
    for (size_t i = 0; r >= 0 && i < items->n; i++) {
        struct value tested = items->items[i];
        bool holds;

        if (by_attribute)
            r = attribute_of(e, tested, a->items[0].value, &tested);
        holds = r >= 0 && value_is_true(tested);
        if (r >= 0 && a->n > skip && a->items[skip].value.kind == VALUE_STRING)
            r = test_apply(e, a->items[skip].value.string, tested, &rest, &holds);
        if (r >= 0 && holds == wanted)
            r = add_item(e, *ret, items->items[i]);
    }
    return r;
}

static int filter_select(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return choose(e, v, a, false, true, ret);
}

static int filter_reject(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return choose(e, v, a, false, false, ret);
}

static int filter_selectattr(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return choose(e, v, a, true, true, ret);
}

static int filter_rejectattr(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return choose(e, v, a, true, false, ret);
}

static int extreme(struct eval *e, struct value v, const struct arguments *a, int sign, struct value *ret)
{
    struct value attribute = eval_argument(a, 1, "attribute", value_none()), best_key = value_none();
    struct list *items;
    int r = eval_items(e, v, &items);

    *ret = value_undefined((struct text){"item of an empty sequence", 25});
    for (size_t i = 0; r >= 0 && i < items->n; i++) {
        struct value key = items->items[i];
        int order = -1;

        if (attribute.kind != VALUE_NONE)
            r = attribute_of(e, key, attribute, &key);
        if (r >= 0 && i > 0 && !value_compare(key, best_key, &order))
            return eval_fail(e, "these items have no order");
        if (i == 0 || order * sign > 0) {
            *ret = items->items[i];
            best_key = key;
        }
    }
    return r;
}

static int filter_max(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return extreme(e, v, a, 1, ret);
}

static int filter_min(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    return extreme(e, v, a, -1, ret);
}

static int filter_sum(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value attribute = eval_argument(a, 0, "attribute", value_none());
    struct value start = eval_argument(a, 1, "start", value_int(0));
    int64_t whole = start.kind == VALUE_INT ? start.integer : 0;
    double real = 0, f;
    bool is_float = false;
    struct list *items;
    int r = eval_items(e, v, &items);

    for (size_t i = 0; r >= 0 && i < items->n; i++) {
        struct value item = items->items[i];

        if (attribute.kind != VALUE_NONE)
            r = attribute_of(e, item, attribute, &item);
        if (r < 0)
            return r;
        if (!value_is_number(item, &f))
            return no_number(e, item);
        is_float = is_float || item.kind == VALUE_FLOAT;
        real += f;
        if (item.kind == VALUE_INT && __builtin_add_overflow(whole, item.integer, &whole))
            return eval_fail(e, "the result of this computation is out of range");
    }
    *ret = is_float ? value_float(real + (double)(start.kind == VALUE_INT ? start.integer : 0))
                    : value_int(whole);
    return r;
}

static int filter_indent(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value width = eval_argument(a, 0, "width", value_int(4));
    bool first = value_is_true(eval_argument(a, 1, "first", value_bool(false)));
    bool blank = value_is_true(eval_argument(a, 2, "blank", value_bool(false)));
    struct builder b = {.arena = &e->arena};
    struct text text;
    int r = eval_write(e, v, &text);

    if (r >= 0 && width.kind == VALUE_INT && (width.integer < 0 || width.integer > 200))
        return eval_fail(e, "this indentation is too wide");
    for (size_t at = 0; r >= 0 && at < text.n;) {
        const char *newline = memchr(text.data + at, '\n', text.n - at);
        size_t n = newline ? (size_t)(newline - text.data) - at + 1 : text.n - at;
        bool indented = (at > 0 || first) && (blank || n > (newline ? 1u : 0u));

        r = eval_spend(e, n);
        if (r < 0)
            return r;
        for (int64_t i = 0; indented && width.kind == VALUE_INT && i < width.integer && r >= 0; i++)
            r = builder_add(&b, " ", 1);
        if (indented && width.kind == VALUE_STRING)
            r = builder_add(&b, width.string.data, width.string.n);
        if (r < 0 || builder_add(&b, text.data + at, n) < 0)
            return eval_memory(e);
        at += n;
    }
    *ret = builder_value(&b);
    return r;
}

static int filter_wordcount(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value words;
    int r = as_method(e, "split", v, &(struct arguments){0}, &words);

    (void)a;
    *ret = value_int(r < 0 ? 0 : (int64_t)words.list->n);
    return r;
}

static int filter_escape(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct text text;
    int r = eval_write(e, v, &text);

    (void)a;
    if (r < 0 || v.is_markup) {
        *ret = v;
        return r;
    }
    return format_escape(e, text, ret);
}

static int filter_safe(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct text text;
    int r = eval_write(e, v, &text);

    (void)a;
    *ret = value_text(text.data, text.n);
    ret->is_markup = true;
    return r;
}

static int filter_format(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct list values = {0};
    struct text text;
    int r = eval_write(e, v, &text);

    for (size_t i = 0; i < a->n && r >= 0; i++) {
        if (a->items[i].name.n > 0)
            return eval_fail(e, "format takes no keyword arguments here");
        if (list_add(&e->arena, &values, a->items[i].value) < 0)
            return eval_memory(e);
    }
    return r < 0 ? r : format_percents(e, text, values.items, values.n, ret);
}

static int filter_attr(struct eval *e, struct value v, const struct arguments *a, struct value *ret)
{
    struct value name = eval_argument(a, 0, "name", value_none());

    if (name.kind != VALUE_STRING)
        return eval_fail(e, "attr requires a name");
    if (v.kind == VALUE_DICT && !method_exists(v, name.string)) {
        *ret = value_undefined(name.string); /* attributes only, never items */
        return 0;
    }
    return eval_attribute(e, v, name.string, ret);
}

int filter_apply(struct eval *e, struct text name, struct value v, const struct arguments *arguments,
                 struct value *ret)
{
    static const struct {
        const char *name;
        filter_fn apply;
    } table[] = {
        {"abs", filter_abs},           {"attr", filter_attr},         {"capitalize", filter_capitalize},
        {"count", filter_length},      {"d", filter_default},         {"default", filter_default},
        {"dictsort", filter_dictsort}, {"e", filter_escape},          {"escape", filter_escape},
        {"first", filter_first},       {"float", filter_float},       {"format", filter_format},
        {"indent", filter_indent},     {"int", filter_int},           {"items", filter_items},
        {"join", filter_join},         {"last", filter_last},         {"length", filter_length},
        {"list", filter_list},         {"lower", filter_lower},       {"map", filter_map},
        {"max", filter_max},           {"min", filter_min},           {"reject", filter_reject},
        {"rejectattr", filter_rejectattr}, {"replace", filter_replace},   {"reverse", filter_reverse},
        {"round", filter_round},       {"safe", filter_safe},         {"select", filter_select},
        {"selectattr", filter_selectattr}, {"sort", filter_sort},         {"string", filter_string},
        {"sum", filter_sum},           {"title", filter_title},       {"tojson", filter_tojson},
        {"trim", filter_trim},         {"unique", filter_unique},     {"upper", filter_upper},
        {"wordcount", filter_wordcount},
    };
    int r = eval_spend(e, 0);

    for (size_t i = 0; i < sizeof(table) / sizeof(*table) && r >= 0; i++) {
        if (text_is(name, table[i].name))
            return table[i].apply(e, v, arguments, ret);
    }
    return r < 0 ? r : eval_fail(e, "no filter named '%.*s'", (int)(name.n < 60 ? name.n : 60), name.data);
}
