/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test double's devices, contexts and memory. Streams, graphs and kernels are in stream.c.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/cuda/driver.h"
#include "tests/fake-libcuda/fake-internal.h"

#define EXPORT __attribute__((visibility("default")))

/* A driver hands VRAM out in pieces of so many bytes. */
#define GRAIN_BYTES ((size_t)2 << 20)

/* What a program would find in memory that another one left. */
#define RUBBISH 0xA5

/* The library exports the driver's names as they are declared by those who look them up. */
#define DECLARE(field, symbol, parameters) EXPORT int fake_##field parameters __asm__(symbol);
DRIVER_CALLS(DECLARE)
DRIVER_GRAPH_CALLS(DECLARE)
#undef DECLARE

struct fake fake = {.lock = PTHREAD_MUTEX_INITIALIZER};
_Thread_local int fake_device = -1;

static uint64_t setting(const char *name, uint64_t missing)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : missing;
}

static void read_settings(void)
{
    fake.n_devices = (int)setting("FAKE_CUDA_DEVICES", 1);
    if (fake.n_devices > FAKE_DEVICES_MAX)
        fake.n_devices = FAKE_DEVICES_MAX;
    fake.n_gone = (int)setting("FAKE_CUDA_GONE", 0);
    fake.capability = (int)setting("FAKE_CUDA_CAPABILITY", 89);
    fake.vram_bytes = setting("FAKE_CUDA_VRAM", UINT64_C(8) << 30);
    fake.others_bytes = setting("FAKE_CUDA_OTHERS", 0);
    fake.context_bytes = setting("FAKE_CUDA_CONTEXT", 0);
    fake.init_error = (int)setting("FAKE_CUDA_INIT", 0);
    fake.module_error = (int)setting("FAKE_CUDA_MODULE", 0);
    fake.refuse = setting("FAKE_CUDA_REFUSE", 0);
    fake.refuse_all = setting("FAKE_CUDA_REFUSE_ALL", 0);
    fake.full = setting("FAKE_CUDA_FULL", 0);
    fake.full_all = setting("FAKE_CUDA_FULL_ALL", 0);
    fake.full_file = getenv("FAKE_CUDA_FULL_FILE");
    fake.lost_at = setting("FAKE_CUDA_LOST", 0);
    fake.lost_error = (int)setting("FAKE_CUDA_LOST_ERROR", CUDA_ILLEGAL_ADDRESS);
    fake.lost_file = getenv("FAKE_CUDA_LOST_FILE");
    fake.no_register = setting("FAKE_CUDA_NO_REGISTER", 0) != 0;
    fake.copy_ns = setting("FAKE_CUDA_COPY_NS", 0);
    fake.report = getenv("FAKE_CUDA_REPORT");
}

int fake_enter(void)
{
    pthread_mutex_lock(&fake.lock);
    fake.counts.n_calls++;
    if (!fake.initialised)
        return CUDA_NOT_INITIALIZED;
    if (fake.lost_at && fake.counts.n_calls >= fake.lost_at)
        fake.lost = true;
    if (fake.lost_file && access(fake.lost_file, F_OK) == 0)
        fake.lost = true;
    return fake.lost ? fake.lost_error : CUDA_SUCCESS;
}

/* Its length, unlike its content, can be asked for without opening it, which workers can't. */
static bool is_full_by_file(void)
{
    struct stat st;

    if (!fake.full_file || stat(fake.full_file, &st) < 0) {
        fake.n_with_file = 0;
        return false;
    }
    return ++fake.n_with_file == (uint64_t)st.st_size || st.st_size == 0;
}

int fake_work(void)
{
    int error = fake_enter();
    uint64_t n = ++fake.counts.n_work;

    if (!error && (n == fake.full || (fake.full_all && n >= fake.full_all) || is_full_by_file()))
        error = CUDA_OUT_OF_MEMORY;
    return error;
}

int fake_leave(int error)
{
    pthread_mutex_unlock(&fake.lock);
    return error;
}

static bool holds_nothing(void)
{
    const struct fake_counts *c = &fake.counts;

    return !fake.memory && !fake.streams && !c->n_contexts && !c->n_events && !c->n_modules && !c->n_graphs;
}

EXPORT void fake_cuda_counts(struct fake_counts *ret)
{
    pthread_mutex_lock(&fake.lock);
    *ret = fake.counts;
    pthread_mutex_unlock(&fake.lock);
}

EXPORT const void *fake_cuda_block(size_t n_bytes)
{
    const void *p = NULL;

    pthread_mutex_lock(&fake.lock);
    for (const struct fake_memory *m = fake.memory; m && !p; m = m->next)
        if (m->device >= 0 && m->n_bytes == n_bytes)
            p = m->data;
    pthread_mutex_unlock(&fake.lock);
    return p;
}

EXPORT void fake_cuda_each(void (*look)(const void *data, size_t n_bytes, int device, void *userdata), void *userdata)
{
    pthread_mutex_lock(&fake.lock);
    for (const struct fake_memory *m = fake.memory; m; m = m->next)
        if (m->device >= -1)
            look(m->data, m->n_bytes, m->device, userdata);
    pthread_mutex_unlock(&fake.lock);
}

EXPORT uint64_t fake_cuda_used(int device)
{
    uint64_t n;

    pthread_mutex_lock(&fake.lock);
    n = device >= 0 && device < FAKE_DEVICES_MAX ? fake.held[device] + fake.others_bytes : 0;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

int fake_init(unsigned flags)
{
    int error;

    pthread_mutex_lock(&fake.lock);
    if (holds_nothing()) {
        fake.counts = (struct fake_counts){0};
        fake.lost = false;
        read_settings();
    }
    fake.initialised = fake.init_error == CUDA_SUCCESS;
    error = flags != 0 ? CUDA_INVALID_VALUE : fake.init_error;
    if (error == CUDA_SUCCESS && fake.lost_file && access(fake.lost_file, F_OK) == 0)
        error = CUDA_NO_DEVICE;
    return fake_leave(error);
}

int fake_version(int *version)
{
    *version = (int)setting("FAKE_CUDA_VERSION", 12040);
    return CUDA_SUCCESS;
}

int fake_error_name(int error, const char **name)
{
    static const struct {
        int error;
        const char *name;
    } names[] = {
        {CUDA_SUCCESS, "CUDA_SUCCESS"},
        {CUDA_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {CUDA_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {CUDA_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {CUDA_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {CUDA_JIT_COMPILER_NOT_FOUND, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND"},
        {CUDA_UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
        {CUDA_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {CUDA_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {CUDA_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {CUDA_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CUDA_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].error == error) {
            *name = names[i].name;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_INVALID_VALUE;
}

int fake_device_count(int *n)
{
    int error = fake_enter();

    *n = fake.n_devices;
    return fake_leave(error);
}

static int known_device(int i_device)
{
    return i_device >= 0 && i_device < fake.n_devices ? CUDA_SUCCESS : CUDA_INVALID_DEVICE;
}

int fake_device_get(cuda_device_id *id, int i_device)
{
    int error = fake_enter();

    *id = i_device;
    return fake_leave(error ? error : known_device(i_device));
}

int fake_device_name(char *name, int size, cuda_device_id id)
{
    int error = fake_enter();

    snprintf(name, (size_t)size, "Pretended GPU %d", id + fake.n_gone);
    return fake_leave(error ? error : known_device(id));
}

int fake_device_attribute(int *value, int attribute, cuda_device_id id)
{
    int error = fake_enter();

    switch (attribute) {
    case CUDA_MULTIPROCESSORS:
        *value = 4;
        break;
    case CUDA_COMPUTE_MODE:
        *value = (int)setting("FAKE_CUDA_COMPUTE_MODE", 0);
        break;
    case CUDA_CAPABILITY_MAJOR:
        *value = fake.capability / 10;
        break;
    case CUDA_CAPABILITY_MINOR:
        *value = fake.capability % 10;
        break;
    case CUDA_SHARED_BYTES_MAX:
        *value = 96 << 10;
        break;
    case CUDA_HOST_REGISTER_READ_ONLY:
        *value = !fake.no_register;
        break;
    default:
        *value = 0;
        break;
    }
    return fake_leave(error ? error : known_device(id));
}

int fake_device_memory(size_t *n_bytes, cuda_device_id id)
{
    int error = fake_enter();

    *n_bytes = fake.vram_bytes;
    return fake_leave(error ? error : known_device(id));
}

int fake_device_bus_id(char *text, int size, cuda_device_id id)
{
    int error = fake_enter();

    snprintf(text, (size_t)size, "0000:%02x:00.0", (unsigned)(id + fake.n_gone) + 1);
    return fake_leave(error ? error : known_device(id));
}

int fake_context_retain(struct cuda_context **ret, cuda_device_id id)
{
    int error = fake_enter();

    if (!error)
        error = known_device(id);
    if (!error && fake.n_contexts[id] == 0) {
        if (fake.held[id] + fake.others_bytes + fake.context_bytes > fake.vram_bytes)
            error = CUDA_OUT_OF_MEMORY;
        else
            fake.held[id] += fake.context_bytes;
    }
    if (!error) {
        fake.n_contexts[id]++;
        fake.counts.n_contexts++;
        *ret = (struct cuda_context *)(uintptr_t)(id + 1);
    }
    return fake_leave(error);
}

static void write_report(void)
{
    const struct fake_counts *c = &fake.counts;
    FILE *f = fake.report ? fopen(fake.report, "ae") : NULL;

    if (!f)
        return;
    fprintf(f,
            "allocations %llu launches %llu peak %llu device_held %llu host_held %llu registered %llu streams %llu "
            "events %llu modules %llu graphs %llu wild %llu\n",
            (unsigned long long)c->n_allocations, (unsigned long long)c->n_launches,
            (unsigned long long)c->bytes_device_peak, (unsigned long long)c->n_device_held,
            (unsigned long long)c->n_host_held, (unsigned long long)c->n_registered, (unsigned long long)c->n_streams,
            (unsigned long long)c->n_events, (unsigned long long)c->n_modules, (unsigned long long)c->n_graphs,
            (unsigned long long)c->n_wild);
    fclose(f);
}

/* Works on a lost device too, as what frees memory does: a process has to be able to let go. */
int fake_context_release(cuda_device_id id)
{
    int error;

    fake_enter();
    error = known_device(id);
    if (!error && fake.n_contexts[id] == 0)
        error = CUDA_INVALID_CONTEXT;
    if (!error) {
        fake.counts.n_contexts--;
        if (--fake.n_contexts[id] == 0)
            fake.held[id] -= fake.context_bytes;
        if (fake.counts.n_contexts == 0)
            write_report();
    }
    return fake_leave(error);
}

int fake_context_set(struct cuda_context *context)
{
    int error = fake_enter(), id = (int)(uintptr_t)context - 1;

    if (!error && id >= 0 && (id >= fake.n_devices || fake.n_contexts[id] == 0))
        error = CUDA_INVALID_CONTEXT;
    if (!error)
        fake_device = id;
    return fake_leave(error);
}

static int enter_device(void)
{
    int error = fake_enter();

    return error ? error : fake_device < 0 ? CUDA_INVALID_CONTEXT : CUDA_SUCCESS;
}

int fake_memory_info(size_t *free_bytes, size_t *total_bytes)
{
    int error = enter_device();
    uint64_t used = error ? 0 : fake.held[fake_device] + fake.others_bytes;

    *total_bytes = fake.vram_bytes;
    *free_bytes = used < fake.vram_bytes ? fake.vram_bytes - used : 0;
    return fake_leave(error);
}

bool fake_is_refused(void)
{
    uint64_t n = ++fake.counts.n_allocations;

    return n == fake.refuse || (fake.refuse_all && n >= fake.refuse_all);
}

static int memory_add(void *data, size_t n_bytes, size_t charged_bytes, int device)
{
    struct fake_memory *m = malloc(sizeof(*m));

    if (!m)
        return CUDA_OUT_OF_MEMORY;
    *m = (struct fake_memory){
        .next = fake.memory, .data = data, .n_bytes = n_bytes, .charged_bytes = charged_bytes, .device = device};
    fake.memory = m;
    return CUDA_SUCCESS;
}

/* The memory that begins at @p, taken out of the list; NULL when there is none of this kind. */
static struct fake_memory *memory_remove(const void *p, bool is_device, int device)
{
    for (struct fake_memory **at = &fake.memory; *at; at = &(*at)->next) {
        struct fake_memory *m = *at;

        if (m->data == p && (is_device ? m->device >= 0 : m->device == device)) {
            *at = m->next;
            return m;
        }
    }
    return NULL;
}

struct fake_memory *fake_memory_of(const void *p, size_t n_bytes)
{
    const uint8_t *begin = p;

    for (struct fake_memory *m = fake.memory; m; m = m->next)
        if (begin >= m->data && begin <= m->data + m->n_bytes && n_bytes <= (size_t)(m->data + m->n_bytes - begin))
            return m;
    fake.counts.n_wild++;
    return NULL;
}

static int device_alloc(cuda_pointer *ret, size_t n_bytes)
{
    size_t charged = (n_bytes + GRAIN_BYTES - 1) / GRAIN_BYTES * GRAIN_BYTES;
    void *data = NULL;

    if (n_bytes == 0)
        return CUDA_INVALID_VALUE;
    if (fake_is_refused() || n_bytes > fake.vram_bytes ||
        fake.held[fake_device] + fake.others_bytes + charged > fake.vram_bytes)
        return CUDA_OUT_OF_MEMORY;
    if (posix_memalign(&data, 512, n_bytes) != 0)
        return CUDA_OUT_OF_MEMORY;
    memset(data, RUBBISH, n_bytes);
    if (memory_add(data, n_bytes, charged, fake_device) != CUDA_SUCCESS) {
        free(data);
        return CUDA_OUT_OF_MEMORY;
    }
    fake.held[fake_device] += charged;
    fake.counts.n_device_held++;
    fake.counts.bytes_device_held += charged;
    if (fake.counts.bytes_device_held > fake.counts.bytes_device_peak)
        fake.counts.bytes_device_peak = fake.counts.bytes_device_held;
    *ret = (cuda_pointer)(uintptr_t)data;
    return CUDA_SUCCESS;
}

int fake_memory_alloc(cuda_pointer *ret, size_t n_bytes)
{
    int error = fake_uncapturable(enter_device());

    return fake_leave(error ? error : device_alloc(ret, n_bytes));
}

/* As with the real one, whatever uses the memory ends first. */
static void run_all_streams(void)
{
    for (struct cuda_stream *s = fake.streams; s; s = s->next)
        (void)fake_stream_run(s, NULL);
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

int fake_memory_free(cuda_pointer p)
{
    struct fake_memory *m;

    fake_enter();
    if (fake_uncapturable(CUDA_SUCCESS))
        return fake_leave(CUDA_CAPTURE_UNSUPPORTED);
    run_all_streams();
    m = memory_remove((void *)(uintptr_t)p, true, 0);
    if (!m)
        return fake_leave(CUDA_INVALID_VALUE);
    fake.held[m->device] -= m->charged_bytes;
    fake.counts.n_freed_dirty += !is_zero(m->data, m->n_bytes);
    fake.counts.n_device_held--;
    fake.counts.bytes_device_held -= m->charged_bytes;
    free(m->data);
    free(m);
    return fake_leave(CUDA_SUCCESS);
}

int fake_host_alloc(void **ret, size_t n_bytes, unsigned flags)
{
    int error = fake_uncapturable(enter_device());
    void *data = NULL;

    (void)flags;
    if (!error && (fake_is_refused() || posix_memalign(&data, 4096, n_bytes) != 0))
        error = CUDA_OUT_OF_MEMORY;
    if (!error) {
        memset(data, RUBBISH, n_bytes);
        error = memory_add(data, n_bytes, n_bytes, -1);
    }
    if (error) {
        free(data);
        return fake_leave(error);
    }
    fake.counts.n_host_held++;
    fake.counts.bytes_host_held += n_bytes;
    *ret = data;
    return fake_leave(CUDA_SUCCESS);
}

int fake_host_free(void *p)
{
    struct fake_memory *m;

    fake_enter();
    if (fake_uncapturable(CUDA_SUCCESS))
        return fake_leave(CUDA_CAPTURE_UNSUPPORTED);
    run_all_streams();
    m = memory_remove(p, false, -1);
    if (!m)
        return fake_leave(CUDA_INVALID_VALUE);
    fake.counts.n_host_held--;
    fake.counts.bytes_host_held -= m->n_bytes;
    free(m->data);
    free(m);
    return fake_leave(CUDA_SUCCESS);
}

int fake_host_register(void *p, size_t n_bytes, unsigned flags)
{
    int error = fake_uncapturable(enter_device());

    (void)flags;
    if (!error && fake.no_register)
        error = CUDA_NOT_SUPPORTED;
    if (!error && ((uintptr_t)p % 4096 || n_bytes == 0))
        error = CUDA_INVALID_VALUE;
    if (!error)
        error = memory_add(p, n_bytes, 0, -2);
    if (!error)
        fake.counts.n_registered++;
    return fake_leave(error);
}

/* Whether a copy out of it is still to be done. */
static bool is_read(const struct fake_memory *m)
{
    for (const struct cuda_stream *s = fake.streams; s; s = s->next)
        for (const struct fake_command *c = s->commands.first; c; c = c->next)
            if (c->type == FAKE_COPY && (const uint8_t *)c->from >= m->data &&
                (const uint8_t *)c->from < m->data + m->n_bytes)
                return true;
    return false;
}

int fake_host_unregister(void *p)
{
    struct fake_memory *m;

    fake_enter();
    if (fake_uncapturable(CUDA_SUCCESS))
        return fake_leave(CUDA_CAPTURE_UNSUPPORTED);
    m = memory_remove(p, false, -2);
    if (!m)
        return fake_leave(CUDA_INVALID_VALUE);
    /* Nobody waits here: who is not done with it reads what is no longer pinned. */
    fake.counts.n_wild += is_read(m);
    fake.counts.n_registered--;
    free(m);
    return fake_leave(CUDA_SUCCESS);
}
