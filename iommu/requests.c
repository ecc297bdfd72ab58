// SPDX-License-Identifier: Apache-2.0
// What a guest has asked for in a domain, and the judgement of what it asks next.
#include "iommu/requests.h"

#include <errno.h>

#include "base/num.h"

static int check_range(const struct iommu_request *r, uint64_t page_bytes, uint64_t *last)
{
	if (!r->bytes || !is_aligned(r->iova | r->bytes, page_bytes) ||
	    add_overflows(r->iova, r->bytes - 1, last))
		return -EINVAL;
	return 0;
}

bool request_extent(const struct gmem *gmem, const struct iommu_request *request, uint64_t done,
		    struct ioas_memory *memory, uint64_t *bytes)
{
	struct gmem_extent piece;

	if (!gmem_lookup(gmem, request->gpa + done, &piece))
		return false;
	*memory = (struct ioas_memory){
		.hva = piece.hva,
		.fd = -1,
		.gpa = request->gpa + done,
	};
	*bytes = MIN(piece.bytes, request->bytes - done);
	return true;
}

static int check_memory(const struct gmem *gmem, struct iommu_request *r)
{
	struct gmem_extent piece;
	uint64_t ignored;

	r->hva = NULL;
	if (add_overflows(r->gpa, r->bytes - 1, &ignored))
		return -EINVAL;
	for (uint64_t done = 0; done < r->bytes; done += piece.bytes) {
		if (!gmem_lookup(gmem, r->gpa + done, &piece) || piece.flags & GMEM_NO_DMA)
			return -EFAULT;
		if (r->access & IOAS_WRITE && piece.flags & GMEM_READONLY)
			return -EPERM;
		if (piece.bytes < r->bytes - done)
			continue;
		if (!done)
			r->hva = piece.hva;
		break;
	}
	return 0;
}

static int add_one(struct mappings *table, const struct gmem *gmem, uint64_t page_bytes,
		   struct iommu_request *r)
{
	unsigned int known = IOAS_READ | IOAS_WRITE;
	struct mapping *mapping;
	uint64_t last = 0;
	int ret = check_range(r, page_bytes, &last);

	if (!ret && (!is_aligned(r->gpa, page_bytes) || !r->access || r->access & ~known))
		ret = -EINVAL;
	if (!ret)
		ret = check_memory(gmem, r);
	if (!ret)
		ret = mappings_insert(table, r->iova, last, &mapping);
	if (ret)
		return ret;
	mapping->gpa = r->gpa;
	mapping->access = r->access;
	return 0;
}

void requests_add(struct mappings *table, const struct gmem *gmem, uint64_t page_bytes,
		  struct iommu_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		requests[i].result = add_one(table, gmem, page_bytes, &requests[i]);
		/* From here on a result tells of the strategy: what was refused is out of it. */
		requests[i].recorded = !requests[i].result;
	}
}

void requests_take_back(struct mappings *table, const struct iommu_request *requests,
			unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (requests[i].result && requests[i].recorded)
			requests_remove(table, &requests[i]);
	}
}

/* Does it stick out of the range, and is it not about to go by a request before this one? */
static bool is_cut(const struct mapping *mapping, uint64_t first, uint64_t last)
{
	return mapping && !mapping->busy && (mapping->iova < first || mapping->last > last);
}

static void mark(struct mappings *table, uint64_t first, uint64_t last, bool going)
{
	for (struct mapping *m = mappings_find(table, first, last); m; m = mappings_next(m, last))
		m->busy = going;
}

void requests_check_unmap(struct mappings *table, uint64_t page_bytes,
			  struct iommu_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct iommu_request *r = &requests[i];
		uint64_t last = 0;

		r->result = check_range(r, page_bytes, &last);
		if (r->result)
			continue;
		if (is_cut(mappings_find(table, r->iova, last), r->iova, last) ||
		    is_cut(mappings_find(table, last, last), r->iova, last))
			r->result = -ERANGE;
		else
			mark(table, r->iova, last, true);
	}
}

uint64_t requests_finish_unmap(struct mappings *table, const struct iommu_request *requests,
			       unsigned int n)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (!requests[i].result)
			bytes += requests_remove(table, &requests[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		uint64_t last;

		if (requests[i].result && !check_range(&requests[i], 1, &last))
			mark(table, requests[i].iova, last, false);
	}
	return bytes;
}

uint64_t requests_remove(struct mappings *table, const struct iommu_request *request)
{
	uint64_t last = request->iova + (request->bytes - 1), bytes = 0;

	for (struct mapping *next, *m = mappings_find(table, request->iova, last); m; m = next) {
		next = mappings_next(m, last);
		bytes += m->last - m->iova + 1;
		mappings_remove(table, m);
	}
	return bytes;
}

static void describe(const struct mapping *mapping, struct iommu_request *ret)
{
	*ret = (struct iommu_request){
		.iova = mapping->iova,
		.bytes = mapping->last - mapping->iova + 1,
		.gpa = mapping->gpa,
		.access = mapping->access,
	};
}

unsigned int requests_list(const struct mappings *table, uint64_t *iova,
			   struct iommu_request *requests, unsigned int max)
{
	const struct mapping *mapping;
	unsigned int n = 0;

	while (n < max && (mapping = mappings_find(table, *iova, UINT64_MAX))) {
		if (mapping->iova >= *iova)
			describe(mapping, &requests[n++]);
		/* The end of 2^64: nothing lies behind it, and 0 would begin again. */
		if (mapping->last == UINT64_MAX) {
			*iova = UINT64_MAX;
			break;
		}
		*iova = mapping->last + 1;
	}
	return n;
}

bool requests_find_memory(const struct mappings *table, uint64_t gpa, uint64_t bytes,
			  struct iommu_request *ret)
{
	uint64_t iova = 0;

	while (requests_list(table, &iova, ret, 1)) {
		if (ranges_overlap(ret->gpa, ret->bytes, gpa, bytes))
			return true;
	}
	return false;
}
