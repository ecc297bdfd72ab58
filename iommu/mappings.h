/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of mappings: ranges of I/O addresses that do not overlap, sorted. Two kinds of table are
 * made of it:
 *
 *   what a guest has mapped in a domain   its owner is the virtual IOMMU; one record per MAP request
 *   what an ioas has mapped               one record per area, which is one mapping of the kernel
 *
 * An area may serve several records of a guest. The kernel unmaps whole areas only, so a strategy
 * that shares them counts the records of each, by the word that it has in every record.
 *
 * A treap: a search tree by address, a heap by random priorities, so that no order in which a guest
 * maps makes it deep; and a list in order. Nodes come from chunks that are kept: in the steady state
 * of a device that maps and unmaps nothing is allocated.
 *
 * Threads: the caller's lock. A state may be read under a shared lock while its owner changes it.
 */
#ifndef IOMMU_MAPPINGS_H
#define IOMMU_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum mapping_state {
	MAPPING_WANTED,   /* in force */
	MAPPING_COMING,   /* a call that makes it is under way: nothing reaches it yet */
	MAPPING_RETAINED, /* the guest has unmapped it, and its strategy keeps it in the hardware */
	MAPPING_GOING,    /* a call that removes it is under way: nothing new reaches it */
};

struct mapping {
	uint64_t iova, last; /* inclusive */
	uint64_t gpa;        /* what it means to the guest, UINT64_MAX: nothing */
	char *hva;           /* of a guest's: NULL if its memory is not contiguous on the host */
	uint64_t word;       /* the strategy's own; 0 until it writes it */
	unsigned int access; /* enum ioas_access */
	_Atomic(enum mapping_state) state;
	bool shared; /* its pins belong to another space */
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
	uint64_t
		tables; /* pages of an IOMMU's table that it takes at most: spans of 2 MiB, 1 GiB, 512 GiB */
};

/* By how much [iova, last], which is not in it, would raise `tables`. */
uint64_t mappings_more_tables(const struct mappings *m, uint64_t iova, uint64_t last);

void mappings_init(struct mappings *m);
void mappings_done(struct mappings *m);

/* [iova, last], with the other fields zero. -EEXIST when it overlaps another, -ENOMEM. */
int mappings_insert(struct mappings *m, uint64_t iova, uint64_t last, struct mapping **ret);
void mappings_remove(struct mappings *m, struct mapping *mapping);
void mappings_clear(struct mappings *m);
/* The lowest mapping that shares a byte with [first, last]; NULL: none. */
struct mapping *mappings_find(const struct mappings *m, uint64_t first, uint64_t last);

/* Does one that is not GOING or RETAINED lie partly outside of [first, last]? */
bool mappings_cut(const struct mappings *m, uint64_t first, uint64_t last);

/* The next one after it, if that begins up to last. */
static inline struct mapping *mappings_next(const struct mapping *mapping, uint64_t last)
{
	struct mapping *next = mapping->next;

	return next && next->iova <= last ? next : NULL;
}

#endif
