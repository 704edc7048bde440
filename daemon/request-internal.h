/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the back half knows of requests beyond request.h: between request.c, request-admit.c, request-end.c, models and
 * the manager.
 */

#include "daemon/internal.h"

/* ---- request.c ---- */

/* Hands on what can be handed on now. */
void requests_pump(struct manager *m);
void requests_pump_soon(struct manager *m);

struct request *request_find(struct manager *m, uint64_t id);

/* Ends it with Cancelled, from the loop. @reason is a static text. */
void request_stop(struct request *r, const char *reason);

/* Whether it may be handed to its model's worker now. */
bool request_may_run(const struct request *r);

/* Hands it on. -ENOMEM: it stays where it is. */
int request_submit(struct request *r);

/* What of a quota is looked at once the request is handed on. */
void request_take_quota(struct request *r, const struct policy_quota *quota);

/* When one of the user's requests that run has ended at the latest, as fast as it goes now, and another of its requests
 * can take the place; -1: unknown. */
int64_t requests_place_ms(const struct manager *m, uid_t uid);

/* ---- request-end.c ---- */

/* Out of all lists and accounts; the memory stays. @tokens: what it used of its quotas. */
void request_unhook(struct request *r, uint64_t tokens);

/* Its model's name, which may be gone from the policy by now. */
const char *request_ending_model(const struct request *r);

/* Frees one that is unhooked, or was never hooked. */
void request_release(struct request *r);

/* The worker, or a deadline, has ended it. @done: what the worker says; NULL: it never had it */
void request_finish(struct request *r, const char *finish, const struct request_usage *usage,
                    const struct packet_done *done, struct json_object *extra);

/* Those whose callers are gone, at the very end: the worker is not waited for any more. */
void requests_abandon(struct manager *m);

/* The end of a request with a callback; @r is gone afterwards. */
void request_fail(struct request *r, const struct fault *fault);

/* The same for all that a worker had, or all that wait for a model. */
void requests_fail_submitted(struct model *model, const struct fault *fault);
void requests_fail_held(struct model *model, const struct fault *fault);

/* Its worker has crashed: whose requests it may have been computing is remembered (blame.h). */
void requests_blame(struct model *model);

/* Those that wait for @from wait for @to from now on. */
void requests_move_held(struct model *from, struct model *to);

/* After a reload: those that the new policy would not have let in. */
void requests_recheck_held(struct manager *m);

/* What the worker says of one request. */
void request_on_piece(struct request *r, const struct step_piece *piece, const char *text, struct json_object *extra);
void request_on_done(struct request *r, const struct packet_done *done, struct json_object *extra);

/* Those that wait, from the first behind @after to @last (so that those that come meanwhile are not met): ids rise. */
struct request *requests_next_held(struct manager *m, uint64_t after, uint64_t last);
uint64_t requests_last_id(const struct manager *m);

/* News for all that wait for a model, or for all that wait. */
void requests_tell_waiting(struct manager *m, struct model *only);

/* The parameters as the worker gets them: without the daemon's own members, with the policy's defaults and limits.
 * @ret_output_max: tokens that the answer may have by them; POLICY_UNLIMITED: as many as the model has room for. */
int request_parameters(enum request_kind kind, struct json_object *parameters, const struct policy_model *rules,
                       const struct policy_quota *quota, char **ret, size_t *ret_n, uint64_t *ret_output_max,
                       struct fault *reterr_fault);
