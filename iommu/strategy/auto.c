// SPDX-License-Identifier: Apache-2.0
// The strategy 'auto': its name and parameters. The choice is policy.c's.
#include "base/num.h"
#include "iommu/strategy/policy.h"

static const struct strategy_param params[] = {
	{.name = "ceiling",
	 .summary = "memory that is reachable beyond what the guest has mapped, at most",
	 .unit = STRATEGY_BYTES,
	 .min = 4 * KiB,
	 .max = 16 * TiB,
	 .value = 64 * MiB},
	{.name = "cpu",
	 .summary = "share of one CPU up to which mapping may cost more, so that less is reachable",
	 .unit = STRATEGY_PERCENT,
	 .max = 100,
	 .value = 5},
	{0},
};

const struct strategy_ops strategy_auto = {
	.name = "auto",
	.summary = "as strict, batched, deferred or cached, whichever the load needs; never more "
		   "than a ceiling beyond what the guest has mapped",
	.params = params,
	.needs_viommu = true,
	.is_policy = true,
};
