/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a guest mapping: may devices reach it, and where is it on the host?
 *
 * Threads: any; gmem_lookup takes no lock. Errors: 0 or a negative errno.
 */
#ifndef IOMMU_GUEST_MEMORY_H
#define IOMMU_GUEST_MEMORY_H

#include "core/gmem.h"
#include "iommu/ioas.h"
#include "iommu/mappings.h"

/* 0 if devices may reach [gpa, gpa + bytes); *hva is NULL if it is not contiguous on the host. Or
 *   -EFAULT   a part of it is no memory for devices
 *   -EPERM    access includes writing, and a part of it is read-only */
int guest_memory_check(const struct gmem *gmem, uint64_t gpa, uint64_t bytes, unsigned int access,
		       char **hva);
/* Map a guest mapping, with one area per extent of its memory on the host. On failure nothing is
 * mapped, and the error is that of ioas_map. */
int guest_memory_map(struct ioas *ioas, const struct gmem *gmem, const struct mapping *record);

#endif
