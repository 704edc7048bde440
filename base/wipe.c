/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/wipe.h"

#include <string.h>

/* More than anything that is called from those loops reaches down with words of a user in it. */
#define DEPTH_BYTES 65536

__attribute__((noinline)) void wipe_stack(void)
{
    char below[DEPTH_BYTES];

    explicit_bzero(below, sizeof(below));
}
