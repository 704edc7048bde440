/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading a file in: the same bytes by each way, and what happens where a way is refused or the file ends early. */
#include "daemon/readin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cmocka.h>

/* Five blocks more than are under way at once would be read in any order; the last one is no whole page. */
#define FILE_BYTES (READIN_BLOCK_BYTES * 6 + 12345)
#define MEMORY_BYTES ((FILE_BYTES + 4095) / 4096 * 4096)

struct bed {
    int fd;
    uint8_t *content, *to;
    uint64_t prepared, arrived; /* by the callbacks */
    uint64_t stop_at;
};

static uint8_t *memory(size_t n)
{
    void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(at, MAP_FAILED);
    return at;
}

static int setup(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    char path[] = "readin-XXXXXX";
    uint64_t random = 7;

    assert_non_null(bed);
    bed->content = memory(MEMORY_BYTES);
    bed->to = memory(MEMORY_BYTES);
    for (size_t i = 0; i < FILE_BYTES / 8; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        memcpy(bed->content + i * 8, &random, 8);
    }
    bed->fd = mkstemp(path);
    assert_true(bed->fd >= 0);
    unlink(path);
    for (uint64_t at = 0; at < FILE_BYTES;) {
        ssize_t n = write(bed->fd, bed->content + at, FILE_BYTES - at);

        assert_true(n > 0);
        at += (uint64_t)n;
    }
    bed->stop_at = UINT64_MAX;
    *state = bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    munmap(bed->content, MEMORY_BYTES);
    munmap(bed->to, MEMORY_BYTES);
    close(bed->fd);
    free(bed);
    return 0;
}

static void on_prepare(uint64_t at, uint64_t n, void *userdata)
{
    struct bed *bed = userdata;

    assert_int_equal(at, bed->prepared);
    assert_true(at >= bed->arrived);
    bed->prepared += n;
}

static int on_arrived(uint64_t n_bytes, void *userdata)
{
    struct bed *bed = userdata;

    assert_true(n_bytes > bed->arrived && n_bytes <= bed->prepared);
    /* What is said to be there is there. */
    assert_memory_equal(bed->to + bed->arrived, bed->content + bed->arrived, n_bytes - bed->arrived);
    bed->arrived = n_bytes;
    return n_bytes >= bed->stop_at ? -ECANCELED : 0;
}

static int run(struct bed *bed, enum readin_way best, enum readin_way *ret_way, uint64_t *reterr_at)
{
    const struct readin r = {.fd = bed->fd,
                             .n_bytes = FILE_BYTES,
                             .to = bed->to,
                             .best = best,
                             .prepare = on_prepare,
                             .arrived = on_arrived,
                             .userdata = bed};

    return readin_run(&r, ret_way, reterr_at);
}

static void reads_all_by(struct bed *bed, enum readin_way best)
{
    enum readin_way way;

    assert_int_equal(run(bed, best, &way, NULL), 0);
    assert_true(way >= best);
    assert_int_equal(bed->prepared, FILE_BYTES);
    assert_int_equal(bed->arrived, FILE_BYTES);
    for (size_t i = FILE_BYTES; i < MEMORY_BYTES; i++)
        assert_int_equal(bed->to[i], 0);
}

static void reads_by_the_ring(void **state)
{
    reads_all_by(*state, READIN_RING);
}

static void reads_past_the_page_cache(void **state)
{
    reads_all_by(*state, READIN_DIRECT);
}

static void reads_through_the_page_cache(void **state)
{
    enum readin_way way;

    assert_int_equal(run(*state, READIN_BUFFERED, &way, NULL), 0);
    assert_int_equal(way, READIN_BUFFERED);
}

static void a_shorter_file_is_an_error(void **state)
{
    static const enum readin_way ways[] = {READIN_RING, READIN_DIRECT, READIN_BUFFERED};
    struct bed *bed = *state;
    const uint64_t n = READIN_BLOCK_BYTES * 4 + 100;

    assert_int_equal(ftruncate(bed->fd, (off_t)n), 0);
    for (size_t i = 0; i < 3; i++) {
        uint64_t at = 0;

        bed->prepared = bed->arrived = 0;
        assert_int_equal(run(bed, ways[i], NULL, &at), -ENODATA);
        assert_int_equal(at, n);
        assert_int_equal(bed->arrived, READIN_BLOCK_BYTES * 4);
    }
}

static void stops_when_it_is_told(void **state)
{
    struct bed *bed = *state;

    bed->stop_at = READIN_BLOCK_BYTES * 2;
    assert_int_equal(run(bed, READIN_RING, NULL, NULL), -ECANCELED);
    assert_int_equal(bed->arrived, READIN_BLOCK_BYTES * 2);
}

/* A file system without O_DIRECT. */
static void reads_where_nothing_can_be_read_directly(void **state)
{
    struct bed *bed = *state;
    int fd = memfd_create("readin", MFD_CLOEXEC), mine = bed->fd;
    enum readin_way way;

    assert_true(fd >= 0);
    for (uint64_t at = 0; at < FILE_BYTES;) {
        ssize_t n = write(fd, bed->content + at, FILE_BYTES - at);

        assert_true(n > 0);
        at += (uint64_t)n;
    }
    bed->fd = fd;
    assert_int_equal(run(bed, READIN_RING, &way, NULL), 0);
    assert_int_equal(bed->arrived, FILE_BYTES);
    close(fd);
    bed->fd = mine;
}

/* As a container's filter does it. It holds for the calling thread only, and for good. */
static void refuse_rings(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};

    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void *read_refused(void *userdata)
{
    static enum readin_way const best = READIN_RING;
    struct bed *bed = userdata;
    enum readin_way *way = malloc(sizeof(*way));

    refuse_rings();
    if (run(bed, best, way, NULL) < 0)
        *way = READIN_RING;
    return way;
}

static void reads_where_rings_are_refused(void **state)
{
    struct bed *bed = *state;
    pthread_t thread;
    void *way;

    assert_int_equal(pthread_create(&thread, NULL, read_refused, bed), 0);
    assert_int_equal(pthread_join(thread, &way), 0);
    assert_int_not_equal(*(enum readin_way *)way, READIN_RING);
    assert_int_equal(bed->arrived, FILE_BYTES);
    free(way);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_by_the_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_past_the_page_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_through_the_page_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shorter_file_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(stops_when_it_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_where_nothing_can_be_read_directly, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_where_rings_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("readin", tests, NULL, NULL);
}
