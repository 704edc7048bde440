/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/**
 * base64_encode() - RFC 4648 with padding, terminated
 * Returns text that the caller owns, NULL when memory is short.
 */
char *base64_encode(const void *data, size_t n_bytes);
