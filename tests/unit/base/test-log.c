/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where log lines go and what they look like. The journal itself is looked at in tests/systemd. */
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct seen {
    int n, level;
    struct log_fields fields;
    char text[256];
};

static void remember(int level, const struct log_fields *fields, const char *text, void *userdata)
{
    struct seen *s = userdata;

    s->n++;
    s->level = level;
    s->fields = *fields;
    snprintf(s->text, sizeof(s->text), "%s", text);
}

/* What @log writes to a pipe for one line. */
static void written(struct log *log, const struct log_fields *fields, const char *text, char to[512])
{
    int fds[2];
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    log->fd = fds[1];
    log_line(log, LOG_WARNING, fields, "%s", text);
    close(fds[1]);
    n = read(fds[0], to, 511);
    close(fds[0]);
    to[n > 0 ? n : 0] = 0;
}

static void a_terminal_gets_the_fields_behind_the_text(void **state)
{
    const struct log_fields fields = {.model = "m", .request = 7, .has_uid = true, .uid = 0, .pid = 12};
    struct log log = {.level_max = LOG_INFO};
    char text[512];

    written(&log, &fields, "it is so", text);
    assert_string_equal(text, "residentd: it is so model=m uid=0 request=7 pid=12\n");
    written(&log, NULL, "it is so", text);
    assert_string_equal(text, "residentd: it is so\n");
}

static void systemd_gets_the_level_before_it(void **state)
{
    struct log log = {.level_max = LOG_INFO, .prefix = true};
    char text[512];

    written(&log, NULL, "it is so", text);
    assert_string_equal(text, "<4>residentd: it is so\n");
}

static void a_process_without_the_journals_socket_does_not_try_it(void **state)
{
    struct log log;

    /* As systemd says of a stderr that is its own. */
    setenv("JOURNAL_STREAM", "1:1", 1);
    setenv("INVOCATION_ID", "x", 1);
    log_init_stderr(&log);
    assert_false(log.journal);
    assert_int_equal(log.prefix, !isatty(STDERR_FILENO));
    assert_null(log.sink);
    unsetenv("JOURNAL_STREAM");
    unsetenv("INVOCATION_ID");
}

static void a_line_can_not_forge_another(void **state)
{
    struct log log = {.level_max = LOG_INFO};
    char text[512];

    written(&log, NULL, "a\nresidentd: b\x7f", text);
    assert_string_equal(text, "residentd: a?residentd: b?\n");
}

static void a_sink_takes_lines_in_place_of_it(void **state)
{
    const struct log_fields fields = {.request = 9, .tenant = 3};
    struct seen seen = {0};
    struct log log = {.level_max = LOG_NOTICE, .fd = -EBADF, .journal = true, .sink = remember, .userdata = &seen};

    errno = EXDEV;
    log_line(&log, LOG_NOTICE, &fields, "%d\n", 5);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.level, LOG_NOTICE);
    assert_string_equal(seen.text, "5?");
    assert_int_equal(seen.fields.request, 9);
    assert_int_equal(seen.fields.tenant, 3);
    log_line(&log, LOG_INFO, NULL, "less important than what is wanted");
    assert_int_equal(seen.n, 1);
    log_line(&log, LOG_ERR, NULL, "without fields");
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.fields.request, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_terminal_gets_the_fields_behind_the_text),
        cmocka_unit_test(systemd_gets_the_level_before_it),
        cmocka_unit_test(a_process_without_the_journals_socket_does_not_try_it),
        cmocka_unit_test(a_line_can_not_forge_another),
        cmocka_unit_test(a_sink_takes_lines_in_place_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
