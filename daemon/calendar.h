/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Days and hours as the machine's users live them: quotas of a day are whole again at local midnight, and usage is
 * summed by local hour. All in seconds since 1970. Where clocks are set back an hour comes twice and is two hours here;
 * zones that are half an hour off have hours that begin at half past in UTC. Any thread.
 */

#include <stdint.h>

/**
 * calendar_hour() - when the local hour that @now_s lies in began
 */
int64_t calendar_hour(int64_t now_s);

/**
 * calendar_day() - when the local day that @now_s lies in began
 */
int64_t calendar_day(int64_t now_s);

/**
 * calendar_next_day() - when it ends; days of 23 and 25 hours too
 */
int64_t calendar_next_day(int64_t now_s);
