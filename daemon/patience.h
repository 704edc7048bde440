/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How long somebody has been waited for, as far as the waiting loop itself ran. A machine that stands still for a
 * minute (suspended, frozen, paused by its hypervisor) has made nobody late: who waits looks again and again, and of
 * each gap between two looks no more counts than a loop that runs would have left. Pure.
 */

#include <stdint.h>

struct patience {
    uint64_t looked_us;
    uint64_t waited_us;
    uint64_t lost_us; /* of the time since the beginning, that did not count */
};

/**
 * patience_begin() - nothing was waited for yet
 */
static inline void patience_begin(struct patience *p, uint64_t now_us)
{
    *p = (struct patience){.looked_us = now_us};
}

/**
 * patience_look() - still waiting
 * @usual_us: between two looks; up to twice as much counts
 * Returns for how long.
 */
static inline uint64_t patience_look(struct patience *p, uint64_t now_us, uint64_t usual_us)
{
    uint64_t gap_us = now_us > p->looked_us ? now_us - p->looked_us : 0;
    uint64_t counts_us = gap_us < 2 * usual_us ? gap_us : 2 * usual_us;

    p->waited_us += counts_us;
    p->lost_us += gap_us - counts_us;
    p->looked_us = now_us;
    return p->waited_us;
}
