// SPDX-License-Identifier: Apache-2.0
// Taking mappings apart: what was mapped by one call for several requests, when one of them is to go.
#include <errno.h>

#include "base/num.h"
#include "iommu/ioas_impl.h"

bool ioas_can_split(const struct ioas *ioas)
{
	return ioas->iommu->ops->split != NULL;
}

/* Where the piece that begins at iova ends. */
static uint64_t piece_end(const struct mapping *whole, const struct mappings *at, uint64_t iova)
{
	const struct mapping *next = mappings_find(at, iova, whole->last);

	if (!next)
		return whole->last;
	return next->iova > iova ? next->iova - 1 : MIN(next->last, whole->last);
}

static int cut(const struct mapping *whole, const struct mappings *at, struct mappings *finer)
{
	uint64_t iova = whole->iova, last;

	for (;;) {
		struct mapping *piece;
		int ret;

		last = piece_end(whole, at, iova);
		ret = mappings_insert(finer, iova, last, &piece);
		if (ret)
			return ret;
		piece->gpa = whole->gpa;
		if (piece->gpa != UINT64_MAX)
			piece->gpa += iova - whole->iova;
		piece->hva = whole->hva + (iova - whole->iova);
		piece->access = whole->access;
		piece->shared = whole->shared;
		if (last == whole->last)
			return 0;
		iova = last + 1;
	}
}

static int cut_all(const struct ioas *ioas, const struct mappings *at, struct mappings *finer)
{
	const struct mapping *whole = mappings_find(&ioas->mappings, 0, UINT64_MAX);
	int ret = 0;

	while (whole && !ret) {
		ret = whole->busy ? -EBUSY : cut(whole, at, finer);
		whole = mappings_next(whole, UINT64_MAX);
	}
	return ret;
}

int ioas_split(struct ioas *ioas, const struct mappings *at)
{
	struct mappings finer;
	int ret;

	if (!ioas_can_split(ioas))
		return -EOPNOTSUPP;
	mappings_init(&finer);
	pthread_rwlock_wrlock(&ioas->calls);
	pthread_rwlock_rdlock(&ioas->lock);
	ret = cut_all(ioas, at, &finer);
	pthread_rwlock_unlock(&ioas->lock);
	if (!ret)
		ret = ioas->iommu->ops->split(ioas, &finer);
	if (!ret) {
		struct mappings before = ioas->mappings;

		pthread_rwlock_wrlock(&ioas->lock);
		ioas->mappings = finer;
		pthread_rwlock_unlock(&ioas->lock);
		finer = before;
	}
	pthread_rwlock_unlock(&ioas->calls);
	mappings_done(&finer);
	return ret;
}
