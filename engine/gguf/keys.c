/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Typed questions to a model's metadata. Everything structural was checked when the directory was made, so what is
 * left are types and ranges: an integer may be stored in any width, as writers differ, but its value has to fit.
 * Values are put together byte by byte, since nothing in a GGUF head is aligned.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/fault.h"
#include "base/reader.h"
#include "engine/gguf/directory.h"
#include "engine/gguf/header.h"

static const char *const type_names[GGUF_VALUE_TYPE_MAX] = {
    [GGUF_U8] = "u8",   [GGUF_I8] = "i8",     [GGUF_U16] = "u16",       [GGUF_I16] = "i16",     [GGUF_U32] = "u32",
    [GGUF_I32] = "i32", [GGUF_F32] = "f32",   [GGUF_BOOL] = "bool",     [GGUF_STRING] = "string",
    [GGUF_ARRAY] = "array", [GGUF_U64] = "u64", [GGUF_I64] = "i64",     [GGUF_F64] = "f64",
};

const char *gguf_value_type_name(uint32_t type)
{
    return type < GGUF_VALUE_TYPE_MAX ? type_names[type] : "unknown";
}

size_t gguf_n_keys(const struct gguf *g)
{
    return g->directories[0].n_keys;
}

const struct gguf_key *gguf_key(const struct gguf *g, size_t i)
{
    return &g->directories[0].keys[i].key;
}

const struct directory_key *directory_find(const struct directory *d, const char *name)
{
    size_t low = 0, high = d->n_keys;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct directory_key *key = &d->keys[d->key_order[middle]];
        int c = strcmp(name, key->key.name);

        if (c == 0)
            return key;
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct gguf_key *gguf_find_key(const struct gguf *g, const char *name)
{
    const struct directory_key *key = directory_find(&g->directories[0], name);

    return key ? &key->key : NULL;
}

static uint64_t load(const uint8_t *p, uint32_t n_bytes)
{
    uint64_t v = 0;

    for (uint32_t i = 0; i < n_bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* 128 bits hold every stored integer with its sign. False when @type is no integer type. */
static bool load_integer(uint32_t type, const uint8_t *p, __int128 *ret)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        *ret = load(p, header_value_bytes(type));
        return true;
    case GGUF_I8:
        *ret = (int8_t)load(p, 1);
        return true;
    case GGUF_I16:
        *ret = (int16_t)load(p, 2);
        return true;
    case GGUF_I32:
        *ret = (int32_t)load(p, 4);
        return true;
    case GGUF_I64:
        *ret = (int64_t)load(p, 8);
        return true;
    default:
        return false;
    }
}

static float load_f32(const uint8_t *p)
{
    uint32_t bits = (uint32_t)load(p, 4);
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static double load_f64(const uint8_t *p)
{
    uint64_t bits = load(p, 8);
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static int wrong_type(const struct directory_key *key, const char *wanted, struct fault *reterr)
{
    const char *array = key->key.type == GGUF_ARRAY ? "array of " : "";

    fault_model_invalid(reterr, (int64_t)key->key.offset, "key %.64s is of type %s%s, %s is wanted",
                        key->key.name, array, gguf_value_type_name(key->key.element_type), wanted);
    return -EINVAL;
}

bool directory_integer(const struct directory_key *key, int64_t *ret)
{
    __int128 v;

    return load_integer(key->key.type, key->value, &v) && !__builtin_add_overflow(v, 0, ret);
}

static int get_integer(const struct gguf *g, const char *name, __int128 low, __int128 high, __int128 *ret,
                       struct fault *reterr)
{
    const struct directory_key *key = directory_find(&g->directories[0], name);
    __int128 v;

    if (!key)
        return -ENOENT;
    if (!load_integer(key->key.type, key->value, &v))
        return wrong_type(key, "an integer", reterr);
    if (v < low || v > high) {
        bool negative = v < 0;

        fault_model_invalid(reterr, (int64_t)key->key.offset, "key %.64s is %s%" PRIu64 ", outside %" PRId64 " to %"
                            PRIu64, key->key.name, negative ? "-" : "", (uint64_t)(negative ? -v : v), (int64_t)low,
                            (uint64_t)high);
        return -EINVAL;
    }
    *ret = v;
    return 0;
}

int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct fault *reterr)
{
    __int128 v;
    int r = get_integer(g, key, 0, UINT32_MAX, &v, reterr);

    if (r == 0)
        *ret = (uint32_t)v;
    return r;
}

int gguf_get_i32(const struct gguf *g, const char *key, int32_t *ret, struct fault *reterr)
{
    __int128 v;
    int r = get_integer(g, key, INT32_MIN, INT32_MAX, &v, reterr);

    if (r == 0)
        *ret = (int32_t)v;
    return r;
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *ret, struct fault *reterr)
{
    __int128 v;
    int r = get_integer(g, key, 0, UINT64_MAX, &v, reterr);

    if (r == 0)
        *ret = (uint64_t)v;
    return r;
}

int gguf_get_i64(const struct gguf *g, const char *key, int64_t *ret, struct fault *reterr)
{
    __int128 v;
    int r = get_integer(g, key, INT64_MIN, INT64_MAX, &v, reterr);

    if (r == 0)
        *ret = (int64_t)v;
    return r;
}

int gguf_get_f32(const struct gguf *g, const char *name, float *ret, struct fault *reterr)
{
    const struct directory_key *key = directory_find(&g->directories[0], name);
    float v;

    if (!key)
        return -ENOENT;
    if (key->key.type != GGUF_F32 && key->key.type != GGUF_F64)
        return wrong_type(key, "f32", reterr);
    v = key->key.type == GGUF_F32 ? load_f32(key->value) : (float)load_f64(key->value);
    if (!isfinite(v)) {
        fault_model_invalid(reterr, (int64_t)key->key.offset, "key %.64s is no finite number", key->key.name);
        return -EINVAL;
    }
    *ret = v;
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *name, bool *ret, struct fault *reterr)
{
    const struct directory_key *key = directory_find(&g->directories[0], name);

    if (!key)
        return -ENOENT;
    if (key->key.type != GGUF_BOOL)
        return wrong_type(key, "bool", reterr);
    *ret = key->value[0] != 0;
    return 0;
}

int gguf_get_string(const struct gguf *g, const char *name, struct gguf_string *ret, struct fault *reterr)
{
    const struct directory_key *key = directory_find(&g->directories[0], name);

    if (!key)
        return -ENOENT;
    if (key->key.type != GGUF_STRING)
        return wrong_type(key, "string", reterr);
    *ret = (struct gguf_string){.data = (const char *)key->value + 8, .n_bytes = load(key->value, 8)};
    return 0;
}

static int check_integers(const struct directory_key *key, __int128 low, __int128 high, const char *wanted,
                          struct fault *reterr)
{
    uint32_t n_bytes = header_value_bytes(key->key.element_type);

    for (uint64_t i = 0; i < key->key.n; i++) {
        __int128 v;

        if (!load_integer(key->key.element_type, key->value + i * n_bytes, &v))
            return wrong_type(key, wanted, reterr);
        if (v < low || v > high) {
            fault_model_invalid(reterr, (int64_t)(key->key.offset + i * n_bytes),
                                "element %" PRIu64 " of key %.64s is outside %" PRId64 " to %" PRId64, i, key->key.name,
                                (int64_t)low, (int64_t)high);
            return -EINVAL;
        }
    }
    return 0;
}

int gguf_get_array(const struct gguf *g, const char *name, enum gguf_value_type element_type, struct gguf_array *ret,
                   struct fault *reterr)
{
    const struct directory_key *key = directory_find(&g->directories[0], name);
    uint32_t type;
    int r = 0;

    if (!key)
        return -ENOENT;
    if (key->key.type != GGUF_ARRAY)
        return wrong_type(key, "an array", reterr);
    type = key->key.element_type;
    switch (element_type) {
    case GGUF_U32:
        r = check_integers(key, 0, UINT32_MAX, "an array of integers", reterr);
        break;
    case GGUF_I32:
        r = check_integers(key, INT32_MIN, INT32_MAX, "an array of integers", reterr);
        break;
    case GGUF_F32:
        r = type == GGUF_F32 || type == GGUF_F64 ? 0 : wrong_type(key, "an array of f32", reterr);
        break;
    case GGUF_BOOL:
        r = type == GGUF_BOOL ? 0 : wrong_type(key, "an array of bool", reterr);
        break;
    case GGUF_STRING:
        r = type == GGUF_STRING ? 0 : wrong_type(key, "an array of strings", reterr);
        break;
    default:
        return -EINVAL;
    }
    if (r < 0)
        return r;
    *ret = (struct gguf_array){
        .type = type,
        .n = key->key.n,
        .offset = key->key.offset,
        .elements = key->value,
        .strings = key->strings,
    };
    return 0;
}

uint32_t gguf_array_u32(const struct gguf_array *a, uint64_t i)
{
    __int128 v = 0;

    load_integer(a->type, a->elements + i * header_value_bytes(a->type), &v);
    return (uint32_t)v;
}

int32_t gguf_array_i32(const struct gguf_array *a, uint64_t i)
{
    __int128 v = 0;

    load_integer(a->type, a->elements + i * header_value_bytes(a->type), &v);
    return (int32_t)v;
}

float gguf_array_f32(const struct gguf_array *a, uint64_t i)
{
    return a->type == GGUF_F32 ? load_f32(a->elements + i * 4) : (float)load_f64(a->elements + i * 8);
}

bool gguf_array_bool(const struct gguf_array *a, uint64_t i)
{
    return a->elements[i] != 0;
}

struct gguf_string gguf_array_string(const struct gguf_array *a, uint64_t i)
{
    const uint8_t *p = a->elements + a->strings[i];

    return (struct gguf_string){.data = (const char *)p + 8, .n_bytes = load(p, 8)};
}

uint64_t gguf_array_offset(const struct gguf_array *a, uint64_t i)
{
    return a->offset + (a->strings ? a->strings[i] : i * header_value_bytes(a->type));
}
