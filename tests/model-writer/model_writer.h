/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Writes GGUF files for tests: right ones, and wrong ones field by field. Everything is deterministic: the same calls
 * give the same bytes. Tensors of random weights are made while they are written, so a model may be larger than memory.
 *
 * The library serves tests only: what can't go on (no memory, a failed write, a misuse) ends the program with a message.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/read.h"
#include "engine/gguf/types.h"

struct model_writer;

/**
 * model_writer_new() - an empty model of version 3 with an alignment of 32
 */
struct model_writer *model_writer_new(void);

/**
 * model_writer_free() - takes NULL, returns NULL
 */
struct model_writer *model_writer_free(struct model_writer *w);

/**
 * model_writer_version() - another version number, whatever it means
 */
void model_writer_version(struct model_writer *w, uint32_t version);

/**
 * model_writer_align() - place tensors at multiples of @alignment; adds no key
 */
void model_writer_align(struct model_writer *w, uint32_t alignment);

/**
 * model_writer_key() - a key with a value of @n_bytes raw bytes, as they shall stand in the file behind the type
 * Keys have to be added before tensors. Neither the name nor the value is checked.
 * Returns the file offset of the value, as all the functions for keys do.
 */
uint64_t model_writer_key(struct model_writer *w, const char *name, uint32_t type, const void *value, size_t n_bytes);

uint64_t model_writer_u16(struct model_writer *w, const char *name, uint16_t value);
uint64_t model_writer_u32(struct model_writer *w, const char *name, uint32_t value);
uint64_t model_writer_i32(struct model_writer *w, const char *name, int32_t value);
uint64_t model_writer_u64(struct model_writer *w, const char *name, uint64_t value);
uint64_t model_writer_f32(struct model_writer *w, const char *name, float value);
uint64_t model_writer_bool(struct model_writer *w, const char *name, bool value);
uint64_t model_writer_string(struct model_writer *w, const char *name, const char *value);

/**
 * model_writer_array() - an array of @n elements of a fixed-size type, given as they stand in the file
 * The offset returned is that of the first element, which is 12 behind the type of the array's elements.
 */
uint64_t model_writer_array(struct model_writer *w, const char *name, uint32_t element_type, const void *elements,
                            uint64_t n, size_t n_bytes);

/**
 * model_writer_strings() - an array of strings, none of which holds a NUL
 */
uint64_t model_writer_strings(struct model_writer *w, const char *name, const char *const *strings, size_t n);

/**
 * model_writer_tensor() - a tensor with @n_bytes of data (copied), placed behind the one before
 * @dims: [n_dims], dims[0] is the row length
 * Returns the file offset of the tensor's record, as all the functions for tensors do.
 */
uint64_t model_writer_tensor(struct model_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                             const uint64_t *dims, const void *data, size_t n_bytes);

/**
 * model_writer_tensor_random() - a tensor of random values with a mean near 0 and about the standard deviation @std
 * For quantised types the blocks' bits are random and their scales fit @std. @seed decides the values.
 */
uint64_t model_writer_tensor_random(struct model_writer *w, const char *name, enum tensor_type type, uint32_t n_dims,
                                    const uint64_t *dims, float std, uint64_t seed);

/**
 * model_writer_tensor_at() - a record without data that claims to have them at @offset in the data section
 */
uint64_t model_writer_tensor_at(struct model_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                                const uint64_t *dims, uint64_t offset);

/**
 * model_writer_bytes() - the whole file in memory; the caller frees it
 */
uint8_t *model_writer_bytes(const struct model_writer *w, size_t *ret_n);

/**
 * model_writer_write() - the whole file into @fd, from its current position on
 */
void model_writer_write(const struct model_writer *w, int fd);

/**
 * model_writer_write_sparse() - the same with holes for random tensors: of a model of any size only the header exists
 */
void model_writer_write_sparse(const struct model_writer *w, int fd);

/**
 * model_writer_memfd() - the whole file as a memfd, unsealed, for the caller to close
 */
int model_writer_memfd(const struct model_writer *w);

/**
 * model_writer_split() - part @part (from 0) of @n_parts of a model: a new writer with every n-th share of the tensors
 * The first part has all keys; each gets split.no, split.count and split.tensors.count.
 */
struct model_writer *model_writer_split(const struct model_writer *w, size_t part, size_t n_parts);

/* A random adapter (LoRA). */
struct adapter_shape {
    const char *architecture;
    uint32_t rank;
    float alpha;           /* 0: no key */
    enum tensor_type type; /* of both factors; where rows are no whole blocks of it, F32 */
    uint32_t period;       /* it changes every period-th matrix; 1: all */
    uint64_t seed;
};

/**
 * model_writer_adapter() - all keys and tensors of an adapter for the matrices of @model but embeddings and heads' own
 */
void model_writer_adapter(struct model_writer *w, const struct model_writer *model, const struct adapter_shape *shape);

/* A random model. Start from model_shape_default(). */
struct model_shape {
    const char *architecture; /* "llama", "qwen2" …: its keys and tensors; an unknown one gets llama's */
    const char *name;
    uint32_t n_layers, dim, ff, n_heads, n_kv_heads;
    uint32_t head_dim; /* 0: dim / n_heads */
    uint32_t n_vocab, context;
    uint32_t n_experts, n_experts_used; /* 0: dense */
    uint32_t expert_ff, shared_ff;      /* 0: ff, and no key */
    struct {
        uint32_t kv_rank, q_rank; /* kv_rank 0: not this kind of attention */
        uint32_t n_rot, v_dim;    /* head_dim is the rest of a key */
        bool compressed;          /* K and V apart, or in one matrix */
    } latent;
    uint32_t dense_layers;              /* before those with experts */
    uint32_t expert_groups, expert_groups_used;
    bool sigmoid;                       /* gates, with a bias for the choice, weights that are divided by their sum and
                                           multiplied by 2.5 */
    uint32_t window;                    /* of the layers that have one; 0: no key */
    enum tensor_type type; /* of the matrices; rows that are no whole number of its blocks become F16 */
    enum tensor_type embedding_type, output_type, v_type, down_type; /* TENSOR_TYPE_MAX: as type */
    bool mixed;            /* v_type and down_type in half of the layers, as llama.cpp's Q4_K_M has Q6_K; as type in the
                              others */
    bool tied;             /* no output.weight */
    float rope_base, rms_epsilon;
    const char *rope_scaling; /* NULL, "linear", "yarn", or "llama3" (a rope_freqs.weight tensor) */
    float rope_factor;
    uint32_t rope_original_context;
    const char *tokenizer;     /* "llama" (SPM), "gpt2" (byte-level BPE) or "bert" (WordPiece), as in
                                  tokenizer.ggml.model; NULL: none */
    const char *chat_template; /* NULL: none */
    uint32_t pooling;          /* of an encoder: 1 mean, 2 cls, 3 last; 0: no key */
    uint64_t seed;
};

/* The fewest tokens that the vocabularies of model_writer_vocabulary() need. */
#define MODEL_VOCABULARY_MIN 400u

/* A short ChatML template for model_shape.chat_template; both vocabularies have its control tokens. */
extern const char model_chatml_template[];

/**
 * model_shape_default() - 2 layers, dim 256, ff 512, 8 heads, 2 KV heads, 512 tokens, context 256, F32, SPM, ChatML
 */
struct model_shape model_shape_default(void);

/**
 * model_writer_vocabulary() - the tokenizer.* keys of a small vocabulary that can encode any text
 * @kind: "llama": <unk> <s> </s>, 256 byte tokens, letters and some words with scores, <|im_start|> <|im_end|>;
 *        "gpt2": 256 byte tokens, some merges, <|endoftext|> <|im_start|> <|im_end|>, pre-tokenizer gpt-2;
 *        "bert": [PAD] [UNK] [CLS] [SEP] [MASK], letters, digits, some signs and words
 * @n: at least MODEL_VOCABULARY_MIN; what is left over is filled with tokens that no text produces
 */
void model_writer_vocabulary(struct model_writer *w, const char *kind, uint32_t n);

/**
 * model_writer_encoder() - all keys and tensors of a random encoder: "bert" or "nomic-bert"
 * Of the shape count n_layers, dim, ff, n_heads, n_vocab, context, type, tokenizer, pooling and seed.
 */
void model_writer_encoder(struct model_writer *w, const struct model_shape *shape);

/**
 * model_writer_llama() - all keys and tensors of a random model
 */
void model_writer_llama(struct model_writer *w, const struct model_shape *shape);
