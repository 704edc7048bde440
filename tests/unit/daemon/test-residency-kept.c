/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that an earlier daemon had loaded: taken as they are if they are the same, and never taken if they are not. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/daemon/residency-bed.h"

#define FILE_BYTES 100000

static int setup(void **state)
{
    return bed_setup(state, FILE_BYTES);
}

static struct residency *load_small(struct bed *bed, struct residency_options options, struct bed_outcome *ret)
{
    options.huge = POLICY_HUGE_OFF;
    return bed_load(bed, options, ret);
}

static struct residency_identity load_first(struct bed *bed, enum policy_ram ram, int *ret_copy)
{
    struct residency_identity identity;
    struct residency *r;
    struct bed_outcome o;

    r = load_small(bed, (struct residency_options){.ram = ram}, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_n_parts(r), 1);
    residency_identity(r, 0, &identity);
    assert_int_equal(identity.n_bytes, FILE_BYTES);
    if (ret_copy)
        *ret_copy = fcntl(residency_copy_fd(r, 0), F_DUPFD_CLOEXEC, 0);
    else
        assert_int_equal(residency_copy_fd(r, 0), -EBADF);
    residency_free(r);
    return identity;
}

static void refuses(struct bed *bed, struct residency_options options, const char *why)
{
    struct bed_outcome o;
    struct residency *r = load_small(bed, options, &o);

    assert_false(o.loaded);
    if (!strstr(o.why, why))
        fail_msg("\"%s\" does not say \"%s\"", o.why, why);
    residency_free(r);
}

static void need_locking(void)
{
    if (!bed_may_lock(2 * FILE_BYTES))
        skip();
}

static void the_same_file_is_taken_without_reading_it(void **state)
{
    /* A digest that no file has: what was checked once is not checked again. */
    static const char digest[] = "0000000000000000000000000000000000000000000000000000000000000000";
    struct bed *bed = *state;
    struct residency_identity identity = load_first(bed, POLICY_RAM_MAP, NULL);
    struct bed_outcome o;
    struct residency *r = load_small(
        bed, (struct residency_options){.ram = POLICY_RAM_MAP, .file.sha256 = digest, .kept = &identity, .n_kept = 1}, &o);

    assert_true(o.loaded);
    residency_free(r);
    refuses(bed, (struct residency_options){.ram = POLICY_RAM_MAP, .file.sha256 = digest}, "SHA-256");
}

static void a_file_that_was_touched_is_not_taken(void **state)
{
    struct bed *bed = *state;
    struct residency_identity identity = load_first(bed, POLICY_RAM_MAP, NULL), other;
    const struct residency_options options = {.ram = POLICY_RAM_MAP, .kept = &other, .n_kept = 1};

    for (int i = 0; i < 5; i++) {
        other = identity;
        other.device += i == 0;
        other.inode += i == 1;
        other.n_bytes += i == 2;
        other.mtime_ns += i == 3;
        other.ctime_ns += i == 4;
        refuses(bed, options, "is not the file that was loaded");
    }
    other = identity;
    bed_write_file(bed, 'y');
    refuses(bed, options, "is not the file that was loaded");
}

static void another_number_of_files_is_not_taken(void **state)
{
    struct bed *bed = *state;
    struct residency_identity identity[2] = {load_first(bed, POLICY_RAM_MAP, NULL)};

    identity[1] = identity[0];
    refuses(bed, (struct residency_options){.ram = POLICY_RAM_MAP, .kept = identity, .n_kept = 2},
            "another number of files");
}

static void a_copy_is_taken_without_its_file(void **state)
{
    struct bed *bed = *state;
    struct residency_identity identity;
    struct residency *r;
    struct bed_outcome o;
    struct stat st;
    int copy;

    need_locking();
    identity = load_first(bed, POLICY_RAM_COPY, &copy);
    assert_int_equal(unlink(bed->path), 0);
    r = load_small(bed, (struct residency_options){.ram = POLICY_RAM_COPY, .kept = &identity, .kept_fds = &copy, .n_kept = 1},
             &o);
    assert_string_equal(o.why, "");
    assert_int_equal(fstat(residency_copy_fd(r, 0), &st), 0);
    assert_int_equal(st.st_ino, identity.inode);
    assert_true(residency_locked_bytes(r) >= FILE_BYTES);
    residency_free(r);
}

static void a_copy_that_could_be_changed_is_not_taken(void **state)
{
    struct bed *bed = *state;
    struct residency_identity identity = load_first(bed, POLICY_RAM_MAP, NULL);
    int copy = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(copy >= 0);
    assert_int_equal(ftruncate(copy, FILE_BYTES), 0);
    assert_int_equal(fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    refuses(bed,
            (struct residency_options){.ram = POLICY_RAM_COPY, .kept = &identity, .kept_fds = &copy, .n_kept = 1},
            "is not sealed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, bed_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_same_file_is_taken_without_reading_it), TEST(a_file_that_was_touched_is_not_taken),
        TEST(another_number_of_files_is_not_taken),      TEST(a_copy_is_taken_without_its_file),
        TEST(a_copy_that_could_be_changed_is_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
