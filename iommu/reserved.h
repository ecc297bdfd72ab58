/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reserved ranges of a device: I/O addresses that memory must avoid (the MSI window, ranges of the
 * firmware, holes). They are read from reserved_regions of its IOMMU group in sysfs, before
 * anything is opened, so that the guest's memory map can leave them out.
 *
 * Threads: any. Ranges are inclusive, in bytes.
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

/* Read the ranges of the group of a device ("0000:01:10.0"). Returns their number, of which up to
 * max are stored, or a negative errno: -ENOENT without a group. */
int iommu_reserved_read(const char *device, struct iommu_reserved *ranges, unsigned int max);
/* Parse the text of such a file in the same way; lines of another form are ignored. */
unsigned int iommu_reserved_parse(const char *text, struct iommu_reserved *ranges,
				  unsigned int max);
/* Must memory avoid it? Not if it is direct-relaxable: the kernel releases those to VFIO. */
bool iommu_reserved_blocks(const struct iommu_reserved *range);
/* For messages: "the window of message-signalled interrupts", for example. */
const char *iommu_reserved_whose(const struct iommu_reserved *range);

#endif
