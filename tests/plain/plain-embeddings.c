/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * plain-embeddings MODEL.gguf "ID ID ...": the forward pass of an encoder in doubles, one line of numbers a token, for
 * scripts that compare what a service says.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/gguf/map.h"
#include "engine/gguf/read.h"
#include "tests/plain/parts.h"
#include "tests/plain/plain.h"

#define TOKENS_MAX 4096

static uint32_t read_ids(char *text, int32_t ids[TOKENS_MAX])
{
    uint32_t n = 0;

    for (char *rest, *word = strtok_r(text, " ", &rest); word && n < TOKENS_MAX; word = strtok_r(NULL, " ", &rest))
        ids[n++] = (int32_t)strtol(word, NULL, 10);
    return n;
}

int main(int argc, char **argv)
{
    static int32_t ids[TOKENS_MAX];
    struct gguf_map *map = NULL;
    struct gguf *g = NULL;
    struct fault fault = {0};
    uint32_t n, dim;
    double *rows;
    size_t n_parts;
    int fd;

    if (argc != 3) {
        fprintf(stderr, "usage: plain-embeddings MODEL.gguf \"ID ID ...\"\n");
        return 2;
    }
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || gguf_map(&fd, 1, 0, &map, &fault) < 0 || gguf_read(gguf_map_parts(map, &n_parts), 1, &g, &fault) < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], fd < 0 ? strerror(errno) : fault.reason);
        return 1;
    }
    n = read_ids(argv[2], ids);
    dim = plain_u32(g, "embedding_length", 0);
    rows = calloc((size_t)n * dim + 1, sizeof(*rows));
    if (!rows)
        return 1;
    plain_embeddings(g, &(struct plain_options){0}, ids, n, rows);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < dim; k++)
            printf("%.17g%c", rows[(size_t)i * dim + k], k + 1 < dim ? ' ' : '\n');
    free(rows);
    gguf_free(g);
    gguf_unmap(map);
    return 0;
}
