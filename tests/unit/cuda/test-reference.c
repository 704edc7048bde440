/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reference models with their layers on GPUs, through the test double of libcuda: none, one, half, all, and all on
 * two devices. The logits have the bits that the CPU gives, which the suite reference compares with those of other
 * engines.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "tests/unit/cuda/counts.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

#define N_TOKENS 34 /* more than a page: a step of all but two, and two of one */

static float *logits_of(const char *path, uint32_t layers, struct engine_facts *ret_facts)
{
    struct engine_config config = models_config(1, N_TOKENS);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = NULL;
    struct fault fault = {.kind = FAULT_NONE};
    uint32_t sequence, n_vocab;
    float *logits;
    char text[512];

    config.context_tokens = 64;
    config.k_type = config.v_type = TENSOR_F16;
    config.gpu.layers = layers;
    if (feed_open_path(path, &config, &e, &fault) < 0)
        fail_msg("%s: %s", path, fault_describe(&fault, text, sizeof(text)));
    engine_facts(e, ret_facts);
    n_vocab = feed_n_vocab(e);
    logits = calloc((size_t)N_TOKENS * n_vocab, sizeof(*logits));
    tokens = models_tokens(5, N_TOKENS, n_vocab);
    assert_non_null(logits);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed_tokens(e, sequence, tokens, N_TOKENS - 2, N_TOKENS, logits);
    feed_tokens(e, sequence, tokens + N_TOKENS - 2, 2, 1, logits + (size_t)(N_TOKENS - 2) * n_vocab);
    return logits;
}

static void same_bits_wherever_layers_are(void **state)
{
    const char *path = *state;
    struct engine_facts facts;
    _cleanup_free_ float *expected = logits_of(path, 0, &facts);
    const uint32_t layers[] = {1, facts.n_layers / 2, facts.n_layers, facts.n_layers};
    const size_t n = (size_t)N_TOKENS * facts.n_vocab;

    counts_forget_settings(NULL);
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
        _cleanup_free_ float *logits = NULL;

        if (i == 3 && counts_on_gpu())
            break;
        if (i == 3)
            counts_set("FAKE_CUDA_DEVICES", "2");
        logits = logits_of(path, layers[i], &facts);
        assert_int_equal(facts.gpu_layers, layers[i]);
        counts_assert_equal(facts.n_gpus, layers[i] == 0 ? 0 : i == 3 ? 2 : 1);
        for (size_t k = 0; k < n; k++)
            if (memcmp(&logits[k], &expected[k], sizeof(float)) != 0)
                fail_msg("%s, %u layers: value %zu is %.9g, expected %.9g", path, layers[i], k, (double)logits[k],
                         (double)expected[k]);
        counts_assert_none();
    }
}

static void there_is_a_reference_folder(void **state)
{
    skip();
}

static int is_model(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);

    return n > 5 && strcmp(entry->d_name + n - 5, ".gguf") == 0;
}

int main(void)
{
    const struct CMUnitTest none[] = {cmocka_unit_test(there_is_a_reference_folder)};
    const char *root = getenv("RESIDENTD_REFERENCE");
    struct CMUnitTest *tests = NULL;
    struct dirent **names = NULL;
    char folder[512] = "";
    int n;

    if (root)
        snprintf(folder, sizeof(folder), "%s/models", root);
    n = scandir(folder, &names, is_model, alphasort);
    if (n <= 0)
        return cmocka_run_group_tests(none, NULL, NULL);
    tests = calloc((size_t)n, sizeof(*tests));
    if (!tests)
        return 1;
    for (int i = 0; i < n; i++) {
        char *path = NULL;

        if (asprintf(&path, "%s/%s", folder, names[i]->d_name) < 0)
            return 1;
        tests[i] = (struct CMUnitTest){
            .name = names[i]->d_name, .test_func = same_bits_wherever_layers_are, .initial_state = path};
    }
    return _cmocka_run_group_tests("reference models on GPUs", tests, (size_t)n, NULL, NULL);
}
