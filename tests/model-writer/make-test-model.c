/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * make-test-model OUT [--dim N] …: a random model as a file, for end-to-end tests and for benchmarks that need a shape
 * rather than an answer. With --split N, OUT is a prefix and the files are OUT-00001-of-0000N.gguf …. With --sparse, weights
 * are holes: a file of any size of which only the header exists. With --adapter RANK, the file is an adapter (LoRA) for
 * the model that the same options make.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/model-writer/model_writer.h"

enum option_id {
    OPTION_DIM = 256,
    OPTION_LAYERS,
    OPTION_FF,
    OPTION_HEADS,
    OPTION_KV_HEADS,
    OPTION_HEAD_DIM,
    OPTION_VOCAB,
    OPTION_CONTEXT,
    OPTION_SEED,
    OPTION_SPLIT,
    OPTION_TYPE,
    OPTION_EMBEDDING_TYPE,
    OPTION_OUTPUT_TYPE,
    OPTION_V_TYPE,
    OPTION_DOWN_TYPE,
    OPTION_MIXED,
    OPTION_TIED,
    OPTION_ARCHITECTURE,
    OPTION_NAME,
    OPTION_TOKENIZER,
    OPTION_POOLING,
    OPTION_ROPE_SCALING,
    OPTION_ROPE_BASE,
    OPTION_ROPE_FACTOR,
    OPTION_SPARSE,
    OPTION_EXPERTS,
    OPTION_EXPERTS_USED,
    OPTION_EXPERT_FF,
    OPTION_SHARED_FF,
    OPTION_WINDOW,
    OPTION_KV_RANK,
    OPTION_Q_RANK,
    OPTION_ROT_DIM,
    OPTION_V_DIM,
    OPTION_COMPRESSED,
    OPTION_DENSE_LAYERS,
    OPTION_ADAPTER,
    OPTION_ADAPTER_SEED,
};

static const struct option options[] = {
    {"dim", required_argument, NULL, OPTION_DIM},
    {"layers", required_argument, NULL, OPTION_LAYERS},
    {"ff", required_argument, NULL, OPTION_FF},
    {"heads", required_argument, NULL, OPTION_HEADS},
    {"kv-heads", required_argument, NULL, OPTION_KV_HEADS},
    {"head-dim", required_argument, NULL, OPTION_HEAD_DIM},
    {"vocab", required_argument, NULL, OPTION_VOCAB},
    {"context", required_argument, NULL, OPTION_CONTEXT},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"split", required_argument, NULL, OPTION_SPLIT},
    {"type", required_argument, NULL, OPTION_TYPE},
    {"embedding-type", required_argument, NULL, OPTION_EMBEDDING_TYPE},
    {"output-type", required_argument, NULL, OPTION_OUTPUT_TYPE},
    {"v-type", required_argument, NULL, OPTION_V_TYPE},
    {"down-type", required_argument, NULL, OPTION_DOWN_TYPE},
    {"mixed", no_argument, NULL, OPTION_MIXED},
    {"tied", no_argument, NULL, OPTION_TIED},
    {"architecture", required_argument, NULL, OPTION_ARCHITECTURE},
    {"name", required_argument, NULL, OPTION_NAME},
    {"tokenizer", required_argument, NULL, OPTION_TOKENIZER},
    {"pooling", required_argument, NULL, OPTION_POOLING},
    {"rope-scaling", required_argument, NULL, OPTION_ROPE_SCALING},
    {"rope-base", required_argument, NULL, OPTION_ROPE_BASE},
    {"rope-factor", required_argument, NULL, OPTION_ROPE_FACTOR},
    {"sparse", no_argument, NULL, OPTION_SPARSE},
    {"experts", required_argument, NULL, OPTION_EXPERTS},
    {"experts-used", required_argument, NULL, OPTION_EXPERTS_USED},
    {"expert-ff", required_argument, NULL, OPTION_EXPERT_FF},
    {"shared-ff", required_argument, NULL, OPTION_SHARED_FF},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"kv-rank", required_argument, NULL, OPTION_KV_RANK},
    {"q-rank", required_argument, NULL, OPTION_Q_RANK},
    {"rot-dim", required_argument, NULL, OPTION_ROT_DIM},
    {"v-dim", required_argument, NULL, OPTION_V_DIM},
    {"compressed", no_argument, NULL, OPTION_COMPRESSED},
    {"dense-layers", required_argument, NULL, OPTION_DENSE_LAYERS},
    {"adapter", required_argument, NULL, OPTION_ADAPTER},
    {"adapter-seed", required_argument, NULL, OPTION_ADAPTER_SEED},
    {0},
};

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: make-test-model OUT [--OPTION VALUE]...\noptions:");
    for (const struct option *o = options; o->name; o++)
        fprintf(stderr, " --%s", o->name);
    fprintf(stderr, "\n");
    exit(2);
}

static uint32_t number(const char *text)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || *end || end == text || value > UINT32_MAX)
        usage();
    return (uint32_t)value;
}

static enum tensor_type type(const char *name)
{
    enum tensor_type value;

    if (tensor_type_from_name(name, &value) < 0)
        usage();
    return value;
}

static void set(struct model_shape *s, uint32_t *n_parts, int option, const char *value)
{
    switch (option) {
    case OPTION_DIM:
        s->dim = number(value);
        break;
    case OPTION_LAYERS:
        s->n_layers = number(value);
        break;
    case OPTION_FF:
        s->ff = number(value);
        break;
    case OPTION_HEADS:
        s->n_heads = number(value);
        break;
    case OPTION_KV_HEADS:
        s->n_kv_heads = number(value);
        break;
    case OPTION_HEAD_DIM:
        s->head_dim = number(value);
        break;
    case OPTION_VOCAB:
        s->n_vocab = number(value);
        break;
    case OPTION_CONTEXT:
        s->context = number(value);
        break;
    case OPTION_SEED:
        s->seed = number(value);
        break;
    case OPTION_SPLIT:
        *n_parts = number(value);
        break;
    case OPTION_TYPE:
        s->type = type(value);
        break;
    case OPTION_EMBEDDING_TYPE:
        s->embedding_type = type(value);
        break;
    case OPTION_OUTPUT_TYPE:
        s->output_type = type(value);
        break;
    case OPTION_V_TYPE:
        s->v_type = type(value);
        break;
    case OPTION_DOWN_TYPE:
        s->down_type = type(value);
        break;
    case OPTION_MIXED:
        s->mixed = true;
        break;
    case OPTION_TIED:
        s->tied = true;
        break;
    case OPTION_ARCHITECTURE:
        s->architecture = value;
        break;
    case OPTION_NAME:
        s->name = value;
        break;
    case OPTION_TOKENIZER:
        s->tokenizer = strcmp(value, "none") == 0 ? NULL : value;
        break;
    case OPTION_POOLING:
        s->pooling = number(value);
        break;
    case OPTION_ROPE_SCALING:
        s->rope_scaling = value;
        break;
    case OPTION_ROPE_BASE:
        s->rope_base = strtof(value, NULL);
        break;
    case OPTION_ROPE_FACTOR:
        s->rope_factor = strtof(value, NULL);
        break;
    case OPTION_EXPERTS:
        s->n_experts = number(value);
        break;
    case OPTION_EXPERTS_USED:
        s->n_experts_used = number(value);
        break;
    case OPTION_EXPERT_FF:
        s->expert_ff = number(value);
        break;
    case OPTION_SHARED_FF:
        s->shared_ff = number(value);
        break;
    case OPTION_KV_RANK:
        s->latent.kv_rank = number(value);
        break;
    case OPTION_Q_RANK:
        s->latent.q_rank = number(value);
        break;
    case OPTION_ROT_DIM:
        s->latent.n_rot = number(value);
        break;
    case OPTION_V_DIM:
        s->latent.v_dim = number(value);
        break;
    case OPTION_COMPRESSED:
        s->latent.compressed = true;
        break;
    case OPTION_DENSE_LAYERS:
        s->dense_layers = number(value);
        break;
    case OPTION_WINDOW:
        s->window = number(value);
        break;
    default:
        usage();
    }
}

static void write_file(const struct model_writer *w, const char *path, bool sparse)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0) {
        fprintf(stderr, "make-test-model: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    if (sparse)
        model_writer_write_sparse(w, fd);
    else
        model_writer_write(w, fd);
}

int main(int argc, char **argv)
{
    struct model_shape shape = model_shape_default();
    struct model_writer *w;
    struct adapter_shape adapter = {.type = TENSOR_F16, .period = 1, .seed = 1};
    uint32_t n_parts = 0;
    bool sparse = false;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == OPTION_SPARSE)
            sparse = true;
        else if (option == OPTION_ADAPTER)
            adapter.rank = number(optarg);
        else if (option == OPTION_ADAPTER_SEED)
            adapter.seed = number(optarg);
        else
            set(&shape, &n_parts, option, optarg);
    if (optind + 1 != argc || n_parts > 65535 || shape.n_heads == 0 ||
        (shape.tokenizer && shape.n_vocab < MODEL_VOCABULARY_MIN))
        usage();
    w = model_writer_new();
    if (strcmp(shape.architecture, "bert") == 0 || strcmp(shape.architecture, "nomic-bert") == 0)
        model_writer_encoder(w, &shape);
    else
        model_writer_llama(w, &shape);
    if (adapter.rank > 0) {
        struct model_writer *model = w;

        adapter.architecture = shape.architecture;
        w = model_writer_new();
        model_writer_adapter(w, model, &adapter);
        model_writer_free(model);
    }
    if (n_parts == 0)
        write_file(w, argv[optind], sparse);
    for (uint32_t i = 0; i < n_parts; i++) {
        struct model_writer *part = model_writer_split(w, i, n_parts);
        char path[4096];

        snprintf(path, sizeof(path), "%s-%05u-of-%05u.gguf", argv[optind], i + 1, n_parts);
        write_file(part, path, sparse);
        model_writer_free(part);
    }
    model_writer_free(w);
    return 0;
}
