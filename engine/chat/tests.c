/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tests: `value is name(arguments)`.
 */
#include <errno.h>
#include <string.h>

#include "engine/chat/eval.h"

static bool is_cased(struct text t, char from, char to)
{
    bool any = false;

    for (size_t i = 0; i < t.n; i++) {
        char c = t.data[i];

        if (c >= from && c <= to)
            return false;
        any = any || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
    return any;
}

/* What needs nothing but the value. Returns false when there is no such test. */
static bool simple_test(struct text name, struct value v, bool *ret)
{
    enum value_kind k = v.kind;

    if (text_is(name, "defined"))
        *ret = k != VALUE_UNDEFINED;
    else if (text_is(name, "undefined"))
        *ret = k == VALUE_UNDEFINED;
    else if (text_is(name, "none"))
        *ret = k == VALUE_NONE;
    else if (text_is(name, "boolean"))
        *ret = k == VALUE_BOOL;
    else if (text_is(name, "true"))
        *ret = k == VALUE_BOOL && v.boolean;
    else if (text_is(name, "false"))
        *ret = k == VALUE_BOOL && !v.boolean;
    else if (text_is(name, "integer"))
        *ret = k == VALUE_INT;
    else if (text_is(name, "float"))
        *ret = k == VALUE_FLOAT;
    else if (text_is(name, "number"))
        *ret = value_is_number(v, NULL);
    else if (text_is(name, "string"))
        *ret = k == VALUE_STRING;
    else if (text_is(name, "mapping"))
        *ret = k == VALUE_DICT;
    else if (text_is(name, "sequence") || text_is(name, "iterable"))
        *ret = k == VALUE_LIST || k == VALUE_DICT || k == VALUE_STRING || k == VALUE_UNDEFINED;
    else if (text_is(name, "callable"))
        *ret = k == VALUE_MACRO || k == VALUE_FUNCTION || k == VALUE_METHOD;
    else if (text_is(name, "lower"))
        *ret = k == VALUE_STRING && is_cased(v.string, 'A', 'Z');
    else if (text_is(name, "upper"))
        *ret = k == VALUE_STRING && is_cased(v.string, 'a', 'z');
    else if (text_is(name, "escaped"))
        *ret = false;
    else
        return false;
    return true;
}

static int compare_test(struct eval *e, struct value a, struct value b, int least, int most, bool *ret)
{
    int order;

    if (!value_compare(a, b, &order))
        return eval_fail(e, "'%s' and '%s' have no order", value_kind_to_string(a.kind),
                         value_kind_to_string(b.kind));
    order = order < 0 ? -1 : order > 0;
    *ret = order >= least && order <= most;
    return 0;
}

static int divisible_test(struct eval *e, struct value v, int64_t by, int64_t remainder, bool *ret)
{
    if (v.kind != VALUE_INT)
        return eval_fail(e, "'%s' is no integer", value_kind_to_string(v.kind));
    if (by == 0)
        return eval_fail(e, "division by zero");
    *ret = by == -1 ? remainder == 0 : (v.integer % by != 0) == (remainder != 0);
    return 0;
}

int test_apply(struct eval *e, struct text name, struct value v, const struct arguments *arguments, bool *ret)
{
    static const struct {
        const char *name;
        int least, most; /* of the order of the two values */
    } orders[] = {
        {"lt", -1, -1}, {"lessthan", -1, -1},  {"le", -1, 0},
        {"gt", 1, 1},   {"greaterthan", 1, 1}, {"ge", 0, 1},
    };
    struct value other = eval_argument(arguments, 0, "other", value_none());
    int r = eval_spend(e, 0);

    if (r < 0 || simple_test(name, v, ret))
        return r;
    if (text_is(name, "eq") || text_is(name, "equalto") || text_is(name, "sameas")) {
        *ret = value_is_equal(v, other) && (!text_is(name, "sameas") || v.kind == other.kind);
        return 0;
    }
    if (text_is(name, "ne")) {
        *ret = !value_is_equal(v, other);
        return 0;
    }
    if (text_is(name, "in"))
        return eval_in(e, v, other, ret);
    if (text_is(name, "odd") || text_is(name, "even"))
        return divisible_test(e, v, 2, text_is(name, "odd"), ret);
    if (text_is(name, "divisibleby"))
        return divisible_test(e, v, other.kind == VALUE_INT ? other.integer : 0, 0, ret);
    for (size_t i = 0; i < sizeof(orders) / sizeof(*orders); i++) {
        if (text_is(name, orders[i].name))
            return compare_test(e, v, other, orders[i].least, orders[i].most, ret);
    }
    return eval_fail(e, "no test named '%.*s'", (int)(name.n < 60 ? name.n : 60), name.data);
}
