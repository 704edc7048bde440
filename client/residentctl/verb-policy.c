/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl policy check and show: the daemon's own parser, in this process and under this user, so that a draft can
 * be checked before it is installed. Files of the caller's own pass for trusted then.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"
#include "policy/policy.h"

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
    print_json(stdout,
               json_object_to_json_string_ext(
                   policy->document, (ctl->json ? 0 : JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED) |
                                         JSON_C_TO_STRING_NOSLASHESCAPE),
               /* harmless= */ false);
    return STATUS_DONE;
}
