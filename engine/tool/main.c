/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of verbs of resident-engine. Exit status: 0 done, 1 failed (reason on stderr), 2 wrong usage.
 */

#include <stdio.h>
#include <string.h>

#include "engine/tool/tool.h"

static const struct verb {
    const char *name, *arguments, *help;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"info", "FILE", "what is in the file, and whether this version can run it", verb_info},
    {"tokenize", "FILE [--special] [--ids]", "the tokens of the text on stdin", verb_tokenize},
    {"render", "FILE|--template FILE",
     "the text that the chat template makes of the variables on stdin (JSON)", verb_render},
    {"logits", "FILE --ids \"1 2 3\" --out FILE [--step] [--chunk N]",
     "float32 logits of every position, positions x vocabulary", verb_logits},
    {"generate", "FILE --ids \"1 2 3\" -n N", "the N most likely next token ids, one after the other",
     verb_generate},
    {"dequant", "TYPE", "the float32 values of the raw blocks on stdin", verb_dequant},
    {"bench", "FILE [-p 512] [-n 128] [-b USERS] [-t THREADS] [-d DEPTH] [-r REPEATS] [--profile]",
     "speed of prefill and decoding, and of reading the weights, as one JSON object", verb_bench},
};

#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static void help(FILE *to)
{
    fprintf(to, "usage: resident-engine VERB ARGUMENT...\n\n");
    for (size_t i = 0; i < N_VERBS; i++)
        fprintf(to, "  %s %s\n      %s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
    fprintf(to,
            "\nVerbs that compute also take --threads N, --isa scalar|avx2|avx512|… (or RESIDENT_ISA), --k-type T and\n"
            "--v-type T (f32, f16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl), --flash on|off, --gpu-layers N|all\n"
            "(of the last ones), --adapter FILE (LoRA), --ram SIZE (so much of the weights in memory, the rest read\n"
            "as it is needed).\n"
            "The first file of a split model stands for all.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return TOOL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help(stdout);
        return TOOL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("resident-engine %s\n", RESIDENTD_VERSION);
        return TOOL_OK;
    }
    for (size_t i = 0; i < N_VERBS; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    fprintf(stderr, "resident-engine: \"%s\" is no verb; there are:", argv[1]);
    for (size_t i = 0; i < N_VERBS; i++)
        fprintf(stderr, " %s", verbs[i].name);
    fprintf(stderr, "\n");
    return TOOL_USAGE;
}
