/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The "shape" of FACTS, from which the daemon plans (policy/plan-shape.c reads it):
 *
 *   "layers":  [[dense bytes, expert bytes, group, 1: can be on a GPU], ...] in the order of the model
 *   "groups":  [{"window": tokens or 0, "window_pages": [of an open sequence, of a step],
 *                "kv": {"f16": [bytes of K, bytes of V, 1: can be on a GPU], ...}}] of one page of one layer
 *   "open":    [a, b]: for n sequences at a time, the engine holds a * n + b open (those that are preempted, too)
 *   "file", "embedding", "head", "rest", "tied", "parameters", "experts", "experts_used", "context_trained",
 *   "page_tokens", "batch_tokens", "scratch", "thread_scratch"
 *   "others": [bytes, bytes of each thread] of what is loaded with it, such as a draft model
 *   "gpu": {"scratch": [bytes of a device with layers, by ENGINE_SHAPE_GPU_*, 8 of them], "padding": bytes of a layer
 *           beyond those of its tensors, "runs": [[file, offset, bytes, layer, with, 1: to its end]] (struct
 *           engine_shape_run)}
 *   "read_gbps": where the memory was measured
 */

#include "base/json.h"

struct engine_shape;

/**
 * shape_to_json() - {"shape": ...}, to be sent as FACTS
 * @open:      as above
 * @read_gbps: 0: not measured
 * Returns 0 or -ENOMEM; *ret is owned by the caller.
 */
int shape_to_json(const struct engine_shape *shape, const uint64_t open[2], double read_gbps, json_object **ret);
