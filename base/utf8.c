/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * UTF-8 decoding by the table of well-formed byte sequences (Unicode 15, table 3-7): only the second byte has ranges
 * that depend on the first one.
 */
#include "base/utf8.h"

int utf8_decode(const char *s, size_t n, uint32_t *ret)
{
    const uint8_t *b = (const uint8_t *)s;
    uint8_t low = 0x80, high = 0xBF;
    uint32_t code;
    int length;

    if (n == 0)
        return 0;
    if (b[0] < 0x80) {
        *ret = b[0];
        return 1;
    }
    if (b[0] < 0xC2 || b[0] > 0xF4)
        return -1;
    length = b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    code = b[0] & (0x7Fu >> length);
    if (b[0] == 0xE0)
        low = 0xA0;
    else if (b[0] == 0xED)
        high = 0x9F;
    else if (b[0] == 0xF0)
        low = 0x90;
    else if (b[0] == 0xF4)
        high = 0x8F;
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n)
            return 0;
        if (b[i] < low || b[i] > high)
            return -1;
        code = code << 6 | (b[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *ret = code;
    return length;
}

size_t utf8_encode(uint32_t code, char *to)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xC0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code >= 0xD800 && code < 0xE000)
        return 0;
    if (code < 0x10000) {
        to[0] = (char)(0xE0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 0x3F));
        to[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    if (code > 0x10FFFF)
        return 0;
    to[0] = (char)(0xF0 | code >> 18);
    to[1] = (char)(0x80 | (code >> 12 & 0x3F));
    to[2] = (char)(0x80 | (code >> 6 & 0x3F));
    to[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

bool utf8_is_valid(const char *s, size_t n, size_t *ret_offset)
{
    size_t at = 0;

    while (at < n) {
        uint32_t code;
        int length = utf8_decode(s + at, n - at, &code);

        if (length <= 0) {
            if (ret_offset)
                *ret_offset = at;
            return false;
        }
        at += (size_t)length;
    }
    return true;
}

size_t utf8_cut(const char *s, size_t n)
{
    while (n > 0 && ((uint8_t)s[n] & 0xC0) == 0x80)
        n--;
    return n;
}

size_t utf8_whole(const char *s, size_t n)
{
    size_t back = n < UTF8_BYTES_MAX ? n : UTF8_BYTES_MAX;

    for (size_t i = 1; i <= back; i++) {
        uint32_t code;

        if (((uint8_t)s[n - i] & 0xC0) == 0x80)
            continue;
        return utf8_decode(s + n - i, i, &code) == 0 ? n - i : n;
    }
    return n;
}
