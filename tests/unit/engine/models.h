/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Models for the engine's tests, made by tests/model-writer. Failures end the program with a message.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "tests/model-writer/model_writer.h"

/**
 * models_wide() - one layer with rows of many blocks: 1280 and 2816 values, heads of 128, 8 queries for each KV head
 * @type: of the matrices
 */
struct model_shape models_wide(enum tensor_type type);

/**
 * models_deep() - small rows and a context of 4096, so that sequences of many pages and segments are quick to compute
 */
struct model_shape models_deep(void);

/**
 * models_config() - one thread, F32 keys and values, all kernels, logits for every token of a step
 */
struct engine_config models_config(uint32_t sequences_max, uint32_t batch_tokens_max);

/**
 * models_open() - the model as an engine; @config's descriptors are set here
 */
struct engine *models_open(const struct model_shape *shape, struct engine_config *config);

/**
 * models_open_parts() - the same, cut into @n_parts files
 */
struct engine *models_open_parts(const struct model_shape *shape, size_t n_parts, struct engine_config *config);

/**
 * models_tokens() - @n random tokens of @n_vocab; the caller frees them
 */
int32_t *models_tokens(uint64_t seed, uint32_t n, uint32_t n_vocab);
