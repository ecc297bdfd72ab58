/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest has given up of its memory, and what of that has left the host.
 *
 *   page      given: the guest does not use it until it has taken it back (a balloon)
 *   granule   out: all of its pages are given, no device reaches it, and the host has it back
 *
 * Where every listener of the map can change the hardware page by page (a virtual IOMMU), or there
 * is none, a given page is discarded at once. Hardware that has all of memory (strategy 'direct')
 * can be changed by whole areas of it only: such a listener maps each granule as one area, and
 * memory leaves by granules. How large they are is a choice: of small ones more leave, and large
 * ones cost fewer areas and keep the huge pages of the host and its IOMMU. A transparent huge page
 * is freed as a whole, and not while a part of it is pinned: so granules that are smaller than one
 * need memory without them (gmem_region_config.small_pages). Memory leaves by gmem_discard only,
 * and comes back by gmem_restore.
 *
 * A given page is no memory for devices: a virtual IOMMU refuses to map it. So nothing is pinned
 * anew between the moment at which a page leaves the hardware and the discard.
 *
 * It belongs to its map, and lasts as long. Memory that is added to the map later is covered where
 * it was expected (gmem_expect).
 *
 * Threads: any; give, take and report hold the map (gmem_hold), so no lock of a listener may be
 * held. Errors: 0 or a negative errno.
 */
#ifndef CORE_RECLAIM_H
#define CORE_RECLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/gmem.h"

/* A granule is a power of two: at most a transparent huge page, at least one word of the bits. */
#define RECLAIM_MIN_GRANULE ((uint64_t)256 << 10)
#define RECLAIM_MAX_GRANULE ((uint64_t)2 << 20)

struct reclaim;

/* From now on parts of the map's memory can leave. Before a listener with `areas` comes; once is
 * enough, and the granule stays. -EBUSY: there is such a listener, or the granule is another one,
 * or smaller than the pages that memory may be in. -EOPNOTSUPP: memory in huge pages, which the
 * host reserves: one that is given back may be gone. */
int reclaim_enable(struct gmem *gmem, uint64_t granule_bytes, struct err *err);
uint64_t reclaim_granule_bytes(const struct reclaim *r);
void reclaim_destroy(struct reclaim *r); /* the map's */

/* The guest gives [gpa, gpa + bytes), in base pages; what it has given already stays so. -EFAULT:
 * not all of it is RAM; the part before is given. -EIO, and others: the hardware refuses to unmap
 * it, so the part from there on is not given. */
int reclaim_give(struct reclaim *r, uint64_t gpa, uint64_t bytes);
/* The guest wants it back. When this returns 0, every device reaches it that reaches all of memory.
 * Another result: it could not be mapped; the part from there on is still given. Pages that were
 * not given need nothing. */
int reclaim_take(struct reclaim *r, uint64_t gpa, uint64_t bytes);
/* Take the next of all that is given, from *gpa on, at most a granule, and move *gpa: 1, 0 when
 * nothing is left, or as reclaim_take. */
int reclaim_take_next(struct reclaim *r, uint64_t *gpa);
/* The guest has no content in [gpa, gpa + bytes) now, and will not say when it uses it again:
 * discard it. -EBUSY: there is hardware that would not notice, so it stays. -EFAULT: no RAM. */
int reclaim_report(struct reclaim *r, uint64_t gpa, uint64_t bytes);

/* Whole granules, of regions that have just been removed: nothing of them is given any more. NULL:
 * nothing was. */
void reclaim_forget(struct reclaim *r, uint64_t gpa, uint64_t bytes);

/* Is a page of it given? NULL: nothing is. Any thread, no lock. */
bool reclaim_has(const struct reclaim *r, uint64_t gpa, uint64_t bytes);
/* Is the granule with this address out? NULL: none is. The map is held. */
bool reclaim_is_out(const struct reclaim *r, uint64_t gpa);

struct reclaim_totals {
	uint64_t given_bytes;
	uint64_t out_bytes; /* of them, that the host has back */
};
void reclaim_totals(const struct reclaim *r, struct reclaim_totals *ret);

#endif
