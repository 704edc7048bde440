/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the real worker tells the next daemon of the requests that the one before had.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/unit/worker/driver.h"

#define CONFIG "{\"model\": \"test\", \"sequences\": 4, \"threads\": 1}"

static void start_ready(struct driver *d)
{
    driver_start(d);
    driver_load(d, driver_model(4096), CONFIG);
    assert_true(d->ready);
}

static void name_tenant(struct driver *d, uint32_t tenant, uint64_t mark)
{
    const struct packet_tenant packet = {.tenant = tenant, .weight = 100, .mark = mark};

    driver_send(d, PACKET_TENANT, &packet, sizeof(packet));
}

static struct answer *submit(struct driver *d, uint32_t tenant, uint32_t n_output)
{
    char json[128];

    snprintf(json, sizeof(json), "{\"prompt_tokens\": [3, 4, 5, 6], \"max_tokens\": %u, \"temperature\": 0}", n_output);
    return driver_submit(d, tenant, SUBMIT_COMPLETE, 0, json);
}

/* All that the worker says before it answers something new. */
static void take_over(struct driver *d)
{
    d->n_used = 0;
    driver_take_over(d);
    name_tenant(d, 9, 99);
    driver_wait(d, submit(d, 9, 1));
}

static const struct packet_used *find_used(const struct driver *d, uint64_t epoch, uint64_t request)
{
    for (uint32_t i = 0; i < d->n_used; i++)
        if (d->used[i].epoch == epoch && d->used[i].request == request)
            return &d->used[i];
    return NULL;
}

static void test_what_was_under_way_and_what_had_ended_is_told(void **state)
{
    const struct packet_used *used;
    struct answer *a;
    struct driver d;
    uint32_t n_heard;

    start_ready(&d);
    name_tenant(&d, 1, 77);
    driver_wait(&d, submit(&d, 1, 5));
    a = submit(&d, 1, 4000);
    while (a->n_tokens < 10)
        assert_true(driver_receive(&d, 60000));
    n_heard = a->n_tokens;
    /* Of somebody without a mark nobody could say whose it was. */
    driver_wait(&d, submit(&d, 2, 3));
    take_over(&d);
    assert_int_equal(d.n_used, 2);
    used = find_used(&d, DRIVER_EPOCH, 1);
    assert_non_null(used);
    assert_int_equal(used->mark, 77);
    assert_int_equal(used->prompt_tokens, 4);
    assert_int_equal(used->output_tokens, 5);
    assert_true(used->duration_ns > 0 && used->age_ns >= used->duration_ns);
    used = find_used(&d, DRIVER_EPOCH, 2);
    assert_non_null(used);
    assert_true(used->output_tokens >= n_heard && used->output_tokens < 4000);

    /* The next one may not have lived to write it down either: the same once more, and its own. */
    take_over(&d);
    assert_int_equal(d.n_used, 3);
    assert_int_equal(find_used(&d, DRIVER_EPOCH, 1)->output_tokens, 5);
    used = find_used(&d, DRIVER_EPOCH + 1, 1);
    assert_int_equal(used->mark, 99);
    assert_int_equal(used->output_tokens, 1);
    driver_stop(&d);
}

static void test_what_has_not_begun_has_used_nothing(void **state)
{
    struct answer *a[6];
    struct driver d;

    start_ready(&d);
    name_tenant(&d, 1, 77);
    for (size_t i = 0; i < 6; i++)
        a[i] = submit(&d, 1, 4000);
    for (size_t i = 0; i < 4; i++)
        while (a[i]->n_tokens == 0)
            assert_true(driver_receive(&d, 60000));
    take_over(&d);
    /* Four places. */
    assert_int_equal(d.n_used, 4);
    driver_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_under_way_and_what_had_ended_is_told),
        cmocka_unit_test(test_what_has_not_begun_has_used_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
