// SPDX-License-Identifier: Apache-2.0
// The memory of a guest mapping: the look-up of its extents on the host.
#include "iommu/guest_memory.h"

#include <errno.h>

#include "base/num.h"
#include "core/reclaim.h"

int guest_memory_check(const struct gmem *gmem, uint64_t gpa, uint64_t bytes, unsigned int access,
		       char **hva)
{
	struct gmem_extent extent;
	uint64_t end;

	*hva = NULL;
	if (add_overflows(gpa, bytes, &end) || reclaim_has(gmem_reclaim(gmem), gpa, bytes))
		return -EFAULT;
	for (uint64_t done = 0; done < bytes; done += MIN(extent.bytes, bytes - done)) {
		if (!gmem_lookup(gmem, gpa + done, &extent) || extent.flags & GMEM_NO_DMA)
			return -EFAULT;
		if (access & IOAS_WRITE && extent.flags & GMEM_READONLY)
			return -EPERM;
		if (!done && extent.bytes >= bytes)
			*hva = extent.hva;
	}
	return 0;
}

int guest_memory_map(struct ioas *ioas, const struct gmem *gmem, const struct mapping *record)
{
	uint64_t bytes = record->last - record->iova + 1, done = 0, unmapped;
	struct gmem_extent extent;
	int ret = 0;

	while (!ret && done < bytes) {
		struct ioas_memory memory = {.fd = -1, .gpa = record->gpa + done};
		uint64_t part;

		if (!gmem_lookup(gmem, memory.gpa, &extent)) {
			ret = -EFAULT;
			break;
		}
		memory.hva = extent.hva;
		part = MIN(extent.bytes, bytes - done);
		ret = ioas_map(ioas, record->iova + done, part, &memory, record->access);
		done += ret ? 0 : part;
	}
	if (ret && done)
		ioas_unmap(ioas, record->iova, done, &unmapped);
	return ret;
}
