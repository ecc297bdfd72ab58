// SPDX-License-Identifier: Apache-2.0
// All strategies: one line each. Tests may link a table of their own.
#include "iommu/strategy/strategy.h"

extern const struct strategy_ops strategy_direct, strategy_strict, strategy_batched,
	strategy_staged, strategy_deferred, strategy_cached, strategy_auto;

const struct strategy_ops *const strategies[] = {
	&strategy_direct,   &strategy_strict, &strategy_batched, &strategy_staged,
	&strategy_deferred, &strategy_cached, &strategy_auto,    NULL,
};
