/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Engines on models that the model writer makes up, for the tests of architectures. What can't go on fails the test.
 */

#include <stdint.h>

#include "engine/engine.h"
#include "tests/model-writer/model_writer.h"

/* What most tests don't care about. */
struct engine_config models_config(void);

/**
 * models_open() - an engine on a random model of @shape; fds in @config are ignored
 */
struct engine *models_open(const struct model_shape *shape, const struct engine_config *config);

/**
 * models_refused() - the reason why a random model of @shape can't be opened
 * @key:   of an integer that is changed to @value in the file; NULL: none is
 * Fails the test if it can be opened. Returns @buffer.
 */
const char *models_refused(const struct model_shape *shape, const char *key, uint32_t value, char *buffer,
                           size_t size);

/**
 * models_feed() - one step: @n tokens into @sequence, logits of the last @n_logits of them
 * Returns [n_logits, n_vocab], valid until the next step.
 */
const float *models_feed(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n, uint32_t n_logits);

/**
 * models_tokens() - @n tokens below @n_vocab, the same ones for the same @seed
 */
void models_tokens(int32_t *ret, uint32_t n, uint32_t n_vocab, uint64_t seed);
