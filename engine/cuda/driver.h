/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * NVIDIA's driver, found at run time: libcuda.so.1 is opened with dlopen(), so that one program runs with and without
 * a GPU, and is built without NVIDIA's toolkit. What is needed of the interface is declared here, after the public
 * reference of the CUDA driver API; names with _v2 are those of today (the plain ones are an old 32-bit interface).
 *
 * The driver's own memory and its threads come with driver_open(): a process that need not compute on a GPU does not
 * call it.
 *
 * Threads: a struct driver may be shared; the context that calls work on is one of the calling thread
 * (driver_context_set()).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct fault;

/* Names of the driver API, opaque but for their size. */
typedef int cuda_device_id;
typedef uint64_t cuda_pointer; /* an address in a device's memory; 0: none */
struct cuda_context;
struct cuda_module;
struct cuda_function;
struct cuda_stream;
struct cuda_event;
struct cuda_graph;
struct cuda_graph_exec;
struct cuda_graph_node;

/* CUresult: those that something is made of. */
enum cuda_error {
    CUDA_SUCCESS = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_NOT_INITIALIZED = 3,
    CUDA_DEINITIALIZED = 4,
    CUDA_STUB_LIBRARY = 34,
    CUDA_DEVICE_UNAVAILABLE = 46,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_DEVICE = 101,
    CUDA_INVALID_IMAGE = 200,
    CUDA_INVALID_CONTEXT = 201,
    CUDA_NO_BINARY_FOR_GPU = 209,
    CUDA_ECC_UNCORRECTABLE = 214,
    CUDA_NVLINK_UNCORRECTABLE = 220,
    CUDA_JIT_COMPILER_NOT_FOUND = 221,
    CUDA_UNSUPPORTED_PTX_VERSION = 222,
    CUDA_INVALID_HANDLE = 400,
    CUDA_ILLEGAL_STATE = 401,
    CUDA_NOT_FOUND = 500,
    CUDA_ILLEGAL_ADDRESS = 700,
    CUDA_LAUNCH_OUT_OF_RESOURCES = 701,
    CUDA_LAUNCH_TIMEOUT = 702,
    CUDA_CONTEXT_IS_DESTROYED = 709,
    CUDA_ALREADY_REGISTERED = 712,
    CUDA_HARDWARE_STACK_ERROR = 714,
    CUDA_ILLEGAL_INSTRUCTION = 715,
    CUDA_MISALIGNED_ADDRESS = 716,
    CUDA_INVALID_ADDRESS_SPACE = 717,
    CUDA_INVALID_PC = 718,
    CUDA_LAUNCH_FAILED = 719,
    CUDA_NOT_PERMITTED = 800,
    CUDA_NOT_SUPPORTED = 801,
    CUDA_SYSTEM_NOT_READY = 802,
    CUDA_SYSTEM_DRIVER_MISMATCH = 803,
    CUDA_CAPTURE_UNSUPPORTED = 900,
    CUDA_CAPTURE_INVALIDATED = 901,
    CUDA_CAPTURE_WRONG_THREAD = 908,
    CUDA_UNKNOWN = 999,
};

/* CUdevice_attribute. */
enum cuda_attribute {
    CUDA_MULTIPROCESSORS = 16,
    CUDA_INTEGRATED = 18,
    CUDA_COMPUTE_MODE = 20,
    CUDA_CAPABILITY_MAJOR = 75,
    CUDA_CAPABILITY_MINOR = 76,
    CUDA_SHARED_BYTES_MAX = 97,         /* of one block, asked for with CUDA_FUNCTION_SHARED_BYTES */
    CUDA_HOST_REGISTER_READ_ONLY = 113, /* cuMemHostRegister() takes pages that can't be written */
};

enum {
    CUDA_COMPUTE_PROHIBITED = 2,     /* of CUDA_COMPUTE_MODE */
    CUDA_FUNCTION_SHARED_BYTES = 8,  /* CUfunction_attribute: dynamic shared memory of a block, at most */
    CUDA_STREAM_NON_BLOCKING = 1,    /* does not wait for the legacy stream */
    CUDA_EVENT_DISABLE_TIMING = 2,
    CUDA_HOST_REGISTER_READ_ONLY_PAGES = 8,
    CUDA_CAPTURE_THREAD_LOCAL = 1,
};

/* Field of struct driver, name in the library, parameters. All of them return enum cuda_error as an int. */
#define DRIVER_CALLS(X)                                                                                                \
    X(init, "cuInit", (unsigned flags))                                                                                \
    X(version, "cuDriverGetVersion", (int *version))                                                                   \
    X(error_name, "cuGetErrorName", (int error, const char **name))                                                    \
    X(device_count, "cuDeviceGetCount", (int *n))                                                                      \
    X(device_get, "cuDeviceGet", (cuda_device_id * id, int i_device))                                                  \
    X(device_name, "cuDeviceGetName", (char *name, int size, cuda_device_id id))                                       \
    X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, cuda_device_id id))                        \
    X(device_memory, "cuDeviceTotalMem_v2", (size_t * n_bytes, cuda_device_id id))                                     \
    X(device_bus_id, "cuDeviceGetPCIBusId", (char *text, int size, cuda_device_id id))                                 \
    X(context_retain, "cuDevicePrimaryCtxRetain", (struct cuda_context * *ret, cuda_device_id id))                     \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", (cuda_device_id id))                                            \
    X(context_set, "cuCtxSetCurrent", (struct cuda_context * context))                                                 \
    X(memory_info, "cuMemGetInfo_v2", (size_t * free_bytes, size_t * total_bytes))                                     \
    X(memory_alloc, "cuMemAlloc_v2", (cuda_pointer * ret, size_t n_bytes))                                             \
    X(memory_free, "cuMemFree_v2", (cuda_pointer p))                                                                   \
    X(host_alloc, "cuMemHostAlloc", (void **ret, size_t n_bytes, unsigned flags))                                      \
    X(host_free, "cuMemFreeHost", (void *p))                                                                           \
    X(host_register, "cuMemHostRegister_v2", (void *p, size_t n_bytes, unsigned flags))                                \
    X(host_unregister, "cuMemHostUnregister", (void *p))                                                               \
    X(copy_to_device, "cuMemcpyHtoDAsync_v2",                                                                          \
      (cuda_pointer to, const void *from, size_t n_bytes, struct cuda_stream *stream))                                 \
    X(copy_to_host, "cuMemcpyDtoHAsync_v2",                                                                            \
      (void *to, cuda_pointer from, size_t n_bytes, struct cuda_stream *stream))                                       \
    X(copy_on_device, "cuMemcpyDtoDAsync_v2",                                                                          \
      (cuda_pointer to, cuda_pointer from, size_t n_bytes, struct cuda_stream *stream))                                \
    X(set_bytes, "cuMemsetD8Async",                                                                                    \
      (cuda_pointer to, unsigned char value, size_t n_bytes, struct cuda_stream *stream))                              \
    X(stream_new, "cuStreamCreate", (struct cuda_stream * *ret, unsigned flags))                                       \
    X(stream_free, "cuStreamDestroy_v2", (struct cuda_stream * stream))                                                \
    X(stream_wait, "cuStreamSynchronize", (struct cuda_stream * stream))                                               \
    X(event_new, "cuEventCreate", (struct cuda_event * *ret, unsigned flags))                                          \
    X(event_free, "cuEventDestroy_v2", (struct cuda_event * event))                                                    \
    X(event_record, "cuEventRecord", (struct cuda_event * event, struct cuda_stream * stream))                         \
    X(event_wait, "cuEventSynchronize", (struct cuda_event * event))                                                   \
    X(module_load, "cuModuleLoadData", (struct cuda_module * *ret, const void *image))                                 \
    X(module_free, "cuModuleUnload", (struct cuda_module * module))                                                    \
    X(module_function, "cuModuleGetFunction",                                                                          \
      (struct cuda_function * *ret, struct cuda_module * module, const char *name))                                    \
    X(function_set, "cuFuncSetAttribute", (struct cuda_function * function, int attribute, int value))                 \
    X(launch, "cuLaunchKernel",                                                                                        \
      (struct cuda_function * function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,           \
       unsigned block_y, unsigned block_z, unsigned shared_bytes, struct cuda_stream *stream, void **arguments,        \
       void **extra))

/* Likewise, of graphs: drivers older than CUDA 11.4 lack some of them. */
#define DRIVER_GRAPH_CALLS(X)                                                                                          \
    X(capture_begin, "cuStreamBeginCapture_v2", (struct cuda_stream * stream, int mode))                               \
    X(capture_end, "cuStreamEndCapture", (struct cuda_stream * stream, struct cuda_graph * *ret))                      \
    X(graph_instantiate, "cuGraphInstantiateWithFlags",                                                                \
      (struct cuda_graph_exec * *ret, struct cuda_graph * graph, unsigned long long flags))                            \
    X(graph_launch, "cuGraphLaunch", (struct cuda_graph_exec * graph, struct cuda_stream * stream))                    \
    X(graph_free, "cuGraphDestroy", (struct cuda_graph * graph))                                                       \
    X(graph_exec_free, "cuGraphExecDestroy", (struct cuda_graph_exec * graph))

#define DRIVER_FIELD(field, symbol, parameters) int(*field) parameters;

/* The library's functions: all of them present, and those of graphs all or none. */
struct driver {
    DRIVER_CALLS(DRIVER_FIELD)
    DRIVER_GRAPH_CALLS(DRIVER_FIELD)
    bool has_graphs;
    void *library;
    int version_number; /* of the CUDA that it runs: 12040 is 12.4 */
    uint32_t n_devices;
};

/* Expected outcomes of what works on a GPU, positive so that they can't be mistaken for errors. */
enum driver_result {
    DRIVER_NO_GPU = 1,    /* no library, no device, or none that may be used */
    DRIVER_TOO_OLD,       /* of the driver or of the GPU: the kernels can't run there */
    DRIVER_OUT_OF_MEMORY, /* of the device, or of pinned memory of the host */
    DRIVER_LOST,          /* the device is gone, or its context spoiled: nothing in this process can use it any more */
};

#define DRIVER_NAME_BYTES   96
#define DRIVER_BUS_ID_BYTES 16

struct driver_device {
    cuda_device_id id;
    uint32_t i_device; /* its number in the driver's order, as policies name devices */
    char name[DRIVER_NAME_BYTES];
    char bus_id[DRIVER_BUS_ID_BYTES]; /* "0000:01:00.0" */
    uint32_t capability; /* 10 * major + minor: 89 is sm_89 */
    uint32_t n_multiprocessors;
    uint32_t shared_bytes_max;
    bool registers_read_only; /* pages of a file that can't be written can be pinned where they are */
    uint64_t vram_bytes;
};

/**
 * driver_open() - open libcuda.so.1 and initialise it
 * @ret:    the driver, owned by the caller: driver_close()
 * @reterr: may be NULL; on DRIVER_NO_GPU and DRIVER_TOO_OLD a FAULT_MODEL_UNAVAILABLE whose reason tells a person why
 *          there is no GPU
 * Sets the environment's CUDA_CACHE_DISABLE unless there is a CUDA_CACHE_PATH: the driver keeps kernels that it had to
 * translate in the home directory, which a worker does not have. And CUDA_MODULE_LOADING, unless it is set: kernels
 * come to a device with their module, not at their first launch, when its memory may be gone. So call it before there
 * are threads.
 * Returns 0, DRIVER_NO_GPU, DRIVER_TOO_OLD, -ENOMEM, -EIO.
 */
int driver_open(struct driver **ret, struct fault *reterr);

/**
 * driver_close() - forget the library; takes NULL, returns NULL
 * It stays loaded: its threads may still run. No context may be in use any more.
 */
struct driver *driver_close(struct driver *d);

DEFINE_CLEANUP(struct driver *, driver_close)

/**
 * driver_device() - what device @i_device (< n_devices) is
 * Returns 0, DRIVER_NO_GPU (it may not be used by programs that compute), or as driver_check().
 */
int driver_device(const struct driver *d, uint32_t i_device, struct driver_device *ret, struct fault *reterr);

/**
 * driver_check() - sort a result of one of the library's functions
 * @call:   the function, for the message; a literal
 * @reterr: may be NULL; filled in unless it was a success: FAULT_INSUFFICIENT_MEMORY ("vram") or
 *          FAULT_MODEL_UNAVAILABLE
 * Returns 0, a driver_result, or -EIO for what can only be a mistake of this program.
 */
int driver_check(const struct driver *d, int error, const char *call, struct fault *reterr);
