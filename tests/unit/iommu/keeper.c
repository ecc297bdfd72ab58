// SPDX-License-Identifier: Apache-2.0
// The strategy 'keeper', for tests.
#include "keeper.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"

enum { ENTRIES, TIME }; /* indices of the parameters */

struct keeper {
	uint64_t due_ns; /* then all of it goes; 0: nothing waits */
};

struct keeper_log keeper_log;

static void event(const struct strategy *strategy, char what)
{
	if (keeper_log.on_event)
		keeper_log.on_event(strategy, what);
}

static uint64_t bytes_of(const struct mapping *m)
{
	return m->last - m->iova + 1;
}

static int keeper_create(struct strategy *strategy, struct err *err)
{
	struct keeper *k;

	if (!mem_new(k))
		return err_set(err, -ENOMEM, "no memory");
	strategy->state = k;
	keeper_log.entries = strategy->values[ENTRIES];
	return 0;
}

static void keeper_destroy(struct strategy *strategy)
{
	free(strategy->state);
	keeper_log.destroyed++;
}

static int map_one(struct strategy *strategy, struct mapping *m)
{
	if (m->word) {
		strategy_reuse(strategy, m);
		keeper_log.revived++;
		return 0;
	}
	keeper_log.mapped++;
	return guest_memory_map(strategy->ioas, strategy->config->gmem, m);
}

static void keeper_map(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		requests[i].result = map_one(strategy, requests[i].record);
}

static int unmap_one(const struct strategy *strategy, const struct mapping *m)
{
	uint64_t unmapped;

	return ioas_unmap(strategy->ioas, m->iova, bytes_of(m), &unmapped);
}

static void retain(struct strategy *strategy, struct mapping *m)
{
	uint64_t wait_ns = strategy->values[TIME];
	struct keeper *k = strategy->state;

	strategy_retain(strategy, m);
	if (wait_ns == STRATEGY_NEVER || k->due_ns)
		return;
	k->due_ns = clock_ns() + wait_ns;
	strategy_wake(strategy, wait_ns);
}

static void keeper_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct hw_request *r = &requests[i];
		struct mapping *m = mappings_find(strategy->guest, r->iova, r->last);

		event(strategy, 'u');
		for (; m; m = mappings_next(m, r->last)) {
			if (m->state != MAPPING_GOING)
				continue;
			if (strategy->n_retained < strategy->values[ENTRIES])
				retain(strategy, m);
			else if (unmap_one(strategy, m))
				r->result = -EIO;
		}
		if (r->result)
			strategy_put_back(strategy, r);
	}
}

static int keeper_flush(struct strategy *strategy, uint64_t first, uint64_t last)
{
	struct mapping *m = mappings_find(strategy->guest, first, last), *next;
	int ret = 0;

	event(strategy, 'f');
	for (; m; m = next) {
		int rc = m->state == MAPPING_RETAINED ? unmap_one(strategy, m) : -EAGAIN;

		next = mappings_next(m, last);
		if (!rc)
			strategy_release(strategy, m);
		else if (rc != -EAGAIN)
			ret = rc;
	}
	return ret;
}

static void keeper_tick(struct strategy *strategy)
{
	struct keeper *k = strategy->state;
	uint64_t now_ns = clock_ns();

	keeper_log.ticks++;
	if (!k->due_ns)
		return;
	if (now_ns < k->due_ns) {
		strategy_wake(strategy, k->due_ns - now_ns);
		return;
	}
	k->due_ns = 0;
	(void)keeper_flush(strategy, 0, UINT64_MAX);
}

static const struct strategy_param params[] = {
	{.name = "entries",
	 .summary = "mappings that are retained",
	 .min = 1,
	 .max = 4096,
	 .value = 2},
	{.name = "time",
	 .summary = "for how long",
	 .unit = STRATEGY_NS,
	 .never = true,
	 .min = NS_PER_MS,
	 .max = 60 * NS_PER_S,
	 .value = STRATEGY_NEVER},
	{.name = "room",
	 .summary = "does nothing",
	 .unit = STRATEGY_BYTES,
	 .min = 4096,
	 .max = 1ull << 40,
	 .value = 64ull << 20},
	{0},
};

static const struct strategy_ops strategy_keeper = {
	.name = "keeper",
	.summary = "for tests: some mappings longer than the guest wants them",
	.params = params,
	.needs_viommu = true,
	.create = keeper_create,
	.destroy = keeper_destroy,
	.map = keeper_map,
	.unmap = keeper_unmap,
	.flush = keeper_flush,
	.tick = keeper_tick,
};

extern const struct strategy_ops strategy_direct, strategy_strict;

const struct strategy_ops *const strategies[] = {
	&strategy_direct,
	&strategy_strict,
	&strategy_keeper,
	NULL,
};
