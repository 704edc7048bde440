/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that an earlier daemon had loaded: taken as they are if they are the same, and never taken if they are not. */
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

#define FILE_BYTES 100000

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
    options.file.path = bed->path;
    options.huge = POLICY_HUGE_OFF;
    assert_int_equal(residency_new(bed->residencies, &options, &callbacks, ret, &r), 0);
    while (!ret->over)
        assert_true(sd_event_run(bed->event, UINT64_MAX) >= 0);
    return r;
}

static struct residency_identity load_first(struct bed *bed, enum policy_ram ram, int *ret_copy)
{
    struct residency_identity identity;
    struct residency *r;
    struct outcome o;

    r = load(bed, (struct residency_options){.ram = ram}, &o);
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
    struct outcome o;
    struct residency *r = load(bed, options, &o);

    assert_false(o.loaded);
    if (!strstr(o.why, why))
        fail_msg("\"%s\" does not say \"%s\"", o.why, why);
    residency_free(r);
}

static void need_locking(void)
{
    void *at = mmap(NULL, 2 * FILE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(at != MAP_FAILED);
    if (memlock(at, 2 * FILE_BYTES) < 0)
        skip();
    munmap(at, 2 * FILE_BYTES);
}

static void the_same_file_is_taken_without_reading_it(void **state)
{
    /* A digest that no file has: what was checked once is not checked again. */
    static const char digest[] = "0000000000000000000000000000000000000000000000000000000000000000";
    struct bed *bed = *state;
    struct residency_identity identity = load_first(bed, POLICY_RAM_MAP, NULL);
    struct outcome o;
    struct residency *r = load(
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
    write_file(bed, 'y');
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
    struct outcome o;
    struct stat st;
    int copy;

    need_locking();
    identity = load_first(bed, POLICY_RAM_COPY, &copy);
    assert_int_equal(unlink(bed->path), 0);
    r = load(bed, (struct residency_options){.ram = POLICY_RAM_COPY, .kept = &identity, .kept_fds = &copy, .n_kept = 1},
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_same_file_is_taken_without_reading_it), TEST(a_file_that_was_touched_is_not_taken),
        TEST(another_number_of_files_is_not_taken),      TEST(a_copy_is_taken_without_its_file),
        TEST(a_copy_that_could_be_changed_is_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
