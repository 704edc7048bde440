/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A doubly linked ring threaded through its members. The head is a struct list too; an entry that is in no list points
 * to itself, so removing twice is harmless.
 */

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *previous;
};

static inline void list_init(struct list *l)
{
    l->next = l->previous = l;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

/* Puts @entry, which is in no list, at the end. */
static inline void list_append(struct list *head, struct list *entry)
{
    entry->previous = head->previous;
    entry->next = head;
    head->previous->next = entry;
    head->previous = entry;
}

static inline void list_remove(struct list *entry)
{
    entry->previous->next = entry->next;
    entry->next->previous = entry->previous;
    list_init(entry);
}

/* The struct that @entry is the member @member of. */
#define list_entry(entry, type, member) ((type *)(void *)((char *)(entry)-offsetof(type, member)))

/* @at may be removed, and nothing else may, while the loop is at it. */
#define list_foreach(at, after, head) \
    for ((at) = (head)->next, (after) = (at)->next; (at) != (head); (at) = (after), (after) = (at)->next)
