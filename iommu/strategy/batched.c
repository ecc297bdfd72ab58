// SPDX-License-Identifier: Apache-2.0
// The strategy 'batched': a list of scattered buffers that comes again is one area of the kernel,
// by an alias of its memory (lists.h).
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

#include "base/mem.h"
#include "base/num.h"
#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/lists.h"
#include "iommu/strategy/strict.h"

/* One area of the kernel for several records. */
struct area {
	struct list link; /* areas or free_areas */
	struct alias *alias;
	uint64_t iova, last;
};

struct batched {
	struct lists *lists;
	struct list areas, free_areas;
	uint64_t area_bytes; /* of areas: no more of them can ever be stale */
	bool in_parts;       /* the guest has unmapped a part of a list */
};

static struct area *area_of(const struct mapping *wanted)
{
	return (struct area *)(uintptr_t)wanted->word;
}

/* --- areas --- */

/* The area becomes a user of the alias. NULL: no memory. */
static struct area *area_new(struct batched *b, struct alias *alias, uint64_t iova, uint64_t last)
{
	struct list *item = list_pop(&b->free_areas);
	struct area *area;

	if (item)
		area = container_of(item, struct area, link);
	else if (mem_new(area))
		list_init(&area->link);
	if (!area)
		return NULL;
	area->alias = alias;
	area->iova = iova;
	area->last = last;
	b->area_bytes += last - iova + 1;
	lists_use(alias);
	list_append(&b->areas, &area->link);
	return area;
}

static void area_done(struct batched *b, struct area *area)
{
	b->area_bytes -= area->last - area->iova + 1;
	lists_release(b->lists, area->alias);
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

/* May there be one more area? What can be stale is less than all of them together. */
static bool is_under_ceiling(const struct strategy *strategy, uint64_t bytes)
{
	const struct batched *b = strategy->state;
	uint64_t ceiling = strategy->ceiling_bytes;

	return bytes <= ceiling && b->area_bytes <= ceiling - bytes;
}

/* Map the list that was found as one area. False: that is not possible. */
static bool map_area(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	struct batched *b = strategy->state;
	const struct mapping *first = requests[0].record;
	uint64_t bytes = requests[n - 1].last - first->iova + 1;
	struct ioas_memory memory = {.fd = -1, .gpa = UINT64_MAX};
	struct alias *alias =
		is_under_ceiling(strategy, bytes) ? lists_alias(b->lists, bytes) : NULL;
	struct area *area = alias ? area_new(b, alias, first->iova, requests[n - 1].last) : NULL;

	if (!area)
		return false;
	memory.hva = alias->hva;
	if (ioas_map(strategy->ioas, area->iova, bytes, &memory, first->access)) {
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

	while (at < n) {
		unsigned int count = 0;
		bool again = requests[at].record->word;

		if (!again && !b->in_parts && !strategy->leaving)
			count = lists_find(b->lists, &requests[at], n - at);
		if (!again && !count) {
			at++;
			continue;
		}
		strict_map(strategy, &requests[done], at - done);
		done = at;
		at += again ? 1 : count;
		if (again)
			map_again(strategy, requests[done].record);
		if (again || map_area(strategy, &requests[done], count))
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
	lists_begin(b->lists);
	for (; m; m = mappings_next(m, r->last)) {
		if (m->state != MAPPING_GOING)
			continue;
		areas |= m->word != 0;
		list = list && m->hva && lists_add(b->lists, m->hva, m->last - m->iova + 1);
	}
	if (list)
		lists_learn(b->lists, r->bytes);
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
	list_init(&b->areas);
	list_init(&b->free_areas);
	strategy->state = b;
	if (lists_create(&b->lists, strategy->config->gmem))
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	return 0;
}

static void batched_forget(struct strategy *strategy, uint64_t gpa, uint64_t bytes)
{
	const struct batched *b = strategy->state;

	(void)gpa;
	(void)bytes;
	lists_forget(b->lists);
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
	lists_destroy(b->lists);
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
