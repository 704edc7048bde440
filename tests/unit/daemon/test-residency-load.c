/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files brought into memory: in which pages, checked against what. */
#include "daemon/residency.h"

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

#include "base/memlock.h"
#include "base/pagecache.h"
#include "daemon/smaps.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define FILE_BYTES ((size_t)16 << 20)
#define HUGE_BYTES ((size_t)2 << 20)
#define ENOUGH     (FILE_BYTES / 4 * 3) /* a machine whose memory is in shreds may not have all */

struct bed {
    char folder[40], path[64];
    sd_event *event;
    struct residencies *residencies;
};

static void write_file(const struct bed *bed, char fill)
{
    char *bytes = malloc(FILE_BYTES);
    int fd = open(bed->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_non_null(bytes);
    assert_true(fd >= 0);
    memset(bytes, fill, FILE_BYTES);
    assert_int_equal(write(fd, bytes, FILE_BYTES), FILE_BYTES);
    close(fd);
    free(bytes);
}

static int setup(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    strcpy(bed->folder, "/tmp/test-residency-XXXXXX");
    assert_non_null(mkdtemp(bed->folder));
    snprintf(bed->path, sizeof(bed->path), "%s/m.gguf", bed->folder);
    write_file(bed, 'x');
    assert_int_equal(sd_event_new(&bed->event), 0);
    assert_int_equal(residencies_new(bed->event, geteuid(), &bed->residencies), 0);
    *state = bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    residencies_free(bed->residencies);
    sd_event_unref(bed->event);
    unlink(bed->path);
    rmdir(bed->folder);
    free(bed);
    return 0;
}

struct outcome {
    bool over, loaded;
    char why[512];
};

static void on_opened(struct residency *r, uint64_t bytes_total, void *userdata)
{
    assert_int_equal(residency_load(r), 0);
}

static void on_loaded(struct residency *r, void *userdata)
{
    struct outcome *o = userdata;

    o->over = o->loaded = true;
}

static void on_failed(struct residency *r, const struct fault *fault, void *userdata)
{
    struct outcome *o = userdata;

    o->over = true;
    snprintf(o->why, sizeof(o->why), "%s", fault->reason);
}

static const struct residency_callbacks callbacks = {.opened = on_opened, .loaded = on_loaded, .failed = on_failed};

/* The residency, for its owner to free; loaded, or *@ret says why not. */
static struct residency *load(struct bed *bed, struct residency_options options, struct outcome *ret)
{
    struct residency *r;

    *ret = (struct outcome){.over = false};
    options.path = bed->path;
    assert_int_equal(residency_new(bed->residencies, &options, &callbacks, ret, &r), 0);
    while (!ret->over)
        assert_true(sd_event_run(bed->event, UINT64_MAX) >= 0);
    return r;
}

static bool may_lock(void)
{
    void *at = mmap(NULL, FILE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool may = memlock(at, FILE_BYTES) == 0;

    munmap(at, FILE_BYTES);
    return may;
}

/* What the kernel does at best: a file freshly read through a mapping that asked for 2 MiB pages. */
static uint64_t huge_bytes_possible(const struct bed *bed)
{
    int fd = open(bed->path, O_RDONLY | O_CLOEXEC);
    uint8_t *span = mmap(NULL, FILE_BYTES + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;
    struct smaps_figures figures;
    struct smaps_range range;

    assert_true(fd >= 0);
    assert_ptr_not_equal(span, MAP_FAILED);
    at = span + (-(uintptr_t)span & (HUGE_BYTES - 1));
    assert_int_equal(pagecache_drop(fd), 0);
    assert_ptr_equal(mmap(at, FILE_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0), at);
    madvise(at, FILE_BYTES, MADV_HUGEPAGE);
    madvise(at, FILE_BYTES, MADV_POPULATE_READ);
    range = (struct smaps_range){(uintptr_t)at, (uintptr_t)at + FILE_BYTES};
    assert_int_equal(smaps_read(&range, 1, &figures), 0);
    munmap(span, FILE_BYTES + HUGE_BYTES);
    pagecache_drop(fd);
    close(fd);
    return figures.huge_bytes;
}

/* As every copied or downloaded file does. */
static void fill_cache_in_small_pages(const struct bed *bed)
{
    static char buffer[65536];
    int fd = open(bed->path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
    for (size_t at = 0; at < FILE_BYTES; at += 4096)
        assert_int_equal(pread(fd, buffer, 4096, (off_t)at), 4096);
    close(fd);
}

static void locks_a_cached_file_in_huge_pages(void **state)
{
    struct bed *bed = *state;
    struct residency *r;
    struct outcome o;

    if (!may_lock() || huge_bytes_possible(bed) < ENOUGH)
        skip();
    fill_cache_in_small_pages(bed);
    r = load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    assert_in_range(residency_huge_bytes(r), ENOUGH, FILE_BYTES);
    residency_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(locks_a_cached_file_in_huge_pages, setup, teardown),
    };

    return cmocka_run_group_tests_name("residency-load", tests, NULL, NULL);
}
