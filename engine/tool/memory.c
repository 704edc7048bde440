/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel says about this process's memory: /proc/self/smaps, a mapping at a time. A mapping is the model's
 * when a tensor lies in it.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "engine/gguf/read.h"
#include "engine/tool/tool.h"

static bool holds_weights(const struct gguf *g, uint64_t from, uint64_t to)
{
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        uint64_t at = (uint64_t)(uintptr_t)gguf_tensor(g, i)->data;

        if (at >= from && at < to)
            return true;
    }
    return false;
}

/* "7f00-8f00 r--s …": the first line of a mapping. */
static bool parse_range(const char *line, uint64_t *ret_from, uint64_t *ret_to)
{
    char *end;

    *ret_from = strtoull(line, &end, 16);
    if (end == line || *end != '-')
        return false;
    line = end + 1;
    *ret_to = strtoull(line, &end, 16);
    return end != line && *end == ' ';
}

/* "Name:   12 kB" in bytes, 0 when the line is another's. */
static uint64_t field_bytes(const char *line, const char *name)
{
    size_t n = strlen(name);

    return strncmp(line, name, n) == 0 && line[n] == ':' ? strtoull(line + n + 1, NULL, 10) * 1024 : 0;
}

int tool_memory_read(const struct gguf *g, struct tool_memory *ret)
{
    struct tool_memory m = {0};
    FILE *f = fopen("/proc/self/smaps", "re");
    char *line = NULL;
    size_t room = 0;
    bool weights = false;

    if (!f)
        return -errno;
    while (getline(&line, &room, f) > 0) {
        uint64_t from, to;

        if (parse_range(line, &from, &to))
            weights = holds_weights(g, from, to);
        m.bytes_anonymous += field_bytes(line, "Anonymous");
        if (!weights)
            continue;
        m.bytes_weights += field_bytes(line, "Rss");
        m.bytes_weights_huge += field_bytes(line, "FilePmdMapped") + field_bytes(line, "ShmemPmdMapped");
    }
    free(line);
    fclose(f);
    *ret = m;
    return 0;
}
