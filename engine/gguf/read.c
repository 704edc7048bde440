/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From mapped bytes to a directory. Called by engine.c, the worker's facts and the tools, once a model.
 *
 * For each file: (1) scan: step over the head in the mapped bytes to learn its length and what there is to store;
 * (2) copy exactly that; (3) step over the copy and keep what is found. The file's bytes may change under us, so
 * nothing seen in (1) is trusted in (3) beyond the sizes of our own buffers, and those are checked again. Tensor data
 * are never read here.
 *
 * Invariants of the result are those in read.h. Deliberately not checked: the order of tensors and gaps between them
 * (harmless), padding after the last one (many writers leave it out).
 */
#include "engine/gguf/read.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/directory.h"
#include "engine/gguf/header.h"
#include "engine/gguf/limits.h"
#include "engine/gguf/types.h"

DEFINE_CLEANUP(struct gguf *, gguf_free)

/* What the scan of one file found out. */
struct extent {
    uint64_t n_bytes; /* of the head */
    uint64_t n_name_bytes; /* with a terminator each */
    uint64_t n_strings;    /* in arrays */
};

struct gguf *gguf_free(struct gguf *g)
{
    if (!g)
        return NULL;
    for (size_t i = 0; g->directories && i < g->n_parts; i++) {
        free(g->directories[i].copy);
        free(g->directories[i].names);
        free(g->directories[i].strings);
        free(g->directories[i].keys);
        free(g->directories[i].key_order);
    }
    free(g->directories);
    free(g->tensors);
    free(g->tensor_order);
    free(g->tensor_records);
    free(g);
    return NULL;
}

static int scan(struct header *h, const struct gguf_part *part, size_t i_part, size_t n_parts, struct extent *ret,
                struct fault *reterr)
{
    uint64_t n_bytes = part->n_bytes < GGUF_HEADER_BYTES_MAX ? part->n_bytes : GGUF_HEADER_BYTES_MAX;
    struct extent extent = {0};
    int r;

    r = header_begin(h, part->data, n_bytes, part->n_bytes, i_part, n_parts, reterr);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < h->n_keys; i++) {
        struct header_key key;

        r = header_key(h, &key);
        if (r < 0)
            return r;
        extent.n_name_bytes += key.n_name + 1;
        if (key.type == GGUF_ARRAY && key.element_type == GGUF_STRING)
            extent.n_strings += key.n;
    }
    for (uint64_t i = 0; i < h->n_tensors; i++) {
        struct header_tensor tensor;

        r = header_tensor(h, &tensor);
        if (r < 0)
            return r;
        extent.n_name_bytes += tensor.n_name + 1;
    }
    extent.n_bytes = h->r.offset;
    *ret = extent;
    return 0;
}

/* Hands out room for our own copy of a name; NULL when the file has grown names since the scan. */
struct names {
    char *next;
    uint64_t n_left;
};

static const char *names_add(struct names *names, const char *name, size_t n)
{
    char *to = names->next;

    if (n >= names->n_left)
        return NULL;
    memcpy(to, name, n);
    to[n] = 0;
    names->next += n + 1;
    names->n_left -= n + 1;
    return to;
}

static int changed(const struct header *h, uint64_t offset)
{
    return header_refuse(h, offset, "the file was changed while it was read");
}

static void index_strings(const struct header_key *key, uint32_t *index)
{
    struct reader r;

    /* The walk that produced @key has checked every length, in this same copy. */
    reader_init(&r, key->value, key->n_value_bytes);
    for (uint64_t i = 0; i < key->n; i++) {
        uint64_t n = 0;

        index[i] = (uint32_t)r.offset;
        reader_u64(&r, &n);
        reader_skip(&r, n);
    }
}

static int compare_keys(const void *a, const void *b, void *keys)
{
    const struct directory_key *k = keys;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = strcmp(k[x].key.name, k[y].key.name);

    return c ? c : (x > y) - (x < y);
}

static int order_keys(const struct header *h, struct directory *d)
{
    for (size_t i = 0; i < d->n_keys; i++)
        d->key_order[i] = (uint32_t)i;
    qsort_r(d->key_order, d->n_keys, sizeof(*d->key_order), compare_keys, d->keys);
    for (size_t i = 1; i < d->n_keys; i++) {
        const struct gguf_key *before = &d->keys[d->key_order[i - 1]].key, *key = &d->keys[d->key_order[i]].key;

        if (strcmp(before->name, key->name) == 0)
            return header_refuse(h, key->offset, "key %.64s is there twice, before with its value at offset %" PRIu64,
                                 key->name, before->offset);
    }
    return 0;
}

static int read_keys(struct header *h, struct directory *d, struct names *names, uint64_t n_strings)
{
    uint32_t *strings = d->strings;
    int r;

    for (size_t i = 0; i < d->n_keys; i++) {
        struct directory_key *to = &d->keys[i];
        struct header_key key;

        r = header_key(h, &key);
        if (r < 0)
            return r;
        to->key = (struct gguf_key){
            .name = names_add(names, key.name, key.n_name),
            .type = key.type,
            .element_type = key.element_type,
            .n = key.n,
            .offset = key.value_offset,
        };
        to->value = key.value;
        if (!to->key.name)
            return changed(h, key.offset);
        if (key.type == GGUF_ARRAY && key.element_type == GGUF_STRING) {
            if (key.n > n_strings)
                return changed(h, key.offset);
            index_strings(&key, strings);
            to->strings = strings;
            strings += key.n;
            n_strings -= key.n;
        }
    }
    return order_keys(h, d);
}

static int read_alignment(const struct header *h, struct directory *d)
{
    const struct directory_key *key = directory_find(d, "general.alignment");
    int64_t alignment;

    d->alignment = GGUF_ALIGNMENT_DEFAULT;
    if (!key)
        return 0;
    if (key->key.type != GGUF_U32 || !directory_integer(key, &alignment))
        return header_refuse(h, key->key.offset, "general.alignment is of type %s, it has to be u32",
                             gguf_value_type_name(key->key.type));
    if (alignment < GGUF_ALIGNMENT_MIN || alignment > GGUF_ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0)
        return header_refuse(h, key->key.offset, "general.alignment is %" PRId64 ", it has to be a power of two from "
                             "%u to %u", alignment, GGUF_ALIGNMENT_MIN, GGUF_ALIGNMENT_MAX);
    d->alignment = (uint32_t)alignment;
    return 0;
}

/* Sizes of one tensor from its dimensions and type; its offset is still relative. */
static int size_tensor(const struct header *h, const struct directory *d, const struct header_tensor *from,
                       struct gguf_tensor *to)
{
    const struct tensor_traits *traits = tensor_traits(from->type);
    uint64_t n_values = from->dims[0];

    if (!traits)
        return header_refuse(h, from->type_offset, "tensor %s has the unknown type %" PRIu32, to->name, from->type);
    to->n_rows = 1;
    for (uint32_t i = 1; i < GGUF_DIMS_MAX; i++) {
        if (!checked_mul(to->n_rows, from->dims[i], &to->n_rows) || !checked_mul(n_values, from->dims[i], &n_values))
            return header_refuse(h, from->dims_offset, "the dimensions of tensor %s multiply to more than 2^64",
                                 to->name);
    }
    if (n_values > INT64_MAX)
        return header_refuse(h, from->dims_offset, "tensor %s has %" PRIu64 " values, more than 2^63", to->name,
                             n_values);
    if (from->dims[0] % traits->block_values != 0)
        return header_refuse(h, from->dims_offset, "rows of tensor %s have %" PRIu64 " values, which is no multiple of "
                             "the %" PRIu32 " in a block of type %s", to->name, from->dims[0], traits->block_values,
                             traits->name);
    if (tensor_row_bytes(from->type, from->dims[0], &to->row_bytes) < 0 ||
        !checked_mul(to->row_bytes, to->n_rows, &to->n_bytes) || to->n_bytes > INT64_MAX)
        return header_refuse(h, from->dims_offset, "the size of tensor %s does not fit into 63 bits", to->name);
    if (from->data % d->alignment != 0)
        return header_refuse(h, from->data_field_offset, "the offset of tensor %s, %" PRIu64 ", is no multiple of the "
                             "alignment %" PRIu32, to->name, from->data, d->alignment);
    to->type = from->type;
    to->n_dims = from->n_dims;
    memcpy(to->dims, from->dims, sizeof(to->dims));
    to->offset = from->data;
    return 0;
}

/* @record: where the tensor's entry stands, for the message. */
static int place_tensor(const struct header *h, const struct gguf_part *part, const struct directory *d,
                        struct gguf_tensor *t, uint64_t record)
{
    uint64_t end;

    if (!checked_add(d->data_offset, t->offset, &t->offset) || !checked_add(t->offset, t->n_bytes, &end))
        return header_refuse(h, record, "the end of tensor %s lies beyond 2^64", t->name);
    if (end > part->n_bytes)
        return header_refuse(
            h, record, "tensor %s would take the bytes %" PRIu64 " to %" PRIu64 ", the file has %" PRIu64,
            t->name, t->offset, end, part->n_bytes);
    t->data = (const uint8_t *)part->data + t->offset;
    return 0;
}

static int compare_offsets(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *x = (const struct gguf_tensor *)tensors + *(const uint32_t *)a;
    const struct gguf_tensor *y = (const struct gguf_tensor *)tensors + *(const uint32_t *)b;

    if (x->offset == y->offset)
        return x < y ? -1 : x > y;
    return x->offset < y->offset ? -1 : 1;
}

/* @records: [n] where each of this part's tensors has its entry. @order: [n], for our use. */
static int check_overlaps(const struct header *h, struct gguf_tensor *tensors, size_t n, const uint64_t *records,
                          uint32_t *order)
{
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, n, sizeof(*order), compare_offsets, tensors);
    for (size_t i = 1; i < n; i++) {
        const struct gguf_tensor *before = &tensors[order[i - 1]], *t = &tensors[order[i]];

        if (t->offset - before->offset < before->n_bytes)
            return header_refuse(h, records[order[i]], "tensor %s at %" PRIu64 " overlaps tensor %s, whose %" PRIu64
                                 " bytes begin at %" PRIu64, t->name, t->offset, before->name, before->n_bytes,
                                 before->offset);
    }
    return 0;
}

/* Reads the tensor records of one file into g->tensors, from g->n_tensors on. */
static int read_tensors(struct header *h, struct gguf *g, const struct gguf_part *part, struct names *names)
{
    struct directory *d = &g->directories[h->part];
    size_t n = d->n_tensors;
    struct gguf_tensor *tensors = g->tensors + g->n_tensors;
    uint64_t *records = g->tensor_records + g->n_tensors;
    int r;

    for (size_t i = 0; i < n; i++) {
        struct header_tensor tensor;

        r = header_tensor(h, &tensor);
        if (r < 0)
            return r;
        records[i] = tensor.offset;
        tensors[i].name = names_add(names, tensor.name, tensor.n_name);
        tensors[i].part = (uint32_t)h->part;
        if (!tensors[i].name)
            return changed(h, tensor.offset);
        r = size_tensor(h, d, &tensor, &tensors[i]);
        if (r < 0)
            return r;
    }
    if (!checked_align(h->r.offset, d->alignment, &d->data_offset))
        return header_refuse(h, h->r.offset, "the start of the data lies beyond 2^64");
    for (size_t i = 0; i < n; i++) {
        r = place_tensor(h, part, d, &tensors[i], records[i]);
        if (r < 0)
            return r;
    }
    r = check_overlaps(h, tensors, n, records, g->tensor_order);
    if (r < 0)
        return r;
    g->n_tensors += n;
    return 0;
}

static int reserve_tensors(struct gguf *g, size_t n)
{
    void *more;

    more = reallocarray(g->tensors, n + 1, sizeof(*g->tensors));
    if (!more)
        return -ENOMEM;
    g->tensors = more;
    more = reallocarray(g->tensor_order, n + 1, sizeof(*g->tensor_order));
    if (!more)
        return -ENOMEM;
    g->tensor_order = more;
    more = reallocarray(g->tensor_records, n + 1, sizeof(*g->tensor_records));
    if (!more)
        return -ENOMEM;
    g->tensor_records = more;
    return 0;
}

static int read_part(struct gguf *g, const struct gguf_part *part, size_t i_part, struct fault *reterr)
{
    struct directory *d = &g->directories[i_part];
    struct extent extent;
    struct header h;
    struct names names;
    size_t n_all;
    int r;

    r = scan(&h, part, i_part, g->n_parts, &extent, reterr);
    if (r < 0)
        return r;
    d->copy = malloc(extent.n_bytes);
    d->names = malloc(extent.n_name_bytes + 1);
    d->strings = malloc((extent.n_strings + 1) * sizeof(*d->strings));
    if (!d->copy || !d->names || !d->strings)
        return -ENOMEM;
    memcpy(d->copy, part->data, extent.n_bytes);
    d->n_copy = extent.n_bytes;
    names = (struct names){.next = d->names, .n_left = extent.n_name_bytes};

    r = header_begin(&h, d->copy, d->n_copy, d->n_copy, i_part, g->n_parts, reterr);
    if (r < 0)
        return r;
    d->version = h.version;
    d->n_keys = h.n_keys;
    d->n_tensors = h.n_tensors;
    d->keys = calloc(d->n_keys + 1, sizeof(*d->keys));
    d->key_order = calloc(d->n_keys + 1, sizeof(*d->key_order));
    if (!d->keys || !d->key_order)
        return -ENOMEM;
    n_all = g->n_tensors + d->n_tensors;
    if (n_all > GGUF_TENSORS_MAX)
        return header_refuse(&h, 8, "the parts up to here have %zu tensors, at most %u are read", n_all,
                             GGUF_TENSORS_MAX);
    r = reserve_tensors(g, n_all);
    if (r < 0)
        return r;
    r = read_keys(&h, d, &names, extent.n_strings);
    if (r < 0)
        return r;
    r = read_alignment(&h, d);
    if (r < 0)
        return r;
    return read_tensors(&h, g, part, &names);
}

static int compare_tensors(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *t = tensors;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = strcmp(t[x].name, t[y].name);

    return c ? c : (x > y) - (x < y);
}

static int order_tensors(struct gguf *g, struct fault *reterr)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        g->tensor_order[i] = (uint32_t)i;
    if (g->n_tensors > 1)
        qsort_r(g->tensor_order, g->n_tensors, sizeof(*g->tensor_order), compare_tensors, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        uint32_t first = g->tensor_order[i - 1], second = g->tensor_order[i];
        const struct gguf_tensor *before = &g->tensors[first], *t = &g->tensors[second];
        struct header h = {.part = t->part, .n_parts = g->n_parts, .reterr = reterr};

        if (strcmp(before->name, t->name) == 0)
            return header_refuse(&h, g->tensor_records[second], "tensor %s is there twice, before in part %" PRIu32
                                 " at offset %" PRIu64, t->name, before->part + 1, g->tensor_records[first]);
    }
    return 0;
}

/* The value of a split.* key of one part; @absent when it has none. */
static int split_value(const struct header *h, const struct directory *d, const char *name, int64_t absent,
                       int64_t *ret, uint64_t *ret_offset)
{
    const struct directory_key *key = directory_find(d, name);

    *ret = absent;
    *ret_offset = 0;
    if (!key)
        return 0;
    *ret_offset = key->key.offset;
    if (!directory_integer(key, ret) || *ret < 0)
        return header_refuse(h, key->key.offset, "%s is no number of the right size (type %s)", name,
                             gguf_value_type_name(key->key.type));
    return 0;
}

static int check_split(const struct gguf *g, size_t part, struct fault *reterr)
{
    const struct directory *d = &g->directories[part];
    struct header h = {.part = part, .n_parts = g->n_parts, .reterr = reterr};
    int64_t no, count;
    uint64_t at_no, at_count;
    int r;

    r = split_value(&h, d, "split.count", /* absent= */ 1, &count, &at_count);
    if (r < 0)
        return r;
    r = split_value(&h, d, "split.no", /* absent= */ 0, &no, &at_no);
    if (r < 0)
        return r;
    if ((uint64_t)count != g->n_parts) {
        if (at_count == 0)
            return header_refuse(&h, at_count, "%zu files are given, and this one has no split.count: it is no part",
                                 g->n_parts);
        return header_refuse(&h, at_count, "split.count says that the model has %" PRId64 " parts, %zu given", count,
                             g->n_parts);
    }
    if ((uint64_t)no != part)
        return header_refuse(&h, at_no, "split.no says that this is part %" PRId64 " of %" PRId64
                             ", it was given as part %zu", no + 1, count, part + 1);
    return 0;
}

/* The first part says how many tensors all have together. */
static int check_tensor_count(const struct gguf *g, struct fault *reterr)
{
    struct header h = {.n_parts = g->n_parts, .reterr = reterr};
    int64_t n_tensors;
    uint64_t at_tensors;
    int r;

    r = split_value(&h, &g->directories[0], "split.tensors.count", (int64_t)g->n_tensors, &n_tensors, &at_tensors);
    if (r < 0)
        return r;
    if ((uint64_t)n_tensors != g->n_tensors)
        return header_refuse(&h, at_tensors, "split.tensors.count is %" PRId64 ", the parts have %zu tensors",
                             n_tensors, g->n_tensors);
    return 0;
}

int gguf_read(const struct gguf_part *parts, size_t n_parts, struct gguf **ret, struct fault *reterr)
{
    _cleanup_(gguf_freep) struct gguf *g = NULL;
    int r;

    if (n_parts == 0 || n_parts > GGUF_PARTS_MAX) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "%zu files given, a model has 1 to %u", n_parts, GGUF_PARTS_MAX);
        return -EINVAL;
    }
    g = calloc(1, sizeof(*g));
    if (!g)
        return -ENOMEM;
    g->n_parts = n_parts;
    g->directories = calloc(n_parts, sizeof(*g->directories));
    if (!g->directories)
        return -ENOMEM;
    for (size_t i = 0; i < n_parts; i++) {
        r = read_part(g, &parts[i], i, reterr);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < n_parts; i++) {
        r = check_split(g, i, reterr);
        if (r < 0)
            return r;
    }
    r = check_tensor_count(g, reterr);
    if (r < 0)
        return r;
    r = order_tensors(g, reterr);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(g);
    return 0;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->directories[0].version;
}

size_t gguf_n_parts(const struct gguf *g)
{
    return g->n_parts;
}

uint32_t gguf_alignment(const struct gguf *g)
{
    return g->directories[0].alignment;
}

size_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    size_t low = 0, high = g->n_tensors;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct gguf_tensor *t = &g->tensors[g->tensor_order[middle]];
        int c = strcmp(name, t->name);

        if (c == 0)
            return t;
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
