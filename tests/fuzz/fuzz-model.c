/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A model file from its first byte to logits: what opens has to compute without a crash, whatever its weights
 * are, and give its pages back; what is refused has to say why. Files of odd length run on the scalar
 * kernels. What begins with another "GGUF" behind the first is an adapter, with which all runs.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool promise)
{
    if (!promise)
        abort();
}

/* @n tokens behind what the sequence has. */
static void feed(struct engine *e, uint32_t sequence, uint32_t n, const struct engine_facts *facts)
{
    int32_t tokens[8];
    uint32_t sequences[8], positions[8], length = engine_sequence_length(e, sequence);
    uint8_t wants[8] = {0};
    const float *logits = NULL;
    int r;

    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)((length + i) * 7 % facts->n_vocab);
        sequences[i] = sequence;
        positions[i] = length + i;
    }
    wants[n - 1] = 1;
    r = engine_step(e,
                    &(struct engine_batch){.n_tokens = n,
                                           .tokens = tokens,
                                           .sequences = sequences,
                                           .positions = positions,
                                           .wants_logits = wants},
                    &logits, NULL);
    if (length + n > facts->context_tokens) {
        check(r == -EINVAL);
        return;
    }
    check(r == 0 && engine_sequence_length(e, sequence) == length + n);
    /* All of them are there to be read. */
    for (uint32_t i = 0; i < facts->n_vocab; i++)
        (void)*(const volatile float *)&logits[i];
}

static void compute(struct engine *e)
{
    struct engine_facts facts;
    uint32_t one, two;

    engine_facts(e, &facts);
    check(engine_sequence_open(e, &one) == 0);
    check(engine_sequence_adapt(e, one, facts.n_adapters) == 0);
    feed(e, one, 8, &facts);
    feed(e, one, 1, &facts);
    if (engine_sequence_length(e, one) >= 5) {
        check(engine_sequence_fork(e, one, 5, &two) == 0);
        feed(e, two, 5, &facts);
        check(engine_sequence_close(e, two) == 0);
    }
    check(engine_sequence_close(e, one) == 0);
    check(engine_pages_free(e) == facts.pages_total);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *second = size > 4 ? memmem(data + 4, size - 4, "GGUF", 4) : NULL;
    size_t n_model = second ? (size_t)(second - data) : size;
    int fd = memfd_create("model", MFD_CLOEXEC), adapter = memfd_create("adapter", MFD_CLOEXEC), r;
    struct fault fault = {.kind = FAULT_NONE};
    struct engine *e = NULL;

    check(fd >= 0 && write(fd, data, n_model) == (ssize_t)n_model);
    check(adapter >= 0 && (!second || write(adapter, second, size - n_model) == (ssize_t)(size - n_model)));
    r = engine_open(&(struct engine_config){.fds = &fd,
                                            .n_fds = 1,
                                            .adapters = &adapter,
                                            .n_adapters = second ? 1 : 0,
                                            .context_tokens = 64,
                                            .sequences_max = 2,
                                            .k_type = TENSOR_F16,
                                            .v_type = TENSOR_F16,
                                            .batch_tokens_max = 8,
                                            .n_threads = 1,
                                            .isa_mask = size % 2 ? 0 : UINT32_MAX},
                    &e, &fault);
    close(fd);
    close(adapter);
    if (r == 0)
        compute(e);
    else if (r != -ENOMEM)
        check(r == -EINVAL && fault.kind == FAULT_MODEL_INVALID && fault.reason[0]);
    engine_free(e);
    return 0;
}
