/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files brought into memory: in which pages, checked against what. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memlock.h"
#include "base/pagecache.h"
#include "base/sha256.h"
#include "daemon/smaps.h"
#include "tests/unit/daemon/residency-bed.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define FILE_BYTES ((size_t)16 << 20)
#define HUGE_BYTES ((size_t)2 << 20)
#define ENOUGH     (FILE_BYTES / 4 * 3) /* a machine whose memory is in shreds may not have all */

static int setup(void **state)
{
    return bed_setup(state, FILE_BYTES);
}

/* Of @n files like the bed's, one behind the other. */
static void digest_of(size_t n, char ret[SHA256_TEXT_MAX])
{
    static char bytes[65536];
    struct sha256 s;

    memset(bytes, 'x', sizeof(bytes));
    sha256_init(&s);
    for (size_t i = 0; i < n * FILE_BYTES / sizeof(bytes); i++)
        sha256_add(&s, bytes, sizeof(bytes));
    sha256_text(&s, ret);
}

/* The only mapping of the bed's file. */
static uint8_t *where_is(const struct bed *bed)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    uintptr_t at = 0;

    assert_non_null(f);
    while (at == 0 && fgets(line, sizeof(line), f)) {
        if (strstr(line, bed->path))
            assert_int_equal(sscanf(line, "%" SCNxPTR "-", &at), 1);
    }
    fclose(f);
    assert_true(at != 0);
    return (uint8_t *)at;
}

/* Since Linux 6.1, and where transparent huge pages are compiled in. */
static bool has_collapse(void)
{
    int fd = memfd_create("collapse", MFD_CLOEXEC);
    uint8_t *span = mmap(NULL, 2 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;
    bool has;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, HUGE_BYTES), 0);
    at = span + (-(uintptr_t)span & (HUGE_BYTES - 1));
    assert_ptr_equal(mmap(at, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), at);
    at[0] = 1;
    has = madvise(at, HUGE_BYTES, 25 /* MADV_COLLAPSE */) == 0;
    munmap(span, 2 * HUGE_BYTES);
    close(fd);
    return has;
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
    assert_int_equal(pagecache_drop(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
    for (size_t at = 0; at < FILE_BYTES; at += 4096)
        assert_int_equal(pread(fd, buffer, 4096, (off_t)at), 4096);
    close(fd);
}

static void locks_a_cached_file_in_huge_pages(void **state)
{
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;

    if (!bed_may_lock(FILE_BYTES) || huge_bytes_possible(bed) < ENOUGH)
        skip();
    fill_cache_in_small_pages(bed);
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    assert_in_range(residency_huge_bytes(r), ENOUGH, FILE_BYTES);
    residency_free(r);
}

static void keeps_what_it_read_itself(void **state)
{
    struct bed *bed = *state;
    uint64_t huge;
    struct residency *r;
    struct bed_outcome o;

    if (!bed_may_lock(FILE_BYTES) || huge_bytes_possible(bed) < ENOUGH)
        skip();
    for (int i = 0; i < 2; i++) {
        r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
        assert_string_equal(o.why, "");
        huge = residency_huge_bytes(r);
        assert_in_range(huge, ENOUGH, FILE_BYTES);
        residency_free(r);
    }
    /* Another program had it read again meanwhile: the second time is no excuse for small pages. */
    fill_cache_in_small_pages(bed);
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_string_equal(o.why, "");
    assert_in_range(residency_huge_bytes(r), ENOUGH, FILE_BYTES);
    residency_free(r);
}

/* So that its worker need not. */
static void says_whether_each_page_was_read(void **state)
{
    char digest[SHA256_TEXT_MAX];
    const struct {
        struct residency_options options;
        bool is_read;
    } cases[] = {
        {{.ram = POLICY_RAM_LOCK}, true},
        {{.ram = POLICY_RAM_MAP}, false},
        {{.ram = POLICY_RAM_MAP, .file.sha256 = digest}, true},
        {{.ram = POLICY_RAM_COPY}, false},
        {{.ram = POLICY_RAM_COPY, .file.sha256 = digest}, true},
        {{.ram = POLICY_RAM_LOCK, .bytes_max = FILE_BYTES / 2, .file.sha256 = digest}, false},
    };

    if (!bed_may_lock(FILE_BYTES))
        skip();
    digest_of(1, digest);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct bed_outcome o;
        struct residency *r = bed_load(*state, cases[i].options, &o);

        assert_string_equal(o.why, "");
        assert_int_equal(residency_is_read(r), cases[i].is_read);
        residency_free(r);
    }
}

static int seals_of_copy(const struct residency *r)
{
    return fcntl(residency_copy_fd(r, 0), F_GET_SEALS);
}

static void copies_into_huge_pages_and_seals(void **state)
{
    const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;
    char byte;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_COPY}, &o);
    assert_string_equal(o.why, "");
    assert_non_null(residency_read_by(r));
    assert_int_equal(seals_of_copy(r) & sealed, sealed);
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    if (has_collapse())
        assert_in_range(residency_huge_bytes(r), ENOUGH, FILE_BYTES);
    for (off_t at = 0; at < (off_t)FILE_BYTES; at += 4096) {
        assert_int_equal(pread(residency_copy_fd(r, 0), &byte, 1, at), 1);
        assert_int_equal(byte, 'x');
    }
    residency_free(r);
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_COPY, .huge = POLICY_HUGE_OFF}, &o);
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    assert_int_equal(residency_huge_bytes(r), 0);
    residency_free(r);
}

/* Whatever pages the file's are in memory. */
static void maps_by_small_pages_where_huge_ones_are_off(void **state)
{
    static const enum policy_ram rams[] = {POLICY_RAM_MAP, POLICY_RAM_LOCK};
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    for (size_t i = 0; i < 2; i++) {
        r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
        assert_true(o.loaded);
        residency_free(r);
        r = bed_load(bed, (struct residency_options){.ram = rams[i], .huge = POLICY_HUGE_OFF}, &o);
        assert_string_equal(o.why, "");
        assert_int_equal(residency_huge_bytes(r), 0);
        assert_int_equal(residency_locked_bytes(r), i == 0 ? 0 : FILE_BYTES);
        residency_free(r);
    }
}

/* In small pages as long as it is mapped here, which keeps the service from dropping them. */
static uint8_t *hold_in_small_pages(const struct bed *bed)
{
    int fd = open(bed->path, O_RDONLY | O_CLOEXEC);
    uint8_t *at;

    assert_true(fd >= 0);
    at = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    close(fd);
    fill_cache_in_small_pages(bed);
    assert_int_equal(madvise(at, FILE_BYTES, MADV_POPULATE_READ), 0);
    return at;
}

static void refuses_what_does_not_come_in_huge_pages_if_it_must(void **state)
{
    const struct residency_options on = {.ram = POLICY_RAM_LOCK, .huge = POLICY_HUGE_ON};
    struct residency_options part = on;
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;
    uint8_t *held;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    held = hold_in_small_pages(bed);
    r = bed_load(bed, on, &o);
    assert_false(o.loaded);
    assert_int_equal(o.kind, FAULT_MODEL_UNAVAILABLE);
    assert_non_null(strstr(o.why, "residency.huge is \"on\", and only "));
    assert_non_null(strstr(o.why, " of 16.0M came in 2 MiB pages"));
    residency_free(r);
    munmap(held, FILE_BYTES);
    part.bytes_max = FILE_BYTES / 2;
    r = bed_load(bed, part, &o);
    assert_false(o.loaded);
    assert_non_null(strstr(o.why, "residency.huge has to be"));
    residency_free(r);
    if (huge_bytes_possible(bed) < FILE_BYTES)
        skip();
    r = bed_load(bed, on, &o);
    assert_string_equal(o.why, "");
    assert_in_range(residency_huge_bytes(r), FILE_BYTES / 10 * 9, FILE_BYTES);
    residency_free(r);
}

static void checks_every_file_that_has_a_digest(void **state)
{
    static const enum policy_ram rams[] = {POLICY_RAM_MAP, POLICY_RAM_LOCK, POLICY_RAM_COPY};
    struct bed *bed = *state;
    struct residency_file other = {.path = bed->path};
    char right[SHA256_TEXT_MAX], wrong[SHA256_TEXT_MAX];
    struct residency *r;
    struct bed_outcome o;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    digest_of(1, right);
    strcpy(wrong, right);
    wrong[0] = wrong[0] == '0' ? '1' : '0';
    for (size_t i = 0; i < 3; i++) {
        struct residency_options options = {
            .ram = rams[i], .file.sha256 = right, .others = &other, .n_others = 1};

        other.sha256 = right;
        r = bed_load(bed, options, &o);
        assert_string_equal(o.why, "");
        assert_int_equal(residency_n_parts(r), 2);
        residency_free(r);
        other.sha256 = wrong;
        r = bed_load(bed, options, &o);
        assert_false(o.loaded);
        assert_non_null(strstr(o.why, wrong));
        residency_free(r);
        other.sha256 = NULL;
        options.file.sha256 = wrong;
        r = bed_load(bed, options, &o);
        assert_false(o.loaded);
        residency_free(r);
    }
}

static void a_digest_is_of_all_parts_of_a_split_model(void **state)
{
    static const enum policy_ram rams[] = {POLICY_RAM_LOCK, POLICY_RAM_COPY};
    struct bed *bed = *state;
    char first[80], second[80], digest[SHA256_TEXT_MAX], before[80];
    struct residency *r;
    struct bed_outcome o;
    int fd;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    snprintf(first, sizeof(first), "%s/m-00001-of-00002.gguf", bed->folder);
    snprintf(second, sizeof(second), "%s/m-00002-of-00002.gguf", bed->folder);
    assert_int_equal(rename(bed->path, first), 0);
    strcpy(before, bed->path);
    snprintf(bed->path, sizeof(bed->path), "%s", second);
    bed_write_file(bed, 'x');
    snprintf(bed->path, sizeof(bed->path), "%s", first);
    digest_of(2, digest);
    for (size_t i = 0; i < 2; i++) {
        struct residency_options options = {.ram = rams[i], .file.sha256 = digest};

        r = bed_load(bed, options, &o);
        assert_string_equal(o.why, "");
        assert_int_equal(residency_n_files(r, 0), 2);
        residency_free(r);
    }
    /* A byte in the second. */
    fd = open(second, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "y", 1, FILE_BYTES - 1), 1);
    close(fd);
    for (size_t i = 0; i < 2; i++) {
        r = bed_load(bed, (struct residency_options){.ram = rams[i], .file.sha256 = digest}, &o);
        assert_false(o.loaded);
        assert_non_null(strstr(o.why, "SHA-256"));
        residency_free(r);
    }
    unlink(second);
    unlink(first);
    strcpy(bed->path, before);
}

static void sees_that_a_file_was_changed_under_it(void **state)
{
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;
    int fd;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_true(o.loaded);
    bed_sample(bed, r, &o);
    assert_true(o.sampled);
    assert_int_equal(o.bytes_lost, 0);
    fd = open(bed->path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, 4096), 0);
    close(fd);
    bed_sample(bed, r, &o);
    assert_false(o.sampled);
    assert_int_equal(o.kind, FAULT_MODEL_INVALID);
    assert_non_null(strstr(o.why, "was 16777216 bytes long when it was loaded and is 4096 now"));
    residency_free(r);
    bed_write_file(bed, 'x');
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_true(o.loaded);
    bed_write_file(bed, 'y');
    bed_sample(bed, r, &o);
    assert_int_equal(o.kind, FAULT_MODEL_INVALID);
    assert_non_null(strstr(o.why, "was written to after it was loaded"));
    residency_free(r);
}

static void sees_what_is_not_held_any_more(void **state)
{
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;
    uint8_t *map;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_true(o.loaded);
    map = where_is(bed);
    assert_int_equal(syscall(SYS_munlock, map, 4 * HUGE_BYTES),
                     0); /* not the sanitizer's, which does nothing */
    bed_sample(bed, r, &o);
    assert_true(o.sampled);
    assert_int_equal(o.bytes_lost, 4 * HUGE_BYTES);
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES - 4 * HUGE_BYTES);
    assert_int_equal(memlock(map, 4 * HUGE_BYTES), 0);
    bed_sample(bed, r, &o);
    assert_int_equal(o.bytes_lost, 0);
    residency_free(r);
}

static void holds_all_but_what_is_left_out(void **state)
{
    static const struct plan_range middle = {.from = 4096, .n_bytes = 3 * HUGE_BYTES};
    static const struct plan_range ends[] = {{.from = 0, .n_bytes = 8192},
                                             {.from = FILE_BYTES - HUGE_BYTES, .n_bytes = HUGE_BYTES}};
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_leave_out(r, &middle, 1), 0);
    bed_load_again(bed, r, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES - 3 * HUGE_BYTES);
    assert_int_equal(residency_needs_bytes(r), FILE_BYTES - 3 * HUGE_BYTES);
    bed_sample(bed, r, &o);
    assert_true(o.sampled);
    assert_int_equal(o.bytes_lost, 0);
    assert_int_equal(residency_leave_out(r, ends, 2), 0);
    bed_load_again(bed, r, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES - HUGE_BYTES - 8192);
    /* A GPU that is lost: all of it is needed again. */
    assert_int_equal(residency_leave_out(r, NULL, 0), 0);
    bed_load_again(bed, r, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    assert_int_equal(residency_needs_bytes(r), FILE_BYTES);
    residency_free(r);
}

static void the_last_page_is_left_out_as_a_whole(void **state)
{
    static const struct plan_range end = {.from = 8192, .n_bytes = FILE_BYTES - 8192 - 100};
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    assert_int_equal(truncate(bed->path, FILE_BYTES - 100), 0);
    r = bed_load(bed, (struct residency_options){.ram = POLICY_RAM_LOCK}, &o);
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    assert_int_equal(residency_leave_out(r, &end, 1), 0);
    bed_load_again(bed, r, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), 8192);
    assert_int_equal(residency_needs_bytes(r), 8192);
    residency_free(r);
}

static const struct plan_range all_but_a_page = {.from = 4096, .n_bytes = FILE_BYTES - 4096};

static void leave_out_most(struct residency *r)
{
    assert_true(residency_leave_out(r, &all_but_a_page, 1) >= 0);
}

static void what_is_left_out_is_verified_too(void **state)
{
    struct bed *bed = *state;
    struct bed_outcome o;
    struct residency *r;
    char digest[SHA256_TEXT_MAX];

    if (!bed_may_lock(FILE_BYTES))
        skip();
    digest_of(1, digest);
    for (int i = 0; i < 2; i++) {
        r = bed_load_prepared(bed, (struct residency_options){.ram = POLICY_RAM_LOCK, .file.sha256 = digest},
                              leave_out_most, &o);
        assert_int_equal(o.loaded, i == 0);
        if (i == 0)
            assert_int_equal(residency_locked_bytes(r), 4096);
        else
            assert_non_null(strstr(o.why, "SHA-256"));
        residency_free(r);
        digest[0] = digest[0] == '0' ? '1' : '0';
    }
}

static void a_copy_is_held_as_a_whole(void **state)
{
    struct bed *bed = *state;
    struct bed_outcome o;
    struct residency *r;

    if (!bed_may_lock(FILE_BYTES))
        skip();
    r = bed_load_prepared(bed, (struct residency_options){.ram = POLICY_RAM_COPY}, leave_out_most, &o);
    assert_string_equal(o.why, "");
    assert_int_equal(residency_locked_bytes(r), FILE_BYTES);
    assert_int_equal(residency_needs_bytes(r), FILE_BYTES);
    residency_free(r);
}

static void refuses_a_node_that_there_is_not(void **state)
{
    struct bed *bed = *state;
    struct residency *r;
    struct bed_outcome o;

    r = bed_load(bed,
             (struct residency_options){.ram = POLICY_RAM_MAP, .numa = POLICY_NUMA_BIND, .numa_node = 1023},
             &o);
    assert_false(o.loaded);
    assert_non_null(strstr(o.why, "residency.numa is 1023"));
    residency_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(locks_a_cached_file_in_huge_pages, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(keeps_what_it_read_itself, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(says_whether_each_page_was_read, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(copies_into_huge_pages_and_seals, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(maps_by_small_pages_where_huge_ones_are_off, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(refuses_what_does_not_come_in_huge_pages_if_it_must, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(checks_every_file_that_has_a_digest, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(a_digest_is_of_all_parts_of_a_split_model, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(sees_that_a_file_was_changed_under_it, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(sees_what_is_not_held_any_more, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(holds_all_but_what_is_left_out, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(the_last_page_is_left_out_as_a_whole, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(what_is_left_out_is_verified_too, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(a_copy_is_held_as_a_whole, setup, bed_teardown),
        cmocka_unit_test_setup_teardown(refuses_a_node_that_there_is_not, setup, bed_teardown),
    };

    return cmocka_run_group_tests_name("residency-load", tests, NULL, NULL);
}
