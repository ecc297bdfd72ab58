/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shadow counts: what strategies that do not run would have done with the guest's requests.
 *
 *   MAP of what was unmapped before   a hit of a strategy whose limits would have retained it
 *   UNMAP of a list seen before       one area instead of many, for a strategy that joins lists
 *
 * Only hashes are kept, in tables of a fixed size, the oldest of a set first out: a load with more
 * of them than fit finds less than it would. So counts are estimates, and nothing but estimates
 * may follow from them.
 *
 * Threads: the caller's lock. Nothing is allocated after shadow_create, and a record costs a
 * constant time.
 */
#ifndef IOMMU_STRATEGY_SHADOW_H
#define IOMMU_STRATEGY_SHADOW_H

#include "iommu/strategy/strategy.h"

struct shadow;

/* What a strategy retains at most. */
struct shadow_limits {
	uint64_t mappings, bytes, ns; /* UINT64_MAX: no limit */
};
enum { SHADOW_LIMITS = 3 };

struct shadow_counts {
	uint64_t maps, pages; /* of the guest */
	uint64_t joined;      /* maps that would not have been calls, as parts of one area */
	struct {
		uint64_t maps, pages;
	} hits[SHADOW_LIMITS]; /* by index of limits */
};

/* list_bytes: a longer list is never joined. -ENOMEM. */
int shadow_create(struct shadow **ret, const struct shadow_limits limits[SHADOW_LIMITS],
		  uint64_t list_bytes);
void shadow_destroy(struct shadow *shadow);
/* Requests, before the strategy serves them; now_ns of one clock. */
void shadow_map(struct shadow *shadow, const struct hw_request *requests, unsigned int n,
		uint64_t now_ns);
void shadow_unmap(struct shadow *shadow, const struct mappings *guest,
		  const struct hw_request *requests, unsigned int n, uint64_t now_ns);
/* The counts since the last call. */
struct shadow_counts shadow_take(struct shadow *shadow);

#endif
