/* SPDX-License-Identifier: Apache-2.0 */
/* An intrusive, circular, doubly linked list; the head is an element without a payload. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/num.h"

struct list {
	struct list *next;
	struct list *prev;
};

#define LIST_INIT(head) {&(head), &(head)}

static inline void list_init(struct list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline void list_append(struct list *head, struct list *item)
{
	item->next = head;
	item->prev = head->prev;
	head->prev->next = item;
	head->prev = item;
}

/* Unlink; the item is then a list of itself, so that a second removal is harmless. */
static inline void list_remove(struct list *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	list_init(item);
}

static inline struct list *list_pop(struct list *head)
{
	struct list *item = head->next;

	if (item == head)
		return NULL;
	list_remove(item);
	return item;
}

/* item is a struct list *; the _safe form allows its removal in the body. */
#define list_for_each(item, head) \
	for (struct list *item = (head)->next; item != (head); item = item->next)
#define list_for_each_safe(item, head)                                                    \
	for (struct list *item = (head)->next, *item##_next = item->next; item != (head); \
	     item = item##_next, item##_next = item->next)

#endif
