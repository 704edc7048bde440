/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tensors by name, with the shape and the type that the model's numbers ask for. The reader has seen to it that their
 * bytes lie inside the file.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

#define NAME_BYTES 128

static int tensor_find(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need,
                       const struct gguf_tensor **ret)
{
    char full[NAME_BYTES];

    if (layer == ARCH_NO_LAYER)
        snprintf(full, sizeof(full), "%s", name);
    else
        snprintf(full, sizeof(full), "blk.%" PRIu32 ".%s", layer, name);
    *ret = gguf_find_tensor(b->gguf, full);
    if (*ret || need == ARCH_OPTIONAL)
        return 0;
    fault_model_invalid(b->fault, FAULT_NO_OFFSET, "the tensor %s is missing", full);
    return -EINVAL;
}

static int tensor_check_shape(struct arch_build *b, const struct gguf_tensor *t, uint32_t n_cols, uint32_t n_rows,
                              uint32_t n)
{
    if (t->dims[0] == n_cols && t->dims[1] == n_rows && t->dims[2] == n && t->dims[3] == 1)
        return 0;
    fault_model_invalid(b->fault, (int64_t)t->offset,
                        "the tensor %s has the shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                        ", expected %" PRIu32 " x %" PRIu32 " x %" PRIu32,
                        t->name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], n_cols, n_rows, n);
    return -EINVAL;
}

int arch_matrices(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n_cols,
                  uint32_t n_rows, uint32_t n, struct graph_tensor *ret)
{
    const struct gguf_tensor *t;
    int r;

    *ret = (struct graph_tensor){};
    r = tensor_find(b, layer, name, need, &t);
    if (r < 0 || !t)
        return r;
    r = tensor_check_shape(b, t, n_cols, n_rows, n);
    if (r < 0)
        return r;
    if (b->target->format(b->target->userdata, (enum tensor_type)t->type) < 0) {
        fault_model_invalid(b->fault, (int64_t)t->offset,
                            "the tensor %s has the type %s, which this version can't multiply with", t->name,
                            tensor_traits(t->type)->name);
        return -EINVAL;
    }
    *ret = (struct graph_tensor){
        .name = t->name,
        .type = (enum tensor_type)t->type,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .row_bytes = t->row_bytes,
        .matrix_bytes = t->row_bytes * n_rows,
        .data = t->data,
    };
    return 0;
}

int arch_matrix(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n_cols,
                uint32_t n_rows, struct graph_tensor *ret)
{
    return arch_matrices(b, layer, name, need, n_cols, n_rows, 1, ret);
}

struct graph_tensor arch_rows(const struct graph_tensor *t, uint32_t row0, uint32_t n)
{
    struct graph_tensor rows = *t;

    rows.n_rows = n;
    rows.data = (const uint8_t *)t->data + row0 * t->row_bytes;
    return rows;
}

int arch_vectors(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n,
                 uint32_t n_rows, const float **ret)
{
    const struct gguf_tensor *t;
    int r;

    *ret = NULL;
    r = tensor_find(b, layer, name, need, &t);
    if (r < 0 || !t)
        return r;
    r = tensor_check_shape(b, t, n, n_rows, 1);
    if (r < 0)
        return r;
    if (t->type != TENSOR_F32) {
        fault_model_invalid(b->fault, (int64_t)t->offset, "the tensor %s has the type %s, expected f32", t->name,
                            tensor_traits(t->type)->name);
        return -EINVAL;
    }
    *ret = t->data;
    return 0;
}

int arch_vector(struct arch_build *b, uint32_t layer, const char *name, enum arch_need need, uint32_t n,
                const float **ret)
{
    return arch_vectors(b, layer, name, need, n, 1, ret);
}
