/* SPDX-License-Identifier: Apache-2.0 */
/* How 'direct' maps all of guest memory, for others: functions of struct strategy_ops. */
#ifndef IOMMU_STRATEGY_DIRECT_H
#define IOMMU_STRATEGY_DIRECT_H

#include "iommu/strategy/strategy.h"

int direct_create(struct strategy *strategy, struct err *err);
void direct_destroy(struct strategy *strategy);

#endif
