/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/engine/feed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static _Noreturn void give_up(const char *what, int r)
{
    fprintf(stderr, "feed: %s: %d\n", what, r);
    abort();
}

int feed_open_path(const char *path, struct engine_config *config, struct engine **ret, struct fault *reterr)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r;

    if (fd < 0)
        return -errno;
    config->fds = &fd;
    config->n_fds = 1;
    r = engine_open(config, ret, reterr);
    config->fds = NULL;
    return r;
}

uint32_t feed_n_vocab(const struct engine *e)
{
    struct engine_facts facts;

    engine_facts(e, &facts);
    return facts.n_vocab;
}

int feed_step(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n,
              const float **ret_logits)
{
    _cleanup_free_ uint32_t *numbers = calloc(2 * (size_t)n, sizeof(*numbers));
    _cleanup_free_ uint8_t *wants = calloc(n, 1);
    const float *logits;
    int r;

    if (!numbers || !wants)
        give_up("no memory", -ENOMEM);
    for (uint32_t i = 0; i < n; i++) {
        numbers[i] = sequence;
        numbers[n + i] = engine_sequence_length(e, sequence) + i;
        wants[i] = ret_logits != NULL;
    }
    r = engine_step(e,
                    &(struct engine_batch){.n_tokens = n,
                                           .tokens = tokens,
                                           .sequences = numbers,
                                           .positions = numbers + n,
                                           .wants_logits = wants},
                    &logits, NULL);
    if (r == 0 && ret_logits)
        *ret_logits = logits;
    return r;
}

void feed_tokens(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n, uint32_t chunk,
                 float *ret_logits)
{
    size_t n_vocab = feed_n_vocab(e);

    for (uint32_t at = 0; at < n; at += chunk) {
        uint32_t now = n - at < chunk ? n - at : chunk;
        const float *logits;
        int r = feed_step(e, sequence, tokens + at, now, ret_logits ? &logits : NULL);

        if (r != 0)
            give_up("engine_step", r);
        if (ret_logits)
            memcpy(ret_logits + at * n_vocab, logits, now * n_vocab * sizeof(float));
    }
}

void feed_new(struct engine *e, const int32_t *tokens, uint32_t n, uint32_t chunk, float *ret_logits)
{
    uint32_t sequence;
    int r = engine_sequence_open(e, &sequence);

    if (r != 0)
        give_up("engine_sequence_open", r);
    feed_tokens(e, sequence, tokens, n, chunk, ret_logits);
    engine_sequence_close(e, sequence);
}

int32_t feed_most_likely(const float *logits, uint32_t n_vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

void feed_greedy(struct engine *e, const int32_t *prompt, uint32_t n_prompt, uint32_t n, int32_t *ret)
{
    uint32_t n_vocab = feed_n_vocab(e), sequence;
    const float *logits;
    int r = engine_sequence_open(e, &sequence);

    if (r != 0)
        give_up("engine_sequence_open", r);
    feed_tokens(e, sequence, prompt, n_prompt - 1, 64, NULL);
    for (uint32_t i = 0; i < n; i++) {
        r = feed_step(e, sequence, i == 0 ? &prompt[n_prompt - 1] : &ret[i - 1], 1, &logits);
        if (r != 0)
            give_up("engine_step", r);
        ret[i] = feed_most_likely(logits, n_vocab);
    }
    engine_sequence_close(e, sequence);
}
