/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model that computes: weights from a GGUF file, sequences (timelines of tokens with their keys and values) and the
 * step, which feeds a ragged batch of tokens of any of them through the model. The only header of the engine that the
 * worker and the tool need for computing; tensors, graphs and kernels stay behind it.
 *
 * What it promises (the rule of sums, docs/decisions.md): the logits of a sequence have the same bits whether it is
 * alone in the batch or in company, prefilled at once or in chunks of any size, and with any number of threads.
 *
 * Threads: an engine belongs to one caller at a time; only engine_cancel() may come from another thread. Different
 * engines are independent of each other. Nothing here logs, exits or aborts on input; engine_step() allocates nothing.
 *
 * Numbers of sequences, tokens and positions that a caller passes are checked (-EINVAL), never trusted.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/gguf/types.h"

struct engine;
struct engine_devices;
struct fault;
struct gguf;

/* Expected outcomes, positive so that they can't be mistaken for errors. */
enum engine_result {
    ENGINE_FULL = 1,  /* all sequences_max sequences are open */
    ENGINE_KV_FULL,   /* too few free KV pages; nothing was computed or changed */
    ENGINE_CANCELLED, /* engine_cancel() came; the batch's tokens count as not fed */
    ENGINE_GPU_FULL, /* a GPU's driver had no memory for the step: the batch's tokens count as not fed */
    ENGINE_WINDOW_GONE, /* keys that windowed layers would have to see are given back: begin anew */
};

/* Tokens per KV page: the grain in which memory for keys and values is handed out and shared. */
#define ENGINE_PAGE_TOKENS 32
#define ENGINE_ADAPTERS_MAX 64
#define ENGINE_DEVICES_MAX 8 /* GPUs that one model is spread over */
#define ENGINE_LAYERS_ALL UINT32_MAX

/* Which part of a model is put on GPUs. What does not fit there stays on the CPU: facts.gpu_layers says what came of
 * it, facts.gpu_reason why it is less. All zero: nothing. */
struct engine_gpu_config {
    uint32_t layers;        /* the last so many; ENGINE_LAYERS_ALL */
    uint32_t expert_layers; /* the last so many of those with their experts; 0: all of them */
    bool experts_in_ram;    /* none with their experts */
    bool kv_in_ram;   /* keys and values, and with them attention, stay on the CPU */
    bool small_steps; /* of few tokens from the start: a plan had no room for larger ones */
    enum { ENGINE_HEAD_AUTO, ENGINE_HEAD_RAM, ENGINE_HEAD_VRAM } head; /* AUTO: on a GPU if all layers are */
    const uint32_t *devices; /* [n_devices] numbers of GPUs; borrowed for engine_open(); none: all there are */
    size_t n_devices;
    const uint32_t *device_layers; /* [n_devices] of the last layers, the first device's; NULL: by what is free */
    uint32_t piece_tokens; /* at least, of a step that is cut for several devices to work at a time; 0: 128 */
    bool exact; /* as many or none: else it is not opened. Steps may become smaller, keys and values stay in RAM */
    bool keep_locked; /* what is there stays locked in RAM, too */
    uint64_t ram_bytes_max; /* of locked weights and the KV cache; 0: no limit. If it would be more it is not opened */
    struct engine_devices *open; /* borrowed for the engine's life; NULL: opened for it, and closed with it */
    /* Bytes copied to GPUs so far, of so many; false ends; may be NULL. */
    bool (*progress)(void *userdata, uint64_t n_bytes, uint64_t n_total);
    void *userdata;
};

struct engine_config {
    const int *fds; /* [n_fds] the file, or the parts of a split one in their order; borrowed for engine_open() only */
    size_t n_fds;
    const int *adapters;       /* [n_adapters] files of adapters, one each (engine/arch/adapt.h); borrowed likewise */
    size_t n_adapters;         /* at most ENGINE_ADAPTERS_MAX */
    uint32_t context_tokens;   /* longest sequence; 0: the model's own context length. Never more than that */
    uint32_t sequences_max;    /* open at the same time, >= 1 */
    uint64_t kv_tokens;        /* room for keys and values over all sequences; 0: context * sequences */
    enum tensor_type k_type;   /* of the KV cache: see kv_layout_init() */
    enum tensor_type v_type;
    uint32_t batch_tokens_max; /* of one step; 0: 512 */
    uint32_t outputs_max;      /* tokens of one step that may want logits, n_vocab floats each; 0: sequences_max */
    uint32_t n_threads;        /* including the caller's; 0: one for each core that the process may use */
    uint32_t isa_mask;         /* ISA_* bits that kernels may use if the machine has them; UINT32_MAX: all, 0: scalar */
    uint64_t weights_bytes_max; /* of matrices in memory at any time, the others are read again in each step; 0: all */
    bool lock;                 /* mlock the weights, or what stays of them in memory */
    bool populate;             /* fault the weights in before engine_open() returns */
    bool touch; /* … and read a byte of each page: a virtual machine may have to wait for it (docs/performance.md) */
    bool small_pages;          /* the weights by 4 KiB pages only, not by 2 MiB where there are such */
    struct engine_gpu_config gpu;
};

struct engine_range {
    uint32_t file;
    uint64_t from, n_bytes; /* whole pages, or up to the file's end */
};

/* Bytes of one GPU's memory that a model has taken. Strings belong to the engine. */
struct engine_gpu_facts {
    uint32_t i_device;
    const char *name, *bus_id;
    uint64_t bytes_weights, bytes_kv, bytes_scratch;
    uint64_t bytes_driver; /* of the context and the kernels; 0: unknown */
};

/* What a loaded model is and takes. Strings belong to the engine. */
struct engine_facts {
    const char *architecture;
    const char *name;         /* general.name, "" when the file has none */
    const char *quantization; /* as people call it: "Q4_K_M", "F16", … or the type of most of the weights */
    const char *isa;          /* the kernels in use: "scalar", "avx2", "avx512_vnni", … */
    uint64_t n_parameters;
    uint32_t n_layers, n_vocab, n_embedding;
    bool is_encoder; /* tokens see those behind them too; there are embeddings and no logits */
    uint32_t context_trained_tokens; /* the model's own */
    uint32_t context_tokens;         /* of this engine */
    uint32_t sequences_max, batch_tokens_max, outputs_max, n_threads;
    uint32_t page_tokens, pages_total;
    uint32_t n_adapters;
    uint64_t bytes_weights;    /* mapped: the whole file(s), adapters too */
    uint64_t bytes_per_token;  /* weights that are read to make one token */
    uint64_t bytes_kv;         /* reserved for keys and values in RAM */
    uint64_t bytes_kv_page;    /* of all layers, wherever they are */
    uint64_t bytes_scratch;    /* reserved for activations, logits and each thread's work space */
    uint32_t gpu_layers;       /* with anything of them on GPUs */
    uint32_t n_gpus;
    struct engine_gpu_facts gpus[ENGINE_DEVICES_MAX]; /* [n_gpus] */
    char gpu_reason[256];      /* why fewer layers are on GPUs than were wanted; "" if not */
    uint64_t bytes_locked;     /* of the weights; 0 or bytes_weights, or less with weights_bytes_max or GPUs */
    /* [n_released] What of the files is not locked, since only GPUs read it; in order. */
    const struct engine_range *released;
    size_t n_released;
};

/**
 * engine_open() - map a model, check it and make everything that computing with it needs
 * @config: borrowed for the call
 * @ret:    the engine, owned by the caller: engine_free()
 * @reterr: may be NULL; why not: FAULT_MODEL_INVALID (offset, reason; the caller fills in the model's name)
 *          for a file that is no model this engine can run, FAULT_INSUFFICIENT_MEMORY (needed) when memory,
 *          weights_bytes_max or RLIMIT_MEMLOCK is too small
 * Returns 0; -EINVAL (the file, or a config that makes no sense), -ENOMEM, -EPERM (lock), or what mmap or threads say.
 */
int engine_open(const struct engine_config *config, struct engine **ret, struct fault *reterr);

/**
 * engine_free() - end threads and open sequences, unmap everything; takes NULL, returns NULL. Not while a step runs
 */
struct engine *engine_free(struct engine *e);

DEFINE_CLEANUP(struct engine *, engine_free)
#define _cleanup_engine_ _cleanup_(engine_freep)

/**
 * engine_gguf() - the file's directory (for the tokenizer, templates, `info`); belongs to the engine
 */
const struct gguf *engine_gguf(const struct engine *e);

/**
 * engine_facts() - fill in *ret; the strings live as long as the engine
 */
void engine_facts(const struct engine *e, struct engine_facts *ret);

/**
 * engine_threads_set() - from the next step on compute with @n threads, the caller's included; 0: one for each core
 * Between steps only; changes no bit of a result. Returns 0, -ENOMEM, -EAGAIN (no more threads): the old number stays.
 */
int engine_threads_set(struct engine *e, uint32_t n);

/**
 * engine_sequence_open() - begin an empty sequence; *ret is its number, < sequences_max
 * Returns 0 or ENGINE_FULL. Takes no pages before the first step.
 */
int engine_sequence_open(struct engine *e, uint32_t *ret);

/**
 * engine_sequence_adapt() - compute an empty sequence with an adapter from now on, and what is forked from it
 * @adapter: from 1, in the order of engine_config.adapters; 0: none, as after opening
 * Returns 0, -EINVAL when it is not open, not empty, or there is no such adapter.
 */
int engine_sequence_adapt(struct engine *e, uint32_t sequence, uint32_t adapter);

/**
 * engine_sequence_close() - end a sequence and give its pages back; the number may be handed out again
 * Returns 0, -EINVAL when it is not open.
 */
int engine_sequence_close(struct engine *e, uint32_t sequence);

/**
 * engine_sequence_truncate() - keep only the first @n_tokens; pages behind them are given back
 * Back to where the last step began always works until the next step (speculation), and to 0 always.
 * Returns 0; ENGINE_WINDOW_GONE below engine_sequence_reach(); -EINVAL when it is not open, or shorter.
 */
int engine_sequence_truncate(struct engine *e, uint32_t sequence, uint32_t n_tokens);

/**
 * engine_sequence_fork() - a new sequence that begins with the first @n_tokens of @from, without computing them again
 * Full pages are shared (and never written again), a partly used last one is copied.
 * Returns 0 and the new number in *ret, ENGINE_FULL, ENGINE_KV_FULL (no page for the copy), ENGINE_WINDOW_GONE below
 * engine_sequence_reach(), -EINVAL.
 */
int engine_sequence_fork(struct engine *e, uint32_t from, uint32_t n_tokens, uint32_t *ret);

/**
 * engine_sequence_length() - tokens fed so far; 0 for a number that is not open
 */
uint32_t engine_sequence_length(const struct engine *e, uint32_t sequence);

/**
 * engine_sequence_reach() - the fewest tokens, other than none, that the sequence can be cut back to or forked at
 * 0 for models without windows: any number. With windows, a layer has the keys of its window only; how far a sequence
 * reaches back moves on with each of its steps. A cache of prefixes can share a sequence's end, but not its middle.
 */
uint32_t engine_sequence_reach(const struct engine *e, uint32_t sequence);

/**
 * engine_sequence_pages() - KV pages that the sequence holds, shared ones included; 0 for a number that is not open
 */
uint32_t engine_sequence_pages(const struct engine *e, uint32_t sequence);

/**
 * engine_pages_free() - KV pages that nobody holds, of facts.pages_total
 */
uint32_t engine_pages_free(const struct engine *e);

#define ENGINE_TOP_MAX 64
/* [n_wanted, n] The n largest logits of each row, of equal ones the lower token first; NaN where there are no more. */
struct engine_top {
    uint32_t n;
    const uint32_t *ids;
    const float *logits;
};

/*
 * One step's work, ragged: decode tokens and prompt chunks of any sequences together, in any order between sequences.
 * The tokens of one sequence stand in order of position and continue it: the first one's position is its length. All
 * arrays are [n_tokens] and borrowed for the call.
 */
struct engine_batch {
    uint32_t n_tokens; /* 1 … facts.batch_tokens_max */
    const int32_t *tokens;
    const uint32_t *sequences;
    const uint32_t *positions;
    const uint8_t *wants_logits; /* non-zero: a row of logits for this token; at most facts.outputs_max of them */
    bool wants_embeddings;       /* the model's last hidden state of every token: engine_embeddings() */
    uint32_t n_top; /* the so many largest logits of a row will do: engine_top(); 0: all. At most ENGINE_TOP_MAX */
    /* For an encoder (facts.is_encoder) a text is one step: all its tokens, side by side, into an empty sequence. */
};

/**
 * engine_step() - run one batch through the model
 * @e:          one caller at a time, whose thread computes too; engine_cancel() may come from any thread
 * @ret_logits: [n_wanted, n_vocab] in the batch's order; owned by @e, valid until the next step; NULL: none, or
 *              engine_top() has what was wanted
 * @reterr:     may be NULL; FAULT_CONTEXT_TOO_LONG when a position is beyond context_tokens
 * Returns 0; ENGINE_KV_FULL (free pages and try again), ENGINE_CANCELLED, ENGINE_GPU_FULL (@reterr:
 * FAULT_INSUFFICIENT_MEMORY; try again, or with fewer tokens); -EINVAL for a batch that breaks the rules above
 * (a token that is no token, a sequence that is not open, a wrong position, too many); -EIO: a GPU was lost (@reterr:
 * FAULT_MODEL_UNAVAILABLE), no further step will do. The sequences grow on 0 only.
 * Allocates nothing; time is O(n_tokens * length).
 */
int engine_step(struct engine *e, const struct engine_batch *batch, const float **ret_logits, struct fault *reterr);

/**
 * engine_top() - what a GPU found in the last step, until the next one; NULL: all logits are there, or none
 */
const struct engine_top *engine_top(const struct engine *e);

/**
 * engine_embeddings() - the hidden states behind the last norm, before the output matrix, of all tokens of a step
 * Of the last successful engine_step(), whose batch must have had wants_embeddings; valid until the next step.
 * Returns [n_tokens, n_embedding] f32 row-major, in the batch's order.
 */
const float *engine_embeddings(const struct engine *e);

/**
 * engine_cancel() - make the running step, or else the next, return ENGINE_CANCELLED soon; from any thread
 */
void engine_cancel(struct engine *e);

/* Time spent per kind of operation, summed over layers and steps since engine_profile_start(). */
struct engine_profile {
    const char *operation; /* "linear q4_k", "attention", … */
    uint64_t n_calls;
    uint64_t time_ns;      /* of thread 0, waiting for the others included */
};

/**
 * engine_profile_start() - from now on take times of operations (a few percent slower), beginning at 0
 */
void engine_profile_start(struct engine *e);

/**
 * engine_profile() - the table so far, as the model runs, valid until the next step; all times 0 if never started
 */
void engine_profile(struct engine *e, const struct engine_profile **ret, size_t *ret_n);

/**
 * engine_stream() - read the weights with all threads, as fast as they can and without computing anything
 * What the memory gives is the bound of decoding; `bench` puts the two beside each other.
 * @bytes_max: at most so many; *ret_bytes: what was read of them in *ret_ns
 */
void engine_stream(struct engine *e, uint64_t bytes_max, uint64_t *ret_bytes, uint64_t *ret_ns);
