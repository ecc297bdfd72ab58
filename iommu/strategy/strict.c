// SPDX-License-Identifier: Apache-2.0
// The strategy 'strict': the hardware has exactly what the guest has mapped. It maps before the MAP
// is acknowledged, and unmaps before the UNMAP is. Each record is a mapping of its own: the guest
// may unmap any of them, and the kernel unmaps only whole mappings. Neighbours that one batch
// unmaps are one call.
#include "iommu/strategy/strict.h"

#include <errno.h>

#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"

static int strict_create(struct strategy *strategy, struct err *err)
{
	(void)strategy;
	(void)err;
	return 0;
}

void strict_map(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	enum { TOGETHER = 32 };
	struct ioas_mapping maps[TOGETHER];
	struct hw_request *of[TOGETHER];

	for (unsigned int i = 0; i < n;) {
		unsigned int m = 0;

		for (; i < n && m < TOGETHER; i++) {
			const struct mapping *record = requests[i].record;

			if (!record->hva) {
				requests[i].result = guest_memory_map(
					strategy->ioas, strategy->config->gmem, record);
				continue;
			}
			maps[m] = (struct ioas_mapping){
				.iova = record->iova,
				.bytes = record->last - record->iova + 1,
				.memory = {.hva = record->hva, .fd = -1, .gpa = record->gpa},
				.access = record->access,
			};
			of[m++] = &requests[i];
		}
		ioas_map_all(strategy->ioas, maps, m);
		for (unsigned int j = 0; j < m; j++)
			of[j]->result = maps[j].result;
	}
}

static int unmap_range(const struct strategy *strategy, uint64_t iova, uint64_t last)
{
	uint64_t unmapped;

	return ioas_unmap(strategy->ioas, iova, last - iova + 1, &unmapped);
}

void strict_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0, count; i < n; i += count) {
		struct hw_request *r = &requests[i];
		uint64_t last = r->last;

		/* The end of 2^64 has no neighbour. */
		for (count = 1; i + count < n && last + 1 && r[count].iova == last + 1; count++)
			last = r[count].last;
		if (!unmap_range(strategy, r->iova, last))
			continue;
		/* Find the requests to blame. To unmap an unmapped range is no error. */
		for (unsigned int k = 0; k < count; k++) {
			r[k].result = unmap_range(strategy, r[k].iova, r[k].last);
			if (r[k].result)
				strategy_put_back(strategy, &r[k]);
		}
	}
}

const struct strategy_ops strategy_strict = {
	.name = "strict",
	.summary = "each guest mapping, from its MAP until its UNMAP is acknowledged",
	.needs_viommu = true,
	.is_default_with_viommu = true,
	.keeps_mappings = true,
	.create = strict_create,
	.map = strict_map,
	.unmap = strict_unmap,
};
