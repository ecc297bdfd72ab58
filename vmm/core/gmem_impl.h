/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a map of guest memory is made of. Private to gmem.c (the map: transactions, listeners,
 * look-ups) and gmem_pages.c (what becomes of its pages).
 */
#ifndef CORE_GMEM_IMPL_H
#define CORE_GMEM_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/gmem.h"

struct region {
	struct gmem_region pub;
	char *name;
	bool leaving;        /* the open transaction removes it */
	_Atomic bool closed; /* that is being committed: no device gets at it any more */
	bool is_given;       /* the embedder's: GMEM_FD */
	bool returns;        /* in gmem->adding: it was in gmem->retired */
	struct region *next; /* in gmem->adding or gmem->retired */
};

/* Sorted by gpa, without overlaps; never changes once published. */
struct table {
	struct table *next; /* retired */
	unsigned int n;
	struct region *regions[];
};

struct gmem {
	const struct log *log;
	struct table *_Atomic table;
	struct gmem_dirty *_Atomic dirty;
	pthread_mutex_t map_lock;     /* listeners, and that the table changes; recursive */
	struct list listeners;        /* in order of registration */
	_Atomic unsigned int n_areas; /* of them, with `areas` */
	struct reclaim *_Atomic reclaim;
	uint64_t expected; /* constant once somebody reads it */
	/* Of the machine's thread. */
	bool in_transaction;
	struct region *adding;
	struct region *retired;
	struct table *retired_tables;
	unsigned int n_retired_tables;
};

static inline const struct table *gmem_table(const struct gmem *gmem)
{
	return atomic_load_explicit(&gmem->table, memory_order_acquire);
}

static inline bool gmem_is_ram(const struct gmem_region *region)
{
	return !(region->flags & GMEM_READONLY);
}

/* The region that holds gpa, or NULL. Any thread. */
const struct gmem_region *gmem_region_at(const struct gmem *gmem, uint64_t gpa);
/* A listener's refusals while a change is undone, or of batch_end where there is no way back, leave
 * it without that region. That is what the log is for. */
void gmem_undo_failed(const struct gmem *gmem, const struct gmem_listener *listener,
		      const struct err *err);

#endif
