/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest memory have to be sent (again).
 *
 *   marks of any thread ──► marked ── dirty_collect ──► round ── dirty_next ──► sent
 *                             ▲
 *   KVM's log (arch_vm_dirty_take, by the caller before each collect)
 *
 * `marked` is atomic, and any thread's; `round` the migration's. A page that is marked while it is
 * sent is in the next round. So what a target has after a round in which nothing was marked any
 * more, and no writer is left, is the source's memory.
 *
 * Threads: dirty_tracker's mark, any; the rest, one.
 */
#ifndef MIGRATION_DIRTY_H
#define MIGRATION_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/gmem.h"

struct dirty;

/* For the memory that there is now, which must not change its shape until destroy. */
int dirty_create(struct dirty **ret, const struct gmem *gmem, struct err *err);
void dirty_destroy(struct dirty *d);
struct gmem_dirty *dirty_tracker(struct dirty *d);

/* All of RAM, or all that was ever used of it: what its file has as a hole is zero. */
void dirty_mark_ram(struct dirty *d);
void dirty_mark_used(struct dirty *d);
/* Add what is marked to the round; how many pages that has now. */
uint64_t dirty_collect(struct dirty *d);
/* Take the next pages out of the round, contiguous in one region, at most so many; false: it is
 * empty. */
bool dirty_next(struct dirty *d, uint64_t max_pages, uint64_t *gpa, uint64_t *pages);
/* Some of those that were taken last are not sent yet, after all. */
void dirty_put_back(struct dirty *d, uint64_t gpa, uint64_t pages);

#endif
