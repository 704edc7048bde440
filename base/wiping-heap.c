/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A heap that forgets: what is freed is zeroed first. Linked into the programs that hold what users write and what they
 * are answered (residentd, resident-worker), and into nothing else.
 *
 * A prompt passes through a JSON parser, a template, strings that grow, a tokeniser: each leaves copies behind, most of
 * them in libraries that know nothing of it. Wiping each by hand would have to be right in every place, for ever; here
 * it is right in one. It costs a memset of what is freed, and the hot path frees nothing.
 *
 * The rest of the heap is the C library's: free() and realloc() stand before its own, which glibc provides for under
 * these names. Blocks above WIPE_MAX are mappings of their own, given back as such and never heard of again, and the
 * kernel moves them where they grow; touching all of one would only make memory of what was never used.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* glibc's largest threshold above which a block is a mapping, see M_MMAP_THRESHOLD in mallopt(3). */
#define WIPE_MAX ((size_t)4 * 1024 * 1024 * sizeof(long))

void __libc_free(void *block);
void *__libc_realloc(void *block, size_t n);

void free(void *block)
{
    size_t n = block ? malloc_usable_size(block) : 0;

    if (n > 0 && n <= WIPE_MAX)
        explicit_bzero(block, n);
    __libc_free(block);
}

void *realloc(void *block, size_t n)
{
    size_t n_had = block ? malloc_usable_size(block) : 0;
    void *moved;

    if (n_had == 0 || n_had > WIPE_MAX || n == 0) {
        if (block && n == 0 && n_had <= WIPE_MAX)
            explicit_bzero(block, n_had);
        return __libc_realloc(block, n);
    }
    /* In its place, unless much would be left over. */
    if (n <= n_had && n >= n_had / 2) {
        explicit_bzero((char *)block + n, n_had - n);
        return block;
    }
    moved = malloc(n);
    if (!moved)
        return NULL;
    memcpy(moved, block, n < n_had ? n : n_had);
    free(block);
    return moved;
}
