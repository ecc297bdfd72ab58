/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A strategy for tests, with a table of strategies that has it: like 'strict', but what the guest
 * has unmapped stays in the hardware until it is asked for again, or flushed.
 *
 *   entries=N   so many mappings are retained (2); a further one is unmapped at once
 *   time=T      so long; never: until they are flushed (never)
 *   room=SIZE   does nothing
 */
#ifndef TESTS_IOMMU_KEEPER_H
#define TESTS_IOMMU_KEEPER_H

#include "iommu/strategy/strategy.h"

/* What the last one that was created has done; zeroes at first. */
struct keeper_log {
	uint64_t entries; /* its parameter */
	unsigned int ticks;
	unsigned int mapped;    /* calls of map that went to the hardware */
	unsigned int revived;   /* ... and that found the mapping there */
	unsigned int destroyed; /* how many */
	/* At each unmap ('u') and flush ('f') of something, in order. */
	void (*on_event)(const struct strategy *strategy, char what);
};
extern struct keeper_log keeper_log;

#endif
