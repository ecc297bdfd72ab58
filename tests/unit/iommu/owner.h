/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of hardware domains: the smallest owner of a guest's table. It does what the virtual
 * IOMMU's domain does with its records (iommu/viommu_map.c), without judging requests.
 */
#ifndef TESTS_IOMMU_OWNER_H
#define TESTS_IOMMU_OWNER_H

#include <errno.h>

#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"

struct request {
	uint64_t iova, bytes, gpa;
	unsigned int access;
	int result;
};

struct owner {
	struct mappings table;
	struct hw_domain *domain;
	struct gmem *gmem;
};

static inline void owner_sweep(struct owner *o, uint64_t first, uint64_t last)
{
	struct mapping *next, *m = mappings_find(&o->table, first, last);

	for (; m; m = next) {
		next = mappings_next(m, last);
		if (m->state == MAPPING_GOING)
			mappings_remove(&o->table, m);
	}
}

static inline int owner_insert(struct owner *o, const struct request *r, struct hw_request *ret)
{
	struct mapping *m;
	char *hva;
	int rc = guest_memory_check(o->gmem, r->gpa, r->bytes, r->access, &hva);

	if (!rc)
		rc = mappings_insert(&o->table, r->iova, r->iova + (r->bytes - 1), &m);
	if (rc)
		return rc;
	m->gpa = r->gpa;
	m->hva = hva;
	m->access = r->access;
	m->state = MAPPING_COMING;
	*ret = (struct hw_request){
		.iova = m->iova, .last = m->last, .bytes = r->bytes, .record = m};
	return 0;
}

/* All of them in one batch: how many failed. */
static inline unsigned int owner_map(struct owner *o, struct request *r, unsigned int n)
{
	struct hw_request batch[64];
	struct request *of[64];
	unsigned int m = 0, failed = 0;

	for (unsigned int i = 0; i < n; i++) {
		r[i].result = owner_insert(o, &r[i], &batch[m]);
		if (!r[i].result)
			of[m++] = &r[i];
	}
	hw_domain_map(o->domain, batch, m);
	for (unsigned int i = 0; i < m; i++) {
		of[i]->result = batch[i].result;
		if (batch[i].result)
			mappings_remove(&o->table, batch[i].record);
		else
			batch[i].record->state = MAPPING_WANTED;
	}
	for (unsigned int i = 0; i < n; i++)
		failed += r[i].result != 0;
	return failed;
}

static inline unsigned int owner_unmap(struct owner *o, struct request *r, unsigned int n)
{
	struct hw_request batch[64];
	struct request *of[64];
	unsigned int k = 0, failed = 0;

	for (unsigned int i = 0; i < n; i++) {
		uint64_t last = r[i].iova + (r[i].bytes - 1);
		struct mapping *m = mappings_find(&o->table, r[i].iova, last);
		struct hw_request hw = {0};

		r[i].result = mappings_cut(&o->table, r[i].iova, last) ? -ERANGE : 0;
		for (; m && !r[i].result; m = mappings_next(m, last)) {
			if (m->state != MAPPING_WANTED)
				continue;
			m->state = MAPPING_GOING;
			hw.iova = hw.bytes ? hw.iova : m->iova;
			hw.last = m->last;
			hw.bytes += m->last - m->iova + 1;
		}
		if (!hw.bytes)
			continue;
		of[k] = &r[i];
		batch[k++] = hw;
	}
	hw_domain_unmap(o->domain, batch, k);
	for (unsigned int i = 0; i < k; i++) {
		of[i]->result = batch[i].result;
		owner_sweep(o, batch[i].iova, batch[i].last);
	}
	for (unsigned int i = 0; i < n; i++)
		failed += r[i].result != 0;
	return failed;
}

#endif
