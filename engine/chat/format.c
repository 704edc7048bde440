/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Python's two ways to put values into a text: '{} {0} {name!r}'.format(…), and '%s %d %%' % value or | format(…).
 * Fields name arguments and nothing inside them (the sandbox lets no template reach into objects here), and have no
 * width or precision: no chat template was seen to use them. Whatever else stands there is refused, not guessed at.
 */
#include "engine/chat/format.h"

#include <string.h>

#include "engine/chat/eval.h"

static int add(struct eval *e, struct builder *b, const char *data, size_t n)
{
    int r = eval_spend(e, n);

    if (r < 0)
        return r;
    return builder_add(b, data, n) < 0 ? eval_memory(e) : 0;
}

static int add_value(struct eval *e, struct builder *b, struct value v, bool repr)
{
    struct builder text = {.arena = &e->arena};
    int r = value_write(&text, v, repr);

    return r < 0 ? eval_memory(e) : add(e, b, text.data, text.n);
}

/* The argument that a field names; *next counts those that name none. */
static int find_argument(struct eval *e, const struct arguments *a, struct text field, size_t *next, struct value *ret)
{
    size_t index = 0, i_positional = 0;
    bool digits = true;

    for (size_t i = 0; i < field.n; i++) {
        digits = digits && field.data[i] >= '0' && field.data[i] <= '9' && index < 100000;
        index = digits ? index * 10 + (size_t)(field.data[i] - '0') : index;
    }
    if (field.n == 0)
        index = (*next)++;
    for (size_t i = 0; i < a->n; i++) {
        struct text name = a->items[i].name;
        bool found = digits ? name.n == 0 && i_positional == index
                            : name.n == field.n && memcmp(name.data, field.data, name.n) == 0;

        if (found) {
            *ret = a->items[i].value;
            return 0;
        }
        i_positional += name.n == 0;
    }
    return eval_fail(e, "format() has no argument for the field '{%.*s}'", (int)(field.n < 60 ? field.n : 60),
                     field.data);
}

/* A field without its braces: a name, perhaps with !r or !s behind it. */
static int add_field(struct eval *e, struct builder *b, const struct arguments *a, struct text field, size_t *next)
{
    const char *mark = field.n >= 2 ? field.data + field.n - 2 : NULL;
    bool repr = mark && memcmp(mark, "!r", 2) == 0;
    struct value v;
    int r;

    if (repr || (mark && memcmp(mark, "!s", 2) == 0))
        field.n -= 2;
    for (size_t i = 0; i < field.n; i++) {
        if (strchr("{!:.[", field.data[i]))
            return eval_fail(e, "the field '{%.*s}' of format() is more than a name",
                             (int)(field.n < 60 ? field.n : 60), field.data);
    }
    r = find_argument(e, a, field, next, &v);
    return r < 0 ? r : add_value(e, b, v, repr);
}

int format_escape(struct eval *e, struct text text, struct value *ret)
{
    struct builder b = {.arena = &e->arena};

    for (size_t i = 0; i < text.n; i++) {
        char c = text.data[i];
        const char *name = c == '&'    ? "&amp;"
                           : c == '<'  ? "&lt;"
                           : c == '>'  ? "&gt;"
                           : c == '"'  ? "&#34;"
                           : c == '\'' ? "&#39;"
                                       : NULL;

        if (builder_add(&b, name ? name : &c, name ? strlen(name) : 1) < 0)
            return eval_memory(e);
    }
    *ret = builder_value(&b);
    ret->is_markup = true;
    return eval_spend(e, b.n);
}

int format_braces(struct eval *e, struct text text, const struct arguments *a, struct value *ret)
{
    struct builder b = {.arena = &e->arena};
    size_t next = 0;

    for (size_t at = 0; at < text.n;) {
        char c = text.data[at];
        size_t n = 1;
        const char *end;
        int r;

        if (c != '{' && c != '}') {
            while (at + n < text.n && text.data[at + n] != '{' && text.data[at + n] != '}')
                n++;
            r = add(e, &b, text.data + at, n);
        } else if (at + 1 < text.n && text.data[at + 1] == c) {
            n = 2;
            r = add(e, &b, &c, 1);
        } else {
            end = c == '{' ? memchr(text.data + at, '}', text.n - at) : NULL;
            if (!end)
                return eval_fail(e, "a single '%c' in the text of format()", c);
            n = (size_t)(end - (text.data + at)) + 1;
            r = add_field(e, &b, a, (struct text){text.data + at + 1, n - 2}, &next);
        }
        if (r < 0)
            return r;
        at += n;
    }
    *ret = builder_value(&b);
    return 0;
}

static int add_percent(struct eval *e, struct builder *b, char c, struct value v)
{
    double number;

    if (c == 's' || c == 'r')
        return add_value(e, b, v, c == 'r');
    if (c != 'd' && c != 'i')
        return eval_fail(e, "the format '%%%c' is not known here, only %%s, %%r, %%d and %%%%", c);
    if (!value_is_number(v, &number))
        return eval_fail(e, "%%d format: a real number is required, not %s", value_kind_to_string(v.kind));
    if (v.kind == VALUE_FLOAT && !(number > -9e18 && number < 9e18))
        return eval_fail(e, "%%d format: the number is too large");
    return add_value(e, b, value_int(v.kind == VALUE_INT ? v.integer : (int64_t)number), false);
}

int format_percents(struct eval *e, struct text text, const struct value *values, size_t n_values, struct value *ret)
{
    struct builder b = {.arena = &e->arena};
    size_t i_value = 0;

    for (size_t at = 0; at < text.n;) {
        const char *percent = memchr(text.data + at, '%', text.n - at);
        size_t n = percent ? (size_t)(percent - (text.data + at)) : text.n - at;
        int r = add(e, &b, text.data + at, n);
        char c;

        at += n;
        if (r < 0)
            return r;
        if (!percent)
            break;
        if (at + 1 >= text.n)
            return eval_fail(e, "incomplete format");
        c = text.data[at + 1];
        at += 2;
        if (c == '%')
            r = add(e, &b, "%", 1);
        else if (i_value == n_values)
            return eval_fail(e, "not enough arguments for format string");
        else
            r = add_percent(e, &b, c, values[i_value++]);
        if (r < 0)
            return r;
    }
    if (i_value < n_values)
        return eval_fail(e, "not all arguments converted during string formatting");
    *ret = builder_value(&b);
    return 0;
}
