/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/base64.h"

#include <stdint.h>
#include <stdlib.h>

char *base64_encode(const void *data, size_t n_bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *from = data;
    char *text, *to;

    if (n_bytes > SIZE_MAX / 2)
        return NULL;
    text = to = malloc((n_bytes + 2) / 3 * 4 + 1);
    if (!text)
        return NULL;
    for (; n_bytes > 0; from += 3, to += 4) {
        uint32_t three = (uint32_t)from[0] << 16;

        if (n_bytes > 1)
            three |= (uint32_t)from[1] << 8;
        if (n_bytes > 2)
            three |= from[2];
        to[0] = digits[three >> 18];
        to[1] = digits[three >> 12 & 63];
        to[2] = n_bytes > 1 ? digits[three >> 6 & 63] : '=';
        to[3] = n_bytes > 2 ? digits[three & 63] : '=';
        n_bytes -= n_bytes < 3 ? n_bytes : 3;
    }
    *to = 0;
    return text;
}
