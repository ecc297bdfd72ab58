// SPDX-License-Identifier: Apache-2.0
// Retained mappings: the limits, eviction in runs, and ticks.
#include "iommu/strategy/retain.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "iommu/hw_domain.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/strict.h"

enum {
	RUN = 64,   /* records per call */
	SLICE = 16, /* records per tick: the guest's requests wait for it */
};
#define RETRY_NS (100 * NS_PER_MS)

struct retain {
	struct retain_limits limits;
	uint64_t tick_ns; /* when a tick is due; 0: none was asked for */
};

int retain_create(struct strategy *strategy, const struct retain_limits *limits, struct err *err)
{
	struct retain *retain;

	if (!mem_new(retain))
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	retain->limits = *limits;
	retain->limits.bytes = MIN(limits->bytes, strategy->ceiling_bytes);
	strategy->state = retain;
	strategy->promised_ns = limits->ns;
	return 0;
}

void retain_destroy(struct strategy *strategy)
{
	free(strategy->state);
}

/* --- eviction --- */

/* What may go together with another: what overlaps [first, last] and is not newer than `newest`. */
struct reach {
	uint64_t first, last, newest;
};

static bool may_go(const struct mapping *m, const struct reach *reach)
{
	return m && m->state == MAPPING_RETAINED && m->word <= reach->newest &&
	       m->iova <= reach->last && m->last >= reach->first;
}

/* Unmap the RETAINED record, and its neighbours that may go, in one call, and release what the
 * hardware no longer has. Returns the end of the run in *last. */
static int unmap_run(struct strategy *strategy, struct mapping *record, const struct reach *reach,
		     uint64_t *last)
{
	struct mapping *first = record, *end = record, *next;
	uint64_t ignored;
	int ret;

	for (unsigned int n = 1; n < RUN; n++) {
		if (may_go(first->before, reach) && first->before->last + 1 == first->iova)
			first = first->before;
		else if (may_go(end->next, reach) && end->last + 1 == end->next->iova)
			end = end->next;
		else
			break;
	}
	*last = end->last;
	ret = ioas_unmap_stale(strategy->ioas, first->iova, end->last - first->iova + 1, &ignored);
	for (struct mapping *m = first; m; m = next) {
		next = m == end ? NULL : m->next;
		if (!ret || !ioas_mapped_in(strategy->ioas, m->iova, m->last, &ignored))
			strategy_release(strategy, m);
		else
			strategy_refused(strategy, m);
	}
	return ret;
}

/* Unmap what is not newer than `newest`, the oldest first, until so many records are released. What
 * the hardware refuses becomes newer. */
static int evict(struct strategy *strategy, uint64_t newest, uint64_t max)
{
	const struct reach reach = {.last = UINT64_MAX, .newest = newest};
	uint64_t before = strategy->n_retained, ignored;
	struct mapping *record;
	int ret = 0, code;

	while ((record = strategy_oldest(strategy)) && record->word <= newest &&
	       before - strategy->n_retained < max) {
		code = unmap_run(strategy, record, &reach, &ignored);
		ret = ret ? ret : code;
	}
	return ret;
}

/* By how much `more` would exceed the limit. */
static uint64_t excess(uint64_t now, uint64_t more, uint64_t limit)
{
	return more > limit - MIN(now, limit) ? more - (limit - MIN(now, limit)) : 0;
}

/* Evict as many of the oldest as make room. False: there is none. */
static bool make_room(struct strategy *strategy, uint64_t mappings, uint64_t bytes)
{
	const struct retain *retain = strategy->state;
	const struct retain_limits *limits = &retain->limits;
	uint64_t more = excess(strategy->n_retained, mappings, limits->mappings);
	uint64_t more_bytes = excess(strategy->retained_bytes, bytes, limits->bytes);
	uint64_t newest = 0;

	if (strategy->leaving || mappings > limits->mappings || bytes > limits->bytes)
		return false;
	if (!more && !more_bytes)
		return true;
	list_for_each (item, &strategy->retained) {
		const struct mapping *m = container_of(item, struct mapping, link);

		if (!more && !more_bytes)
			break;
		newest = m->word;
		more -= MIN(more, 1u);
		more_bytes -= MIN(more_bytes, m->last - m->iova + 1);
	}
	return !evict(strategy, newest, UINT64_MAX);
}

/* --- time --- */

/* Ask for the tick that the oldest record needs, if it was not asked for. */
static void ask(struct strategy *strategy)
{
	const struct mapping *oldest = strategy_oldest(strategy);
	struct retain *retain = strategy->state;
	uint64_t due_ns, now_ns;

	if (!oldest || retain->limits.ns == STRATEGY_NEVER)
		return;
	due_ns = oldest->word;
	if (strategy->n_retained < retain->limits.early_mappings)
		due_ns += retain->limits.ns;
	if (retain->tick_ns && retain->tick_ns <= due_ns)
		return;
	now_ns = ioas_now(strategy->ioas);
	retain->tick_ns = due_ns;
	strategy_wake(strategy, due_ns - MIN(due_ns, now_ns));
}

/* Another strategy is to take over. What the hardware refuses is asked for again later. */
static void leave(struct strategy *strategy)
{
	uint64_t before = strategy->n_retained;

	(void)evict(strategy, strategy->last_word, SLICE);
	if (strategy->n_retained)
		strategy_wake(strategy, strategy->n_retained < before ? 0 : RETRY_NS);
}

void retain_tick(struct strategy *strategy)
{
	struct retain *retain = strategy->state;
	uint64_t now_ns = ioas_now(strategy->ioas), age_ns;

	if (strategy->leaving) {
		retain->tick_ns = 0;
		leave(strategy);
		return;
	}
	if (!retain->tick_ns) {
		ask(strategy);
		return;
	}
	if (now_ns < retain->tick_ns) {
		strategy_wake(strategy, retain->tick_ns - now_ns);
		return;
	}
	retain->tick_ns = 0;
	age_ns = retain->limits.ns - retain->limits.early_ns;
	(void)evict(strategy, now_ns - MIN(now_ns, age_ns), SLICE);
	ask(strategy);
}

/* --- requests --- */

void retain_map(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0, count; i < n; i += count) {
		for (count = 0; i + count < n && !requests[i + count].record->word; count++)
			;
		if (count) {
			strict_map(strategy, &requests[i], count);
			continue;
		}
		strategy_reuse(strategy, requests[i].record);
		count = 1;
	}
}

/* Unmap the GOING records of the request; what is retained between them goes first. */
static void unmap_now(struct strategy *strategy, struct hw_request *r)
{
	(void)retain_flush(strategy, r->iova, r->last);
	strict_unmap(strategy, r, 1);
}

void retain_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct hw_request *r = &requests[i];
		struct mapping *first = mappings_find(strategy->guest, r->iova, r->last);
		uint64_t records = 0;

		for (const struct mapping *m = first; m; m = mappings_next(m, r->last))
			records += m->state == MAPPING_GOING;
		if (!make_room(strategy, records, r->bytes)) {
			unmap_now(strategy, r);
			continue;
		}
		for (struct mapping *m = first; m; m = mappings_next(m, r->last)) {
			if (m->state == MAPPING_GOING)
				strategy_retain(strategy, m);
		}
	}
	ask(strategy);
}

int retain_flush(struct strategy *strategy, uint64_t first, uint64_t last)
{
	struct reach reach = {.first = first, .last = last, .newest = strategy->last_word};
	struct mapping *m;
	int ret = 0, code;

	if (!first && last == UINT64_MAX)
		return evict(strategy, strategy->last_word, UINT64_MAX);
	m = mappings_find(strategy->guest, first, last);
	while (m) {
		if (m->state != MAPPING_RETAINED) {
			m = mappings_next(m, last);
			continue;
		}
		code = unmap_run(strategy, m, &reach, &first);
		ret = ret ? ret : code;
		m = first < last ? mappings_find(strategy->guest, first + 1, last) : NULL;
	}
	return ret;
}
