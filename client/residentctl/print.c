/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables and harmless text.
 */
#include "client/residentctl/print.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/units.h"
#include "base/utf8.h"

enum { ESCAPED_BYTES_MAX = 5 /* \xNN and a NUL */ };

/*
 * The first character of @n > 0 bytes: how many bytes it takes, and in @escaped what to show for it, "" for itself.
 * A byte that is no UTF-8 is shown by its value too: a terminal in an 8-bit character set would obey it.
 */
static size_t escape(const char *text, size_t n, bool keeps_lines, char *escaped)
{
    uint32_t code = 0;
    int k = utf8_decode(text, n, &code);

    escaped[0] = 0;
    if (k <= 0) {
        snprintf(escaped, ESCAPED_BYTES_MAX, "\\x%02x", (unsigned char)*text);
        return 1;
    }
    if (keeps_lines && (code == '\n' || code == '\t'))
        return (size_t)k;
    if (code < 0x20 || (code >= 0x7F && code < 0xA0))
        snprintf(escaped, ESCAPED_BYTES_MAX, "\\x%02x", (unsigned)code);
    return (size_t)k;
}

void print_text(FILE *to, const char *text, size_t n, bool harmless)
{
    if (!harmless) {
        fwrite(text, 1, n, to);
        return;
    }
    while (n > 0) {
        char escaped[ESCAPED_BYTES_MAX];
        size_t k = escape(text, n, /* keeps_lines= */ true, escaped);

        if (escaped[0])
            fputs(escaped, to);
        else
            fwrite(text, 1, k, to);
        text += k;
        n -= k;
    }
}

void print_json(FILE *to, const char *json, bool harmless)
{
    size_t n = strlen(json);

    while (harmless && n > 0) {
        char escaped[ESCAPED_BYTES_MAX];
        size_t k = escape(json, n, /* keeps_lines= */ false, escaped);

        if (escaped[0])
            fprintf(to, "\\u00%s", escaped + 2);
        else
            fwrite(json, 1, k, to);
        json += k;
        n -= k;
    }
    fwrite(json, 1, n, to);
    fputc('\n', to);
}

struct table {
    const char *const *headers;
    size_t n_columns;
    char **cells; /* [n_cells] */
    size_t n_cells, n_room;
    bool is_short; /* of memory */
};

struct table *table_new(const char *const *headers, size_t n_columns)
{
    struct table *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->headers = headers;
    t->n_columns = n_columns;
    return t;
}

struct table *table_free(struct table *t)
{
    if (!t)
        return NULL;
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
    return NULL;
}

static char *escape_dup(const char *text)
{
    size_t n = strlen(text), at = 0;
    char *copy = malloc(n * (ESCAPED_BYTES_MAX - 1) + 1);

    if (!copy)
        return NULL;
    while (n > 0) {
        char escaped[ESCAPED_BYTES_MAX];
        size_t k = escape(text, n, /* keeps_lines= */ false, escaped);
        size_t k_out = escaped[0] ? strlen(escaped) : k;

        memcpy(copy + at, escaped[0] ? escaped : text, k_out);
        at += k_out;
        text += k;
        n -= k;
    }
    copy[at] = 0;
    return copy;
}

void table_add(struct table *t, const char *text)
{
    if (t->n_cells == t->n_room) {
        size_t n_room = t->n_room ? 2 * t->n_room : 64;
        char **cells = reallocarray(t->cells, n_room, sizeof(*cells));

        if (!cells) {
            t->is_short = true;
            return;
        }
        t->cells = cells;
        t->n_room = n_room;
    }
    t->cells[t->n_cells] = escape_dup(text && *text ? text : "-");
    if (t->cells[t->n_cells])
        t->n_cells++;
    else
        t->is_short = true;
}

void table_add_format(struct table *t, const char *format, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    table_add(t, text);
}

void table_add_int(struct table *t, int64_t number)
{
    if (number < 0)
        table_add(t, NULL);
    else
        table_add_format(t, "%" PRId64, number);
}

void table_add_size(struct table *t, int64_t bytes)
{
    char text[UNITS_TEXT_MAX];

    table_add(t, bytes < 0 ? NULL : units_format_size((uint64_t)bytes, text));
}

/* Characters, not cells: names in wide scripts shift what follows, and no width table is worth avoiding that here. */
static size_t width_of(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void print_cell(FILE *to, const char *text, size_t width, bool is_number, bool is_last)
{
    size_t n = width_of(text), pad = width > n ? width - n : 0;

    if (is_number)
        fprintf(to, "%*s%s", (int)pad, "", text);
    else
        fprintf(to, "%s%*s", text, is_last ? 0 : (int)pad, "");
    fputs(is_last ? "\n" : "  ", to);
}

bool table_print(const struct table *t, FILE *to)
{
    _cleanup_free_ size_t *widths = calloc(t->n_columns, sizeof(*widths));

    if (!widths || t->is_short)
        return false;
    for (size_t c = 0; c < t->n_columns; c++)
        widths[c] = width_of(t->headers[c]) - (t->headers[c][0] == '>');
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t n = width_of(t->cells[i]), c = i % t->n_columns;

        if (n > widths[c])
            widths[c] = n;
    }
    for (size_t c = 0; c < t->n_columns; c++) {
        bool is_number = t->headers[c][0] == '>';

        print_cell(to, t->headers[c] + is_number, widths[c], is_number, c + 1 == t->n_columns);
    }
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t c = i % t->n_columns;

        print_cell(to, t->cells[i], widths[c], t->headers[c][0] == '>', c + 1 == t->n_columns);
    }
    return true;
}
