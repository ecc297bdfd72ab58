// SPDX-License-Identifier: Apache-2.0
// The strategy 'deferred': an UNMAP is acknowledged at once, and the hardware loses the mapping a
// little later, with others and off the guest's path. Mapping is as in 'strict'.
#include "base/clock.h"
#include "iommu/strategy/retain.h"

enum { ENTRIES, WINDOW }; /* indices of the parameters */

static const struct strategy_param params[] = {
	{.name = "entries",
	 .summary = "mappings that are stale at most; a further UNMAP waits",
	 .min = 1,
	 .max = 65536,
	 .value = 256},
	{.name = "window",
	 .summary = "about how long one is stale",
	 .unit = STRATEGY_NS,
	 .min = NS_PER_MS,
	 .max = 10 * NS_PER_S,
	 .value = 10 * NS_PER_MS},
	{0},
};

/* All of it is to go within the window, so a tick takes whatever is there. From half of the entries
 * on it comes at once, so that the guest rarely waits. */
static int deferred_create(struct strategy *strategy, struct err *err)
{
	const struct retain_limits limits = {
		.mappings = strategy->values[ENTRIES],
		.bytes = UINT64_MAX,
		.ns = strategy->values[WINDOW],
		.early_ns = strategy->values[WINDOW],
		.early_mappings = (strategy->values[ENTRIES] + 1) / 2,
	};

	return retain_create(strategy, &limits, err);
}

const struct strategy_ops strategy_deferred = {
	.name = "deferred",
	.summary = "each guest mapping, and after its UNMAP for about a window of time",
	.params = params,
	.needs_viommu = true,
	.keeps_mappings = true,
	.create = deferred_create,
	.destroy = retain_destroy,
	.map = retain_map,
	.unmap = retain_unmap,
	.flush = retain_flush,
	.tick = retain_tick,
};
