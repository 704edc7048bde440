/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Token ids against those of an independent implementation, for the vocabularies in the reference folder. Without the
 * folder every case is skipped, and counted as such. More vocabularies that llama.cpp publishes with texts and ids
 * (models/ggml-vocab-NAME.gguf, .gguf.inp, .gguf.out) are compared where they are put beside the others.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/map.h"
#include "engine/token/detokenise.h"
#include "engine/token/tokenizer.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"

struct reference {
    const char *vocabulary; /* file in the reference folder */
    const char *texts, *ids;
    unsigned flags;
    bool optional; /* no test at all where it is absent */
};

static char *path_of(const char *name)
{
    const char *folder = getenv("RESIDENTD_REFERENCE");
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", folder ? folder : "../shared/reference", name) > 0);
    return path;
}

static char *read_file(const char *name)
{
    _cleanup_free_ char *path = path_of(name);
    _cleanup_fclose_ FILE *f = fopen(path, "re");
    char *text;
    size_t n;

    if (!f)
        return NULL;
    text = calloc(1, 1 << 20);
    assert_non_null(text);
    n = fread(text, 1, (1 << 20) - 1, f);
    assert_true(n < (1 << 20) - 1);
    return text;
}

static int gunzip(const char *path)
{
    int fd = memfd_create("vocabulary", MFD_CLOEXEC), status = -1;
    pid_t pid = fork();

    assert_true(fd >= 0 && pid >= 0);
    if (pid == 0) {
        dup2(fd, STDOUT_FILENO);
        execlp("gzip", "gzip", "-dc", path, NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return fd;
}

/* NULL when the reference folder does not have it. */
static struct tokenizer *open_vocabulary(const char *name)
{
    _cleanup_free_ char *path = path_of(name);
    _cleanup_close_ int fd = -EBADF;
    struct tokenizer *t = NULL;
    struct gguf_map *map = NULL;
    struct gguf *g = NULL;
    struct fault fault = {0};
    size_t n_parts;

    if (access(path, R_OK) < 0)
        return NULL;
    if (strcmp(path + strlen(path) - 3, ".gz") == 0)
        fd = gunzip(path);
    else
        fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(gguf_map(&fd, 1, 0, &map, &fault), 0);
    assert_int_equal(gguf_read(gguf_map_parts(map, &n_parts), 1, &g, &fault), 0);
    if (tokenizer_new(g, &t, &fault) < 0)
        fail_msg("%s", fault.reason);
    gguf_free(g);
    gguf_unmap(map);
    return t;
}

static char *ids_to_text(const int32_t *ids, size_t n)
{
    char *text = calloc(12, n + 1), *at = text;

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        at += sprintf(at, "%s%d", i ? " " : "", ids[i]);
    return text;
}

/* What was encoded without marks has to come back byte for byte. (BERT's normaliser loses case and white space.) */
static void check_round_trip(const struct tokenizer *t, const int32_t *ids, size_t n, const char *text, size_t n_text)
{
    struct detokenizer d;
    char *all = calloc(1, n_text + 16);
    const char *part;
    size_t n_all = 0, n_part;

    assert_non_null(all);
    detokenizer_init(&d, t, strcmp(tokenizer_kind(t), "llama") == 0 ? DETOKENIZE_STRIP_SPACE : 0);
    for (size_t i = 0; i <= n; i++) {
        assert_int_equal(i < n ? detokenizer_push(&d, ids[i], &part, &n_part) : detokenizer_flush(&d, &part, &n_part), 0);
        assert_true(n_all + n_part <= n_text + 15);
        memcpy(all + n_all, part, n_part);
        n_all += n_part;
    }
    assert_int_equal(n_all, n_text);
    assert_memory_equal(all, text, n_text);
    detokenizer_done(&d);
    free(all);
}

static void gives_the_ids_of_the_reference(void **state)
{
    const struct reference *reference = *state;
    struct tokenizer *t = open_vocabulary(reference->vocabulary);
    _cleanup_free_ char *texts = read_file(reference->texts);
    _cleanup_free_ char *lines = read_file(reference->ids);
    char *text = texts, *line = lines;
    size_t n_texts = 0, n_wrong = 0;

    if (!t || !texts || !lines) {
        tokenizer_free(t);
        skip();
    }
    for (char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR)) {
        _cleanup_free_ char *got = NULL;
        _cleanup_free_ int32_t *ids = NULL;
        char *end_of_line = strchr(line, '\n');
        size_t n;

        assert_non_null(end_of_line);
        *end_of_line = 0;
        if (end_of_line > line && end_of_line[-1] == ' ')
            end_of_line[-1] = 0;
        assert_int_equal(tokenizer_encode(t, text, (size_t)(end - text), reference->flags, &ids, &n), 0);
        got = ids_to_text(ids, n);
        if (strcmp(got, line + (*line == ' ')) != 0) {
            n_wrong++;
            print_error("%s, text %zu \"%.*s\":\n got %s\n for %s\n", reference->ids, n_texts, (int)(end - text), text,
                        got, line);
        }
        if (reference->flags == 0 && strcmp(tokenizer_kind(t), "bert") != 0)
            check_round_trip(t, ids, n, text, (size_t)(end - text));
        n_texts++;
        line = end_of_line + 1;
    }
    tokenizer_free(t);
    assert_true(n_texts > 5);
    assert_int_equal(n_wrong, 0);
}

#define SPECIAL (TOKENIZE_SPECIAL | TOKENIZE_BOS_EOS)
#define VOCABULARY(name, file)                                                                                     \
    {file, "tokenizers/" name ".inp", "tokenizers/" name ".out", 0},                                               \
    {file, "tokenizers/extra.inp", "tokenizers/" name ".extra.out", 0},                                            \
    {file, "tokenizers/" name ".special.inp", "tokenizers/" name ".special.out", SPECIAL}

#define OPTIONAL(name)                                                                                             \
    {"tokenizers/" name ".gguf", "tokenizers/" name ".inp", "tokenizers/" name ".out", 0, .optional = true}

static const struct reference references[] = {
    VOCABULARY("llama-spm", "tokenizers/llama-spm.gguf"),
    VOCABULARY("phi-3", "tokenizers/phi-3.gguf"),
    VOCABULARY("gpt-2", "tokenizers/gpt-2.gguf"),
    VOCABULARY("deepseek-coder", "tokenizers/deepseek-coder.gguf"),
    VOCABULARY("starcoder", "tokenizers/starcoder.gguf"),
    VOCABULARY("qwen2", "tokenizers/qwen2.gguf.gz"),
    {"models/stories260k-f32.gguf", "tokenizers/extra.inp", "tokenizers/stories260k.extra.out", 0},
    {"models/stories260k-f32.gguf", "tokenizers/stories260k.special.inp", "tokenizers/stories260k.special.out", SPECIAL},
    OPTIONAL("bert-bge"),
    OPTIONAL("deepseek-llm"),
    OPTIONAL("falcon"),
    OPTIONAL("mpt"),
    OPTIONAL("refact"),
    OPTIONAL("command-r"),
    OPTIONAL("llama-bpe"),
    OPTIONAL("qwen35"),
    OPTIONAL("gemma-4"),
};

#define N_REFERENCES (sizeof(references) / sizeof(*references))

int main(void)
{
    struct CMUnitTest tests[N_REFERENCES];
    size_t n = 0;

    for (size_t i = 0; i < N_REFERENCES; i++) {
        _cleanup_free_ char *path = path_of(references[i].vocabulary);

        if (references[i].optional && access(path, R_OK) < 0)
            continue;
        tests[n++] = (struct CMUnitTest){
            .name = references[i].ids,
            .test_func = gives_the_ids_of_the_reference,
            .initial_state = (void *)&references[i],
        };
    }
    return _cmocka_run_group_tests("token/reference", tests, n, NULL, NULL);
}
