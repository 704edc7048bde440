/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * resident-engine: the engine on a file, without a daemon, for developers and for checks from outside. One file per
 * verb; this is what they share.
 *
 * How to add a verb: verb-NAME.c with a function of the type below, its prototype here, its row in main.c, its file in
 * meson.build. A verb gets its own arguments, argv[0] being its name, and returns the exit status.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "engine/engine.h"

enum tool_exit {
    TOOL_OK = 0,
    TOOL_FAILED = 1, /* the model or the machine said no; the reason is on stderr */
    TOOL_USAGE = 2,  /* the command line makes no sense; the reason is on stderr */
};

struct fault;
struct gguf;
struct gguf_map;

/* What verbs that compute take from the command line; tool_config_init() sets the defaults. */
struct tool_config {
    const char *path;
    uint32_t n_threads;
    uint32_t isa_mask;
    enum tensor_type k_type, v_type;
    uint64_t ram_bytes;  /* of weights in memory; 0: all */
    uint32_t gpu_layers; /* of engine_gpu_config */
    const char *adapter; /* path of a LoRA adapter for all sequences; NULL: none */
};

/**
 * tool_config_init() - one thread a core, F16 keys and values, the kernels that RESIDENT_ISA names (default: all)
 * Returns 0, or TOOL_USAGE when RESIDENT_ISA makes no sense.
 */
int tool_config_init(struct tool_config *c);

/* The long options of struct tool_config, for a verb's getopt_long() table; their values are above any character. */
#define TOOL_OPTIONS                                                                                               \
    {"threads", 1, NULL, TOOL_OPT_THREADS}, {"isa", 1, NULL, TOOL_OPT_ISA}, {"k-type", 1, NULL, TOOL_OPT_K_TYPE},  \
        {"v-type", 1, NULL, TOOL_OPT_V_TYPE}, {"flash", 1, NULL, TOOL_OPT_FLASH},                                  \
        {"gpu-layers", 1, NULL, TOOL_OPT_GPU_LAYERS}, {"adapter", 1, NULL, TOOL_OPT_ADAPTER},        \
        {"ram", 1, NULL, TOOL_OPT_RAM}

enum tool_option {
    TOOL_OPT_THREADS = 256,
    TOOL_OPT_ISA,
    TOOL_OPT_K_TYPE,
    TOOL_OPT_V_TYPE,
    TOOL_OPT_FLASH,
    TOOL_OPT_GPU_LAYERS,
    TOOL_OPT_ADAPTER,
    TOOL_OPT_RAM,
    TOOL_OPT_OWN, /* the first value for a verb's own long options */
};

/**
 * tool_config_option() - take one of TOOL_OPTIONS with its argument @text
 * Returns 0, or the exit status after a message.
 */
int tool_config_option(struct tool_config *c, int option, const char *text);

/**
 * tool_usage() - say on stderr what is wrong with the command line of @verb; returns TOOL_USAGE
 */
int tool_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * tool_fail() - say on stderr that something failed, for the fault @f or, without one (NULL, or of no kind), for @error
 * Returns TOOL_FAILED.
 */
int tool_fail(const char *path, const struct fault *f, int error);

/**
 * tool_parse_u32() - a number in [@min, @max]; 0, or TOOL_USAGE after a message that names @what
 */
int tool_parse_u32(const char *verb, const char *what, const char *text, uint32_t min, uint32_t max, uint32_t *ret);

/**
 * tool_parse_ids() - token ids separated by spaces or commas; *ret is the caller's
 * Returns 0, or the exit status after a message.
 */
int tool_parse_ids(const char *verb, const char *text, int32_t **ret, size_t *ret_n);

/* Files of one model. */
struct tool_files {
    int *fds;
    size_t n;
};

/**
 * tool_files_open() - open @path, and with the first of a split model's files (-00001-of-0000N) all the others
 * Returns 0 or TOOL_FAILED after a message.
 */
int tool_files_open(const char *path, struct tool_files *ret);

/**
 * tool_files_done() - close them
 */
void tool_files_done(struct tool_files *f);

#define _cleanup_tool_files_ _cleanup_(tool_files_done)

/**
 * tool_engine_open() - open c->path with what @config says beyond @c
 * Returns 0 or TOOL_FAILED after a message.
 */
int tool_engine_open(const struct tool_config *c, struct engine_config *config, struct engine **ret);

/**
 * tool_engine_open_huge() - tool_engine_open(), with the weights in 2 MiB pages if the file system has them
 * A file that lies in the page cache in small pages is dropped and read again: on those decoding is a quarter slower,
 * which is how files are after they were copied, but not how the service keeps them.
 * Returns 0 or TOOL_FAILED after a message.
 */
int tool_engine_open_huge(const struct tool_config *c, struct engine_config *config, struct engine **ret);

/**
 * tool_sequence_open() - engine_sequence_open(), with the adapter that the command line names
 * Returns 0 or TOOL_FAILED after a message.
 */
int tool_sequence_open(const struct tool_config *c, struct engine *e, uint32_t *ret);

/* A model's directory, without an engine. */
struct tool_model {
    struct gguf_map *map;
    struct gguf *gguf;
};

/**
 * tool_model_open() - map and read @path, with the other parts of a split model; @ret is all zero
 * Returns 0 or TOOL_FAILED after a message; tool_model_done() has to be called either way.
 */
int tool_model_open(const char *path, struct tool_model *ret);

/**
 * tool_model_done() - release both
 */
void tool_model_done(struct tool_model *m);

/* Of this process, as the kernel counts it. */
struct tool_memory {
    uint64_t bytes_weights;      /* present of the mapped model */
    uint64_t bytes_weights_huge; /* … mapped by 2 MiB pages */
    uint64_t bytes_anonymous;    /* of its own: not the model's file, but keys, values and work space */
};

/**
 * tool_memory_read() - look at /proc/self/smaps; @g: whose mappings are the weights
 * Returns 0 or a negative errno.
 */
int tool_memory_read(const struct gguf *g, struct tool_memory *ret);

/* More than this on stdin is refused: no text or conversation is as long. */
#define TOOL_INPUT_BYTES_MAX (64 << 20)

/**
 * tool_read_all() - everything that @f holds; *ret is the caller's, not terminated
 * Returns 0, -ENOMEM, -E2BIG, -EIO.
 */
int tool_read_all(FILE *f, char **ret, size_t *ret_n);

/* ---- the verbs */
int verb_bench(int argc, char **argv);
int verb_dequant(int argc, char **argv);
int verb_generate(int argc, char **argv);
int verb_info(int argc, char **argv);
int verb_logits(int argc, char **argv);
int verb_render(int argc, char **argv);
int verb_tokenize(int argc, char **argv);
