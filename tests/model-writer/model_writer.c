/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GGUF writer of the tests: keys go into a growing buffer as they come, tensors are records with data or a recipe
 * for random ones, and writing puts header, keys, records and data in a row.
 */
#include "tests/model-writer/model_writer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/model-writer/random_blocks.h"

#define HEAD_BYTES 24 /* magic, version, two counts */
#define CHUNK_BYTES (1u << 20)

struct buffer {
    uint8_t *data;
    size_t n, n_allocated;
};

struct tensor {
    char *name;
    uint32_t type, n_dims;
    uint64_t dims[8]; /* more than the format allows, for wrong files */
    uint64_t offset, n_bytes;
    uint8_t *data; /* NULL: random, or no data at all (n_bytes 0) */
    float std;
    uint64_t seed;
};

struct model_writer {
    uint32_t version, alignment;
    struct buffer keys;
    uint64_t n_keys;
    struct tensor *tensors;
    size_t n_tensors;
    size_t n_record_bytes;
    uint64_t data_end; /* where the next tensor goes, in the data section */
};

/* Where the bytes go: a file or a buffer. */
struct sink {
    int fd;
    struct buffer *buffer;
    uint64_t n;
    bool sparse; /* random tensors are holes */
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "model-writer: %s (%s)\n", what, strerror(errno));
    abort();
}

static void buffer_add(struct buffer *b, const void *data, size_t n)
{
    if (n == 0)
        return;
    if (b->n_allocated - b->n < n) {
        b->n_allocated = (b->n + n) * 2;
        b->data = realloc(b->data, b->n_allocated);
        if (!b->data)
            die("no memory");
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

/* The project runs on little-endian machines only, so numbers go out as they lie in memory. */
static void buffer_string(struct buffer *b, const char *s)
{
    uint64_t n = strlen(s);

    buffer_add(b, &n, sizeof(n));
    buffer_add(b, s, n);
}

struct model_writer *model_writer_new(void)
{
    struct model_writer *w = calloc(1, sizeof(*w));

    if (!w)
        die("no memory");
    w->version = 3;
    w->alignment = 32;
    return w;
}

struct model_writer *model_writer_free(struct model_writer *w)
{
    if (!w)
        return NULL;
    for (size_t i = 0; i < w->n_tensors; i++) {
        free(w->tensors[i].name);
        free(w->tensors[i].data);
    }
    free(w->tensors);
    free(w->keys.data);
    free(w);
    return NULL;
}

void model_writer_version(struct model_writer *w, uint32_t version)
{
    w->version = version;
}

void model_writer_align(struct model_writer *w, uint32_t alignment)
{
    w->alignment = alignment;
}

uint64_t model_writer_key(struct model_writer *w, const char *name, uint32_t type, const void *value, size_t n_bytes)
{
    uint64_t at;

    if (w->n_tensors > 0)
        die("keys come before tensors");
    buffer_string(&w->keys, name);
    buffer_add(&w->keys, &type, sizeof(type));
    at = HEAD_BYTES + w->keys.n;
    buffer_add(&w->keys, value, n_bytes);
    w->n_keys++;
    return at;
}

uint64_t model_writer_u16(struct model_writer *w, const char *name, uint16_t value)
{
    return model_writer_key(w, name, GGUF_U16, &value, sizeof(value));
}

uint64_t model_writer_u32(struct model_writer *w, const char *name, uint32_t value)
{
    return model_writer_key(w, name, GGUF_U32, &value, sizeof(value));
}

uint64_t model_writer_i32(struct model_writer *w, const char *name, int32_t value)
{
    return model_writer_key(w, name, GGUF_I32, &value, sizeof(value));
}

uint64_t model_writer_u64(struct model_writer *w, const char *name, uint64_t value)
{
    return model_writer_key(w, name, GGUF_U64, &value, sizeof(value));
}

uint64_t model_writer_f32(struct model_writer *w, const char *name, float value)
{
    return model_writer_key(w, name, GGUF_F32, &value, sizeof(value));
}

uint64_t model_writer_bool(struct model_writer *w, const char *name, bool value)
{
    uint8_t byte = value;

    return model_writer_key(w, name, GGUF_BOOL, &byte, sizeof(byte));
}

uint64_t model_writer_string(struct model_writer *w, const char *name, const char *value)
{
    struct buffer b = {0};
    uint64_t at;

    buffer_string(&b, value);
    at = model_writer_key(w, name, GGUF_STRING, b.data, b.n);
    free(b.data);
    return at;
}

uint64_t model_writer_array(struct model_writer *w, const char *name, uint32_t element_type, const void *elements,
                            uint64_t n, size_t n_bytes)
{
    struct buffer b = {0};
    uint64_t at;

    buffer_add(&b, &element_type, sizeof(element_type));
    buffer_add(&b, &n, sizeof(n));
    buffer_add(&b, elements, n_bytes);
    at = model_writer_key(w, name, GGUF_ARRAY, b.data, b.n);
    free(b.data);
    return at + sizeof(element_type) + sizeof(n);
}

uint64_t model_writer_strings(struct model_writer *w, const char *name, const char *const *strings, size_t n)
{
    struct buffer b = {0};
    uint64_t at;

    for (size_t i = 0; i < n; i++)
        buffer_string(&b, strings[i]);
    at = model_writer_array(w, name, GGUF_STRING, b.data, n, b.n);
    free(b.data);
    return at;
}

static uint64_t align(uint64_t at, uint64_t alignment)
{
    return alignment ? (at + alignment - 1) / alignment * alignment : at;
}

static struct tensor *add_tensor(struct model_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                                 const uint64_t *dims, uint64_t *ret_record)
{
    struct tensor *t;

    if (n_dims > sizeof(t->dims) / sizeof(*t->dims))
        die("too many dimensions");
    w->tensors = realloc(w->tensors, (w->n_tensors + 1) * sizeof(*w->tensors));
    if (!w->tensors)
        die("no memory");
    t = &w->tensors[w->n_tensors++];
    *t = (struct tensor){.name = strdup(name), .type = type, .n_dims = n_dims};
    if (!t->name)
        die("no memory");
    if (n_dims > 0)
        memcpy(t->dims, dims, n_dims * sizeof(*dims));
    *ret_record = HEAD_BYTES + w->keys.n + w->n_record_bytes;
    w->n_record_bytes += 8 + strlen(name) + 4 + 8 * (size_t)n_dims + 4 + 8;
    return t;
}

uint64_t model_writer_tensor(struct model_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                             const uint64_t *dims, const void *data, size_t n_bytes)
{
    uint64_t record;
    struct tensor *t = add_tensor(w, name, type, n_dims, dims, &record);

    t->offset = align(w->data_end, w->alignment);
    t->n_bytes = n_bytes;
    t->data = malloc(n_bytes + 1);
    if (!t->data)
        die("no memory");
    if (n_bytes > 0)
        memcpy(t->data, data, n_bytes);
    w->data_end = t->offset + n_bytes;
    return record;
}

uint64_t model_writer_tensor_random(struct model_writer *w, const char *name, enum tensor_type type, uint32_t n_dims,
                                    const uint64_t *dims, float std, uint64_t seed)
{
    uint64_t record;
    struct tensor *t = add_tensor(w, name, type, n_dims, dims, &record);

    if (tensor_row_bytes(type, dims[0], &t->n_bytes) < 0)
        die("a row is no whole number of blocks");
    for (uint32_t i = 1; i < n_dims; i++)
        t->n_bytes *= dims[i];
    t->offset = align(w->data_end, w->alignment);
    t->std = std;
    t->seed = seed;
    w->data_end = t->offset + t->n_bytes;
    return record;
}

uint64_t model_writer_tensor_at(struct model_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                                const uint64_t *dims, uint64_t offset)
{
    uint64_t record;

    add_tensor(w, name, type, n_dims, dims, &record)->offset = offset;
    return record;
}

static void sink_put(struct sink *s, const void *data, size_t n)
{
    const uint8_t *p = data;

    s->n += n;
    if (s->buffer) {
        buffer_add(s->buffer, data, n);
        return;
    }
    while (n > 0) {
        ssize_t k = write(s->fd, p, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            die("cannot write");
        p += k;
        n -= (size_t)k;
    }
}

static void sink_pad(struct sink *s, uint64_t to)
{
    static const uint8_t zeros[4096];

    while (s->n < to)
        sink_put(s, zeros, to - s->n < sizeof(zeros) ? to - s->n : sizeof(zeros));
}

static void put_string(struct sink *s, const char *text)
{
    uint64_t n = strlen(text);

    sink_put(s, &n, sizeof(n));
    sink_put(s, text, n);
}

static void put_data(struct sink *s, const struct tensor *t)
{
    struct random_blocks random;
    uint8_t *chunk;

    if (t->data || t->n_bytes == 0) {
        sink_put(s, t->data, t->n_bytes);
        return;
    }
    if (s->sparse) {
        if (lseek(s->fd, (off_t)t->n_bytes, SEEK_CUR) < 0)
            die("cannot seek");
        s->n += t->n_bytes;
        return;
    }
    chunk = malloc(CHUNK_BYTES);
    if (!chunk)
        die("no memory");
    random_blocks_init(&random, (enum tensor_type)t->type, t->std, t->seed);
    for (uint64_t left = t->n_bytes; left > 0;) {
        uint64_t whole = CHUNK_BYTES / random.block_bytes * random.block_bytes;
        uint64_t n = left < whole ? left : whole;

        random_blocks_fill(&random, chunk, n);
        sink_put(s, chunk, n);
        left -= n;
    }
    free(chunk);
}

static void put_all(const struct model_writer *w, struct sink *s)
{
    uint64_t n_tensors = w->n_tensors, data;

    sink_put(s, "GGUF", 4);
    sink_put(s, &w->version, sizeof(w->version));
    sink_put(s, &n_tensors, sizeof(n_tensors));
    sink_put(s, &w->n_keys, sizeof(w->n_keys));
    sink_put(s, w->keys.data, w->keys.n);
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];

        put_string(s, t->name);
        sink_put(s, &t->n_dims, sizeof(t->n_dims));
        sink_put(s, t->dims, t->n_dims * sizeof(t->dims[0]));
        sink_put(s, &t->type, sizeof(t->type));
        sink_put(s, &t->offset, sizeof(t->offset));
    }
    if (w->n_tensors == 0)
        return;
    data = align(s->n, w->alignment);
    for (size_t i = 0; i < w->n_tensors; i++) {
        if (w->tensors[i].n_bytes == 0)
            continue;
        sink_pad(s, data + w->tensors[i].offset);
        put_data(s, &w->tensors[i]);
    }
    sink_pad(s, align(s->n, w->alignment));
}

uint8_t *model_writer_bytes(const struct model_writer *w, size_t *ret_n)
{
    struct buffer b = {0};
    struct sink s = {.fd = -EBADF, .buffer = &b};

    put_all(w, &s);
    *ret_n = b.n;
    return b.data;
}

void model_writer_write(const struct model_writer *w, int fd)
{
    struct sink s = {.fd = fd};

    put_all(w, &s);
}

void model_writer_write_sparse(const struct model_writer *w, int fd)
{
    struct sink s = {.fd = fd, .sparse = true};

    put_all(w, &s);
    if (ftruncate(fd, (off_t)s.n) < 0)
        die("cannot set the length");
}

int model_writer_memfd(const struct model_writer *w)
{
    int fd = memfd_create("test-model", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        die("cannot make a memfd");
    model_writer_write(w, fd);
    return fd;
}

struct model_writer *model_writer_split(const struct model_writer *w, size_t part, size_t n_parts)
{
    struct model_writer *to = model_writer_new();
    size_t from = w->n_tensors * part / n_parts, end = w->n_tensors * (part + 1) / n_parts;

    to->version = w->version;
    to->alignment = w->alignment;
    if (part == 0) {
        buffer_add(&to->keys, w->keys.data, w->keys.n);
        to->n_keys = w->n_keys;
    } else if (w->alignment != 32) {
        model_writer_u32(to, "general.alignment", w->alignment);
    }
    model_writer_u16(to, "split.no", (uint16_t)part);
    model_writer_u16(to, "split.count", (uint16_t)n_parts);
    model_writer_i32(to, "split.tensors.count", (int32_t)w->n_tensors);
    for (size_t i = from; i < end; i++) {
        const struct tensor *t = &w->tensors[i];

        if (t->data)
            model_writer_tensor(to, t->name, t->type, t->n_dims, t->dims, t->data, t->n_bytes);
        else if (t->n_bytes > 0)
            model_writer_tensor_random(to, t->name, (enum tensor_type)t->type, t->n_dims, t->dims, t->std, t->seed);
        else
            model_writer_tensor_at(to, t->name, t->type, t->n_dims, t->dims, t->offset);
    }
    return to;
}

void model_writer_adapter(struct model_writer *w, const struct model_writer *model, const struct adapter_shape *s)
{
    uint32_t n = 0;

    model_writer_string(w, "general.type", "adapter");
    model_writer_string(w, "adapter.type", "lora");
    model_writer_string(w, "general.architecture", s->architecture);
    if (s->alpha != 0.0f)
        model_writer_f32(w, "adapter.lora.alpha", s->alpha);
    for (size_t i = 0; i < model->n_tensors; i++) {
        const struct tensor *t = &model->tensors[i];
        bool experts = t->n_dims == 3 && strstr(t->name, "_exps.weight");
        uint64_t down[] = {t->dims[0], s->rank, t->dims[2]}, up[] = {s->rank, t->dims[1], t->dims[2]}, row_bytes;
        uint32_t n_dims = experts ? 3 : 2;
        enum tensor_type types[2] = {s->type, s->type};
        char name[256];

        if ((t->n_dims != 2 && !experts) || t->dims[1] < 2 || !strstr(t->name, ".weight") || strstr(t->name, "token_embd") ||
            n++ % s->period != 0)
            continue;
        if (tensor_row_bytes(s->type, down[0], &row_bytes) < 0)
            types[0] = TENSOR_F32;
        if (tensor_row_bytes(s->type, up[0], &row_bytes) < 0)
            types[1] = TENSOR_F32;
        snprintf(name, sizeof(name), "%s.lora_a", t->name);
        model_writer_tensor_random(w, name, types[0], n_dims, down, 1.0f / sqrtf((float)down[0]), s->seed * 7919 + 2 * i);
        snprintf(name, sizeof(name), "%s.lora_b", t->name);
        model_writer_tensor_random(w, name, types[1], n_dims, up, 1.0f / sqrtf((float)s->rank), s->seed * 7919 + 2 * i + 1);
    }
}
