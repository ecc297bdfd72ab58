/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and layouts of kernel interfaces that are newer than the kernel headers of the build
 * (6.12). hospes tries them to find out whether the running kernel has them.
 */
#ifndef IOMMU_UAPI_H
#define IOMMU_UAPI_H

#include <linux/iommufd.h>
#include <linux/types.h>

/* Linux 6.13: map the memory of a file, independent of this process's mapping of it. */
struct uapi_ioas_map_file {
	__u32 size;
	__u32 flags;
	__u32 ioas_id;
	__s32 fd;
	__aligned_u64 start;
	__aligned_u64 length;
	__aligned_u64 iova;
};
#define UAPI_IOAS_MAP_FILE _IO(IOMMUFD_TYPE, 0x8f)

#endif
