/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl run: one answer. Ctrl-C ends the process and so the connection, which stops the work; the shell sees 130.
 */
#include <getopt.h>
#include <string.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/generate.h"

static int on_piece(const struct resident_reply *reply, void *userdata)
{
    return generate_show(userdata, reply);
}

static bool add_prompt(const struct generate_options *options, const char *prompt, size_t n)
{
    json_object *messages;

    if (!options->chat)
        return put(options->parameters, "prompt", json_object_new_string_len(prompt, (int)n));
    messages = json_object_new_array();
    if (!put(options->parameters, "messages", messages))
        return false;
    if (options->system && !generate_message(messages, "system", options->system, strlen(options->system)))
        return false;
    return generate_message(messages, "user", prompt, n);
}

static int stream(struct ctl *ctl, const struct generate_options *options)
{
    const char *text = json_text(options->parameters);
    struct resident_error *error = NULL;
    struct generate_output output;
    int r, status;

    if (!text)
        return ctl_no_memory();
    status = ctl_connect(ctl);
    if (status != STATUS_DONE)
        return status;
    generate_output_init(&output, ctl, options->stats);
    r = resident_stream(ctl->connection,
                        options->chat ? RESIDENT_INFERENCE "Chat" : RESIDENT_INFERENCE "Complete", text,
                        on_piece, &output, &error);
    generate_end(&output);
    /* Only a failed write stops a stream from this side. */
    status = r == RESIDENT_STOPPED ? STATUS_FAILED : ctl_report(ctl, r, error);
    resident_error_free(error);
    return status;
}

int verb_run(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    _cleanup_(generate_options_done) struct generate_options options;
    _cleanup_free_ char *from_stdin = NULL;
    const char *prompt;
    size_t n;
    int status;

    status = generate_parse(verb, argc, argv, &options);
    if (status != STATUS_DONE)
        return status;
    argc -= optind;
    argv += optind;
    if (argc < 1 || argc > 2)
        return ctl_usage(verb, "a model and at most one prompt are expected");
    if (argc == 1 || strcmp(argv[1], "-") == 0) {
        status = ctl_read_all("-", &from_stdin, &n);
        if (status != STATUS_DONE)
            return status;
        prompt = from_stdin;
    } else {
        prompt = argv[1];
        n = strlen(prompt);
    }
    if (!put(options.parameters, "model", json_object_new_string(argv[0])) ||
        !add_prompt(&options, prompt, n))
        return ctl_no_memory();
    return stream(ctl, &options);
}
