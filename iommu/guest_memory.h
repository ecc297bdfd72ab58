/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that a guest's mapping means: may devices reach it, and where is it on the host?
 *
 * Threads: any (gmem_lookup takes no lock).
 */
#ifndef IOMMU_GUEST_MEMORY_H
#define IOMMU_GUEST_MEMORY_H

#include "core/gmem.h"
#include "iommu/ioas.h"
#include "iommu/mappings.h"

/* 0, and *hva when it is contiguous on the host, else NULL. Or the first that holds of
 *   -EFAULT   not all of [gpa, gpa + bytes) is memory that devices may reach
 *   -EPERM    to be written by the device, and a part of it is read-only */
int guest_memory_check(const struct gmem *gmem, uint64_t gpa, uint64_t bytes, unsigned int access,
		       char **hva);
/* Map a guest's record at its place, in as many areas as its memory has extents on the host: all of
 * it, or nothing and the error of ioas_map. */
int guest_memory_map(struct ioas *ioas, const struct gmem *gmem, const struct mapping *record);

#endif
