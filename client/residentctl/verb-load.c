/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl load, unload, pin, unpin.
 */
#include <inttypes.h>
#include <unistd.h>

#include "base/json.h"
#include "base/units.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

struct progress {
    const struct ctl *ctl;
    bool shows; /* stderr is a terminal and stdout has no JSON */
};

static int on_piece(const struct resident_reply *reply, void *userdata)
{
    const struct progress *p = userdata;
    char done_text[UNITS_TEXT_MAX], total_text[UNITS_TEXT_MAX];
    int64_t done = 0, total = 0;

    if (p->ctl->json) {
        print_json(stdout, resident_reply_json(reply), p->ctl->is_terminal);
        return fflush(stdout);
    }
    if (p->shows && resident_reply_int(reply, "bytes_done", &done) == 0 &&
        resident_reply_int(reply, "bytes_total", &total) == 0 && done >= 0 && total > 0)
        fprintf(stderr, "\r%s of %s\033[K", units_format_size((uint64_t)done, done_text),
                units_format_size((uint64_t)total, total_text));
    return 0;
}

int verb_load(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    const struct progress progress = {.ctl = ctl, .shows = isatty(STDERR_FILENO) && !ctl->json};
    _cleanup_json_ json_object *parameters = json_object_new_object();
    struct resident_error *error = NULL;
    int r, status;

    if (argc != 2 || argv[1][0] == '-')
        return ctl_usage(verb, "exactly one model is expected");
    if (!parameters || !put(parameters, "model", json_object_new_string(argv[1])))
        return ctl_no_memory();
    status = ctl_connect(ctl);
    if (status != STATUS_DONE)
        return status;
    r = resident_stream(ctl->connection, RESIDENT_MODELS "Load", json_text(parameters), on_piece,
                        (void *)&progress, &error);
    if (progress.shows)
        fputs("\r\033[K", stderr);
    status = ctl_report(ctl, r, error);
    resident_error_free(error);
    return status;
}

int verb_unload(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    return ctl_simple(ctl, verb, argc, argv, RESIDENT_MODELS "Unload", "model");
}

int verb_pin(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    return ctl_simple(ctl, verb, argc, argv, RESIDENT_MODELS "Pin", "model");
}

int verb_unpin(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    return ctl_simple(ctl, verb, argc, argv, RESIDENT_MODELS "Unpin", "model");
}
