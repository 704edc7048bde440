/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A pool of KV pages and the page tables of sequences. One page holds KV_PAGE_TOKENS tokens for all layers of a group;
 * what is inside is the business of kv/layout.h and the attention kernel. Pages are reference-counted, so that
 * sequences can share a prefix.
 *
 * Invariants
 * 1. A page with more than one holder is never written: page_table_reserve() gives the writer a copy first.
 * 2. A page is all zero bytes when it comes to a new owner: nobody finds another user's keys, and kernels that read
 *    whole pages find no NaN in slots that were never written.
 * 3. Memory is taken from the kernel when a page is used for the first time.
 *
 * Not thread-safe: the thread that runs steps owns pool and tables.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define PAGES_TOKENS 32

struct pages;

/* The pages of one sequence in order of position. Embedded in its sequence; ids has room for the longest one. */
struct page_table {
    uint32_t *ids; /* [n_max]; those in [n_gone, n) are held */
    uint32_t n, n_max;
    uint32_t n_gone; /* given back at the front: no query sees them any more */
};

/**
 * pages_new() - a pool of @n_pages pages of @page_bytes each (a multiple of 64)
 * Reserves address space; takes memory only as pages are used. Returns 0, -EINVAL, -ENOMEM, -EOVERFLOW.
 */
int pages_new(uint32_t n_pages, uint64_t page_bytes, struct pages **ret);

/* What has parts of the pages in memory of its own (a GPU): told of all that happens to a page as a whole. */
struct pages_mirror {
    void (*zero)(void *userdata, uint32_t id);
    void (*copy)(void *userdata, uint32_t to, uint32_t from);
    void *userdata;
};

/**
 * pages_mirror_set() - tell @mirror from now on; NULL: nobody. A copy is made of it. Before pages are taken
 */
void pages_mirror_set(struct pages *p, const struct pages_mirror *mirror);

/**
 * pages_free() - release the pool; no table may hold a page any more. Takes NULL, returns NULL
 */
struct pages *pages_free(struct pages *p);

DEFINE_CLEANUP(struct pages *, pages_free)

/**
 * pages_total() - the number of pages in the pool
 */
uint32_t pages_total(const struct pages *p);

/**
 * pages_left() - how many pages nobody holds
 */
uint32_t pages_left(const struct pages *p);

/**
 * pages_memory() - where page @id lies; valid as long as the pool
 */
void *pages_memory(const struct pages *p, uint32_t id);

/**
 * pages_holders() - how many tables and others (engine/kv/prefix.h) hold page @id
 */
uint32_t pages_holders(const struct pages *p, uint32_t id);

/**
 * pages_hold() - one more holder of page @id, which somebody holds already
 */
void pages_hold(struct pages *p, uint32_t id);

/**
 * pages_release() - one holder less; nobody's page is free
 */
void pages_release(struct pages *p, uint32_t id);

/**
 * pages_return() - give the memory of free pages back to the kernel; they are zero when they are used again
 */
void pages_return(struct pages *p);

/**
 * page_table_init() - an empty table with room for @n_max pages; 0 or -ENOMEM
 */
int page_table_init(struct page_table *t, uint32_t n_max);

/**
 * page_table_done() - give all pages back and release the table; works on a zeroed one
 */
void page_table_done(struct page_table *t, struct pages *p);

/**
 * page_table_need() - pages that page_table_reserve() with the same arguments would take from the pool
 */
uint32_t page_table_need(const struct page_table *t, const struct pages *p, uint32_t n_tokens, uint32_t n_more);

/**
 * page_table_reserve() - make positions [@n_tokens, @n_tokens + @n_more) writable
 * Takes zeroed pages for what the table does not reach, and copies of its own for shared pages in that range. The pool
 * must have page_table_need() pages left and the table must have room: both are the caller's promises.
 */
void page_table_reserve(struct page_table *t, struct pages *p, uint32_t n_tokens, uint32_t n_more);

/**
 * page_table_release_before() - give back the pages that lie wholly before position @position
 */
void page_table_release_before(struct page_table *t, struct pages *p, uint32_t position);

/**
 * page_table_truncate() - keep the pages of the first @n_tokens positions and give the others back
 * What page_table_release_before() gave back must lie before them, or @n_tokens be 0: the caller's promise.
 */
void page_table_truncate(struct page_table *t, struct pages *p, uint32_t n_tokens);

/**
 * page_table_fork() - fill the empty @t with the first @n_tokens positions of @from, but for what @from has given back
 * Full pages are shared, a partly used last one is copied. The pool must have a page left if there is one.
 */
void page_table_fork(struct page_table *t, struct pages *p, const struct page_table *from, uint32_t n_tokens);
