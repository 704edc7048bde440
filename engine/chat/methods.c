/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Methods of strings, dicts and loops, and the functions that every template has. Those of Python that would
 * change a value (append, update, pop, …) are left out: the sandbox is immutable. Letters beyond ASCII have
 * no case here: templates change the case of roles and keywords only.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/utf8.h"
#include "engine/chat/eval.h"
#include "engine/chat/format.h"

/* A range() longer than this can only be meant to harm; the steps would end it anyway, later. */
enum { RANGE_MAX = 100000 };

typedef int (*method_fn)(struct eval *e, struct value self, const struct arguments *a, struct value *ret);

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static char ascii_upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

static bool is_letter(char c)
{
    return ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z';
}

/* The text of a string argument; NULL data when it is absent or None. */
static int text_argument(struct eval *e, const struct arguments *a, size_t i, const char *name,
                         struct text *ret)
{
    struct value v = eval_argument(a, i, name, value_none());

    *ret = (struct text){NULL, 0};
    if (v.kind == VALUE_NONE)
        return 0;
    if (v.kind != VALUE_STRING)
        return eval_fail(e, "expected a string, found '%s'", value_kind_to_string(v.kind));
    *ret = v.string;
    return 0;
}

static int needed_text(struct eval *e, const struct arguments *a, size_t i, const char *name,
                       struct text *ret)
{
    int r = text_argument(e, a, i, name, ret);

    return r >= 0 && !ret->data ? eval_fail(e, "an argument is missing") : r;
}

static bool in_set(const char *c, size_t n, struct text set)
{
    if (!set.data)
        return n == 1 && is_space(*c);
    return memmem(set.data, set.n, c, n) != NULL;
}

static int strip(struct eval *e, struct value self, const struct arguments *a, bool left, bool right,
                 struct value *ret)
{
    struct text t = self.string, set;
    int r = text_argument(e, a, 0, "chars", &set);

    while (r >= 0 && left && t.n > 0) {
        uint32_t code;
        int n = utf8_decode(t.data, t.n, &code);

        n = n > 0 ? n : 1;
        if (!in_set(t.data, (size_t)n, set))
            break;
        t.data += n;
        t.n -= (size_t)n;
    }
    while (r >= 0 && right && t.n > 0) {
        size_t start = utf8_cut(t.data, t.n - 1);

        if (!in_set(t.data + start, t.n - start, set))
            break;
        t.n = start;
    }
    *ret = value_text(t.data, t.n);
    return r < 0 ? r : eval_spend(e, self.string.n);
}

static int str_strip(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return strip(e, self, a, true, true, ret);
}

static int str_lstrip(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return strip(e, self, a, true, false, ret);
}

static int str_rstrip(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return strip(e, self, a, false, true, ret);
}

enum letter_case { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_CAPITALIZE };

static int change_case(struct eval *e, struct text t, enum letter_case to, struct value *ret)
{
    char *copy = arena_alloc(&e->arena, t.n + 1);
    bool inside = false;

    if (!copy)
        return eval_memory(e);
    for (size_t i = 0; i < t.n; i++) {
        bool upper = to == CASE_UPPER || (to == CASE_TITLE && !inside) || (to == CASE_CAPITALIZE && i == 0);

        copy[i] = upper ? ascii_upper(t.data[i]) : ascii_lower(t.data[i]);
        inside = is_letter(t.data[i]) || (t.data[i] & 0x80);
    }
    *ret = value_text(copy, t.n);
    return eval_spend(e, t.n);
}

static int str_lower(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return change_case(e, self.string, CASE_LOWER, ret);
}

static int str_upper(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return change_case(e, self.string, CASE_UPPER, ret);
}

static int str_title(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return change_case(e, self.string, CASE_TITLE, ret);
}

static int str_capitalize(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return change_case(e, self.string, CASE_CAPITALIZE, ret);
}

static int add_piece(struct eval *e, struct value list, const char *data, size_t n)
{
    return list_add(&e->arena, list.list, value_text(data, n)) < 0 ? eval_memory(e) : eval_spend(e, n);
}

static int split_at_space(struct eval *e, struct text t, int64_t n_max, struct value list)
{
    size_t at = 0;
    int r = 0;

    for (int64_t n = 0; r >= 0; n++) {
        size_t start;

        while (at < t.n && is_space(t.data[at]))
            at++;
        if (at == t.n)
            break;
        start = at;
        if (n_max >= 0 && n == n_max)
            return add_piece(e, list, t.data + start, t.n - start);
        while (at < t.n && !is_space(t.data[at]))
            at++;
        r = add_piece(e, list, t.data + start, at - start);
    }
    return r;
}

static int split_at(struct eval *e, struct text t, struct text separator, int64_t n_max, struct value list)
{
    int r;

    for (int64_t n = 0; n_max < 0 || n < n_max; n++) {
        const char *found = memmem(t.data, t.n, separator.data, separator.n);

        if (!found)
            break;
        r = add_piece(e, list, t.data, (size_t)(found - t.data));
        if (r < 0)
            return r;
        t.n -= (size_t)(found - t.data) + separator.n;
        t.data = found + separator.n;
    }
    return add_piece(e, list, t.data, t.n);
}

static const char *find_last(struct text t, struct text what)
{
    for (size_t i = t.n >= what.n ? t.n - what.n + 1 : 0; i > 0; i--) {
        if (memcmp(t.data + i - 1, what.data, what.n) == 0)
            return t.data + i - 1;
    }
    return NULL;
}

static int rsplit_at(struct eval *e, struct text t, struct text separator, int64_t n_max, struct value list)
{
    struct value backwards = value_list_new(&e->arena, false);
    int r = backwards.kind == VALUE_LIST ? 0 : eval_memory(e);

    for (int64_t n = 0; r >= 0 && (n_max < 0 || n < n_max); n++) {
        const char *found = find_last(t, separator);
        size_t at;

        r = eval_spend(e, t.n);
        if (!found || r < 0)
            break;
        at = (size_t)(found - t.data) + separator.n;
        r = add_piece(e, backwards, t.data + at, t.n - at);
        t.n = (size_t)(found - t.data);
    }
    if (r >= 0)
        r = add_piece(e, list, t.data, t.n);
    for (size_t i = r < 0 ? 0 : backwards.list->n; i > 0 && r >= 0; i--)
        r = add_piece(e, list, backwards.list->items[i - 1].string.data,
                      backwards.list->items[i - 1].string.n);
    return r;
}

static int split(struct eval *e, struct value self, const struct arguments *a, bool from_right,
                 struct value *ret)
{
    struct value n_max = eval_argument(a, 1, "maxsplit", value_int(-1));
    struct text separator;
    int r = text_argument(e, a, 0, "sep", &separator);

    *ret = value_list_new(&e->arena, false);
    if (ret->kind != VALUE_LIST)
        return eval_memory(e);
    if (r < 0 || n_max.kind != VALUE_INT || (separator.data && separator.n == 0))
        return r < 0 ? r : eval_fail(e, "empty separator");
    if (!separator.data)
        return split_at_space(e, self.string, n_max.integer, *ret);
    return from_right ? rsplit_at(e, self.string, separator, n_max.integer, *ret)
                      : split_at(e, self.string, separator, n_max.integer, *ret);
}

static int str_split(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return split(e, self, a, false, ret);
}

static int str_rsplit(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return split(e, self, a, true, ret);
}

static int str_splitlines(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    bool keep = value_is_true(eval_argument(a, 0, "keepends", value_bool(false)));
    struct text t = self.string;
    int r = 0;

    *ret = value_list_new(&e->arena, false);
    if (ret->kind != VALUE_LIST)
        return eval_memory(e);
    while (t.n > 0 && r >= 0) {
        const char *newline = memchr(t.data, '\n', t.n);
        size_t n = newline ? (size_t)(newline - t.data) : t.n, end = newline ? n + 1 : n;

        r = add_piece(e, *ret, t.data, keep ? end : n);
        t.data += end;
        t.n -= end;
    }
    return r;
}

static bool begins(struct text t, struct text with)
{
    return t.n >= with.n && memcmp(t.data, with.data, with.n) == 0;
}

static bool ends(struct text t, struct text with)
{
    return t.n >= with.n && memcmp(t.data + t.n - with.n, with.data, with.n) == 0;
}

/* startswith() and endswith() take one string or a tuple of them. */
static int affix(struct eval *e, struct value self, const struct arguments *a,
                 bool (*has)(struct text, struct text), struct value *ret)
{
    struct value with = eval_argument(a, 0, "prefix", value_none());

    *ret = value_bool(false);
    if (with.kind == VALUE_STRING) {
        *ret = value_bool(has(self.string, with.string));
        return eval_spend(e, with.string.n);
    }
    if (with.kind != VALUE_LIST)
        return eval_fail(e, "expected a string or a tuple of strings");
    for (size_t i = 0; i < with.list->n; i++) {
        if (with.list->items[i].kind == VALUE_STRING && has(self.string, with.list->items[i].string))
            *ret = value_bool(true);
    }
    return eval_spend(e, with.list->n * 64);
}

static int str_startswith(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return affix(e, self, a, begins, ret);
}

static int str_endswith(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return affix(e, self, a, ends, ret);
}

static int str_removeprefix(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    struct text prefix;
    int r = needed_text(e, a, 0, "prefix", &prefix);
    size_t n = r >= 0 && begins(self.string, prefix) ? prefix.n : 0;

    *ret = value_text(self.string.data + n, self.string.n - n);
    return r;
}

static int str_removesuffix(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    struct text suffix;
    int r = needed_text(e, a, 0, "suffix", &suffix);
    size_t n = r >= 0 && ends(self.string, suffix) ? suffix.n : 0;

    *ret = value_text(self.string.data, self.string.n - n);
    return r;
}

static int str_format(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return format_braces(e, self.string, a, ret);
}

/* (before, separator, behind), or the whole text on the side from which nothing was found. */
static int partition(struct eval *e, struct text t, const struct arguments *a, bool last, struct value *ret)
{
    struct text separator, parts[3] = {{"", 0}, {"", 0}, {"", 0}};
    const char *found = NULL;
    int r = needed_text(e, a, 0, "sep", &separator);

    if (r >= 0 && separator.n == 0)
        return eval_fail(e, "empty separator");
    if (r >= 0)
        r = eval_spend(e, t.n);
    if (r < 0)
        return r;
    for (size_t at = 0; at + separator.n <= t.n && (last || !found); at++) {
        if (memcmp(t.data + at, separator.data, separator.n) == 0)
            found = t.data + at;
    }
    parts[last && !found ? 2 : 0] = t;
    if (found) {
        parts[0].n = (size_t)(found - t.data);
        parts[1] = separator;
        parts[2] = (struct text){found + separator.n, t.n - parts[0].n - separator.n};
    }
    *ret = value_list_new(&e->arena, /* is_tuple= */ true);
    for (size_t i = 0; i < 3; i++) {
        if (ret->kind != VALUE_LIST || list_add(&e->arena, ret->list, value_text(parts[i].data, parts[i].n)) < 0)
            return eval_memory(e);
    }
    return 0;
}

static int str_partition(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return partition(e, self.string, a, /* last= */ false, ret);
}

static int str_rpartition(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return partition(e, self.string, a, /* last= */ true, ret);
}

static int str_replace(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    struct value count = eval_argument(a, 2, "count", value_int(-1));
    int64_t left = count.kind == VALUE_INT && count.integer >= 0 ? count.integer : INT64_MAX;
    struct builder b = {.arena = &e->arena};
    struct text t = self.string, old, new;
    int r = needed_text(e, a, 0, "old", &old);

    if (r >= 0)
        r = needed_text(e, a, 1, "new", &new);
    if (r >= 0 && old.n == 0)
        return eval_fail(e, "replace() needs something to look for");
    for (; r >= 0 && left > 0; left--) {
        const char *found = memmem(t.data, t.n, old.data, old.n);
        size_t n = found ? (size_t)(found - t.data) : 0;

        if (!found)
            break;
        if (builder_add(&b, t.data, n) < 0 || builder_add(&b, new.data, new.n) < 0)
            return eval_memory(e);
        t.data += n + old.n;
        t.n -= n + old.n;
        r = eval_spend(e, n + new.n);
    }
    if (r >= 0 && builder_add(&b, t.data, t.n) < 0)
        return eval_memory(e);
    *ret = builder_value(&b);
    return r < 0 ? r : eval_spend(e, t.n);
}

static int find(struct eval *e, struct value self, const struct arguments *a, bool last, struct value *ret)
{
    struct text what;
    const char *found;
    int64_t i = 0;
    int r = needed_text(e, a, 0, "sub", &what);

    if (r < 0)
        return r;
    found = last ? find_last(self.string, what) : memmem(self.string.data, self.string.n, what.data, what.n);
    for (const char *c = self.string.data; found && c < found; c++)
        i += ((unsigned char)*c & 0xC0) != 0x80;
    *ret = value_int(found ? i : -1);
    return eval_spend(e, self.string.n);
}

static int str_find(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return find(e, self, a, false, ret);
}

static int str_rfind(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    return find(e, self, a, true, ret);
}

static int str_count(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    struct text t = self.string, what;
    const char *found;
    int64_t n = 0;
    int r = needed_text(e, a, 0, "sub", &what);

    if (r < 0 || what.n == 0)
        return r < 0 ? r : eval_fail(e, "count() needs something to look for");
    while ((found = memmem(t.data, t.n, what.data, what.n))) {
        n++;
        t.n -= (size_t)(found - t.data) + what.n;
        t.data = found + what.n;
    }
    *ret = value_int(n);
    return eval_spend(e, self.string.n);
}

static int str_join(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    struct argument separator = {.name = {"", 0}, .value = self};
    struct arguments arguments = {.n = 1, .items = &separator};

    return filter_apply(e, (struct text){"join", 4}, eval_argument(a, 0, "iterable", value_none()),
                        &arguments, ret);
}

static int str_isdigit(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    bool all = self.string.n > 0;

    (void)a;
    for (size_t i = 0; i < self.string.n; i++)
        all = all && self.string.data[i] >= '0' && self.string.data[i] <= '9';
    *ret = value_bool(all);
    return eval_spend(e, self.string.n);
}

static int str_isalpha(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    bool all = self.string.n > 0;

    (void)a;
    for (size_t i = 0; i < self.string.n; i++)
        all = all && (is_letter(self.string.data[i]) || (self.string.data[i] & 0x80));
    *ret = value_bool(all);
    return eval_spend(e, self.string.n);
}

static int str_isspace(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    bool all = self.string.n > 0;

    (void)a;
    for (size_t i = 0; i < self.string.n; i++)
        all = all && is_space(self.string.data[i]);
    *ret = value_bool(all);
    return eval_spend(e, self.string.n);
}

static int entries(struct eval *e, struct value self, bool keys, bool values, struct value *ret)
{
    *ret = value_list_new(&e->arena, false);
    if (ret->kind != VALUE_LIST)
        return eval_memory(e);
    for (size_t i = 0; i < self.dict->n; i++) {
        const struct entry *entry = &self.dict->entries[i];
        struct value item = keys ? entry->key : entry->value;

        if (keys && values) {
            item = value_list_new(&e->arena, true);
            if (item.kind != VALUE_LIST || list_add(&e->arena, item.list, entry->key) < 0 ||
                list_add(&e->arena, item.list, entry->value) < 0)
                return eval_memory(e);
        }
        if (list_add(&e->arena, ret->list, item) < 0)
            return eval_memory(e);
    }
    return eval_spend(e, self.dict->n * 64);
}

static int dict_items(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return entries(e, self, true, true, ret);
}

static int dict_keys(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return entries(e, self, true, false, ret);
}

static int dict_values(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    (void)a;
    return entries(e, self, false, true, ret);
}

static int dict_get_method(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    const struct value *found = dict_get(self.dict, eval_argument(a, 0, "key", value_none()));

    *ret = found ? *found : eval_argument(a, 1, "default", value_none());
    return eval_spend(e, self.dict->n * 8);
}

static int loop_cycle(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    if (a->n == 0)
        return eval_fail(e, "no items for cycling given");
    *ret = a->items[self.loop->i % a->n].value;
    return 0;
}

static int loop_changed(struct eval *e, struct value self, const struct arguments *a, struct value *ret)
{
    struct loop *l = self.loop;
    struct value now = value_list_new(&e->arena, true);

    for (size_t i = 0; i < a->n && now.kind == VALUE_LIST; i++) {
        if (list_add(&e->arena, now.list, a->items[i].value) < 0)
            return eval_memory(e);
    }
    if (now.kind != VALUE_LIST)
        return eval_memory(e);
    *ret = value_bool(!l->has_changed || !value_is_equal(l->changed, now));
    l->changed = now;
    l->has_changed = true;
    return 0;
}

static const struct {
    enum value_kind kind;
    const char *name;
    method_fn call;
} methods[] = {
    {VALUE_STRING, "capitalize", str_capitalize},
    {VALUE_STRING, "count", str_count},
    {VALUE_STRING, "endswith", str_endswith},
    {VALUE_STRING, "find", str_find},
    {VALUE_STRING, "format", str_format},
    {VALUE_STRING, "isalpha", str_isalpha},
    {VALUE_STRING, "isdigit", str_isdigit},
    {VALUE_STRING, "isspace", str_isspace},
    {VALUE_STRING, "join", str_join},
    {VALUE_STRING, "lower", str_lower},
    {VALUE_STRING, "lstrip", str_lstrip},
    {VALUE_STRING, "partition", str_partition},
    {VALUE_STRING, "removeprefix", str_removeprefix},
    {VALUE_STRING, "removesuffix", str_removesuffix},
    {VALUE_STRING, "replace", str_replace},
    {VALUE_STRING, "rfind", str_rfind},
    {VALUE_STRING, "rpartition", str_rpartition},
    {VALUE_STRING, "rsplit", str_rsplit},
    {VALUE_STRING, "rstrip", str_rstrip},
    {VALUE_STRING, "split", str_split},
    {VALUE_STRING, "splitlines", str_splitlines},
    {VALUE_STRING, "startswith", str_startswith},
    {VALUE_STRING, "strip", str_strip},
    {VALUE_STRING, "title", str_title},
    {VALUE_STRING, "upper", str_upper},
    {VALUE_DICT, "get", dict_get_method},
    {VALUE_DICT, "items", dict_items},
    {VALUE_DICT, "keys", dict_keys},
    {VALUE_DICT, "values", dict_values},
    {VALUE_LOOP, "changed", loop_changed},
    {VALUE_LOOP, "cycle", loop_cycle},
};

static method_fn find_method(enum value_kind kind, struct text name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        if (methods[i].kind == kind && text_is(name, methods[i].name))
            return methods[i].call;
    }
    return NULL;
}

bool method_exists(struct value v, struct text name)
{
    return find_method(v.kind, name) != NULL;
}

int method_call(struct eval *e, const struct method *method, const struct arguments *arguments,
                struct value *ret)
{
    method_fn call = find_method(method->receiver.kind, method->name);

    if (!call)
        return eval_fail(e, "'%s' has no method '%.*s'", value_kind_to_string(method->receiver.kind),
                         (int)(method->name.n < 60 ? method->name.n : 60), method->name.data);
    return call(e, method->receiver, arguments, ret);
}

static int function_range(struct eval *e, const struct arguments *a, struct value *ret)
{
    int64_t bounds[3] = {0, 0, 1};

    if (a->n < 1 || a->n > 3)
        return eval_fail(e, "range expected 1 to 3 arguments");
    for (size_t i = 0; i < a->n; i++) {
        if (a->items[i].value.kind != VALUE_INT)
            return eval_fail(e, "range() takes integers");
        bounds[a->n == 1 ? 1 : i] = a->items[i].value.integer;
    }
    if (bounds[2] == 0)
        return eval_fail(e, "range() arg 3 must not be zero");
    *ret = value_list_new(&e->arena, false);
    if (ret->kind != VALUE_LIST)
        return eval_memory(e);
    for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];) {
        if (ret->list->n == RANGE_MAX)
            return eval_fail(e, "range() is too long");
        if (list_add(&e->arena, ret->list, value_int(i)) < 0)
            return eval_memory(e);
        if (__builtin_add_overflow(i, bounds[2], &i))
            break;
    }
    return eval_spend(e, ret->list->n * 16);
}

/* namespace(…) and dict(…): keyword arguments, or a copy of another dict. */
static int function_dict(struct eval *e, const struct arguments *a, struct value *ret)
{
    *ret = value_dict_new(&e->arena);
    if (ret->kind != VALUE_DICT)
        return eval_memory(e);
    for (size_t i = 0; i < a->n; i++) {
        struct value v = a->items[i].value;
        int r = 0;

        if (a->items[i].name.n > 0)
            r = dict_set(&e->arena, ret->dict, value_text(a->items[i].name.data, a->items[i].name.n), v);
        else if (v.kind != VALUE_DICT && v.kind != VALUE_NAMESPACE)
            return eval_fail(e, "expected a dict");
        else
            for (size_t k = 0; k < v.dict->n && r >= 0; k++)
                r = dict_set(&e->arena, ret->dict, v.dict->entries[k].key, v.dict->entries[k].value);
        if (r < 0)
            return eval_memory(e);
    }
    return eval_spend(e, ret->dict->n * 64);
}

static int function_namespace(struct eval *e, const struct arguments *a, struct value *ret)
{
    int r = function_dict(e, a, ret);

    ret->kind = r < 0 ? VALUE_NONE : VALUE_NAMESPACE;
    return r;
}

static int function_raise(struct eval *e, const struct arguments *a, struct value *ret)
{
    struct text text;
    int r = eval_write(e, eval_argument(a, 0, "message", value_string("")), &text);

    (void)ret;
    if (r < 0)
        return r;
    fault_set(e->fault, FAULT_INVALID_PARAMETER, "messages", "%.*s", (int)(text.n < 400 ? text.n : 400),
              text.data);
    return -EINVAL;
}

static int function_strftime(struct eval *e, const struct arguments *a, struct value *ret)
{
    char format[128], out[512], *copy;
    struct text text;
    size_t n;
    int r = needed_text(e, a, 0, "format", &text);

    if (r < 0)
        return r;
    if (text.n >= sizeof(format))
        return eval_fail(e, "this date format is too long");
    memcpy(format, text.data, text.n);
    format[text.n] = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    n = text.n > 0 ? strftime(out, sizeof(out), format, e->now) : 0;
#pragma GCC diagnostic pop
    copy = arena_alloc(&e->arena, n + 1);
    if (!copy)
        return eval_memory(e);
    memcpy(copy, out, n);
    *ret = value_text(copy, n);
    return 0;
}

static const struct {
    const char *name;
    int (*call)(struct eval *e, const struct arguments *a, struct value *ret);
} functions[] = {
    {"dict", function_dict},   {"namespace", function_namespace},   {"raise_exception", function_raise},
    {"range", function_range}, {"strftime_now", function_strftime},
};

bool function_find(struct text name, struct value *ret)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
        if (text_is(name, functions[i].name)) {
            *ret = (struct value){.kind = VALUE_FUNCTION, .string = {functions[i].name, name.n}};
            return true;
        }
    }
    return false;
}

int function_call(struct eval *e, struct text name, const struct arguments *arguments, struct value *ret)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
        if (text_is(name, functions[i].name))
            return functions[i].call(e, arguments, ret);
    }
    return eval_fail(e, "no function named '%.*s'", (int)(name.n < 60 ? name.n : 60), name.data);
}
