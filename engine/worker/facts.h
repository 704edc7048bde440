/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the worker tells of itself in FACTS and READY: one JSON object, the same in both.
 *
 *   "architecture", "name", "quantization", "isa", "tokenizer" (null: none): text
 *   "parameters", "layers", "vocabulary", "embedding", "context_trained": of the model
 *   "context_tokens", "sequences", "batch_tokens", "threads", "page_tokens", "pages": of this worker
 *   "bytes": {"weights", "locked", "kv", "kv_page", "scratch", "per_token"}
 *   "capabilities": ["complete", "chat", "embed", "tokenize"]: what SUBMIT may ask for
 */

#include <stdbool.h>

#include "base/json.h"
#include "engine/engine.h"

/**
 * facts_to_json() - @facts and what the worker adds to them
 * @sequences: that are computed at the same time; the engine has room for more, which are preempted
 * @tokenizer: its kind, NULL: the model has none
 * @can_chat:  the model has a template that is understood
 * @can_embed: the model has a tokenizer, and its states are vectors
 * Returns 0 and a new object that the caller owns, or -ENOMEM.
 */
int facts_to_json(const struct engine_facts *facts, uint32_t sequences, const char *tokenizer, bool can_chat,
                  bool can_embed, json_object **ret);
