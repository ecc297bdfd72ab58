/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for a test: one region more in a map of guest memory. */
#ifndef UNIT_RAM_H
#define UNIT_RAM_H

#include <criterion/criterion.h>

#include "core/gmem.h"

/* flags: enum gmem_flags. */
static inline void add_ram(struct gmem *gmem, uint64_t gpa, uint64_t size_bytes, unsigned int flags,
			   enum gmem_backing backing)
{
	const struct gmem_region_config c = {.name = "ram",
					     .gpa = gpa,
					     .size_bytes = size_bytes,
					     .backing = backing,
					     .flags = flags,
					     .numa_node = -1,
					     .fd = -1};
	struct err err = ERR_INIT;

	cr_assert_eq(gmem_begin(gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_add(gmem, &c, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

#endif
