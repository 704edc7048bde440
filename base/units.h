/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Sizes, counts, percentages and durations as people write them in policies and on command lines.
 */

#include <stddef.h>
#include <stdint.h>

#define UNITS_TEXT_MAX 32

/**
 * units_parse_size() - "8G", "512MiB", "1.5T", "4096": bytes. Units are powers of 1024 with or without "iB" or "B"
 * Returns 0, -EINVAL (no size), -ERANGE (more than INT64_MAX bytes).
 */
int units_parse_size(const char *text, uint64_t *ret_bytes);

/**
 * units_parse_size_of() - a size, or a share of @whole: "80%"
 * Returns as units_parse_size(); -ERANGE also for more than 100%.
 */
int units_parse_size_of(const char *text, uint64_t whole, uint64_t *ret_bytes);

/**
 * units_parse_count() - "20000", "20k", "1M": a number; k, M, G are powers of 1000
 * Returns 0, -EINVAL, -ERANGE (more than INT64_MAX).
 */
int units_parse_count(const char *text, uint64_t *ret);

/**
 * units_parse_duration() - "10min", "1h 30min", "500ms", "90" (seconds), "infinity": microseconds
 * Units: us ms s sec min m h hr d day w week. Returns 0, -EINVAL, -ERANGE. UINT64_MAX is infinity.
 */
int units_parse_duration(const char *text, uint64_t *ret_us);

/**
 * units_format_size() - "4.4G", at most 3 significant digits with a decimal point where it helps
 * Returns @buffer, which holds UNITS_TEXT_MAX bytes.
 */
const char *units_format_size(uint64_t bytes, char *buffer);

/**
 * units_format_duration() - "10min", "1h 5min", "250ms"; returns @buffer of UNITS_TEXT_MAX bytes
 */
const char *units_format_duration(uint64_t us, char *buffer);
