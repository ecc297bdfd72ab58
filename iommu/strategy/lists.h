/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists: scattered memory that the guest maps and unmaps together, for 'batched'. A list that was
 * unmapped at once is known by a hash from then on; when it comes again it gets an alias (alias.h),
 * which is kept for the next time. Of aliases that nobody uses the oldest make room, for as much
 * memory as the guest has, and as many memory mappings as alias.h allows.
 *
 * Look-ups take constant time per request, and only lists_alias allocates.
 * Threads: the caller's lock.
 */
#ifndef IOMMU_STRATEGY_LISTS_H
#define IOMMU_STRATEGY_LISTS_H

#include "iommu/strategy/alias.h"
#include "iommu/strategy/strategy.h"

struct lists;

/* gmem stays with the caller. -ENOMEM. */
int lists_create(struct lists **ret, const struct gmem *gmem);
/* Nothing uses an alias any more. NULL is allowed. */
void lists_destroy(struct lists *lists);

/* Learn a list: begin, add its memory in order (false: it is too long for a list), learn it with
 * its bytes. What is one extent is none. */
void lists_begin(struct lists *lists);
bool lists_add(struct lists *lists, char *hva, uint64_t bytes);
void lists_learn(struct lists *lists, uint64_t bytes);

/* Find the longest known list with which these requests to map begin. Returns how many of them it
 * is, or 0. */
unsigned int lists_find(struct lists *lists, const struct hw_request *requests, unsigned int n);
/* The alias of the list that was just found, made if it has none. NULL: it can have none now. */
struct alias *lists_alias(struct lists *lists, uint64_t bytes);
/* It has one user more, or less. */
void lists_use(struct alias *alias);
void lists_release(struct lists *lists, struct alias *alias);
/* Keep no alias that nobody uses, and no list without one. */
void lists_forget(struct lists *lists);

#endif
