/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One line, three ways out: the journal's native protocol (with fields), "<6>text" for a stderr that systemd reads,
 * plain text for a terminal. The line is put together in a fixed buffer: logging never allocates on our side and can't
 * fail a request.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048, FIELD_MAX_BYTES = 320, FIELDS_MAX = 7 };

/* systemd sets $JOURNAL_STREAM to "device:inode" of the stderr that it connected to the journal. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    char mine[64];
    struct stat st;

    if (!stream || fstat(STDERR_FILENO, &st) < 0)
        return false;
    snprintf(mine, sizeof(mine), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(stream, mine) == 0;
}

void log_init_stderr(struct log *log)
{
    *log = (struct log){.level_max = LOG_INFO, .fd = STDERR_FILENO};
    log->prefix = getenv("INVOCATION_ID") && !isatty(STDERR_FILENO);
}

void log_init(struct log *log)
{
    log_init_stderr(log);
    log->journal = stderr_is_journal();
    log->prefix = log->prefix && !log->journal;
}

int log_level_from_name(const char *name)
{
    static const struct {
        const char *name;
        int level;
    } levels[] = {
        {"err", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE}, {"info", LOG_INFO}, {"debug", LOG_DEBUG},
    };

    for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
        if (strcmp(levels[i].name, name) == 0)
            return levels[i].level;
    }
    return -EINVAL;
}

__attribute__((format(printf, 3, 4))) static size_t add_field(struct iovec *iov, char *text, const char *format, ...)
{
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(text, FIELD_MAX_BYTES, format, ap);
    va_end(ap);
    *iov = (struct iovec){text, n < FIELD_MAX_BYTES ? (size_t)n : FIELD_MAX_BYTES - 1};
    return 1;
}

static void to_journal(int level, const struct log_fields *f, const char *message)
{
    char text[FIELDS_MAX][FIELD_MAX_BYTES], line[LINE_MAX_BYTES + 16];
    struct iovec iov[FIELDS_MAX + 1];
    size_t n = 0;
    int length = snprintf(line, sizeof(line), "MESSAGE=%s", message);

    iov[n++] = (struct iovec){line, (size_t)length};
    n += add_field(&iov[n], text[n - 1], "PRIORITY=%d", level);
    if (f->message_id)
        n += add_field(&iov[n], text[n - 1], "MESSAGE_ID=%s", f->message_id);
    if (f->model)
        n += add_field(&iov[n], text[n - 1], "RESIDENT_MODEL=%s", f->model);
    if (f->has_uid)
        n += add_field(&iov[n], text[n - 1], "RESIDENT_UID=%u", f->uid);
    if (f->request)
        n += add_field(&iov[n], text[n - 1], "RESIDENT_REQUEST=%" PRIu64, f->request);
    if (f->pid)
        n += add_field(&iov[n], text[n - 1], "RESIDENT_PID=%d", f->pid);
    sd_journal_sendv(iov, (int)n);
}

static size_t append(char *line, size_t at, size_t n)
{
    at += n;
    return at < LINE_MAX_BYTES ? at : LINE_MAX_BYTES - 1;
}

static void to_stderr(const struct log *log, int level, const struct log_fields *f, const char *message)
{
    char line[LINE_MAX_BYTES + 1];
    size_t at = 0;
    ssize_t written;

#define APPEND(...) at = append(line, at, (size_t)snprintf(line + at, LINE_MAX_BYTES - at, __VA_ARGS__))
    if (log->prefix)
        APPEND("<%d>", level);
    APPEND("residentd: %s", message);
    if (f->model)
        APPEND(" model=%s", f->model);
    if (f->has_uid)
        APPEND(" uid=%u", f->uid);
    if (f->request)
        APPEND(" request=%" PRIu64, f->request);
    if (f->pid)
        APPEND(" pid=%d", f->pid);
#undef APPEND
    line[at++] = '\n';
    do
        written = write(log->fd, line, at);
    while (written < 0 && errno == EINTR);
}

/* A message is one line: what came from outside (file names, reasons) can't forge another one. */
static void clean(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F)
            *text = '?';
    }
}

void log_line(const struct log *log, int level, const struct log_fields *fields, const char *format, ...)
{
    static const struct log_fields none;
    char message[LINE_MAX_BYTES - 512];
    int saved = errno;
    va_list ap;

    if (level > log->level_max)
        return;
    va_start(ap, format);
    vsnprintf(message, sizeof(message), format, ap);
    va_end(ap);
    clean(message);
    if (log->sink)
        log->sink(level, fields ? fields : &none, message, log->userdata);
    else if (log->journal)
        to_journal(level, fields ? fields : &none, message);
    else
        to_stderr(log, level, fields ? fields : &none, message);
    errno = saved;
}
