/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Strings, and the rules that all values share.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/nodes.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema-internal.h"

/* Indentation after a line feed: more is white space for its own sake. */
#define INDENT_MAX 40

/* ---- shared rules ---- */

static uint32_t make_space(struct schema *s)
{
    struct ir_range blank[] = {{'\t', '\t'}, {' ', ' '}};
    uint32_t indent = ir_repeat(s->ir, ir_class(s->ir, blank, 2, false), 0, INDENT_MAX);

    return ir_alt_of(s->ir, 0, ir_text(s->ir, " "), ir_cat_of(s->ir, ir_text(s->ir, "\n"), indent));
}

uint32_t schema_space(struct schema *s)
{
    return schema_rule(s, &s->rules.space, "space", make_space);
}

static uint32_t hex(struct schema *s, const char *which)
{
    struct ir_range ranges[8];
    size_t n = 0;

    for (; *which; which += 2)
        ranges[n++] = (struct ir_range){(uint8_t)which[0], (uint8_t)which[1]};
    return ir_class(s->ir, ranges, n, false);
}

/* \uXXXX, halves of a pair only together: a half alone is no character. */
static uint32_t unicode_escape(struct schema *s)
{
    struct ir *ir = s->ir;
    uint32_t any = hex(s, "09afAF"), d = hex(s, "ddDD");
    uint32_t plain = ir_cat_of(ir, hex(s, "09acefACEF"), any, any, any);
    uint32_t below = ir_cat_of(ir, d, hex(s, "07"), any, any);
    uint32_t pair =
        ir_cat_of(ir, d, hex(s, "89abAB"), any, any, ir_text(ir, "\\u"), d, hex(s, "cfCF"), any, any);

    return ir_cat_of(ir, ir_text(ir, "\\u"), ir_alt_of(ir, plain, below, pair));
}

static uint32_t make_character(struct schema *s)
{
    struct ir_range excluded[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    struct ir_range escapes[] = {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 'b'},
                                 {'f', 'f'}, {'n', 'n'},   {'r', 'r'}, {'t', 't'}};
    uint32_t escape = ir_cat_of(s->ir, ir_text(s->ir, "\\"), ir_class(s->ir, escapes, 8, false));

    return ir_alt_of(s->ir, ir_class(s->ir, excluded, 3, true), escape, unicode_escape(s));
}

static uint32_t make_string(struct schema *s)
{
    /* Written out here instead of called: this is where most text of most answers is. */
    return ir_cat_of(s->ir, ir_text(s->ir, "\""), ir_repeat(s->ir, make_character(s), 0, IR_FOREVER),
                     ir_text(s->ir, "\""));
}

uint32_t schema_any_string(struct schema *s)
{
    return schema_rule(s, &s->rules.string, "string", make_string);
}

static uint32_t make_key_character(struct schema *s)
{
    return ir_json_class(s->ir, &(struct ir_range){1, 0}, 1, true);
}

uint32_t schema_key_character(struct schema *s)
{
    return schema_rule(s, &s->rules.key_character, "key", make_key_character);
}

static uint32_t make_any(struct schema *s)
{
    struct ir *ir = s->ir;
    uint32_t value = ir_call(ir, s->rules.value), space = schema_space(s),
             comma = ir_cat_of(ir, ir_text(ir, ","), space);
    uint32_t key = ir_cat_of(ir, ir_text(ir, "\""), ir_repeat(ir, schema_key_character(s), 0, IR_FOREVER),
                             ir_text(ir, "\""));
    uint32_t colon = ir_cat_of(ir, ir_text(ir, ":"), ir_repeat(ir, ir_text(ir, " "), 0, 1));
    uint32_t pair = schema_shared(s, ir_cat_of(ir, key, colon, value));
    uint32_t pairs = ir_repeat(ir, schema_separated(s, pair, comma, 1, IR_FOREVER), 0, 1);
    uint32_t items = ir_repeat(ir, schema_separated(s, s->rules.value, comma, 1, IR_FOREVER), 0, 1);
    uint32_t object = ir_cat_of(ir, ir_text(ir, "{"), space, pairs, space, ir_text(ir, "}"));
    uint32_t array = ir_cat_of(ir, ir_text(ir, "["), space, items, space, ir_text(ir, "]"));

    return ir_alt_of(ir, object, array, schema_any_string(s), schema_number(s, NULL, false),
                     ir_text(ir, "true"), ir_text(ir, "false"), ir_text(ir, "null"));
}

uint32_t schema_any(struct schema *s)
{
    return schema_rule(s, &s->rules.value, "value", make_any);
}

/* ---- strings with conditions ---- */

#define LABEL "[A-Za-z0-9]+(-[A-Za-z0-9]+)*"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define CLOCK "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define LEAP  "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
#define CALENDAR                                                                                             \
    "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-" \
    "9]|2[0-8]))"                                                                                            \
    "|" LEAP "-02-29)"
#define DURATION "([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S)"
#define URI_CHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"

/* Narrower than the standards where they allow what nobody writes; nothing that they forbid. */
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" CALENDAR "$"},
    {"time", "^" CLOCK "$"},
    {"date-time", "^" CALENDAR "T" CLOCK "$"},
    {"duration", "^P([0-9]{1,6}W|([0-9]{1,6}Y([0-9]{1,6}M([0-9]{1,6}D)?)?|[0-9]{1,6}M([0-9]{1,6}D)?|[0-9]{1,"
                 "6}D)(T" DURATION ")?|T" DURATION ")$"},
    {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
    {"email", "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@" LABEL "(\\." LABEL ")+$"},
    {"hostname", "^" LABEL "(\\." LABEL ")*$"},
    {"ipv4", "^" OCTET "(\\." OCTET "){3}$"},
    {"ipv6", "^[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){7}$"},
    {"uri", "^[a-zA-Z][a-zA-Z0-9+.-]*://" LABEL "(\\." LABEL ")*(:[1-9][0-9]{0,3})?(/" URI_CHAR
            "*)*(\\?(" URI_CHAR "|[/?])*)?(#(" URI_CHAR "|[/?])*)?$"},
};

static bool get_text(struct schema *s, json_object *schema, const char *name, const char **ret, size_t *ret_n)
{
    json_object *value = schema_get(schema, name);

    if (!value)
        return false;
    if (!json_object_is_type(value, json_type_string)) {
        schema_fail(s, "%s: expected text", name);
        return false;
    }
    *ret = json_object_get_string(value);
    *ret_n = (size_t)json_object_get_string_len(value);
    return true;
}

static bool get_pattern(struct schema *s, json_object *schema, struct regex *ret)
{
    const char *format = NULL, *pattern = NULL;
    size_t n_format = 0, n_pattern = 0, i = 0;
    bool has_format = get_text(s, schema, "format", &format, &n_format);

    if (get_text(s, schema, "pattern", &pattern, &n_pattern)) {
        if (has_format)
            schema_fail(s, "pattern and format together are not supported");
        regex_parse(s->ir, pattern, n_pattern, ret);
        return true;
    }
    if (!has_format)
        return false;
    while (i < sizeof(formats) / sizeof(formats[0]) && strcmp(formats[i].name, format) != 0)
        i++;
    if (i == sizeof(formats) / sizeof(formats[0])) {
        schema_fail(
            s,
            "the format %.40s is not supported; known are date, time, date-time, duration, uuid, email, "
            "hostname, ipv4, ipv6, uri",
            format);
        return false;
    }
    regex_parse(s->ir, formats[i].pattern, strlen(formats[i].pattern), ret);
    ret->is_run = false;
    return true;
}

/* ---- texts that are none of some given ones ---- */

struct others {
    struct schema *s;
    const char *const *names; /* sorted; each once */
    uint32_t min, max;        /* characters */
};

/* @n_before characters, and then any. */
static uint32_t any_rest(const struct others *o, uint32_t n_before)
{
    uint32_t min = o->min > n_before ? o->min - n_before : 0;

    return ir_repeat(o->s->ir, schema_key_character(o->s), min,
                     o->max == IR_FOREVER ? IR_FOREVER : o->max - n_before);
}

/* The names from @from to @to share their first @at bytes, @n_before characters: a text that differs from
 * them. */
static uint32_t other_text(const struct others *o, uint32_t from, uint32_t to, size_t at, uint32_t n_before)
{
    struct schema *s = o->s;
    _cleanup_nodes_ struct nodes list = {0};
    _cleanup_free_ struct ir_range *taken = calloc(to - from + 1, sizeof(*taken));
    bool ends = n_before < o->min, is_full = n_before == o->max;
    size_t n_taken = 0;

    if (!taken || !schema_step(s) || ++s->depth > 4 * GRAMMAR_DEPTH_MAX) {
        schema_fail(s, "the names of the properties are too long to leave room for others");
        return 0;
    }
    while (from < to) {
        uint32_t code, end = from, next_code;
        int n = utf8_decode(o->names[from] + at, strlen(o->names[from] + at), &code);

        if (n <= 0) {
            ends = true;
            from++;
            continue;
        }
        while (end < to && utf8_decode(o->names[end] + at, strlen(o->names[end] + at), &next_code) > 0 &&
               next_code == code)
            end++;
        taken[n_taken++] = (struct ir_range){code, code};
        if (!is_full)
            nodes_add(s->ir, &list,
                      ir_cat_of(s->ir, ir_json_class(s->ir, &(struct ir_range){code, code}, 1, false),
                                other_text(o, from, end, at + (size_t)n, n_before + 1)));
        from = end;
    }
    s->depth--;
    if (!is_full)
        nodes_add(s->ir, &list,
                  ir_cat_of(s->ir, ir_json_class(s->ir, taken, n_taken, true), any_rest(o, n_before + 1)));
    if (!ends)
        nodes_add(s->ir, &list, 0);
    return ir_alt(s->ir, list.nodes, list.n);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint32_t schema_other_text(struct schema *s, const char **names, uint32_t n, uint32_t min, uint32_t max)
{
    struct others o = {.s = s, .names = names, .min = min, .max = max};

    qsort(names, n, sizeof(*names), by_bytes);
    return other_text(&o, 0, n, 0, 0);
}

/* All but the strings in the enum of @excluded. */
static uint32_t text_besides(struct schema *s, json_object *excluded, uint32_t min, uint32_t max)
{
    json_object *list = schema_get(excluded, "enum");
    size_t n = json_object_array_length(list), n_names = 0;
    _cleanup_free_ const char **names = calloc(n + 1, sizeof(*names));

    if (!names) {
        s->ir->error = -ENOMEM;
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        json_object *text = json_object_array_get_idx(list, i);

        names[n_names] = json_object_get_string(text);
        /* A text with a NUL is none of what is compared here; it can't be written either. */
        if (strlen(names[n_names]) == (size_t)json_object_get_string_len(text))
            n_names++;
        else
            schema_fail(s, "not: a text with a NUL character can't be excluded");
    }
    return schema_other_text(s, names, (uint32_t)n_names, min, max);
}

/* ---- strings ---- */

uint32_t schema_text(struct schema *s, json_object *schema)
{
    uint32_t min = schema_count(s, schema, "minLength", 0),
             max = schema_count(s, schema, "maxLength", IR_FOREVER);
    json_object *excluded = schema_get(schema, "not");
    struct regex regex;

    if (max < min) {
        schema_fail(s, "maxLength is smaller than minLength");
        return 0;
    }
    if (!get_pattern(s, schema, &regex)) {
        if (min > GRAMMAR_REPEAT_MAX || (max != IR_FOREVER && max > GRAMMAR_REPEAT_MAX)) {
            schema_fail(s, "lengths of up to %u are supported", GRAMMAR_REPEAT_MAX);
            return 0;
        }
        if (excluded)
            return text_besides(s, excluded, min, max);
        return ir_repeat(s->ir, schema_rule(s, &s->rules.character, "character", make_character), min, max);
    }
    if (excluded) {
        schema_fail(s, "not beside pattern or format is not supported: say it in the pattern");
        return 0;
    }
    if (regex.min >= min && regex.max <= max)
        return regex.node;
    if (!regex.is_run) {
        schema_fail(
            s,
            "minLength and maxLength beside a pattern or format are supported where they follow from it, or "
            "where it is one repeated character such as \"^[a-z]+$\"");
        return 0;
    }
    min = regex.min > min ? regex.min : min;
    max = regex.max < max ? regex.max : max;
    return max < min ? ir_alt(s->ir, NULL, 0) : ir_repeat(s->ir, regex.unit, min, max);
}

uint32_t schema_string(struct schema *s, json_object *schema)
{
    static const char *const conditions[] = {"minLength", "maxLength", "pattern", "format", "not"};

    for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++)
        if (schema_get(schema, conditions[i]))
            return ir_cat_of(s->ir, ir_text(s->ir, "\""), schema_text(s, schema), ir_text(s->ir, "\""));
    return schema_any_string(s);
}
