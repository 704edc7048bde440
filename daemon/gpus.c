/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/gpus.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "policy/plan.h"
#include "policy/policy.h"

/* Above any device; sums over all of them stay in range. */
#define BYTES_MAX (INT64_C(1) << 50)

static bool get_bytes(json_object *o, const char *key, int64_t max, uint64_t *ret)
{
    json_object *value;
    int64_t n;

    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_int))
        return false;
    n = json_object_get_int64(value);
    if (n < 0 || n > max)
        return false;
    *ret = (uint64_t)n;
    return true;
}

static void get_text(json_object *o, const char *key, char *buffer, size_t size)
{
    json_object *value;
    const char *text;

    buffer[0] = 0;
    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_string))
        return;
    text = json_object_get_string(value);
    if (strlen(text) < size && utf8_is_valid(text, strlen(text), NULL))
        snprintf(buffer, size, "%s", text);
}

static int compare(const void *a, const void *b)
{
    const struct gpu_known *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

/* What was said of one that is there still goes on to be true. */
static void keep_sample(struct gpu_known *k, const struct gpus *before)
{
    const struct gpu_known *known = gpus_find(before, k->number);

    if (known)
        k->sample = known->sample;
    else
        k->sample.at_us = 0;
}

bool gpus_number(const struct gpus *g, json_object *o, uint32_t *ret)
{
    char bus_id[GPUS_BUS_ID_MAX];
    uint64_t number;

    if (!json_object_is_type(o, json_type_object) || !get_bytes(o, "device", GPUS_MAX - 1, &number))
        return false;
    get_text(o, "bus_id", bus_id, sizeof(bus_id));
    for (uint32_t i = 0; bus_id[0] && i < GPUS_MAX; i++) {
        if (strcmp(g->bus_ids[i], bus_id) == 0) {
            *ret = i;
            return true;
        }
    }
    *ret = (uint32_t)number;
    return !bus_id[0] || !g->bus_ids[number][0];
}

/* The first number that nobody had; where all had somebody, the first of one who is not there. GPUS_MAX: none. */
static uint32_t free_number(const struct gpus *g, const struct gpus *before)
{
    uint32_t i = 0, k = 0;

    while (i < GPUS_MAX && (g->bus_ids[i][0] || g->seen >> i & 1))
        i++;
    while (i == GPUS_MAX && k < GPUS_MAX && (gpus_find(g, k) || gpus_find(before, k)))
        k++;
    return i < GPUS_MAX ? i : k;
}

/* As gpus_number(), also for one that is met for the first time: the driver's number, if that is free. */
static bool give_number(struct gpus *g, const struct gpus *before, json_object *o, uint32_t *ret)
{
    uint64_t number;

    if (!get_bytes(o, "device", GPUS_MAX - 1, &number))
        return false;
    if (!gpus_number(g, o, ret))
        *ret = free_number(g, before);
    if (*ret == GPUS_MAX)
        return false;
    get_text(o, "bus_id", g->bus_ids[*ret], sizeof(g->bus_ids[*ret]));
    return true;
}

void gpus_remember(struct gpus *g, uint32_t number, const char *bus_id)
{
    snprintf(g->bus_ids[number], sizeof(g->bus_ids[number]), "%s", bus_id);
    g->seen |= UINT32_C(1) << number;
}

void gpus_take_facts(struct gpus *g, json_object *facts, uint64_t now_us)
{
    const struct gpus before = *g;
    json_object *array;

    if (!json_object_object_get_ex(facts, "gpus", &array) || !json_object_is_type(array, json_type_array))
        return;
    get_text(facts, "gpu_reason", g->reason, sizeof(g->reason));
    g->looked_us = now_us;
    g->n = 0;
    for (size_t i = 0; i < json_object_array_length(array) && g->n < GPUS_MAX; i++) {
        json_object *o = json_object_array_get_idx(array, i);
        struct gpu_known *k = &g->list[g->n];
        uint32_t number;

        if (!json_object_is_type(o, json_type_object) || !get_bytes(o, "total", BYTES_MAX, &k->total_bytes) ||
            !get_bytes(o, "free", BYTES_MAX, &k->free_bytes) ||
            !get_bytes(o, "driver", BYTES_MAX, &k->driver_bytes) || !give_number(g, &before, o, &number) ||
            gpus_find(g, number))
            continue;
        k->number = number;
        keep_sample(k, &before);
        get_text(o, "name", k->name, sizeof(k->name));
        if (k->driver_bytes == 0)
            k->driver_bytes = PLAN_DEVICE_OVERHEAD_BYTES;
        g->n++;
    }
    qsort(g->list, g->n, sizeof(*g->list), compare);
    g->seen |= gpus_there(g);
}

void gpus_take_samples(struct gpus *g, json_object *samples, enum gpus_teller teller, uint64_t now_us)
{
    json_object *array;

    if (!json_object_object_get_ex(samples, "gpus", &array) || !json_object_is_type(array, json_type_array))
        return;
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        json_object *o = json_object_array_get_idx(array, i);
        uint64_t free_bytes, temperature;
        struct gpu_known *k;
        uint32_t number;

        if (!gpus_number(g, o, &number) || !get_bytes(o, "free", BYTES_MAX, &free_bytes))
            continue;
        k = (struct gpu_known *)gpus_find(g, number);
        if (!k || (teller == GPUS_WATCHED && k->sample.by_user && now_us - k->sample.at_us < GPUS_SAMPLE_US / 2))
            continue;
        k->sample.at_us = now_us;
        k->sample.by_user = teller == GPUS_USED;
        k->sample.free_bytes = free_bytes;
        k->sample.temperature_celsius = get_bytes(o, "temperature", 1000, &temperature) ? (int)temperature : -1;
        get_text(o, "throttled", k->sample.throttled, sizeof(k->sample.throttled));
    }
}

void gpus_none(struct gpus *g, const char *reason, uint64_t now_us)
{
    g->n = 0;
    g->looked_us = now_us;
    snprintf(g->reason, sizeof(g->reason), "%s", reason);
}

const struct gpu_known *gpus_find(const struct gpus *g, uint32_t number)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->list[i].number == number)
            return &g->list[i];
    return NULL;
}

uint32_t gpus_there(const struct gpus *g)
{
    uint32_t bits = 0;

    for (size_t i = 0; i < g->n; i++)
        bits |= UINT32_C(1) << g->list[i].number;
    return bits;
}

uint64_t gpus_budget(const struct gpu_known *gpu, const struct policy *policy)
{
    const struct policy_size *size = &policy->vram_budget;
    uint64_t bytes;

    for (size_t i = 0; i < policy->n_vram_devices; i++)
        if (policy->vram_devices[i].index == gpu->number)
            size = &policy->vram_devices[i].budget;
    bytes = policy_size_of(size, gpu->total_bytes);
    return bytes < gpu->total_bytes ? bytes : gpu->total_bytes;
}
