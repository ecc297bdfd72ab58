/* SPDX-License-Identifier: Apache-2.0 */
/* What strategy.c and the strategies share: each strategy is a file, declared here. */
#ifndef IOMMU_STRATEGY_IMPL_H
#define IOMMU_STRATEGY_IMPL_H

#include "iommu/strategy.h"

extern const struct strategy_ops strategy_direct, strategy_strict;

/* Map one request at its place, in as many pieces as its memory has; all of it or nothing. */
int strategy_map_one(const struct strategy *strategy, const struct iommu_request *request);

#endif
