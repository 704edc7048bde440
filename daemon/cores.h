/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How many threads each of the models that work may compute with. Two that take all cores each are in each other's way:
 * together they are slower than one after the other. Pure.
 */

#include <stddef.h>
#include <stdint.h>

struct cores_claim {
    int32_t priority;    /* of the model; higher is more */
    uint64_t n_requests; /* that its worker has */
    uint32_t n_threads;  /* result, at least 1 */
};

/**
 * cores_share() - hand out @n_cores to @n models, evenly; what can't be divided goes to those of higher priority, and
 * among equals to those with more requests, one core each
 * With more models than cores each has one thread, and the kernel's scheduler decides.
 */
void cores_share(uint32_t n_cores, struct cores_claim *claims, size_t n);
