/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Times by kind of operation: what is the same in every layer is one row, named by its tensors and their types
 * ("attn_q+attn_k+attn_v q4_k+q4_k+q6_k").
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine-internal.h"

#define NAME_BYTES 160

/* "blk.12.attn_q.weight" → "attn_q" */
static int part_of_name(const char *tensor, const char **ret)
{
    const char *begin = tensor, *end;

    if (strncmp(tensor, "blk.", 4) == 0) {
        begin = strchr(tensor + 4, '.');
        begin = begin ? begin + 1 : tensor;
    }
    end = strstr(begin, ".weight");
    *ret = begin;
    return end ? (int)(end - begin) : (int)strlen(begin);
}

static void name_of_linears(const struct graph_linear *const *linears, uint32_t n, char *buffer)
{
    size_t at = 0;

    for (uint32_t i = 0; i < n && at < NAME_BYTES; i++) {
        const char *part;
        int length = part_of_name(linears[i]->weight.name, &part);

        at += (size_t)snprintf(buffer + at, NAME_BYTES - at, "%s%.*s", i ? "+" : "", length, part);
    }
    for (uint32_t i = 0; i < n && at < NAME_BYTES; i++)
        at += (size_t)snprintf(buffer + at, NAME_BYTES - at, "%s%s", i ? "+" : " ",
                               tensor_traits(linears[i]->weight.type)->name);
}

static void name_of_op(const struct graph_op *op, char *buffer)
{
    const struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = graph_op_linears(op, linears);

    if (n)
        name_of_linears(linears, n, buffer);
    else
        snprintf(buffer, NAME_BYTES, "%s", graph_op_name(op->type));
}

int engine_profile_init(struct engine *e)
{
    e->profile = calloc(e->graph.n_ops, sizeof(*e->profile));
    e->profile_rows = calloc(e->graph.n_ops, sizeof(*e->profile_rows));
    if (!e->profile || !e->profile_rows)
        return -ENOMEM;
    for (size_t i = 0; i < e->graph.n_ops; i++) {
        char name[NAME_BYTES];
        size_t row = 0;

        name_of_op(&e->graph.ops[i], name);
        while (row < e->n_profile && strcmp(e->profile[row].operation, name) != 0)
            row++;
        if (row == e->n_profile) {
            e->profile[row].operation = strdup(name);
            if (!e->profile[row].operation)
                return -ENOMEM;
            e->n_profile++;
        }
        e->profile_rows[i] = (uint32_t)row;
    }
    return 0;
}

void engine_profile_done(struct engine *e)
{
    for (size_t i = 0; i < e->n_profile; i++)
        free((char *)e->profile[i].operation);
    free(e->profile);
    free(e->profile_rows);
    e->n_profile = 0;
}

void engine_profile_start(struct engine *e)
{
    exec_profile_start(e->exec);
}

void engine_profile(struct engine *e, const struct engine_profile **ret, size_t *ret_n)
{
    for (size_t i = 0; i < e->n_profile; i++)
        e->profile[i].n_calls = e->profile[i].time_ns = 0;
    for (size_t i = 0; i < e->graph.n_ops; i++) {
        uint64_t calls, ns;

        exec_profile(e->exec, i, &calls, &ns);
        e->profile[e->profile_rows[i]].n_calls += calls;
        e->profile[e->profile_rows[i]].time_ns += ns;
    }
    *ret = e->profile;
    *ret_n = e->n_profile;
}
