/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl: global options and the table of verbs. A verb's name may be shortened as long as it stays the only one.
 */
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#include "client/residentctl/ctl.h"

static const struct verb verbs[] = {
    {"list", "", "the models that you may use", verb_list},
    {"run", "MODEL [PROMPT] [OPTION]...", "continue a text (from stdin without PROMPT), as it is made",
     verb_run},
    {"chat", "MODEL [OPTION]...", "a conversation, line by line", verb_chat},
    {"embed", "MODEL TEXT...", "vectors of texts, one a line", verb_embed},
    {"tokenize", "MODEL [TEXT] [--special]", "token ids of a text (from stdin without TEXT)", verb_tokenize},
    {"detokenize", "MODEL ID...", "the text of token ids", verb_detokenize},
    {"ps", "[--all]", "requests that wait or run: yours, as administrator everybody's", verb_ps},
    {"cancel", "ID", "end a request", verb_cancel},
    {"usage", "[UID|all]", "quotas, what is used of them and when it comes back", verb_usage},
    {"status", "", "models, memory and users at a glance", verb_status},
    {"top", "", "the same, again whenever it changes", verb_top},
    {"metrics", "", "counters in the OpenMetrics text format", verb_metrics},
    {"load", "MODEL", "bring a model into memory and wait until it is ready", verb_load},
    {"unload", "MODEL", "take a model out of memory", verb_unload},
    {"pin", "MODEL", "load a model and keep it, until reboot or reload", verb_pin},
    {"unpin", "MODEL", "undo pin", verb_unpin},
    {"wait", "MODEL|--pinned [--timeout SECONDS]",
     "wait until a model, or all that are on their way, are ready", verb_wait},
    {"reload", "", "read the policy again", verb_reload},
    {"plan", "MODEL|FILE [OPTION]...", "where a model's parts would go under other limits", verb_plan},
    {"policy", "check [PATH]... | show [PATH]...", "check policy files, or print what they come to",
     verb_policy},
    {"call", "METHOD [PARAMETERS] [--more]", "any method, with JSON", verb_call},
};

static void help(void)
{
    printf("residentctl [--socket PATH] [--json] VERB\n\n");
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        printf("  %-11s %-36s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].summary);
    printf("\n"
           "run and chat:\n"
           "  -n N  --temperature T  --top-k K  --top-p P  --min-p P  --repeat-penalty R  --seed S  --stop TEXT\n"
           "  --json-schema FILE | --grammar FILE   what the answer must look like\n"
           "  --system TEXT   --adapter NAME (of the policy)   --stats (on stderr)\n"
           "  run --chat|--raw (PROMPT is a message, or a text to continue)\n"
           "plan:\n"
           "  --ram BYTES  --vram BYTES[,BYTES...]  --context N  --sequences N  --kv-type TYPE\n"
           "\n"
           "  --socket PATH   of the service; also $RESIDENTD_SOCKET (%s)\n"
           "  --json          the method's reply as one JSON object; one a line where it comes in pieces\n"
           "  --version, --help\n"
           "\n"
           "Exit status: 0 done, 1 refused or failed (the error's name is on stderr), 2 wrong usage.\n",
           RESIDENT_SOCKET);
}

static const struct verb *find_verb(const char *name)
{
    const struct verb *found = NULL;

    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
        if (strncmp(verbs[i].name, name, strlen(name)) != 0)
            continue;
        if (found) {
            fprintf(stderr, "residentctl: \"%s\" may be %s or %s\n", name, found->name, verbs[i].name);
            return NULL;
        }
        found = &verbs[i];
    }
    if (!found)
        fprintf(stderr, "residentctl: no verb \"%s\" (residentctl --help lists them)\n", name);
    return found;
}

int main(int argc, char **argv)
{
    enum { SOCKET = 256, JSON, VERSION, HELP };
    static const struct option options[] = {
        {"socket", required_argument, NULL, SOCKET},
        {"json", no_argument, NULL, JSON},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    struct ctl ctl = {.is_terminal = isatty(STDOUT_FILENO)};
    const struct verb *verb;
    int c, status;

    while ((c = getopt_long(argc, argv, "+h", options, NULL)) >= 0) {
        switch (c) {
        case SOCKET:
            ctl.socket = optarg;
            break;
        case JSON:
            ctl.json = true;
            break;
        case VERSION:
            printf("residentctl %s\n", RESIDENTD_VERSION);
            return STATUS_DONE;
        case HELP:
        case 'h':
            help();
            return STATUS_DONE;
        default:
            return STATUS_USAGE;
        }
    }
    if (optind == argc || !argv[optind][0]) {
        fputs("residentctl: a verb is expected (residentctl --help lists them)\n", stderr);
        return STATUS_USAGE;
    }
    verb = find_verb(argv[optind]);
    if (!verb)
        return STATUS_USAGE;
    argc -= optind;
    argv += optind;
    optind = 0; /* getopt starts anew, and lets options follow arguments */
    status = verb->run(&ctl, verb, argc, argv);
    resident_close(ctl.connection);
    if (fflush(stdout) != 0 && status == STATUS_DONE) {
        fputs("residentctl: the output can't be written\n", stderr);
        status = STATUS_FAILED;
    }
    return status;
}
