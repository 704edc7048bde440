/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl run: one answer. A model with a chat template gets the prompt as a message, another one as a text to
 * continue; --chat and --raw say which. Ctrl-C ends the process and so the connection, which stops the work; the
 * shell sees 130.
 */
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/generate.h"

static int on_piece(const struct resident_reply *reply, void *userdata)
{
    return generate_show(userdata, reply);
}

/* The call's parameters: one message, with the system's before it, or a text to continue. */
static bool add_prompt(const struct generate_options *options, bool chat, const char *prompt, size_t n)
{
    json_object *messages;

    if (!chat)
        return put(options->parameters, "prompt", json_object_new_string_len(prompt, (int)n));
    messages = json_object_new_array();
    if (!put(options->parameters, "messages", messages))
        return false;
    if (options->system && !generate_message(messages, "system", options->system, strlen(options->system)))
        return false;
    return generate_message(messages, "user", prompt, n);
}

/* The service's answer to Chat for a model without a template; nothing has been computed or shown then. */
static bool has_no_template(const struct resident_error *error)
{
    const char *parameter = error ? resident_error_text(error, "parameter") : NULL;

    return parameter && strcmp(parameter, "model") == 0 &&
           strcmp(resident_error_name(error), "org.varlink.service.InvalidParameter") == 0;
}

static int stream(struct ctl *ctl, const struct generate_options *options, bool chat, struct resident_error **reterr)
{
    const char *text = json_text(options->parameters);
    struct generate_output output;
    int r;

    if (!text)
        return -ENOMEM;
    generate_output_init(&output, ctl, options->stats);
    r = resident_stream(ctl->connection, chat ? RESIDENT_INFERENCE "Chat" : RESIDENT_INFERENCE "Complete", text,
                        on_piece, &output, reterr);
    generate_end(&output);
    return r;
}

static int ask(struct ctl *ctl, const struct generate_options *options, const char *prompt, size_t n)
{
    struct resident_error *error = NULL;
    bool chat = options->mode != GENERATE_RAW;
    int r, status = ctl_connect(ctl);

    if (status != STATUS_DONE)
        return status;
    if (!add_prompt(options, chat, prompt, n))
        return ctl_no_memory();
    r = stream(ctl, options, chat, &error);
    if (r != 0 && options->mode == GENERATE_AUTO && has_no_template(error)) {
        error = resident_error_free(error);
        json_object_object_del(options->parameters, "messages");
        if (!add_prompt(options, false, prompt, n))
            return ctl_no_memory();
        r = stream(ctl, options, false, &error);
    }
    /* Only a failed write stops a stream from this side. */
    status = r == RESIDENT_STOPPED ? STATUS_FAILED : r == -ENOMEM ? ctl_no_memory() : ctl_report(ctl, r, error);
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
    if (!put(options.parameters, "model", json_object_new_string(argv[0])))
        return ctl_no_memory();
    return ask(ctl, &options, prompt, n);
}
