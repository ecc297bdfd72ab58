/* SPDX-License-Identifier: Apache-2.0 */
/* A hash of 64-bit words, one after the other; not against somebody who looks for collisions. */
#ifndef IOMMU_STRATEGY_HASH_H
#define IOMMU_STRATEGY_HASH_H

#include <stdint.h>

static inline uint64_t hash_mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 29;
}

#endif
