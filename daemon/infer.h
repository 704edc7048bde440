/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What Complete and Chat have in common: parameters whose ranges the interface can't express, and an answer that
 * comes in pieces. Parts of it serve Embed, Tokenize and Detokenize too.
 */

#include "daemon/call.h"
#include "daemon/request.h"

/**
 * infer_check() - ranges of the sampling and scheduling parameters of a call
 * Returns 0 or CALL_REFUSED with an InvalidParameter.
 */
int infer_check(json_object *parameters, struct fault *reterr_fault);

/**
 * infer_usage() - the interface's Usage; NULL when memory is short
 */
struct json_object *infer_usage(const struct request_usage *usage);

/**
 * infer_check_ids() - whether @ids is an array of numbers that can be tokens; absent (NULL) is fine
 * Whether the model has them is for the worker to say. Returns as infer_check().
 */
int infer_check_ids(const char *name, json_object *ids, struct fault *reterr_fault);

/**
 * infer_start() - hand the call to the model and stream what comes back
 * Returns as a handler does.
 */
int infer_start(struct call *call, enum request_kind kind, struct fault *reterr_fault);

/**
 * infer_request() - the part of it that Tokenize and its like share: fill in @ret from a checked call
 */
void infer_request(struct call *call, enum request_kind kind, struct request_params *ret);
