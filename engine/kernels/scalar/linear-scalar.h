/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "engine/kernels/registry.h"

#define LINEAR_SCALAR_N_ROWS 50

extern const struct kernel_row linear_scalar_rows[LINEAR_SCALAR_N_ROWS];
