/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the worker tells of itself in FACTS and READY: one JSON object, the same in both.
 *
 *   "architecture", "name", "quantization", "isa", "tokenizer" (null: none): text
 *   "parameters", "layers", "vocabulary", "embedding", "context_trained": of the model
 *   "context_tokens", "sequences", "batch_tokens", "threads", "page_tokens", "pages": of this worker
 *   "bytes": {"weights", "locked", "kv", "kv_page", "scratch", "per_token"}
 *   "gpu_layers": with anything of them on GPUs, "gpu_reason": why fewer than were asked for; "" if not
 *   "gpus": [{"device", "name", "weights", "kv", "scratch", "driver"}], what it has of each GPU's memory, in bytes
 *   "released": [[file, from, bytes]], what of the files it does not lock, since only GPUs read it, in order
 *   "capabilities": ["complete", "chat", "embed", "tools", "reasoning", "tokenize"]: what SUBMIT may ask for,
 *                   and what answers of Chat may have besides text
 */

#include <stdbool.h>

#include "base/json.h"
#include "engine/engine.h"

enum facts_abilities {
    FACTS_COMPLETE = 1 << 0,  /* it writes text: an encoder does not */
    FACTS_CHAT = 1 << 1,      /* and has a template that is understood */
    FACTS_EMBED = 1 << 2,     /* it has a tokenizer, and its states are vectors */
    FACTS_TOOLS = 1 << 3,     /* its template knows tools */
    FACTS_REASONING = 1 << 4, /* it writes thoughts that are told apart */
};

/**
 * facts_to_json() - @facts and what the worker adds to them
 * @sequences: that are computed at the same time; the engine has room for more, which are preempted
 * @tokenizer: its kind, NULL: the model has none
 * @abilities: enum facts_abilities
 * Returns 0 and a new object that the caller owns, or -ENOMEM.
 */
int facts_to_json(const struct engine_facts *facts, uint32_t sequences, const char *tokenizer,
                  unsigned abilities, json_object **ret);
