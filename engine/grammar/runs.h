/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How much text of a class of characters a configuration takes, so that the tokens of the class need not be
 * looked at one by one: as in a JSON string, or up to its maxLength. Private to engine/grammar.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/grammar/machine.h"
#include "engine/grammar/trie.h"

enum run_kind {
    RUN_MIXED, /* some texts of the class, not others: look at the tokens */
    RUN_UP_TO, /* any text of up to n characters, nothing longer */
    RUN_LONG,  /* any text of up to RUN_CHARACTERS_MAX characters; about longer ones nothing is known */
    RUN_ALL,   /* any text */
};

struct runs {
    uint16_t
        *symbols; /* [RUN_CLASS_MAX][n_classes] classes of bytes that hold ASCII characters of the class */
    uint16_t n_symbols[RUN_CLASS_MAX];
    uint16_t n_classes;
};

/**
 * runs_init() - for one grammar; runs_done() even on failure. Returns 0 or -ENOMEM
 */
int runs_init(struct runs *r, const struct nfa *nfa);
void runs_done(struct runs *r);

/**
 * runs_find() - what @config takes of @class; *ret_n for RUN_UP_TO, 0: nothing
 */
enum run_kind runs_find(const struct runs *r, struct machine *m, uint32_t config, enum run_class class,
                        unsigned *ret_n);
