/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Both ways of copying weights. A tensor's own pages are those that lie wholly inside it, so that two tensors never
 * pin the same page (which the driver refuses); its ends go through the buffers.
 */

#include "engine/cuda/upload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"

#define N_BUFFERS 2

/* Pinning costs a call into the kernel and the driver: small tensors are copied faster than pinned. */
#define REGISTER_BYTES_MIN ((uint64_t)4 << 20)
#define REGISTER_BYTES_MAX ((uint64_t)256 << 20) /* at a time, so that progress is seen */

/* While the GPU reads one piece, the next is pinned, and read from the disk where it is not in memory yet. */
#define N_PAGES 2

/* Pages of a file that are pinned where they are. */
struct upload_pages {
    void *at; /* NULL: none */
    uint64_t n_bytes;
    struct cuda_event *copied;
};

struct upload {
    struct device *device;
    upload_progress progress;
    void *userdata;
    void *buffers[N_BUFFERS];
    struct cuda_event *events[N_BUFFERS]; /* recorded behind the copy out of the buffer */
    bool in_use[N_BUFFERS];
    uint32_t turn;
    struct upload_pages pages[N_PAGES];
    uint32_t pages_turn;
    bool registers; /* until it fails once */
    uint64_t n_bytes, n_bytes_registered;
};

int upload_new(struct device *d, upload_progress progress, void *userdata, struct upload **ret, struct fault *reterr)
{
    _cleanup_(upload_freep) struct upload *u = calloc(1, sizeof(*u));
    const struct driver *v = d->driver;
    int r;

    if (!u)
        return -ENOMEM;
    *u = (struct upload){
        .device = d, .progress = progress, .userdata = userdata, .registers = d->info.registers_read_only};
    r = device_enter(d, reterr);
    for (uint32_t i = 0; r == 0 && i < N_BUFFERS; i++) {
        r = driver_check(v, v->host_alloc(&u->buffers[i], UPLOAD_BUFFER_BYTES, 0), "cuMemHostAlloc", reterr);
        if (r == DRIVER_OUT_OF_MEMORY)
            fault_init(reterr, FAULT_INSUFFICIENT_MEMORY, "ram");
        if (r == 0)
            r = driver_check(v, v->event_new(&u->events[i], CUDA_EVENT_DISABLE_TIMING), "cuEventCreate", reterr);
    }
    for (uint32_t i = 0; r == 0 && i < N_PAGES; i++)
        r = driver_check(v, v->event_new(&u->pages[i].copied, CUDA_EVENT_DISABLE_TIMING), "cuEventCreate", reterr);
    if (r == 0)
        *ret = TAKE_PTR(u);
    return r;
}

struct upload *upload_free(struct upload *u)
{
    if (!u)
        return NULL;
    (void)u->device->driver->context_set(u->device->context);
    (void)u->device->driver->stream_wait(u->device->stream);
    for (uint32_t i = 0; i < N_BUFFERS; i++) {
        if (u->events[i])
            (void)u->device->driver->event_free(u->events[i]);
        if (u->buffers[i])
            (void)u->device->driver->host_free(u->buffers[i]);
    }
    for (uint32_t i = 0; i < N_PAGES; i++) {
        if (u->pages[i].at)
            (void)u->device->driver->host_unregister(u->pages[i].at);
        if (u->pages[i].copied)
            (void)u->device->driver->event_free(u->pages[i].copied);
    }
    free(u);
    return NULL;
}

static int add_bytes(struct upload *u, uint64_t n_bytes)
{
    u->n_bytes += n_bytes;
    return u->progress && !u->progress(u->userdata, u->n_bytes) ? -ECANCELED : 0;
}

/* Through the buffers: each waits for the copy that it was used for before. */
static int add_staged(struct upload *u, cuda_pointer to, const uint8_t *from, uint64_t n_bytes, struct fault *reterr)
{
    const struct driver *v = u->device->driver;
    struct cuda_stream *stream = u->device->stream;
    int r = 0;

    for (uint64_t done = 0, n; r == 0 && done < n_bytes; done += n) {
        uint32_t i = u->turn;

        n = n_bytes - done < UPLOAD_BUFFER_BYTES ? n_bytes - done : UPLOAD_BUFFER_BYTES;
        if (u->in_use[i])
            r = driver_check(v, v->event_wait(u->events[i]), "cuEventSynchronize", reterr);
        if (r != 0)
            return r;
        u->in_use[i] = false;
        memcpy(u->buffers[i], from + done, n);
        r = driver_check(v, v->copy_to_device(to + done, u->buffers[i], n, stream), "cuMemcpyHtoDAsync", reterr);
        if (r == 0)
            r = driver_check(v, v->event_record(u->events[i], stream), "cuEventRecord", reterr);
        if (r == 0) {
            u->in_use[i] = true;
            u->turn = (i + 1) % N_BUFFERS;
            r = add_bytes(u, n);
        }
    }
    return r;
}

/* Waits until the pages were read. */
static int pages_release(struct upload *u, struct upload_pages *p, struct fault *reterr)
{
    const struct driver *v = u->device->driver;
    int r;

    if (!p->at)
        return 0;
    r = driver_check(v, v->event_wait(p->copied), "cuEventSynchronize", reterr);
    if (r != 0)
        return r;
    (void)v->host_unregister(TAKE_PTR(p->at));
    u->n_bytes_registered += p->n_bytes;
    return add_bytes(u, p->n_bytes);
}

/* Whole pages, out of where they are. Sets *@ret_done to what was handed in: nothing where pinning is refused. */
static int add_registered(struct upload *u, cuda_pointer to, const uint8_t *from, uint64_t n_bytes,
                          uint64_t *ret_done, struct fault *reterr)
{
    const struct driver *v = u->device->driver;
    uint64_t done = 0;
    int r = 0;

    while (r == 0 && done < n_bytes && u->registers) {
        uint64_t n = n_bytes - done < REGISTER_BYTES_MAX ? n_bytes - done : REGISTER_BYTES_MAX;
        struct upload_pages *p = &u->pages[u->pages_turn];
        void *at = (void *)(uintptr_t)(from + done); /* registered read-only */

        r = pages_release(u, p, reterr);
        if (r != 0)
            break;
        if (v->host_register(at, n, CUDA_HOST_REGISTER_READ_ONLY_PAGES) != CUDA_SUCCESS) {
            u->registers = false;
            break;
        }
        p->at = at;
        p->n_bytes = n;
        r = driver_check(v, v->copy_to_device(to + done, at, n, u->device->stream), "cuMemcpyHtoDAsync", reterr);
        if (r == 0)
            r = driver_check(v, v->event_record(p->copied, u->device->stream), "cuEventRecord", reterr);
        u->pages_turn = (u->pages_turn + 1) % N_PAGES;
        done += n;
    }
    *ret_done = done;
    return r;
}

int upload_add(struct upload *u, cuda_pointer to, const void *from, uint64_t n_bytes, struct fault *reterr)
{
    const uint8_t *p = from;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), head, inner = 0, done = 0;
    int r;

    r = device_enter(u->device, reterr);
    if (r != 0)
        return r;
    head = (page - (uintptr_t)p % page) % page;
    if (u->registers && n_bytes > head)
        inner = (n_bytes - head) / page * page;
    if (inner < REGISTER_BYTES_MIN)
        return add_staged(u, to, p, n_bytes, reterr);
    r = add_staged(u, to, p, head, reterr);
    if (r == 0)
        r = add_registered(u, to + head, p + head, inner, &done, reterr);
    if (r == 0)
        r = add_staged(u, to + head + done, p + head + done, n_bytes - head - done, reterr);
    return r;
}

int upload_finish(struct upload *u, struct fault *reterr)
{
    int r = device_enter(u->device, reterr);

    for (uint32_t i = 0; r == 0 && i < N_PAGES; i++)
        r = pages_release(u, &u->pages[(u->pages_turn + i) % N_PAGES], reterr);
    return r == 0 ? device_wait(u->device, reterr) : r;
}

uint64_t upload_bytes_registered(const struct upload *u)
{
    return u->n_bytes_registered;
}
