/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test double's streams: lists of commands, done when somebody waits. A captured graph is such a list, too.
 */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/cuda/driver.h"
#include "tests/fake-libcuda/fake-internal.h"

#define EXPORT __attribute__((visibility("default")))

#define DECLARE(field, symbol, parameters) EXPORT int fake_##field parameters __asm__(symbol);
DRIVER_CALLS(DECLARE)
DRIVER_GRAPH_CALLS(DECLARE)
#undef DECLARE

/* Unlike device memory, modules and graphs have nothing in them but what the double needs. */
struct cuda_module {
    int unused;
};

struct cuda_graph_exec {
    struct fake_list commands;
};

static void list_init(struct fake_list *l)
{
    *l = (struct fake_list){.first = NULL, .last = &l->first};
}

int fake_list_add(struct fake_list *l, const struct fake_command *c)
{
    struct fake_command *copy = malloc(sizeof(*copy));

    if (!copy) {
        free(c->argument);
        return CUDA_OUT_OF_MEMORY;
    }
    *copy = *c;
    copy->next = NULL;
    *l->last = copy;
    l->last = &copy->next;
    return CUDA_SUCCESS;
}

void fake_list_clear(struct fake_list *l)
{
    for (struct fake_command *c = l->first, *next; c; c = next) {
        next = c->next;
        free(c->argument);
        free(c);
    }
    list_init(l);
}

static int run_kernel(const struct fake_command *c)
{
    void *params[] = {c->argument};

    fake.counts.n_launches++;
    return c->kernel->run(c->grid, c->block, c->shared_bytes, params) == 0 ? CUDA_SUCCESS : CUDA_ILLEGAL_ADDRESS;
}

static void wait_for_copy(size_t n_bytes)
{
    uint64_t ns = fake.copy_ns * ((n_bytes + 1023) / 1024);
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

    if (ns)
        nanosleep(&t, NULL);
}

static int run_command(const struct fake_command *c)
{
    switch (c->type) {
    case FAKE_COPY:
        wait_for_copy(c->n_bytes);
        memcpy(c->to, c->from, c->n_bytes);
        break;
    case FAKE_SET:
        memset(c->to, c->value, c->n_bytes);
        break;
    case FAKE_LAUNCH:
        return run_kernel(c);
    case FAKE_EVENT:
        c->event->n_waiting--;
        break;
    }
    return CUDA_SUCCESS;
}

int fake_stream_run(struct cuda_stream *s, struct cuda_event *event)
{
    struct fake_command *c;
    int error = CUDA_SUCCESS;
    bool has_waited = false;

    while ((c = s->commands.first) && !error && (!event || event->n_waiting > 0)) {
        has_waited |= c->type != FAKE_EVENT;
        error = run_command(c);
        s->commands.first = c->next;
        if (!s->commands.first)
            s->commands.last = &s->commands.first;
        free(c->argument);
        free(c);
    }
    fake.counts.n_waits += has_waited;
    if (!error)
        return CUDA_SUCCESS;
    for (c = s->commands.first; c; c = c->next)
        if (c->type == FAKE_EVENT && c->event->n_waiting > 0)
            c->event->n_waiting--;
    fake_list_clear(&s->commands);
    fake.lost = true;
    return fake.lost_error = error;
}

_Thread_local struct cuda_stream *fake_capturing;

int fake_uncapturable(int error)
{
    if (error || !fake_capturing)
        return error;
    fake_capturing->spoiled = true;
    return CUDA_CAPTURE_UNSUPPORTED;
}

/* What the stream may be given by the calling thread. */
static int check_stream(const struct cuda_stream *s)
{
    if (!s || s->device != fake_device)
        return CUDA_INVALID_HANDLE;
    return s->spoiled ? CUDA_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

/* Into the stream, or into the graph that it is captured into. */
static int stream_add(struct cuda_stream *s, const struct fake_command *c)
{
    int error = check_stream(s);

    if (!error)
        return fake_list_add(s->capturing ? &s->capturing->commands : &s->commands, c);
    free(c->argument);
    return error;
}

int fake_stream_new(struct cuda_stream **ret, unsigned flags)
{
    int error = fake_enter();
    struct cuda_stream *s;

    (void)flags;
    if (!error && fake_device < 0)
        error = CUDA_INVALID_CONTEXT;
    s = error ? NULL : calloc(1, sizeof(*s));
    if (!s)
        return fake_leave(error ? error : CUDA_OUT_OF_MEMORY);
    list_init(&s->commands);
    s->device = fake_device;
    s->next = fake.streams;
    fake.streams = s;
    fake.counts.n_streams++;
    *ret = s;
    return fake_leave(CUDA_SUCCESS);
}

int fake_stream_free(struct cuda_stream *stream)
{
    fake_enter();
    for (struct cuda_stream **at = &fake.streams; *at; at = &(*at)->next) {
        if (*at != stream)
            continue;
        (void)fake_stream_run(stream, NULL);
        *at = stream->next;
        if (fake_capturing == stream)
            fake_capturing = NULL;
        free(stream);
        fake.counts.n_streams--;
        return fake_leave(CUDA_SUCCESS);
    }
    return fake_leave(CUDA_INVALID_HANDLE);
}

int fake_stream_wait(struct cuda_stream *stream)
{
    int error = fake_uncapturable(fake_enter());

    if (!error)
        error = stream ? fake_stream_run(stream, NULL) : CUDA_INVALID_HANDLE;
    return fake_leave(error);
}

int fake_event_new(struct cuda_event **ret, unsigned flags)
{
    int error = fake_enter();
    struct cuda_event *e = error ? NULL : calloc(1, sizeof(*e));

    (void)flags;
    if (!e)
        return fake_leave(error ? error : CUDA_OUT_OF_MEMORY);
    fake.counts.n_events++;
    *ret = e;
    return fake_leave(CUDA_SUCCESS);
}

int fake_event_free(struct cuda_event *event)
{
    fake_enter();
    if (event->n_waiting)
        (void)fake_stream_run(event->stream, event);
    free(event);
    fake.counts.n_events--;
    return fake_leave(CUDA_SUCCESS);
}

int fake_event_record(struct cuda_event *event, struct cuda_stream *stream)
{
    int error = fake_uncapturable(fake_work());

    if (!error)
        error = stream_add(stream, &(struct fake_command){.type = FAKE_EVENT, .event = event});
    if (!error) {
        event->n_waiting++;
        event->stream = stream;
    }
    return fake_leave(error);
}

int fake_event_wait(struct cuda_event *event)
{
    int error = fake_uncapturable(fake_enter());

    if (!error && event->n_waiting)
        error = fake_stream_run(event->stream, event);
    return fake_leave(error);
}

/* Memory of the host that is not pinned is copied at once by a driver, which a graph can't do. */
static bool is_pinned(const void *p, size_t n_bytes)
{
    uint64_t n_wild = fake.counts.n_wild;
    const struct fake_memory *m = fake_memory_of(p, n_bytes);

    fake.counts.n_wild = n_wild;
    return m && m->device < 0;
}

/* @to_device, @from_device: which ends must lie in a device's memory. */
static int add_copy(void *to, bool to_device, const void *from, bool from_device, size_t n_bytes,
                    struct cuda_stream *stream)
{
    const struct fake_memory *m;

    if (n_bytes == 0)
        return CUDA_SUCCESS;
    m = to_device ? fake_memory_of(to, n_bytes) : NULL;
    if (to_device && (!m || m->device < 0))
        return CUDA_INVALID_VALUE;
    m = from_device ? fake_memory_of(from, n_bytes) : NULL;
    if (from_device && (!m || m->device < 0))
        return CUDA_INVALID_VALUE;
    if (fake_capturing && !((to_device || is_pinned(to, n_bytes)) && (from_device || is_pinned(from, n_bytes))))
        return fake_uncapturable(CUDA_SUCCESS);
    return stream_add(stream, &(struct fake_command){.type = FAKE_COPY, .to = to, .from = from, .n_bytes = n_bytes});
}

int fake_copy_to_device(cuda_pointer to, const void *from, size_t n_bytes, struct cuda_stream *stream)
{
    int error = fake_work();

    fake.counts.bytes_to_device += n_bytes;
    return fake_leave(error ? error : add_copy((void *)(uintptr_t)to, true, from, false, n_bytes, stream));
}

int fake_copy_to_host(void *to, cuda_pointer from, size_t n_bytes, struct cuda_stream *stream)
{
    int error = fake_work();

    fake.counts.bytes_to_host += n_bytes;
    return fake_leave(error ? error : add_copy(to, false, (void *)(uintptr_t)from, true, n_bytes, stream));
}

int fake_copy_on_device(cuda_pointer to, cuda_pointer from, size_t n_bytes, struct cuda_stream *stream)
{
    int error = fake_work();

    return fake_leave(
        error ? error : add_copy((void *)(uintptr_t)to, true, (void *)(uintptr_t)from, true, n_bytes, stream));
}

int fake_set_bytes(cuda_pointer to, unsigned char value, size_t n_bytes, struct cuda_stream *stream)
{
    void *p = (void *)(uintptr_t)to;
    int error = fake_work();
    const struct fake_memory *m;

    if (!error && n_bytes) {
        m = fake_memory_of(p, n_bytes);
        error = m && m->device >= 0 ? stream_add(stream, &(struct fake_command){
                                                             .type = FAKE_SET, .to = p, .value = value, .n_bytes = n_bytes})
                                    : CUDA_INVALID_VALUE;
    }
    return fake_leave(error);
}

int fake_module_load(struct cuda_module **ret, const void *image)
{
    int error = fake_enter();
    struct cuda_module *m;

    if (!error)
        error = !image ? CUDA_INVALID_IMAGE : fake.module_error;
    m = error ? NULL : calloc(1, sizeof(*m));
    if (!m)
        return fake_leave(error ? error : CUDA_OUT_OF_MEMORY);
    fake.counts.n_modules++;
    *ret = m;
    return fake_leave(CUDA_SUCCESS);
}

int fake_module_free(struct cuda_module *module)
{
    fake_enter();
    free(module);
    fake.counts.n_modules--;
    return fake_leave(CUDA_SUCCESS);
}

int fake_module_function(struct cuda_function **ret, struct cuda_module *module, const char *name)
{
    int error = fake_enter();
    const struct emulation_kernel *k = fake_kernel_find(name);

    (void)module;
    if (!error && !k)
        error = CUDA_NOT_FOUND;
    if (!error)
        *ret = (struct cuda_function *)(uintptr_t)k;
    return fake_leave(error);
}

int fake_function_set(struct cuda_function *function, int attribute, int value)
{
    int error = fake_enter();

    if (!error && (attribute != CUDA_FUNCTION_SHARED_BYTES || value < 0 || value > 96 << 10 || !function))
        error = CUDA_INVALID_VALUE;
    return fake_leave(error);
}

static int add_launch(struct fake_command *c, struct cuda_stream *stream, void **arguments)
{
    const struct emulation_kernel *k = c->kernel;
    uint64_t n_threads = (uint64_t)c->block[0] * c->block[1] * c->block[2];

    fake.counts.n_launch_calls++;
    if (!k || n_threads == 0 || n_threads > 1024 || c->grid[0] == 0 ||
        c->grid[0] > INT32_MAX || c->grid[1] == 0 || c->grid[1] > 65535 || c->grid[2] == 0 || c->grid[2] > 65535)
        return CUDA_INVALID_VALUE;
    c->argument = malloc(k->args_bytes + 1);
    if (!c->argument)
        return CUDA_OUT_OF_MEMORY;
    if (k->args_bytes)
        memcpy(c->argument, arguments[0], k->args_bytes);
    return stream_add(stream, c);
}

int fake_launch(struct cuda_function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                unsigned block_y, unsigned block_z, unsigned shared_bytes, struct cuda_stream *stream,
                void **arguments, void **extra)
{
    struct fake_command c = {.type = FAKE_LAUNCH,
                             .kernel = (const struct emulation_kernel *)(const void *)function,
                             .grid = {grid_x, grid_y, grid_z},
                             .block = {block_x, block_y, block_z},
                             .shared_bytes = shared_bytes};
    int error = fake_work();

    if (!error && extra)
        error = CUDA_INVALID_VALUE;
    return fake_leave(error ? error : add_launch(&c, stream, arguments));
}

/* Of a thread's own calls, as only CUDA_CAPTURE_THREAD_LOCAL does. */
int fake_capture_begin(struct cuda_stream *stream, int mode)
{
    int error = fake_enter();
    struct cuda_graph *g;

    if (!error)
        error = check_stream(stream);
    if (!error && (stream->capturing || fake_capturing))
        error = CUDA_ILLEGAL_STATE;
    if (!error && mode != CUDA_CAPTURE_THREAD_LOCAL)
        error = CUDA_INVALID_VALUE;
    g = error ? NULL : calloc(1, sizeof(*g));
    if (!g)
        return fake_leave(error ? error : CUDA_OUT_OF_MEMORY);
    list_init(&g->commands);
    stream->capturing = g;
    fake_capturing = stream;
    fake.counts.n_graphs++;
    return fake_leave(CUDA_SUCCESS);
}

/* The stream is free again also where nothing has come of it. */
int fake_capture_end(struct cuda_stream *stream, struct cuda_graph **ret)
{
    int error = fake_enter();
    struct cuda_graph *g;

    if (!stream || !stream->capturing)
        return fake_leave(error ? error : CUDA_ILLEGAL_STATE);
    if (fake_capturing != stream)
        return fake_leave(error ? error : CUDA_CAPTURE_WRONG_THREAD);
    g = stream->capturing;
    if (!error && stream->spoiled)
        error = CUDA_CAPTURE_INVALIDATED;
    stream->capturing = NULL;
    fake_capturing = NULL;
    stream->spoiled = false;
    *ret = error ? NULL : g;
    if (error) {
        fake_list_clear(&g->commands);
        free(g);
        fake.counts.n_graphs--;
    }
    return fake_leave(error);
}

/* Appends copies of @from's commands. */
static int list_append(struct fake_list *to, const struct fake_list *from)
{
    for (const struct fake_command *c = from->first; c; c = c->next) {
        struct fake_command copy = *c;
        int error;

        if (c->argument) {
            copy.argument = malloc(c->kernel->args_bytes + 1);
            if (!copy.argument)
                return CUDA_OUT_OF_MEMORY;
            memcpy(copy.argument, c->argument, c->kernel->args_bytes);
        }
        error = fake_list_add(to, &copy);
        if (error)
            return error;
    }
    return CUDA_SUCCESS;
}

int fake_graph_instantiate(struct cuda_graph_exec **ret, struct cuda_graph *graph, unsigned long long flags)
{
    int error = fake_uncapturable(fake_work());
    struct cuda_graph_exec *x;

    if (!error && flags != 0)
        error = CUDA_INVALID_VALUE;
    if (!error && fake_is_refused())
        error = CUDA_OUT_OF_MEMORY;
    x = error ? NULL : calloc(1, sizeof(*x));
    if (!x)
        return fake_leave(error ? error : CUDA_OUT_OF_MEMORY);
    list_init(&x->commands);
    error = list_append(&x->commands, &graph->commands);
    if (error) {
        fake_list_clear(&x->commands);
        free(x);
        return fake_leave(error);
    }
    fake.counts.n_graphs++;
    fake.counts.n_graphs_made++;
    *ret = x;
    return fake_leave(CUDA_SUCCESS);
}

int fake_graph_launch(struct cuda_graph_exec *graph, struct cuda_stream *stream)
{
    int error = fake_uncapturable(fake_work());

    if (!error)
        error = check_stream(stream);
    if (!error)
        error = list_append(&stream->commands, &graph->commands);
    fake.counts.n_graph_launches += !error;
    return fake_leave(error);
}

int fake_graph_free(struct cuda_graph *graph)
{
    fake_enter();
    fake_list_clear(&graph->commands);
    free(graph);
    fake.counts.n_graphs--;
    return fake_leave(CUDA_SUCCESS);
}

int fake_graph_exec_free(struct cuda_graph_exec *graph)
{
    fake_enter();
    fake_list_clear(&graph->commands);
    free(graph);
    fake.counts.n_graphs--;
    return fake_leave(CUDA_SUCCESS);
}
