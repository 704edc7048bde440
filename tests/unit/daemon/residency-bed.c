/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/daemon/residency-bed.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memlock.h"

void bed_write_file(const struct bed *bed, char fill)
{
    char *bytes = malloc(bed->n_bytes);
    int fd = open(bed->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_non_null(bytes);
    assert_true(fd >= 0);
    memset(bytes, fill, bed->n_bytes);
    assert_int_equal(write(fd, bytes, bed->n_bytes), bed->n_bytes);
    close(fd);
    free(bytes);
}

int bed_setup(void **state, size_t n_bytes)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_non_null(bed);
    bed->n_bytes = n_bytes;
    strcpy(bed->folder, "/tmp/test-residency-XXXXXX");
    assert_non_null(mkdtemp(bed->folder));
    snprintf(bed->path, sizeof(bed->path), "%s/m.gguf", bed->folder);
    bed_write_file(bed, 'x');
    assert_int_equal(sd_event_new(&bed->event), 0);
    assert_int_equal(residencies_new(bed->event, geteuid(), &bed->residencies), 0);
    *state = bed;
    return 0;
}

int bed_teardown(void **state)
{
    struct bed *bed = *state;

    residencies_free(bed->residencies);
    sd_event_unref(bed->event);
    unlink(bed->path);
    rmdir(bed->folder);
    free(bed);
    return 0;
}

static void on_opened(struct residency *r, uint64_t bytes_total, void *userdata)
{
    const struct bed_outcome *o = userdata;

    if (o->prepare)
        o->prepare(r);
    assert_int_equal(residency_load(r), 0);
}

static void on_loaded(struct residency *r, void *userdata)
{
    struct bed_outcome *o = userdata;

    o->over = o->loaded = true;
}

static void on_failed(struct residency *r, const struct fault *fault, void *userdata)
{
    struct bed_outcome *o = userdata;

    o->over = true;
    o->kind = fault->kind;
    snprintf(o->why, sizeof(o->why), "%s", fault->reason);
}

static void on_sampled(struct residency *r, uint64_t bytes_lost, void *userdata)
{
    struct bed_outcome *o = userdata;

    o->over = o->sampled = true;
    o->bytes_lost = bytes_lost;
}

static const struct residency_callbacks callbacks = {
    .opened = on_opened, .loaded = on_loaded, .sampled = on_sampled, .failed = on_failed};

static void run_until_over(struct bed *bed, const struct bed_outcome *o)
{
    while (!o->over)
        assert_true(sd_event_run(bed->event, UINT64_MAX) >= 0);
}

struct residency *bed_load_prepared(struct bed *bed, struct residency_options options,
                                    void (*prepare)(struct residency *r), struct bed_outcome *ret)
{
    struct residency *r;

    *ret = (struct bed_outcome){.prepare = prepare};
    options.file.path = bed->path;
    assert_int_equal(residency_new(bed->residencies, &options, &callbacks, ret, &r), 0);
    run_until_over(bed, ret);
    return r;
}

struct residency *bed_load(struct bed *bed, struct residency_options options, struct bed_outcome *ret)
{
    return bed_load_prepared(bed, options, NULL, ret);
}

void bed_load_again(struct bed *bed, struct residency *r, struct bed_outcome *ret)
{
    *ret = (struct bed_outcome){.over = false};
    assert_int_equal(residency_load(r), 0);
    run_until_over(bed, ret);
}

void bed_sample(struct bed *bed, struct residency *r, struct bed_outcome *ret)
{
    *ret = (struct bed_outcome){.over = false};
    assert_int_equal(residency_sample(r), 0);
    run_until_over(bed, ret);
}

bool bed_may_lock(size_t n_bytes)
{
    void *at = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool may = at != MAP_FAILED && memlock(at, n_bytes) == 0;

    if (at != MAP_FAILED)
        munmap(at, n_bytes);
    return may;
}
