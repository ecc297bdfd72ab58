/* SPDX-License-Identifier: Apache-2.0 */
/* What 'strict' does, for strategies that do the same at times: strategy_ops.map and .unmap. */
#ifndef IOMMU_STRATEGY_STRICT_H
#define IOMMU_STRATEGY_STRICT_H

#include "iommu/strategy/strategy.h"

void strict_map(struct strategy *strategy, struct hw_request *requests, unsigned int n);
/* Whatever else is mapped between the records of a request is unmapped too. */
void strict_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n);

#endif
