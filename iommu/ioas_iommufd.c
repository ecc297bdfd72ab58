// SPDX-License-Identifier: Apache-2.0
// The backend for IOMMUFD and VFIO character devices.
//
// A device is attached to an IOAS by its id; the kernel makes the hardware's table. A second attach
// replaces the first one atomically. Tables with dirty tracking (HWPTs) are made only on demand,
// and devices are moved to them in the same way.
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <string.h>

#include "base/fd.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"
#include "iommu/uapi.h"

/* VT-d, 11.4.2: capability register, second-stage large page support. */
#define VTD_CAP_SLLPS_2M (1ull << 34)
#define VTD_CAP_SLLPS_1G (1ull << 35)

static int call(const struct iommu *iommu, unsigned long request, void *arg)
{
	return fd_ioctl(iommu->fd, request, arg);
}

static void destroy_object(const struct iommu *iommu, uint32_t id)
{
	struct iommu_destroy destroy = {.size = sizeof(destroy), .id = id};

	(void)call(iommu, IOMMU_DESTROY, &destroy);
}

/* --- /dev/iommu --- */

static int set_accounting(struct iommu *iommu, enum iommu_accounting wanted, struct err *err)
{
	struct iommu_option option = {
		.size = sizeof(option),
		.option_id = IOMMU_OPTION_RLIMIT_MODE,
		.op = IOMMU_OPTION_OP_SET,
		.val64 = wanted == IOMMU_ACCOUNT_PROCESS,
	};
	int ret;

	if (wanted != IOMMU_ACCOUNT_DEFAULT) {
		ret = call(iommu, IOMMU_OPTION, &option);
		if (ret)
			return err_set(err, ret, "iommufd: cannot count locked memory per %s: %s%s",
				       wanted == IOMMU_ACCOUNT_PROCESS ? "process" : "user",
				       err_name(ret),
				       ret == -EPERM ? "; that needs CAP_SYS_RESOURCE" : "");
	}
	option.op = IOMMU_OPTION_OP_GET;
	option.val64 = 0;
	/* Reading needs the same privilege as writing: without it the default holds. */
	ret = call(iommu, IOMMU_OPTION, &option);
	iommu->accounting = !ret && option.val64 ? IOMMU_ACCOUNT_PROCESS : IOMMU_ACCOUNT_USER;
	return 0;
}

static int iommufd_open(struct iommu *iommu, const struct iommu_config *config, struct err *err)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	int ret;

	if (config->iommufd >= 0)
		iommu->fd = fd_dup(config->iommufd);
	else
		iommu->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommu->fd < 0) {
		ret = config->iommufd >= 0 ? iommu->fd : -errno;
		iommu->fd = -1;
		if (ret == -ENOENT)
			return err_set(err, ret,
				       "no /dev/iommu: 'modprobe iommufd', or use iommu=type1 (the "
				       "kernel may lack IOMMUFD)");
		if (ret == -EACCES)
			return err_set(err, ret,
				       "/dev/iommu: permission denied; let this user open it (a "
				       "udev rule, or 'setfacl -m u:USER:rw /dev/iommu'), or pass "
				       "an open one");
		return err_set(err, ret, "/dev/iommu: %s", err_name(ret));
	}
	/* The caller may have passed another kind of file. */
	ret = call(iommu, IOMMU_IOAS_ALLOC, &alloc);
	if (ret == -ENOTTY)
		return err_set(err, -EINVAL, "fd %d is not /dev/iommu", config->iommufd);
	if (ret)
		return err_set(err, ret, "/dev/iommu: IOAS_ALLOC: %s", err_name(ret));
	destroy_object(iommu, alloc.out_ioas_id);
	return set_accounting(iommu, config->accounting, err);
}

static void iommufd_close(struct iommu *iommu)
{
	fd_close(&iommu->fd);
}

/* --- devices --- */

static int explain_bind(const struct iommu_endpoint *endpoint, int code, int fd, struct err *err)
{
	char holder[100];

	switch (code) {
	case -EBUSY:
		return err_set(
			err, code,
			"the device, or another of its IOMMU group, is in use%s; bind all of "
			"the group to vfio-pci and end who uses it",
			iommu_holder(endpoint, fd, holder, sizeof(holder)));
	case -EINVAL:
		return err_set(err, code,
			       "the kernel does not give this device away: it is in use already%s, "
			       "or its IOMMU does not keep caches coherent",
			       iommu_holder(endpoint, fd, holder, sizeof(holder)));
	case -EPERM:
		return err_set(err, code,
			       "the host cannot keep this device's interrupts apart (no interrupt "
			       "remapping); turn it on in the firmware, or accept the risk with "
			       "'modprobe iommufd allow_unsafe_interrupts=1'");
	case -ENOTTY:
		return err_set(err, -EINVAL, "fd %d is not a VFIO device (/dev/vfio/devices/vfioN)",
			       fd);
	case -ENODEV:
		return err_set(err, code,
			       "no IOMMU stands before this device: nothing would "
			       "translate; turn the IOMMU on in the firmware and with "
			       "intel_iommu=on on the kernel's command line");
	default:
		return err_set(err, code, "cannot bind it to /dev/iommu: %s", err_name(code));
	}
}

static int iommufd_endpoint_open(struct iommu_endpoint *endpoint, int fd, struct err *err)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.iommufd = endpoint->iommu->fd,
	};
	int code = fd_ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind);

	if (code)
		return explain_bind(endpoint, code, fd, err);
	endpoint->dev_id = bind.out_devid;
	endpoint->device_fd = fd;
	return 0;
}

static void iommufd_endpoint_close(struct iommu_endpoint *endpoint)
{
	fd_close(&endpoint->device_fd);
}

static int attach_table(const struct iommu_endpoint *endpoint, uint32_t table)
{
	struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof(attach), .pt_id = table};

	return fd_ioctl(endpoint->device_fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
}

/* Attach the device to a table with dirty tracking: one that it can use, or a new one. */
static int attach_dirty_table(struct ioas *ioas, const struct iommu_endpoint *endpoint)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
		.dev_id = endpoint->dev_id,
		.pt_id = ioas->id,
	};
	int ret;

	for (unsigned int i = 0; i < ioas->table_count; i++) {
		if (!attach_table(endpoint, ioas->tables[i]))
			return 0;
	}
	if (ioas->table_count == IOAS_MAX_TABLES)
		return -ENOSPC;
	ret = call(ioas->iommu, IOMMU_HWPT_ALLOC, &alloc);
	if (ret)
		return ret == -ENOTTY || ret == -EINVAL ? -EOPNOTSUPP : ret;
	ret = attach_table(endpoint, alloc.out_hwpt_id);
	if (ret)
		destroy_object(ioas->iommu, alloc.out_hwpt_id);
	else
		ioas->tables[ioas->table_count++] = alloc.out_hwpt_id;
	return ret;
}

static int enable_dirty(const struct ioas *ioas)
{
	int ret = 0;

	for (unsigned int i = 0; i < ioas->table_count && !ret; i++) {
		struct iommu_hwpt_set_dirty_tracking set = {
			.size = sizeof(set),
			.flags = IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
			.hwpt_id = ioas->tables[i],
		};

		ret = call(ioas->iommu, IOMMU_HWPT_SET_DIRTY_TRACKING, &set);
	}
	return ret;
}

static void read_page_sizes(struct ioas *ioas, const struct iommu_endpoint *endpoint)
{
	struct iommu_hw_info_vtd vtd = {0};
	struct iommu_hw_info info = {
		.size = sizeof(info),
		.dev_id = endpoint->dev_id,
		.data_len = sizeof(vtd),
		.data_uptr = (uintptr_t)&vtd,
	};

	ioas->page_sizes = IOAS_PAGE_BYTES;
	if (call(ioas->iommu, IOMMU_GET_HW_INFO, &info) ||
	    info.out_data_type != IOMMU_HW_INFO_TYPE_INTEL_VTD)
		return;
	ioas->page_sizes |= vtd.cap_reg & VTD_CAP_SLLPS_2M ? 2 * MiB : 0;
	ioas->page_sizes |= vtd.cap_reg & VTD_CAP_SLLPS_1G ? 1 * GiB : 0;
}

/* Make map and unmap cheaper by a tenth. The kernel keeps the tables of a space in an xarray and
 * walks it at least twice for a map and an unmap. It reserves the place of the first table before
 * it fills it (Linux 6.12, iopt_table_add_domain), so the array has a node of 64 slots, and each
 * walk looks at all of them. When a second table is removed, the array shrinks to one entry. This
 * takes little time while nothing is mapped. */
static void shrink_tables(struct ioas *ioas, const struct iommu_endpoint *endpoint)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.dev_id = endpoint->dev_id,
		.pt_id = ioas->id,
	};

	if (ioas->mappings.count || !list_empty(&ioas->endpoints) || ioas->table_count)
		return;
	if (!call(ioas->iommu, IOMMU_HWPT_ALLOC, &alloc))
		destroy_object(ioas->iommu, alloc.out_hwpt_id);
}

static int iommufd_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err)
{
	/* While dirty pages are tracked, a new device is tracked too, or refused. */
	int ret = ioas->table_count ? attach_dirty_table(ioas, endpoint)
				    : attach_table(endpoint, ioas->id);

	if (!ret)
		ret = enable_dirty(ioas);
	if (ret == -EADDRINUSE)
		return ioas_explain_conflict(ioas, endpoint, err);
	if (ret == -ENOMEM || ret == -EFAULT)
		return ioas_explain(ioas, ret, 0, ioas->own_bytes, err);
	if (ret)
		return err_set(err, ret, "cannot attach it: %s", err_name(ret));
	read_page_sizes(ioas, endpoint);
	shrink_tables(ioas, endpoint);
	return 0;
}

static void iommufd_detach(struct iommu_endpoint *endpoint)
{
	struct vfio_device_detach_iommufd_pt detach = {.argsz = sizeof(detach)};
	int code = fd_ioctl(endpoint->device_fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach);

	if (code)
		log_error(endpoint->iommu->log, "iommu", "%s: cannot detach it: %s", endpoint->name,
			  err_name(code));
}

/* --- spaces --- */

static int iommufd_space_open(struct ioas *ioas, struct err *err)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct iommu_option option = {
		.size = sizeof(option),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.val64 = 0,
	};
	int ret = call(ioas->iommu, IOMMU_IOAS_ALLOC, &alloc);

	if (ret)
		return err_set(err, ret, "/dev/iommu: IOAS_ALLOC: %s", err_name(ret));
	ioas->id = alloc.out_ioas_id;
	if (!ioas->iommu->no_huge_pages)
		return 0;
	option.object_id = ioas->id;
	ret = call(ioas->iommu, IOMMU_OPTION, &option);
	if (!ret)
		return 0;
	destroy_object(ioas->iommu, ioas->id);
	return err_set(err, ret, "cannot turn huge pages off: %s%s", err_name(ret),
		       ret == -EPERM ? "; that needs CAP_SYS_ADMIN" : "");
}

static void iommufd_space_close(struct ioas *ioas)
{
	while (ioas->table_count)
		destroy_object(ioas->iommu, ioas->tables[--ioas->table_count]);
	destroy_object(ioas->iommu, ioas->id);
}

static unsigned int iommufd_usable(const struct ioas *ioas, struct ioas_range *ranges,
				   unsigned int max)
{
	struct iommu_ioas_iova_ranges get = {
		.size = sizeof(get),
		.ioas_id = ioas->id,
		.num_iovas = max,
		.allowed_iovas = (uintptr_t)ranges,
	};
	int ret;

	static_assert(sizeof(struct ioas_range) == sizeof(struct iommu_iova_range) &&
			      offsetof(struct ioas_range, last) ==
				      offsetof(struct iommu_iova_range, last),
		      "the kernel fills in our ranges");
	ret = call(ioas->iommu, IOMMU_IOAS_IOVA_RANGES, &get);
	return ret && ret != -EMSGSIZE ? 0 : get.num_iovas;
}

static int iommufd_allow(struct ioas *ioas, const struct ioas_range *ranges, unsigned int n)
{
	struct iommu_ioas_allow_iovas allow = {
		.size = sizeof(allow),
		.ioas_id = ioas->id,
		.num_iovas = n,
		.allowed_iovas = (uintptr_t)ranges,
	};

	return call(ioas->iommu, IOMMU_IOAS_ALLOW_IOVAS, &allow);
}

/* /dev/iommu implements this ioctl of VFIO too. */
static void iommufd_nothing(const struct ioas *ioas)
{
	(void)fd_ioctl(ioas->iommu->fd, VFIO_GET_API_VERSION, NULL);
}

static int iommufd_pin(struct ioas *ioas, const struct iommu_endpoint *endpoint)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.dev_id = endpoint->dev_id,
		.pt_id = ioas->id,
	};
	int ret = call(ioas->iommu, IOMMU_HWPT_ALLOC, &alloc);

	if (!ret)
		ioas->tables[ioas->table_count++] = alloc.out_hwpt_id;
	return ret == -ENOTTY ? -EOPNOTSUPP : ret;
}

/* --- mappings --- */

static uint32_t map_flags(unsigned int access)
{
	return IOMMU_IOAS_MAP_FIXED_IOVA | (access & IOAS_READ ? IOMMU_IOAS_MAP_READABLE : 0u) |
	       (access & IOAS_WRITE ? IOMMU_IOAS_MAP_WRITEABLE : 0u);
}

/* Range and alignment are checked already, so EINVAL means a reserved range. */
static int map_code(int ret)
{
	return ret == -EINVAL ? -ENOSPC : ret;
}

static int map_file(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		    const struct ioas_memory *memory, unsigned int access)
{
	struct uapi_ioas_map_file map = {
		.size = sizeof(map),
		.flags = map_flags(access),
		.ioas_id = ioas->id,
		.fd = memory->fd,
		.start = memory->fd_offset,
		.length = bytes,
		.iova = iova,
	};
	int ret = call(ioas->iommu, UAPI_IOAS_MAP_FILE, &map);

	if (ret == -ENOTTY)
		ioas->iommu->no_map_file = true;
	return ret;
}

static int iommufd_map(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		       const struct ioas_memory *memory, unsigned int access)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = map_flags(access),
		.ioas_id = ioas->id,
		.user_va = (uintptr_t)memory->hva,
		.length = bytes,
		.iova = iova,
	};
	int ret;

	if (memory->fd >= 0 && !ioas->iommu->no_map_file) {
		ret = map_file(ioas, iova, bytes, memory, access);
		/* The kernel takes memfds only; map other files by their hva. */
		if (ret != -ENOTTY && ret != -EINVAL)
			return ret;
	}
	return map_code(call(ioas->iommu, IOMMU_IOAS_MAP, &map));
}

static int iommufd_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = ioas->id,
		.iova = iova,
		.length = bytes,
	};

	return call(ioas->iommu, IOMMU_IOAS_UNMAP, &unmap);
}

static int iommufd_copy(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
			uint64_t from_iova, unsigned int access)
{
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = map_flags(access),
		.dst_ioas_id = ioas->id,
		.src_ioas_id = from->id,
		.length = bytes,
		.dst_iova = iova,
		.src_iova = from_iova,
	};

	return map_code(call(ioas->iommu, IOMMU_IOAS_COPY, &copy));
}

/* --- dirty tracking --- */

/* Move all devices back to the table that the kernel has made. */
static void drop_tables(struct ioas *ioas)
{
	list_for_each (item, &ioas->endpoints) {
		struct iommu_endpoint *endpoint = container_of(item, struct iommu_endpoint, link);
		int ret = attach_table(endpoint, ioas->id);

		if (ret)
			log_error(ioas->iommu->log, "iommu",
				  "%s: cannot leave the table with dirty tracking: %s",
				  endpoint->name, err_name(ret));
	}
	while (ioas->table_count)
		destroy_object(ioas->iommu, ioas->tables[--ioas->table_count]);
}

static int iommufd_dirty_set(struct ioas *ioas, bool on)
{
	int ret = list_empty(&ioas->endpoints) ? -ENODEV : 0;

	if (!on) {
		drop_tables(ioas);
		return 0;
	}
	list_for_each (item, &ioas->endpoints) {
		if (!ret)
			ret = attach_dirty_table(ioas,
						 container_of(item, struct iommu_endpoint, link));
	}
	if (!ret)
		ret = enable_dirty(ioas);
	if (ret)
		drop_tables(ioas);
	return ret;
}

static int iommufd_dirty_read(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t page_bytes,
			      uint64_t *bitmap)
{
	int ret = ioas->table_count ? 0 : -EINVAL;

	for (unsigned int i = 0; i < ioas->table_count && !ret; i++) {
		struct iommu_hwpt_get_dirty_bitmap get = {
			.size = sizeof(get),
			.hwpt_id = ioas->tables[i],
			.iova = iova,
			.length = bytes,
			.page_size = page_bytes,
			.data = (uintptr_t)bitmap,
		};

		ret = call(ioas->iommu, IOMMU_HWPT_GET_DIRTY_BITMAP, &get);
	}
	return ret;
}

const struct ioas_ops ioas_iommufd_ops = {
	.kind = IOMMU_IOMMUFD,
	.open = iommufd_open,
	.close = iommufd_close,
	.endpoint_open = iommufd_endpoint_open,
	.endpoint_close = iommufd_endpoint_close,
	.space_open = iommufd_space_open,
	.space_close = iommufd_space_close,
	.attach = iommufd_attach,
	.detach = iommufd_detach,
	.map = iommufd_map,
	.unmap = iommufd_unmap,
	.copy = iommufd_copy,
	.pin = iommufd_pin,
	.nothing = iommufd_nothing,
	.usable = iommufd_usable,
	.allow = iommufd_allow,
	.dirty_set = iommufd_dirty_set,
	.dirty_read = iommufd_dirty_read,
};
