/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/arch/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "tests/model-writer/random_blocks.h"

struct engine_config models_config(void)
{
    return (struct engine_config){
        .sequences_max = 4,
        .k_type = TENSOR_F32,
        .v_type = TENSOR_F32,
        .batch_tokens_max = 64,
        .outputs_max = 64,
        .n_threads = 2,
        .isa_mask = UINT32_MAX,
    };
}

/* The integer behind the key's name and type; there has to be one. */
static void patch(uint8_t *bytes, size_t n, const char *key, uint32_t value)
{
    uint8_t *at = memmem(bytes, n, key, strlen(key));

    assert_non_null(at);
    memcpy(at + strlen(key) + sizeof(uint32_t), &value, sizeof(value));
}

static int open_shape(const struct model_shape *shape, struct engine_config config, const char *key, uint32_t value,
                      struct engine **ret, struct fault *reterr)
{
    struct model_writer *w = model_writer_new();
    int fd = memfd_create("model", MFD_CLOEXEC), r;
    uint8_t *bytes;
    size_t n;

    if (strstr(shape->architecture, "bert"))
        model_writer_encoder(w, shape);
    else
        model_writer_llama(w, shape);
    bytes = model_writer_bytes(w, &n);
    model_writer_free(w);
    if (key)
        patch(bytes, n, key, value);
    assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    free(bytes);
    config.fds = &fd;
    config.n_fds = 1;
    r = engine_open(&config, ret, reterr);
    close(fd);
    return r;
}

struct engine *models_open(const struct model_shape *shape, const struct engine_config *config)
{
    struct engine *e = NULL;
    struct fault fault;
    char text[512];

    fault_init(&fault, FAULT_NONE, NULL);
    if (open_shape(shape, *config, NULL, 0, &e, &fault) < 0)
        fail_msg("%s: %s", shape->architecture, fault_describe(&fault, text, sizeof(text)));
    return e;
}

const char *models_refused(const struct model_shape *shape, const char *key, uint32_t value, char *buffer,
                           size_t size)
{
    struct engine_config config = models_config();
    struct engine *e = NULL;
    struct fault fault;

    fault_init(&fault, FAULT_NONE, NULL);
    if (open_shape(shape, config, key, value, &e, &fault) >= 0) {
        engine_free(e);
        fail_msg("%s: the model was not refused", shape->architecture);
    }
    snprintf(buffer, size, "%s", fault.reason);
    return buffer;
}

const float *models_feed(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n, uint32_t n_logits)
{
    uint32_t *sequences = calloc(n, sizeof(*sequences)), *positions = calloc(n, sizeof(*positions));
    uint8_t *wants = calloc(n, 1);
    const float *logits = NULL;
    struct fault fault;
    int r;

    assert_true(sequences && positions && wants);
    for (uint32_t i = 0; i < n; i++) {
        sequences[i] = sequence;
        positions[i] = engine_sequence_length(e, sequence) + i;
        wants[i] = i + n_logits >= n;
    }
    fault_init(&fault, FAULT_NONE, NULL);
    r = engine_step(e,
                    &(struct engine_batch){.n_tokens = n,
                                           .tokens = tokens,
                                           .sequences = sequences,
                                           .positions = positions,
                                           .wants_logits = wants},
                    &logits, &fault);
    if (r != 0)
        fail_msg("engine_step: %d %s", r, fault.reason);
    free(sequences);
    free(positions);
    free(wants);
    return logits;
}

void models_tokens(int32_t *ret, uint32_t n, uint32_t n_vocab, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        ret[i] = (int32_t)(random_next(&seed) % n_vocab);
}
