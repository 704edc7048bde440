/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole program on libresident: which models there are, and a story from one of them, printed as it comes.
 *
 *      cc example.c $(pkg-config --cflags --libs libresident) -o story && ./story chat "Once upon a time"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <resident.h>

static int print_piece(const struct resident_reply *reply, void *userdata)
{
    size_t n = 0;
    const char *text = resident_reply_text(reply, "text", &n);
    int64_t n_tokens;

    if (text)
        fwrite(text, 1, n, stdout);
    fflush(stdout);
    if (resident_reply_is_last(reply) && resident_reply_int(reply, "usage/output_tokens", &n_tokens) == 0)
        printf("\n(%lld tokens)\n", (long long)n_tokens);
    return 0; /* anything else would cancel */
}

static int report(const char *what, int result, struct resident_error *error)
{
    if (result == RESIDENT_REFUSED)
        fprintf(stderr, "%s: %s: %s\n", what, resident_error_name(error), resident_error_description(error));
    else if (result < 0)
        fprintf(stderr, "%s: %s\n", what, strerror(-result));
    resident_error_free(error);
    return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* JSON wants quotes, backslashes and control characters escaped; a real program has a JSON library for that. */
static int write_parameters(char *to, size_t size, const char *model, const char *prompt)
{
    if (strpbrk(model, "\"\\\n") || strpbrk(prompt, "\"\\\n"))
        return -1;
    return snprintf(to, size, "{\"model\": \"%s\", \"prompt\": \"%s\", \"max_tokens\": 64}", model, prompt) <
                   (int)size
               ? 0
               : -1;
}

int main(int argc, char **argv)
{
    struct resident_error *error = NULL;
    struct resident_reply *reply = NULL;
    struct resident *r = NULL;
    char parameters[4096];
    int k, status;

    k = resident_connect(NULL, &r);
    if (k < 0) {
        fprintf(stderr, "No connection to residentd: %s\n", strerror(-k));
        return EXIT_FAILURE;
    }

    k = resident_call(r, RESIDENT_INFERENCE "ListModels", NULL, &reply, &error);
    if (k != 0) {
        status = report("ListModels", k, error);
        resident_close(r);
        return status;
    }
    for (int i = 0, n = resident_reply_length(reply, "models"); i < n; i++) {
        char path[64];

        snprintf(path, sizeof(path), "models/%d/name", i);
        printf("model %s\n", resident_reply_text(reply, path, NULL));
    }
    resident_reply_free(reply);

    if (argc != 3 || write_parameters(parameters, sizeof(parameters), argv[1], argv[2]) < 0) {
        resident_close(r);
        return argc == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    k = resident_stream(r, RESIDENT_INFERENCE "Complete", parameters, print_piece, NULL, &error);
    status = report("Complete", k, error);
    resident_close(r);
    return status;
}
