/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/calendar.h"

struct fixture {
    char dir[64];
    char path[160];
    sd_event *event;
    struct log log;
    struct ledger *ledger;
    int64_t day, hour;
    unsigned n_recorded, n_new, n_loaded;
    struct ledger_day loaded[8];
    size_t n_days;
};

static void on_loaded(const struct ledger_day *list, size_t n, void *userdata)
{
    struct fixture *f = userdata;

    assert_true(n <= 8);
    if (n > 0)
        memcpy(f->loaded, list, n * sizeof(*list));
    f->n_days = n;
    f->n_loaded++;
}

static void on_recorded(bool is_new, void *userdata)
{
    ((struct fixture *)userdata)->n_new += is_new;
    ((struct fixture *)userdata)->n_recorded++;
}

static void start(struct fixture *f, const char *dir)
{
    const struct ledger_options options = {.dir = dir, .loaded = on_loaded, .userdata = f, .log = &f->log};

    assert_int_equal(ledger_new(f->event, &options, &f->ledger), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/residentd-ledger.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/" LEDGER_FILE_NAME, f->dir);
    assert_true(sd_event_new(&f->event) >= 0);
    f->log = (struct log){.level_max = LOG_EMERG, .fd = STDERR_FILENO};
    f->day = calendar_day(time(NULL));
    f->hour = calendar_hour(time(NULL));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[96];

    ledger_free(f->ledger);
    sd_event_unref(f->event);
    chmod(f->dir, 0700);
    snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* Lets the loop run until @n were recorded, at most 20 s. */
static void wait_recorded(struct fixture *f, unsigned n)
{
    for (int i = 0; i < 200 && f->n_recorded < n; i++)
        assert_true(sd_event_run(f->event, 100000) >= 0);
    assert_int_equal(f->n_recorded, n);
}

static void wait_state(struct fixture *f, enum ledger_state state, uint64_t n_unwritten)
{
    struct ledger_status status;

    for (int i = 0; i < 200; i++) {
        ledger_status(f->ledger, &status);
        if (status.state == state && status.n_unwritten == n_unwritten)
            return;
        assert_true(sd_event_run(f->event, 100000) >= 0);
    }
    fail_msg("the ledger is %s (%s)", ledger_state_to_string(status.state), status.reason);
}

static struct ledger_entry entry(const struct fixture *f, uint64_t request, uid_t uid)
{
    return (struct ledger_entry){
        .epoch = 7, .request = request, .uid = uid, .model = "m", .day = f->day, .hour = f->hour,
        .prompt_tokens = 10, .cached_tokens = 4, .output_tokens = 3, .duration_us = 500};
}

static void record(struct fixture *f, const struct ledger_entry *e)
{
    struct ledger_record *r;

    assert_int_equal(ledger_record(f->ledger, e, on_recorded, f, &r), 0);
}

static int64_t ask(const struct fixture *f, const char *text)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    int64_t n;

    assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return n;
}

static void what_is_recorded_is_in_the_file_when_it_is_said(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000), other = entry(f, 2, 1000);

    start(f, f->dir);
    assert_int_equal(f->n_loaded, 1);
    assert_int_equal(f->n_days, 0);
    record(f, &e);
    assert_int_equal(f->n_recorded, 0); /* never from inside */
    wait_recorded(f, 1);
    assert_int_equal(ask(f, "SELECT requests FROM usage WHERE uid = 1000 AND model = 'm'"), 1);
    record(f, &other);
    wait_recorded(f, 2);
    assert_int_equal(ask(f, "SELECT count(*) FROM usage"), 1);
    assert_int_equal(ask(f, "SELECT requests FROM usage"), 2);
    assert_int_equal(ask(f, "SELECT prompt_tokens FROM usage"), 20);
    assert_int_equal(ask(f, "SELECT cached_tokens FROM usage"), 8);
    assert_int_equal(ask(f, "SELECT output_tokens FROM usage"), 6);
    assert_int_equal(ask(f, "SELECT duration_us FROM usage"), 1000);
}

static void same_request_counts_once(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000), later = entry(f, 1, 1000);

    later.epoch = 8; /* of another daemon: another request */
    start(f, f->dir);
    record(f, &e);
    record(f, &e);
    record(f, &later);
    wait_recorded(f, 3);
    assert_int_equal(ask(f, "SELECT requests FROM usage"), 2);
    assert_int_equal(ask(f, "SELECT count(*) FROM recorded"), 2);
    /* And it is said which one was there already. */
    assert_int_equal(f->n_new, 2);
}

static void day_is_there_after_a_restart(void **state)
{
    struct fixture *f = *state;
    const gid_t groups[] = {50, 60};
    struct ledger_entry a = entry(f, 1, 1000), b = entry(f, 2, 1001), old = entry(f, 3, 1000);

    a.groups = groups;
    a.n_groups = 2;
    b.groups = groups;
    b.n_groups = 1;
    old.day -= 86400;
    old.hour = old.day;
    start(f, f->dir);
    record(f, &a);
    record(f, &b);
    record(f, &old);
    /* Nobody waits for what waits: the end writes it. */
    f->ledger = ledger_free(f->ledger);
    assert_int_equal(f->n_recorded, 0);
    start(f, f->dir);
    assert_int_equal(f->n_loaded, 2);
    assert_int_equal(f->n_days, 4);
    assert_true(f->loaded[0].id == 1000 && f->loaded[0].tokens == 9);
    assert_true(f->loaded[1].id == 1001 && f->loaded[1].tokens == 9);
    assert_true(f->loaded[2].id == (LEDGER_GROUP | 50) && f->loaded[2].tokens == 18);
    assert_true(f->loaded[3].id == (LEDGER_GROUP | 60) && f->loaded[3].tokens == 9);
}

static void execute(sqlite3 *db, const char *text)
{
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
}

static void what_is_too_old_goes_without_a_request(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000), old = entry(f, 2, 1000);

    old.hour -= INT64_C(401) * 86400;
    start(f, f->dir);
    record(f, &e);
    record(f, &old);
    wait_recorded(f, 2);
    assert_int_equal(ask(f, "SELECT count(*) FROM usage"), 2);
    f->ledger = ledger_free(f->ledger);
    start(f, f->dir);
    for (int i = 0; i < 200 && ask(f, "SELECT count(*) FROM usage") == 2; i++)
        assert_true(sd_event_run(f->event, 100000) >= 0);
    assert_int_equal(ask(f, "SELECT count(*) FROM usage"), 1);
    assert_int_equal(ask(f, "SELECT count(*) FROM recorded"), 1);
}

/* Looking for what is old takes a lock that somebody else may have for a second. */
static void start_does_not_wait_until_what_is_old_is_gone(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000);
    struct ledger_status status;
    sqlite3 *db;

    start(f, f->dir);
    record(f, &e);
    wait_recorded(f, 1);
    f->ledger = ledger_free(f->ledger);
    assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    execute(db, "BEGIN IMMEDIATE");
    start(f, f->dir);
    ledger_status(f->ledger, &status);
    assert_string_equal(status.reason, "");
    assert_int_equal(f->n_loaded, 2);
    execute(db, "ROLLBACK");
    sqlite3_close(db);
    record(f, &e);
    wait_recorded(f, 2);
}

static void forgotten_callback_does_not_come(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000);
    struct ledger_record *r = NULL;

    start(f, f->dir);
    assert_int_equal(ledger_record(f->ledger, &e, on_recorded, f, &r), 0);
    assert_null(ledger_forget(r));
    wait_state(f, LEDGER_OK, 0);
    assert_int_equal(f->n_recorded, 0);
    assert_int_equal(ask(f, "SELECT requests FROM usage"), 1);
}

static void without_a_directory_nobody_waits(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000);
    struct ledger_status status;

    start(f, NULL);
    record(f, &e);
    assert_int_equal(f->n_recorded, 0);
    wait_recorded(f, 1);
    ledger_status(f->ledger, &status);
    assert_int_equal(status.state, LEDGER_OFF);
    assert_int_equal(status.n_lost, 0);
}

static void file_that_can_not_be_made_is_tried_again(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000);
    struct ledger_status status;
    char away[96];

    snprintf(away, sizeof(away), "%s/not-yet", f->dir);
    snprintf(f->path, sizeof(f->path), "%s/" LEDGER_FILE_NAME, away);
    start(f, away);
    ledger_status(f->ledger, &status);
    assert_int_equal(status.state, LEDGER_DEGRADED);
    assert_string_equal(status.reason, "unable to open database file");
    record(f, &e);
    wait_recorded(f, 1); /* at once: it can't be written */
    wait_state(f, LEDGER_DEGRADED, 1);
    assert_int_equal(mkdir(away, 0700), 0);
    wait_state(f, LEDGER_OK, 0);
    assert_int_equal(ask(f, "SELECT requests FROM usage"), 1);
}

static void overwrite(const struct fixture *f, off_t at, size_t n)
{
    int fd = open(f->path, O_WRONLY | O_CREAT, 0600);
    char bytes[8192];

    memset(bytes, 'x', sizeof(bytes));
    assert_true(fd >= 0 && n <= sizeof(bytes));
    assert_int_equal(pwrite(fd, bytes, n, at), (ssize_t)n);
    close(fd);
}

static void change_note(const struct fixture *f)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "INSERT INTO notes VALUES(2, 0, 'x')", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static size_t count_set_aside(const struct fixture *f)
{
    char pattern[256];
    glob_t found;
    size_t n;

    snprintf(pattern, sizeof(pattern), "%s.damaged-*Z", f->path);
    n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return n;
}

static void file_that_is_no_ledger_is_set_aside_and_that_is_said(void **state)
{
    struct fixture *f = *state;
    struct ledger_entry e = entry(f, 1, 1000);
    struct ledger_status status;

    overwrite(f, 0, 4096);
    start(f, f->dir);
    ledger_status(f->ledger, &status);
    assert_int_equal(status.state, LEDGER_DEGRADED);
    assert_non_null(strstr(status.reason, "what was used today before"));
    assert_int_equal(count_set_aside(f), 1);
    record(f, &e);
    wait_recorded(f, 1);
    wait_state(f, LEDGER_DEGRADED, 0); /* written, but the day is not whole */
    assert_int_equal(ask(f, "SELECT requests FROM usage"), 1);
    /* Also to those who ask after a restart on the same day. */
    f->ledger = ledger_free(f->ledger);
    start(f, f->dir);
    ledger_status(f->ledger, &status);
    assert_non_null(strstr(status.reason, "what was used today before"));
    assert_string_equal(status.set_aside, "");
}

static void day_goes_on_in_a_new_file_when_the_old_one_is_damaged_meanwhile(void **state)
{
    struct fixture *f = *state;
    const gid_t group = 50;
    struct ledger_entry a = entry(f, 1, 1000), b = entry(f, 2, 1000);
    struct ledger_status status;

    a.groups = b.groups = &group;
    a.n_groups = b.n_groups = 1;
    start(f, f->dir);
    record(f, &a);
    f->ledger = ledger_free(f->ledger);
    start(f, f->dir);
    overwrite(f, (ask(f, "SELECT rootpage FROM sqlite_schema WHERE name = 'usage'") - 1) * 4096, 4096);
    /* Somebody else writes, so the ledger's connection can't go on with the pages that it has in memory. */
    change_note(f);
    record(f, &b);
    wait_recorded(f, 1);
    wait_state(f, LEDGER_OK, 0);
    ledger_status(f->ledger, &status);
    assert_int_equal(count_set_aside(f), 1);
    assert_non_null(strstr(status.set_aside, ".damaged-"));
    assert_int_equal(ask(f, "SELECT sum(prompt_tokens - cached_tokens + output_tokens) FROM usage WHERE uid = 1000"), 18);
    assert_int_equal(ask(f, "SELECT sum(tokens) FROM totals WHERE gid = 50"), 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_recorded_is_in_the_file_when_it_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(same_request_counts_once, setup, teardown),
        cmocka_unit_test_setup_teardown(day_is_there_after_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_too_old_goes_without_a_request, setup, teardown),
        cmocka_unit_test_setup_teardown(start_does_not_wait_until_what_is_old_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(forgotten_callback_does_not_come, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_directory_nobody_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(file_that_can_not_be_made_is_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(file_that_is_no_ledger_is_set_aside_and_that_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(day_goes_on_in_a_new_file_when_the_old_one_is_damaged_meanwhile, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
