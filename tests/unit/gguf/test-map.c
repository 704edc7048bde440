/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mapping of files. What the kernel did is read from /proc/self/smaps, not believed.
 */
#include "engine/gguf/map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/memlock.h"
#include "tests/model-writer/model_writer.h"

#define HUGE_PAGE (2u << 20)

/* "Rss", "Locked" … of the mapping that begins at @start, in bytes; UINT64_MAX when there is none. */
static uint64_t smaps(const void *start, const char *field)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/smaps", "re");
    bool ours = false;
    char line[512];

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        uint64_t low, high, kib;
        char name[64];

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &low, &high) == 2)
            ours = low == (uint64_t)(uintptr_t)start;
        else if (ours && sscanf(line, "%63[^:]: %" SCNu64 " kB", name, &kib) == 2 && strcmp(name, field) == 0)
            return kib * 1024;
    }
    return UINT64_MAX;
}

static int file_of(uint64_t n_bytes)
{
    int fd = memfd_create("map", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    for (uint64_t at = 0; at < n_bytes; at += 4096) {
        uint64_t n = n_bytes - at < 4096 ? n_bytes - at : 4096;
        char page[4096];

        memset(page, (int)(at / 4096 % 251 + 1), sizeof(page));
        assert_int_equal(write(fd, page, n), n);
    }
    return fd;
}

static void maps_whole_files_at_aligned_addresses(void **state)
{
    static const uint64_t sizes[] = {1, 4095, 4096, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 1};
    int fds[6];
    struct gguf_map *m = NULL;
    const struct gguf_part *parts;
    uint64_t sum = 0;
    size_t n;

    for (size_t i = 0; i < 6; i++)
        fds[i] = file_of(sizes[i]);
    assert_int_equal(gguf_map(fds, 6, GGUF_MAP_HUGE, &m, NULL), 0);
    for (size_t i = 0; i < 6; i++)
        close(fds[i]);
    parts = gguf_map_parts(m, &n);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < 6; i++) {
        const uint8_t *data = parts[i].data;

        assert_int_equal((uintptr_t)data % HUGE_PAGE, 0);
        assert_int_equal(parts[i].n_bytes, sizes[i]);
        assert_int_equal(data[0], 1);
        assert_int_equal(data[sizes[i] - 1], (sizes[i] - 1) / 4096 % 251 + 1);
        /* Nothing of the room for aligning is left behind the file. */
        assert_int_equal(smaps(data, "Size"), (sizes[i] + 4095) / 4096 * 4096);
        sum += sizes[i];
    }
    assert_int_equal(gguf_map_bytes(m), sum);
    assert_int_equal(gguf_map_bytes_locked(m), 0);
    gguf_unmap(m);
}

static void populates(void **state)
{
    _cleanup_close_ int fd = file_of(3 * HUGE_PAGE);
    struct gguf_map *m = NULL;
    const struct gguf_part *parts;
    size_t n;

    assert_int_equal(gguf_map(&fd, 1, 0, &m, NULL), 0);
    parts = gguf_map_parts(m, &n);
    assert_int_equal(smaps(parts[0].data, "Rss"), 0);
    gguf_unmap(m);
    assert_int_equal(gguf_map(&fd, 1, GGUF_MAP_POPULATE, &m, NULL), 0);
    parts = gguf_map_parts(m, &n);
    assert_int_equal(smaps(parts[0].data, "Rss"), 3 * HUGE_PAGE);
    gguf_unmap(m);
}

static void maps_a_sealed_memfd(void **state)
{
    _cleanup_close_ int fd = file_of(10000);
    struct gguf_map *m = NULL;
    size_t n;

    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    assert_int_equal(gguf_map(&fd, 1, GGUF_MAP_POPULATE, &m, NULL), 0);
    assert_int_equal(((const uint8_t *)gguf_map_parts(m, &n)->data)[9999], 3);
    gguf_unmap(m);
}

/* Neither the limit nor a capability may allow it. */
static bool locking_works(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool works;

    assert_ptr_not_equal(page, MAP_FAILED);
    *(volatile char *)page = 1; /* an untouched one is the kernel's zero page, which no figure counts */
    /* Another protection keeps it a mapping of its own in smaps. */
    assert_int_equal(mprotect(page, 4096, PROT_READ), 0);
    works = memlock(page, 4096) == 0 && smaps(page, "Locked") == 4096;
    munmap(page, 4096);
    return works;
}

static void locks_what_the_limit_allows(void **state)
{
    _cleanup_close_ int fd = file_of(65536);
    struct gguf_map *m = NULL;
    struct fault fault = {0};
    struct rlimit limit;
    size_t n;

    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    if (limit.rlim_cur < 2 * 65536 || !locking_works())
        skip();
    assert_int_equal(gguf_map(&fd, 1, GGUF_MAP_LOCK, &m, &fault), 0);
    assert_int_equal(gguf_map_bytes_locked(m), 65536);
    assert_int_equal(smaps(gguf_map_parts(m, &n)->data, "Locked"), 65536);
    gguf_unmap(m);
    /* Its first half, and of the second nothing is left in memory. */
    assert_int_equal(gguf_map(&fd, 1, GGUF_MAP_SMALL, &m, &fault), 0);
    assert_int_equal(gguf_map_lock(m, 0, 0, 32768, &fault), 0);
    assert_int_equal(gguf_map_bytes_locked(m), 32768);
    assert_int_equal(((const uint8_t *)gguf_map_parts(m, &n)->data)[65535], 16);
    assert_true(smaps((const uint8_t *)gguf_map_parts(m, &n)->data + 32768, "Rss") > 0);
    gguf_map_forget(m, 0, 32768, 32768);
    assert_int_equal(smaps(gguf_map_parts(m, &n)->data, "Locked"), 32768);
    assert_int_equal(smaps((const uint8_t *)gguf_map_parts(m, &n)->data + 32768, "Rss"), 0);
    gguf_unmap(m);
}

/* Needs a process without CAP_IPC_LOCK: a child that is somebody else. */
static void a_refused_lock_says_what_to_change(void **state)
{
    _cleanup_close_ int fd = file_of(65536);
    int status;
    pid_t pid;

    if (!locking_works())
        skip();
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
        struct gguf_map *m = NULL;
        struct fault fault = {0};

        if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || (geteuid() == 0 && setuid(65534) < 0))
            _exit(1);
        if (gguf_map(&fd, 1, GGUF_MAP_LOCK, &m, &fault) >= 0 || m)
            _exit(2);
        if (fault.kind != FAULT_MODEL_UNAVAILABLE ||
            !strstr(fault.reason, "cannot lock the model's 65536 bytes in memory: RLIMIT_MEMLOCK is 4096 bytes and the "
                                  "process does not have CAP_IPC_LOCK") ||
            !strstr(fault.reason, "LimitMEMLOCK=infinity") || !strstr(fault.reason, "AmbientCapabilities=CAP_IPC_LOCK"))
            _exit(3);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void refuses_what_is_no_file(void **state)
{
    _cleanup_close_ int empty = memfd_create("empty", MFD_CLOEXEC);
    _cleanup_close_ int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int device = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int good = file_of(10);
    int closed = -EBADF, second[2] = {good, empty};
    struct gguf_map *m = NULL;
    struct fault fault = {0};

    assert_int_equal(gguf_map(&empty, 1, 0, &m, &fault), -EINVAL);
    assert_string_equal(fault.reason, "file 1 of 1 is empty");
    assert_int_equal(gguf_map(&folder, 1, 0, &m, &fault), -EINVAL);
    assert_string_equal(fault.reason, "file 1 of 1 is no regular file");
    assert_int_equal(gguf_map(&device, 1, 0, &m, &fault), -EINVAL);
    assert_int_equal(gguf_map(second, 2, 0, &m, &fault), -EINVAL);
    assert_string_equal(fault.reason, "file 2 of 2 is empty");
    assert_int_equal(gguf_map(&closed, 1, 0, &m, &fault), -EBADF);
    assert_int_equal(gguf_map(&good, 0, 0, &m, &fault), -EINVAL);
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_whole_files_at_aligned_addresses),
        cmocka_unit_test(populates),
        cmocka_unit_test(maps_a_sealed_memfd),
        cmocka_unit_test(locks_what_the_limit_allows),
        cmocka_unit_test(a_refused_lock_says_what_to_change),
        cmocka_unit_test(refuses_what_is_no_file),
    };

    return cmocka_run_group_tests_name("gguf/map", tests, NULL, NULL);
}
