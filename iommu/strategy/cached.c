// SPDX-License-Identifier: Apache-2.0
// The strategy 'cached': what the guest has mapped once stays mapped, for the next time, until a
// quota is full. Then the least recently used goes.
#include "base/clock.h"
#include "base/num.h"
#include "iommu/strategy/retain.h"

enum { QUOTA, TTL }; /* indices of the parameters */

static const struct strategy_param params[] = {
	{.name = "quota",
	 .summary = "memory that is reachable beyond what the guest has mapped, at most",
	 .unit = STRATEGY_BYTES,
	 .never = true,
	 .min = 4 * KiB,
	 .max = 16 * TiB,
	 .value = 64 * MiB},
	{.name = "ttl",
	 .summary = "how long, at most",
	 .unit = STRATEGY_NS,
	 .never = true,
	 .min = NS_PER_MS,
	 .max = 3600 * NS_PER_S,
	 .value = STRATEGY_NEVER},
	{0},
};

static int cached_create(struct strategy *strategy, struct err *err)
{
	const struct retain_limits limits = {
		.mappings = UINT64_MAX,
		.bytes = strategy->values[QUOTA],
		.ns = strategy->values[TTL],
		.early_ns = strategy->values[TTL] / 8, /* one tick for many */
		.early_mappings = UINT64_MAX,
	};

	return retain_create(strategy, &limits, err);
}

const struct strategy_ops strategy_cached = {
	.name = "cached",
	.summary = "each guest mapping, and after its UNMAP until it is the least recently used "
		   "beyond a quota",
	.params = params,
	.needs_viommu = true,
	.keeps_mappings = true,
	.create = cached_create,
	.destroy = retain_destroy,
	.map = retain_map,
	.unmap = retain_unmap,
	.flush = retain_flush,
	.tick = retain_tick,
};
