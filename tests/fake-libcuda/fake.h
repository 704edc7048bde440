/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A test double of NVIDIA's driver: a shared object libcuda.so.1 whose devices are memory of this process and whose
 * kernels are functions of it. Found where LD_LIBRARY_PATH says, so that everything above the driver API is the code
 * that a GPU runs.
 *
 * What it is stricter in than a driver: device memory is full of rubbish when it is given out; a stream does nothing
 * before somebody waits for it, and then only what was waited for, so that who forgets to wait reads old bytes, and who
 * changes too early what is still to be copied has that copied; addresses are checked in every copy; work goes to
 * streams of the current context only. A capture takes launches, copies of pinned memory and memsets; any call that
 * waits, takes or gives back memory makes it fail, as do most of them with a driver.
 *
 * Read from the environment by cuInit(), which also begins all counts anew when nothing is held:
 *   FAKE_CUDA_DEVICES       number of devices; default 1
 *   FAKE_CUDA_GONE          the first so many of the machine are not there: what follows has their numbers; default 0
 *   FAKE_CUDA_CAPABILITY    10 * major + minor of all; default 89
 *   FAKE_CUDA_COMPUTE_MODE  of all, as cuDeviceGetAttribute() says it: 2 is prohibited; default 0
 *   FAKE_CUDA_VRAM          bytes of each; default 8 GiB
 *   FAKE_CUDA_OTHERS        bytes of each that other programs hold; default 0
 *   FAKE_CUDA_CONTEXT       bytes of each that a context takes; default 0
 *   FAKE_CUDA_VERSION       of the driver; default 12040
 *   FAKE_CUDA_INIT          what cuInit() returns; default 0
 *   FAKE_CUDA_MODULE        what cuModuleLoadData() returns; default 0
 *   FAKE_CUDA_REFUSE        the number, from 1, of the allocation that is refused (of the device, pinned, or a graph); 0: none
 *   FAKE_CUDA_REFUSE_ALL    likewise, and all after it
 *   FAKE_CUDA_FULL          the number, from 1, of the copy, launch or the like that the driver itself has no memory for
 *   FAKE_CUDA_FULL_ALL      likewise, and all after it
 *   FAKE_CUDA_FULL_FILE     a file: while it exists, all of them; if it is of n bytes, the n-th since it exists
 *   FAKE_CUDA_LOST          the number, from 1, of the call that finds the device lost, as all calls after it; 0: none
 *   FAKE_CUDA_LOST_FILE     a file: while it exists, the device is lost
 *   FAKE_CUDA_LOST_ERROR    what they return; default 700
 *   FAKE_CUDA_NO_REGISTER   not 0: memory of the host can't be registered
 *   FAKE_CUDA_COPY_NS       nanoseconds that copying a KiB takes; default 0
 *   FAKE_CUDA_REPORT        a file to which each release of a last context appends a line of counts
 */

#include <stddef.h>
#include <stdint.h>

struct fake_counts {
    uint64_t n_calls, n_launches; /* n_launches: done, those of graphs included */
    uint64_t n_launch_calls;      /* handed in, or captured */
    uint64_t n_graph_launches, n_graphs_made;
    uint64_t n_waits;             /* that found something to wait for */
    uint64_t n_work; /* copies, launches and the like: asked for, refused ones included */
    uint64_t n_allocations; /* asked for, refused ones included; of the device, pinned, and graphs */
    uint64_t n_device_held, n_host_held, n_registered, n_streams, n_events, n_modules, n_graphs, n_contexts;
    uint64_t bytes_device_held, bytes_device_peak, bytes_host_held;
    uint64_t bytes_to_device, bytes_to_host;
    uint64_t n_wild; /* copies that left an allocation, or whose memory was unregistered before they were done */
    uint64_t n_freed_dirty; /* blocks of a device that were given back with something in them */
};

/**
 * fake_cuda_counts() - what was done and is held now; found with dlsym()
 */
void fake_cuda_counts(struct fake_counts *ret);

/**
 * fake_cuda_block() - the newest block of device memory of @n_bytes that is held; NULL: there is none. With dlsym()
 */
const void *fake_cuda_block(size_t n_bytes);

/**
 * fake_cuda_each() - @look at each block of memory that is held, the newest first; with dlsym()
 * @device: whose it is; -1: pinned
 */
void fake_cuda_each(void (*look)(const void *data, size_t n_bytes, int device, void *userdata), void *userdata);

/**
 * fake_cuda_used() - bytes of a device that this process and others hold; for the double of libnvidia-ml
 */
uint64_t fake_cuda_used(int device);

/* The parameter of a kernel of the double's own, "fake_add". Another one, "fake_fault", has none and fails. */
struct fake_add {
    uint64_t x; /* f32 [n] */
    float y;
    uint32_t n;
};
