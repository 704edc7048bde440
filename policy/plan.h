/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Where the parts of a model go: a pure function from facts (what the file holds, as a worker read it; what the machine
 * has; what the policy or a person asks for) to a placement with exact bytes, a prediction of its speed, and, beside
 * it, what other wishes would come to. Used by the daemon before it loads, by Models.Plan, and by tests.
 *
 * Bytes are exact where the CPU engine allocates (weights, KV pages, scratch: engine/engine-shape.c counts with the
 * engine's own functions) and a declared reserve where a driver does.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct fault;
struct json_object;

#define PLAN_LAYERS_MAX 1024
#define PLAN_RANGES_MAX 65536
#define PLAN_GROUPS_MAX 8
#define PLAN_KV_TYPES_MAX 16
#define PLAN_DEVICES_MAX 64
#define PLAN_REASONS_MAX 8
#define PLAN_ALTERNATIVES_MAX 12
#define PLAN_PAGE_BYTES UINT64_C(4096) /* that RAM is locked in */
#define PLAN_AUTO UINT32_MAX
#define PLAN_ALL (UINT32_MAX - 1)
#define PLAN_RAM (-1) /* instead of a device */

struct plan_layer {
    uint64_t dense_bytes;  /* attention, norms, dense feed-forward, shared experts */
    uint64_t expert_bytes; /* of all experts; 0: none */
    uint64_t adapter_bytes, adapter_expert_bytes; /* what adapters bring for each of both: it goes where they go */
    uint32_t group;        /* whose KV pages it has */
    bool can_offload;      /* a GPU can compute it */
};

/* What a type of keys or values costs in one page of one layer. */
struct plan_kv_type {
    char name[16];
    uint64_t k_bytes, v_bytes;
    bool on_gpu; /* it can be in VRAM */
};

/* Layers with the same kind of attention. */
struct plan_group {
    uint32_t window; /* 0: full attention */
    uint64_t pages_per_sequence, pages_per_step; /* most that a window needs: of every open sequence, and in all */
    struct plan_kv_type types[PLAN_KV_TYPES_MAX]; /* [n_types] */
    size_t n_types;
};

/* Tensors that follow one another in a file and are on a GPU under the same conditions; those that never are, are in
 * none. */
struct plan_run {
    uint32_t file;
    uint64_t from, n_bytes; /* to where the next tensor begins */
    uint32_t layer;         /* n_layers: of none, behind all of them */
    uint8_t with;           /* bit i: on the layer's GPU, where i (PLAN_GPU_*) is there */
    bool is_end;            /* of the file */
};

/* What a model file holds and takes. */
struct plan_shape {
    struct plan_layer *layers; /* [n_layers] */
    uint32_t n_layers;
    struct plan_group groups[PLAN_GROUPS_MAX]; /* [n_groups] */
    uint32_t n_groups;
    uint64_t file_bytes;      /* mapped as a whole */
    uint64_t embedding_bytes; /* read a row a token: always in RAM */
    uint64_t head_bytes;      /* output matrix; of a tied model the embedding's bytes, which stay in RAM too */
    bool head_is_tied;
    uint64_t head_adapter_bytes; /* what adapters bring for it */
    uint64_t rest_bytes;      /* everything else that is read for each token */
    uint64_t n_parameters;
    uint32_t n_experts, n_experts_used; /* 0: no experts */
    uint64_t open[2]; /* for n sequences at a time, [0] * n + [1] are open */
    uint32_t context_trained_tokens, page_tokens;
    uint32_t batch_tokens;
    uint64_t scratch_bytes;        /* of a step, for the sequences that it was asked for */
    uint64_t thread_scratch_bytes; /* of each thread */
    uint64_t other_bytes, other_thread_bytes; /* of what is loaded with it (a draft model): all; of each thread */
    uint64_t gpu_scratch_bytes[8]; /* of each device in use, by PLAN_GPU_* of what is there */
    uint64_t gpu_small_scratch_bytes[8]; /* the same with steps of gpu_small_tokens; 0 tokens: there are no such */
    uint32_t gpu_small_tokens;
    uint64_t gpu_padding_bytes;    /* of each layer there, beyond its bytes in the file */
    struct plan_run *runs; /* [n_runs] by file and offset; none: only sizes of tensors are known */
    size_t n_runs;
    double read_gbps;              /* what this machine's memory gave; 0: not measured */
};

enum { PLAN_GPU_KV = 1, PLAN_GPU_HEAD = 2, PLAN_GPU_EXPERTS = 4 };

/**
 * plan_shape_parse() - the "shape" member of a worker's facts
 * A worker read it from a file that anybody may have made: every number is checked, sums may not leave uint64_t.
 * @ret: to be released by plan_shape_done()
 * Returns 0, -EINVAL, -ENOMEM.
 */
int plan_shape_parse(struct json_object *shape, struct plan_shape *ret);

/**
 * plan_shape_done() - release what is embedded; works on a zeroed one
 */
void plan_shape_done(struct plan_shape *shape);

struct plan_device {
    uint32_t index;
    uint64_t budget_bytes;   /* for this model */
    uint64_t overhead_bytes; /* what the driver takes for a context */
    double read_gbps;        /* 0: PLAN_DEVICE_GBPS */
};

#define PLAN_DEVICE_GBPS 400.0
#define PLAN_RAM_GBPS 20.0
/* A CUDA context with one module; devices differ by some ten MiB. */
#define PLAN_DEVICE_OVERHEAD_BYTES (UINT64_C(320) << 20)

enum plan_experts { PLAN_EXPERTS_AUTO, PLAN_EXPERTS_RAM, PLAN_EXPERTS_VRAM };

/* What is wanted, and what there is. */
struct plan_wish {
    uint32_t context_tokens; /* of one sequence; 0: as trained */
    uint32_t sequences;
    const char *k, *v;       /* types of the KV cache */
    uint32_t gpu_layers;     /* PLAN_AUTO: as many as are worth it; PLAN_ALL */
    uint32_t gpu_layers_max; /* PLAN_AUTO goes no further; 0: no limit */
    enum plan_experts experts;
    bool keeps_offloaded;    /* tensors that live in VRAM keep their RAM too */
    bool is_mapped_only;     /* weights in RAM may be evicted: they need no budget */
    uint64_t weights_bytes_max; /* of weights in RAM, where the rest is read as it is needed; 0: all */
    uint64_t ram_bytes;      /* budget for this model */
    uint64_t ram_shared_bytes; /* of its files, what is in memory for others anyway: that needs no budget */
    uint32_t n_threads;
    const struct plan_device *devices; /* [n_devices] */
    size_t n_devices;
};

struct plan_bytes {
    uint64_t weights, kv, scratch, driver;
};

struct plan_result {
    bool fits, devices_fit;
    uint32_t gpu_layers, expert_layers; /* with their dense part, and with their experts, in VRAM */
    bool kv_on_gpu; /* of the layers that are there */
    bool head_on_gpu;
    bool small_steps; /* of gpu_small_tokens: VRAM has no room for larger ones */
    uint32_t context_tokens, sequences;
    struct plan_bytes ram, devices[PLAN_DEVICES_MAX]; /* [n_devices] */
    uint32_t device_layers[PLAN_DEVICES_MAX];
    size_t n_devices;
    uint64_t ram_needed_bytes, vram_needed_bytes; /* sums; the first without weights that are only mapped */
    double decode_tps; /* predicted for one sequence that is half full */
    char reasons[PLAN_REASONS_MAX][160];
    size_t n_reasons;
};

/* Whole pages of one of the model's files. */
struct plan_range {
    uint32_t file;
    uint64_t from, n_bytes;
};

/* One change to a wish and what it would come to. */
struct plan_alternative {
    char change[96];    /* for people */
    char key[32];       /* "context_tokens", "sequences", "kv_type", "gpu_layers", "quantization", "ram_bytes" */
    char text[16];      /* the value where it is a name */
    uint64_t value;     /* … and where it is a number */
    bool fits;
    uint32_t gpu_layers;
    double decode_tps;
};

/**
 * plan_make() - the fastest placement that fits; where none does, the one that needs least, with fits false
 * Returns 0; -EINVAL when the model has no such KV type (*ret is untouched).
 */
int plan_make(const struct plan_shape *shape, const struct plan_wish *wish, struct plan_result *ret);

/**
 * plan_alternatives() - single changes to @wish, those that fit first, the faster ones before the slower
 * Where the wish itself fits, only what would be at least PLAN_WORTH faster is named.
 * @made: what plan_make() said of @wish
 * @ret:  [PLAN_ALTERNATIVES_MAX]; how many there are is returned
 */
size_t plan_alternatives(const struct plan_shape *shape, const struct plan_wish *wish, const struct plan_result *made,
                         struct plan_alternative *ret);

#define PLAN_WORTH 1.05

/**
 * plan_left_out() - what of the files need not be held in RAM under plan @r, since only GPUs read it
 * @ret: [shape->n_runs], filled in by file and offset; may be NULL. @ret_n: how many; may be NULL
 * Returns how many bytes they are.
 */
uint64_t plan_left_out(const struct plan_shape *shape, const struct plan_result *r, struct plan_range *ret,
                       size_t *ret_n);

/**
 * plan_suggestions() - the alternatives that fit, as InsufficientMemory carries them: [{"change", "value"}, …]
 * Returns 0 or -ENOMEM; an empty array where nothing helps.
 */
int plan_suggestions(const struct plan_alternative *alternatives, size_t n, struct json_object **ret);
