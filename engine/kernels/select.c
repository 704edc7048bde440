/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fills the kernel table from the registry. The choice is made once per engine; nothing here runs in a step.
 */
#include "engine/kernels/kernels.h"

#include <string.h>

#include "engine/kernels/registry.h"

void kernels_select(uint32_t isa_mask, struct kernels *ret)
{
    uint32_t n_groups;
    const struct kernel_rows *groups = kernel_registry(&n_groups);

    memset(ret, 0, sizeof(*ret));
    ret->isa = isa_mask;
    for (uint32_t i = 0; i < n_groups; i++) {
        for (uint32_t j = 0; j < groups[i].n_rows; j++) {
            const struct kernel_row *row = &groups[i].rows[j];

            if ((row->isa & isa_mask) != row->isa)
                continue;
            switch (row->op) {
            case KERNEL_PACK:
                ret->linear.pack[row->type] = row->fn.pack;
                break;
            case KERNEL_LINEAR_TOKENS:
                ret->linear.rows[row->type][LINEAR_TOKENS] = row->fn.rows;
                break;
            case KERNEL_LINEAR_LANES:
                ret->linear.rows[row->type][LINEAR_LANES] = row->fn.rows;
                break;
            }
        }
    }
    vector_select(isa_mask, &ret->vector);
}
