// SPDX-License-Identifier: Apache-2.0
// The strategy 'strict': what the guest has mapped, and nothing else, from before its request to map is
// answered until before its request to unmap is. The requests of one drain are taken together:
// neighbours become one call.
//
// The kernel unmaps only what it mapped in one call, and a guest may take back a part of what came
// together. Where the backend can take a mapping apart under running devices (soft) that is done then,
// once for the whole table, and from there on each request is a call of its own; where it cannot (type1,
// iommufd) that is so from the start. Unmapping several at once is always possible.
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"
#include "iommu/requests.h"
#include "iommu/strategy/strategy_impl.h"

struct strict {
	bool joins; /* neighbours to be mapped become one call */
};

static int strict_create(struct strategy *strategy, struct err *err)
{
	struct strict *strict;

	if (!mem_new(strict))
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->name);
	strict->joins = ioas_can_split(strategy->ioas);
	strategy->state = strict;
	return 0;
}

static void strict_destroy(struct strategy *strategy)
{
	free(strategy->state);
}

static bool follows(const struct iommu_request *r, const struct iommu_request *next)
{
	/* 0 does not follow the end of 2^64. */
	return !next->result && next->iova > r->iova && next->iova == r->iova + r->bytes;
}

/* --- map --- */

static bool continues(const struct iommu_request *r, const struct iommu_request *next)
{
	return follows(r, next) && next->access == r->access && next->gpa == r->gpa + r->bytes &&
	       next->hva == (char *)r->hva + r->bytes;
}

/* How many requests from the first on, whose memory is in one piece, are one mapping. */
static unsigned int map_run(const struct strategy *strategy, const struct iommu_request *r,
			    unsigned int n, struct ioas_mapping *ret)
{
	const struct strict *strict = strategy->state;
	unsigned int count = 1;

	*ret = (struct ioas_mapping){
		.iova = r->iova,
		.bytes = r->bytes,
		.memory = {.hva = r->hva, .fd = -1, .gpa = r->gpa},
		.access = r->access,
	};
	while (strict->joins && count < n && continues(&r[count - 1], &r[count]))
		ret->bytes += r[count++].bytes;
	return count;
}

static void strict_map(struct strategy *strategy, struct iommu_request *requests, unsigned int n)
{
	enum { TOGETHER = 32 };
	struct ioas_mapping maps[TOGETHER];
	struct {
		struct iommu_request *first;
		unsigned int n;
	} of[TOGETHER];

	for (unsigned int i = 0; i < n;) {
		unsigned int m = 0;

		for (unsigned int count; i < n && m < TOGETHER; i += count) {
			struct iommu_request *r = &requests[i];

			count = 1;
			if (r->result)
				continue;
			if (!r->hva) {
				r->result = strategy_map_one(strategy, r);
				continue;
			}
			count = map_run(strategy, r, n - i, &maps[m]);
			of[m].first = r;
			of[m++].n = count;
		}
		ioas_map_all(strategy->ioas, maps, m);
		for (unsigned int j = 0; j < m; j++) {
			struct iommu_request *r = of[j].first;

			if (of[j].n == 1)
				r->result = maps[j].result;
			else if (maps[j].result) /* one of them is to blame: it alone fails */
				for (unsigned int k = 0; k < of[j].n; k++)
					r[k].result = strategy_map_one(strategy, &r[k]);
		}
	}
}

/* --- unmap --- */

static int unmap_range(struct strategy *strategy, uint64_t iova, uint64_t bytes)
{
	struct strict *strict = strategy->state;
	uint64_t unmapped;
	int ret = ioas_unmap(strategy->ioas, iova, bytes, &unmapped);

	if (ret != -ERANGE || !strict->joins)
		return ret;
	ret = ioas_split(strategy->ioas, strategy->requests);
	if (ret)
		return ret;
	/* Who does so once would do so again, and each time costs a copy of the table. */
	strict->joins = false;
	return ioas_unmap(strategy->ioas, iova, bytes, &unmapped);
}

static void strict_unmap(struct strategy *strategy, struct iommu_request *requests, unsigned int n)
{
	for (unsigned int i = 0, count; i < n; i += count) {
		struct iommu_request *r = &requests[i];
		uint64_t bytes = r->bytes;

		count = 1;
		if (r->result)
			continue;
		while (i + count < n && follows(&r[count - 1], &r[count]))
			bytes += r[count++].bytes;
		r->result = unmap_range(strategy, r->iova, bytes);
		if (!r->result || count == 1)
			continue;
		for (unsigned int k = 0; k < count; k++)
			r[k].result = unmap_range(strategy, r[k].iova, r[k].bytes);
	}
}

const struct strategy_ops strategy_strict = {
	.name = "strict",
	.summary = "what the guest has mapped, from before it is told until before it is told",
	.needs_viommu = true,
	.keeps_requests = true,
	.create = strict_create,
	.destroy = strict_destroy,
	.map = strict_map,
	.unmap = strict_unmap,
};
