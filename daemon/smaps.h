/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the kernel says of a piece of this process' memory (/proc/self/smaps): the proof of residency.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct smaps_range {
    uint64_t start, end; /* addresses, end excluded */
};

struct smaps_figures {
    uint64_t size_bytes;   /* of the mappings found in the ranges */
    uint64_t rss_bytes;    /* of them in RAM */
    uint64_t locked_bytes; /* Rss of those whose VmFlags have "lo" */
    uint64_t huge_bytes;   /* of Rss mapped as huge pages */
    uint64_t hugetlb_bytes; /* on reserved huge pages, which are in neither of the two before */
};

/**
 * smaps_read() - add up the mappings of this process that lie inside any of @n ranges
 * `Locked:` is not looked at: the kernel divides it among the processes that share a page. Walks page tables, so it is
 * for helper threads. Returns 0 or a negative errno.
 */
int smaps_read(const struct smaps_range *ranges, size_t n, struct smaps_figures *ret);

/**
 * smaps_parse() - the same for text in the format of proc(5) from @f
 */
int smaps_parse(FILE *f, const struct smaps_range *ranges, size_t n, struct smaps_figures *ret);
