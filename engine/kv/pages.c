/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page pool: one mapping, a stack of free ids, a count of holders for each page. Ids come from the top of the
 * stack, so a small load keeps using the same few pages and the rest of the mapping is never touched.
 */

#include "engine/kv/pages.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)
#define KERNEL_PAGE_BYTES UINT64_C(4096) /* of x86; elsewhere larger ones, which madvise() then refuses */

struct pages {
    uint8_t *memory;
    uint64_t page_bytes, mapped_bytes;
    uint32_t n_pages;
    uint32_t n_free;
    uint32_t *free_ids; /* [n_pages], the first n_free are free; the last of those is handed out next */
    uint32_t *holders;  /* [n_pages] */
    bool *used;         /* [n_pages] handed out before: not zero any more */
    struct pages_mirror mirror; /* without functions: none */
};

int pages_new(uint32_t n_pages, uint64_t page_bytes, struct pages **ret)
{
    _cleanup_(pages_freep) struct pages *p = NULL;
    uint64_t n_bytes;

    if (n_pages == 0 || page_bytes == 0 || page_bytes % 64 != 0)
        return -EINVAL;
    if (!checked_mul(n_pages, page_bytes, &n_bytes) || !checked_align(n_bytes, HUGE_PAGE_BYTES, &n_bytes))
        return -EOVERFLOW;

    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->n_pages = n_pages;
    p->page_bytes = page_bytes;
    p->free_ids = calloc(n_pages, sizeof(*p->free_ids));
    p->holders = calloc(n_pages, sizeof(*p->holders));
    p->used = calloc(n_pages, sizeof(*p->used));
    if (!p->free_ids || !p->holders || !p->used)
        return -ENOMEM;
    p->memory = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->memory == MAP_FAILED) {
        p->memory = NULL;
        return -ENOMEM;
    }
    p->mapped_bytes = n_bytes;
    /* Attention reads pages front to back; fewer TLB misses where the kernel can give huge pages. */
    (void)madvise(p->memory, n_bytes, MADV_HUGEPAGE);

    p->n_free = n_pages;
    for (uint32_t i = 0; i < n_pages; i++)
        p->free_ids[i] = n_pages - 1 - i;

    *ret = TAKE_PTR(p);
    return 0;
}

struct pages *pages_free(struct pages *p)
{
    if (!p)
        return NULL;
    assert(!p->memory || p->n_free == p->n_pages);
    if (p->memory)
        munmap(p->memory, p->mapped_bytes);
    free(p->free_ids);
    free(p->holders);
    free(p->used);
    free(p);
    return NULL;
}

void pages_mirror_set(struct pages *p, const struct pages_mirror *mirror)
{
    p->mirror = mirror ? *mirror : (struct pages_mirror){.zero = NULL};
}

uint32_t pages_total(const struct pages *p)
{
    return p->n_pages;
}

uint32_t pages_left(const struct pages *p)
{
    return p->n_free;
}

void *pages_memory(const struct pages *p, uint32_t id)
{
    assert(id < p->n_pages);
    return p->memory + id * p->page_bytes;
}

uint32_t pages_holders(const struct pages *p, uint32_t id)
{
    assert(id < p->n_pages);
    return p->holders[id];
}

/* Takes a page; the caller fills it when @zeroed is false. */
static uint32_t pages_take(struct pages *p, bool zeroed)
{
    uint32_t id;

    assert(p->n_free > 0);
    id = p->free_ids[--p->n_free];
    p->holders[id] = 1;
    /* Whether the kernel took the page back meanwhile doesn't matter to the mirror. */
    if (zeroed && p->mirror.zero)
        p->mirror.zero(p->mirror.userdata, id);
    if (zeroed && p->used[id])
        memset(pages_memory(p, id), 0, p->page_bytes);
    p->used[id] = true;
    return id;
}

void pages_hold(struct pages *p, uint32_t id)
{
    assert(id < p->n_pages && p->holders[id] > 0);
    p->holders[id]++;
}

void pages_release(struct pages *p, uint32_t id)
{
    assert(id < p->n_pages && p->holders[id] > 0);
    if (--p->holders[id] == 0)
        p->free_ids[p->n_free++] = id;
}

/* Pages [@first, @past) are free: their memory goes, but for what shares a page of the kernel's with others. */
static void return_range(struct pages *p, uint32_t first, uint32_t past)
{
    uint64_t begin = first * p->page_bytes, end = past * p->page_bytes;
    uint64_t inner = (begin + KERNEL_PAGE_BYTES - 1) / KERNEL_PAGE_BYTES * KERNEL_PAGE_BYTES;
    uint64_t inner_end = end / KERNEL_PAGE_BYTES * KERNEL_PAGE_BYTES;

    if (inner >= inner_end || madvise(p->memory + inner, inner_end - inner, MADV_DONTNEED) < 0)
        return;
    memset(p->memory + begin, 0, inner - begin);
    memset(p->memory + inner_end, 0, end - inner_end);
    memset(p->used + first, 0, past - first);
}

void pages_return(struct pages *p)
{
    for (uint32_t i = 0, past; i < p->n_pages; i = past) {
        for (past = i; past < p->n_pages && p->used[past] && p->holders[past] == 0; past++)
            ;
        if (past > i)
            return_range(p, i, past);
        else
            past++;
    }
}

static uint32_t pages_copy(struct pages *p, uint32_t from)
{
    uint32_t id = pages_take(p, /* zeroed= */ false);

    memcpy(pages_memory(p, id), pages_memory(p, from), p->page_bytes);
    if (p->mirror.copy)
        p->mirror.copy(p->mirror.userdata, id, from);
    return id;
}

/* Pages that the first @n_tokens positions take. */
static uint32_t pages_of(uint32_t n_tokens)
{
    return n_tokens / PAGES_TOKENS + (n_tokens % PAGES_TOKENS != 0);
}

int page_table_init(struct page_table *t, uint32_t n_max)
{
    *t = (struct page_table){.ids = calloc(n_max ? n_max : 1, sizeof(*t->ids)), .n_max = n_max};
    return t->ids ? 0 : -ENOMEM;
}

void page_table_done(struct page_table *t, struct pages *p)
{
    if (t->n)
        page_table_truncate(t, p, 0);
    free(t->ids);
    *t = (struct page_table){};
}

uint32_t page_table_need(const struct page_table *t, const struct pages *p, uint32_t n_tokens, uint32_t n_more)
{
    uint32_t past = pages_of(n_tokens + n_more), need = 0;

    for (uint32_t i = n_tokens / PAGES_TOKENS; i < past; i++)
        need += i >= t->n || p->holders[t->ids[i]] > 1;
    return need;
}

void page_table_reserve(struct page_table *t, struct pages *p, uint32_t n_tokens, uint32_t n_more)
{
    uint32_t past = pages_of(n_tokens + n_more);

    assert(past <= t->n_max && n_tokens / PAGES_TOKENS <= t->n && n_tokens / PAGES_TOKENS >= t->n_gone);
    for (uint32_t i = n_tokens / PAGES_TOKENS; i < past; i++) {
        if (i >= t->n) {
            t->ids[t->n++] = pages_take(p, /* zeroed= */ true);
        } else if (p->holders[t->ids[i]] > 1) {
            uint32_t copy = pages_copy(p, t->ids[i]);

            pages_release(p, t->ids[i]);
            t->ids[i] = copy;
        }
    }
}

void page_table_release_before(struct page_table *t, struct pages *p, uint32_t position)
{
    while (t->n_gone < t->n && t->n_gone < position / PAGES_TOKENS)
        pages_release(p, t->ids[t->n_gone++]);
}

void page_table_truncate(struct page_table *t, struct pages *p, uint32_t n_tokens)
{
    uint32_t keep = pages_of(n_tokens);

    assert(keep >= t->n_gone || n_tokens == 0);
    while (t->n > keep && t->n > t->n_gone)
        pages_release(p, t->ids[--t->n]);
    if (n_tokens == 0)
        t->n = t->n_gone = 0;
}

void page_table_fork(struct page_table *t, struct pages *p, const struct page_table *from, uint32_t n_tokens)
{
    uint32_t n_full = n_tokens / PAGES_TOKENS;

    if (n_tokens == 0)
        return;
    assert(t->n == 0 && pages_of(n_tokens) <= t->n_max && pages_of(n_tokens) <= from->n && from->n_gone <= n_full);
    t->n_gone = from->n_gone;
    for (uint32_t i = from->n_gone; i < n_full; i++) {
        t->ids[i] = from->ids[i];
        p->holders[t->ids[i]]++;
    }
    t->n = n_full;
    if (n_tokens % PAGES_TOKENS)
        t->ids[t->n++] = pages_copy(p, from->ids[n_full]);
}
