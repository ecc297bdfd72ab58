/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's IOMMUs, and how well they isolate its devices, from sysfs and config space. Properties
 * that the kernel reports only for a bound device (IOMMU_GET_HW_INFO) are HOST_UNKNOWN here.
 *
 * Threads: no state; any thread.
 */
#ifndef HOST_IOMMU_H
#define HOST_IOMMU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "host/device.h"

enum host_known {
	HOST_NO,
	HOST_YES,
	HOST_UNKNOWN, /* the hardware can; whether the kernel uses it shows when a device is
		       * bound */
};

struct host_iommu {
	char name[32];             /* "dmar0", "ivhd0" */
	const char *kind;          /* "VT-d", "AMD-Vi", "other" */
	unsigned int address_bits; /* 0: not known */
	uint64_t page_sizes;       /* a bit each; 0: not known */
	enum host_known dirty, nesting, pasid;
	unsigned int pasid_bits;
	unsigned int devices;
};
/* In order of names, malloc'ed; none is no error. */
int host_iommu_list(struct host_iommu **ret, unsigned int *n, struct err *err);

/* Does the host remap interrupts, so that a device can raise its own only? */
bool host_interrupts_remapped(void);

enum host_isolation {
	HOST_ISOLATED,
	HOST_SHARED, /* others can be reached past the IOMMU, or look the same to it */
	HOST_NOT_TRANSLATED,
};
/* The verdict, and in a phrase why: "alone in its group", "0000:00:1c.0 above it has no ACS, …". */
enum host_isolation host_isolation_of(const struct host_device *d, char *why, unsigned int bytes);

/* Pure parsers. */
void host_iommu_vtd(struct host_iommu *ret, uint64_t cap, uint64_t ecap);
void host_iommu_amd(struct host_iommu *ret, uint64_t features);
/* Access Control Services in config space (4096 bytes, 256 for what has no extended part): is there
 * such a capability, and does it keep everything going upwards that should? */
bool host_config_acs(const uint8_t *config, unsigned int bytes, bool *on);

#endif
