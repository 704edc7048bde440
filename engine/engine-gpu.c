/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening: try to place all layers that are wanted, and less while a device's memory is refused; everything is taken
 * before anything is copied, so a try costs little.
 *
 * What is carried is found once, by following where each value's last state is. Only f32 values cross: packed ones are
 * laid out by each side for itself, and are made where they are used.
 */

#include "engine/engine-gpu.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fault.h"
#include "engine/cuda/device.h"
#include "engine/engine-devices.h"
#include "engine/engine-gpu-pieces.h"
#include "engine/engine-internal.h"

/* What is left free of a device: others' windows grow, and the driver takes a little for each kernel. */
#define DEVICE_MARGIN_BYTES ((uint64_t)64 << 20)

/* Of a step, where memory is short: a prompt takes longer then, and a token of an answer does not. */
#define BATCH_TOKENS_SMALL 64

/* What a configuration comes to. */
struct placement {
    uint32_t n_layers, n_expert_layers;
    bool kv, head;
    uint32_t device_layers[ENGINE_DEVICES_MAX];
};

/* The device of the layer that has @n layers behind it. */
static uint8_t device_place(const struct engine_gpus *g, const struct placement *p, uint32_t n)
{
    for (uint32_t d = 0; d + 1 < g->n_gpus; d++) {
        if (n < p->device_layers[d])
            return (uint8_t)(d + 1);
        n -= p->device_layers[d];
    }
    return (uint8_t)g->n_gpus;
}

static bool is_expert_op(const struct graph_op *op)
{
    return op->type == GRAPH_ROUTE || op->type == GRAPH_EXPERTS_PACK || op->type == GRAPH_EXPERTS_GLU ||
           op->type == GRAPH_EXPERTS_DOWN || (op->type == GRAPH_ADAPT && op->adapt.routes != GRAPH_NONE);
}

static uint8_t op_place(const struct engine *e, const struct placement *p, const struct graph_op *op)
{
    uint32_t n_layers = e->arch.n_layers, n;

    if (p->n_layers == 0 || op->embeddings_only || op->layer == GRAPH_INPUT)
        return 0;
    if (op->layer == GRAPH_OUTPUT)
        return p->head && !e->graph.is_encoder ? device_place(&e->gpus, p, 0) : 0;
    n = n_layers - 1 - op->layer;
    if (n >= p->n_layers || (is_expert_op(op) && n >= p->n_expert_layers))
        return 0;
    if (!p->kv && (op->type == GRAPH_ROPE_WRITE || op->type == GRAPH_ATTENTION))
        return 0;
    return device_place(&e->gpus, p, n);
}

/* Layers with an operation that no GPU computes stay whole on the CPU. */
static void keep_back(struct engine *e)
{
    const struct graph *g = &e->graph;

    for (size_t i = 0; i < g->n_ops; i++) {
        if (e->gpus.places[i] == 0 || gpu_can_run(g, &g->ops[i], e->layouts))
            continue;
        for (size_t k = 0; k < g->n_ops; k++)
            if (g->ops[k].layer == g->ops[i].layer)
                e->gpus.places[k] = 0;
    }
}

/* Where the layers of each group are: operations get their number among those at the same place. */
static void number_layers(struct engine *e, uint32_t counts[ENGINE_DEVICES_MAX + 1][GRAPH_GROUPS_MAX])
{
    struct graph *g = &e->graph;

    memset(counts, 0, (ENGINE_DEVICES_MAX + 1) * sizeof(*counts));
    for (size_t i = 0; i < g->n_ops; i++) {
        uint32_t group, n;

        if (g->ops[i].type != GRAPH_ATTENTION)
            continue;
        group = g->ops[i].attention.group;
        n = counts[e->gpus.places[i]][group]++;
        for (size_t k = 0; k < g->n_ops; k++) {
            if (e->gpus.group_layers[k] != e->gpus.group_layers[i])
                continue;
            if (g->ops[k].type == GRAPH_ATTENTION && g->ops[k].attention.group == group)
                g->ops[k].attention.group_layer = n;
            if (g->ops[k].type == GRAPH_ROPE_WRITE && g->ops[k].rope_write.group == group)
                g->ops[k].rope_write.group_layer = n;
        }
    }
    for (uint32_t i = 0; i < g->n_groups; i++)
        g->groups[i].n_layers = counts[0][i];
}

static int add_transfer(struct engine *e, size_t op, uint32_t value, uint8_t from, uint8_t to)
{
    struct engine_gpus *g = &e->gpus;
    size_t at;

    if (e->graph.values[value].kind != GRAPH_F32)
        return -ENOTSUP;
    if ((g->n_transfers & (g->n_transfers + 1)) == 0) {
        struct engine_transfer *p = reallocarray(g->transfers, 2 * (g->n_transfers + 1), sizeof(*p));

        if (!p)
            return -ENOMEM;
        g->transfers = p;
    }
    /* They are found in the order of those who read, which is not always that of when. */
    for (at = g->n_transfers++; at > 0 && g->transfers[at - 1].op > op; at--)
        g->transfers[at] = g->transfers[at - 1];
    g->transfers[at] = (struct engine_transfer){.op = op, .value = value, .from = from, .to = to};
    return 0;
}

/* What is followed while transfers are looked for. */
struct following {
    uint32_t *valid;  /* [n_values] a bit for each place that has the value as it is now */
    size_t *readable; /* [n_values] the first operation behind the one that wrote it last */
};

static bool is_optional(const struct graph_op *op)
{
    return op->embeddings_only || op->adapters_only;
}

/*
 * Where a value that operation @i on a GPU reads is put: where the GPU begins with the operations around it, so that
 * they can be handed in as one graph. Its memory there is kept for it since it was written.
 */
static size_t put_at(const struct engine *e, size_t i, size_t readable)
{
    uint8_t place = e->gpus.places[i];

    /* Steps that leave an operation out don't carry for it, either. */
    while (place != 0 && i > readable && e->gpus.places[i - 1] == place && !is_optional(&e->graph.ops[i - 1]))
        i--;
    return i;
}

static int carry_for_op(struct engine *e, size_t i, struct following *f)
{
    const struct graph_op *op = &e->graph.ops[i];
    uint8_t place = e->gpus.places[i];
    struct graph_op_values v;
    int r = 0;

    graph_op_values(op, &v);
    for (size_t k = 0; r == 0 && k < v.n_reads; k++) {
        uint32_t id = v.reads[k];
        size_t at = is_optional(op) ? i : put_at(e, i, f->readable[id]);

        if (f->valid[id] & (1u << place))
            continue;
        r = add_transfer(e, at, id, (uint8_t)__builtin_ctz(f->valid[id]), place);
        if (!is_optional(op))
            f->valid[id] |= 1u << place;
    }
    for (size_t k = 0; k < v.n_writes; k++) {
        f->valid[v.writes[k]] = 1u << place;
        f->readable[v.writes[k]] = i + 1;
    }
    return r;
}

/* Returns 0, -ENOMEM, -ENOTSUP: something would have to be carried that can't. */
static int find_transfers(struct engine *e)
{
    size_t n = e->graph.n_values ? e->graph.n_values : 1;
    _cleanup_free_ uint32_t *valid = calloc(n, sizeof(*valid));
    _cleanup_free_ size_t *readable = calloc(n, sizeof(*readable));
    struct following f = {.valid = valid, .readable = readable};
    int r = valid && readable ? 0 : -ENOMEM;

    e->gpus.n_transfers = 0;
    for (size_t i = 0; r == 0 && i < e->graph.n_ops; i++)
        r = carry_for_op(e, i, &f);
    if (r == 0 && e->graph.logits != GRAPH_NONE && !(valid[e->graph.logits] & 1))
        r = add_transfer(e, e->graph.n_ops, e->graph.logits, (uint8_t)__builtin_ctz(valid[e->graph.logits]), 0);
    return r;
}

/* What is put between two values that are got, and one of those: by then all that was put is read. */
static uint64_t crossing_bytes(const struct engine *e, uint8_t place)
{
    uint64_t n_bytes = 0, most = 0;

    for (size_t i = 0; i < e->gpus.n_transfers; i++) {
        const struct engine_transfer *t = &e->gpus.transfers[i];
        const struct graph_value *v = &e->graph.values[t->value];
        const struct graph_op *op = t->op < e->graph.n_ops ? &e->graph.ops[t->op] : NULL;

        if (t->from != place && t->to != place)
            continue;
        /* The largest batch is what the CPU's memory was planned for. */
        n_bytes += v->n_bytes + 64;
        most = n_bytes > most ? n_bytes : most;
        /* Not where there may be nothing to wait for. */
        if (t->from == place && v->rows != GRAPH_ROWS_OUTPUTS && op && !is_optional(op))
            n_bytes = 0;
    }
    return most;
}

static void close_gpus(struct engine_gpus *g)
{
    for (uint32_t i = 0; i < g->n_gpus; i++)
        g->gpus[i] = gpu_free(g->gpus[i]);
    g->pieces = engine_pieces_free(g->pieces);
}

static struct gpu_config gpu_config_of(const struct engine *e)
{
    return (struct gpu_config){
        .graph = &e->graph,
        .places = e->gpus.places,
        .layouts = e->layouts,
        .tokens_max = e->batch_tokens_max,
        .outputs_max = e->outputs_max,
        .sequences_max = e->sequences_max,
        .pages_max = e->context_tokens / KV_PAGE_TOKENS + 1,
    };
}

/* Whether one device can work on a piece of a step while another works on the next: layers are on several of them, and
 * none waits in the middle of its own for what another makes. */
static bool works_in_turns(const struct engine *e)
{
    bool on_cpu = false;

    for (size_t i = 0; i < e->graph.n_ops; i++)
        on_cpu |= e->graph.ops[i].layer < e->arch.n_layers && e->gpus.places[i] == 0;
    for (size_t i = 0; i < e->gpus.n_transfers; i++) {
        const struct engine_transfer *t = &e->gpus.transfers[i];

        if (t->to == 0 && t->op < e->graph.n_ops && e->graph.ops[t->op].layer < e->arch.n_layers)
            return false;
    }
    return !e->graph.is_encoder && (on_cpu || e->gpus.n_gpus > 1);
}

static int prepare_pieces(struct engine *e, uint32_t piece_tokens)
{
    uint32_t n = piece_tokens ? piece_tokens : ENGINE_PIECE_TOKENS;

    if (e->gpus.n_gpus == 0 || e->batch_tokens_max / 2 < n || !works_in_turns(e))
        return 0;
    return engine_pieces_new(e->batch_tokens_max, e->outputs_max, n, &e->gpus.pieces);
}

/* Where each operation is, and what is carried. Returns 0, -ENOMEM, -ENOTSUP. */
static int place_ops(struct engine *e, const struct placement *p,
                     uint32_t counts[ENGINE_DEVICES_MAX + 1][GRAPH_GROUPS_MAX])
{
    for (size_t i = 0; i < e->graph.n_ops; i++)
        e->gpus.places[i] = op_place(e, p, &e->graph.ops[i]);
    keep_back(e);
    number_layers(e, counts);
    return find_transfers(e);
}

/* Takes the memory for one placement. Returns as gpu_new(), and -ENOTSUP. */
static int try_placement(struct engine *e, const struct placement *p, const uint32_t *devices,
                         const uint32_t *n_pages, struct fault *reterr)
{
    uint32_t counts[ENGINE_DEVICES_MAX + 1][GRAPH_GROUPS_MAX];
    struct gpu_config config = gpu_config_of(e);
    int r;

    r = place_ops(e, p, counts);
    if (r != 0 || p->n_layers == 0)
        return r;
    memcpy(config.group_pages, n_pages, sizeof(config.group_pages));
    for (uint32_t i = 0; r == 0 && i < e->gpus.n_gpus; i++) {
        config.device = engine_devices_find(e->gpus.devices, devices[i]);
        config.place = (uint8_t)(i + 1);
        config.crossing_bytes = crossing_bytes(e, config.place);
        memcpy(config.group_layers, counts[config.place], sizeof(config.group_layers));
        r = gpu_new(&config, &e->gpus.gpus[i], reterr);
    }
    if (r != 0)
        close_gpus(&e->gpus);
    return r;
}

/* Layers by what is free on each device; the first device has the last layers. */
static void share_layers(struct placement *p, const uint64_t *room, uint32_t n)
{
    uint32_t left = p->n_layers;
    double all = 0;

    for (uint32_t i = 0; i < n; i++)
        all += (double)room[i];
    for (uint32_t i = 0; i < n; i++) {
        double part = all > 0 ? (double)room[i] / all * p->n_layers + 0.5 : 0;
        uint32_t m = part < left ? (uint32_t)part : left;

        p->device_layers[i] = i + 1 == n ? left : m;
        left -= p->device_layers[i];
    }
}

/* The configuration's devices, or all; those that can't be used are left out, with the last one's reason. */
static int find_devices(struct engine *e, const struct engine_gpu_config *c, uint32_t *devices, uint64_t *room,
                        struct fault *reterr)
{
    struct engine_device_info known[ENGINE_DEVICES_MAX];
    size_t n_known = engine_devices_list(e->gpus.devices, known);

    fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "%s", engine_devices_reason(e->gpus.devices));
    for (uint32_t i = 0; i < (c->n_devices ? c->n_devices : n_known); i++) {
        uint32_t k = 0;

        while (c->n_devices && k < n_known && known[k].i_device != c->devices[i])
            k++;
        k = c->n_devices ? k : i;
        if (k == n_known || e->gpus.n_gpus == ENGINE_DEVICES_MAX)
            continue;
        room[e->gpus.n_gpus] = known[k].free_bytes;
        room[e->gpus.n_gpus] -= room[e->gpus.n_gpus] < DEVICE_MARGIN_BYTES ? room[e->gpus.n_gpus] : DEVICE_MARGIN_BYTES;
        devices[e->gpus.n_gpus++] = known[k].i_device;
    }
    if (c->n_devices && e->gpus.n_gpus < c->n_devices && engine_devices_reason(e->gpus.devices)[0] == 0)
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "a GPU that was planned with is not there any more");
    if (e->gpus.n_gpus == 0)
        return DRIVER_NO_GPU;
    if (!c->n_devices || e->gpus.n_gpus == c->n_devices)
        fault_init(reterr, FAULT_NONE, NULL);
    return 0;
}

static bool can_keep_kv(const struct engine *e)
{
    for (uint32_t i = 0; i < e->graph.n_groups; i++)
        if (!gpu_can_keep(&e->layouts[i]))
            return false;
    return true;
}

static struct placement placement_of(const struct engine *e, const struct engine_gpu_config *c, uint32_t n_layers)
{
    struct placement p = {
        .n_layers = n_layers,
        .n_expert_layers = c->experts_in_ram ? 0 : n_layers,
        .kv = !c->kv_in_ram && !(e->gpus.given_up & ENGINE_GPU_KV) && can_keep_kv(e),
    };

    if (!c->experts_in_ram && c->expert_layers && c->expert_layers < n_layers)
        p.n_expert_layers = c->expert_layers;
    p.head = c->head == ENGINE_HEAD_VRAM || (c->head == ENGINE_HEAD_AUTO && n_layers == e->arch.n_layers);
    return p;
}

struct found {
    uint32_t devices[ENGINE_DEVICES_MAX];
    uint64_t room[ENGINE_DEVICES_MAX];
};

/* As many layers as fit; *@ret_refused: why it are not all that were wanted. */
static int place_layers(struct engine *e, const struct engine_gpu_config *c, const struct found *found,
                        const uint32_t *n_pages, struct fault *ret_refused)
{
    uint32_t n = c->layers < e->arch.n_layers ? c->layers : e->arch.n_layers;
    bool planned = c->device_layers != NULL;

    for (;;) {
        struct placement p = placement_of(e, c, n);
        int r;

        share_layers(&p, found->room, e->gpus.n_gpus);
        if (planned && e->gpus.n_gpus == c->n_devices)
            memcpy(p.device_layers, c->device_layers, c->n_devices * sizeof(*c->device_layers));
        r = try_placement(e, &p, found->devices, n_pages, ret_refused);
        if (r != DRIVER_OUT_OF_MEMORY || c->exact) {
            e->gpus.n_layers = r == 0 ? n : 0;
            return r;
        }
        /* What was planned was planned for more room than there is. */
        planned = false;
        n -= n > 8 ? n / 8 : 1;
        if (n == 0)
            return DRIVER_OUT_OF_MEMORY;
    }
}

uint32_t engine_gpus_small_steps(const struct engine *e)
{
    uint32_t n = e->outputs_max > BATCH_TOKENS_SMALL ? e->outputs_max : BATCH_TOKENS_SMALL;

    /* An encoder's texts are whole in a step. */
    return e->graph.is_encoder || n >= e->batch_tokens_max ? 0 : n;
}

static bool give_up(struct engine *e, const struct engine_gpu_config *c, enum engine_gpu_part part)
{
    uint32_t n = engine_gpus_small_steps(e);

    if (part == ENGINE_GPU_KV && (c->kv_in_ram || !can_keep_kv(e)))
        return false;
    if (part == ENGINE_GPU_BATCH) {
        if (n == 0)
            return false;
        e->batch_tokens_max = n;
    }
    e->gpus.given_up |= part;
    return true;
}

/* Fewer layers where the configuration lets them be fewer; where not one has room, or they have to be as many, smaller
 * steps, and then keys and values in RAM, too. */
static int place(struct engine *e, const struct engine_gpu_config *c, const uint32_t *n_pages,
                 struct fault *ret_refused)
{
    static const enum engine_gpu_part parts[] = {ENGINE_GPU_BATCH, ENGINE_GPU_KV};
    uint32_t batch_tokens_max = e->batch_tokens_max;
    struct fault ignored = {.kind = FAULT_NONE};
    struct found found;
    int r = find_devices(e, c, found.devices, found.room, ret_refused);

    if (r == 0 && c->small_steps)
        (void)give_up(e, c, ENGINE_GPU_BATCH);
    if (r == 0)
        r = place_layers(e, c, &found, n_pages, ret_refused);
    for (size_t i = 0; r == DRIVER_OUT_OF_MEMORY && i < sizeof(parts) / sizeof(*parts); i++)
        if (give_up(e, c, parts[i]))
            r = place_layers(e, c, &found, n_pages, &ignored); /* what was wanted first is what has to be told */
    if (r != 0) {
        e->batch_tokens_max = batch_tokens_max;
        e->gpus.given_up = 0;
    }
    return r;
}

/* Nothing on GPUs: what open_sequences() and the CPU's executor want to see. */
static int place_nothing(struct engine *e)
{
    const struct placement none = {.n_layers = 0};

    close_gpus(&e->gpus);
    e->gpus.n_gpus = e->gpus.n_layers = 0;
    e->facts.n_released = 0;
    return try_placement(e, &none, NULL, NULL, NULL);
}

static void say_why(struct engine *e, const struct fault *f)
{
    char *to = e->facts.gpu_reason;
    size_t n;

    /* The model is not unavailable, it is computed elsewhere: of such a fault only the reason is true. */
    if (f->kind == FAULT_MODEL_UNAVAILABLE)
        snprintf(to, sizeof(e->facts.gpu_reason), "%.*s", (int)sizeof(e->facts.gpu_reason) - 1, f->reason);
    else if (f->kind != FAULT_NONE)
        fault_describe(f, to, sizeof(e->facts.gpu_reason));
    n = strlen(to);
    if (e->gpus.given_up & ENGINE_GPU_BATCH)
        n += (size_t)snprintf(to + n, sizeof(e->facts.gpu_reason) - n, "%sa step takes %u tokens at most",
                              n > 0 ? "; " : "", e->batch_tokens_max);
    if ((e->gpus.given_up & ENGINE_GPU_KV) && n < sizeof(e->facts.gpu_reason))
        snprintf(to + n, sizeof(e->facts.gpu_reason) - n, "%skeys and values are in RAM", n > 0 ? "; " : "");
}

static void fill_facts(struct engine *e)
{
    struct engine_facts *f = &e->facts;

    f->gpu_layers = 0;
    for (uint32_t layer = 0; layer < e->arch.n_layers; layer++) {
        bool any = false;

        for (size_t i = 0; i < e->graph.n_ops; i++)
            any |= e->graph.ops[i].layer == layer && e->gpus.places[i] != 0;
        f->gpu_layers += any;
    }
    f->n_gpus = e->gpus.n_gpus;
    for (uint32_t i = 0; i < e->gpus.n_gpus; i++) {
        const struct driver_device *d = gpu_device(e->gpus.gpus[i]);
        struct gpu_bytes b;

        gpu_bytes(e->gpus.gpus[i], &b);
        f->gpus[i] = (struct engine_gpu_facts){.i_device = d->i_device,
                                               .name = d->name,
                                               .bus_id = d->bus_id,
                                               .bytes_weights = b.weights,
                                               .bytes_kv = b.kv,
                                               .bytes_scratch = b.scratch,
                                               .bytes_driver = b.context};
    }
}

/* How much of the files is copied before what of it need not stay in memory is forgotten: enough that the kernel's
 * work for it is little beside the copy's. */
#define FORGET_BYTES ((uint64_t)64 << 20)

/* Of one device's upload, what all of them come to. */
struct loading {
    const struct engine *e;
    const struct engine_gpu_config *config;
    uint64_t before, total, forgotten; /* up to there */
};

static bool on_progress(void *userdata, uint64_t n_bytes)
{
    struct loading *l = userdata;

    if (l->before + n_bytes - l->forgotten >= FORGET_BYTES) {
        engine_gpus_forget(l->e);
        l->forgotten = l->before + n_bytes;
    }
    return !l->config->progress || l->config->progress(l->config->userdata, l->before + n_bytes, l->total);
}

static int load_weights(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    struct loading l = {.e = e, .config = &c->gpu};
    int r = 0;

    for (uint32_t i = 0; i < e->gpus.n_gpus; i++)
        l.total += gpu_weights_bytes(e->gpus.gpus[i]);
    for (uint32_t i = 0; r == 0 && i < e->gpus.n_gpus; i++) {
        r = gpu_load(e->gpus.gpus[i], on_progress, &l, reterr);
        l.before += gpu_weights_bytes(e->gpus.gpus[i]);
    }
    return r;
}

/* Whether a GPU could be used at all; the reason why not is said. */
static int open_devices(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    if (c->weights_bytes_max) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "",
                  "models with a limit of the memory for their weights are computed on the processor");
        return DRIVER_NO_GPU;
    }
    if (c->gpu.open)
        return 0;
    e->gpus.owns_devices = true;
    return engine_devices_open(c->gpu.devices, c->gpu.n_devices, &e->gpus.devices);
}

static int prepare(struct engine *e)
{
    struct engine_gpus *g = &e->gpus;

    g->places = calloc(e->graph.n_ops, sizeof(*g->places));
    g->group_layers = calloc(e->graph.n_ops, sizeof(*g->group_layers));
    g->n_top_room = (size_t)(e->outputs_max ? e->outputs_max : 1) * ENGINE_TOP_MAX;
    g->top_ids = calloc(g->n_top_room, sizeof(*g->top_ids));
    g->top_logits = calloc(g->n_top_room, sizeof(*g->top_logits));
    if (!g->places || !g->group_layers || !g->top_ids || !g->top_logits)
        return -ENOMEM;
    for (size_t i = 0; i < e->graph.n_ops; i++) {
        const struct graph_op *op = &e->graph.ops[i];

        g->group_layers[i] = op->type == GRAPH_ATTENTION    ? op->attention.group_layer
                             : op->type == GRAPH_ROPE_WRITE ? op->rope_write.group_layer
                                                            : GRAPH_NONE;
    }
    return 0;
}

int engine_gpus_open(struct engine *e, const struct engine_config *c, const uint32_t *n_pages, struct fault *reterr)
{
    struct fault refused = {.kind = FAULT_NONE};
    int r;

    if (c->gpu.layers == 0)
        return 0;
    r = prepare(e);
    if (r < 0)
        return r;
    e->gpus.devices = c->gpu.open;
    r = open_devices(e, c, &refused);
    if (r == 0)
        r = place(e, &c->gpu, n_pages, &refused);
    if (r == 0 && engine_gpus_lock_later(c))
        r = engine_gpus_find_released(e);
    if (r == 0)
        r = load_weights(e, c, &refused);
    if (r == -ENOMEM || r == -ECANCELED)
        return r;
    if (r == DRIVER_OUT_OF_MEMORY && c->gpu.exact) {
        if (reterr)
            *reterr = refused;
        return -ENOMEM;
    }
    /* A device that others filled while weights were on their way: there is still the CPU. */
    if (r != 0) {
        int error = place_nothing(e);

        if (error < 0)
            return error;
    }
    say_why(e, &refused);
    fill_facts(e);
    r = prepare_pieces(e, c->gpu.piece_tokens);
    if (r < 0)
        return r;
    return 0;
}

int engine_gpus_measure(struct engine *e, const struct engine_gpu_config *c, const uint32_t *n_pages,
                        struct gpu_bytes *ret, bool *ret_layers)
{
    const struct placement p = placement_of(e, c, e->arch.n_layers);
    uint32_t counts[ENGINE_DEVICES_MAX + 1][GRAPH_GROUPS_MAX];
    struct gpu_config config;
    uint32_t small = c->small_steps ? engine_gpus_small_steps(e) : 0;
    int r = e->gpus.places ? 0 : prepare(e);

    e->gpus.n_gpus = 1;
    if (r == 0)
        r = place_ops(e, &p, counts);
    e->gpus.n_gpus = 0;
    if (r < 0)
        return r;
    memset(ret_layers, 0, e->arch.n_layers * sizeof(*ret_layers));
    for (size_t i = 0; i < e->graph.n_ops; i++)
        if (e->gpus.places[i] != 0 && e->graph.ops[i].layer < e->arch.n_layers)
            ret_layers[e->graph.ops[i].layer] = true;
    config = gpu_config_of(e);
    config.tokens_max = small > 0 ? small : config.tokens_max;
    config.place = 1;
    memcpy(config.group_pages, n_pages, sizeof(config.group_pages));
    memcpy(config.group_layers, counts[1], sizeof(config.group_layers));
    return gpu_measure(&config, ret);
}

void engine_gpus_close(struct engine_gpus *g)
{
    close_gpus(g);
    if (g->owns_devices)
        engine_devices_close(g->devices);
    free(g->places);
    free(g->group_layers);
    free(g->transfers);
    free(g->released);
    free(g->top_ids);
    free(g->top_logits);
}

