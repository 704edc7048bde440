/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/pagecache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include <cmocka.h>

#define PAGES 64

/* How many of the file's pages are cached. */
static size_t n_cached(int fd)
{
    unsigned char present[PAGES];
    void *at = mmap(NULL, PAGES * 4096, PROT_READ, MAP_SHARED, fd, 0);
    size_t n = 0;

    assert_ptr_not_equal(at, MAP_FAILED);
    assert_int_equal(mincore(at, PAGES * 4096, present), 0);
    munmap(at, PAGES * 4096);
    for (size_t i = 0; i < PAGES; i++)
        n += present[i] & 1;
    return n;
}

static int written_file(void)
{
    static const char content[PAGES * 4096] = "not a hole";
    char path[] = "pagecache-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(write(fd, content, sizeof(content)), (ssize_t)sizeof(content));
    return fd;
}

static void forgets_what_was_just_written(void **state)
{
    int fd = written_file();
    struct statfs fs;

    assert_int_equal(fstatfs(fd, &fs), 0);
    if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) /* the cache is the file */
        skip();
    assert_int_equal(n_cached(fd), PAGES);
    assert_int_equal(pagecache_drop(fd), 0);
    assert_int_equal(n_cached(fd), 0);
    close(fd);
}

static void leaves_what_is_mapped(void **state)
{
    int fd = written_file();
    char *at = mmap(NULL, PAGES * 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);

    assert_ptr_not_equal(at, MAP_FAILED);
    assert_int_equal(pagecache_drop(fd), 0);
    assert_int_equal(n_cached(fd), PAGES);
    assert_string_equal(at, "not a hole");
    munmap(at, PAGES * 4096);
    close(fd);
}

static void refuses_what_is_no_file(void **state)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pagecache_drop(fds[0]), -ESPIPE);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forgets_what_was_just_written),
        cmocka_unit_test(leaves_what_is_mapped),
        cmocka_unit_test(refuses_what_is_no_file),
    };

    return cmocka_run_group_tests_name("pagecache", tests, NULL, NULL);
}
