/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The memory that all models share (manager-room.c): what there is, who leaves for another, and what follows from the
 * kernel's memory pressure. All of it belongs to the loop.
 */

#include <stdbool.h>
#include <stdint.h>

struct budget_memory;
struct fault;
struct manager;
struct model;
struct plan_shape;
struct policy_model;
struct residency;

/* What the policy gives to all models together, on this machine. */
uint64_t manager_ram_budget(const struct manager *m);

/* Room for @needed for @model; unloads others. 0; BUDGET_LATER: model_ask_for_room() comes again when some are gone;
 * BUDGET_TOO_SMALL or -ENOMEM and the fault. */
int manager_make_room(struct manager *m, const struct model *model, const struct budget_memory *needed,
                      struct fault *reterr);

struct manager_ram {
    uint64_t bytes; /* of the budget, once everybody has left who may */
    uint64_t shared_bytes, shared_others_bytes; /* of its own files, and of those with it, what stays anyway */
};

/* What @model (NULL: one that is not there) may have under @rules. @residency: its files, which are open; NULL: nobody
 * else has them. Returns 0 or -ENOMEM. */
int manager_ram_for(struct manager *m, const struct model *model, const struct residency *residency,
                    const struct policy_model *rules, struct manager_ram *ret);

/* What is taken of the budget, without what @model has (NULL: all). Returns 0 or -ENOMEM. */
int manager_ram_used(struct manager *m, const struct model *model, uint64_t *ret);

/* A worker has measured a model and, maybe, the memory: @shape gets the most that was seen, since other work on the
 * machine only makes it less, and a plan is to be what a load then does. */
void manager_take_bandwidth(struct manager *m, struct plan_shape *shape);

/* Somebody's memory is free again: those that wait for room have another try. */
void manager_room_came(struct manager *m);

/* After a new policy, and at each tick until what is in memory fits into its budget. */
void manager_look_at_budget(struct manager *m);

/* Who has to leave so that @needed fits into @budget beside the others, and they go. @gpu: the number of one, of whose
 * memory it is; -1: RAM. Returns as budget_make_room(), or -ENOMEM. */
int manager_evict(struct manager *m, const struct model *model, uint64_t budget, const struct budget_memory *needed,
                  int gpu, uint64_t *ret_needed, uint64_t *ret_available);

/* The same, and nobody goes. @gone: in the order of m->models, who is thought to have gone already; those who would
 * have to are added. Returns as budget_make_room(), or -ENOMEM. */
int manager_would_evict(struct manager *m, const struct model *model, uint64_t budget,
                        const struct budget_memory *needed, int gpu, bool *gone);

/* The event source that serves those that wait for room. */
int manager_watch_room(struct manager *m);

/* At each tick: what a worker that does not end still has is not waited for any more. */
void manager_look_at_stuck(struct manager *m);

/* Where memory pressure is read; @path: NULL to find it. Returns 0 or -ENOMEM. */
int manager_find_pressure(struct manager *m, const char *path);

/* At each tick: gives back caches, then idle models, where the kernel says that memory is short. */
void manager_look_at_pressure(struct manager *m);
