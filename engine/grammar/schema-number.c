/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers. Without bounds as JSON has them, with so many digits that every reader can hold them. Within
 * bounds without exponents, digit by digit: as long as all digits so far are those of a bound, the next one
 * is limited by it, and once a digit is inside, the rest is free. Multiples (schema-multiple.c) carry their
 * remainder along, and are free only within what it leaves.
 */
#include <errno.h>
#include <string.h>

#include "engine/grammar/decimal.h"
#include "engine/grammar/nodes.h"
#include "engine/grammar/schema-internal.h"
#include "engine/grammar/schema-multiple.h"

#define INTEGER_DIGITS  18 /* fit into 64 bits */
#define NUMBER_DIGITS   16
#define FRACTION_DIGITS 16

/* Texts between two magnitudes. */
struct range {
    struct ir *ir;
    const struct decimal *low, *high; /* of which exists may be false */
    struct multiple *multiple;        /* NULL: any number */
    size_t n_whole, n_fraction;       /* digits of the numbers that are written now */
    bool is_integer;
};

/* Where a number is at: all digits so far are those of a bound, their remainder. */
struct at {
    bool low, high;
    uint64_t remainder;
};

/* ---- bounds ---- */

/* The narrower one of minimum and exclusiveMinimum, or of the maxima. */
static struct decimal read_bound(struct schema *s, json_object *schema, const char *name,
                                 const char *exclusive_name, int side)
{
    struct decimal bounds[2] = {{.exists = false}};
    const char *names[] = {name, exclusive_name};

    for (int i = 0; i < 2; i++) {
        json_object *value = schema ? schema_get(schema, names[i]) : NULL;

        if (!value)
            continue;
        if (!decimal_of(value, &bounds[i])) {
            schema_fail(s, "%s: expected a number of at most %d digits before and behind the point", names[i],
                        DECIMAL_DIGITS);
            return bounds[0];
        }
        bounds[i].exclusive = i == 1;
    }
    if (!bounds[0].exists || !bounds[1].exists)
        return bounds[0].exists ? bounds[0] : bounds[1];
    return decimal_order(&bounds[0], &bounds[1]) * side > 0 ? bounds[0] : bounds[1];
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

/* The digits from @low to @high, which are inside, with what may follow them. */
static uint32_t inside(struct range *r, char low, char high, uint64_t remainder,
                       uint32_t (*rest)(struct range *r, size_t at, uint64_t remainder), size_t at)
{
    _cleanup_nodes_ struct nodes list = {0};

    if (!r->multiple)
        return ir_cat_of(r->ir, digit(r, low, high), rest(r, at, 0));
    for (char c = low; c <= high; c++)
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, c, c),
                            rest(r, at, multiple_take(r->multiple, remainder, (unsigned)(c - '0')))));
    return ir_alt(r->ir, list.nodes, list.n);
}

static struct at next_at(const struct range *r, struct at at, bool low, bool high, char digit)
{
    return (struct at){low, high,
                       r->multiple ? multiple_take(r->multiple, at.remainder, (unsigned)(digit - '0')) : 0};
}

/* Whether a number may end whose digits so far are those of the bounds that hold it. */
static bool may_end(const struct range *r, size_t i, struct at at)
{
    size_t n_low = strlen(r->low->fraction), n_high = strlen(r->high->fraction);

    if (r->multiple && !multiple_ends(r->multiple, at.remainder, (unsigned)i))
        return false;
    if (at.low && (n_low > i || r->low->exclusive))
        return false;
    return !(at.high && n_high <= i && r->high->exclusive);
}

static uint32_t fraction(struct range *r, size_t i, struct at at);

static uint32_t end_or_fraction(struct range *r, size_t i, struct at at)
{
    uint32_t more = fraction(r, i, at);

    return may_end(r, i, at) ? ir_alt_of(r->ir, 0, more) : more;
}

static uint32_t free_fraction(struct range *r, size_t i, uint64_t remainder)
{
    uint32_t more;

    if (!r->multiple)
        return digits(r, 0, r->n_fraction - i);
    more = i < r->n_fraction ? multiple_fraction(r->multiple, (unsigned)i, remainder) : never(r);
    return multiple_ends(r->multiple, remainder, (unsigned)i) ? ir_alt_of(r->ir, 0, more) : more;
}

/* One digit at least. */
static uint32_t fraction(struct range *r, size_t i, struct at at)
{
    _cleanup_nodes_ struct nodes list = {0};
    size_t n_low = strlen(r->low->fraction), n_high = strlen(r->high->fraction);
    char low, high;

    /* Above the lower bound's last digit everything is, and below its zeros nothing. */
    if (at.low && i >= n_low && !r->low->exclusive)
        at.low = false;
    if (i >= r->n_fraction || (at.high && i >= n_high && r->high->exclusive))
        return never(r);
    if (!at.low && !at.high && r->multiple)
        return multiple_fraction(r->multiple, (unsigned)i, at.remainder);
    if (!at.low && !at.high)
        return digits(r, 1, r->n_fraction - i);
    low = at.low && i < n_low ? r->low->fraction[i] : '0';
    high = !at.high ? '9' : i < n_high ? r->high->fraction[i] : '0';
    if (low > high)
        return never(r);
    if (at.low && at.high && low == high)
        return ir_cat_of(r->ir, digit(r, low, low),
                         end_or_fraction(r, i + 1, next_at(r, at, true, true, low)));
    if (at.low) {
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, low, low),
                            end_or_fraction(r, i + 1, next_at(r, at, true, false, low))));
        low++;
    }
    if (at.high) {
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, high, high),
                            end_or_fraction(r, i + 1, next_at(r, at, false, true, high))));
        high--;
    }
    if (low <= high)
        nodes_add(r->ir, &list, inside(r, low, high, at.remainder, free_fraction, i + 1));
    return ir_alt(r->ir, list.nodes, list.n);
}

/* Behind the last digit before the point. */
static uint32_t behind_whole(struct range *r, struct at at)
{
    uint32_t point;

    if (r->is_integer)
        return may_end(r, 0, at) ? 0 : never(r);
    point = ir_cat_of(r->ir, ir_text(r->ir, "."), fraction(r, 0, at));
    return may_end(r, 0, at) ? ir_alt_of(r->ir, 0, point) : point;
}

static uint32_t free_whole(struct range *r, size_t i, uint64_t remainder)
{
    size_t n = r->n_whole - i;

    if (r->multiple)
        return multiple_whole(r->multiple, (unsigned)n, (unsigned)n, remainder);
    return ir_cat_of(r->ir, digits(r, n, n), behind_whole(r, (struct at){0}));
}

static uint32_t whole(struct range *r, size_t i, struct at at)
{
    _cleanup_nodes_ struct nodes list = {0};
    char low, high;

    if (i == r->n_whole)
        return behind_whole(r, at);
    low = at.low ? r->low->whole[i] : i == 0 && r->n_whole > 1 ? '1' : '0';
    high = at.high ? r->high->whole[i] : '9';
    if (low > high)
        return never(r);
    if (at.low && at.high && low == high)
        return ir_cat_of(r->ir, digit(r, low, low), whole(r, i + 1, next_at(r, at, true, true, low)));
    if (at.low) {
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, low, low), whole(r, i + 1, next_at(r, at, true, false, low))));
        low++;
    }
    if (at.high) {
        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, high, high), whole(r, i + 1, next_at(r, at, false, true, high))));
        high--;
    }
    if (low <= high)
        nodes_add(r->ir, &list, inside(r, low, high, at.remainder, free_whole, i + 1));
    return ir_alt(r->ir, list.nodes, list.n);
}

/* Multiples of more digits than @n_least and fewer than @n_end: all in one, since nothing holds them. */
static uint32_t free_lengths(struct range *r, size_t n_least, size_t n_end)
{
    _cleanup_nodes_ struct nodes list = {0};

    if (n_end <= n_least + 1)
        return never(r);
    for (unsigned d = 1; d <= 9; d++) {
        char c = (char)('0' + d);

        nodes_add(r->ir, &list,
                  ir_cat_of(r->ir, digit(r, c, c),
                            multiple_whole(r->multiple, (unsigned)n_least, (unsigned)n_end - 2,
                                           multiple_take(r->multiple, 0, d))));
    }
    return ir_alt(r->ir, list.nodes, list.n);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Numbers without a sign from @low to @high. */
static uint32_t magnitudes(struct ir *ir, struct multiple *multiple, const struct decimal *low,
                           const struct decimal *high, bool is_integer)
{
    static const struct decimal zero = {.exists = true, .whole = "0"};
    static const struct decimal none = {.exists = false};
    _cleanup_nodes_ struct nodes list = {0};
    struct range r = {.ir = ir,
                      .multiple = multiple,
                      .low = low ? low : &zero,
                      .high = high ? high : &none,
                      .is_integer = is_integer};
    size_t n_low = strlen(r.low->whole), n_high = strlen(r.high->whole);

    if (!high)
        n_high = larger(multiple     ? multiple->n_whole
                        : is_integer ? INTEGER_DIGITS
                                     : NUMBER_DIGITS,
                        n_low + 1);
    if (multiple)
        r.n_fraction = multiple->n_fraction;
    else
        r.n_fraction = larger(larger(strlen(r.low->fraction), strlen(r.high->fraction)) + 2, FRACTION_DIGITS);
    for (r.n_whole = n_low; r.n_whole <= n_high; r.n_whole++) {
        bool is_low = r.n_whole == n_low, is_high = high && r.n_whole == n_high;

        if (is_low || is_high || !multiple)
            nodes_add(ir, &list, whole(&r, 0, (struct at){.low = is_low, .high = is_high}));
    }
    if (multiple)
        nodes_add(ir, &list, free_lengths(&r, n_low, high ? n_high : n_high + 1));
    return ir_alt(ir, list.nodes, list.n);
}

static uint32_t between(struct ir *ir, struct multiple *multiple, const struct decimal *low,
                        const struct decimal *high, bool is_integer)
{
    static const struct decimal above_zero = {.exists = true, .exclusive = true, .whole = "0"};
    _cleanup_nodes_ struct nodes list = {0};

    if (!high->exists || !high->negative)
        nodes_add(ir, &list,
                  magnitudes(ir, multiple, low->exists && !low->negative ? low : NULL,
                             high->exists ? high : NULL, is_integer));
    if (!low->exists || low->negative)
        nodes_add(ir, &list,
                  ir_cat_of(ir, ir_text(ir, "-"),
                            magnitudes(ir, multiple, high->exists && high->negative ? high : &above_zero,
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
    struct decimal low = read_bound(s, schema, "minimum", "exclusiveMinimum", 1);
    struct decimal high = read_bound(s, schema, "maximum", "exclusiveMaximum", -1);
    json_object *format = schema ? schema_get(schema, "format") : NULL;
    const char *name =
        format && json_object_is_type(format, json_type_string) ? json_object_get_string(format) : "";
    uint32_t *rule = is_integer ? &s->rules.integer : &s->rules.number, node;
    struct multiple multiple;
    bool has_multiple = multiple_init(&multiple, s, schema, is_integer);

    if (s->ir->error)
        return 0;
    /* Names of types that OpenAPI puts here; the other formats are of strings. */
    if (strcmp(name, "int32") == 0) {
        if (!low.exists)
            decimal_read("-2147483648", &low);
        if (!high.exists)
            decimal_read("2147483647", &high);
    }
    if (low.exists || high.exists || has_multiple) {
        node = between(s->ir, has_multiple ? &multiple : NULL, &low, &high, is_integer);
        if (has_multiple)
            multiple_done(&multiple);
        return node;
    }
    if (*rule == IR_NO_RULE)
        *rule = schema_shared(s, unbounded(s, is_integer));
    return ir_call(s->ir, *rule);
}
