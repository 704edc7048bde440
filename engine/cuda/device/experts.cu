/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mixtures of experts: engine/cpu/exec-experts.c for the GPU. The choice is that of the CPU, bit for bit: sums in 16
 * lanes, ties to the lower expert, weights ascending by expert. Of rows with NaN only that they stay NaN is the same.
 */
#include "engine/cuda/device/device.cuh"
#include "engine/cuda/device/math.cuh"

enum { GATE_SOFTMAX, GATE_SIGMOID, GATE_SOFTMAX_CHOSEN };

/* x = softmax(x), by one warp: its two halves do the same. */
DEV void warp_softmax(device_ptr<float> x, uint32_t n)
{
    uint32_t l = lane_index() % 16;
    float most = MINUS_INFINITY, sum = 0.0f, total;

    UNROLL_NOT
    for (uint32_t i = l; i < n; i += 16)
        most = math_max(most, x[i]);
    most = math_fold_max(most);
    most = most == MINUS_INFINITY ? 0.0f : most;
    UNROLL_NOT
    for (uint32_t i = l; i < n; i += 16)
        sum = sum + math_exp(x[i] - most);
    total = math_fold(sum);
    total = total == 0.0f ? 0.0f : divide(1.0f, total);
    warp_sync();
    UNROLL_NOT
    for (uint32_t i = lane_index(); i < n; i += 32)
        x[i] = math_exp(x[i] - most) * total;
    warp_sync();
}

/* The largest score that is not chosen yet, ties to the lower index; the same in all lanes. */
DEV uint32_t warp_best(device_ptr<const float> scores, device_ptr<const uint32_t> chosen, uint32_t n)
{
    uint32_t best = UINT32_MAX;
    float most = MINUS_INFINITY;

    UNROLL_NOT
    for (uint32_t i = lane_index(); i < n; i += 32) {
        float score = scores[i];

        if (!chosen[i] && (best == UINT32_MAX || score > most)) {
            best = i;
            most = score;
        }
    }
    UNROLL
    for (uint32_t m = 16; m > 0; m /= 2) {
        uint32_t other = shuffle_xor(best, m);
        float score = shuffle_xor(most, m);

        if (other != UINT32_MAX && (best == UINT32_MAX || score > most || (!(score < most) && other < best))) {
            best = other;
            most = score;
        }
    }
    return best;
}

/* Experts outside the best groups drop to minus infinity; a group is as good as its two best. @group: work space. */
DEV void limit_to_groups(const struct launch_route &a, device_ptr<float> scores, device_ptr<float> group,
                         device_ptr<uint32_t> chosen)
{
    uint32_t n_each = a.n_experts / a.n_groups;

    UNROLL_NOT
    for (uint32_t g = lane_index(); g < a.n_groups; g += 32) {
        float first = MINUS_INFINITY, second = first;

        UNROLL_NOT
        for (uint32_t i = g * n_each; i < (g + 1) * n_each; i++) {
            float score = scores[i];

            if (score > first) {
                second = first;
                first = score;
            } else if (score > second) {
                second = score;
            }
        }
        group[g] = first + second;
        chosen[g] = 0;
    }
    warp_sync();
    UNROLL_NOT
    for (uint32_t n = 0; n < a.n_groups_used; n++) {
        uint32_t best = warp_best(group, chosen, a.n_groups);

        warp_sync();
        if (lane_index() == 0)
            chosen[best] = 1;
        warp_sync();
    }
    UNROLL_NOT
    for (uint32_t i = lane_index(); i < a.n_experts; i += 32)
        if (!chosen[i / n_each])
            scores[i] = MINUS_INFINITY;
    warp_sync();
}

/* A warp per token. */
KERNEL(route, launch_route, 32)
{
    uint32_t t = block_x(), lane = lane_index();
    struct launch_routes r = launch_routes_at(a.routes, a.n_experts, (uint64_t)a.n_tokens * a.n_used);
    device_ptr<const float> logits = at_address<const float>(a.logits) + (uint64_t)t * a.n_experts;
    device_ptr<uint32_t> experts = at_address<uint32_t>(r.experts) + (uint64_t)t * a.n_used;
    device_ptr<float> weights = at_address<float>(r.weights) + (uint64_t)t * a.n_used;
    device_ptr<float> probs = dynamic_shared<float>(), scores = probs + a.n_experts, spare = scores + a.n_experts;
    device_ptr<uint32_t> chosen = recast<uint32_t>(spare + a.n_experts);

    UNROLL_NOT
    for (uint32_t i = lane; i < a.n_experts; i += 32)
        probs[i] = a.gating == GATE_SIGMOID ? math_sigmoid(logits[i]) : (float)logits[i];
    warp_sync();
    if (a.gating == GATE_SOFTMAX)
        warp_softmax(probs, a.n_experts);
    UNROLL_NOT
    for (uint32_t i = lane; i < a.n_experts; i += 32)
        scores[i] = a.bias ? probs[i] + at_address<const float>(a.bias)[i] : (float)probs[i];
    warp_sync();
    if (a.n_groups > 1)
        limit_to_groups(a, scores, spare, chosen);
    UNROLL_NOT
    for (uint32_t i = lane; i < a.n_experts; i += 32)
        chosen[i] = 0;
    warp_sync();
    UNROLL_NOT
    for (uint32_t n = 0; n < a.n_used; n++) {
        uint32_t best = warp_best(scores, chosen, a.n_experts);

        warp_sync();
        if (lane == 0)
            chosen[best] = 1;
        warp_sync();
    }
    /* Where a chosen expert stands is how many lie before it; their weights go to the scores' place. */
    UNROLL_NOT
    for (uint32_t i = lane; i < a.n_experts; i += 32) {
        uint32_t at = 0;

        if (!chosen[i])
            continue;
        UNROLL_NOT
        for (uint32_t j = 0; j < i; j++)
            at += chosen[j];
        experts[at] = i;
        scores[at] = probs[i];
    }
    warp_sync();
    if (a.gating == GATE_SOFTMAX_CHOSEN)
        warp_softmax(scores, a.n_used);
    if (a.normalise) {
        float sum = 0.0f, factor;

        UNROLL_NOT
        for (uint32_t i = 0; i < a.n_used; i++)
            sum = sum + scores[i];
        factor = divide(1.0f, sum < 0x1p-14f ? 0x1p-14f : sum);
        warp_sync();
        for (uint32_t i = lane; i < a.n_used; i += 32)
            scores[i] = scores[i] * factor;
        warp_sync();
    }
    for (uint32_t i = lane; i < a.n_used; i += 32)
        weights[i] = a.scale != 1.0f ? scores[i] * a.scale : (float)scores[i];
}

/* One block sorts the pairs of token and expert by expert: a thread counts, and later places, those of its experts. */
KERNEL(route_group, launch_route, LAUNCH_THREADS)
{
    uint64_t n_slots = (uint64_t)a.n_tokens * a.n_used;
    struct launch_routes r = launch_routes_at(a.routes, a.n_experts, n_slots);
    device_ptr<const uint32_t> experts = at_address<const uint32_t>(r.experts);
    device_ptr<uint32_t> count = dynamic_shared<uint32_t>(), first = count + a.n_experts;

    UNROLL_NOT
    for (uint32_t e = thread_index(); e < a.n_experts; e += LAUNCH_THREADS) {
        uint32_t n = 0;

        UNROLL_NOT
        for (uint64_t i = 0; i < n_slots; i++)
            n += experts[i] == e ? 1 : 0;
        count[e] = n;
    }
    barrier();
    if (thread_index() == 0) {
        uint32_t slot = 0, n_active = 0;

        UNROLL_NOT
        for (uint32_t e = 0; e < a.n_experts; e++) {
            uint32_t n = count[e];

            first[e] = slot;
            if (n == 0)
                continue;
            at_address<uint32_t>(r.active)[n_active] = e;
            at_address<uint32_t>(r.slot0)[n_active++] = slot;
            slot += n;
        }
        at_address<uint32_t>(r.slot0)[n_active] = slot;
        *at_address<uint32_t>(r.n_active) = n_active;
    }
    barrier();
    UNROLL_NOT
    for (uint32_t e = thread_index(); e < a.n_experts; e += LAUNCH_THREADS) {
        uint32_t slot = first[e];

        if (count[e] == 0)
            continue;
        UNROLL_NOT
        for (uint64_t i = 0; i < n_slots; i++) {
            if (experts[i] != e)
                continue;
            at_address<uint32_t>(r.slot_tokens)[slot] = (uint32_t)(i / a.n_used);
            at_address<uint32_t>(r.token_slots)[i] = slot++;
        }
    }
}

KERNEL(experts_sum, launch_experts_sum, LAUNCH_THREADS)
{
    uint32_t t = block_x(), c = block_y() * LAUNCH_THREADS + thread_index();
    struct launch_routes r = launch_routes_at(a.routes, a.n_experts, (uint64_t)a.n_tokens * a.n_used);
    device_ptr<const uint32_t> slots = at_address<const uint32_t>(r.token_slots) + (uint64_t)t * a.n_used;
    device_ptr<const float> weights = at_address<const float>(r.weights) + (uint64_t)t * a.n_used;
    device_ptr<float> x = at_address<float>(a.residual) + (uint64_t)t * a.n_rows + c;
    float sum;

    if (c >= a.n_rows)
        return;
    sum = *x;
    UNROLL_NOT
    for (uint32_t i = 0; i < a.n_used; i++)
        sum = fused(at_address<const float>(a.work)[(uint64_t)slots[i] * a.n_rows + c], weights[i], sum);
    *x = sum;
}
