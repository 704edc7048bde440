/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine render: the text that a chat template makes of a conversation, which comes as one JSON object of
 * variables on stdin. The template is a model's own, or a file's whole content with --template. bos_token and eos_token
 * come from the model unless the object has them; `now` ("2025-03-14 15:09:26") fixes the clock of strftime_now().
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/chat/chat.h"
#include "engine/gguf/read.h"
#include "engine/tool/tool.h"

/* A variable from the vocabulary, such as bos_token, unless the caller has given one. */
static void add_token(const struct gguf *g, const char *id_key, const char *variable, json_object *variables)
{
    struct gguf_array tokens;
    struct gguf_string text;
    uint32_t id;

    if (json_object_object_get_ex(variables, variable, NULL) || gguf_get_u32(g, id_key, &id, NULL) != 0 ||
        gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL) != 0 || id >= tokens.n)
        return;
    text = gguf_array_string(&tokens, id);
    if (text.n_bytes <= INT32_MAX)
        json_object_object_add(variables, variable, json_object_new_string_len(text.data, (int)text.n_bytes));
}

static int find_template(const struct tool_model *m, const char *path, const char *file, struct chat_template **ret)
{
    struct fault fault = {.kind = FAULT_NONE};
    _cleanup_free_ char *source = NULL;
    struct gguf_string text = {0};
    size_t n = 0;
    int r;

    if (file) {
        _cleanup_fclose_ FILE *f = fopen(file, "re");

        r = f ? tool_read_all(f, &source, &n) : -errno;
        if (r < 0)
            return tool_fail(file, NULL, r);
        text = (struct gguf_string){source, n};
    } else {
        r = gguf_get_string(m->gguf, "tokenizer.chat_template", &text, &fault);
        if (r == -ENOENT)
            fault_model_invalid(&fault, FAULT_NO_OFFSET, "it has no tokenizer.chat_template; give one with --template");
    }
    if (file || r >= 0)
        r = chat_template_new(text.data, text.n_bytes, ret, &fault);
    if (r >= 0)
        return 0;
    fault_subject(&fault, file ? file : path);
    return tool_fail(file ? file : path, &fault, r);
}

static int read_variables(json_object **ret)
{
    static const struct json_limits limits = {
        .bytes_max = TOOL_INPUT_BYTES_MAX, .depth_max = 64, .values_max = 1 << 22};
    _cleanup_json_ json_object *object = NULL;
    _cleanup_free_ char *text = NULL;
    struct json_error error = {0};
    size_t n;
    int r = tool_read_all(stdin, &text, &n);

    if (r >= 0)
        r = json_parse(text, n, &limits, &object, NULL, &error);
    if (r == -EINVAL || r == -E2BIG) {
        fprintf(stderr, "resident-engine: stdin:%u:%u: %s\n", error.line, error.column, error.reason);
        return TOOL_FAILED;
    }
    if (r < 0)
        return tool_fail("stdin", NULL, r);
    if (!json_object_is_type(object, json_type_object)) {
        fprintf(stderr, "resident-engine: stdin: expected a JSON object with the template's variables\n");
        return TOOL_FAILED;
    }
    *ret = TAKE_PTR(object);
    return 0;
}

static int clock_of(json_object *variables, struct tm *ret)
{
    json_object *now;
    const char *end;
    time_t t = time(NULL);

    if (!json_object_object_get_ex(variables, "now", &now)) {
        localtime_r(&t, ret);
        return 0;
    }
    *ret = (struct tm){0};
    end = strptime(json_object_get_string(now), "%Y-%m-%d %H:%M:%S", ret);
    if (!end || *end) {
        fprintf(stderr, "resident-engine: stdin: now: expected \"YYYY-MM-DD HH:MM:SS\"\n");
        return TOOL_FAILED;
    }
    json_object_object_del(variables, "now");
    return 0;
}

int verb_render(int argc, char **argv)
{
    static const struct option options[] = {{"template", 1, NULL, 't'}, {}};
    _cleanup_(tool_model_done) struct tool_model model = {0};
    _cleanup_chat_template_ struct chat_template *template = NULL;
    _cleanup_json_ json_object *variables = NULL;
    _cleanup_free_ char *text = NULL;
    struct fault fault = {.kind = FAULT_NONE};
    const char *file = NULL, *path = NULL;
    struct tm now;
    size_t n;
    int option, r;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 't')
            return TOOL_USAGE;
        file = optarg;
    }
    if (argc - optind != (file ? 0 : 1))
        return tool_usage(argv[0], "expected a model file, or --template FILE alone");
    path = file ? file : argv[optind];
    if (!file) {
        r = tool_model_open(path, &model);
        if (r != 0)
            return r;
    }
    r = find_template(&model, path, file, &template);
    if (r == 0)
        r = read_variables(&variables);
    if (r == 0)
        r = clock_of(variables, &now);
    if (r != 0)
        return r;
    if (model.gguf) {
        add_token(model.gguf, "tokenizer.ggml.bos_token_id", "bos_token", variables);
        add_token(model.gguf, "tokenizer.ggml.eos_token_id", "eos_token", variables);
    }
    r = chat_render(template, variables, NULL, &now, &text, &n, &fault);
    if (r < 0)
        return tool_fail(path, &fault, r);
    if (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0)
        return tool_fail("stdout", NULL, -errno);
    return TOOL_OK;
}
