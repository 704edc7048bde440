/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files model*.c offer to each other and to the rest of the back half; internal.h includes it and has the
 * structures.
 */

#include "daemon/internal.h"

/* ---- model.c ---- */

/* The table of states: what @event makes of @state; MODEL_STATE_MAX: nothing. */
enum model_state model_next(enum model_state state, enum model_event event);

/* How long to wait before a worker is started again after its @n_crashes-th end in a row. */
uint64_t model_backoff_us(unsigned n_crashes);

/* An event for the table; what follows from it has happened on return. */
void model_handle(struct model *model, enum model_event event);

/* It can't be loaded; @fault need not name the model. */
void model_fail(struct model *model, const struct fault *fault);
void model_fail_errno(struct model *model, const char *what, int error);
/* From the loop soon: answers to those who wait, and whether it has to come back or to go for good. */
void model_kick(struct model *model);

int model_new(struct manager *m, struct policy *policy, const struct policy_model *rules, struct model **ret);
struct model *model_free(struct model *model);
struct model *model_find(struct manager *m, const char *name);

/* Somebody needs it: loads it if it is not there, or will be again. False: it failed lately, *reterr says why. */
bool model_want(struct model *model, struct fault *reterr);

/* An administrator's Load: tries also what failed a moment ago. */
void model_load(struct model *model);
void model_unload(struct model *model);

/* At each tick: locks and verifies the memory of one that was taken over, when nobody uses it, or it has been long. */
void model_verify(struct model *model);

/* At each tick: a worker that was taken over from a daemon of another build is replaced when nobody uses it, or when
 * host.upgrade_deadline has passed; what runs then is finished first, and nothing of the model is read again. */
void model_look_at_build(struct model *model);

/* What an administrator says of keeping it; also of its successor. */
void model_pin(struct model *model, enum model_pin pin);

bool model_is_pinned(const struct model *model);

/* Goes on with what an earlier daemon left: @kept, whose link is @link_fd (-EBADF: its worker has ended) and
 * whose copies are @copy_fds [kept->n_files] (NULL: files are used in place); descriptors are consumed. It is absent
 * before. */
void model_take_back(struct model *model, const struct snapshot_model *kept, int link_fd, const int *copy_fds);

/* Starts one with what was planned; the files are in memory. */
void model_start_worker(struct model *model);

/* ---- model-update.c ---- */

/* All of @rules, of policy @p, that decides what is loaded and how, as JSON text, to compare. Returns 0 or -ENOMEM. */
int model_loading_text(const struct policy *p, const struct policy_model *rules, char **ret);

/* New rules for a model that stays in the policy; replaces it if what it is loaded with changed. */
int model_update(struct model *model, struct policy *policy, const struct policy_model *rules);

/* A successor under the same rules is loaded beside it, and takes over when it is ready; @note: what status says
 * meanwhile. Returns 0 or -ENOMEM. */
int model_begin_successor(struct model *model, const char *note);

/* The rules in force become those that it is loaded with. */
void model_set_loaded(struct model *model);

/* Its aliases under the rules in force. Returns 0 or -ENOMEM. */
int model_collect_aliases(struct model *model);

/* The three ends of a replacement; each does nothing where there is none. */
void model_take_over(struct model *successor);
void model_successor_failed(struct model *successor);
void model_drop_successor(struct model *model);

/* ---- model-measure.c ---- */

/* The files are open: finds out what the model takes, then asks for room. */
void model_measure(struct model *model);

/* The same for one that was taken back from an earlier daemon and is ready: only to know what it takes. */
void model_measure_kept(struct model *model);

/* Whether part of it may stay on the disk: then its worker keeps what is in memory, and shares that with nobody. */
bool model_has_limit(const struct policy_model *rules);

/* What it asks the budget for, or has got: @own_bytes, and what its files take as they are held. They are open. Returns
 * 0 or -ENOMEM. */
int model_wish_memory(struct model *model, uint64_t own_bytes);

/* Files of a model of @rules that may be somebody else's, too. @ret: [RESIDENCY_FILES_MAX]; how many is returned. */
size_t model_files_in_place(const struct residency *residency, const struct policy_model *rules,
                            struct budget_file *ret);

/* Loads it if there is room; else it waits for others to leave, or fails. */
void model_ask_for_room(struct model *model);

/* Others have left: it has another try. */
void model_room_came(struct model *model);

/* What would fit. */
void model_suggest(const struct model *model, struct fault *fault);

/* Whether more layers would be on GPUs if it were loaded now. */
bool model_would_gain(const struct model *model);

/* ---- model-gpu.c ---- */

/* At each tick: one that had to do without a GPU, or with fewer of them, is computed there when it is back. */
void model_look_at_gpus(struct model *model);

/* GPUs that a model of @rules may use, as far as they are known, for struct plan_wish. @model: the one that it is for,
 * NULL: none of those that are there. @evict, @gone: as manager_vram_left() has them. @devices: [GPUS_MAX]; how many is
 * returned. */
size_t model_gpu_devices(const struct manager *m, const struct policy_model *rules, const struct model *model,
                         bool evict, const bool *gone, struct plan_device *devices);

/* The part of @wish that the policy's placement decides. */
void model_gpu_wish(const struct policy_model *rules, struct plan_wish *wish);

/* Whether its worker has to be one for GPUs. */
bool model_gpu_is_wanted(const struct model *model);

/* What was planned of @wish is to be done: it counts in the budgets from now on. */
void model_gpu_place(struct model *model, const struct plan_wish *wish, const struct plan_result *made);

/* Its worker can't be opened since fewer layers fit on GPUs than were planned and the rest is too much for RAM:
 * whether another plan, with fewer layers there, is to be made. */
bool model_gpu_plans_anew(struct model *model, const struct fault *fault);

/* Nothing of it is on GPUs any more. */
void model_gpu_forget(struct model *model);

/* The member "gpu" of a worker's configuration. */
bool model_gpu_add(struct json_object *config, const struct model *model);

void model_gpu_take_facts(struct model *model, struct json_object *facts);

uint64_t model_vram_bytes(const struct model *model);

/* ---- model-release.c ---- */

/* Whether what GPUs have stays in RAM as well: the policy says so, or what is there can't become less. */
bool model_release_is_off(const struct policy_model *rules);

void model_release_take_facts(struct model *model, struct json_object *facts);

/* What @made will put on GPUs, of files that are open, need not be held. */
void model_release_plan(struct model *model, const struct plan_result *made);

/* At each tick, and when it is ready: its residency follows the worker that has other things on GPUs than planned. */
void model_release(struct model *model);

/* What is not held as it is loaded the next time. Returns 0, RESIDENCY_AS_BEFORE or a negative errno. */
int model_release_leave_out(struct model *model);

/* Whether @ranges are whole pages of the model's own files, which are open: a worker says what lies where. */
bool model_release_are_of_files(const struct residency *residency, const struct plan_range *ranges, size_t n);

/* It has: what others may have counts from now on. */
void model_released(struct model *model);

/* ---- model-sample.c ---- */

/* At each tick: has the kernel asked, if it is time, whether what is loaded is there. */
void model_sample(struct model *model);

/* What it said. */
void model_sampled(struct model *model, uint64_t bytes_lost);

/* What most of it is mapped by: a static text; NULL: nothing is held. */
const char *model_pages(const struct model *model);

/* ---- model-facts.c ---- */

void model_take_facts(struct model *model, struct json_object *facts);

/* Its last request ended, or one began. */
void model_used(struct model *model);

/* It leaves when it has been idle for so long as the rules in force say; since it was used last. */
void model_watch_idle(struct model *model);

const char *model_reason(const struct model *model);

/* ---- model-wait.c ---- */

/* Those who wait: told how far it is, answered from the loop when it is over, moved to another model, or forgotten. */
void model_tell_progress(struct model *model);
void model_settle_waits(struct model *model);
void model_move_waits(struct model *from, struct model *to);
void model_abandon_waits(struct model *model);

/* Adds somebody who waits for the model to be ready (or absent); answered from the loop. */
int model_wait_new(struct model *model, bool for_absence, const struct model_wait_callbacks *callbacks, void *userdata,
                   struct model_wait **ret);
