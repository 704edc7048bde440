/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers. Without bounds as JSON has them, with so many digits that every reader can hold them. Within
 * bounds without exponents, digit by digit: as long as all digits so far are those of a bound, the next one
 * is limited by it, and once a digit is inside, the rest is free.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/grammar/nodes.h"
#include "engine/grammar/schema-internal.h"

#define INTEGER_DIGITS  18 /* fit into 64 bits */
#define NUMBER_DIGITS   16
#define FRACTION_DIGITS 16
#define BOUND_DIGITS    40 /* of a bound, before and behind the point */

/* The magnitude of a bound. */
struct bound {
    bool exists, negative, exclusive;
    char whole[BOUND_DIGITS + 1];    /* "0" or without zeros in front */
    char fraction[BOUND_DIGITS + 1]; /* without zeros at the end */
};

/* Texts between two magnitudes. */
struct range {
    struct ir *ir;
    const struct bound *low, *high; /* of which exists may be false */
    size_t n_whole, n_fraction;     /* digits of the numbers that are written now */
    bool is_integer;
};

/* ---- bounds ---- */

static int compare(const struct bound *a, const struct bound *b)
{
    size_t n_a = strlen(a->whole), n_b = strlen(b->whole);
    int order = n_a != n_b ? (n_a < n_b ? -1 : 1) : strcmp(a->whole, b->whole);

    return order != 0 ? order : strcmp(a->fraction, b->fraction);
}

/* "-12.50e1" → 125; returns false for numbers of too many digits. */
static bool read_decimal(const char *text, struct bound *ret)
{
    char digits[2 * BOUND_DIGITS + 1];
    int n = 0, point = -1, exponent = 0, from = 0, to;

    *ret = (struct bound){.exists = true, .negative = *text == '-'};
    for (text += *text == '-' || *text == '+'; (*text >= '0' && *text <= '9') || *text == '.'; text++) {
        if (*text == '.')
            point = n;
        else if (n == 2 * BOUND_DIGITS)
            return false;
        else
            digits[n++] = *text;
    }
    if (point < 0)
        point = n;
    if ((*text == 'e' || *text == 'E') && sscanf(text + 1, "%5d", &exponent) != 1)
        return false;
    point += exponent;
    while (from < n && digits[from] == '0')
        from++;
    to = n;
    while (to > from && digits[to - 1] == '0')
        to--;
    if (from == to) {
        ret->whole[0] = '0';
        ret->negative = false;
        return true;
    }
    if (point - from > BOUND_DIGITS || to - point > BOUND_DIGITS)
        return false;
    n = 0;
    for (int i = from; i < point; i++)
        ret->whole[n++] = i < to ? digits[i] : '0';
    if (n == 0)
        ret->whole[n++] = '0';
    n = 0;
    for (int i = point < from ? point : from > point ? from : point; i < to; i++)
        ret->fraction[n++] = i >= from ? digits[i] : '0';
    return true;
}

/* The narrower one of minimum and exclusiveMinimum, or of the maxima. */
static struct bound read_bound(struct schema *s, json_object *schema, const char *name,
                               const char *exclusive_name, int side)
{
    struct bound bounds[2] = {{.exists = false}};
    const char *names[] = {name, exclusive_name};
    int order;

    for (int i = 0; i < 2; i++) {
        json_object *value = schema ? schema_get(schema, names[i]) : NULL;

        if (!value)
            continue;
        if ((!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double)) ||
            !read_decimal(json_object_to_json_string(value), &bounds[i])) {
            schema_fail(s, "%s: expected a number of at most %d digits before and behind the point", names[i],
                        BOUND_DIGITS);
            return bounds[0];
        }
        bounds[i].exclusive = i == 1;
    }
    if (!bounds[0].exists || !bounds[1].exists)
        return bounds[0].exists ? bounds[0] : bounds[1];
    if (bounds[0].negative != bounds[1].negative)
        order = bounds[0].negative ? -1 : 1;
    else
        order = bounds[0].negative ? -compare(&bounds[0], &bounds[1]) : compare(&bounds[0], &bounds[1]);
    return order * side > 0 ? bounds[0] : bounds[1];
}

/* ---- digits ---- */

static uint32_t digit(struct range *r, char from, char to)
{
    struct ir_range range = {(uint8_t)from, (uint8_t)to};

    return from == to ? ir_bytes(r->ir, &from, 1) : ir_class(r->ir, &range, 1, false);
}

static uint32_t digits(struct range *r, size_t min, size_t max)
{
    return max == 0 ? 0 : ir_repeat(r->ir, digit(r, '0', '9'), (uint32_t)min, (uint32_t)max);
}

static uint32_t never(struct range *r)
{
    return ir_alt(r->ir, NULL, 0);
}

/* Whether a number may end whose digits so far are those of the bounds that hold it. */
static bool may_end(const struct range *r, size_t at, bool at_low, bool at_high)
{
    size_t n_low = strlen(r->low->fraction), n_high = strlen(r->high->fraction);

    if (at_low && (n_low > at || r->low->exclusive))
        return false;
    return !(at_high && n_high <= at && r->high->exclusive);
}

static uint32_t fraction(struct range *r, size_t at, bool at_low, bool at_high);

static uint32_t end_or_fraction(struct range *r, size_t at, bool at_low, bool at_high)
{
    uint32_t more = fraction(r, at, at_low, at_high);

    return may_end(r, at, at_low, at_high) ? ir_alt_of(r->ir, 0, more) : more;
}

/* One digit at least. */
static uint32_t fraction(struct range *r, size_t at, bool at_low, bool at_high)
{
    _cleanup_nodes_ struct nodes list = {0};
    size_t n_low = strlen(r->low->fraction), n_high = strlen(r->high->fraction);
    char low, high;

    /* Above the lower bound's last digit everything is, and below its zeros nothing. */
    if (at_low && at >= n_low && !r->low->exclusive)
        at_low = false;
    if (at >= r->n_fraction || (at_high && at >= n_high && r->high->exclusive))
        return never(r);
    if (!at_low && !at_high)
        return digits(r, 1, r->n_fraction - at);
    low = at_low && at < n_low ? r->low->fraction[at] : '0';
    high = !at_high ? '9' : at < n_high ? r->high->fraction[at] : '0';
    if (low > high)
        return never(r);
    if (at_low && at_high && low == high)
        return ir_cat_of(r->ir, digit(r, low, low), end_or_fraction(r, at + 1, true, true));
    if (at_low) {
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, low, low), end_or_fraction(r, at + 1, true, false)));
        low++;
    }
    if (at_high) {
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, high, high), end_or_fraction(r, at + 1, false, true)));
        high--;
    }
    if (low <= high)
        nodes_add(r->ir, &list, ir_cat_of(r->ir, digit(r, low, high), digits(r, 0, r->n_fraction - at - 1)));
    return ir_alt(r->ir, list.nodes, list.n);
}

/* Behind the last digit before the point. */
static uint32_t behind_whole(struct range *r, bool at_low, bool at_high)
{
    uint32_t point;

    if (r->is_integer)
        return may_end(r, 0, at_low, at_high) ? 0 : never(r);
    point = ir_cat_of(r->ir, ir_text(r->ir, "."), fraction(r, 0, at_low, at_high));
    return may_end(r, 0, at_low, at_high) ? ir_alt_of(r->ir, 0, point) : point;
}

static uint32_t whole(struct range *r, size_t at, bool at_low, bool at_high)
{
    _cleanup_nodes_ struct nodes list = {0};
    char low, high;

    if (at == r->n_whole)
        return behind_whole(r, at_low, at_high);
    low = at_low ? r->low->whole[at] : at == 0 && r->n_whole > 1 ? '1' : '0';
    high = at_high ? r->high->whole[at] : '9';
    if (low > high)
        return never(r);
    if (at_low && at_high && low == high)
        return ir_cat_of(r->ir, digit(r, low, low), whole(r, at + 1, true, true));
    if (at_low) {
        nodes_add(r->ir, &list, ir_cat_of(r->ir, digit(r, low, low), whole(r, at + 1, true, false)));
        low++;
    }
    if (at_high) {
        nodes_add(r->ir, &list, ir_cat_of(r->ir, digit(r, high, high), whole(r, at + 1, false, true)));
        high--;
    }
    if (low <= high)
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, low, high), digits(r, r->n_whole - at - 1, r->n_whole - at - 1),
                            behind_whole(r, false, false)));
    return ir_alt(r->ir, list.nodes, list.n);
}

/* Numbers without a sign from @low to @high. */
static uint32_t magnitudes(struct ir *ir, const struct bound *low, const struct bound *high, bool is_integer)
{
    static const struct bound zero = {.exists = true, .whole = "0"};
    static const struct bound none = {.exists = false};
    _cleanup_nodes_ struct nodes list = {0};
    struct range r = {
        .ir = ir, .low = low ? low : &zero, .high = high ? high : &none, .is_integer = is_integer};
    size_t n_low = strlen(r.low->whole), n_high = strlen(r.high->whole);

    if (!high)
        n_high = n_low < (is_integer ? INTEGER_DIGITS : NUMBER_DIGITS)
                     ? (is_integer ? INTEGER_DIGITS : NUMBER_DIGITS)
                     : n_low + 1;
    r.n_fraction = FRACTION_DIGITS;
    if (strlen(r.low->fraction) + 2 > r.n_fraction)
        r.n_fraction = strlen(r.low->fraction) + 2;
    if (strlen(r.high->fraction) + 2 > r.n_fraction)
        r.n_fraction = strlen(r.high->fraction) + 2;
    for (r.n_whole = n_low; r.n_whole <= n_high; r.n_whole++)
        nodes_add(ir, &list, whole(&r, 0, r.n_whole == n_low, high && r.n_whole == n_high));
    return ir_alt(ir, list.nodes, list.n);
}

static uint32_t between(struct ir *ir, const struct bound *low, const struct bound *high, bool is_integer)
{
    static const struct bound above_zero = {.exists = true, .exclusive = true, .whole = "0"};
    _cleanup_nodes_ struct nodes list = {0};

    if (!high->exists || !high->negative)
        nodes_add(ir, &list,
                  magnitudes(ir, low->exists && !low->negative ? low : NULL, high->exists ? high : NULL,
                             is_integer));
    if (!low->exists || low->negative)
        nodes_add(ir, &list,
                  ir_cat_of(ir, ir_text(ir, "-"),
                            magnitudes(ir, high->exists && high->negative ? high : &above_zero,
                                       low->exists ? low : NULL, is_integer)));
    return ir_alt(ir, list.nodes, list.n);
}

/* ---- without bounds ---- */

static uint32_t unbounded(struct schema *s, bool is_integer)
{
    struct ir *ir = s->ir;
    struct range r = {.ir = ir};
    uint32_t sign = ir_repeat(ir, ir_text(ir, "-"), 0, 1), point, exponent, e, plus_or_minus;
    uint32_t rest = digits(&r, 0, (is_integer ? INTEGER_DIGITS : NUMBER_DIGITS) - 1);
    uint32_t natural = ir_alt_of(ir, ir_text(ir, "0"), ir_cat_of(ir, digit(&r, '1', '9'), rest));

    if (is_integer)
        return ir_cat_of(ir, sign, natural);
    e = ir_alt_of(ir, ir_text(ir, "e"), ir_text(ir, "E"));
    plus_or_minus = ir_repeat(ir, ir_alt_of(ir, ir_text(ir, "+"), ir_text(ir, "-")), 0, 1);
    point = ir_repeat(ir, ir_cat_of(ir, ir_text(ir, "."), digits(&r, 1, FRACTION_DIGITS)), 0, 1);
    /* Two digits: no reader's numbers end there. */
    exponent = ir_repeat(ir, ir_cat_of(ir, e, plus_or_minus, digits(&r, 1, 2)), 0, 1);
    return ir_cat_of(ir, sign, natural, point, exponent);
}

uint32_t schema_number(struct schema *s, json_object *schema, bool is_integer)
{
    struct bound low = read_bound(s, schema, "minimum", "exclusiveMinimum", 1);
    struct bound high = read_bound(s, schema, "maximum", "exclusiveMaximum", -1);
    json_object *format = schema ? schema_get(schema, "format") : NULL;
    const char *name =
        format && json_object_is_type(format, json_type_string) ? json_object_get_string(format) : "";
    uint32_t *rule = is_integer ? &s->rules.integer : &s->rules.number;

    if (s->ir->error)
        return 0;
    /* Names of types that OpenAPI puts here; the other formats are of strings. */
    if (strcmp(name, "int32") == 0) {
        if (!low.exists)
            read_decimal("-2147483648", &low);
        if (!high.exists)
            read_decimal("2147483647", &high);
    }
    if (low.exists || high.exists)
        return between(s->ir, &low, &high, is_integer);
    if (*rule == IR_NO_RULE)
        *rule = schema_shared(s, unbounded(s, is_integer));
    return ir_call(s->ir, *rule);
}
