/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What systemd says of a unit's end, as a sentence; and who may say it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "daemon/worker-report.h"

static void says(const char *text, const char *expected, enum worker_end expected_end)
{
    char buffer[128] = "";
    enum worker_end end = expected_end + 1;

    assert_int_equal(worker_report_describe(text, strlen(text), buffer, sizeof(buffer), &end), 0);
    assert_string_equal(buffer, expected);
    assert_int_equal(end, expected_end);
}

static void an_end_is_a_sentence(void **state)
{
    says("signal killed SEGV", "the worker was killed by signal SEGV", WORKER_END_CRASH);
    says("core-dump dumped ABRT", "the worker was killed by signal ABRT", WORKER_END_CRASH);
    says("exit-code exited 1", "the worker ended with status 1", WORKER_END_OTHER);
    says("exit-code exited 74", "the worker could not read the model's file any more", WORKER_END_PAGES_LOST);
    says("exit-code exited 74x", "the worker ended with status -1", WORKER_END_OTHER);
    says("success exited 0", "the worker ended with status 0", WORKER_END_OTHER);
    says("oom-kill killed KILL", "the worker was killed because memory ran out", WORKER_END_OTHER);
    says("watchdog killed KILL", "the worker was killed because it hung (watchdog)", WORKER_END_OTHER);
    says("signal killed BUS", "the worker was killed by signal BUS", WORKER_END_OTHER);
    says("signal killed KILL", "the worker was killed by signal KILL", WORKER_END_OTHER);
    says("oom-kill killed ABRT", "the worker was killed because memory ran out", WORKER_END_OTHER);
}

static void what_systemd_would_not_say_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "signal",
        "signal killed",
        "signal killed SEGV again",
        "signal killed SE\nGV",
        "signal killed \x1b[31m",
        "signal killed 0123456789012345678901234567890123",
    };
    char buffer[128] = "untouched", many[256];
    enum worker_end end;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(worker_report_describe(bad[i], strlen(bad[i]), buffer, sizeof(buffer), &end), -EBADMSG);
    memset(many, 'a', sizeof(many));
    assert_int_equal(worker_report_describe(many, sizeof(many), buffer, sizeof(buffer), &end), -EBADMSG);
    assert_int_equal(worker_report_describe("signal killed \0SEGV", 19, buffer, sizeof(buffer), &end), -EBADMSG);
    assert_string_equal(buffer, "untouched");
}

struct heard {
    unsigned n;
    uid_t uid;
    char reason[128];
};

static void hear(uid_t uid, const char *reason, enum worker_end end, void *userdata)
{
    struct heard *h = userdata;

    h->n++;
    h->uid = uid;
    snprintf(h->reason, sizeof(h->reason), "%s", reason);
}

static void the_kernel_says_whose_end_it_is(void **state)
{
    char dir[] = "/tmp/residentd-report.XXXXXX", worker[64], folder[64];
    _cleanup_(worker_reports_freep) struct worker_reports *reports = NULL;
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct heard heard = {.n = 0};
    sd_event *event = NULL;

    assert_non_null(mkdtemp(dir));
    snprintf(worker, sizeof(worker), "%s/worker", dir);
    snprintf(folder, sizeof(folder), "%s/daemon", dir);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/report", folder);
    assert_int_equal(sd_event_new(&event), 0);
    /* The folder is who set the place up's. */
    assert_int_equal(worker_reports_new(event, worker, hear, &heard, &reports), -ENOENT);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(worker_reports_new(event, worker, hear, &heard, &reports), 0);
    /* A second daemon takes the name over. */
    reports = worker_reports_free(reports);
    assert_int_equal(worker_reports_new(event, worker, hear, &heard, &reports), 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(send(fd, "nonsense", 8, 0), 8);
    assert_int_equal(send(fd, "signal killed BUS", 17, 0), 17);
    for (int i = 0; i < 2; i++)
        assert_true(sd_event_run(event, 1000000) >= 0);
    assert_int_equal(heard.n, 1);
    assert_int_equal(heard.uid, geteuid());
    assert_string_equal(heard.reason, "the worker was killed by signal BUS");

    reports = worker_reports_free(reports);
    sd_event_unref(event);
    unlink(address.sun_path);
    rmdir(folder);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_is_a_sentence),
        cmocka_unit_test(what_systemd_would_not_say_is_refused),
        cmocka_unit_test(the_kernel_says_whose_end_it_is),
    };

    return cmocka_run_group_tests_name("daemon/worker-report", tests, NULL, NULL);
}
