/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/digest.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_BYTES 1000000

/* @n bytes 'a' from a file of its own. */
static int file_of(size_t n)
{
    int fd = memfd_create("digest", MFD_CLOEXEC);
    char *bytes = malloc(n);

    assert_true(fd >= 0);
    assert_non_null(bytes);
    memset(bytes, 'a', n);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    free(bytes);
    return fd;
}

static void follows_what_arrives(void **state)
{
    char text[SHA256_TEXT_MAX];
    int fd = file_of(FILE_BYTES);
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    assert_int_equal(digest_file(d, fd, FILE_BYTES), 0);
    close(fd);
    for (uint64_t at = 0; at < FILE_BYTES; at += 77777)
        digest_advance(d, at);
    assert_int_equal(digest_end(d, text), 0);
    assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    digest_free(d);
}

static void sums_several_files_as_one(void **state)
{
    static const size_t sizes[] = {1, 63, 399936, 600000}; /* a million in all */
    char text[SHA256_TEXT_MAX];
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    for (size_t i = 0; i < 4; i++) {
        int fd = file_of(sizes[i]);

        assert_int_equal(digest_file(d, fd, sizes[i]), 0);
        close(fd);
    }
    assert_int_equal(digest_end(d, text), 0);
    assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    digest_free(d);
}

static void a_shorter_file_is_an_error(void **state)
{
    char text[SHA256_TEXT_MAX] = "untouched";
    int fd = file_of(FILE_BYTES);
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    assert_int_equal(digest_file(d, fd, FILE_BYTES + 1), 0);
    digest_advance(d, FILE_BYTES + 1);
    assert_int_equal(digest_end(d, text), -ENODATA);
    assert_string_equal(text, "untouched");
    digest_free(d);
    close(fd);
}

static uint8_t *mapping_of(int fd, size_t n)
{
    uint8_t *at = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);

    assert_ptr_not_equal(at, MAP_FAILED);
    return at;
}

static void sums_what_is_mapped_where_it_lies(void **state)
{
    static const size_t sizes[] = {300000, 1, 699999};
    char text[SHA256_TEXT_MAX];
    uint8_t *maps[3];
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    for (size_t i = 0; i < 3; i++) {
        int fd = file_of(sizes[i]);

        maps[i] = mapping_of(fd, sizes[i]);
        close(fd);
        assert_int_equal(digest_mapping(d, maps[i], sizes[i]), 0);
        digest_advance(d, sizes[i] / 2);
        assert_int_equal(digest_wait(d, sizes[i] / 2), 0);
    }
    assert_int_equal(digest_end(d, text), 0);
    assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    digest_free(d);
    for (size_t i = 0; i < 3; i++)
        munmap(maps[i], sizes[i]);
}

static void a_mapped_file_that_is_cut_short_is_an_error(void **state)
{
    char text[SHA256_TEXT_MAX] = "untouched";
    int fd = file_of(FILE_BYTES);
    uint8_t *at = mapping_of(fd, FILE_BYTES);
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    assert_int_equal(digest_mapping(d, at, FILE_BYTES), 0);
    digest_advance(d, FILE_BYTES / 2);
    assert_int_equal(digest_wait(d, FILE_BYTES / 2), 0);
    assert_int_equal(ftruncate(fd, FILE_BYTES / 2), 0);
    assert_int_equal(digest_end(d, text), -EFAULT);
    assert_string_equal(text, "untouched");
    digest_free(d);
    munmap(at, FILE_BYTES);
    close(fd);
}

/* Of a mapping that nobody has looked at, each page is mapped by being read. */
static uint64_t resident_bytes(const void *at)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    unsigned long low = 0, kib = 0;
    char line[512];

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        (void)sscanf(line, "%lx-", &low);
        if (low == (uintptr_t)at && sscanf(line, "Rss: %lu kB", &kib) == 1)
            break;
    }
    fclose(f);
    return kib * 1024;
}

static void a_reader_reads_a_byte_of_each_page(void **state)
{
    int fd = file_of(FILE_BYTES);
    uint8_t *at = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    uint64_t whole = (FILE_BYTES + 4095) / 4096 * 4096;
    struct digest *d;

    assert_true(at != MAP_FAILED);
    (void)madvise(at, FILE_BYTES, MADV_RANDOM);
    assert_int_equal(resident_bytes(at), 0);
    assert_int_equal(digest_new_reader(&d), 0);
    assert_int_equal(digest_mapping(d, at, FILE_BYTES), 0);
    digest_advance(d, FILE_BYTES);
    assert_int_equal(digest_wait(d, UINT64_MAX), 0);
    assert_int_equal(resident_bytes(at), whole);
    digest_free(d);
    /* Cut short, it is an error as of a sum. */
    assert_int_equal(madvise(at, FILE_BYTES, MADV_DONTNEED), 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(digest_new_reader(&d), 0);
    assert_int_equal(digest_mapping(d, at, FILE_BYTES), 0);
    digest_advance(d, FILE_BYTES);
    assert_int_equal(digest_wait(d, UINT64_MAX), -EFAULT);
    digest_free(d);
    munmap(at, FILE_BYTES);
    close(fd);
}

static void a_mapping_may_go_when_it_was_stopped(void **state)
{
    int fd = file_of(FILE_BYTES);
    uint8_t *at = mapping_of(fd, FILE_BYTES);
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    assert_int_equal(digest_mapping(d, at, FILE_BYTES), 0);
    digest_advance(d, FILE_BYTES);
    digest_stop(d);
    munmap(at, FILE_BYTES);
    digest_free(d);
    close(fd);
}

static void may_be_left_at_any_time(void **state)
{
    int fd = file_of(FILE_BYTES);
    struct digest *d;

    assert_int_equal(digest_new(&d), 0);
    digest_free(d);
    assert_int_equal(digest_new(&d), 0);
    assert_int_equal(digest_file(d, fd, FILE_BYTES), 0);
    digest_advance(d, FILE_BYTES);
    digest_free(d);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_what_arrives),
        cmocka_unit_test(sums_several_files_as_one),
        cmocka_unit_test(a_shorter_file_is_an_error),
        cmocka_unit_test(sums_what_is_mapped_where_it_lies),
        cmocka_unit_test(a_mapped_file_that_is_cut_short_is_an_error),
        cmocka_unit_test(a_reader_reads_a_byte_of_each_page),
        cmocka_unit_test(a_mapping_may_go_when_it_was_stopped),
        cmocka_unit_test(may_be_left_at_any_time),
    };

    return cmocka_run_group_tests_name("digest", tests, NULL, NULL);
}
