/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is mapped in an I/O address space: ranges of I/O addresses that do not overlap, sorted. All
 * backends are measured against this one table, so that they answer alike; for the soft backend it
 * is the translation itself.
 *
 * A treap: a search tree by address, a heap by random priorities, so that no order in which a guest
 * maps makes it deep; and a list in order. Nodes come from chunks that are kept: in the steady state of a device that
 * maps and unmaps nothing is allocated.
 *
 * Threads: the caller's lock.
 */
#ifndef IOMMU_MAPPINGS_H
#define IOMMU_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mapping {
	uint64_t iova, last; /* inclusive */
	uint64_t gpa;        /* what it means to the guest, UINT64_MAX: nothing */
	char *hva;
	unsigned int access; /* enum ioas_access */
	bool busy;           /* a call that makes it or takes it away is under way */
	bool shared;         /* its pins belong to another space */
	/* private */
	uint32_t priority;
	struct mapping *parent, *left, *right;
	struct mapping *before, *next; /* in order of address */
};

struct mapping_chunk;
struct mappings {
	struct mapping *root;
	/* The newest, or what lies before it where that is gone: the next often comes right behind. */
	struct mapping *recent;
	struct mapping *free; /* by ->right */
	struct mapping_chunk *chunks;
	uint64_t random;
	uint64_t count;
	uint64_t bytes;
};

void mappings_init(struct mappings *m);
void mappings_done(struct mappings *m);

/* [iova, last], with the other fields zero. -EEXIST when it overlaps another, -ENOMEM. */
int mappings_insert(struct mappings *m, uint64_t iova, uint64_t last, struct mapping **ret);
void mappings_remove(struct mappings *m, struct mapping *mapping);
void mappings_clear(struct mappings *m);
/* The lowest mapping that shares a byte with [first, last]; NULL: none. */
struct mapping *mappings_find(const struct mappings *m, uint64_t first, uint64_t last);

/* Does one of them lie partly outside of [first, last]? Only those at its ends can. */
bool mappings_cut(const struct mappings *m, uint64_t first, uint64_t last);

/* The next one after it, if that begins up to last. */
static inline struct mapping *mappings_next(const struct mapping *mapping, uint64_t last)
{
	struct mapping *next = mapping->next;

	return next && next->iova <= last ? next : NULL;
}

#endif
