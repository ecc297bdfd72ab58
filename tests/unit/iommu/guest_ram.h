/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: guest memory, a region at a time. */
#ifndef TESTS_IOMMU_GUEST_RAM_H
#define TESTS_IOMMU_GUEST_RAM_H

#include <criterion/criterion.h>

#include "core/gmem.h"

/* flags: enum gmem_flags */
static inline void guest_ram_add(struct gmem *gmem, const char *name, uint64_t gpa,
				 uint64_t size_bytes, unsigned int flags)
{
	struct gmem_region_config config = {
		.name = name,
		.gpa = gpa,
		.size_bytes = size_bytes,
		.backing = GMEM_MEMFD,
		.flags = flags,
		.numa_node = -1,
		.small_pages = true,
		.fd = -1,
	};
	struct err err = ERR_INIT;

	cr_assert_eq(gmem_begin(gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_add(gmem, &config, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

#endif
