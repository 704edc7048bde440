/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Memory and launches for tests of kernels: what a kernel may touch is exactly what was asked for here.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/cuda/launch.h"

/* Read-only copies and writable memory, aligned to 256; NaN in every float until written. */
launch_address device_copy(const void *from, size_t n_bytes);
launch_address device_new(size_t n_bytes);
/* The same memory, for the test. */
void *device_memory(launch_address at);
/* Frees all of it. */
void device_reset(void);

/* Runs the kernel on its own grid in an order of threads that changes from launch to launch; a fault fails the test. */
void device_launch(uint32_t kernel, const void *args);

/* Equal bit for bit; any NaN equals any other. */
void assert_floats_equal(const char *what, const float *got, const float *expected, size_t n);
