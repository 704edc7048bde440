/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/sha256-blocks.h"

sha256_blocks_fn *sha256_blocks_best(void)
{
    return sha256_blocks_portable;
}
