/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Values, the arena that they live in, comparison, and Python's str() and repr().
 */
#include "engine/chat/value.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Nesting of lists and dicts that is written or compared; deeper ones can only come from a hostile template.
 */
enum { NESTING_MAX = 64 };
enum { CHUNK_BYTES = 64 << 10 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(16) char data[];
};

void *arena_alloc(struct arena *a, size_t n)
{
    struct arena_chunk *chunk = a->chunks;
    void *p;

    if (n > a->used_max - a->used)
        return NULL;
    n = (n + 15) & ~(size_t)15;
    if (!chunk || chunk->size - chunk->used < n) {
        size_t size = n > CHUNK_BYTES ? n : CHUNK_BYTES;

        chunk = malloc(sizeof(*chunk) + size);
        if (!chunk)
            return NULL;
        *chunk = (struct arena_chunk){.next = a->chunks, .size = size};
        a->chunks = chunk;
    }
    p = chunk->data + chunk->used;
    chunk->used += n;
    a->used = n < a->used_max - a->used ? a->used + n : a->used_max;
    return p;
}

void arena_done(struct arena *a)
{
    while (a->chunks) {
        struct arena_chunk *next = a->chunks->next;

        free(a->chunks);
        a->chunks = next;
    }
}

int builder_add(struct builder *b, const char *data, size_t n)
{
    if (n == 0)
        return 0;
    if (n > b->allocated - b->n) {
        size_t want = (b->n + n) * 2 + 64;
        char *grown = arena_alloc(b->arena, want);

        if (!grown)
            return -ENOMEM;
        if (b->n > 0)
            memcpy(grown, b->data, b->n);
        b->data = grown;
        b->allocated = want;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    return 0;
}

struct value builder_value(const struct builder *b)
{
    return value_text(b->data ? b->data : "", b->n);
}

struct value value_none(void)
{
    return (struct value){.kind = VALUE_NONE};
}

struct value value_bool(bool b)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = b};
}

struct value value_int(int64_t i)
{
    return (struct value){.kind = VALUE_INT, .integer = i};
}

struct value value_float(double f)
{
    return (struct value){.kind = VALUE_FLOAT, .real = f};
}

struct value value_text(const char *data, size_t n)
{
    return (struct value){.kind = VALUE_STRING, .string = {data, n}};
}

struct value value_string(const char *constant)
{
    return value_text(constant, strlen(constant));
}

struct value value_undefined(struct text name)
{
    return (struct value){.kind = VALUE_UNDEFINED, .string = name};
}

struct value value_list_new(struct arena *a, bool is_tuple)
{
    struct list *list = arena_alloc(a, sizeof(*list));

    if (!list)
        return (struct value){.kind = VALUE_UNDEFINED};
    *list = (struct list){0};
    return (struct value){.kind = VALUE_LIST, .is_tuple = is_tuple, .list = list};
}

struct value value_dict_new(struct arena *a)
{
    struct dict *dict = arena_alloc(a, sizeof(*dict));

    if (!dict)
        return (struct value){.kind = VALUE_UNDEFINED};
    *dict = (struct dict){0};
    return (struct value){.kind = VALUE_DICT, .dict = dict};
}

int list_add(struct arena *a, struct list *l, struct value v)
{
    if (l->n == l->allocated) {
        size_t want = l->allocated * 2 + 4;
        struct value *grown = arena_alloc(a, want * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        if (l->n > 0)
            memcpy(grown, l->items, l->n * sizeof(*grown));
        l->items = grown;
        l->allocated = want;
    }
    l->items[l->n++] = v;
    return 0;
}

int dict_set(struct arena *a, struct dict *d, struct value key, struct value v)
{
    for (size_t i = 0; i < d->n; i++) {
        if (value_is_equal(d->entries[i].key, key)) {
            d->entries[i].value = v;
            return 0;
        }
    }
    if (d->n == d->allocated) {
        size_t want = d->allocated * 2 + 4;
        struct entry *grown = arena_alloc(a, want * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        if (d->n > 0)
            memcpy(grown, d->entries, d->n * sizeof(*grown));
        d->entries = grown;
        d->allocated = want;
    }
    d->entries[d->n++] = (struct entry){key, v};
    return 0;
}

const struct value *dict_get(const struct dict *d, struct value key)
{
    for (size_t i = 0; i < d->n; i++) {
        if (value_is_equal(d->entries[i].key, key))
            return &d->entries[i].value;
    }
    return NULL;
}

bool value_is_true(struct value v)
{
    switch (v.kind) {
    case VALUE_BOOL:
        return v.boolean;
    case VALUE_INT:
        return v.integer != 0;
    case VALUE_FLOAT:
        return v.real != 0;
    case VALUE_STRING:
        return v.string.n > 0;
    case VALUE_LIST:
        return v.list->n > 0;
    case VALUE_DICT:
        return v.dict->n > 0;
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    default:
        return true;
    }
}

bool value_is_number(struct value v, double *ret)
{
    double f;

    if (v.kind == VALUE_INT)
        f = (double)v.integer;
    else if (v.kind == VALUE_FLOAT)
        f = v.real;
    else if (v.kind == VALUE_BOOL)
        f = v.boolean;
    else
        return false;
    if (ret)
        *ret = f;
    return true;
}

static bool is_integral(struct value v, int64_t *ret)
{
    if (v.kind == VALUE_INT)
        *ret = v.integer;
    else if (v.kind == VALUE_BOOL)
        *ret = v.boolean;
    else
        return false;
    return true;
}

static bool equal_at(struct value a, struct value b, unsigned depth)
{
    int64_t i, j;
    double x, y;

    if (is_integral(a, &i) && is_integral(b, &j))
        return i == j;
    if (value_is_number(a, &x) && value_is_number(b, &y))
        return x == y;
    if (a.kind != b.kind || depth == NESTING_MAX)
        return false;
    switch (a.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return true;
    case VALUE_STRING:
        return a.string.n == b.string.n && memcmp(a.string.data, b.string.data, a.string.n) == 0;
    case VALUE_LIST:
        if (a.list->n != b.list->n || a.is_tuple != b.is_tuple)
            return false;
        for (size_t k = 0; k < a.list->n; k++) {
            if (!equal_at(a.list->items[k], b.list->items[k], depth + 1))
                return false;
        }
        return true;
    case VALUE_DICT:
        if (a.dict->n != b.dict->n)
            return false;
        for (size_t k = 0; k < a.dict->n; k++) {
            const struct value *other = dict_get(b.dict, a.dict->entries[k].key);

            if (!other || !equal_at(a.dict->entries[k].value, *other, depth + 1))
                return false;
        }
        return true;
    default:
        return a.dict == b.dict; /* identity: whatever the union holds is a pointer here */
    }
}

bool value_is_equal(struct value a, struct value b)
{
    return equal_at(a, b, 0);
}

static bool compare_at(struct value a, struct value b, unsigned depth, int *ret)
{
    int64_t i, j;
    double x, y;

    if (is_integral(a, &i) && is_integral(b, &j)) {
        *ret = i < j ? -1 : i > j;
        return true;
    }
    if (value_is_number(a, &x) && value_is_number(b, &y)) {
        *ret = x < y ? -1 : x > y;
        return true;
    }
    if (a.kind == VALUE_STRING && b.kind == VALUE_STRING) {
        /* Bytes of UTF-8 sort as code points do. */
        size_t n = a.string.n < b.string.n ? a.string.n : b.string.n;
        int r = memcmp(a.string.data, b.string.data, n);

        *ret = r != 0 ? r : a.string.n < b.string.n ? -1 : a.string.n > b.string.n;
        return true;
    }
    if (a.kind == VALUE_LIST && b.kind == VALUE_LIST && depth < NESTING_MAX) {
        for (size_t k = 0; k < a.list->n && k < b.list->n; k++) {
            if (equal_at(a.list->items[k], b.list->items[k], depth))
                continue;
            return compare_at(a.list->items[k], b.list->items[k], depth + 1, ret);
        }
        *ret = a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
        return true;
    }
    return false;
}

bool value_compare(struct value a, struct value b, int *ret)
{
    return compare_at(a, b, 0, ret);
}

bool text_is(struct text t, const char *name)
{
    return strlen(name) == t.n && memcmp(t.data, name, t.n) == 0;
}

bool value_is_named(struct value v, const char *name)
{
    return v.kind == VALUE_STRING && text_is(v.string, name);
}

const char *value_kind_to_string(enum value_kind kind)
{
    static const char *const names[VALUE_KIND_MAX] = {
        [VALUE_UNDEFINED] = "Undefined", [VALUE_NONE] = "NoneType",
        [VALUE_BOOL] = "bool",           [VALUE_INT] = "int",
        [VALUE_FLOAT] = "float",         [VALUE_STRING] = "str",
        [VALUE_LIST] = "list",           [VALUE_DICT] = "dict",
        [VALUE_NAMESPACE] = "Namespace", [VALUE_MACRO] = "Macro",
        [VALUE_FUNCTION] = "function",   [VALUE_METHOD] = "method",
        [VALUE_LOOP] = "LoopContext",
    };

    return names[kind];
}

static int add_string(struct builder *b, const char *constant)
{
    return builder_add(b, constant, strlen(constant));
}

/* Python's repr(float): the shortest digits that give the number back, an exponent from 1e16 and below 1e-4.
 */
static int write_float(struct builder *b, double f)
{
    char e[40], digits[24], out[64];
    int n_digits = 0, exponent, at = 0;

    if (isnan(f) || isinf(f))
        return add_string(b, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    for (int p = 0; p < 17; p++) {
        snprintf(e, sizeof(e), "%.*e", p, f);
        if (strtod(e, NULL) == f)
            break;
    }
    exponent = (int)strtol(strchr(e, 'e') + 1, NULL, 10);
    for (const char *c = e; *c != 'e'; c++) {
        if (*c >= '0' && *c <= '9')
            digits[n_digits++] = *c;
    }
    if (signbit(f))
        out[at++] = '-';
    if (exponent < -4 || exponent >= 16) {
        out[at++] = digits[0];
        if (n_digits > 1)
            out[at++] = '.';
        memcpy(out + at, digits + 1, (size_t)n_digits - 1);
        at += n_digits - 1;
        at +=
            snprintf(out + at, sizeof(out) - (size_t)at, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return builder_add(b, out, (size_t)at);
    }
    for (int i = exponent < 0 ? exponent : 0; i < n_digits || i <= exponent + 1; i++) {
        if (i == exponent + 1)
            out[at++] = '.';
        if (i >= n_digits && i > exponent + 1)
            break;
        out[at++] = i >= 0 && i < n_digits ? digits[i] : '0';
    }
    return builder_add(b, out, (size_t)at);
}

/* Python prefers single quotes, and escapes what is not printable; non-ASCII is taken to be printable. */
static int write_repr(struct builder *b, struct text t)
{
    bool single = memchr(t.data, '\'', t.n) && !memchr(t.data, '"', t.n);
    const char *quote = single ? "\"" : "'";
    int r = add_string(b, quote);

    for (size_t i = 0; i < t.n && r >= 0; i++) {
        unsigned char c = (unsigned char)t.data[i];
        char escaped[8];

        if (c == '\\' || c == (unsigned char)*quote)
            snprintf(escaped, sizeof(escaped), "\\%c", c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(escaped, sizeof(escaped), "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c < 0x20 || c == 0x7F)
            snprintf(escaped, sizeof(escaped), "\\x%02x", c);
        else
            snprintf(escaped, sizeof(escaped), "%c", c);
        r = add_string(b, escaped);
    }
    return r < 0 ? r : add_string(b, quote);
}

static int write_at(struct builder *b, struct value v, bool repr, unsigned depth);

static int write_items(struct builder *b, struct value v, unsigned depth)
{
    int r = add_string(b, v.is_tuple ? "(" : "[");

    for (size_t i = 0; i < v.list->n && r >= 0; i++) {
        r = i > 0 ? add_string(b, ", ") : 0;
        if (r >= 0)
            r = write_at(b, v.list->items[i], true, depth + 1);
    }
    if (r >= 0 && v.is_tuple && v.list->n == 1)
        r = add_string(b, ",");
    return r < 0 ? r : add_string(b, v.is_tuple ? ")" : "]");
}

static int write_entries(struct builder *b, const struct dict *d, unsigned depth)
{
    int r = add_string(b, "{");

    for (size_t i = 0; i < d->n && r >= 0; i++) {
        r = i > 0 ? add_string(b, ", ") : 0;
        if (r >= 0)
            r = write_at(b, d->entries[i].key, true, depth + 1);
        if (r >= 0)
            r = add_string(b, ": ");
        if (r >= 0)
            r = write_at(b, d->entries[i].value, true, depth + 1);
    }
    return r < 0 ? r : add_string(b, "}");
}

static int write_at(struct builder *b, struct value v, bool repr, unsigned depth)
{
    char number[32];

    if (depth > NESTING_MAX)
        return -E2BIG;
    switch (v.kind) {
    case VALUE_UNDEFINED:
        return repr ? add_string(b, "Undefined") : 0;
    case VALUE_NONE:
        return add_string(b, "None");
    case VALUE_BOOL:
        return add_string(b, v.boolean ? "True" : "False");
    case VALUE_INT:
        snprintf(number, sizeof(number), "%" PRId64, v.integer);
        return add_string(b, number);
    case VALUE_FLOAT:
        return write_float(b, v.real);
    case VALUE_STRING:
        return repr ? write_repr(b, v.string) : builder_add(b, v.string.data, v.string.n);
    case VALUE_LIST:
        return write_items(b, v, depth);
    case VALUE_DICT:
        return write_entries(b, v.dict, depth);
    default:
        /* Python would show an address here; no template can mean that. */
        return add_string(b, value_kind_to_string(v.kind));
    }
}

int value_write(struct builder *b, struct value v, bool repr)
{
    return write_at(b, v, repr, 0);
}
