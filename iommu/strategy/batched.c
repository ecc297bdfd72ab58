// SPDX-License-Identifier: Apache-2.0
// The strategy 'batched': a list of scattered buffers that comes again is one area of the kernel,
// by an alias of its memory (alias.h).
//
//   UNMAP of several records ─► seen (a hash of the list)
//   the same list again ─► its alias is made ─► one area; from then on one call to map and unmap
//
// What the guest unmaps at once is a list, so areas have the guest's own boundaries. All else is
// mapped as in 'strict', record by record. The word of a WANTED record is its area, or 0.
//
// The kernel unmaps whole areas only. When the guest unmaps a part of a list, the part is RETAINED
// until the rest goes, and the guest's lists are not joined any more. A flush unmaps the whole
// area, and then maps the rest record by record.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/alias.h"
#include "iommu/strategy/hash.h"
#include "iommu/strategy/strict.h"

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

/* One area of the kernel for several records. */
struct area {
	struct list link; /* areas or free_areas */
	struct alias *alias;
	uint64_t iova, last;
};

struct batched {
	struct seen seen[SETS][WAYS]; /* the most recently used first */
	struct list idle;             /* aliases that no area uses, the oldest first */
	uint64_t alias_bytes, max_alias_bytes;
	struct list areas, free_areas;
	uint64_t area_bytes; /* of areas: no more of them can ever be stale */
	bool in_parts;       /* the guest has unmapped a part of a list */
	/* The list at hand. */
	struct alias_extent extents[EXTENTS];
	unsigned int n_extents;
};

static struct area *area_of(const struct mapping *wanted)
{
	return (struct area *)(uintptr_t)wanted->word;
}

/* --- lists --- */

/* Add memory to the list at hand. False: it has too many extents. */
static bool list_add(struct batched *b, char *hva, uint64_t bytes)
{
	struct alias_extent *before = b->n_extents ? &b->extents[b->n_extents - 1] : NULL;

	if (before && before->hva + before->bytes == hva) {
		before->bytes += bytes;
		return true;
	}
	if (b->n_extents == EXTENTS)
		return false;
	b->extents[b->n_extents++] = (struct alias_extent){.hva = hva, .bytes = bytes};
	return true;
}

static uint64_t list_hash(const struct batched *b)
{
	uint64_t hash = 0;

	for (unsigned int i = 0; i < b->n_extents; i++)
		hash = hash_mix(hash_mix(hash, (uintptr_t)b->extents[i].hva), b->extents[i].bytes);
	return hash;
}

static struct seen *set_of(struct batched *b, const char *first)
{
	return b->seen[hash_mix(0, (uintptr_t)first) % SETS];
}

/* Is the list at hand this one? */
static bool is_list(const struct batched *b, const struct seen *seen)
{
	if (list_hash(b) != seen->hash)
		return false;
	return !seen->alias ||
	       (seen->alias->n == b->n_extents &&
		!memcmp(seen->alias->extents, b->extents, b->n_extents * sizeof(b->extents[0])));
}

/* --- aliases --- */

static void drop_alias(struct batched *b, struct alias *alias)
{
	struct seen *set = set_of(b, alias->extents[0].hva);

	for (unsigned int way = 0; way < WAYS; way++) {
		if (set[way].alias == alias)
			set[way].alias = NULL;
	}
	list_remove(&alias->link);
	b->alias_bytes -= alias->bytes;
	alias_destroy(alias);
}

static bool drop_oldest(struct batched *b)
{
	if (list_empty(&b->idle))
		return false;
	drop_alias(b, container_of(b->idle.next, struct alias, link));
	return true;
}

/* For the list at hand. NULL: it can have none now. */
static struct alias *make_alias(const struct strategy *strategy, uint64_t bytes)
{
	struct batched *b = strategy->state;
	struct alias *alias;
	int ret;

	while (bytes > b->max_alias_bytes - MIN(b->alias_bytes, b->max_alias_bytes)) {
		if (!drop_oldest(b))
			return NULL;
	}
	do {
		ret = alias_create(&alias, strategy->config->gmem, b->extents, b->n_extents);
	} while (ret == -ENOSPC && drop_oldest(b));
	if (ret)
		return NULL;
	b->alias_bytes += bytes;
	return alias;
}

static void make_first(struct seen *set, unsigned int way)
{
	struct seen it = set[way];

	memmove(&set[1], &set[0], way * sizeof(*set));
	set[0] = it;
}

/* Remember the list at hand, which the guest has unmapped at once. */
static void learn(struct batched *b, uint64_t bytes)
{
	struct seen *set = set_of(b, b->extents[0].hva);
	uint64_t hash = list_hash(b);
	unsigned int way = 0;

	while (way < WAYS && set[way].first && set[way].hash != hash)
		way++;
	way = MIN(way, (unsigned int)WAYS - 1);
	if (set[way].hash != hash && set[way].alias) {
		if (set[way].alias->users)
			return;
		drop_alias(b, set[way].alias);
	}
	if (set[way].hash != hash || !set[way].first)
		set[way] = (struct seen){.first = b->extents[0].hva, .bytes = bytes, .hash = hash};
	make_first(set, way);
}

/* --- areas --- */

static struct area *area_new(struct batched *b)
{
	struct list *item = list_pop(&b->free_areas);
	struct area *area;

	if (item)
		area = container_of(item, struct area, link);
	else if (mem_new(area))
		list_init(&area->link);
	if (area)
		list_append(&b->areas, &area->link);
	return area;
}

static void area_done(struct batched *b, struct area *area)
{
	b->area_bytes -= area->last - area->iova + 1;
	if (!--area->alias->users)
		list_append(&b->idle, &area->alias->link);
	list_remove(&area->link);
	list_append(&b->free_areas, &area->link);
}

/* The area whose part this is, which is RETAINED or was: another part of it is WANTED. */
static struct area *area_around(const struct mapping *part)
{
	for (unsigned int side = 0; side < 2; side++) {
		const struct mapping *m = part;

		while ((m = side ? m->next : m->before)) {
			struct area *area;

			if (m->state == MAPPING_RETAINED || m->state == MAPPING_COMING)
				continue;
			area = area_of(m);
			if (area && area->iova <= part->iova && part->last <= area->last)
				return area;
			break;
		}
	}
	return NULL;
}

/* The hardware no longer has the area. Its records have no area any more, and the RETAINED ones are
 * removed. */
static void end_area(struct strategy *strategy, struct area *area)
{
	struct mapping *next, *m = mappings_find(strategy->guest, area->iova, area->last);

	for (; m; m = next) {
		next = mappings_next(m, area->last);
		if (m->state == MAPPING_RETAINED)
			strategy_release(strategy, m);
		else if (m->state != MAPPING_COMING)
			m->word = 0;
	}
	area_done(strategy->state, area);
}

/* --- MAP --- */

/* Take the memory of the first requests that are `bytes` together into the list at hand. Returns
 * how many; 0: they are no such list, since it has no gaps, and the same rights everywhere. */
static unsigned int take_list(struct batched *b, const struct hw_request *requests, unsigned int n,
			      uint64_t bytes)
{
	const struct mapping *first = requests[0].record;
	uint64_t done = 0;

	b->n_extents = 0;
	for (unsigned int i = 0; i < n && done < bytes; i++) {
		const struct mapping *m = requests[i].record;

		if (m->word || !m->hva || m->iova != first->iova + done ||
		    m->access != first->access || !list_add(b, m->hva, requests[i].bytes))
			return 0;
		done += requests[i].bytes;
		if (done == bytes)
			return i + 1;
	}
	return 0;
}

/* The longest list that was seen and that the requests begin with; it is at hand then. Returns how
 * many requests it has, or 0. */
static unsigned int find_list(struct batched *b, const struct hw_request *requests, unsigned int n,
			      struct seen **ret)
{
	const char *first = requests[0].record->hva;
	struct seen *set = set_of(b, first), *best = NULL, *at_hand = NULL;
	unsigned int count, best_count = 0;

	for (struct seen *it = set; first && it < set + WAYS; it++) {
		if (it->first != first || (best && it->bytes <= best->bytes))
			continue;
		at_hand = it;
		count = take_list(b, requests, n, it->bytes);
		if (count > 1 && is_list(b, it)) {
			best = it;
			best_count = count;
		}
	}
	if (!best)
		return 0;
	if (at_hand != best)
		take_list(b, requests, n, best->bytes);
	make_first(set, (unsigned int)(best - set));
	*ret = set;
	return best_count;
}

/* May there be one more area? What can be stale is less than all of them together. */
static bool is_under_ceiling(const struct strategy *strategy, uint64_t bytes)
{
	const struct batched *b = strategy->state;
	uint64_t ceiling = strategy->ceiling_bytes;

	return bytes <= ceiling && b->area_bytes <= ceiling - bytes;
}

/* Map the list at hand as one area. False: that is not possible. */
static bool map_area(struct strategy *strategy, struct seen *seen, struct hw_request *requests,
		     unsigned int n)
{
	struct batched *b = strategy->state;
	const struct mapping *first = requests[0].record;
	struct ioas_memory memory = {.fd = -1, .gpa = UINT64_MAX};
	struct area *area;

	if (!is_under_ceiling(strategy, seen->bytes))
		return false;
	if (!seen->alias) {
		/* What is made is not dropped meanwhile, as it is not idle. */
		seen->alias = make_alias(strategy, seen->bytes);
		if (!seen->alias)
			return false;
		list_append(&b->idle, &seen->alias->link);
	}
	area = area_new(b);
	if (!area)
		return false;
	area->alias = seen->alias;
	area->iova = first->iova;
	area->last = requests[n - 1].last;
	b->area_bytes += seen->bytes;
	if (!area->alias->users++)
		list_remove(&area->alias->link);
	memory.hva = area->alias->hva;
	if (ioas_map(strategy->ioas, area->iova, seen->bytes, &memory, first->access)) {
		area_done(b, area);
		return false;
	}
	for (unsigned int i = 0; i < n; i++)
		requests[i].record->word = (uintptr_t)area;
	ioas_joined(strategy->ioas, n);
	return true;
}

/* The guest has back a part of a list: the hardware still has it. */
static void map_again(struct strategy *strategy, struct mapping *part)
{
	const struct area *area = area_around(part);

	strategy_reuse(strategy, part);
	part->word = (uintptr_t)area;
}

static void batched_map(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	struct batched *b = strategy->state;
	unsigned int done = 0, at = 0;
	struct seen *seen;

	while (at < n) {
		unsigned int count = 0;
		bool again = requests[at].record->word;

		if (!again && !b->in_parts && !strategy->leaving)
			count = find_list(b, &requests[at], n - at, &seen);
		if (!again && !count) {
			at++;
			continue;
		}
		strict_map(strategy, &requests[done], at - done);
		done = at;
		at += again ? 1 : count;
		if (again)
			map_again(strategy, requests[done].record);
		if (again || map_area(strategy, seen, &requests[done], count))
			done = at;
	}
	strict_map(strategy, &requests[done], n - done);
}

/* --- UNMAP --- */

/* Remember the list of an UNMAP, unless it is one area. True: some of its records are in areas. */
static bool look_at(const struct strategy *strategy, const struct hw_request *r)
{
	const struct mapping *m = mappings_find(strategy->guest, r->iova, r->last);
	const struct area *area = m && m->state == MAPPING_GOING ? area_of(m) : NULL;
	struct batched *b = strategy->state;
	bool list = !b->in_parts && m && m->last != r->last && r->bytes == r->last - r->iova + 1;
	bool areas = false;

	if (area && area->iova == r->iova && area->last == r->last)
		return true;
	b->n_extents = 0;
	for (; m; m = mappings_next(m, r->last)) {
		if (m->state != MAPPING_GOING)
			continue;
		areas |= m->word != 0;
		list = list && m->hva && list_add(b, m->hva, m->last - m->iova + 1);
	}
	if (list && b->n_extents > 1)
		learn(b, r->bytes);
	return areas;
}

static bool is_wanted(const struct strategy *strategy, const struct area *area)
{
	const struct mapping *m = mappings_find(strategy->guest, area->iova, area->last);

	for (; m; m = mappings_next(m, area->last)) {
		if (m->state == MAPPING_WANTED)
			return true;
	}
	return false;
}

/* Retain the GOING records from *m on that begin at `last` or before; *m is the one behind them. */
static void retain_part(struct strategy *strategy, struct mapping **m, uint64_t last)
{
	struct batched *b = strategy->state;

	if (!b->in_parts)
		log_info(strategy->config->log, "iommu",
			 "%s: the guest unmaps parts of lists, so 'batched' maps each part alone "
			 "from now on",
			 strategy->config->name);
	b->in_parts = true;
	for (; *m && (*m)->iova <= last; *m = (*m)->next) {
		if ((*m)->state == MAPPING_GOING)
			strategy_retain(strategy, *m);
	}
}

/* Unmap the records of the request, one area or one record without an area per call. */
static int unmap_areas(struct strategy *strategy, const struct hw_request *r)
{
	struct mapping *m = mappings_find(strategy->guest, r->iova, r->last);
	uint64_t unmapped;
	int ret = 0, code;

	while (m) {
		struct area *area = m->state == MAPPING_GOING ? area_of(m) : NULL;
		uint64_t iova = area ? area->iova : m->iova, last = area ? area->last : m->last;

		if (m->state != MAPPING_GOING) {
			m = mappings_next(m, r->last);
			continue;
		}
		if (area && is_wanted(strategy, area)) {
			retain_part(strategy, &m, MIN(last, r->last));
			m = m && m->iova <= r->last ? m : NULL;
			continue;
		}
		code = ioas_unmap(strategy->ioas, iova, last - iova + 1, &unmapped);
		ret = ret ? ret : code;
		if (!code && area)
			end_area(strategy, area);
		m = last < r->last ? mappings_find(strategy->guest, last + 1, r->last) : NULL;
	}
	if (ret)
		strategy_put_back(strategy, r);
	return ret;
}

static void batched_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	unsigned int done = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (!look_at(strategy, &requests[i]))
			continue;
		strict_unmap(strategy, &requests[done], i - done);
		requests[i].result = unmap_areas(strategy, &requests[i]);
		done = i + 1;
	}
	strict_unmap(strategy, &requests[done], n - done);
}

/* --- flush --- */

/* Map what the guest wants of an area that is unmapped, record by record. */
static void map_rest(struct strategy *strategy, uint64_t iova, uint64_t last)
{
	const struct mapping *m = mappings_find(strategy->guest, iova, last);
	int ret;

	for (; m; m = mappings_next(m, last)) {
		if (m->state != MAPPING_WANTED && m->state != MAPPING_COMING)
			continue;
		ret = guest_memory_map(strategy->ioas, strategy->config->gmem, m);
		if (ret)
			log_error(strategy->config->log, "iommu",
				  "%s: the rest of a list cannot be mapped at iova 0x%llx: %s",
				  strategy->config->name, (unsigned long long)m->iova,
				  err_name(ret));
	}
}

/* Unmap the whole area of a RETAINED part. */
static int break_area(struct strategy *strategy, struct mapping *part)
{
	struct area *area = area_around(part);
	uint64_t iova = area ? area->iova : part->iova, last = area ? area->last : part->last;
	uint64_t unmapped;
	int ret = ioas_unmap_stale(strategy->ioas, iova, last - iova + 1, &unmapped);

	if (ret) {
		strategy_refused(strategy, part);
		return ret;
	}
	if (area)
		end_area(strategy, area);
	else
		strategy_release(strategy, part);
	map_rest(strategy, iova, last);
	return 0;
}

/* The oldest RETAINED record in the range that is not newer than `newest`. */
static struct mapping *stale_in(const struct strategy *strategy, uint64_t first, uint64_t last,
				uint64_t newest)
{
	list_for_each (item, &strategy->retained) {
		struct mapping *m = container_of(item, struct mapping, link);

		if (m->state == MAPPING_RETAINED && m->word <= newest && m->iova <= last &&
		    m->last >= first)
			return m;
	}
	return NULL;
}

static int batched_flush(struct strategy *strategy, uint64_t first, uint64_t last)
{
	uint64_t newest = strategy->last_word; /* what is refused becomes newer */
	struct mapping *m;
	int ret = 0, code;

	while ((m = stale_in(strategy, first, last, newest))) {
		code = break_area(strategy, m);
		ret = ret ? ret : code;
	}
	return ret;
}

/* --- life --- */

static int batched_check(const struct gmem *gmem, struct err *err)
{
	return alias_check(gmem, err) ? err_prefix(err, "strategy 'batched'") : 0;
}

static bool batched_is_plain(const struct strategy *strategy)
{
	const struct batched *b = strategy->state;

	return list_empty(&b->areas);
}

static int batched_create(struct strategy *strategy, struct err *err)
{
	struct batched *b;

	if (!mem_new(b))
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	list_init(&b->idle);
	list_init(&b->areas);
	list_init(&b->free_areas);
	b->max_alias_bytes = gmem_ram_bytes(strategy->config->gmem);
	strategy->state = b;
	return 0;
}

static void batched_forget(struct strategy *strategy, uint64_t gpa, uint64_t bytes)
{
	struct batched *b = strategy->state;

	(void)gpa;
	(void)bytes;
	while (drop_oldest(b))
		;
	for (unsigned int set = 0; set < SETS; set++) {
		for (unsigned int way = 0; way < WAYS; way++) {
			if (!b->seen[set][way].alias)
				b->seen[set][way].first = NULL;
		}
	}
}

static void free_areas(struct list *areas)
{
	list_for_each_safe (item, areas) {
		free(container_of(item, struct area, link));
	}
}

/* Areas may be left, which no device reaches. */
static void batched_destroy(struct strategy *strategy)
{
	struct batched *b = strategy->state;

	if (!b)
		return;
	for (unsigned int set = 0; set < SETS; set++) {
		for (unsigned int way = 0; way < WAYS; way++) {
			if (b->seen[set][way].alias)
				alias_destroy(b->seen[set][way].alias);
		}
	}
	free_areas(&b->areas);
	free_areas(&b->free_areas);
	free(b);
}

const struct strategy_ops strategy_batched = {
	.name = "batched",
	.summary = "each guest mapping, until its UNMAP; a scattered buffer that returns is mapped "
		   "and unmapped in one call",
	.needs_viommu = true,
	.needs_memfd = true,
	.keeps_mappings = true,
	.ends_with_table = true,
	.is_plain = batched_is_plain,
	.check = batched_check,
	.create = batched_create,
	.destroy = batched_destroy,
	.map = batched_map,
	.unmap = batched_unmap,
	.flush = batched_flush,
	.forget = batched_forget,
};
