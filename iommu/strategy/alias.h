/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Aliases: guest memory that lies scattered is mapped into hospes a second time, its extents side
 * by side. The kernel maps such an alias for a device in one call, as one area, and unmaps it in
 * one.
 *
 * An alias has the same pages as the guest's memory, also after some of them were discarded. It
 * costs one memory mapping of this process per extent. All aliases of the process together take a
 * quarter of vm.max_map_count at most.
 *
 * Threads: any, for different aliases.
 * Errors: 0 or a negative errno.
 */
#ifndef IOMMU_STRATEGY_ALIAS_H
#define IOMMU_STRATEGY_ALIAS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "core/gmem.h"

struct alias_extent {
	char *hva;
	uint64_t bytes;
};

struct alias {
	struct list link;   /* the owner's */
	unsigned int users; /* the owner's */
	char *hva;
	uint64_t bytes;
	unsigned int n;
	struct alias_extent extents[];
};

/* 0 if all RAM of the guest can have aliases: it is in files, in base pages. -EOPNOTSUPP, with the
 * remedy. */
int alias_check(const struct gmem *gmem, struct err *err);
/* Extents are of guest memory, aligned to base pages, and not adjacent. -ENOSPC: the process has no
 * more memory mappings to spare. -EOPNOTSUPP: memory of another kind. -ENOMEM. */
int alias_create(struct alias **ret, const struct gmem *gmem, const struct alias_extent *extents,
		 unsigned int n);
/* Nothing uses its addresses any more. */
void alias_destroy(struct alias *alias);

#endif
