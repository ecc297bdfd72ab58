/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend for tests: the kernel's IOMMUFD as a table of areas in this process, with its answers
 * (Linux 6.12 and 7.3), and calls that fail when a test says so. It shares no table with what is
 * tested.
 */
#ifndef TESTS_IOMMU_FAKE_IOMMU_H
#define TESTS_IOMMU_FAKE_IOMMU_H

#include "iommu/ioas.h"

/* What fails from now on; all 0: nothing. Set it while no other thread calls. */
struct fake_iommu {
	uint64_t refuse_iova; /* the area there cannot be unmapped (-EBUSY); 0: none */
	unsigned int areas;   /* no more of them (-ENOSPC), in all spaces together; 0: no limit */
	unsigned int
		attach_after; /* that many attaches go well, then one of attach_fails does not */
	unsigned int attach_fails;
	void (*on_map)(void); /* before each map */
};
extern struct fake_iommu fake;

int fake_iommu_create(struct iommu **ret, const struct log *log, struct err *err);
/* Translate an iova as the hardware of this space: 0, or -EFAULT. */
int fake_translate(const struct ioas *ioas, uint64_t iova, unsigned int access, void **hva,
		   uint64_t *contiguous);

#endif
