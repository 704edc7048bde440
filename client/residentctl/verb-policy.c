/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl policy check and show: the daemon's own parser, in this process and under this user, so that a
 * draft can be checked before it is installed. Files of the caller's own pass for trusted then.
 *
 * show prints the merged policy as a policy file that says behind each value where it comes from; with --json
 * the same as {"policy": …, "origins": {"/models/a/path": "FILE:LINE:COLUMN", …}}.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"
#include "policy/policy.h"

enum { POINTER_MAX = 1024 };

/* A place in the document while it is walked: a JSON pointer, as policy_origin() takes it. */
struct place {
    const struct policy *policy;
    char pointer[POINTER_MAX];
    size_t n;
    bool cut; /* too long for where it comes from to be found */
};

static size_t enter(struct place *at, const char *key)
{
    size_t before = at->n;

    at->cut = at->n + 2 * strlen(key) + 2 > POINTER_MAX;
    if (at->cut)
        return before;
    at->pointer[at->n++] = '/';
    for (; *key; key++) {
        if (*key == '~' || *key == '/') {
            at->pointer[at->n++] = '~';
            at->pointer[at->n++] = *key == '~' ? '0' : '1';
        } else {
            at->pointer[at->n++] = *key;
        }
    }
    at->pointer[at->n] = 0;
    return before;
}

static void go_back(struct place *at, size_t before)
{
    at->n = before;
    at->pointer[before] = 0;
    at->cut = false;
}

static bool origin(const struct place *at, char *text, size_t size)
{
    uint32_t line, column;
    const char *file;

    if (at->cut || !policy_origin(at->policy, at->pointer, &file, &line, &column))
        return false;
    snprintf(text, size, "%s:%" PRIu32 ":%" PRIu32, file, line, column);
    return true;
}

static void print_value(json_object *value)
{
    const char *text = json_text(value);

    if (text)
        print_text(stdout, text, strlen(text), /* harmless= */ true);
}

/* Depth is bounded by the policy's parser. */
static void print_members(struct place *at, json_object *object, int depth)
{
    int left = json_object_object_length(object);

    json_object_object_foreach(object, key, value)
    {
        size_t before = enter(at, key);
        _cleanup_json_ json_object *name = json_object_new_string(key);
        const char *comma = --left > 0 ? "," : "";
        char from[512];

        printf("%*s", 4 * depth, "");
        print_value(name);
        printf(": ");
        if (json_object_is_type(value, json_type_object) && json_object_object_length(value) > 0) {
            printf("{\n");
            print_members(at, value, depth + 1);
            printf("%*s}%s\n", 4 * depth, "", comma);
        } else {
            print_value(value);
            printf("%s", comma);
            if (origin(at, from, sizeof(from))) {
                printf(" // ");
                print_text(stdout, from, strlen(from), /* harmless= */ true);
            }
            printf("\n");
        }
        go_back(at, before);
    }
}

static bool collect_origins(struct place *at, json_object *object, json_object *origins)
{
    bool ok = true;

    json_object_object_foreach(object, key, value)
    {
        size_t before = enter(at, key);
        char from[512];

        if (json_object_is_type(value, json_type_object) && json_object_object_length(value) > 0)
            ok = collect_origins(at, value, origins) && ok;
        else if (origin(at, from, sizeof(from)))
            ok = put(origins, at->pointer, json_object_new_string(from)) && ok;
        go_back(at, before);
    }
    return ok;
}

static int show(const struct ctl *ctl, const struct policy *policy)
{
    struct place at = {.policy = policy};
    _cleanup_json_ json_object *all = NULL;
    json_object *origins;

    if (!ctl->json) {
        printf("{\n");
        print_members(&at, policy->document, 1);
        printf("}\n");
        return STATUS_DONE;
    }
    all = json_object_new_object();
    if (!all || !put(all, "policy", json_object_get(policy->document)) ||
        !put(all, "origins", json_object_new_object()))
        return ctl_no_memory();
    origins = json_object_object_get(all, "origins");
    if (!collect_origins(&at, policy->document, origins))
        return ctl_no_memory();
    print_json(stdout, json_text(all), ctl->is_terminal);
    return STATUS_DONE;
}

int verb_policy(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    struct policy_options options = {.own_uid = getuid(), .skip_ownership = argc > 2};
    _cleanup_(policy_unrefp) struct policy *policy = NULL;
    struct fault fault;
    char text[640];
    int r;

    if (argc < 2 || (strcmp(argv[1], "check") != 0 && strcmp(argv[1], "show") != 0))
        return ctl_usage(verb, "check or show is expected");
    options.paths = (const char *const *)argv + 2;
    options.n_paths = (size_t)argc - 2;
    fault_init(&fault, FAULT_NONE, NULL);
    r = policy_load(&options, &policy, &fault);
    if (r == -ENOMEM)
        return ctl_no_memory();
    if (r < 0) {
        fprintf(stderr, "residentctl: %s: %s\n", fault_error_name(fault.kind),
                fault_describe(&fault, text, sizeof(text)));
        return STATUS_FAILED;
    }
    for (size_t i = 0; i < policy->n_warnings; i++)
        fprintf(stderr, "residentctl: warning: %s\n", policy->warnings[i]);
    if (strcmp(argv[1], "check") == 0) {
        if (!ctl->json)
            printf("%zu models, %zu aliases: the policy is valid\n", policy->n_models, policy->n_aliases);
        return STATUS_DONE;
    }
    return show(ctl, policy);
}
