/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/cuda-emulation/emulated-device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda-emulation/emulation.h"

enum { ALIGN = 256, MEMORIES_MAX = 64 };

static void *memories[MEMORIES_MAX];
static uint32_t n_memories, n_launches;

static void *allocate(size_t n_bytes)
{
    size_t all = (n_bytes + ALIGN) / ALIGN * ALIGN;
    void *p = aligned_alloc(ALIGN, all);

    assert_non_null(p);
    assert_true(n_memories < MEMORIES_MAX);
    memset(p, 0xFF, all);
    memories[n_memories++] = p;
    return p;
}

launch_address device_copy(const void *from, size_t n_bytes)
{
    void *p = allocate(n_bytes);

    memcpy(p, from, n_bytes);
    emulation_allow(p, n_bytes, 0);
    return (uintptr_t)p;
}

launch_address device_new(size_t n_bytes)
{
    void *p = allocate(n_bytes);

    emulation_allow(p, n_bytes, 1);
    return (uintptr_t)p;
}

void *device_memory(launch_address at)
{
    return (void *)(uintptr_t)at;
}

void device_reset(void)
{
    emulation_forget();
    while (n_memories > 0)
        free(memories[--n_memories]);
}

void device_launch(uint32_t kernel, const void *args)
{
    const struct emulation_kernel *k = emulated_kernel(launch_kernel_name(kernel));
    void *params[] = {(void *)(uintptr_t)args};
    struct launch_shape s;
    unsigned block[3] = {1, 1, 1};

    assert_non_null(k);
    assert_int_equal(launch_shape(kernel, args, &s), 0);
    block[0] = s.block;
    emulation_order(n_launches++);
    if (k->run(s.grid, block, s.shared_bytes, params) != EMULATION_OK)
        fail_msg("%s", emulation_message());
}
