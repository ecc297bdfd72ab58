/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest has asked for in a domain: its mappings, as it made them, whatever a strategy made of
 * them in the hardware. A drain of requests is judged here before a strategy sees it, so that all
 * strategies answer alike, and a strategy that takes over is told all that holds.
 *
 * Threads: the caller's lock.
 */
#ifndef IOMMU_REQUESTS_H
#define IOMMU_REQUESTS_H

#include "core/gmem.h"
#include "iommu/mappings.h"
#include "iommu/strategy.h"

/* Each request's result: 0 and recorded, or the first that holds of
 *   -EINVAL   not aligned to page_bytes, empty, past 2^64, or an access that is none
 *   -EFAULT   not all of it is memory that devices may reach
 *   -EPERM    to be written by the device, and memory that is read-only
 *   -EEXIST   the guest has a mapping there
 *   -ENOMEM */
void requests_add(struct mappings *table, const struct gmem *gmem, uint64_t page_bytes,
		  struct iommu_request *requests, unsigned int n);
/* Those that a strategy could not map leave again. */
void requests_take_back(struct mappings *table, const struct iommu_request *requests,
			unsigned int n);
/* Each request's result: 0, -EINVAL as above, or -ERANGE when it would cut a mapping that the requests
 * before it leave. Then, with what became of each: forget what was unmapped. Returns its bytes. */
void requests_check_unmap(struct mappings *table, uint64_t page_bytes,
			  struct iommu_request *requests, unsigned int n);
uint64_t requests_finish_unmap(struct mappings *table, const struct iommu_request *requests,
			       unsigned int n);
/* Forget the mappings in the range of a request. Returns their bytes. */
uint64_t requests_remove(struct mappings *table, const struct iommu_request *request);

/* Up to max of what begins at *iova or behind, ascending; *iova becomes where to go on. */
unsigned int requests_list(const struct mappings *table, uint64_t *iova,
			   struct iommu_request *requests, unsigned int max);
/* The first mapping from iova on whose memory shares a byte with [gpa, gpa + bytes). */
bool requests_find_memory(const struct mappings *table, uint64_t gpa, uint64_t bytes,
			  struct iommu_request *ret);

/* The memory of a request from `done` on, as far as it is contiguous on the host. */
bool request_extent(const struct gmem *gmem, const struct iommu_request *request, uint64_t done,
		    struct ioas_memory *memory, uint64_t *bytes);

#endif
