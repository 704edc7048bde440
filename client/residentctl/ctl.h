/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the verbs of residentctl share: the connection, how results are printed, and how a verb ends. A verb is one
 * file and one row of the table in main.c; it gets its own arguments and returns an exit status.
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>

#include "client/libresident/resident.h"

enum {
    STATUS_DONE = 0,
    STATUS_FAILED = 1, /* the service refused or failed; its error's name is on stderr */
    STATUS_USAGE = 2,
    STATUS_INTERRUPTED = 130, /* as shells report SIGINT */
};

struct ctl {
    const char *socket; /* NULL: the usual place */
    bool json;
    bool is_terminal;            /* stdout */
    struct resident *connection; /* made by the first ctl_connect() */
};

struct verb {
    const char *name;
    const char *arguments; /* as the help shows them */
    const char *summary;
    int (*run)(struct ctl *ctl, const struct verb *verb, int argc, char **argv); /* argv[0] is the verb */
};

/**
 * ctl_connect() - connect unless that has happened; says on stderr why not
 * Returns STATUS_DONE or STATUS_FAILED.
 */
int ctl_connect(struct ctl *ctl);

/**
 * ctl_usage() - say how the verb is called; returns STATUS_USAGE
 * @format: what is wrong, without a line end; NULL: getopt has said it already
 */
int ctl_usage(const struct verb *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * ctl_no_memory() - say so; returns STATUS_FAILED
 */
int ctl_no_memory(void);

/**
 * ctl_report() - what a call of libresident came to
 * @result: its result; @error: what the service said, may be NULL, not freed
 * Prints what is wrong to stderr, if anything. Returns an exit status.
 */
int ctl_report(const struct ctl *ctl, int result, const struct resident_error *error);

/**
 * ctl_call() - call a method and, with --json, print its reply
 * @parameters_take: an object, NULL for none; taken
 * @ret:             the reply as an object, owned by the caller; NULL with --json, when everything is printed already;
 *                   may be NULL when the reply says nothing
 * Returns an exit status.
 */
int ctl_call(struct ctl *ctl, const char *method, json_object *parameters_take, json_object **ret);

/**
 * ctl_simple() - a verb that takes one argument, calls a method with it and has nothing to show
 */
int ctl_simple(struct ctl *ctl, const struct verb *verb, int argc, char **argv, const char *method,
               const char *name);

/**
 * ctl_read_all() - all of a file, "-" for stdin; terminated, *ret_n without the NUL
 * Says on stderr why not. Returns STATUS_DONE or STATUS_FAILED.
 */
int ctl_read_all(const char *path, char **ret, size_t *ret_n);

/**
 * parse_int() - a whole decimal number between @min and @max; false for anything else
 */
bool parse_int(const char *text, int64_t min, int64_t max, int64_t *ret);

/**
 * parse_double() - a finite decimal number; false for anything else
 */
bool parse_double(const char *text, double *ret);

/* Looking into a reply; what is absent or of another type is NULL, 0 or -1. */

/**
 * get_text() - a text member, NULL when there is none
 */
const char *get_text(json_object *object, const char *name);

/**
 * get_int() - an integer member, -1 when there is none
 */
int64_t get_int(json_object *object, const char *name);

/**
 * get_array() - a list member, NULL when there is none
 */
json_object *get_array(json_object *object, const char *name);

/**
 * length_of() - of what get_array() returned; 0 for NULL
 */
size_t length_of(json_object *array);

/**
 * put() - add a member; false when memory is short. @value is taken, NULL fails
 */
bool put(json_object *object, const char *name, json_object *value);

/* The verbs, in verb-*.c. */

#define VERB(name) int verb_##name(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
VERB(call);
VERB(cancel);
VERB(chat);
VERB(detokenize);
VERB(embed);
VERB(list);
VERB(load);
VERB(metrics);
VERB(pin);
VERB(plan);
VERB(policy);
VERB(ps);
VERB(reload);
VERB(run);
VERB(status);
VERB(tokenize);
VERB(top);
VERB(unload);
VERB(unpin);
VERB(usage);
VERB(wait);
