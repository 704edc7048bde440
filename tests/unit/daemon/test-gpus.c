/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* GPUs as workers tell of them: each keeps its number, whatever drivers call it. */
#include "daemon/gpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "base/json.h"

/* @list: of a worker, without its brackets. */
static void take(struct gpus *g, const char *list)
{
    _cleanup_json_ json_object *o = NULL;
    char text[4096];

    snprintf(text, sizeof(text), "{\"gpu_reason\": \"\", \"gpus\": [%s]}", list);
    o = json_tokener_parse(text);
    assert_non_null(o);
    gpus_take_facts(g, o, /* now_us= */ 1);
}

#define GPU(device, bus_id, total)                                                                                     \
    "{\"device\": " device ", \"name\": \"GPU\", \"bus_id\": \"" bus_id "\", \"total\": " total ", \"free\": 5, "      \
    "\"driver\": 1}"

static uint64_t total_of(const struct gpus *g, uint32_t number)
{
    const struct gpu_known *k = gpus_find(g, number);

    return k ? k->total_bytes : 0;
}

static void a_gpu_keeps_its_number(void **state)
{
    struct gpus g = {.n = 0};

    take(&g, GPU("0", "0000:01:00.0", "100") "," GPU("1", "0000:02:00.0", "200"));
    assert_int_equal(g.n, 2);
    assert_true(total_of(&g, 0) == 100 && total_of(&g, 1) == 200);
    /* The first one is gone, and its number is the second one's. */
    take(&g, GPU("0", "0000:02:00.0", "200"));
    assert_int_equal(g.n, 1);
    assert_true(total_of(&g, 0) == 0 && total_of(&g, 1) == 200);
    assert_int_equal(g.seen, 3);
    /* A new one has the number that nobody had. */
    take(&g, GPU("0", "0000:02:00.0", "200") "," GPU("1", "0000:09:00.0", "900"));
    assert_true(total_of(&g, 1) == 200 && total_of(&g, 2) == 900);
    take(&g, GPU("0", "0000:01:00.0", "100") "," GPU("1", "0000:02:00.0", "200") "," GPU("2", "0000:09:00.0", "900"));
    assert_true(total_of(&g, 0) == 100 && total_of(&g, 1) == 200 && total_of(&g, 2) == 900);
}

static void an_earlier_daemon_has_given_numbers(void **state)
{
    struct gpus g = {.n = 0};

    gpus_remember(&g, 0, "0000:02:00.0");
    gpus_remember(&g, 3, "0000:01:00.0");
    assert_int_equal(g.seen, 9);
    take(&g, GPU("0", "0000:01:00.0", "100") "," GPU("1", "0000:02:00.0", "200"));
    assert_true(total_of(&g, 3) == 100 && total_of(&g, 0) == 200);
}

static void without_places_numbers_are_the_drivers(void **state)
{
    struct gpus g = {.n = 0};

    take(&g, GPU("0", "", "100") "," GPU("5", "", "200"));
    assert_true(total_of(&g, 0) == 100 && total_of(&g, 5) == 200);
    take(&g, GPU("5", "", "200"));
    assert_true(total_of(&g, 5) == 200 && g.n == 1);
    take(&g, GPU("16", "", "100") "," GPU("-1", "", "100") "," GPU("\"0\"", "", "100") ",7");
    assert_int_equal(g.n, 0);
}

/* A worker may make places up; the machine's own GPUs get numbers all the same. */
static void numbers_do_not_run_out(void **state)
{
    struct gpus g = {.n = 0};
    char list[GPUS_MAX * 128];

    for (uint32_t round = 0; round < 4; round++) {
        list[0] = 0;
        for (uint32_t i = 0; i < GPUS_MAX - 1; i++)
            snprintf(list + strlen(list), sizeof(list) - strlen(list),
                     "%s{\"device\": %u, \"bus_id\": \"%04x:00:00.0\", \"total\": 1, \"free\": 1, \"driver\": 1}", i ? "," : "",
                     i, 100 * round + i);
        take(&g, list);
        assert_true(round > 0 || g.n == GPUS_MAX - 1);
    }
    take(&g, GPU("0", "0000:01:00.0", "100"));
    assert_int_equal(g.n, 1);
    assert_int_equal(g.list[0].total_bytes, 100);
}

static void samples_are_of_those_who_are_known(void **state)
{
    struct gpus g = {.n = 0};
    _cleanup_json_ json_object *o = json_tokener_parse(
        "{\"gpus\": [{\"device\": 0, \"bus_id\": \"0000:02:00.0\", \"free\": 7}, {\"device\": 1, \"bus_id\": \"0000:03:00.0\", "
        "\"free\": 8}]}");

    take(&g, GPU("0", "0000:01:00.0", "100") "," GPU("1", "0000:02:00.0", "200"));
    gpus_take_samples(&g, o, GPUS_WATCHED, /* now_us= */ 2);
    assert_int_equal(gpus_find(&g, 0)->sample.at_us, 0);
    assert_int_equal(gpus_find(&g, 1)->sample.free_bytes, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_keeps_its_number),
        cmocka_unit_test(an_earlier_daemon_has_given_numbers),
        cmocka_unit_test(without_places_numbers_are_the_drivers),
        cmocka_unit_test(numbers_do_not_run_out),
        cmocka_unit_test(samples_are_of_those_who_are_known),
    };

    return cmocka_run_group_tests_name("gpus", tests, NULL, NULL);
}
