/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The GPUs of the machine as workers see them: the daemon itself never opens one. Known from a worker that looks when
 * the daemon starts, when the policy is read again and when one is missing, and again from each that measures a model
 * for them, so that what other programs took meanwhile counts.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct policy;

/* Numbers of devices are below this; a model has at most 8 of them. */
#define GPUS_MAX 16
#define GPUS_BUS_ID_MAX 16 /* "0000:01:00.0" and its end */

/* Others' windows grow, and the driver takes a little for each kernel. */
#define GPUS_MARGIN_BYTES (UINT64_C(64) << 20)

struct gpu_known {
    uint32_t number;
    char name[96];
    uint64_t total_bytes;
    uint64_t free_bytes;   /* beside what the driver takes for a worker */
    uint64_t driver_bytes; /* … which is this */
    struct {
        uint64_t at_us; /* CLOCK_MONOTONIC; 0: nobody has said anything */
        bool by_user;   /* a worker that has a model on it said so */
        uint64_t free_bytes; /* over all programs, models too */
        int temperature_celsius; /* -1: unknown */
        char throttled[64]; /* why it is slower than it could be, "" if it is not or nobody knows */
    } sample;
};

/* Samples older than this say nothing. */
#define GPUS_SAMPLE_US (UINT64_C(30) * 1000000)

struct gpus {
    struct gpu_known list[GPUS_MAX]; /* [n] by number */
    size_t n;
    uint32_t seen;      /* bits: numbers of those that were there at some time */
    char bus_ids[GPUS_MAX][GPUS_BUS_ID_MAX]; /* whose number it is; "": nobody's, or it is not known */
    uint64_t looked_us; /* CLOCK_MONOTONIC; 0: nobody has looked */
    char reason[256]; /* why there are none, or not all; "" if nothing is wrong or nobody has looked */
};

/**
 * gpus_take_facts() - what a worker said of them (engine/worker/gpus.h); what is no number of bytes is left out
 */
void gpus_take_facts(struct gpus *g, struct json_object *facts, uint64_t now_us);

enum gpus_teller { GPUS_WATCHED, GPUS_USED };

/**
 * gpus_take_samples() - what a worker says that some are doing, in a packet GPUS
 * @teller: one that only watches is not listened to while one that uses them speaks, which knows at least as much
 */
void gpus_take_samples(struct gpus *g, struct json_object *samples, enum gpus_teller teller, uint64_t now_us);

/**
 * gpus_number() - what the daemon calls a device that a worker speaks of in @o
 * A driver numbers those that are there when a process begins, so that a lost one gives its number to the next; here
 * each keeps the number that it had first, by its place on the bus.
 * Returns false where @o names none that is known.
 */
bool gpus_number(const struct gpus *g, struct json_object *o, uint32_t *ret);

/**
 * gpus_remember() - device @number is the one at @bus_id, as an earlier daemon knew it; before anybody has looked
 */
void gpus_remember(struct gpus *g, uint32_t number, const char *bus_id);

/**
 * gpus_none() - nobody can look, for this reason
 */
void gpus_none(struct gpus *g, const char *reason, uint64_t now_us);

/**
 * gpus_there() - bits: numbers of those that are there
 */
uint32_t gpus_there(const struct gpus *g);

/**
 * gpus_find() - the one with this number; NULL
 */
const struct gpu_known *gpus_find(const struct gpus *g, uint32_t number);

/**
 * gpus_budget() - what the policy gives of one to all models together
 */
uint64_t gpus_budget(const struct gpu_known *gpu, const struct policy *policy);
