// SPDX-License-Identifier: Apache-2.0
// Lists of scattered memory that come again, and their aliases (lists.h).
#include "iommu/strategy/lists.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/strategy/hash.h"

enum {
	EXTENTS = 256, /* of a list at most */
	SETS = 2048,   /* of lists that were seen, by their first page */
	WAYS = 4,
};

/* A list that the guest has unmapped at once. */
struct seen {
	const char *first; /* hva; NULL: unused */
	uint64_t bytes;
	uint64_t hash;
	struct alias *alias; /* NULL: seen once */
};

struct lists {
	const struct gmem *gmem;
	struct seen seen[SETS][WAYS]; /* the most recently used first */
	struct list idle;             /* aliases that nobody uses, the oldest first */
	uint64_t alias_bytes, max_alias_bytes;
	struct seen *found; /* by the last lists_find */
	/* The list at hand. */
	struct alias_extent extents[EXTENTS];
	unsigned int n_extents;
};

/* --- the list at hand --- */

void lists_begin(struct lists *lists)
{
	lists->n_extents = 0;
}

bool lists_add(struct lists *lists, char *hva, uint64_t bytes)
{
	struct alias_extent *before =
		lists->n_extents ? &lists->extents[lists->n_extents - 1] : NULL;

	if (before && before->hva + before->bytes == hva) {
		before->bytes += bytes;
		return true;
	}
	if (lists->n_extents == EXTENTS)
		return false;
	lists->extents[lists->n_extents++] = (struct alias_extent){.hva = hva, .bytes = bytes};
	return true;
}

static uint64_t list_hash(const struct lists *l)
{
	uint64_t hash = 0;

	for (unsigned int i = 0; i < l->n_extents; i++)
		hash = hash_mix(hash_mix(hash, (uintptr_t)l->extents[i].hva), l->extents[i].bytes);
	return hash;
}

static struct seen *set_of(struct lists *l, const char *first)
{
	return l->seen[hash_mix(0, (uintptr_t)first) % SETS];
}

/* Is the list at hand this one? */
static bool is_list(const struct lists *l, const struct seen *seen)
{
	if (list_hash(l) != seen->hash)
		return false;
	return !seen->alias ||
	       (seen->alias->n == l->n_extents &&
		!memcmp(seen->alias->extents, l->extents, l->n_extents * sizeof(l->extents[0])));
}

/* --- aliases --- */

static void drop_alias(struct lists *l, struct alias *alias)
{
	struct seen *set = set_of(l, alias->extents[0].hva);

	for (unsigned int way = 0; way < WAYS; way++) {
		if (set[way].alias == alias)
			set[way].alias = NULL;
	}
	list_remove(&alias->link);
	l->alias_bytes -= alias->bytes;
	alias_destroy(alias);
}

static bool drop_oldest(struct lists *l)
{
	if (list_empty(&l->idle))
		return false;
	drop_alias(l, container_of(l->idle.next, struct alias, link));
	return true;
}

struct alias *lists_alias(struct lists *lists, uint64_t bytes)
{
	struct alias *alias = lists->found->alias;
	int ret;

	if (alias)
		return alias;
	while (bytes > lists->max_alias_bytes - MIN(lists->alias_bytes, lists->max_alias_bytes)) {
		if (!drop_oldest(lists))
			return NULL;
	}
	do {
		ret = alias_create(&alias, lists->gmem, lists->extents, lists->n_extents);
	} while (ret == -ENOSPC && drop_oldest(lists));
	if (ret)
		return NULL;
	lists->alias_bytes += bytes;
	lists->found->alias = alias;
	list_append(&lists->idle, &alias->link);
	return alias;
}

void lists_use(struct alias *alias)
{
	if (!alias->users++)
		list_remove(&alias->link);
}

void lists_release(struct lists *lists, struct alias *alias)
{
	if (!--alias->users)
		list_append(&lists->idle, &alias->link);
}

void lists_forget(struct lists *lists)
{
	while (drop_oldest(lists))
		;
	for (unsigned int set = 0; set < SETS; set++) {
		for (unsigned int way = 0; way < WAYS; way++) {
			if (!lists->seen[set][way].alias)
				lists->seen[set][way].first = NULL;
		}
	}
}

/* --- known lists --- */

static void make_first(struct seen *set, unsigned int way)
{
	struct seen it = set[way];

	memmove(&set[1], &set[0], way * sizeof(*set));
	set[0] = it;
}

void lists_learn(struct lists *lists, uint64_t bytes)
{
	struct seen *set = set_of(lists, lists->extents[0].hva);
	uint64_t hash = list_hash(lists);
	unsigned int way = 0;

	if (lists->n_extents < 2)
		return;
	while (way < WAYS && set[way].first && set[way].hash != hash)
		way++;
	way = MIN(way, (unsigned int)WAYS - 1);
	if (set[way].hash != hash && set[way].alias) {
		if (set[way].alias->users)
			return;
		drop_alias(lists, set[way].alias);
	}
	if (set[way].hash != hash || !set[way].first)
		set[way] =
			(struct seen){.first = lists->extents[0].hva, .bytes = bytes, .hash = hash};
	make_first(set, way);
}

/* Take the memory of the first requests that are `bytes` together into the list at hand. Returns
 * how many; 0: they are no such list, since it has no gaps, and the same rights everywhere. */
static unsigned int take_list(struct lists *l, const struct hw_request *requests, unsigned int n,
			      uint64_t bytes)
{
	const struct mapping *first = requests[0].record;
	uint64_t done = 0;

	lists_begin(l);
	for (unsigned int i = 0; i < n && done < bytes; i++) {
		const struct mapping *m = requests[i].record;

		if (m->word || !m->hva || m->iova != first->iova + done ||
		    m->access != first->access || !lists_add(l, m->hva, requests[i].bytes))
			return 0;
		done += requests[i].bytes;
		if (done == bytes)
			return i + 1;
	}
	return 0;
}

/* What is found is at hand then. */
unsigned int lists_find(struct lists *lists, const struct hw_request *requests, unsigned int n)
{
	const char *first = requests[0].record->hva;
	struct seen *set = set_of(lists, first), *best = NULL, *at_hand = NULL;
	unsigned int count, best_count = 0;

	for (struct seen *it = set; first && it < set + WAYS; it++) {
		if (it->first != first || (best && it->bytes <= best->bytes))
			continue;
		at_hand = it;
		count = take_list(lists, requests, n, it->bytes);
		if (count > 1 && is_list(lists, it)) {
			best = it;
			best_count = count;
		}
	}
	if (!best)
		return 0;
	if (at_hand != best)
		take_list(lists, requests, n, best->bytes);
	make_first(set, (unsigned int)(best - set));
	lists->found = set;
	return best_count;
}

/* --- life --- */

int lists_create(struct lists **ret, const struct gmem *gmem)
{
	struct lists *lists;

	if (!mem_new(lists))
		return -ENOMEM;
	lists->gmem = gmem;
	lists->max_alias_bytes = gmem_ram_bytes(gmem);
	list_init(&lists->idle);
	*ret = lists;
	return 0;
}

void lists_destroy(struct lists *lists)
{
	if (!lists)
		return;
	for (unsigned int set = 0; set < SETS; set++) {
		for (unsigned int way = 0; way < WAYS; way++) {
			if (lists->seen[set][way].alias)
				alias_destroy(lists->seen[set][way].alias);
		}
	}
	free(lists);
}
