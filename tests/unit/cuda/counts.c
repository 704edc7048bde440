/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/cuda/counts.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/cuda/driver.h"

static const char *const settings[] = {
    "FAKE_CUDA_DEVICES", "FAKE_CUDA_CAPABILITY", "FAKE_CUDA_VRAM",     "FAKE_CUDA_OTHERS",     "FAKE_CUDA_CONTEXT",
    "FAKE_CUDA_VERSION", "FAKE_CUDA_INIT",       "FAKE_CUDA_MODULE",   "FAKE_CUDA_REFUSE",     "FAKE_CUDA_REFUSE_ALL",
    "FAKE_CUDA_LOST",    "FAKE_CUDA_LOST_ERROR", "FAKE_CUDA_COPY_NS",  "FAKE_CUDA_NO_REGISTER",
    "FAKE_CUDA_LOST_FILE", "FAKE_CUDA_COMPUTE_MODE", "FAKE_CUDA_FULL",     "FAKE_CUDA_FULL_ALL", "FAKE_CUDA_FULL_FILE", "FAKE_CUDA_GONE",
};

int counts_forget_settings(void **state)
{
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        unsetenv(settings[i]);
    return 0;
}

bool counts_on_gpu(void)
{
    return getenv("RESIDENTD_GPU") != NULL;
}

void counts_need_double(void)
{
    if (counts_on_gpu())
        skip();
}

void counts_need_devices(uint32_t n)
{
    _cleanup_(driver_closep) struct driver *d = NULL;

    counts_set_number("FAKE_CUDA_DEVICES", n);
    if (counts_on_gpu() && (driver_open(&d, NULL) != 0 || d->n_devices < n))
        skip();
}

void counts_assert_equal(uint64_t count, uint64_t expected)
{
    if (!counts_on_gpu())
        assert_int_equal(count, expected);
}

/* A function of the double, which is loaded. */
static void *find(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), *p;

    assert_non_null(library);
    p = dlsym(library, name);
    assert_non_null(p);
    dlclose(library);
    return p;
}

struct fake_counts counts_read(void)
{
    void *p = counts_on_gpu() ? NULL : find("fake_cuda_counts");
    void (*get)(struct fake_counts *);
    struct fake_counts c = {0};

    if (!p)
        return c;
    memcpy(&get, &p, sizeof(get));
    get(&c);
    return c;
}

const uint8_t *counts_block(size_t n_bytes)
{
    void *p = find("fake_cuda_block");
    const void *(*get)(size_t);
    const void *block;

    memcpy(&get, &p, sizeof(get));
    block = get(n_bytes);
    assert_non_null(block);
    return block;
}

struct copy {
    uint8_t *data;
    size_t n_bytes;
};

static void append(const void *data, size_t n_bytes, int device, void *userdata)
{
    struct copy *c = userdata;

    c->data = realloc(c->data, c->n_bytes + n_bytes);
    assert_non_null(c->data);
    memcpy(c->data + c->n_bytes, data, n_bytes);
    c->n_bytes += n_bytes;
}

uint8_t *counts_copy(size_t *ret_n_bytes)
{
    void *p = find("fake_cuda_each");
    void (*each)(void (*)(const void *, size_t, int, void *), void *);
    struct copy c = {.data = NULL};

    memcpy(&each, &p, sizeof(each));
    each(append, &c);
    *ret_n_bytes = c.n_bytes;
    return c.data;
}

void counts_assert_none(void)
{
    struct fake_counts c = counts_read();

    assert_int_equal(c.n_device_held, 0);
    assert_int_equal(c.n_host_held, 0);
    assert_int_equal(c.n_registered, 0);
    assert_int_equal(c.n_streams + c.n_events + c.n_modules + c.n_graphs + c.n_contexts, 0);
    assert_int_equal(c.n_wild, 0);
}

void counts_set(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
}

void counts_set_number(const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    counts_set(name, text);
}
