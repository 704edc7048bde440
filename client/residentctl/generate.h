/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What run and chat share: the options that say how to sample, and showing an answer as it comes.
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "client/residentctl/ctl.h"

/* How run asks: as a message in a conversation, or as a text to continue. */
enum generate_mode {
    GENERATE_AUTO, /* a message where the model has a chat template, else a text */
    GENERATE_CHAT,
    GENERATE_RAW,
};

struct generate_options {
    json_object *parameters; /* of Complete or Chat, as far as options say them; owned */
    const char *system;      /* NULL: none */
    enum generate_mode mode; /* of run */
    bool stats;
};

/**
 * generate_parse() - read options; arguments that are none are moved behind them, from argv[optind] on
 * @ret: to be released by generate_options_done(), on failure too
 * Returns STATUS_DONE, STATUS_USAGE, STATUS_FAILED (a file can't be read), everything said already.
 */
int generate_parse(const struct verb *verb, int argc, char **argv, struct generate_options *ret);

/**
 * generate_options_done() - release
 */
void generate_options_done(struct generate_options *options);

/**
 * generate_message() - append {"role", "content"} to a list; false when memory is short
 */
bool generate_message(json_object *messages, const char *role, const char *content, size_t n);

/* One answer on its way to the screen. */
struct generate_output {
    const struct ctl *ctl;
    bool stats;
    bool shows_waiting; /* stderr is a terminal: say what is being waited for */
    bool waiting_shown; /* and has to be wiped */
    bool ends_in_line_feed;
    FILE *copy; /* the text again, for the conversation; NULL: not wanted */
};

/**
 * generate_output_init() - nothing has been shown yet
 */
void generate_output_init(struct generate_output *o, const struct ctl *ctl, bool stats);

/**
 * generate_show() - one piece. Returns 0, or -1 when it can't be written
 */
int generate_show(struct generate_output *o, const struct resident_reply *reply);

/**
 * generate_end() - the answer is over: the terminal stands at the beginning of a line
 */
void generate_end(struct generate_output *o);
