/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine info: the directory of a file, and whether this version can run the model. Text from the file is
 * printed without its control characters: a terminal obeys them.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fault.h"
#include "base/units.h"
#include "engine/gguf/map.h"
#include "engine/gguf/read.h"
#include "engine/tool/tool.h"

#define TEXT_BYTES_MAX  120
#define ELEMENTS_SHOWN  8

static void print_text(const struct gguf_string *s)
{
    uint64_t n = s->n_bytes < TEXT_BYTES_MAX ? s->n_bytes : TEXT_BYTES_MAX;

    putchar('"');
    for (uint64_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s->data[i];

        if (c == '\n')
            fputs("\\n", stdout);
        else if (c < 0x20 || c == 0x7f)
            putchar('?');
        else
            putchar(c);
    }
    fputs(n < s->n_bytes ? "…\"" : "\"", stdout);
}

static void print_element(const struct gguf_array *a, uint32_t type, uint64_t i)
{
    struct gguf_string s;

    switch (type) {
    case GGUF_STRING:
        s = gguf_array_string(a, i);
        print_text(&s);
        break;
    case GGUF_F32:
        printf("%g", (double)gguf_array_f32(a, i));
        break;
    case GGUF_BOOL:
        printf("%s", gguf_array_bool(a, i) ? "true" : "false");
        break;
    default:
        printf("%" PRId32, gguf_array_i32(a, i));
    }
}

static void print_array(const struct gguf *g, const struct gguf_key *k)
{
    static const enum gguf_value_type kinds[] = {GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING};
    struct gguf_array a;

    printf("%s[%" PRIu64 "] = [", gguf_value_type_name(k->element_type), k->n);
    for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
        if (gguf_get_array(g, k->name, kinds[kind], &a, NULL) < 0)
            continue;
        for (uint64_t i = 0; i < a.n && i < ELEMENTS_SHOWN; i++) {
            if (i)
                fputs(", ", stdout);
            print_element(&a, kinds[kind], i);
        }
        break;
    }
    printf("%s]\n", k->n > ELEMENTS_SHOWN ? ", …" : "");
}

static void print_key(const struct gguf *g, const struct gguf_key *k)
{
    struct gguf_string s;
    int64_t i;
    uint64_t u;
    float f;
    bool b;

    printf("  %s: ", k->name);
    if (k->type == GGUF_ARRAY) {
        print_array(g, k);
        return;
    }
    printf("%s = ", gguf_value_type_name(k->type));
    if (gguf_get_string(g, k->name, &s, NULL) == 0)
        print_text(&s);
    else if (gguf_get_bool(g, k->name, &b, NULL) == 0)
        fputs(b ? "true" : "false", stdout);
    else if (gguf_get_i64(g, k->name, &i, NULL) == 0)
        printf("%" PRId64, i);
    else if (gguf_get_u64(g, k->name, &u, NULL) == 0)
        printf("%" PRIu64, u);
    else if (gguf_get_f32(g, k->name, &f, NULL) == 0)
        printf("%g", (double)f);
    else
        putchar('?');
    putchar('\n');
}

static void print_directory(const struct gguf *g, uint64_t n_bytes)
{
    char size[UNITS_TEXT_MAX];

    printf("GGUF version %" PRIu32 ", %zu file(s), %s, alignment %" PRIu32 "\n", gguf_version(g), gguf_n_parts(g),
           units_format_size(n_bytes, size), gguf_alignment(g));
    printf("%zu keys:\n", gguf_n_keys(g));
    for (size_t i = 0; i < gguf_n_keys(g); i++)
        print_key(g, gguf_key(g, i));
    printf("%zu tensors:\n", gguf_n_tensors(g));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        printf("  %-32s %-8s", t->name, tensor_traits(t->type)->name);
        for (uint32_t d = 0; d < t->n_dims; d++)
            printf("%s%" PRIu64, d ? " x " : " ", t->dims[d]);
        printf("  %s\n", units_format_size(t->n_bytes, size));
    }
}

static void print_facts(const struct engine *e)
{
    struct engine_facts f;
    char size[UNITS_TEXT_MAX];

    engine_facts(e, &f);
    printf("runs: %s, %s, %.1f M parameters, %" PRIu32 " layers, %" PRIu32
           " tokens in the vocabulary, trained for %" PRIu32 " tokens of context\n",
           f.architecture, f.quantization, (double)f.n_parameters * 1e-6, f.n_layers, f.n_vocab,
           f.context_trained_tokens);
    printf("one token reads %s of weights", units_format_size(f.bytes_per_token, size));
    printf("; keys and values take %s for each %" PRIu32 " tokens; kernels: %s\n",
           units_format_size(f.bytes_kv_page, size), f.page_tokens, f.isa);
}

int verb_info(int argc, char **argv)
{
    static const struct option options[] = {TOOL_OPTIONS, {}};
    _cleanup_(tool_model_done) struct tool_model model = {0};
    _cleanup_engine_ struct engine *e = NULL;
    struct tool_config config;
    int option, r;

    r = tool_config_init(&config);
    if (r != 0)
        return r;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        r = option == '?' ? TOOL_USAGE : tool_config_option(&config, option, optarg);
        if (r != 0)
            return r;
    }
    if (argc - optind != 1)
        return tool_usage(argv[0], "expected one model file");
    config.path = argv[optind];

    r = tool_model_open(config.path, &model);
    if (r != 0)
        return r;
    print_directory(model.gguf, gguf_map_bytes(model.map));
    fflush(stdout);

    /* The smallest engine there is: whether the model can be run is asked, not how much memory it may take. */
    r = tool_engine_open(&config,
                         &(struct engine_config){.context_tokens = 1, .sequences_max = 1, .batch_tokens_max = 1}, &e);
    if (r != 0)
        return r;
    print_facts(e);
    return TOOL_OK;
}
