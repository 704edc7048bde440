/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The compute thread: loads the model, then takes commands and steps until the process ends. One step: ask
 * the scheduler, run the engine, sample, and tell the daemon, in one packet.
 */

#include <stdint.h>

#include "base/log.h"

struct engine_devices;
struct intake;
struct link;

/**
 * compute_run() - everything; never returns, the process ends in it or in the link thread
 * @devices: of a worker for GPUs, or NULL
 * All arguments are borrowed for good.
 */
_Noreturn void compute_run(struct link *l, struct intake *in, struct engine_devices *devices, const struct log *log);
