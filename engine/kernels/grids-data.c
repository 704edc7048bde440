/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The grids of the IQ types for the CPU's kernels.
 */
#include "engine/kernels/grids.h"

#define GRID_TABLE const
#include "engine/kernels/grids-data.inc"
