/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reserved ranges of a device: I/O addresses that mean something else than memory (the MSI window,
 * what firmware uses, holes), as its IOMMU group's reserved_regions in sysfs tell, known before
 * anything is opened. A guest's memory map is laid out around them where it can be.
 *
 * Threads: any.
 */
#ifndef IOMMU_RESERVED_H
#define IOMMU_RESERVED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct iommu_reserved {
	uint64_t first, last; /* inclusive */
	char type[20];        /* "msi", "reserved", "direct", "direct-relaxable" */
};
enum { IOMMU_RESERVED_MAX = 32 };

/* Of the device "0000:01:10.0" (its group's, in fact). How many there are, of which up to max were
 * stored, or a negative errno: -ENOENT without a group. */
int iommu_reserved_read(const char *device, struct iommu_reserved *ranges, unsigned int max);
/* The text of such a file, likewise; lines of another form do not count. */
unsigned int iommu_reserved_parse(const char *text, struct iommu_reserved *ranges,
				  unsigned int max);
/* Can nothing be mapped there? (direct-relaxable ranges are given up by the kernel when the device
 * is VFIO's.) */
bool iommu_reserved_blocks(const struct iommu_reserved *range);
/* "the MSI window", "memory that firmware gave this device (RMRR)", "a reserved range" */
const char *iommu_reserved_whose(const struct iommu_reserved *range);

#endif
