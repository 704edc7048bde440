/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model's files as memory: read-only mappings of regular files or memfds, placed so that the kernel can back them by
 * 2 MiB pages, optionally brought into memory and locked there. Nothing is looked at; gguf_read() does that.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/read.h"

struct fault;
struct gguf_map;

enum gguf_map_flags {
    GGUF_MAP_POPULATE = 1 << 0, /* all pages are present in the page table on return, as far as memory allows */
    GGUF_MAP_LOCK = 1 << 1,     /* mlock, which populates; fails with a fault that says what to change */
    GGUF_MAP_HUGE = 1 << 2,     /* ask for 2 MiB pages; a wish, never an error */
    GGUF_MAP_SMALL = 1 << 3,    /* ask for none, also where the file's pages are in memory as such */
};

/**
 * gguf_map() - map every file in @fds whole
 * @fds:    [n_fds] in the order of the parts; borrowed for the call only, a mapping needs no descriptor
 * @flags:  enum gguf_map_flags
 * @reterr: FAULT_MODEL_INVALID (no regular file, empty) or FAULT_MODEL_UNAVAILABLE (memory can't be locked or mapped)
 * Returns 0; -EINVAL (empty file, no file or too many of them); -EPERM (may not lock); -ENOMEM, or what the
 * kernel said.
 */
int gguf_map(const int *fds, size_t n_fds, unsigned flags, struct gguf_map **ret, struct fault *reterr);

/**
 * gguf_unmap() - give the memory back; nothing may point into it any more. Takes NULL, returns NULL
 */
struct gguf_map *gguf_unmap(struct gguf_map *m);

/**
 * gguf_map_parts() - the mapped bytes, [*ret_n] parts, for gguf_read(); live as long as @m
 */
const struct gguf_part *gguf_map_parts(const struct gguf_map *m, size_t *ret_n);

/**
 * gguf_map_bytes() - the files' sizes, summed
 */
uint64_t gguf_map_bytes(const struct gguf_map *m);

/**
 * gguf_map_lock() - of what was mapped without GGUF_MAP_LOCK, bring some into memory and keep it there
 * @from: a multiple of the page size, as is @n_bytes, but at the part's end; nothing is locked twice
 * Returns as gguf_map().
 */
int gguf_map_lock(struct gguf_map *m, size_t i_part, uint64_t from, uint64_t n_bytes, struct fault *reterr);

/**
 * gguf_map_forget() - what is not locked of it need not be in memory; whoever reads there has it read again
 */
void gguf_map_forget(const struct gguf_map *m, size_t i_part, uint64_t from, uint64_t n_bytes);

/**
 * gguf_map_bytes_locked() - how many of them are locked: all with GGUF_MAP_LOCK, else what gguf_map_lock() did
 */
uint64_t gguf_map_bytes_locked(const struct gguf_map *m);
