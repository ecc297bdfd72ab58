/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sorted table of mappings: ranges of I/O addresses that do not overlap. It has two uses:
 *
 *   guest mappings of a domain   the virtual IOMMU owns it; one record per MAP request
 *   mappings of an ioas          one record per area, which is one mapping of the kernel
 *
 * An area may serve several records of the guest. The kernel unmaps whole areas only, so a strategy
 * that shares areas counts the records of each; every record has a word for it.
 *
 * The table is a treap (a search tree by address, a heap by random priorities), so that no order of
 * the guest's MAPs makes it deep, and a list in order of address. Nodes come from chunks that are
 * kept, so that in the steady state nothing is allocated.
 *
 * Threads: under a lock of the caller. `state` is atomic: a reader may hold the lock shared while
 * the owner changes a state.
 * Errors: 0 or a negative errno.
 */
#ifndef IOMMU_MAPPINGS_H
#define IOMMU_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"

enum mapping_state {
	MAPPING_WANTED,   /* in force */
	MAPPING_COMING,   /* a call is mapping it: nothing reaches it yet */
	MAPPING_RETAINED, /* the guest has unmapped it; its strategy keeps it in the hardware */
	MAPPING_GOING,    /* a call is unmapping it: nothing new reaches it */
};

/* Under the lock of the table's owner. */
struct mapping {
	uint64_t iova, last; /* inclusive */
	uint64_t gpa;        /* UINT64_MAX: the memory is not the guest's */
	char *hva;           /* guest mappings: NULL if the memory is not contiguous on the host */
	uint64_t word;       /* of the strategy; 0 until it writes it */
	struct list link;    /* of the strategy: of what it retains */
	unsigned int access; /* enum ioas_access */
	_Atomic(enum mapping_state) state;
	bool shared; /* a copy: another space has pinned its memory */
	/* private */
	uint32_t priority;
	struct mapping *parent, *left, *right;
	struct mapping *before, *next; /* in order of address */
};

struct mapping_chunk;
struct mappings {
	struct mapping *root;
	/* The newest node, or the one before it: the next one is often inserted right behind. */
	struct mapping *recent;
	struct mapping *free; /* a list by ->right */
	struct mapping_chunk *chunks;
	uint64_t random;
	uint64_t count;
	uint64_t bytes;
	uint64_t tables; /* pages that an IOMMU needs at most: spans of 2 MiB, 1 GiB, 512 GiB */
};

/* By how much an insertion of [iova, last] would raise `tables`. */
uint64_t mappings_more_tables(const struct mappings *m, uint64_t iova, uint64_t last);

void mappings_init(struct mappings *m);
void mappings_done(struct mappings *m);

/* Insert [iova, last]; the other fields of *ret are 0. -EEXIST: it overlaps another. -ENOMEM. */
int mappings_insert(struct mappings *m, uint64_t iova, uint64_t last, struct mapping **ret);
void mappings_remove(struct mappings *m, struct mapping *mapping);
void mappings_clear(struct mappings *m);
/* The lowest mapping that overlaps [first, last]; NULL: none. */
struct mapping *mappings_find(const struct mappings *m, uint64_t first, uint64_t last);

/* Does [first, last] cut a mapping that is neither GOING nor RETAINED? */
bool mappings_cut(const struct mappings *m, uint64_t first, uint64_t last);

/* The next mapping, if it begins at `last` or before. */
static inline struct mapping *mappings_next(const struct mapping *mapping, uint64_t last)
{
	struct mapping *next = mapping->next;

	return next && next->iova <= last ? next : NULL;
}

#endif
