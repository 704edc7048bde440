/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver, a device and an upload, through the test double of libcuda; what can be said of any GPU, on that.
 */
#include "engine/cuda/driver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/cuda/device.h"
#include "engine/cuda/launch.h"
#include "engine/cuda/upload.h"
#include "tests/fake-libcuda/fake.h"
#include "tests/unit/cuda/counts.h"

static const void *image(void)
{
    size_t n_bytes;

    return launch_image(&n_bytes);
}

static struct driver *open_driver(void)
{
    struct driver *d = NULL;
    struct fault f = {};

    if (driver_open(&d, &f) != 0)
        fail_msg("%s", f.reason);
    return d;
}

/* driver_open() is expected to fail with @result and to say why in words that have @word among them. */
static void refused(int result, const char *word)
{
    struct driver *d = NULL;
    struct fault f = {};

    assert_int_equal(driver_open(&d, &f), result);
    assert_null(d);
    assert_int_equal(f.kind, FAULT_MODEL_UNAVAILABLE);
    if (!strstr(f.reason, word))
        fail_msg("\"%s\" doesn't say \"%s\"", f.reason, word);
}

static void devices_are_told(void **state)
{
    _cleanup_(driver_closep) struct driver *d = NULL;
    struct driver_device v;

    counts_need_double();
    counts_set("FAKE_CUDA_DEVICES", "2");
    counts_set("FAKE_CUDA_CAPABILITY", "120");
    counts_set("FAKE_CUDA_VRAM", "17179869184");
    d = open_driver();
    assert_int_equal(d->n_devices, 2);
    assert_int_equal(d->version_number, 12040);
    assert_int_equal(driver_device(d, 1, &v, NULL), 0);
    assert_string_equal(v.name, "Pretended GPU 1");
    assert_string_equal(v.bus_id, "0000:02:00.0");
    assert_int_equal(v.capability, 120);
    assert_int_equal(v.vram_bytes, UINT64_C(16) << 30);
    assert_int_equal(v.n_multiprocessors, 4);
    assert_true(v.registers_read_only);
    assert_int_equal(driver_device(d, 2, &v, NULL), DRIVER_NO_GPU);
}

static void a_reason_says_why_there_is_no_gpu(void **state)
{
    counts_need_double();
    counts_set("FAKE_CUDA_DEVICES", "0");
    refused(DRIVER_NO_GPU, "there is no GPU");
    counts_set("FAKE_CUDA_INIT", "100");
    refused(DRIVER_NO_GPU, "CUDA_ERROR_NO_DEVICE (100) from cuInit");
    counts_set("FAKE_CUDA_INIT", "803");
    refused(DRIVER_TOO_OLD, "CUDA 12.4");
    counts_set("FAKE_CUDA_INIT", "999");
    refused(DRIVER_LOST, "(999) from cuInit");
}

static void an_old_gpu_is_refused(void **state)
{
    _cleanup_(driver_closep) struct driver *d = NULL;
    struct driver_device v;
    struct fault f = {};

    counts_need_double();
    counts_set("FAKE_CUDA_CAPABILITY", "61");
    d = open_driver();
    assert_int_equal(driver_device(d, 0, &v, &f), DRIVER_TOO_OLD);
    assert_non_null(strstr(f.reason, "capability 6.1, the kernels need 7.5"));
}

static void an_old_driver_is_told_from_a_broken_one(void **state)
{
    static const struct {
        const char *error;
        int result;
    } cases[] = {{"209", DRIVER_TOO_OLD}, {"221", DRIVER_TOO_OLD}, {"222", DRIVER_TOO_OLD},
                 {"2", DRIVER_OUT_OF_MEMORY}, {"719", DRIVER_LOST}, {"1", -EIO}};

    counts_need_double();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(driver_closep) struct driver *d = NULL;
        struct device *device = NULL;
        struct fault f = {};

        counts_set("FAKE_CUDA_MODULE", cases[i].error);
        d = open_driver();
        assert_int_equal(device_open(d, 0, image(), &device, &f), cases[i].result);
        assert_int_equal(f.kind, cases[i].result == DRIVER_OUT_OF_MEMORY ? FAULT_INSUFFICIENT_MEMORY
                                                                         : FAULT_MODEL_UNAVAILABLE);
        counts_assert_none();
    }
}

static void memory_that_others_hold_is_not_given_out(void **state)
{
    _cleanup_(driver_closep) struct driver *d = NULL;
    _cleanup_(device_closep) struct device *device = NULL;
    uint64_t free_bytes;
    cuda_pointer p;
    struct fault f = {};

    counts_need_double();
    counts_set("FAKE_CUDA_VRAM", "67108864");
    counts_set("FAKE_CUDA_OTHERS", "33554432");
    counts_set("FAKE_CUDA_CONTEXT", "4194304");
    d = open_driver();
    assert_int_equal(device_open(d, 0, image(), &device, NULL), 0);
    assert_int_equal(device_free_bytes(device, &free_bytes, NULL), 0);
    assert_int_equal(free_bytes, 28 << 20);
    assert_int_equal(device_alloc(device, 30 << 20, &p, &f), DRIVER_OUT_OF_MEMORY);
    assert_int_equal(f.kind, FAULT_INSUFFICIENT_MEMORY);
    assert_string_equal(f.subject, "vram");
    assert_int_equal(f.used, 30 << 20);
    assert_int_equal(f.limit, 28 << 20);
    assert_int_equal(device_alloc(device, 28 << 20, &p, &f), 0);
    assert_int_equal(device->bytes_held, 28 << 20);
}

static void memory_is_zero_when_it_is_taken(void **state)
{
    _cleanup_(driver_closep) struct driver *d = open_driver();
    _cleanup_(device_closep) struct device *device = NULL;
    uint8_t bytes[1000];
    cuda_pointer p;

    memset(bytes, 1, sizeof(bytes));
    assert_int_equal(device_open(d, 0, image(), &device, NULL), 0);
    assert_int_equal(device_alloc(device, sizeof(bytes), &p, NULL), 0);
    assert_int_equal(d->copy_to_host(bytes, p, sizeof(bytes), device->stream), CUDA_SUCCESS);
    assert_true(counts_on_gpu() || bytes[500] == 1); /* the double waits until it is waited for */
    assert_int_equal(device_wait(device, NULL), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        assert_int_equal(bytes[i], 0);
}

static void a_fault_of_a_kernel_loses_the_device(void **state)
{
    _cleanup_(driver_closep) struct driver *d = open_driver();
    struct device *device = NULL;
    struct cuda_function *fn;
    cuda_pointer p;
    struct fault f = {};

    counts_need_double();
    assert_int_equal(device_open(d, 0, image(), &device, NULL), 0);
    assert_int_equal(device_alloc(device, 100, &p, NULL), 0);
    assert_int_equal(device_function(device, "fake_fault", 0, &fn, NULL), 0);
    assert_int_equal(d->launch(fn, 1, 1, 1, 32, 1, 1, 0, device->stream, NULL, NULL), CUDA_SUCCESS);
    assert_int_equal(device_wait(device, &f), DRIVER_LOST);
    assert_non_null(strstr(f.reason, "the GPU was lost: CUDA_ERROR_ILLEGAL_ADDRESS (700)"));
    assert_int_equal(device_alloc(device, 100, &p, NULL), DRIVER_LOST);
    device_close(device);
    counts_assert_none();
}

static void launches_keep_the_arguments_of_their_call(void **state)
{
    _cleanup_(driver_closep) struct driver *d = open_driver();
    _cleanup_(device_closep) struct device *device = NULL;
    struct cuda_function *fn;
    float x[4] = {1, 2, 3, 4};
    struct fake_add add = {.y = 10, .n = 3};
    cuda_pointer p;
    void *arguments[] = {&add};

    counts_need_double();
    assert_int_equal(device_open(d, 0, image(), &device, NULL), 0);
    assert_int_equal(device_alloc(device, sizeof(x), &p, NULL), 0);
    assert_int_equal(device_function(device, "fake_add", 0, &fn, NULL), 0);
    assert_int_equal(d->copy_to_device(p, x, sizeof(x), device->stream), CUDA_SUCCESS);
    add.x = p;
    assert_int_equal(d->launch(fn, 1, 1, 1, 32, 1, 1, 0, device->stream, arguments, NULL), CUDA_SUCCESS);
    add.y = 1000;
    assert_int_equal(d->copy_to_host(x, p, sizeof(x), device->stream), CUDA_SUCCESS);
    assert_int_equal(device_wait(device, NULL), 0);
    assert_true(x[0] == 11 && x[2] == 13 && x[3] == 4);
}

/* A stream with memory, and the kernel that adds to it. */
struct adding {
    struct driver *driver;
    struct device *device;
    struct cuda_function *fn;
    struct fake_add add;
    void *pinned;
};

static void adding_begin(struct adding *a)
{
    cuda_pointer p;

    a->driver = open_driver();
    assert_int_equal(device_open(a->driver, 0, image(), &a->device, NULL), 0);
    assert_int_equal(device_alloc(a->device, 4 * sizeof(float), &p, NULL), 0);
    assert_int_equal(device_pinned(a->device, 64, &a->pinned, NULL), 0);
    assert_int_equal(device_function(a->device, "fake_add", 0, &a->fn, NULL), 0);
    a->add = (struct fake_add){.x = p, .y = 1, .n = 4};
}

static int adding_launch(struct adding *a, float y)
{
    void *arguments[] = {&a->add};

    a->add.y = y;
    return a->driver->launch(a->fn, 1, 1, 1, 32, 1, 1, 0, a->device->stream, arguments, NULL);
}

static float adding_end(struct adding *a)
{
    float x[4] = {0};

    assert_int_equal(a->driver->copy_to_host(x, a->add.x, sizeof(x), a->device->stream), CUDA_SUCCESS);
    assert_int_equal(device_wait(a->device, NULL), 0);
    device_close(a->device);
    driver_close(a->driver);
    counts_assert_none();
    return x[3];
}

static void a_graph_is_what_was_captured(void **state)
{
    struct cuda_graph_exec *exec;
    struct cuda_graph *graph;
    struct fake_counts c;
    struct adding a;

    counts_need_double();
    adding_begin(&a);
    assert_int_equal(a.driver->capture_begin(a.device->stream, CUDA_CAPTURE_THREAD_LOCAL), CUDA_SUCCESS);
    assert_int_equal(adding_launch(&a, 1), CUDA_SUCCESS);
    assert_int_equal(adding_launch(&a, 10), CUDA_SUCCESS);
    assert_int_equal(a.driver->capture_end(a.device->stream, &graph), CUDA_SUCCESS);
    assert_int_equal(device_wait(a.device, NULL), 0);
    assert_int_equal(counts_read().n_launches, 0); /* captured is not done */
    assert_int_equal(a.driver->graph_instantiate(&exec, graph, 0), CUDA_SUCCESS);
    assert_int_equal(a.driver->graph_free(graph), CUDA_SUCCESS);
    assert_int_equal(adding_launch(&a, 100), CUDA_SUCCESS);
    assert_int_equal(a.driver->graph_launch(exec, a.device->stream), CUDA_SUCCESS);
    assert_int_equal(a.driver->graph_launch(exec, a.device->stream), CUDA_SUCCESS);
    assert_int_equal(device_wait(a.device, NULL), 0);
    c = counts_read();
    assert_int_equal(c.n_launches, 5);
    assert_int_equal(c.n_launch_calls, 3);
    assert_int_equal(c.n_graph_launches, 2);
    assert_int_equal(a.driver->graph_exec_free(exec), CUDA_SUCCESS);
    assert_true(adding_end(&a) == 122);
}

/* As with a driver: the call fails, and so does the capture; the stream is good for other things afterwards. */
static void a_capture_does_not_allow(void **state)
{
    enum { WAIT, ALLOCATE, PIN, FREE, EVENT, PAGEABLE, REGISTER, BEGIN, LAUNCH_GRAPH, N_CALLS };

    counts_need_double();
    for (uint32_t call = 0; call < N_CALLS; call++) {
        static const int expected[N_CALLS] = {[BEGIN] = CUDA_ILLEGAL_STATE};
        struct cuda_graph *graph = NULL, *empty;
        struct cuda_graph_exec *exec;
        struct cuda_event *event;
        struct adding a;
        float x = 0;
        cuda_pointer p;
        void *pinned;
        int error = 0;

        adding_begin(&a);
        assert_int_equal(a.driver->event_new(&event, CUDA_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
        assert_int_equal(a.driver->capture_begin(a.device->stream, CUDA_CAPTURE_THREAD_LOCAL), CUDA_SUCCESS);
        assert_int_equal(a.driver->capture_end(a.device->stream, &empty), CUDA_SUCCESS);
        assert_int_equal(a.driver->graph_instantiate(&exec, empty, 0), CUDA_SUCCESS);
        assert_int_equal(a.driver->capture_begin(a.device->stream, CUDA_CAPTURE_THREAD_LOCAL), CUDA_SUCCESS);
        assert_int_equal(a.driver->copy_to_device(a.add.x, a.pinned, 4, a.device->stream), CUDA_SUCCESS);
        switch (call) {
        case WAIT:
            error = a.driver->stream_wait(a.device->stream);
            break;
        case ALLOCATE:
            error = a.driver->memory_alloc(&p, 16);
            break;
        case PIN:
            error = a.driver->host_alloc(&pinned, 16, 0);
            break;
        case FREE:
            error = a.driver->memory_free(a.add.x);
            break;
        case EVENT:
            error = a.driver->event_wait(event);
            break;
        case PAGEABLE:
            error = a.driver->copy_to_device(a.add.x, &x, 4, a.device->stream);
            break;
        case REGISTER:
            error = a.driver->host_register(&x, 4096, 0);
            break;
        case BEGIN:
            error = a.driver->capture_begin(a.device->stream, CUDA_CAPTURE_THREAD_LOCAL);
            break;
        case LAUNCH_GRAPH:
            error = a.driver->graph_launch(exec, a.device->stream);
            break;
        }
        assert_int_equal(error, expected[call] ? expected[call] : CUDA_CAPTURE_UNSUPPORTED);
        error = a.driver->capture_end(a.device->stream, &graph);
        if (call == BEGIN) {
            assert_int_equal(error, CUDA_SUCCESS);
            assert_int_equal(a.driver->graph_free(graph), CUDA_SUCCESS);
        } else {
            assert_int_equal(error, CUDA_CAPTURE_INVALIDATED);
            assert_null(graph);
        }
        assert_int_equal(a.driver->graph_exec_free(exec), CUDA_SUCCESS);
        assert_int_equal(a.driver->graph_free(empty), CUDA_SUCCESS);
        assert_int_equal(a.driver->event_free(event), CUDA_SUCCESS);
        assert_int_equal(adding_launch(&a, 7), CUDA_SUCCESS);
        assert_true(adding_end(&a) == 7);
    }
}

/* Who waits for an event waits for no more than was there when it was recorded. */
static void an_event_is_waited_for_alone(void **state)
{
    struct cuda_event *event;
    struct adding a;

    counts_need_double();
    adding_begin(&a);
    assert_int_equal(a.driver->event_new(&event, CUDA_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    assert_int_equal(adding_launch(&a, 1), CUDA_SUCCESS);
    assert_int_equal(a.driver->event_record(event, a.device->stream), CUDA_SUCCESS);
    assert_int_equal(adding_launch(&a, 2), CUDA_SUCCESS);
    assert_int_equal(a.driver->event_wait(event), CUDA_SUCCESS);
    assert_int_equal(counts_read().n_launches, 1);
    assert_int_equal(counts_read().n_waits, 1);
    assert_int_equal(a.driver->event_wait(event), CUDA_SUCCESS);
    assert_int_equal(counts_read().n_waits, 1);
    assert_int_equal(a.driver->event_free(event), CUDA_SUCCESS);
    assert_true(adding_end(&a) == 3);
}

static void work_goes_to_streams_of_the_current_context(void **state)
{
    struct device *other;
    struct adding a;

    counts_need_double();
    counts_set("FAKE_CUDA_DEVICES", "2");
    adding_begin(&a);
    assert_int_equal(device_open(a.driver, 1, image(), &other, NULL), 0);
    assert_int_equal(adding_launch(&a, 1), CUDA_INVALID_HANDLE);
    assert_int_equal(device_enter(a.device, NULL), 0);
    assert_int_equal(adding_launch(&a, 5), CUDA_SUCCESS);
    device_close(other);
    assert_int_equal(device_enter(a.device, NULL), 0);
    assert_true(adding_end(&a) == 5);
}

/* A mapping of @n_bytes that can't be written, as that of a model is. */
static uint8_t *weights_map(size_t n_bytes)
{
    uint8_t *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    for (size_t i = 0; i < n_bytes; i++)
        p[i] = (uint8_t)(i * 7 + i / 251);
    assert_int_equal(mprotect(p, n_bytes, PROT_READ), 0);
    return p;
}

struct progress {
    uint64_t n_calls, n_bytes, n_stop;
};

static bool note_progress(void *userdata, uint64_t n_bytes)
{
    struct progress *p = userdata;

    assert_true(n_bytes > p->n_bytes);
    p->n_bytes = n_bytes;
    return ++p->n_calls != p->n_stop;
}

/* Uploads two neighbours of odd sizes and reads them back. */
static void upload_and_compare(uint64_t registered_min, uint64_t registered_max)
{
    _cleanup_(driver_closep) struct driver *d = open_driver();
    struct device *device = NULL;
    struct upload *u = NULL;
    struct progress progress = {};
    const size_t n_first = (5 << 20) + 77, n_second = 3 * UPLOAD_BUFFER_BYTES + 1234, n_all = n_first + n_second;
    uint8_t *from = weights_map(n_all), *back = malloc(n_all);
    cuda_pointer p;

    assert_non_null(back);
    assert_int_equal(device_open(d, 0, image(), &device, NULL), 0);
    assert_int_equal(device_alloc(device, n_all, &p, NULL), 0);
    assert_int_equal(upload_new(device, note_progress, &progress, &u, NULL), 0);
    assert_int_equal(upload_add(u, p, from, n_first, NULL), 0);
    assert_int_equal(upload_add(u, p + n_first, from + n_first, n_second, NULL), 0);
    assert_int_equal(upload_finish(u, NULL), 0);
    assert_in_range(upload_bytes_registered(u), registered_min, registered_max);
    upload_free(u);
    assert_int_equal(progress.n_bytes, n_all);
    assert_int_equal(d->copy_to_host(back, p, n_all, device->stream), CUDA_SUCCESS);
    assert_int_equal(device_wait(device, NULL), 0);
    assert_memory_equal(back, from, n_all);
    device_close(device);
    counts_assert_none();
    free(back);
    munmap(from, n_all);
}

static void weights_are_fetched_from_the_files_own_pages(void **state)
{
    /* A driver may refuse to. */
    upload_and_compare(counts_on_gpu() ? 0 : (5 << 20) + 3 * UPLOAD_BUFFER_BYTES - 16384,
                       (5 << 20) + 3 * UPLOAD_BUFFER_BYTES);
}

static void weights_go_through_buffers_where_pages_cannot_be_pinned(void **state)
{
    counts_need_double();
    counts_set("FAKE_CUDA_NO_REGISTER", "1");
    upload_and_compare(0, 0);
}

static void an_upload_can_be_ended(void **state)
{
    _cleanup_(driver_closep) struct driver *d = NULL;
    struct device *device = NULL;
    struct upload *u = NULL;
    struct progress progress = {.n_stop = 2};
    uint8_t *from = weights_map(4 * UPLOAD_BUFFER_BYTES);
    cuda_pointer p;

    counts_set("FAKE_CUDA_NO_REGISTER", "1");
    counts_set("FAKE_CUDA_COPY_NS", "100");
    d = open_driver();
    assert_int_equal(device_open(d, 0, image(), &device, NULL), 0);
    assert_int_equal(device_alloc(device, 4 * UPLOAD_BUFFER_BYTES, &p, NULL), 0);
    assert_int_equal(upload_new(device, note_progress, &progress, &u, NULL), 0);
    assert_int_equal(upload_add(u, p, from, 4 * UPLOAD_BUFFER_BYTES, NULL), -ECANCELED);
    assert_int_equal(progress.n_calls, 2);
    upload_free(u);
    device_close(device);
    counts_assert_none();
    munmap(from, 4 * UPLOAD_BUFFER_BYTES);
}

/* What taking a device, two blocks and an upload's buffers gives, and that it leaves nothing behind. */
static int take_all(void)
{
    _cleanup_(driver_closep) struct driver *d = open_driver();
    struct device *device = NULL;
    struct upload *u = NULL;
    cuda_pointer p;
    void *pinned;
    int r;

    r = device_open(d, 0, image(), &device, NULL);
    if (r == 0)
        r = device_alloc(device, 1000, &p, NULL);
    if (r == 0)
        r = device_alloc(device, 2000, &p, NULL);
    if (r == 0)
        r = device_pinned(device, 4096, &pinned, NULL);
    if (r == 0)
        r = upload_new(device, NULL, NULL, &u, NULL);
    upload_free(u);
    device_close(device);
    return r;
}

static void every_refused_allocation_leaves_nothing_behind(void **state)
{
    char n[24];

    counts_need_double();
    for (uint32_t i = 1; i <= 5; i++) {
        snprintf(n, sizeof(n), "%u", i);
        counts_set("FAKE_CUDA_REFUSE", n);
        assert_int_equal(take_all(), DRIVER_OUT_OF_MEMORY);
        counts_assert_none();
    }
    counts_set("FAKE_CUDA_REFUSE", "6");
    assert_int_equal(take_all(), 0);
    assert_int_equal(counts_read().n_allocations, 5);
}

static void a_device_lost_at_any_call_leaves_nothing_behind(void **state)
{
    char n[24];
    uint64_t n_calls;

    counts_need_double();
    assert_int_equal(take_all(), 0);
    n_calls = counts_read().n_calls;
    for (uint64_t i = 12; i < n_calls - 12; i++) {
        snprintf(n, sizeof(n), "%llu", (unsigned long long)i);
        counts_set("FAKE_CUDA_LOST", n);
        (void)take_all();
        counts_assert_none();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(devices_are_told, counts_forget_settings),
        cmocka_unit_test_setup(a_reason_says_why_there_is_no_gpu, counts_forget_settings),
        cmocka_unit_test_setup(an_old_gpu_is_refused, counts_forget_settings),
        cmocka_unit_test_setup(an_old_driver_is_told_from_a_broken_one, counts_forget_settings),
        cmocka_unit_test_setup(memory_that_others_hold_is_not_given_out, counts_forget_settings),
        cmocka_unit_test_setup(memory_is_zero_when_it_is_taken, counts_forget_settings),
        cmocka_unit_test_setup(a_fault_of_a_kernel_loses_the_device, counts_forget_settings),
        cmocka_unit_test_setup(launches_keep_the_arguments_of_their_call, counts_forget_settings),
        cmocka_unit_test_setup(a_graph_is_what_was_captured, counts_forget_settings),
        cmocka_unit_test_setup(a_capture_does_not_allow, counts_forget_settings),
        cmocka_unit_test_setup(an_event_is_waited_for_alone, counts_forget_settings),
        cmocka_unit_test_setup(work_goes_to_streams_of_the_current_context, counts_forget_settings),
        cmocka_unit_test_setup(weights_are_fetched_from_the_files_own_pages, counts_forget_settings),
        cmocka_unit_test_setup(weights_go_through_buffers_where_pages_cannot_be_pinned, counts_forget_settings),
        cmocka_unit_test_setup(an_upload_can_be_ended, counts_forget_settings),
        cmocka_unit_test_setup(every_refused_allocation_leaves_nothing_behind, counts_forget_settings),
        cmocka_unit_test_setup(a_device_lost_at_any_call_leaves_nothing_behind, counts_forget_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
