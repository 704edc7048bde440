/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parser of interface texts: recursive descent over the bytes, one function per rule of the grammar, the depth of
 * inline types limited. Nodes and names are chunks that hang from the interface and are freed together. Named types
 * may be used before they are declared, so they are resolved after the last line.
 *
 * The texts that the service uses are compiled in, but a client may get one from any service, so this is a parser of
 * hostile input. The check of values against types is in idl-check.c.
 */
#include "client/varlink/idl.h"

#include <errno.h>
#include <string.h>

enum {
    TEXT_BYTES_MAX = 1024 * 1024, /* the largest text of ours has 8 kB */
    DEPTH_MAX = 16,               /* of types inside types, in one declaration */
    NAME_BYTES_MAX = 255,
};

struct chunk {
    struct chunk *next;
    _Alignas(max_align_t) char data[];
};

/* A list that grows while its length is not known yet; its storage is a chunk and moves. */
struct list {
    void *items;
    size_t n, n_room;
};

struct declaration {
    const char *name;
    const struct idl_type *type;
};

struct idl {
    struct chunk *chunks;
    const char *name;
    struct list types;   /* struct declaration */
    struct list methods; /* struct idl_method */
    struct list errors;  /* struct idl_error */
    struct list named;   /* struct idl_type *: uses of names, until they are resolved */
};

struct parser {
    struct idl *idl;
    const char *text;
    size_t n, at;
    size_t comment, comment_n; /* the lines of comment right above the member that comes next */
    struct idl_mistake *reterr;
};

/* ---- memory ---- */

static void *idl_alloc(struct idl *idl, size_t size)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk) + size);

    if (!chunk)
        return NULL;
    chunk->next = idl->chunks;
    idl->chunks = chunk;
    return chunk->data;
}

/* Room for one more item of @size bytes, zeroed. Old storage stays with the interface: at most as much again. */
static void *list_add(struct idl *idl, struct list *list, size_t size)
{
    if (list->n == list->n_room) {
        size_t n_room = list->n_room ? 2 * list->n_room : 8;
        void *items = idl_alloc(idl, n_room * size);

        if (!items)
            return NULL;
        if (list->n > 0)
            memcpy(items, list->items, list->n * size);
        list->items = items;
        list->n_room = n_room;
    }
    return (char *)list->items + size * list->n++;
}

struct idl *idl_free(struct idl *idl)
{
    if (!idl)
        return NULL;
    for (struct chunk *chunk = idl->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(idl);
    return NULL;
}

/* ---- words ---- */

static int expected(const struct parser *p, size_t at, const char *what)
{
    if (p->reterr) {
        uint32_t line = 1, column = 1;

        for (size_t i = 0; i < at; i++) {
            column++;
            if (p->text[i] == '\n') {
                line++;
                column = 1;
            }
        }
        *p->reterr = (struct idl_mistake){.line = line, .column = column, .expected = what};
    }
    return -EINVAL;
}

static char peek(const struct parser *p)
{
    return p->at < p->n ? p->text[p->at] : 0;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Space, line ends and comments. Remembers the comment lines that stand right above what follows. */
static void skip_space(struct parser *p)
{
    bool line_is_empty = false;

    p->comment_n = 0;
    while (p->at < p->n) {
        char c = p->text[p->at];

        if (c == '#') {
            const char *end = memchr(p->text + p->at, '\n', p->n - p->at);
            size_t stop = end ? (size_t)(end - p->text) : p->n;

            if (p->comment_n == 0)
                p->comment = p->at;
            p->comment_n = stop - p->comment;
            p->at = stop < p->n ? stop + 1 : stop;
            line_is_empty = true;
            continue;
        }
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
            return;
        if (c == '\n') {
            if (line_is_empty)
                p->comment_n = 0;
            line_is_empty = true;
        }
        p->at++;
    }
}

static bool take(struct parser *p, const char *word)
{
    size_t n = strlen(word);

    if (p->n - p->at < n || memcmp(p->text + p->at, word, n) != 0)
        return false;
    p->at += n;
    return true;
}

/* A keyword: @word with no letter or digit behind it. */
static bool take_word(struct parser *p, const char *word)
{
    size_t before = p->at;

    if (take(p, word) && !is_letter(peek(p)) && !is_digit(peek(p)) && peek(p) != '_')
        return true;
    p->at = before;
    return false;
}

static int take_text(struct parser *p, size_t from, const char **ret)
{
    size_t n = p->at - from;
    char *name;

    if (n > NAME_BYTES_MAX)
        return expected(p, from, "a name of at most 255 bytes");
    name = idl_alloc(p->idl, n + 1);
    if (!name)
        return -ENOMEM;
    memcpy(name, p->text + from, n);
    *ret = name;
    return 0;
}

/* [A-Z][A-Za-z0-9]* */
static int parse_type_name(struct parser *p, const char **ret)
{
    size_t from = p->at;

    if (!(peek(p) >= 'A' && peek(p) <= 'Z'))
        return expected(p, p->at, "a name that begins with a capital letter");
    while (is_letter(peek(p)) || is_digit(peek(p)))
        p->at++;
    return take_text(p, from, ret);
}

/* [A-Za-z](_?[A-Za-z0-9])* */
static int parse_member_name(struct parser *p, const char **ret)
{
    size_t from = p->at;

    if (!is_letter(peek(p)))
        return expected(p, p->at, "the name of a member");
    while (is_letter(peek(p)) || is_digit(peek(p)) || peek(p) == '_') {
        if (peek(p) == '_' &&
            (p->at + 1 >= p->n || !(is_letter(p->text[p->at + 1]) || is_digit(p->text[p->at + 1]))))
            return expected(p, p->at, "a letter or digit after '_'");
        p->at++;
    }
    return take_text(p, from, ret);
}

/* Labels of letters, digits and inner hyphens; at least two, with dots between; the first begins with a letter. */
static int parse_interface_name(struct parser *p, const char **ret)
{
    size_t from = p->at, n_labels = 0;

    do {
        if (n_labels == 0 ? !is_letter(peek(p)) : !(is_letter(peek(p)) || is_digit(peek(p))))
            return expected(p, p->at, "an interface name such as org.example.thing");
        while (is_letter(peek(p)) || is_digit(peek(p)) || peek(p) == '-')
            p->at++;
        if (p->text[p->at - 1] == '-')
            return expected(p, p->at - 1, "a letter or digit at the end of a label");
        n_labels++;
    } while (take(p, "."));
    if (n_labels < 2)
        return expected(p, from, "an interface name such as org.example.thing");
    return take_text(p, from, ret);
}

/* ---- types ---- */

static int parse_type(struct parser *p, unsigned depth, bool may_be_null, struct idl_type **ret);

static bool has_member(const struct list *members, const char *name)
{
    const struct idl_member *member = members->items;

    for (size_t i = 0; i < members->n; i++)
        if (member[i].name && strcmp(member[i].name, name) == 0)
            return true;
    return false;
}

/*
 * "(" … ")": a struct when a colon follows its first name, an enum otherwise; empty: a struct. Every member goes
 * through the same loop, so a mixture is refused at the first member that differs.
 */
static int parse_members(struct parser *p, unsigned depth, struct idl_type *type)
{
    struct list members = {0};
    bool is_enum = false;

    if (!take(p, "("))
        return expected(p, p->at, "'('");
    for (skip_space(p); peek(p) != ')'; skip_space(p)) {
        struct idl_type *inner;
        struct idl_member *member;
        const char *name;
        size_t at;
        int r;

        if (members.n > 0) {
            if (!take(p, ","))
                return expected(p, p->at, "',' or ')'");
            skip_space(p);
        }
        at = p->at;
        r = parse_member_name(p, &name);
        if (r < 0)
            return r;
        if (has_member(&members, name))
            return expected(p, at, "a name that this list does not have yet");
        skip_space(p);
        if (members.n == 0)
            is_enum = peek(p) != ':';
        member = list_add(p->idl, &members, sizeof(*member));
        if (!member)
            return -ENOMEM;
        member->name = name;
        if (is_enum)
            continue;
        if (!take(p, ":"))
            return expected(p, p->at, "':' and a type");
        skip_space(p);
        r = parse_type(p, depth + 1, /* may_be_null= */ true, &inner);
        if (r < 0)
            return r;
        member->type = inner;
    }
    p->at++;
    type->kind = is_enum ? IDL_ENUM : IDL_STRUCT;
    type->members = members.items;
    type->n_members = members.n;
    return 0;
}

static int parse_element(struct parser *p, unsigned depth, struct idl_type *type)
{
    static const struct {
        const char *word;
        enum idl_kind kind;
    } basic[] = {{"bool", IDL_BOOL},
                 {"int", IDL_INT},
                 {"float", IDL_FLOAT},
                 {"string", IDL_STRING},
                 {"object", IDL_OBJECT}};
    struct idl_type **use;

    for (size_t i = 0; i < sizeof(basic) / sizeof(basic[0]); i++)
        if (take_word(p, basic[i].word)) {
            type->kind = basic[i].kind;
            return 0;
        }
    if (peek(p) == '(')
        return parse_members(p, depth, type);
    if (!is_letter(peek(p)))
        return expected(p, p->at, "a type");
    type->kind = IDL_NAMED;
    use = list_add(p->idl, &p->idl->named, sizeof(*use));
    if (!use)
        return -ENOMEM;
    *use = type;
    return parse_type_name(p, &type->name);
}

static int parse_type(struct parser *p, unsigned depth, bool may_be_null, struct idl_type **ret)
{
    struct idl_type *type, *target;
    int r;

    if (depth > DEPTH_MAX)
        return expected(p, p->at, "less than 16 types inside each other");
    if (may_be_null && take(p, "?")) {
        r = parse_type(p, depth + 1, /* may_be_null= */ false, ret);
        if (r < 0)
            return r;
        (*ret)->nullable = true; /* made for this use alone */
        return 0;
    }
    type = idl_alloc(p->idl, sizeof(*type));
    if (!type)
        return -ENOMEM;
    if (take(p, "[]") || take(p, "[string]")) {
        type->kind = p->text[p->at - 2] == '[' ? IDL_ARRAY : IDL_MAP;
        r = parse_type(p, depth + 1, /* may_be_null= */ true, &target);
        if (r < 0)
            return r;
        type->target = target;
    } else {
        r = parse_element(p, depth, type);
        if (r < 0)
            return r;
    }
    *ret = type;
    return 0;
}

static int parse_struct(struct parser *p, const struct idl_type **ret)
{
    struct idl_type *type = idl_alloc(p->idl, sizeof(*type));
    size_t at = p->at;
    int r;

    if (!type)
        return -ENOMEM;
    r = parse_members(p, 0, type);
    if (r < 0)
        return r;
    if (type->kind != IDL_STRUCT)
        return expected(p, at, "members with types");
    *ret = type;
    return 0;
}

/* ---- members of the interface ---- */

static bool comment_has(const struct parser *p, size_t comment, size_t comment_n, const char *words)
{
    return comment_n > 0 && memmem(p->text + comment, comment_n, words, strlen(words));
}

static int parse_method(struct parser *p, size_t comment, size_t comment_n)
{
    struct idl_method method = {0}, *to;
    int r;

    if (comment_has(p, comment, comment_n, "[Requires 'more' flag]"))
        method.more = IDL_MORE_REQUIRED;
    else if (comment_has(p, comment, comment_n, "[Supports 'more' flag]"))
        method.more = IDL_MORE_SUPPORTED;
    r = parse_type_name(p, &method.name);
    if (r < 0)
        return r;
    skip_space(p);
    r = parse_struct(p, &method.in);
    if (r < 0)
        return r;
    skip_space(p);
    if (!take(p, "->"))
        return expected(p, p->at, "'->'");
    skip_space(p);
    r = parse_struct(p, &method.out);
    if (r < 0)
        return r;
    to = list_add(p->idl, &p->idl->methods, sizeof(*to));
    if (!to)
        return -ENOMEM;
    *to = method;
    return 0;
}

static int parse_typedef(struct parser *p)
{
    struct declaration *to;
    struct idl_type *type;
    const char *name;
    int r;

    r = parse_type_name(p, &name);
    if (r < 0)
        return r;
    skip_space(p);
    type = idl_alloc(p->idl, sizeof(*type));
    if (!type)
        return -ENOMEM;
    r = parse_members(p, 0, type);
    if (r < 0)
        return r;
    to = list_add(p->idl, &p->idl->types, sizeof(*to));
    if (!to)
        return -ENOMEM;
    *to = (struct declaration){.name = name, .type = type};
    return 0;
}

static int parse_error(struct parser *p)
{
    struct idl_error error = {0}, *to;
    int r;

    r = parse_type_name(p, &error.name);
    if (r < 0)
        return r;
    skip_space(p);
    r = parse_struct(p, &error.parameters);
    if (r < 0)
        return r;
    to = list_add(p->idl, &p->idl->errors, sizeof(*to));
    if (!to)
        return -ENOMEM;
    *to = error;
    return 0;
}

/* Varlink has one name space for the members of an interface. Linear: an interface has tens of members. */
static bool is_declared_before(const struct idl *idl, const char *name)
{
    return idl_find_type(idl, name) || idl_find_method(idl, name) || idl_find_error(idl, name);
}

static int parse_member(struct parser *p)
{
    size_t comment = p->comment, comment_n = p->comment_n, name_at;
    struct parser ahead;
    const char *name;
    enum { TYPE, METHOD, ERROR } what;
    int r;

    if (take_word(p, "type"))
        what = TYPE;
    else if (take_word(p, "method"))
        what = METHOD;
    else if (take_word(p, "error"))
        what = ERROR;
    else
        return expected(p, p->at, "'type', 'method' or 'error'");
    skip_space(p);

    name_at = p->at;
    ahead = *p;
    r = parse_type_name(&ahead, &name);
    if (r < 0)
        return r;
    if (is_declared_before(p->idl, name))
        return expected(p, name_at, "a name that the interface does not have yet");

    switch (what) {
    case TYPE:
        return parse_typedef(p);
    case METHOD:
        return parse_method(p, comment, comment_n);
    case ERROR:
        return parse_error(p);
    }
    return -EINVAL;
}

static int resolve(struct parser *p)
{
    struct idl_type **use = p->idl->named.items;

    for (size_t i = 0; i < p->idl->named.n; i++) {
        use[i]->target = idl_find_type(p->idl, use[i]->name);
        if (!use[i]->target)
            return expected(p, p->n, "every type that is used to be declared");
    }
    return 0;
}

int idl_parse(const char *text, size_t n, struct idl **ret, struct idl_mistake *reterr)
{
    _cleanup_(idl_freep) struct idl *idl = calloc(1, sizeof(*idl));
    struct parser p = {.idl = idl, .text = text, .n = n, .reterr = reterr};
    int r;

    if (!idl)
        return -ENOMEM;
    if (n > TEXT_BYTES_MAX)
        return expected(&p, 0, "a text of at most 1 MiB");
    skip_space(&p);
    if (!take_word(&p, "interface"))
        return expected(&p, p.at, "'interface'");
    skip_space(&p);
    r = parse_interface_name(&p, &idl->name);
    if (r < 0)
        return r;
    for (skip_space(&p); p.at < p.n; skip_space(&p)) {
        r = parse_member(&p);
        if (r < 0)
            return r;
    }
    r = resolve(&p);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(idl);
    return 0;
}

/* ---- questions ---- */

const char *idl_name(const struct idl *idl)
{
    return idl->name;
}

const struct idl_type *idl_find_type(const struct idl *idl, const char *name)
{
    const struct declaration *d = idl->types.items;

    for (size_t i = 0; i < idl->types.n; i++)
        if (strcmp(d[i].name, name) == 0)
            return d[i].type;
    return NULL;
}

const struct idl_method *idl_find_method(const struct idl *idl, const char *name)
{
    const struct idl_method *method = idl->methods.items;

    for (size_t i = 0; i < idl->methods.n; i++)
        if (strcmp(method[i].name, name) == 0)
            return &method[i];
    return NULL;
}

const struct idl_error *idl_find_error(const struct idl *idl, const char *name)
{
    const struct idl_error *error = idl->errors.items;

    for (size_t i = 0; i < idl->errors.n; i++)
        if (strcmp(error[i].name, name) == 0)
            return &error[i];
    return NULL;
}

size_t idl_n_methods(const struct idl *idl)
{
    return idl->methods.n;
}

const struct idl_method *idl_method(const struct idl *idl, size_t i)
{
    return (const struct idl_method *)idl->methods.items + i;
}
