/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl tokenize, detokenize, embed.
 */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

/* Takes every @option out of the arguments; returns whether there was one. */
static bool take_option(int *argc, char **argv, const char *option)
{
    bool found = false;
    int n = 1;

    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], option) == 0)
            found = true;
        else
            argv[n++] = argv[i];
    }
    *argc = n;
    return found;
}

int verb_tokenize(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    bool special = take_option(&argc, argv, "--special");
    _cleanup_json_ json_object *parameters = json_object_new_object(), *reply = NULL;
    _cleanup_free_ char *text = NULL;
    json_object *tokens;
    size_t n;
    int status;

    if (argc < 2 || argc > 3 || argv[1][0] == '-')
        return ctl_usage(verb, "a model and at most one text are expected");
    if (argc == 2) {
        status = ctl_read_all("-", &text, &n);
        if (status != STATUS_DONE)
            return status;
    } else {
        n = strlen(argv[2]);
    }
    if (!parameters || !put(parameters, "model", json_object_new_string(argv[1])) ||
        !put(parameters, "text", json_object_new_string_len(text ? text : argv[2], (int)n)) ||
        (special && !put(parameters, "special", json_object_new_boolean(true))))
        return ctl_no_memory();
    status = ctl_call(ctl, RESIDENT_INFERENCE "Tokenize", TAKE_PTR(parameters), &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    tokens = get_array(reply, "tokens");
    for (size_t i = 0; i < length_of(tokens); i++)
        printf("%s%" PRId64, i > 0 ? " " : "", json_object_get_int64(json_object_array_get_idx(tokens, i)));
    printf("\n");
    return STATUS_DONE;
}

int verb_detokenize(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    _cleanup_json_ json_object *parameters = json_object_new_object(), *tokens = json_object_new_array(),
                               *reply = NULL;
    const char *text;
    int status;

    if (argc < 3 || argv[1][0] == '-')
        return ctl_usage(verb, "a model and token ids are expected");
    if (!parameters || !tokens || !put(parameters, "model", json_object_new_string(argv[1])))
        return ctl_no_memory();
    for (int i = 2; i < argc; i++) {
        json_object *id;
        int64_t number;

        if (!parse_int(argv[i], 0, INT32_MAX, &number))
            return ctl_usage(verb, "\"%s\" is no token id", argv[i]);
        id = json_object_new_int64(number);
        if (!id || json_object_array_add(tokens, id) < 0) {
            json_object_put(id);
            return ctl_no_memory();
        }
    }
    if (!put(parameters, "tokens", TAKE_PTR(tokens)))
        return ctl_no_memory();
    status = ctl_call(ctl, RESIDENT_INFERENCE "Detokenize", TAKE_PTR(parameters), &reply);
    text = get_text(reply, "text");
    if (status == STATUS_DONE && text) {
        print_text(stdout, text, strlen(text), ctl->is_terminal);
        printf("\n");
    }
    return status;
}

int verb_embed(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    _cleanup_json_ json_object *parameters = json_object_new_object(), *input = json_object_new_array(),
                               *reply = NULL;
    json_object *embeddings;
    int status;

    if (argc < 3 || argv[1][0] == '-')
        return ctl_usage(verb, "a model and texts are expected");
    if (!parameters || !input || !put(parameters, "model", json_object_new_string(argv[1])))
        return ctl_no_memory();
    for (int i = 2; i < argc; i++) {
        json_object *text = json_object_new_string(argv[i]);

        if (!text || json_object_array_add(input, text) < 0) {
            json_object_put(text);
            return ctl_no_memory();
        }
    }
    if (!put(parameters, "input", TAKE_PTR(input)))
        return ctl_no_memory();
    status = ctl_call(ctl, RESIDENT_INFERENCE "Embed", TAKE_PTR(parameters), &reply);
    embeddings = get_array(reply, "embeddings");
    for (size_t i = 0; status == STATUS_DONE && i < length_of(embeddings); i++) {
        json_object *values = get_array(json_object_array_get_idx(embeddings, i), "values");

        for (size_t k = 0; k < length_of(values); k++)
            printf("%s%.9g", k > 0 ? " " : "", json_object_get_double(json_object_array_get_idx(values, k)));
        printf("\n");
    }
    return status;
}
