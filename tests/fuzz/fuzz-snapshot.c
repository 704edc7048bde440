/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon left for the next one. The input is the JSON: its head is made to fit, since no mutation would hit the
 * digest. Whatever is taken can be written and is read again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "daemon/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(snapshot_freep) struct snapshot *s = NULL, *again = NULL;
    _cleanup_free_ uint8_t *whole = calloc(1, 88 + size);
    const uint32_t version = SNAPSHOT_VERSION, length = (uint32_t)size;
    _cleanup_close_ int fd = -1;
    char digits[SHA256_TEXT_MAX];
    struct sha256 digest;
    const char *why = NULL;

    if (!whole)
        return 0;
    memcpy(whole, "ridrsnp1", 8);
    memcpy(whole + 8, &version, 4);
    memcpy(whole + 12, &length, 4);
    sha256_init(&digest);
    sha256_add(&digest, data, size);
    memcpy(whole + 16, sha256_text(&digest, digits), SHA256_TEXT_MAX);
    memcpy(whole + 88, data, size);
    if (snapshot_parse(whole, 88 + size, &s, &why) < 0) {
        if (!why)
            abort();
        return 0;
    }
    if (snapshot_write(s, &fd) == 0 && snapshot_read(fd, &again, &why) < 0)
        abort();
    return 0;
}
