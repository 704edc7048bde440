/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/subuid.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int names(const char *name, uid_t *ret, void *userdata)
{
    if (strcmp(name, "alice") == 0)
        *ret = 1000;
    else if (strcmp(name, "bob") == 0)
        *ret = 1001;
    else if (strcmp(name, "unreachable") == 0)
        return -EIO;
    else
        return -ESRCH;
    return 0;
}

static int ask(const char *content, uid_t uid, uid_t *ret)
{
    char path[] = "/tmp/residentd-subuid.XXXXXX";
    int fd = mkstemp(path), r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
    r = subuid_owner(path, uid, names, NULL, ret);
    unlink(path);
    return r;
}

static void expect_owner(const char *content, uid_t uid, uid_t owner)
{
    uid_t found = (uid_t)-1;

    assert_int_equal(ask(content, uid, &found), 0);
    assert_int_equal(found, owner);
}

static void expect(const char *content, uid_t uid, int result)
{
    uid_t found = 7;

    assert_int_equal(ask(content, uid, &found), result);
    assert_int_equal(found, 7);
}

static void ranges_begin_and_end_where_they_say(void **state)
{
    static const char *const content = "alice:100000:65536\nbob:165536:65536\n";

    expect(content, 99999, SUBUID_NOBODYS);
    expect_owner(content, 100000, 1000);
    expect_owner(content, 165535, 1000);
    expect_owner(content, 165536, 1001);
    expect_owner(content, 231071, 1001);
    expect(content, 231072, SUBUID_NOBODYS);
    /* The end of a range need not be a uid. */
    expect_owner("alice:4294967000:4294967295", 4294967294, 1000);
    expect("alice:5:0\n", 5, SUBUID_NOBODYS);
}

static void owners_are_names_or_numbers(void **state)
{
    expect_owner("1234:100000:10\n", 100001, 1234);
    expect_owner("alice:1:1\nalice:100000:10", 100009, 1000);
    expect("nobody-knows:100000:10\n", 100001, SUBUID_NOBODYS);
    expect("unreachable:100000:10\n", 100001, -EIO);
}

static void range_of_two_users_is_nobodys_to_use(void **state)
{
    expect("alice:100000:10\nbob:100005:10\n", 100007, -ENOTUNIQ);
    expect_owner("alice:100000:10\nbob:100005:10\n", 100004, 1000);
    /* The same user twice is one user. */
    expect_owner("alice:100000:10\n1000:100005:10\n", 100007, 1000);
}

static void what_is_no_range_is_passed_over(void **state)
{
    static const char *const lines[] = {
        "",          "alice",          "alice:1",         "alice::",       "alice:1:2:3", ":1:100000",
        "alice:x:5", "alice:+1:99999", "alice: 1:999999", "alice:0x1:9999", "alice:1:-1",
        "alice:18446744073709551617:9", "alice:1:99999999999",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char content[128];

        snprintf(content, sizeof(content), "%s\nbob:50:1\n", lines[i]);
        expect(content, 2, SUBUID_NOBODYS);
        expect_owner(content, 50, 1001);
    }
}

static void missing_file_has_no_ranges(void **state)
{
    uid_t found;

    assert_int_equal(subuid_owner("/nowhere/subuid", 5, names, NULL, &found), SUBUID_NOBODYS);
    assert_int_equal(subuid_owner("/etc/passwd/subuid", 5, names, NULL, &found), -ENOTDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_begin_and_end_where_they_say),
        cmocka_unit_test(owners_are_names_or_numbers),
        cmocka_unit_test(range_of_two_users_is_nobodys_to_use),
        cmocka_unit_test(what_is_no_range_is_passed_over),
        cmocka_unit_test(missing_file_has_no_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
