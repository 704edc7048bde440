/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl wait: until a model is ready. It asks for the status again and again, because everybody may do that, and
 * Load, which could wait, is for administrators.
 *
 * An alias is looked up in ListModels first. With --pinned, the models waited for are those that are on their way in:
 * the service begins to load pinned models before it answers anybody.
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"

enum { ASK_AGAIN_MS = 100 };

enum found { FOUND_READY, FOUND_ON_ITS_WAY, FOUND_ABSENT, FOUND_FAILED };

static enum found look_at(json_object *m)
{
    const char *state = get_text(m, "state");

    if (!state || strcmp(state, "failed") == 0)
        return FOUND_FAILED;
    if (strcmp(state, "ready") == 0)
        return FOUND_READY;
    return strcmp(state, "absent") == 0 ? FOUND_ABSENT : FOUND_ON_ITS_WAY;
}

static int fail(json_object *m, const char *what)
{
    const char *name = get_text(m, "name"), *reason = get_text(m, "reason");

    fprintf(stderr, "residentctl: model %s %s%s%s\n", name ? name : "?", what, reason ? ": " : "",
            reason ? reason : "");
    return STATUS_FAILED;
}

/* The name behind an alias; @model itself when it is none. To be freed. */
static int resolve(struct ctl *ctl, const char *model, char **ret)
{
    _cleanup_json_ json_object *reply = NULL;
    json_object *models;
    int status;

    status = ctl_call(ctl, RESIDENT_INFERENCE "ListModels", NULL, &reply);
    if (status != STATUS_DONE)
        return status;
    models = get_array(reply, "models");
    for (size_t i = 0; i < length_of(models); i++) {
        json_object *m = json_object_array_get_idx(models, i), *aliases = get_array(m, "aliases");

        for (size_t k = 0; k < length_of(aliases); k++)
            if (strcmp(json_object_get_string(json_object_array_get_idx(aliases, k)), model) == 0 &&
                get_text(m, "name"))
                model = get_text(m, "name");
    }
    *ret = strdup(model);
    return *ret ? STATUS_DONE : ctl_no_memory();
}

/* One look at the status: *ret_done when there is nothing more to wait for. */
static int look(struct ctl *ctl, const char *model, bool *ret_done)
{
    _cleanup_json_ json_object *reply = NULL;
    json_object *models;
    bool is_known = false;
    int status;

    status = ctl_call(ctl, RESIDENT_MODELS "Status", NULL, &reply);
    if (status != STATUS_DONE)
        return status;
    models = get_array(reply, "models");
    *ret_done = true;
    for (size_t i = 0; i < length_of(models); i++) {
        json_object *m = json_object_array_get_idx(models, i);
        const char *name = get_text(m, "name");
        enum found found = look_at(m);

        if (model && (!name || strcmp(name, model) != 0))
            continue;
        is_known = true;
        if (found == FOUND_FAILED)
            return fail(m, "failed");
        if (found == FOUND_ABSENT && model)
            return fail(m, "is not being loaded");
        if (found == FOUND_ON_ITS_WAY)
            *ret_done = false;
    }
    if (model && !is_known) {
        fprintf(stderr, "residentctl: io.residentd.NoSuchModel: no model named \"%s\"\n", model);
        return STATUS_FAILED;
    }
    return STATUS_DONE;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int verb_wait(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    enum { PINNED = 256, TIMEOUT };
    static const struct option options[] = {{"pinned", no_argument, NULL, PINNED},
                                            {"timeout", required_argument, NULL, TIMEOUT},
                                            {NULL, 0, NULL, 0}};
    const struct timespec pause = {.tv_nsec = ASK_AGAIN_MS * 1000000};
    _cleanup_free_ char *model = NULL;
    bool pinned = false, done = false;
    int64_t seconds = -1, end_ms;
    int c, status;

    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (c == PINNED)
            pinned = true;
        else if (c != TIMEOUT)
            return ctl_usage(verb, NULL);
        else if (!parse_int(optarg, 0, INT32_MAX, &seconds))
            return ctl_usage(verb, "--timeout is a number of seconds");
    }
    if (argc - optind != (pinned ? 0 : 1))
        return ctl_usage(verb, "either a model or --pinned is expected");
    ctl->json = false; /* nothing to print: the exit status says it */
    if (!pinned) {
        status = resolve(ctl, argv[optind], &model);
        if (status != STATUS_DONE)
            return status;
    }
    end_ms = seconds < 0 ? INT64_MAX : now_ms() + seconds * 1000;
    for (;;) {
        status = look(ctl, model, &done);
        if (status != STATUS_DONE || done)
            return status;
        if (now_ms() >= end_ms) {
            fprintf(stderr, "residentctl: not ready within %" PRId64 " s\n", seconds);
            return STATUS_FAILED;
        }
        nanosleep(&pause, NULL);
    }
}
