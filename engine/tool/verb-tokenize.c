/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine tokenize: the tokens of the text on stdin, one a line with what it stands for, or with --ids just the
 * numbers. The text is plain: no token before or behind it, and the spelling of a control token is text like any other.
 * With --special control tokens are parsed, and the text begins and ends as the model's metadata say.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fault.h"
#include "engine/token/tokenizer.h"
#include "engine/tool/tool.h"

DEFINE_CLEANUP(struct tokenizer *, tokenizer_free)

static void print_ids(const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%s%" PRId32, i ? " " : "", ids[i]);
    putchar('\n');
}

/* A token need not be whole UTF-8, and a terminal obeys control characters: what is not printable ASCII is escaped. */
static void print_tokens(const struct tokenizer *t, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *piece;
        size_t n_piece = tokenizer_piece(t, ids[i], /* special= */ true, &piece);

        printf("%7" PRId32 "  %s\"", ids[i], tokenizer_is_control(t, ids[i]) ? "control " : "");
        for (size_t k = 0; k < n_piece; k++) {
            unsigned char c = (unsigned char)piece[k];

            if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\')
                putchar(c);
            else if (c == '\n')
                fputs("\\n", stdout);
            else
                printf("\\x%02x", c);
        }
        fputs("\"\n", stdout);
    }
}

int verb_tokenize(int argc, char **argv)
{
    static const struct option options[] = {{"special", 0, NULL, 's'}, {"ids", 0, NULL, 'i'}, {}};
    _cleanup_(tool_model_done) struct tool_model model = {0};
    _cleanup_(tokenizer_freep) struct tokenizer *t = NULL;
    _cleanup_free_ char *text = NULL;
    _cleanup_free_ int32_t *ids = NULL;
    struct fault fault = {.kind = FAULT_NONE};
    unsigned flags = 0;
    bool only_ids = false;
    const char *path;
    size_t n_text, n;
    int option, r;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            flags = TOKENIZE_SPECIAL | TOKENIZE_BOS_EOS;
        else if (option == 'i')
            only_ids = true;
        else
            return TOOL_USAGE;
    }
    if (argc - optind != 1)
        return tool_usage(argv[0], "expected one model file");
    path = argv[optind];
    r = tool_model_open(path, &model);
    if (r != 0)
        return r;
    r = tokenizer_new(model.gguf, &t, &fault);
    if (r == -ENOENT)
        fault_model_invalid(&fault, FAULT_NO_OFFSET, "it has no tokenizer (tokenizer.ggml.model)");
    if (r < 0) {
        fault_subject(&fault, path);
        return tool_fail(path, &fault, r);
    }
    r = tool_read_all(stdin, &text, &n_text);
    if (r == 0)
        r = tokenizer_encode(t, text, n_text, flags, &ids, &n);
    if (r < 0)
        return tool_fail("stdin", NULL, r);
    if (only_ids)
        print_ids(ids, n);
    else
        print_tokens(t, ids, n);
    return TOOL_OK;
}
