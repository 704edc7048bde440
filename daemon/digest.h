/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The SHA-256 of files while they are read by somebody else: a thread follows behind what has arrived in memory, so
 * that nothing is read from the device twice and reading does not wait for sums. Where the file is mapped, it is summed
 * where it lies, without a copy.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/sha256.h"

struct digest;

/**
 * digest_new() - of nothing yet; starts the thread. Returns 0 or a negative errno
 */
int digest_new(struct digest **ret);

/**
 * digest_new_reader() - the same without a sum: only reads a byte of each page of what is mapped
 * A virtual machine's memory that only its disk has written to costs up to 20 us a page at the first reading, and that
 * goes on while the next is read from the disk. It has no digest_end(), but digest_wait().
 */
int digest_new_reader(struct digest **ret);

/**
 * digest_file() - go on with the file @fd of @n_bytes, behind those before; waits until those are through
 * @fd: read with pread(2); borrowed for the call
 * One caller's thread, as for all the others. Returns 0, or what reading the file before failed with.
 */
int digest_file(struct digest *d, int fd, uint64_t n_bytes);

/**
 * digest_mapping() - the same with a file that is mapped at @at
 * @at: stays until all of it is through, or until digest_stop(); pages that are gone are an error, not a signal
 */
int digest_mapping(struct digest *d, const uint8_t *at, uint64_t n_bytes);

/**
 * digest_advance() - the first @n_bytes of the file are in memory, so that reading them costs no device anything
 */
void digest_advance(struct digest *d, uint64_t n_bytes);

/**
 * digest_wait() - until the first @n_bytes of the file are through; they must have arrived
 * Returns 0, or what reading failed with.
 */
int digest_wait(struct digest *d, uint64_t n_bytes);

/**
 * digest_end() - wait until all of it is through, all of the last file being taken as arrived
 * @ret_text: the digest in lower-case digits
 * Returns 0; -ENODATA: a file is shorter than was said; -EFAULT: one that is mapped is, or can't be read; another
 * negative errno of reading. Only digest_free() is left.
 */
int digest_end(struct digest *d, char ret_text[SHA256_TEXT_MAX]);

/**
 * digest_stop() - touch no file and no mapping any more, and don't wait for what is not through; only digest_free() is
 * left
 */
void digest_stop(struct digest *d);

/**
 * digest_free() - takes NULL, returns NULL; does not wait for what is not through yet
 */
struct digest *digest_free(struct digest *d);

DEFINE_CLEANUP(struct digest *, digest_free)
