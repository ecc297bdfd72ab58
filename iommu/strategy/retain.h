/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What strategies that retain mappings have in common: they map as 'strict' does, retain what the
 * guest unmaps within their limits, and unmap it later, the oldest first, neighbours in one call.
 *
 * Each operation takes constant time per record, beside look-ups in the table, and allocates
 * nothing. Functions fit struct strategy_ops; strategy->state is theirs.
 */
#ifndef IOMMU_STRATEGY_RETAIN_H
#define IOMMU_STRATEGY_RETAIN_H

#include "iommu/strategy/strategy.h"

struct retain_limits {
	uint64_t mappings, bytes; /* that are RETAINED at most; UINT64_MAX: no limit */
	uint64_t ns;              /* then a tick unmaps it; STRATEGY_NEVER */
	uint64_t early_ns;        /* a tick takes what would be due so soon as well; at most ns */
	uint64_t early_mappings;  /* from so many on, a tick comes at once */
};

int retain_create(struct strategy *strategy, const struct retain_limits *limits, struct err *err);
void retain_destroy(struct strategy *strategy);
/* The same page at the same I/O address with the same rights costs no call. */
void retain_map(struct strategy *strategy, struct hw_request *requests, unsigned int n);
/* Where the limits leave no room, the oldest go. What is more than all of the room, or finds none
 * because the hardware refuses, is unmapped at once. */
void retain_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n);
int retain_flush(struct strategy *strategy, uint64_t first, uint64_t last);
void retain_tick(struct strategy *strategy);

#endif
