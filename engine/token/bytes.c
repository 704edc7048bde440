/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The spelling of bytes, computed from its rule: there are four runs of bytes that do not stand for themselves
 * (0x00-0x20, 0x7F-0xA0, 0xAD), numbered from U+0100 on in ascending order.
 */
#include "engine/token/bytes.h"

#include <string.h>

#include "base/utf8.h"

uint32_t byte_to_character(uint8_t byte)
{
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7F && byte <= 0xA0)
        return 0x121u + (byte - 0x7Fu);
    if (byte == 0xAD)
        return 0x143u;
    return byte;
}

int byte_from_character(uint32_t character)
{
    if (character >= 0x100 && character <= 0x120)
        return (int)(character - 0x100);
    if (character >= 0x121 && character <= 0x142)
        return (int)(character - 0x121 + 0x7F);
    if (character == 0x143)
        return 0xAD;
    return character < 0x100 && byte_to_character((uint8_t)character) == character ? (int)character : -1;
}

size_t bytes_spell(const char *bytes, size_t n, char *to)
{
    size_t n_to = 0;

    for (size_t i = 0; i < n; i++)
        n_to += utf8_encode(byte_to_character((uint8_t)bytes[i]), to + n_to);
    return n_to;
}

size_t bytes_unspell(const char *text, size_t n, char *to)
{
    size_t n_to = 0;

    for (size_t at = 0; at < n;) {
        uint32_t character;
        int length = utf8_decode(text + at, n - at, &character);
        int byte = length > 0 ? byte_from_character(character) : -1;

        if (byte < 0) {
            memcpy(to, text, n);
            return n;
        }
        to[n_to++] = (char)byte;
        at += (size_t)length;
    }
    return n_to;
}
