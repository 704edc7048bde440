/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/reference/reference.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

static void __attribute__((format(printf, 3, 0))) print_line(const struct tap *t, bool ok, const char *format,
                                                             va_list ap)
{
    printf("%sok %u - ", ok ? "" : "not ", t->n);
    vprintf(format, ap);
}

void tap_ok(struct tap *t, const char *format, ...)
{
    va_list ap;

    t->n++;
    va_start(ap, format);
    print_line(t, true, format, ap);
    va_end(ap);
    putchar('\n');
}

void tap_not_ok(struct tap *t, const char *why, const char *format, ...)
{
    va_list ap;

    t->n++;
    t->n_failed++;
    va_start(ap, format);
    print_line(t, false, format, ap);
    va_end(ap);
    for (const char *line = why; *line;) {
        size_t n = strcspn(line, "\n");

        printf("\n# %.*s", (int)n, line);
        line += n + (line[n] != '\0');
    }
    putchar('\n');
    fflush(stdout);
}

void tap_skip(struct tap *t, const char *why, const char *format, ...)
{
    va_list ap;

    t->n++;
    va_start(ap, format);
    print_line(t, true, format, ap);
    va_end(ap);
    printf(" # SKIP %s\n", why);
}

int tap_end(const struct tap *t)
{
    printf("1..%u\n", t->n);
    return t->n_failed ? 1 : 0;
}

static const char *folder_root(void)
{
    const char *root = getenv("RESIDENTD_REFERENCE");

    return root ? root : "../shared/reference";
}

char *reference_path(const char *folder, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s/%s", folder_root(), folder, name) < 0)
        abort();
    return path;
}

bool reference_present(void)
{
    return access(folder_root(), F_OK) == 0;
}

struct json_object *reference_json(const char *folder, const char *name)
{
    _cleanup_free_ char *path = reference_path(folder, name);

    return json_object_from_file(path);
}

float *reference_floats(const char *name, size_t n)
{
    _cleanup_free_ char *path = reference_path("logits", name);
    _cleanup_fclose_ FILE *f = fopen(path, "re");
    float *values = calloc(n, sizeof(*values));

    if (!f || !values || fread(values, sizeof(*values), n, f) != n || fgetc(f) != EOF) {
        fprintf(stderr, "%s: not there, or not of %zu floats\n", path, n);
        abort();
    }
    return values;
}

int32_t *reference_ids(struct json_object *o, const char *key, uint32_t *ret_n)
{
    struct json_object *array;
    int32_t *ids;

    *ret_n = 0;
    if (!json_object_object_get_ex(o, key, &array) || !json_object_is_type(array, json_type_array))
        return NULL;
    *ret_n = (uint32_t)json_object_array_length(array);
    ids = calloc(*ret_n + 1, sizeof(*ids));
    if (!ids)
        abort();
    for (uint32_t i = 0; i < *ret_n; i++)
        ids[i] = json_object_get_int(json_object_array_get_idx(array, i));
    return ids;
}

double reference_number(struct json_object *o, const char *key, int i)
{
    struct json_object *value = NULL;

    if (json_object_object_get_ex(o, key, &value) && i >= 0)
        value = json_object_array_get_idx(value, (size_t)i);
    if (!value) {
        fprintf(stderr, "the reference has no number %s\n", key);
        abort();
    }
    return json_object_get_double(value);
}

const char *reference_text(struct json_object *o, const char *key)
{
    struct json_object *value;

    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_string))
        return NULL;
    return json_object_get_string(value);
}

bool reference_true(struct json_object *o, const char *key)
{
    struct json_object *value;

    return json_object_object_get_ex(o, key, &value) && json_object_get_boolean(value);
}
