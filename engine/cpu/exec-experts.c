/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mixtures of experts: choosing each token's experts, and products with each expert's own matrices.
 *
 * Tokens are grouped by expert, so that a step reads an expert's weights once for all its tokens, and those of
 * an expert without tokens not at all. A "slot" is a pair of token and expert; slots are numbered by expert,
 * then by token. The slots of one expert are its rows in values of GRAPH_ROWS_SLOTS, and its packed activations
 * begin a group of GRAPH_EXPERT_GROUP rows of their own.
 *
 * The rule of sums: an expert's product for a token has the same bits whatever other tokens it has, and each
 * element of the residual is changed by one thread, experts ascending; so a token's result does not depend on
 * its company.
 */

#include <assert.h>

#include "engine/cpu/ahead.h"
#include "engine/cpu/exec-ops.h"

_Static_assert(GRAPH_EXPERT_GROUP % LINEAR_PACK_STEP == 0, "groups are packed by different threads");

/* Floats of one thread for the products of GRAPH_EXPERTS_DOWN before they are weighted: they should stay in cache. */
#define DOWN_FLOATS 65536u

/* A value of the kind GRAPH_ROUTES, taken apart. Its size is graph_routes_words(). */
struct routes {
    uint32_t *n_active;
    uint32_t *active;      /* [n_experts] experts that have tokens, ascending; n_active are in use */
    uint32_t *slot0;       /* [n_experts + 1] first slot of active[i]; one more at the end */
    uint32_t *group0;      /* [n_experts + 1] first group of active[i]; one more at the end */
    uint32_t *experts;     /* [n_tokens, n_used] of each token, ascending */
    float *weights;        /* [n_tokens, n_used] of experts */
    uint32_t *slot_tokens; /* [n_tokens * n_used] */
    float *slot_weights;   /* [n_tokens * n_used] */
};

static struct routes routes_at(const struct exec_thread *t, uint32_t id)
{
    uint32_t n_experts = t->x->graph->n_experts;
    size_t n_slots = (size_t)t->x->batch->n_tokens * t->x->graph->n_experts_used;
    uint32_t *words = value(t, id);
    struct routes r = {.n_active = words};

    r.active = words + 1;
    r.slot0 = r.active + n_experts + 1;
    r.group0 = r.slot0 + n_experts + 1;
    r.experts = r.group0 + n_experts + 1;
    r.weights = (float *)(r.experts + n_slots);
    r.slot_tokens = r.experts + 2 * n_slots;
    r.slot_weights = (float *)(r.experts + 3 * n_slots);
    return r;
}

uint64_t exec_experts_scratch_bytes(const struct exec_config *x)
{
    uint64_t down = (uint64_t)LINEAR_ROW_STEP * x->tokens_max, route = 4 * (uint64_t)x->graph->n_experts;

    down = down > DOWN_FLOATS ? down : DOWN_FLOATS;
    return sizeof(float) * (down > route ? down : route);
}

/*
 * Marks the @n largest of scores[@n_all] in @chosen, ties to the lower index. There are @n of them whatever the
 * scores are: nothing is larger than a NaN.
 */
static void choose(const float *scores, uint32_t n_all, uint32_t n, uint8_t *chosen)
{
    for (uint32_t i = 0; i < n_all; i++)
        chosen[i] = 0;
    for (; n > 0; n--) {
        uint32_t best = UINT32_MAX;

        for (uint32_t i = 0; i < n_all; i++)
            if (!chosen[i] && (best == UINT32_MAX || scores[i] > scores[best]))
                best = i;
        chosen[best] = 1;
    }
}

/* Group-limited choice: experts outside the best groups drop to -infinity. A group is as good as its two best. */
static void limit_to_groups(const struct graph_op *op, float *scores, uint32_t n_experts, float *group_scores,
                            uint8_t *chosen)
{
    uint32_t n_groups = op->route.n_groups, n_each = n_experts / n_groups;

    for (uint32_t g = 0; g < n_groups; g++) {
        float first = -__builtin_inff(), second = first;

        for (uint32_t i = g * n_each; i < (g + 1) * n_each; i++) {
            if (scores[i] > first) {
                second = first;
                first = scores[i];
            } else if (scores[i] > second) {
                second = scores[i];
            }
        }
        group_scores[g] = first + second;
    }
    choose(group_scores, n_groups, op->route.n_groups_used, chosen);
    for (uint32_t i = 0; i < n_experts; i++)
        if (!chosen[i / n_each])
            scores[i] = -__builtin_inff();
}

/* The experts of one token, ascending, and their weights. */
static void route_token(const struct exec_thread *t, const struct graph_op *op, const float *logits, uint32_t *experts,
                        float *weights)
{
    const struct vector_table *v = &t->x->kernels->vector;
    uint32_t n_experts = t->x->graph->n_experts, n_used = t->x->graph->n_experts_used, n = 0;
    float *probs = (float *)(void *)(t->scratch + t->x->linear_scratch_bytes), *scores = probs + n_experts;
    uint8_t *chosen = (uint8_t *)(scores + n_experts);
    float sum = 0.0f;

    if (op->route.gating == GRAPH_GATE_SOFTMAX)
        v->softmax(probs, logits, n_experts);
    else if (op->route.gating == GRAPH_GATE_SIGMOID)
        v->map[VECTOR_SIGMOID](probs, logits, n_experts);
    else
        v->scale(probs, logits, 1.0f, n_experts);
    v->scale(scores, probs, 1.0f, n_experts);
    if (op->route.bias)
        v->add(scores, op->route.bias, n_experts);
    if (op->route.n_groups > 1)
        limit_to_groups(op, scores, n_experts, (float *)(chosen + (n_experts + 3) / 4 * 4), chosen);
    choose(scores, n_experts, n_used, chosen);

    for (uint32_t i = 0; i < n_experts; i++) {
        if (!chosen[i])
            continue;
        experts[n] = i;
        weights[n++] = probs[i];
    }
    if (op->route.gating == GRAPH_GATE_SOFTMAX_CHOSEN)
        v->softmax(weights, weights, n_used);
    if (op->route.normalise) {
        for (uint32_t i = 0; i < n_used; i++)
            sum += weights[i];
        /* The least sum is that of the models' own code: half precision's smallest normal number. */
        v->scale(weights, weights, 1.0f / (sum < 0x1p-14f ? 0x1p-14f : sum), n_used);
    }
    if (op->route.scale != 1.0f)
        v->scale(weights, weights, op->route.scale, n_used);
}

/* Sorts the pairs of token and expert by expert. */
static void group_tokens(const struct exec *x, const struct routes *r)
{
    uint32_t n_experts = x->graph->n_experts, n_used = x->graph->n_experts_used;
    size_t n_slots = (size_t)x->batch->n_tokens * n_used;
    uint32_t *next = r->slot0 + 1, n_active = 0, slot = 0, group = 0;

    /* Counts, then where each expert's next slot is; next[] moves up to where the expert after it begins. */
    for (uint32_t i = 0; i < n_experts; i++)
        next[i] = 0;
    for (size_t i = 0; i < n_slots; i++)
        next[r->experts[i]]++;
    for (uint32_t i = 0; i < n_experts; i++) {
        uint32_t n = next[i];

        next[i] = slot;
        slot += n;
    }
    for (size_t i = 0; i < n_slots; i++) {
        uint32_t at = next[r->experts[i]]++;

        r->slot_tokens[at] = (uint32_t)(i / n_used);
        r->slot_weights[at] = r->weights[i];
    }
    /* Now next[i] is the end of expert i; the list of active ones takes its place, which is never ahead of i. */
    slot = 0;
    for (uint32_t i = 0; i < n_experts; i++) {
        uint32_t end = next[i];

        if (end == slot)
            continue;
        r->active[n_active] = i;
        r->slot0[n_active] = slot;
        r->group0[n_active++] = group;
        group += (end - slot + GRAPH_EXPERT_GROUP - 1) / GRAPH_EXPERT_GROUP;
        slot = end;
    }
    r->slot0[n_active] = slot;
    r->group0[n_active] = group;
    *r->n_active = n_active;
}

void exec_op_route(struct exec_thread *t, const struct graph_op *op)
{
    uint32_t n_tokens = t->x->batch->n_tokens, n_used = t->x->graph->n_experts_used, from, to;
    struct routes r = routes_at(t, op->route.out);
    const float *logits = value(t, op->route.logits);

    while (draw(t, 4, n_tokens, &from, &to)) {
        for (uint32_t i = from; i < to; i++)
            route_token(t, op, logits + (size_t)i * t->x->graph->n_experts, r.experts + (size_t)i * n_used,
                        r.weights + (size_t)i * n_used);
        /* Whoever ends the last token has seen all others' choices (acquire), and groups them. */
        if (atomic_fetch_add_explicit(&t->x->n_routed, to - from, memory_order_acq_rel) + to - from == n_tokens) {
            group_tokens(t->x, &r);
            atomic_store_explicit(&t->x->n_routed, 0, memory_order_relaxed);
        }
    }
}

/* A single token's row is the same for all its experts: it is packed once, as the first expert's. */
static bool is_shared(const struct exec_thread *t, uint32_t packed)
{
    return t->x->batch->n_tokens == 1 && t->x->graph->values[packed].rows == GRAPH_ROWS_GATHERED;
}

static size_t group_bytes(const struct exec_thread *t, const struct graph_value *packed)
{
    return linear_pack_bytes(t->x->kernels, (enum act_format)packed->format, packed->n_cols, GRAPH_EXPERT_GROUP);
}

void exec_op_experts_pack(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph *g = t->x->graph;
    struct routes r = routes_at(t, op->experts_pack.routes);
    bool gather = g->values[op->experts_pack.in].rows == GRAPH_ROWS_TOKENS;
    uint32_t n_groups = is_shared(t, op->experts_pack.packs[0]) ? 1 : r.group0[*r.n_active];
    const float *in = value(t, op->experts_pack.in);
    uint32_t a = 0, from, to;

    while (draw(t, 1, n_groups, &from, &to)) {
        for (uint32_t group = from; group < to; group++) {
            uint32_t slot, m, m0, m1;

            while (r.group0[a + 1] <= group)
                a++;
            slot = r.slot0[a];
            m = r.slot0[a + 1] - slot;
            m0 = (group - r.group0[a]) * GRAPH_EXPERT_GROUP;
            m1 = m - m0 < GRAPH_EXPERT_GROUP ? m : m0 + GRAPH_EXPERT_GROUP;
            for (uint32_t i = 0; i < op->experts_pack.n_packs; i++) {
                const struct graph_value *v = &g->values[op->experts_pack.packs[i]];
                uint8_t *act = value(t, op->experts_pack.packs[i]);

                linear_pack_rows(t->x->kernels, (enum act_format)v->format,
                                 gather ? in : in + (size_t)slot * v->n_cols, v->n_cols,
                                 gather ? r.slot_tokens + slot : NULL, v->n_cols, m, m0, m1,
                                 act + r.group0[a] * group_bytes(t, v));
            }
        }
    }
}

void exec_need_experts(struct exec *x, size_t i_op)
{
    const struct graph_op *op = &x->graph->ops[i_op];
    struct exec_thread t = {.x = x};
    struct routes r;

    if (op->type != GRAPH_EXPERTS_GLU && op->type != GRAPH_EXPERTS_DOWN)
        return;
    r = routes_at(&t, op->type == GRAPH_EXPERTS_GLU ? op->experts_glu.routes : op->experts_down.routes);
    ahead_need_experts(x->ahead, i_op, r.active, *r.n_active);
}

/* Where active expert @a's packed rows are in the value @id. */
static const uint8_t *expert_act(const struct exec_thread *t, const struct routes *r, uint32_t id, uint32_t a)
{
    size_t group = is_shared(t, id) ? 0 : r->group0[a];

    return (const uint8_t *)value(t, id) + group * group_bytes(t, &t->x->graph->values[id]);
}

/* y[m, row1 - row0] = rows [row0, row1) of expert a's matrix times its tokens, with its bias and what adapters add. */
static void expert_product(struct exec_thread *t, const struct routes *r, const struct graph_linear *l,
                           uint32_t a, uint32_t row0, uint32_t row1, float *y, size_t y_stride)
{
    const struct graph_tensor *w = &l->weight;
    const uint8_t *rows = (const uint8_t *)w->data + r->active[a] * w->matrix_bytes + row0 * w->row_bytes;
    uint32_t m = r->slot0[a + 1] - r->slot0[a];
    const float *bias = l->bias ? l->bias + (size_t)r->active[a] * w->n_rows + row0 : NULL;

    linear_rows(t->x->kernels, w->type, rows, w->row_bytes, w->n_cols, 0, row1 - row0, expert_act(t, r, l->in, a), m,
                y, y_stride, t->scratch);
    for (uint32_t i = 0; bias && i < m; i++)
        t->x->kernels->vector.add(y + i * y_stride, bias, row1 - row0);
    for (uint32_t i = 0; l->site && t->x->batch->adapters && i < m; i++) {
        uint32_t slot = r->slot0[a] + i;

        exec_adapt_slot_rows(t, l, &(struct exec_slot){slot, r->slot_tokens[slot], r->active[a]}, row0, row1,
                             y + i * y_stride);
    }
}

void exec_op_adapt_experts(struct exec_thread *t, const struct graph_op *op)
{
    struct routes r = routes_at(t, op->adapt.routes);
    bool gather = t->x->graph->values[op->adapt.in].rows == GRAPH_ROWS_TOKENS;
    uint32_t n_cols = t->x->graph->values[op->adapt.in].n_cols, a = 0, from, to;
    const float *in = value(t, op->adapt.in);

    while (draw(t, 4, r.slot0[*r.n_active], &from, &to)) {
        for (uint32_t slot = from; slot < to; slot++) {
            uint32_t token = r.slot_tokens[slot];

            while (r.slot0[a + 1] <= slot)
                a++;
            exec_adapt_slot_down(t, op, &(struct exec_slot){slot, token, r.active[a]},
                                 in + (size_t)(gather ? token : slot) * n_cols);
        }
    }
}

void exec_op_experts_glu(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_linear *gate = &op->experts_glu.gate, *up = &op->experts_glu.up;
    struct routes r = routes_at(t, op->experts_glu.routes);
    uint32_t n_each = row_units(&gate->weight), n_units = *r.n_active * n_each, n_rows = gate->weight.n_rows, from, to;
    float *g = value(t, gate->out), *u = value(t, up->out), *out = value(t, op->experts_glu.out);

    while (draw(t, piece_size(t, n_units), n_units, &from, &to)) {
        while (from < to) {
            uint32_t a = from / n_each, first = from % n_each, past = first + to - from, row0, row1;
            size_t at;

            past = past < n_each ? past : n_each;
            unit_rows(&gate->weight, first, past, &row0, &row1);
            at = (size_t)r.slot0[a] * n_rows + row0;
            expert_product(t, &r, gate, a, row0, row1, g + at, n_rows);
            expert_product(t, &r, up, a, row0, row1, u + at, n_rows);
            for (uint32_t i = r.slot0[a]; i < r.slot0[a + 1]; i++, at += n_rows)
                activate(t->x->kernels, &op->experts_glu.activation, out + at, g + at, u + at, row1 - row0);
            from += past - first;
        }
    }
}

/*
 * A piece is a range of rows of all experts' matrices, so that one thread adds up each element of the residual;
 * no other thread has to be waited for between product and sum.
 */
void exec_op_experts_down(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_linear *down = &op->experts_down.down;
    struct routes r = routes_at(t, op->experts_down.routes);
    uint32_t n_units = row_units(&down->weight), n_cols = down->weight.n_rows, from, to;
    uint32_t rows_max = DOWN_FLOATS / t->x->batch->n_tokens / LINEAR_ROW_STEP * LINEAR_ROW_STEP;
    float *x = value(t, op->experts_down.residual), *y = (float *)(void *)(t->scratch + t->x->linear_scratch_bytes);

    rows_max = rows_max > 0 ? rows_max : LINEAR_ROW_STEP;
    while (draw(t, piece_size(t, n_units), n_units, &from, &to)) {
        uint32_t row0, row1, past;

        for (unit_rows(&down->weight, from, to, &row0, &past); row0 < past; row0 = row1) {
            row1 = past - row0 < rows_max ? past : row0 + rows_max;
            for (uint32_t a = 0; a < *r.n_active; a++) {
                expert_product(t, &r, down, a, row0, row1, y, row1 - row0);
                for (uint32_t i = r.slot0[a]; i < r.slot0[a + 1]; i++)
                    t->x->kernels->vector.add_scaled(x + (size_t)r.slot_tokens[i] * n_cols + row0,
                                                     y + (size_t)(i - r.slot0[a]) * (row1 - row0), r.slot_weights[i],
                                                     row1 - row0);
            }
        }
    }
}
