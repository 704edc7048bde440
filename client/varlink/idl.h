/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Varlink's interface language: the text of an interface becomes types, and the parameters of a call, a reply or an
 * error are checked against them. The texts are the contract; nothing about a method's parameters is written down
 * a second time in C. Source: https://varlink.org/Interface-Definition
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/fault.h"

enum idl_kind {
    IDL_BOOL,
    IDL_INT,
    IDL_FLOAT,
    IDL_STRING,
    IDL_OBJECT, /* any JSON object; nobody looks inside */
    IDL_ENUM,   /* a string out of members */
    IDL_STRUCT, /* an object with exactly the members */
    IDL_NAMED,  /* a type of the interface by its name */
    IDL_ARRAY,  /* of element */
    IDL_MAP,    /* string to element */
};

struct idl_type;

struct idl_member {
    const char *name;
    const struct idl_type *type; /* NULL in an enum */
};

struct idl_type {
    enum idl_kind kind;
    bool nullable;
    const char *name;                 /* IDL_NAMED */
    const struct idl_type *target;    /* IDL_NAMED: an enum or a struct; IDL_ARRAY, IDL_MAP: the element */
    const struct idl_member *members; /* IDL_ENUM, IDL_STRUCT */
    size_t n_members;
};

/* What the comment above a method says in brackets, in systemd's convention. */
enum idl_more { IDL_MORE_NO, IDL_MORE_SUPPORTED, IDL_MORE_REQUIRED };

struct idl_method {
    const char *name;
    enum idl_more more;
    const struct idl_type *in, *out; /* structs */
};

struct idl_error {
    const char *name;
    const struct idl_type *parameters; /* a struct */
};

/* What is wrong with a text. */
struct idl_mistake {
    uint32_t line, column; /* from 1; the column counts bytes */
    const char *expected;  /* static */
};

/* A parsed interface. Immutable, so threads may share it; everything that it hands out lives as long as it does. */
struct idl;

/**
 * idl_parse() - parse the text of one interface
 * @text:   @n bytes, at most 1 MiB, need not be terminated; not needed afterwards
 * @ret:    freed by idl_free()
 * @reterr: may be NULL; set on -EINVAL
 * Every name that is used must be declared in the text. Returns 0, -EINVAL, -ENOMEM.
 */
int idl_parse(const char *text, size_t n, struct idl **ret, struct idl_mistake *reterr);

/**
 * idl_free() - release; takes NULL, returns NULL
 */
struct idl *idl_free(struct idl *idl);

DEFINE_CLEANUP(struct idl *, idl_free)

/**
 * idl_name() - the interface's name, "io.residentd.Inference"
 */
const char *idl_name(const struct idl *idl);

/**
 * idl_find_type() - a declared type (an enum or a struct) by its name, NULL if there is none
 */
const struct idl_type *idl_find_type(const struct idl *idl, const char *name);

/**
 * idl_find_method() - a method by its name without the interface, NULL if there is none
 */
const struct idl_method *idl_find_method(const struct idl *idl, const char *name);

/**
 * idl_find_error() - an error by its name without the interface, NULL if there is none
 */
const struct idl_error *idl_find_error(const struct idl *idl, const char *name);

/**
 * idl_n_methods() - how many methods the interface has
 */
size_t idl_n_methods(const struct idl *idl);

/**
 * idl_method() - the method at index @i, in the order of the text; i < idl_n_methods()
 */
const struct idl_method *idl_method(const struct idl *idl, size_t i);

enum idl_check_flags {
    IDL_DROP_NULLS = 1 << 0, /* remove members that are null from structs: they count as absent either way */
    IDL_ALLOW_UNKNOWN = 1 << 1, /* members that the type does not have: for replies, which may grow */
};

/**
 * idl_check() - whether @value has @type (a struct of a method or an error)
 * @value: changed only with IDL_DROP_NULLS, which leaves the inside of `object` values alone. NULL: an empty object.
 * @flags: of enum idl_check_flags
 * Numbers: an int is a JSON integer (no fraction, no exponent) that fits into 64 bits with a sign; a float is any
 * finite number. Returns 0, or -EINVAL with an InvalidParameter that names the member by its path
 * ("messages[2].role") and says what was expected.
 */
int idl_check(const struct idl_type *type, json_object *value, unsigned flags, struct fault *reterr);
