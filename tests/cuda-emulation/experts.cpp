/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/cuda-emulation/emulated.hh"

#include "engine/cuda/device/experts.cu"
