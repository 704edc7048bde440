/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the merged document to typed data. Each object of a policy is a table of keys: name, the function that
 * checks its value, where the result goes, and bounds. A key that is in no table is refused, so that a typing
 * error is never ignored. Errors carry the key ("models.llama3-8b.context.k") and the place of the value in
 * the file that it came from.
 *
 * To add a key: a member in policy.h, a row here, a line in policy.schema.json, a case in tests/unit/policy.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "policy/internal.h"

enum { PATH_DEPTH_MAX = 16, PATH_BYTES_MAX = 1024 };

struct checker {
    struct policy *policy;
    const struct policy_names *names;
    struct fault *fault;
    const char *path[PATH_DEPTH_MAX]; /* keys from the top; borrowed from the document */
    size_t depth;
};

struct key {
    const char *name;
    int (*check)(struct checker *c, const struct key *key, json_object *value, void *field);
    size_t at; /* of the field in the struct that the table belongs to */
    int64_t min, max;
    const char *const *names; /* of an enum, NULL-terminated */
    const struct key *children;
    const char *expected; /* where the check function has no better text */
};

static size_t append(char *buffer, size_t n, size_t size, const char *text, bool escape)
{
    for (; *text; text++) {
        const char *piece = NULL;

        if (escape && *text == '~')
            piece = "~0";
        else if (escape && *text == '/')
            piece = "~1";
        if (n + 3 >= size)
            break;
        if (piece) {
            buffer[n++] = piece[0];
            buffer[n++] = piece[1];
        } else {
            buffer[n++] = *text;
        }
    }
    buffer[n] = 0;
    return n;
}

static int __attribute__((format(printf, 2, 3))) refuse(struct checker *c, const char *format, ...)
{
    char pointer[PATH_BYTES_MAX] = "", key[PATH_BYTES_MAX] = "", reason[384];
    size_t n_pointer = 0, n_key = 0;
    const char *file = "";
    uint32_t line = 0, column = 0;
    va_list ap;

    if (!c->fault)
        return -EINVAL;
    for (size_t i = 0; i < c->depth; i++) {
        n_pointer = append(pointer, n_pointer, sizeof(pointer), "/", false);
        n_pointer = append(pointer, n_pointer, sizeof(pointer), c->path[i], true);
        if (i > 0)
            n_key = append(key, n_key, sizeof(key), ".", false);
        n_key = append(key, n_key, sizeof(key), c->path[i], false);
    }
    va_start(ap, format);
    vsnprintf(reason, sizeof(reason), format, ap);
    va_end(ap);
    fault_set(c->fault, FAULT_POLICY_INVALID, key, "%s", reason);
    if (policy_sources_find(c->policy->sources, pointer, &file, &line, &column)) {
        snprintf(c->fault->file, sizeof(c->fault->file), "%s", file);
        c->fault->line = line;
        c->fault->column = column;
    }
    return -EINVAL;
}

static int push(struct checker *c, const char *key)
{
    if (c->depth == PATH_DEPTH_MAX)
        return refuse(c, "fewer objects inside each other");
    c->path[c->depth++] = key;
    return 0;
}

static void pop(struct checker *c)
{
    c->depth--;
}

static int __attribute__((format(printf, 2, 3))) warn(struct checker *c, const char *format, ...)
{
    char **grown = reallocarray(c->policy->warnings, c->policy->n_warnings + 1, sizeof(*grown));
    char *text = NULL;
    va_list ap;
    int n;

    if (!grown)
        return -ENOMEM;
    c->policy->warnings = grown;
    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    if (n < 0)
        return -ENOMEM;
    c->policy->warnings[c->policy->n_warnings++] = text;
    return 0;
}

/* The keys of @table into @base; anything else is refused. */
static int check_keys(struct checker *c, const struct key *table, json_object *object, void *base)
{
    if (!json_object_is_type(object, json_type_object))
        return refuse(c, "an object");
    json_object_object_foreach(object, name, value)
    {
        const struct key *key = table;
        int r;

        while (key->name && strcmp(key->name, name) != 0)
            key++;
        r = push(c, name);
        if (r < 0)
            return r;
        if (!key->name) {
            char known[320] = "";
            size_t n = 0;

            for (key = table; key->name; key++)
                n += (size_t)snprintf(known + n, n < sizeof(known) ? sizeof(known) - n : 0, "%s%s", n ? ", " : "",
                                      key->name);
            return refuse(c, "a key that is known here (%s)", known);
        }
        r = key->check(c, key, value, (char *)base + key->at);
        if (r < 0)
            return r;
        pop(c);
    }
    return 0;
}

static int check_object(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_keys(c, key->children, value, field);
}

static int copy_text(json_object *value, char **ret)
{
    char *copy = strdup(json_object_get_string(value));

    if (!copy)
        return -ENOMEM;
    free(*ret);
    *ret = copy;
    return 0;
}

static bool is_text(json_object *value)
{
    /* A NUL in a text would cut it short behind the reader's back. */
    return json_object_is_type(value, json_type_string) &&
           strlen(json_object_get_string(value)) == (size_t)json_object_get_string_len(value);
}

static int check_text(struct checker *c, const struct key *key, json_object *value, void *field)
{
    if (!is_text(value))
        return refuse(c, "a text");
    return copy_text(value, field);
}

/* "$schema" is for editors. */
static int check_ignored_text(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return is_text(value) ? 0 : refuse(c, "a text");
}

static int check_path(struct checker *c, const struct key *key, json_object *value, void *field)
{
    if (!is_text(value) || json_object_get_string(value)[0] != '/')
        return refuse(c, "an absolute path");
    return copy_text(value, field);
}

static int check_sha256(struct checker *c, const struct key *key, json_object *value, void *field)
{
    const char *text = is_text(value) ? json_object_get_string(value) : "";

    if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
        return refuse(c, "a SHA-256 as 64 lower-case hexadecimal digits");
    return copy_text(value, field);
}

static int check_name(struct checker *c, const struct key *key, json_object *value, void *field)
{
    if (!is_text(value) || !policy_name_is_valid(json_object_get_string(value)))
        return refuse(c, "the name of a model (1 to 64 of A-Z a-z 0-9 . _ -)");
    return copy_text(value, field);
}

static bool get_integer(json_object *value, int64_t *ret)
{
    if (!json_object_is_type(value, json_type_int))
        return false;
    /* json-c clamps a uint64 above INT64_MAX; no key takes numbers that large. */
    *ret = json_object_get_int64(value);
    return json_object_get_uint64(value) == (uint64_t)*ret || *ret < 0;
}

static int refuse_range(struct checker *c, const struct key *key, const char *what)
{
    return refuse(c, "%s from %" PRId64 " to %" PRId64, what, key->min, key->max);
}

static int check_u32(struct checker *c, const struct key *key, json_object *value, void *field)
{
    int64_t n;

    if (!get_integer(value, &n) || n < key->min || n > key->max)
        return refuse_range(c, key, "a whole number");
    *(uint32_t *)field = (uint32_t)n;
    return 0;
}

static int check_i32(struct checker *c, const struct key *key, json_object *value, void *field)
{
    int64_t n;

    if (!get_integer(value, &n) || n < key->min || n > key->max)
        return refuse_range(c, key, "a whole number");
    *(int32_t *)field = (int32_t)n;
    return 0;
}

/* "auto", and "all" where the table's names say so, or a number. */
static int check_u32_or_auto(struct checker *c, const struct key *key, json_object *value, void *field)
{
    int64_t n;

    if (is_text(value)) {
        static const uint32_t values[] = {POLICY_AUTO, POLICY_ALL};

        for (size_t i = 0; key->names[i]; i++) {
            if (strcmp(key->names[i], json_object_get_string(value)) == 0) {
                *(uint32_t *)field = values[i];
                return 0;
            }
        }
    }
    if (!get_integer(value, &n) || n < key->min || n > key->max)
        return refuse_range(c, key, key->expected);
    *(uint32_t *)field = (uint32_t)n;
    return 0;
}

static int check_count(struct checker *c, const struct key *key, json_object *value, void *field)
{
    uint64_t count;
    int64_t n;

    if (get_integer(value, &n) && n >= 0)
        count = (uint64_t)n;
    else if (!is_text(value) || units_parse_count(json_object_get_string(value), &count) < 0)
        return refuse(c, "a number from %" PRId64 ", such as 20000, \"20k\" or \"1M\"", key->min);
    if (count < (uint64_t)key->min || (key->max > 0 && count > (uint64_t)key->max))
        return key->max > 0 ? refuse_range(c, key, "a number")
                            : refuse(c, "a number from %" PRId64, key->min);
    *(uint64_t *)field = count;
    return 0;
}

static int check_bytes(struct checker *c, const struct key *key, json_object *value, void *field)
{
    int64_t n;

    if (get_integer(value, &n) && n >= 0) {
        *(uint64_t *)field = (uint64_t)n;
        return 0;
    }
    if (!is_text(value) || units_parse_size(json_object_get_string(value), field) < 0)
        return refuse(c, "a size such as \"8G\" or \"512MiB\", or a number of bytes");
    return 0;
}

/* A size of which a share may be taken. */
static int check_size(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy_size *size = field;
    uint64_t n = 0;
    int64_t i;

    if (is_text(value)) {
        const char *text = json_object_get_string(value);
        size_t length = strlen(text);

        size->is_share = length > 0 && text[length - 1] == '%';
        if (size->is_share && units_parse_size_of(text, 1000000, &n) == 0) {
            size->share_ppm = (uint32_t)n;
            return 0;
        }
        if (!size->is_share && units_parse_size(text, &size->bytes) == 0)
            return 0;
    } else if (get_integer(value, &i) && i >= 0) {
        *size = (struct policy_size){.bytes = (uint64_t)i};
        return 0;
    }
    return refuse(c, "a size such as \"8G\", a share such as \"80%%\" (at most 100%%), or a number of bytes");
}

static int check_duration(struct checker *c, const struct key *key, json_object *value, void *field)
{
    int64_t n;

    if (get_integer(value, &n) && n >= 0 && n <= INT64_MAX / 1000000) {
        *(uint64_t *)field = (uint64_t)n * 1000000;
        return 0;
    }
    if (!is_text(value) || units_parse_duration(json_object_get_string(value), field) < 0)
        return refuse(c, "a duration such as \"10min\" or \"infinity\", or a number of seconds");
    return 0;
}

static int refuse_names(struct checker *c, const char *const *names)
{
    char list[256] = "";
    size_t n = 0;

    for (; *names; names++)
        n += (size_t)snprintf(list + n, n < sizeof(list) ? sizeof(list) - n : 0, "%s\"%s\"", n ? ", " : "", *names);
    return refuse(c, "one of %s", list);
}

/* Enums of policy.h are ints whose values are the indexes in the table's names. */
static int check_enum(struct checker *c, const struct key *key, json_object *value, void *field)
{
    for (int i = 0; is_text(value) && key->names[i]; i++) {
        if (strcmp(key->names[i], json_object_get_string(value)) == 0) {
            memcpy(field, &i, sizeof(i));
            return 0;
        }
    }
    return refuse_names(c, key->names);
}

_Static_assert(sizeof(enum policy_ram) == sizeof(int) && sizeof(enum policy_ready) == sizeof(int), "see check_enum()");

static int check_kv_type(struct checker *c, const struct key *key, json_object *value, void *field)
{
    static const char *const types[] = {"f32", "f16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", NULL};

    for (size_t i = 0; is_text(value) && types[i]; i++) {
        if (strcmp(types[i], json_object_get_string(value)) == 0) {
            snprintf(field, sizeof(((struct policy_context *)0)->k), "%s", types[i]);
            return 0;
        }
    }
    return refuse_names(c, types);
}

static int check_numa(struct checker *c, const struct key *key, json_object *value, void *field)
{
    static const char *const names[] = {"auto", "off", "interleave", NULL};
    struct policy_residency *residency = field;
    int64_t n;

    if (get_integer(value, &n) && n >= 0 && n < 1024) {
        residency->numa = POLICY_NUMA_BIND;
        residency->numa_node = (uint32_t)n;
        return 0;
    }
    for (int i = 0; is_text(value) && names[i]; i++) {
        if (strcmp(names[i], json_object_get_string(value)) == 0) {
            residency->numa = (enum policy_numa)i;
            return 0;
        }
    }
    return refuse(c, "\"auto\", \"off\", \"interleave\" or the number of a node");
}

static int check_vram(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy_placement *placement = field;

    placement->vram_given = true;
    return check_size(c, key, value, &placement->vram);
}

static int push_index(struct checker *c, size_t i, char text[24])
{
    snprintf(text, 24, "%zu", i);
    return push(c, text);
}

static int check_device_list(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy_placement *placement = field;
    size_t n;

    if (!json_object_is_type(value, json_type_array))
        return refuse(c, "an array of device numbers");
    n = json_object_array_length(value);
    if (n > 64)
        return refuse(c, "at most 64 devices");
    placement->devices = calloc(n ? n : 1, sizeof(*placement->devices));
    if (!placement->devices)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        static const struct key number = {.min = 0, .max = 255};
        char index[24];
        int r = push_index(c, i, index);

        if (r < 0)
            return r;
        r = check_u32(c, &number, json_object_array_get_idx(value, i), &placement->devices[i]);
        if (r < 0)
            return r;
        for (size_t j = 0; j < i; j++) {
            if (placement->devices[j] == placement->devices[i])
                return refuse(c, "each device once");
        }
        placement->n_devices++;
        pop(c);
    }
    return 0;
}

static int parse_number(const char *text, uint32_t max, uint32_t *ret)
{
    uint64_t n = 0;

    if (!*text)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        n = n * 10 + (uint64_t)(*text - '0');
        if (n > max)
            return -ERANGE;
    }
    *ret = (uint32_t)n;
    return 0;
}

static int check_vram_devices(struct checker *c, const struct key *key, json_object *value, void *field)
{
    static const struct key table[] = {
        {.name = "budget", .check = check_size, .at = offsetof(struct policy_device, budget)},
        {.name = NULL}};
    struct policy *p = c->policy;

    if (!json_object_is_type(value, json_type_object))
        return refuse(c, "an object with device numbers as keys");
    p->vram_devices = calloc((size_t)json_object_object_length(value) + 1, sizeof(*p->vram_devices));
    if (!p->vram_devices)
        return -ENOMEM;
    json_object_object_foreach(value, name, device)
    {
        struct policy_device *at = &p->vram_devices[p->n_vram_devices];
        int r = push(c, name);

        if (r < 0)
            return r;
        if (parse_number(name, 255, &at->index) < 0)
            return refuse(c, "the number of a device, 0 to 255, as the key");
        r = check_keys(c, table, device, at);
        if (r < 0)
            return r;
        if (!json_object_object_get_ex(device, "budget", NULL))
            return refuse(c, "the key \"budget\"");
        p->n_vram_devices++;
        pop(c);
    }
    return 0;
}

/* ---- users and groups ---- */

/* A name, or a number as number or text. Returns 1 when NSS does not know the name. */
static int resolve(struct checker *c, json_object *value, bool group, uint32_t *ret)
{
    const char *what = group ? "group" : "user", *name;
    int64_t n;
    int r;

    /* (uid_t) -1 is no id: it means "unchanged" to the kernel. */
    if (get_integer(value, &n) && n >= 0 && n < UINT32_MAX) {
        *ret = (uint32_t)n;
        return 0;
    }
    if (!is_text(value) || json_object_get_string_len(value) == 0 || json_object_get_string_len(value) > 256)
        return refuse(c, "the name or number of a %s", what);
    name = json_object_get_string(value);
    if (parse_number(name, UINT32_MAX - 1, ret) == 0)
        return 0;
    r = group ? c->names->group(name, ret, c->names->userdata) : c->names->user(name, ret, c->names->userdata);
    if (r == 0 || r == -ENOMEM)
        return r;
    if (r != -ESRCH)
        return refuse(c, "a %s that can be looked up (%s)", what, strerror(-r));
    r = warn(c, "policy: no %s named \"%s\" on this machine; it is left out until the next reload", what, name);
    return r < 0 ? r : 1;
}

static int check_members(struct checker *c, json_object *array, bool group, struct policy_set *set)
{
    uint32_t *ids;
    size_t n, *n_ids = group ? &set->n_gids : &set->n_uids;

    if (!json_object_is_type(array, json_type_array))
        return refuse(c, "an array of names or numbers");
    n = json_object_array_length(array);
    ids = calloc(n ? n : 1, sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    if (group)
        set->gids = ids;
    else
        set->uids = ids;
    for (size_t i = 0; i < n; i++) {
        json_object *value = json_object_array_get_idx(array, i);
        char index[24];
        int r = push_index(c, i, index);

        if (r < 0)
            return r;
        if (!group && is_text(value) && strcmp(json_object_get_string(value), "*") == 0) {
            set->everybody = true;
        } else {
            r = resolve(c, value, group, &ids[*n_ids]);
            if (r < 0)
                return r;
            if (r == 0)
                (*n_ids)++;
        }
        pop(c);
    }
    return 0;
}

static int check_users(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_members(c, value, false, field);
}

static int check_groups(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_members(c, value, true, field);
}

static int check_set(struct checker *c, const struct key *key, json_object *value, void *field)
{
    static const struct key table[] = {
        {.name = "users", .check = check_users},
        {.name = "groups", .check = check_groups},
        {.name = NULL},
    };
    struct policy_set *set = field;
    int r = check_keys(c, table, value, set);

    if (r < 0)
        return r;
    set->given = true;
    policy_set_sort(set);
    return 0;
}

/* ---- models ---- */

struct bounds {
    const char *name;
    enum json_type type; /* json_type_double takes whole numbers too */
    double min, max;
};

/* Defaults keep the names and types of the Inference interface, so that they can be laid under a request as
 * they are. */
static const struct bounds default_keys[] = {
    {"max_tokens", json_type_int, 1, INT32_MAX}, {"temperature", json_type_double, 0, 100},
    {"top_k", json_type_int, 0, INT32_MAX},      {"top_p", json_type_double, 0, 1},
    {"min_p", json_type_double, 0, 1},           {"typical_p", json_type_double, 0, 1},
    {"repeat_penalty", json_type_double, 0.01, 100}, {"frequency_penalty", json_type_double, -100, 100},
    {"presence_penalty", json_type_double, -100, 100}, {"seed", json_type_int, 0, (double)INT64_MAX},
    {"penalty_last_n", json_type_int, 0, 65536}, {"mirostat", json_type_int, 0, 2},
    {"mirostat_tau", json_type_double, 0, 100},  {"mirostat_eta", json_type_double, 0, 1},
    {"system", json_type_string, 0, 0},          {"stop", json_type_array, 0, 0},
    {NULL, json_type_null, 0, 0},
};

static int check_default(struct checker *c, const struct bounds *b, json_object *value)
{
    double n;

    switch (b->type) {
    case json_type_string:
        return is_text(value) ? 0 : refuse(c, "a text");
    case json_type_array:
        if (!json_object_is_type(value, json_type_array))
            return refuse(c, "an array of texts");
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            if (!is_text(json_object_array_get_idx(value, i)))
                return refuse(c, "an array of texts");
        }
        return 0;
    case json_type_int:
        n = (double)json_object_get_int64(value);
        if (!json_object_is_type(value, json_type_int) || n < b->min || n > b->max)
            return refuse(c, "a whole number from %.0f to %.0f", b->min, b->max);
        /* There is no mirostat 1 here; said now, not to every request. */
        if (n == 1 && strcmp(b->name, "mirostat") == 0)
            return refuse(c, "0 or 2");
        return 0;
    default:
        n = json_object_get_double(value);
        if ((!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int)) ||
            !(n >= b->min && n <= b->max))
            return refuse(c, "a number from %g to %g", b->min, b->max);
        return 0;
    }
}

static int check_defaults(struct checker *c, const struct key *key, json_object *value, void *field)
{
    if (!json_object_is_type(value, json_type_object))
        return refuse(c, "an object");
    json_object_object_foreach(value, name, entry)
    {
        const struct bounds *b = default_keys;
        int r = push(c, name);

        if (r < 0)
            return r;
        while (b->name && strcmp(b->name, name) != 0)
            b++;
        r = b->name ? check_default(c, b, entry) : refuse(c, "a sampling parameter of a request, or \"system\"");
        if (r < 0)
            return r;
        pop(c);
    }
    *(json_object **)field = json_object_get(value);
    return 0;
}

static int check_prefixes(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy_model *model = field;
    size_t n;

    if (!json_object_is_type(value, json_type_array))
        return refuse(c, "an array of absolute paths");
    n = json_object_array_length(value);
    model->public_prefixes = calloc(n ? n : 1, sizeof(char *));
    if (!model->public_prefixes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        char index[24];
        int r = push_index(c, i, index);

        if (r < 0)
            return r;
        model->n_public_prefixes++;
        r = check_path(c, key, json_object_array_get_idx(value, i), &model->public_prefixes[i]);
        if (r < 0)
            return r;
        pop(c);
    }
    return 0;
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const struct policy_pair *)a)->name, ((const struct policy_pair *)b)->name);
}

/* An object of names with one text each, sorted by name. */
static int check_pairs(struct checker *c, json_object *object, const char *what,
                       int (*check)(struct checker *, const struct key *, json_object *, void *),
                       struct policy_pair **ret, size_t *ret_n)
{
    if (!json_object_is_type(object, json_type_object))
        return refuse(c, "an object");
    *ret = calloc((size_t)json_object_object_length(object) + 1, sizeof(**ret));
    if (!*ret)
        return -ENOMEM;
    json_object_object_foreach(object, name, value)
    {
        struct policy_pair *pair = &(*ret)[*ret_n];
        int r = push(c, name);

        if (r < 0)
            return r;
        if (!policy_name_is_valid(name))
            return refuse(c, "%s as the key (1 to 64 of A-Z a-z 0-9 . _ -)", what);
        (*ret_n)++;
        pair->name = strdup(name);
        if (!pair->name)
            return -ENOMEM;
        r = check(c, NULL, value, &pair->value);
        if (r < 0)
            return r;
        pop(c);
    }
    qsort(*ret, *ret_n, sizeof(**ret), compare_pairs);
    return 0;
}

/* Of one model: as many as a worker loads (ENGINE_ADAPTERS_MAX). */
#define ADAPTERS_MAX 64

static int check_adapters(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy_model *model = field;

    if (json_object_is_type(value, json_type_object) && json_object_object_length(value) > ADAPTERS_MAX)
        return refuse(c, "at most %d adapters", ADAPTERS_MAX);
    return check_pairs(c, value, "the name of an adapter", check_path, &model->adapters, &model->n_adapters);
}

static const char *const ram_names[] = {"map", "lock", "copy", NULL};
static const char *const when_names[] = {"on-demand", "always", NULL};
static const char *const huge_names[] = {"auto", "off", "on", NULL};
static const char *const offloaded_names[] = {"release", "keep", NULL};
static const char *const experts_names[] = {"auto", "ram", "vram", NULL};
static const char *const flash_names[] = {"auto", "off", "on", NULL};
static const char *const ready_names[] = {"listening", "resident", NULL};
static const char *const auto_names[] = {"auto", NULL};
static const char *const auto_all_names[] = {"auto", "all", NULL};

/* clang-format off */
#define AT(type, member) .at = offsetof(struct type, member)

static const struct key residency_keys[] = {
    {.name = "ram", .check = check_enum, AT(policy_residency, ram), .names = ram_names},
    {.name = "when", .check = check_enum, AT(policy_residency, when), .names = when_names},
    {.name = "idle", .check = check_duration, AT(policy_residency, idle_us)},
    {.name = "numa", .check = check_numa},
    {.name = "huge", .check = check_enum, AT(policy_residency, huge), .names = huge_names},
    {.name = "limit", .check = check_size, AT(policy_residency, limit)},
    {.name = "offloaded", .check = check_enum, AT(policy_residency, offloaded), .names = offloaded_names},
    {.name = NULL},
};

static const struct key placement_keys[] = {
    {.name = "gpu_layers", .check = check_u32_or_auto, AT(policy_placement, gpu_layers), .max = 65535,
     .names = auto_all_names, .expected = "\"auto\", \"all\" or a whole number"},
    {.name = "vram", .check = check_vram},
    {.name = "devices", .check = check_device_list},
    {.name = "experts", .check = check_enum, AT(policy_placement, experts), .names = experts_names},
    {.name = NULL},
};

static const struct key context_keys[] = {
    {.name = "tokens", .check = check_u32, AT(policy_context, tokens), .min = 1, .max = 1 << 28},
    {.name = "sequences", .check = check_u32, AT(policy_context, sequences), .min = 1, .max = 1024},
    {.name = "k", .check = check_kv_type, AT(policy_context, k)},
    {.name = "v", .check = check_kv_type, AT(policy_context, v)},
    {.name = "flash", .check = check_enum, AT(policy_context, flash), .names = flash_names},
    {.name = NULL},
};

static const struct key limits_keys[] = {
    {.name = "max_tokens", .check = check_u32, AT(policy_model, max_tokens), .min = 1, .max = INT32_MAX},
    {.name = "sequences_per_user", .check = check_u32, AT(policy_model, sequences_per_user), .min = 1, .max = 4096},
    {.name = NULL},
};

static const struct key model_keys[] = {
    {.name = "path", .check = check_path, AT(policy_model, path)},
    {.name = "sha256", .check = check_sha256, AT(policy_model, sha256)},
    {.name = "residency", .check = check_object, AT(policy_model, residency), .children = residency_keys},
    {.name = "placement", .check = check_object, AT(policy_model, placement), .children = placement_keys},
    {.name = "context", .check = check_object, AT(policy_model, context), .children = context_keys},
    {.name = "defaults", .check = check_defaults, AT(policy_model, defaults)},
    {.name = "limits", .check = check_object, .children = limits_keys},
    {.name = "public_prefixes", .check = check_prefixes},
    {.name = "adapters", .check = check_adapters},
    {.name = "draft", .check = check_name, AT(policy_model, draft)},
    {.name = "share", .check = check_set, AT(policy_model, share)},
    {.name = "priority", .check = check_i32, AT(policy_model, priority), .min = -POLICY_PRIORITY_MAX, .max = POLICY_PRIORITY_MAX},
    {.name = "allow", .check = check_set, AT(policy_model, allow)},
    {.name = "deny", .check = check_set, AT(policy_model, deny)},
    {.name = NULL},
};

/* ---- quotas ---- */

static const struct key quota_keys[] = { /* in the order of enum policy_quota_key */
    {.name = "concurrent", .check = check_count, AT(policy_quota, concurrent)},
    {.name = "queued", .check = check_count, AT(policy_quota, queued)},
    {.name = "requests_per_minute", .check = check_count, AT(policy_quota, requests_per_minute)},
    {.name = "tokens_per_minute", .check = check_count, AT(policy_quota, tokens_per_minute)},
    {.name = "tokens_per_day", .check = check_count, AT(policy_quota, tokens_per_day)},
    {.name = "context_tokens", .check = check_count, AT(policy_quota, context_tokens)},
    {.name = "output_tokens", .check = check_count, AT(policy_quota, output_tokens)},
    {.name = "kv", .check = check_bytes, AT(policy_quota, kv_bytes)},
    {.name = "connections", .check = check_count, AT(policy_quota, connections)},
    {.name = "weight", .check = check_count, AT(policy_quota, weight), .min = 1, .max = 10000},
    {.name = "priority_max", .check = check_i32, AT(policy_quota, priority_max), .min = -POLICY_PRIORITY_MAX, .max = POLICY_PRIORITY_MAX},
    {.name = NULL},
};
/* clang-format on */

_Static_assert(sizeof(quota_keys) / sizeof(*quota_keys) == POLICY_QUOTA_KEY_MAX + 1, "one row per key");

static void quota_unlimited(struct policy_quota *q)
{
    *q = (struct policy_quota){
        .concurrent = POLICY_UNLIMITED,
        .queued = POLICY_UNLIMITED,
        .requests_per_minute = POLICY_UNLIMITED,
        .tokens_per_minute = POLICY_UNLIMITED,
        .tokens_per_day = POLICY_UNLIMITED,
        .context_tokens = POLICY_UNLIMITED,
        .output_tokens = POLICY_UNLIMITED,
        .kv_bytes = POLICY_UNLIMITED,
        .connections = POLICY_UNLIMITED,
        .weight = 100,
    };
}

static uint32_t given_keys(json_object *object)
{
    uint32_t given = 0;

    for (int key = 0; key < POLICY_QUOTA_KEY_MAX; key++) {
        if (json_object_object_get_ex(object, quota_keys[key].name, NULL))
            given |= 1u << key;
    }
    return given;
}

static int check_total(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy_quota_entry *entry = field;

    entry->has_total = true;
    entry->total_given = given_keys(value);
    return check_keys(c, quota_keys, value, &entry->total);
}

static int check_quota_values(struct checker *c, json_object *object, struct policy_quota_entry *entry, bool group)
{
    struct key table[POLICY_QUOTA_KEY_MAX + 2];

    quota_unlimited(&entry->values);
    quota_unlimited(&entry->total);
    memcpy(table, quota_keys, sizeof(quota_keys));
    for (size_t i = 0; i < POLICY_QUOTA_KEY_MAX; i++)
        table[i].at += offsetof(struct policy_quota_entry, values);
    if (group)
        table[POLICY_QUOTA_KEY_MAX] = (struct key){.name = "total", .check = check_total};
    table[POLICY_QUOTA_KEY_MAX + (group ? 1 : 0)].name = NULL;
    if (json_object_is_type(object, json_type_object))
        entry->given = given_keys(object);
    return check_keys(c, table, object, entry);
}

static int check_quota_default(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_quota_values(c, value, field, false);
}

static int check_quota_entries(struct checker *c, json_object *object, bool group, struct policy_quota_entry **ret,
                               size_t *ret_n)
{
    if (!json_object_is_type(object, json_type_object))
        return refuse(c, "an object with the names of %s as keys", group ? "groups" : "users");
    *ret = calloc((size_t)json_object_object_length(object) + 1, sizeof(**ret));
    if (!*ret)
        return -ENOMEM;
    json_object_object_foreach(object, name, value)
    {
        struct policy_quota_entry *entry = &(*ret)[*ret_n];
        json_object *text;
        int r = push(c, name);

        if (r < 0)
            return r;
        text = json_object_new_string(name);
        if (!text)
            return -ENOMEM;
        (*ret_n)++;
        entry->name = strdup(name);
        r = entry->name ? resolve(c, text, group, &entry->id) : -ENOMEM;
        json_object_put(text);
        if (r < 0)
            return r;
        entry->known = r == 0;
        r = check_quota_values(c, value, entry, group);
        if (r < 0)
            return r;
        for (size_t i = 0; i + 1 < *ret_n; i++) {
            if (entry->known && (*ret)[i].known && (*ret)[i].id == entry->id)
                return refuse(c, "each %s once (\"%s\" is the same)", group ? "group" : "user", (*ret)[i].name);
        }
        pop(c);
    }
    return 0;
}

static int check_quota_groups(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_quota_entries(c, value, true, &c->policy->quota_groups, &c->policy->n_quota_groups);
}

static int check_quota_users(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_quota_entries(c, value, false, &c->policy->quota_users, &c->policy->n_quota_users);
}

static int check_model(struct checker *c, json_object *object, const char *name, struct policy_model *model)
{
    int r;

    model->name = strdup(name);
    if (!model->name)
        return -ENOMEM;
    model->residency.idle_us = 10 * 60 * UINT64_C(1000000);
    model->placement.gpu_layers = POLICY_AUTO;
    model->context = (struct policy_context){.sequences = 4, .k = "f16", .v = "f16"};
    model->max_tokens = POLICY_AUTO;
    model->sequences_per_user = POLICY_AUTO;
    r = check_keys(c, model_keys, object, model);
    if (r < 0)
        return r;
    if (!model->path)
        return refuse(c, "the key \"path\"");
    return 0;
}

static int compare_models(const void *a, const void *b)
{
    return strcmp(((const struct policy_model *)a)->name, ((const struct policy_model *)b)->name);
}

static int check_models(struct checker *c, const struct key *key, json_object *value, void *field)
{
    struct policy *p = c->policy;

    if (!json_object_is_type(value, json_type_object))
        return refuse(c, "an object with the names of models as keys");
    p->models = calloc((size_t)json_object_object_length(value) + 1, sizeof(*p->models));
    if (!p->models)
        return -ENOMEM;
    json_object_object_foreach(value, name, object)
    {
        int r = push(c, name);

        if (r < 0)
            return r;
        if (!policy_name_is_valid(name))
            return refuse(c, "a model's name as the key (1 to 64 of A-Z a-z 0-9 . _ -)");
        r = check_model(c, object, name, &p->models[p->n_models++]);
        if (r < 0)
            return r;
        pop(c);
    }
    qsort(p->models, p->n_models, sizeof(*p->models), compare_models);
    return 0;
}

static int check_aliases(struct checker *c, const struct key *key, json_object *value, void *field)
{
    return check_pairs(c, value, "an alias", check_name, &c->policy->aliases, &c->policy->n_aliases);
}

static int check_version(struct checker *c, const struct key *key, json_object *value, void *field)
{
    int64_t n;

    if (!get_integer(value, &n) || n != 1)
        return refuse(c, "1");
    return 0;
}

/* clang-format off */
static const struct key ram_keys[] = {
    {.name = "budget", .check = check_size, AT(policy, ram_budget)},
    {.name = "reserve", .check = check_size, AT(policy, ram_reserve)},
    {.name = NULL},
};

static const struct key vram_keys[] = {
    {.name = "budget", .check = check_size, AT(policy, vram_budget)},
    {.name = "devices", .check = check_vram_devices},
    {.name = NULL},
};

static const struct key host_keys[] = {
    {.name = "ram", .check = check_object, .children = ram_keys},
    {.name = "vram", .check = check_object, .children = vram_keys},
    {.name = "threads", .check = check_u32_or_auto, AT(policy, threads), .min = 1, .max = 1024, .names = auto_names,
     .expected = "\"auto\" or a whole number"},
    {.name = "ready", .check = check_enum, AT(policy, ready), .names = ready_names},
    {.name = "upgrade_deadline", .check = check_duration, AT(policy, upgrade_deadline_us)},
    {.name = "maintenance", .check = check_text, AT(policy, maintenance)},
    {.name = NULL},
};

static const struct key quotas_keys[] = {
    {.name = "default", .check = check_quota_default, AT(policy, quota_default)},
    {.name = "groups", .check = check_quota_groups},
    {.name = "users", .check = check_quota_users},
    {.name = NULL},
};

static const struct key policy_keys[] = {
    {.name = "version", .check = check_version},
    {.name = "host", .check = check_object, .children = host_keys},
    {.name = "models", .check = check_models},
    {.name = "aliases", .check = check_aliases},
    {.name = "quotas", .check = check_object, .children = quotas_keys},
    {.name = "admins", .check = check_set, AT(policy, admins)},
    {.name = "$schema", .check = check_ignored_text},
    {.name = NULL},
};
/* clang-format on */

/* What only the whole can tell: names that have to lead somewhere. */
static int check_references(struct checker *c)
{
    const struct policy *p = c->policy;
    int r = 0;

    for (size_t i = 0; i < p->n_aliases && r == 0; i++) {
        const struct policy_pair *alias = &p->aliases[i];
        struct policy_model named = {.name = alias->name}, target = {.name = alias->value};
        bool taken = p->n_models > 0 && bsearch(&named, p->models, p->n_models, sizeof(named), compare_models);
        bool known = p->n_models > 0 && bsearch(&target, p->models, p->n_models, sizeof(target), compare_models);

        c->path[0] = "aliases";
        c->path[1] = alias->name;
        c->depth = 2;
        if (taken)
            r = refuse(c, "an alias that is not the name of a model");
        else if (!known)
            r = refuse(c, "the name of a model of this policy, found \"%s\"", alias->value);
    }
    for (size_t i = 0; i < p->n_models && r == 0; i++) {
        const struct policy_model *model = &p->models[i];
        struct policy_model target = {.name = model->draft};

        if (!model->draft)
            continue;
        c->path[0] = "models";
        c->path[1] = model->name;
        c->path[2] = "draft";
        c->depth = 3;
        if (strcmp(model->draft, model->name) == 0 ||
            !bsearch(&target, p->models, p->n_models, sizeof(target), compare_models))
            r = refuse(c, "the name of another model of this policy, found \"%s\"", model->draft);
    }
    c->depth = 0;
    return r;
}

int policy_check(struct policy *p, const struct policy_names *names, struct fault *reterr_fault)
{
    struct checker c = {.policy = p, .names = names, .fault = reterr_fault};
    int r;

    p->ram_budget = (struct policy_size){.is_share = true, .share_ppm = 800000};
    p->vram_budget = (struct policy_size){.is_share = true, .share_ppm = 900000};
    p->threads = POLICY_AUTO;
    p->upgrade_deadline_us = 10 * 60 * UINT64_C(1000000);
    quota_unlimited(&p->quota_default.values);
    r = check_keys(&c, policy_keys, p->document, p);
    if (r < 0)
        return r;
    return check_references(&c);
}
