/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking up interface texts. The table itself is written by embed.py at build time.
 */
#include "client/varlink/interfaces.h"

#include <string.h>

const struct interface_text *interface_text_find(const char *name)
{
    for (const struct interface_text *row = interface_texts; row->name; row++)
        if (strcmp(row->name, name) == 0)
            return row;
    return NULL;
}
