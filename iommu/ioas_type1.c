// SPDX-License-Identifier: Apache-2.0
// The backend for VFIO containers (type1 v2): one container per space, which holds the groups of
// the attached devices. It serves kernels without IOMMUFD, and comparison.
//
// A container has a table only while a group is in it; without one nothing can be mapped. A group
// can leave only after its devices are closed. So attach opens a device and detach closes it, and a
// running device cannot move to another space.
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"

static int open_container(struct err *err)
{
	int fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	int code;

	if (fd < 0) {
		code = -errno;
		return err_set(err, code, "/dev/vfio/vfio: %s%s", err_name(code),
			       code == -ENOENT   ? "; 'modprobe vfio-pci' makes it"
			       : code == -EACCES ? "; let this user open it (chmod, or a udev rule)"
						 : "");
	}
	if (fd_ioctl(fd, VFIO_GET_API_VERSION, NULL) != VFIO_API_VERSION) {
		fd_close(&fd);
		return err_set(err, -EOPNOTSUPP,
			       "/dev/vfio/vfio does not speak version %d of VFIO's interface",
			       VFIO_API_VERSION);
	}
	return fd;
}

static int type1_open(struct iommu *iommu, const struct iommu_config *config, struct err *err)
{
	int fd;

	if (config->no_huge_pages)
		return err_set(err, -EOPNOTSUPP,
			       "type1 turns huge pages off for the whole host only: 'modprobe "
			       "vfio_iommu_type1 disable_hugepages=1', or use iommu=iommufd");
	if (config->accounting == IOMMU_ACCOUNT_USER)
		return err_set(err, -EOPNOTSUPP,
			       "type1 counts locked memory per process only; use iommu=iommufd");
	iommu->accounting = IOMMU_ACCOUNT_PROCESS;
	fd = open_container(err);
	if (fd < 0)
		return fd;
	fd_close(&fd);
	return 0;
}

static void type1_close(struct iommu *iommu)
{
	assert(list_empty(&iommu->groups));
}

/* --- groups --- */

/* Check the kind of the group. A no-IOMMU group shows only when it is put into a container. */
static int check_group(const struct iommu_endpoint *endpoint, int fd, struct err *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	cleanup_fd int container = -1;
	char holder[100];
	int code = fd_ioctl(fd, VFIO_GROUP_GET_STATUS, &status);

	if (code)
		return err_set(err, -EINVAL, "fd %d is not a VFIO group (/dev/vfio/N): %s", fd,
			       err_name(code));
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return err_set(err, -EBUSY,
			       "its IOMMU group is not free: another device of the group has a "
			       "host driver; bind every device of the group to vfio-pci");
	container = open_container(err);
	if (container < 0)
		return container;
	code = fd_ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container);
	if (code) {
		if (code == -EPERM)
			return err_set(err, code,
				       "no IOMMU stands before this device (VFIO's no-IOMMU mode), "
				       "so nothing would translate guest addresses; turn the IOMMU "
				       "on in the firmware and on the kernel's command line");
		return err_set(err, code == -EINVAL ? -EBUSY : code,
			       "its IOMMU group is in a container already%s",
			       iommu_holder(endpoint, fd, holder, sizeof(holder)));
	}
	if (fd_ioctl(container, VFIO_CHECK_EXTENSION, (void *)VFIO_TYPE1v2_IOMMU) <= 0)
		code = err_set(err, -EOPNOTSUPP,
			       "no IOMMU stands before this device (VFIO's no-IOMMU mode), so "
			       "nothing would translate guest addresses; turn the IOMMU on in the "
			       "firmware and on the kernel's command line");
	fd_ioctl(fd, VFIO_GROUP_UNSET_CONTAINER, NULL);
	return code;
}

static struct vfio_group *find_group(struct iommu *iommu, uint64_t rdev)
{
	list_for_each (item, &iommu->groups) {
		struct vfio_group *group = container_of(item, struct vfio_group, link);

		if (group->rdev == rdev)
			return group;
	}
	return NULL;
}

static int type1_endpoint_open(struct iommu_endpoint *endpoint, int fd, struct err *err)
{
	struct vfio_group *group;
	struct stat st;
	int ret;

	if (fstat(fd, &st))
		return err_set(err, -errno, "fd %d: %s", fd, err_name(errno));
	group = find_group(endpoint->iommu, st.st_rdev);
	if (group) {
		fd_close(&fd);
		group->endpoints++;
		endpoint->group = group;
		return 0;
	}
	ret = check_group(endpoint, fd, err);
	if (ret)
		return ret;
	if (!mem_new(group))
		return err_set(err, -ENOMEM, "out of memory");
	group->fd = fd;
	group->rdev = st.st_rdev;
	group->endpoints = 1;
	list_append(&endpoint->iommu->groups, &group->link);
	endpoint->group = group;
	return 0;
}

static void type1_endpoint_close(struct iommu_endpoint *endpoint)
{
	struct vfio_group *group = endpoint->group;

	if (--group->endpoints)
		return;
	fd_close(&group->fd);
	list_remove(&group->link);
	free(group);
}

/* --- attach --- */

static int no_remapping(int code, struct err *err)
{
	return err_set(
		err, code,
		"the host cannot keep this device's interrupts apart (no interrupt remapping); "
		"turn it on in the firmware, or accept the risk with 'modprobe "
		"vfio_iommu_type1 allow_unsafe_interrupts=1'");
}

static int enter_container(struct ioas *ioas, const struct iommu_endpoint *endpoint,
			   struct err *err)
{
	int code = fd_ioctl(endpoint->group->fd, VFIO_GROUP_SET_CONTAINER, &ioas->container);

	if (code) {
		if (code == -EINVAL && ioas->has_iommu)
			return ioas_explain_conflict(ioas, endpoint, err);
		if (code == -EPERM)
			return no_remapping(code, err);
		if (code == -ENOMEM || code == -EFAULT)
			return ioas_explain(ioas, code, 0, ioas->own_bytes, err);
		return err_set(err, code, "its group cannot join the container: %s",
			       err_name(code));
	}
	if (ioas->has_iommu)
		return 0;
	code = fd_ioctl(ioas->container, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU);
	if (code) {
		fd_ioctl(endpoint->group->fd, VFIO_GROUP_UNSET_CONTAINER, NULL);
		if (code == -EPERM)
			return no_remapping(code, err);
		return err_set(err, code, "no type1 address space for it: %s", err_name(code));
	}
	ioas->has_iommu = true;
	return 0;
}

static struct vfio_iommu_type1_info *get_info(const struct ioas *ioas);

static void read_page_sizes(struct ioas *ioas)
{
	cleanup_free struct vfio_iommu_type1_info *info = get_info(ioas);

	/* The kernel maps host pages, even if the table has smaller ones. */
	if (info && (info->flags & VFIO_IOMMU_INFO_PGSIZES))
		ioas->page_sizes =
			(info->iova_pgsizes & -(uint64_t)IOAS_PAGE_BYTES) | IOAS_PAGE_BYTES;
}

/* The group leaves the container; the table ends with the last group. */
static void leave_container(struct iommu_endpoint *endpoint)
{
	struct vfio_group *group = endpoint->group;
	struct ioas *ioas = group->ioas;
	bool others = false;
	int code;

	group->ioas = NULL;
	list_for_each (item, &ioas->iommu->groups)
		others |= container_of(item, struct vfio_group, link)->ioas == ioas;
	code = fd_ioctl(group->fd, VFIO_GROUP_UNSET_CONTAINER, NULL);
	if (!code) {
		ioas->has_iommu = others;
		return;
	}
	/* A region of the device is still mapped somewhere. It must reach nothing all the same: if
	 * it is alone in the container, unmap everything and abandon the container. */
	log_error(ioas->iommu->log, "iommu", "%s: its group cannot leave its container: %s%s",
		  endpoint->name, err_name(code),
		  others ? "; until its regions are unmapped it reaches what the others reach"
			 : "");
	if (!others) {
		struct vfio_iommu_type1_dma_unmap unmap = {
			.argsz = sizeof(unmap),
			.flags = VFIO_DMA_UNMAP_FLAG_ALL,
		};

		fd_ioctl(ioas->container, VFIO_IOMMU_UNMAP_DMA, &unmap);
		fd_close(&ioas->container);
		ioas->has_iommu = false;
	}
}

static int type1_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err)
{
	struct vfio_group *group = endpoint->group;
	bool enters = !group->ioas;
	int ret = 0;

	if (endpoint->ioas)
		return err_set(err, -EOPNOTSUPP,
			       "type1 cannot move a device to another address space while it runs; "
			       "use iommu=iommufd");
	if (group->ioas && group->ioas != ioas)
		return err_set(err, -EBUSY,
			       "another device of its IOMMU group is in address space '%s', and "
			       "type1 keeps a group together; give both the same ioas=",
			       group->ioas->name);
	if (ioas->container < 0) {
		ret = open_container(err);
		if (ret < 0)
			return ret;
		ioas->container = ret;
	}
	ret = enters ? enter_container(ioas, endpoint, err) : 0;
	if (ret)
		return ret;
	group->ioas = ioas;
	endpoint->device_fd = fd_ioctl(group->fd, VFIO_GROUP_GET_DEVICE_FD, endpoint->name);
	if (endpoint->device_fd < 0) {
		ret = err_set(err, endpoint->device_fd,
			      "VFIO does not open it: %s; is it in this group, and bound to "
			      "vfio-pci?",
			      err_name(endpoint->device_fd));
		endpoint->device_fd = -1;
		if (enters)
			leave_container(endpoint);
		return ret;
	}
	group->attached++;
	read_page_sizes(ioas);
	return 0;
}

static void type1_detach(struct iommu_endpoint *endpoint)
{
	fd_close(&endpoint->device_fd);
	if (!--endpoint->group->attached)
		leave_container(endpoint);
}

/* --- spaces --- */

static int type1_space_open(struct ioas *ioas, struct err *err)
{
	ioas->container = open_container(err);
	return ioas->container < 0 ? ioas->container : 0;
}

static void type1_space_close(struct ioas *ioas)
{
	fd_close(&ioas->container);
}

/* The info with its capabilities, whose length the kernel returns in argsz. NULL: unavailable. */
static struct vfio_iommu_type1_info *get_info(const struct ioas *ioas)
{
	struct vfio_iommu_type1_info *info = NULL;
	uint32_t bytes = 4096;

	while (ioas->has_iommu) {
		void *bigger = realloc(info, bytes);

		if (!bigger)
			break;
		info = bigger;
		memset(info, 0, bytes);
		info->argsz = bytes;
		if (fd_ioctl(ioas->container, VFIO_IOMMU_GET_INFO, info))
			break;
		if (info->argsz <= bytes)
			return info;
		bytes = info->argsz;
	}
	free(info);
	return NULL;
}

static const struct vfio_info_cap_header *find_cap(const struct vfio_iommu_type1_info *info,
						   uint16_t id)
{
	uint32_t at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0;

	while (at && at <= info->argsz - sizeof(struct vfio_info_cap_header)) {
		const struct vfio_info_cap_header *cap = (const void *)((const char *)info + at);

		if (cap->id == id)
			return cap;
		at = cap->next;
	}
	return NULL;
}

static unsigned int type1_usable(const struct ioas *ioas, struct ioas_range *ranges,
				 unsigned int max)
{
	cleanup_free struct vfio_iommu_type1_info *info = get_info(ioas);
	const struct vfio_iommu_type1_info_cap_iova_range *cap =
		info ? (const void *)find_cap(info, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) : NULL;

	if (!cap) {
		if (max)
			ranges[0] = (struct ioas_range){.first = 0, .last = UINT64_MAX};
		return 1;
	}
	for (uint32_t i = 0; i < MIN(cap->nr_iovas, max); i++)
		ranges[i] = (struct ioas_range){.first = cap->iova_ranges[i].start,
						.last = cap->iova_ranges[i].end};
	return cap->nr_iovas;
}

static uint64_t type1_mappings_left(const struct ioas *ioas)
{
	cleanup_free struct vfio_iommu_type1_info *info = get_info(ioas);
	const struct vfio_iommu_type1_info_dma_avail *cap =
		info ? (const void *)find_cap(info, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) : NULL;

	return cap ? cap->avail : UINT64_MAX;
}

static void type1_nothing(const struct ioas *ioas)
{
	(void)fd_ioctl(ioas->container, VFIO_GET_API_VERSION, NULL);
}

/* --- mappings --- */

static int type1_map(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (access & IOAS_READ ? VFIO_DMA_MAP_FLAG_READ : 0u) |
			 (access & IOAS_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0u),
		.vaddr = (uintptr_t)memory->hva,
		.iova = iova,
		.size = bytes,
	};
	int code;

	if (!ioas->has_iommu)
		return -ENODEV;
	code = fd_ioctl(ioas->container, VFIO_IOMMU_MAP_DMA, &map);
	/* Range and alignment are checked already, so EINVAL means a reserved range. */
	return code == -EINVAL ? -ENOSPC : code;
}

static int type1_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = bytes,
	};

	return fd_ioctl(ioas->container, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

const struct ioas_ops ioas_type1_ops = {
	.kind = IOMMU_TYPE1,
	.open = type1_open,
	.close = type1_close,
	.endpoint_open = type1_endpoint_open,
	.endpoint_close = type1_endpoint_close,
	.space_open = type1_space_open,
	.space_close = type1_space_close,
	.attach = type1_attach,
	.detach = type1_detach,
	.map = type1_map,
	.unmap = type1_unmap,
	.nothing = type1_nothing,
	.usable = type1_usable,
	.mappings_left = type1_mappings_left,
};
