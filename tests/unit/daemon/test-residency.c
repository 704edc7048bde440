/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/residency.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memlock.h"
#include "daemon/smaps.h"

static void finds_the_parts_of_a_split_model(void **state)
{
    static const struct {
        const char *first;
        size_t i;
        int r;
        const char *path;
        size_t n;
    } cases[] = {
        {"/m/a.gguf", 0, 0, "/m/a.gguf", 1},
        {"/m/a-00001-of-00003.gguf", 0, 0, "/m/a-00001-of-00003.gguf", 3},
        {"/m/a-00001-of-00003.gguf", 2, 0, "/m/a-00003-of-00003.gguf", 3},
        {"/m/a-00001-of-00128.gguf", 127, 0, "/m/a-00128-of-00128.gguf", 128},
        {"/m/a-00001-of-00001.gguf", 0, 0, "/m/a-00001-of-00001.gguf", 1},
        {"/m/a-00001-of-00003.gguf", 3, -EINVAL, NULL, 0},
        {"/m/a-00002-of-00003.gguf", 0, -EINVAL, NULL, 0},
        {"/m/a-00001-of-00129.gguf", 0, -EINVAL, NULL, 0},
        {"/m/a-00001-of-00000.gguf", 0, -EINVAL, NULL, 0},
        {"/m/a-0001-of-00003.gguf", 0, 0, "/m/a-0001-of-00003.gguf", 1},
        {"/m/a-00001-of-00003.bin", 0, 0, "/m/a-00001-of-00003.bin", 1},
        {"/m/a-+0001-of-00003.gguf", 0, 0, "/m/a-+0001-of-00003.gguf", 1},
        {"-00001-of-00002.gguf", 1, 0, "-00002-of-00002.gguf", 2},
        {"", 0, 0, "", 1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *path = NULL;
        size_t n = 0;

        assert_int_equal(residency_part_path(cases[i].first, cases[i].i, &path, &n), cases[i].r);
        assert_int_equal(n, cases[i].n);
        if (cases[i].path)
            assert_string_equal(path, cases[i].path);
        else
            assert_null(path);
        free(path);
    }
}

static void says_how_to_allow_locking(void **state)
{
    struct fault fault;

    residency_lock_advice(5ull << 30, 1ull << 30, 8ull << 20, &fault);
    assert_int_equal(fault.kind, FAULT_MODEL_UNAVAILABLE);
    assert_non_null(strstr(fault.reason, "can't lock 5.0G"));
    assert_non_null(strstr(fault.reason, "RLIMIT_MEMLOCK is 8.0M"));
    assert_non_null(strstr(fault.reason, "to 6.0G or more: LimitMEMLOCK=infinity"));
    assert_non_null(strstr(fault.reason, "AmbientCapabilities=CAP_IPC_LOCK"));
    assert_non_null(strstr(fault.reason, "Or set residency.ram to \"map\""));
}

static void reads_smaps(void **state)
{
    static const char text[] = "7f0000000000-7f0000200000 r--s 00000000 fe:01 1 /m/a.gguf\n"
                               "Size:               2048 kB\n"
                               "Rss:                2048 kB\n"
                               "Pss:                1024 kB\n"
                               "FilePmdMapped:      2048 kB\n"
                               "Locked:             1024 kB\n"
                               "VmFlags: rd sh mr mw me ms lo sd \n"
                               "7f0000200000-7f0000201000 r--s 00200000 fe:01 1 /m/a.gguf\n"
                               "Size:                  4 kB\n"
                               "Rss:                   4 kB\n"
                               "VmFlags: rd sh mr mw me ms sd \n"
                               "7f0000400000-7f0000401000 r--s 00000000 fe:01 2 /m/lo\n"
                               "Rss:                   4 kB\n"
                               "VmFlags: rd lo\n";
    const struct smaps_range both = {0x7f0000000000, 0x7f0000201000}, third = {0x7f0000400000, 0x7f0000401000};
    struct smaps_figures f;
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

    assert_non_null(file);
    assert_int_equal(smaps_parse(file, &both, 1, &f), 0);
    assert_int_equal(f.size_bytes, 0x201000);
    assert_int_equal(f.rss_bytes, 0x201000);
    assert_int_equal(f.locked_bytes, 0x200000);
    assert_int_equal(f.huge_bytes, 0x200000);
    rewind(file);
    assert_int_equal(smaps_parse(file, &third, 1, &f), 0);
    assert_int_equal(f.locked_bytes, 0x1000);
    fclose(file);
}

static void believes_the_kernel(void **state)
{
    size_t n = 16 * 4096;
    char *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct smaps_range range = {(uintptr_t)at, (uintptr_t)at + n};
    struct smaps_figures f;

    assert_ptr_not_equal(at, MAP_FAILED);
    /* A mapping of its own, not merged with a neighbour. */
    assert_int_equal(mprotect(at, n, PROT_READ), 0);
    assert_int_equal(mprotect(at, n, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    assert_int_equal(smaps_read(&range, 1, &f), 0);
    assert_int_equal(f.size_bytes, n);
    assert_int_equal(f.rss_bytes, 0);
    if (memlock(at, n) < 0)
        skip();
    assert_int_equal(smaps_read(&range, 1, &f), 0);
    assert_int_equal(f.rss_bytes, n);
    assert_int_equal(f.locked_bytes, n);
    munmap(at, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_parts_of_a_split_model),
        cmocka_unit_test(says_how_to_allow_locking),
        cmocka_unit_test(reads_smaps),
        cmocka_unit_test(believes_the_kernel),
    };

    return cmocka_run_group_tests_name("residency", tests, NULL, NULL);
}
