/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Choosing experts on the GPU, against the choice written out with the CPU's vector kernels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/graph/values.h"
#include "engine/kernels/kernels.h"
#include "tests/cuda-emulation/emulated-device.h"
#include "tests/unit/kernels/linear-cases.h"

enum { EXPERTS_MAX = 128, TOKENS = 21, USED_MAX = 8 };

static struct kernels scalar;

static void choose(const float *scores, uint32_t n_all, uint32_t n, bool *chosen)
{
    memset(chosen, 0, n_all * sizeof(*chosen));
    for (; n > 0; n--) {
        uint32_t best = UINT32_MAX;

        for (uint32_t i = 0; i < n_all; i++)
            if (!chosen[i] && (best == UINT32_MAX || scores[i] > scores[best]))
                best = i;
        chosen[best] = true;
    }
}

static void route_token(const struct launch_route *a, const float *logits, const float *bias, uint32_t *experts, float *weights)
{
    const struct vector_table *v = &scalar.vector;
    uint32_t n = a->n_experts, n_each = n / a->n_groups, at = 0;
    float probs[EXPERTS_MAX], scores[EXPERTS_MAX], groups[EXPERTS_MAX], sum = 0.0f;
    bool chosen[EXPERTS_MAX];

    memcpy(probs, logits, n * sizeof(float));
    if (a->gating == GRAPH_GATE_SOFTMAX)
        v->softmax(probs, logits, n);
    else if (a->gating == GRAPH_GATE_SIGMOID)
        v->map[VECTOR_SIGMOID](probs, logits, n);
    memcpy(scores, probs, sizeof(scores));
    if (bias)
        v->add(scores, bias, n);
    if (a->n_groups > 1) {
        for (uint32_t g = 0; g < a->n_groups; g++) {
            float first = -__builtin_inff(), second = first;

            for (uint32_t i = g * n_each; i < (g + 1) * n_each; i++) {
                float s = scores[i];

                second = s > first ? first : s > second ? s : second;
                first = s > first ? s : first;
            }
            groups[g] = first + second;
        }
        choose(groups, a->n_groups, a->n_groups_used, chosen);
        for (uint32_t i = 0; i < n; i++)
            if (!chosen[i / n_each])
                scores[i] = -__builtin_inff();
    }
    choose(scores, n, a->n_used, chosen);
    for (uint32_t i = 0; i < n; i++)
        if (chosen[i]) {
            experts[at] = i;
            weights[at++] = probs[i];
        }
    if (a->gating == GRAPH_GATE_SOFTMAX_CHOSEN)
        v->softmax(weights, weights, a->n_used);
    for (uint32_t i = 0; a->normalise && i < a->n_used; i++)
        sum += weights[i];
    if (a->normalise)
        v->scale(weights, weights, 1.0f / (sum < 0x1p-14f ? 0x1p-14f : sum), a->n_used);
    if (a->scale != 1.0f)
        v->scale(weights, weights, a->scale, a->n_used);
}

/* Slots in order of expert, then token. */
static void check_groups(const struct launch_route *a, const struct launch_routes *r)
{
    const uint32_t *experts = device_memory(r->experts), *active = device_memory(r->active);
    const uint32_t *slot0 = device_memory(r->slot0), *token_slots = device_memory(r->token_slots);
    const uint32_t *slot_tokens = device_memory(r->slot_tokens);
    uint32_t slot = 0, n_active = 0;

    for (uint32_t e = 0; e < a->n_experts; e++) {
        uint32_t first = slot;

        for (uint32_t i = 0; i < a->n_tokens * a->n_used; i++)
            if (experts[i] == e) {
                assert_int_equal(token_slots[i], slot);
                assert_int_equal(slot_tokens[slot++], i / a->n_used);
            }
        if (slot > first) {
            assert_int_equal(active[n_active], e);
            assert_int_equal(slot0[n_active++], first);
        }
    }
    assert_int_equal(*(uint32_t *)device_memory(r->n_active), n_active);
    assert_int_equal(slot0[n_active], slot);
}

/* Weighted rows of slots, added to each token's row. */
static void check_sum(const struct launch_route *a, const struct launch_routes *r, uint64_t *seed)
{
    enum { ROWS = 300 };
    uint32_t n_slots = TOKENS * a->n_used;
    float *work = malloc(sizeof(float) * n_slots * ROWS), *x = malloc(sizeof(float) * TOKENS * ROWS);
    const uint32_t *token_slots = device_memory(r->token_slots);
    const float *weights = device_memory(r->weights);
    struct launch_experts_sum s = {.routes = a->routes, .n_tokens = TOKENS, .n_rows = ROWS, .n_experts = a->n_experts,
                                   .n_used = a->n_used};

    assert_true(work && x);
    for (uint32_t i = 0; i < n_slots * ROWS; i++)
        work[i] = random_float(seed);
    for (uint32_t i = 0; i < TOKENS * ROWS; i++)
        x[i] = random_float(seed);
    s.work = device_copy(work, sizeof(float) * n_slots * ROWS);
    s.residual = device_new(sizeof(float) * TOKENS * ROWS);
    memcpy(device_memory(s.residual), x, sizeof(float) * TOKENS * ROWS);
    device_launch(LAUNCH_EXPERTS_SUM, &s);
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t i = 0; i < a->n_used; i++)
            scalar.vector.add_scaled(x + t * ROWS, work + token_slots[t * a->n_used + i] * ROWS, weights[t * a->n_used + i], ROWS);
    assert_floats_equal("sum", device_memory(s.residual), x, TOKENS * ROWS);
    free(work);
    free(x);
}

static void check_route(struct launch_route a, bool has_bias, bool has_ties, uint64_t *seed)
{
    static float logits[TOKENS * EXPERTS_MAX];
    float bias[EXPERTS_MAX], weights[TOKENS * USED_MAX];
    uint32_t experts[TOKENS * USED_MAX], words = (uint32_t)launch_routes_words(a.n_experts, TOKENS * a.n_used);
    struct launch_routes r;

    for (uint32_t i = 0; i < TOKENS * a.n_experts; i++)
        logits[i] = has_ties ? (float)(int)(random_float(seed) * 1.5f) : random_float(seed) * 2.0f;
    for (uint32_t i = 0; i < a.n_experts; i++)
        bias[i] = random_float(seed) * 0.1f;
    a.n_tokens = TOKENS;
    a.logits = device_copy(logits, sizeof(float) * TOKENS * a.n_experts);
    a.bias = has_bias ? device_copy(bias, sizeof(float) * a.n_experts) : 0;
    a.routes = device_new(4 * words);
    r = launch_routes_at(a.routes, a.n_experts, TOKENS * a.n_used);
    device_launch(LAUNCH_ROUTE, &a);
    for (uint32_t t = 0; t < TOKENS; t++)
        route_token(&a, logits + t * a.n_experts, has_bias ? bias : NULL, experts + t * a.n_used, weights + t * a.n_used);
    assert_memory_equal(device_memory(r.experts), experts, 4 * TOKENS * a.n_used);
    assert_floats_equal("weights", device_memory(r.weights), weights, TOKENS * a.n_used);
    device_launch(LAUNCH_ROUTE_GROUP, &a);
    check_groups(&a, &r);
    check_sum(&a, &r, seed);
    device_reset();
}

static void test_routes(void **state)
{
    static const struct launch_route routes[] = {
        {.n_experts = 8, .n_used = 2, .gating = GRAPH_GATE_SOFTMAX, .normalise = 1, .n_groups = 1, .n_groups_used = 1, .scale = 1},
        {.n_experts = 128, .n_used = 8, .gating = GRAPH_GATE_SOFTMAX, .n_groups = 1, .n_groups_used = 1, .scale = 2.5f},
        {.n_experts = 32, .n_used = 4, .gating = GRAPH_GATE_SOFTMAX_CHOSEN, .n_groups = 1, .n_groups_used = 1, .scale = 1},
        {.n_experts = 64, .n_used = 6, .gating = GRAPH_GATE_SIGMOID, .normalise = 1, .n_groups = 8, .n_groups_used = 3, .scale = 1.8f},
        {.n_experts = 5, .n_used = 5, .gating = GRAPH_GATE_SIGMOID, .n_groups = 1, .n_groups_used = 1, .scale = 1},
    };
    uint64_t seed = 21;

    (void)state;
    for (uint32_t i = 0; i < sizeof(routes) / sizeof(*routes); i++)
        for (uint32_t what = 0; what < 4; what++)
            check_route(routes[i], what & 1, what & 2, &seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
    };

    kernels_select(0, &scalar);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
