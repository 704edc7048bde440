/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Log lines of the programs (libraries do not log). To the journal with fields when stderr is connected to it, else to
 * stderr as "<6>message" under systemd or plainly with the fields behind it on a terminal. Never holds a prompt or an
 * answer: callers pass numbers, names and reasons only.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <syslog.h>

struct log_fields;

struct log {
    int level_max; /* LOG_ERR … LOG_DEBUG: less important lines are dropped */
    int fd;        /* stderr unless a test says otherwise; borrowed */
    bool journal;
    bool prefix; /* "<6>" before each line */
    /* Takes the lines in place of all that; NULL: none. Called by whichever thread logs; @text is borrowed. */
    void (*sink)(int level, const struct log_fields *fields, const char *text, void *userdata);
    void *userdata;
};

/* What a line is about; what is unset is left out. */
struct log_fields {
    const char *model;
    uint64_t request;     /* 0: unset */
    bool has_uid;
    uid_t uid;
    pid_t pid;             /* 0: unset */
    uint32_t tenant;       /* in a worker, which knows no uids: whose request; 0: unset. Only a sink has a use for it */
    const char *message_id; /* 32 hexadecimal digits, as sd_id128 writes them; NULL: none */
};

/**
 * log_init() - look at what stderr is connected to; lines up to LOG_INFO are written
 */
void log_init(struct log *log);

/**
 * log_init_stderr() - the same for a process that can't reach the journal's own socket: only stderr is written to
 */
void log_init_stderr(struct log *log);

/**
 * log_level_from_name() - "err", "warning", "notice", "info", "debug"; -EINVAL for anything else
 */
int log_level_from_name(const char *name);

/**
 * log_line() - write one line at @level; @fields may be NULL. Never fails, keeps errno
 */
void log_line(const struct log *log, int level, const struct log_fields *fields, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
