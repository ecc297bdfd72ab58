// SPDX-License-Identifier: Apache-2.0
// Calls of VFIO, each with its protocol of sizes.
#include "passthrough/vfio_calls.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"

static int fd_of(void *opaque)
{
	return ((const struct vfio_file *)opaque)->fd;
}

static int real_ioctl(void *opaque, unsigned long request, void *arg)
{
	return fd_ioctl(fd_of(opaque), request, arg);
}

static ssize_t real_pread(void *opaque, void *buf, size_t len, uint64_t offset)
{
	ssize_t n = pread(fd_of(opaque), buf, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static ssize_t real_pwrite(void *opaque, const void *buf, size_t len, uint64_t offset)
{
	ssize_t n = pwrite(fd_of(opaque), buf, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static int real_map(void *opaque, void *hva, uint64_t bytes, uint64_t offset, int prot)
{
	void *p = mmap(hva, bytes, prot, MAP_SHARED | MAP_FIXED, fd_of(opaque), (off_t)offset);

	return p == MAP_FAILED ? -errno : 0;
}

void vfio_file_init(struct vfio_file *file, int fd)
{
	static const struct vfio_file_ops ops = {
		.ioctl = real_ioctl,
		.pread = real_pread,
		.pwrite = real_pwrite,
		.map = real_map,
	};

	file->ops = &ops;
	file->opaque = file;
	file->fd = fd;
}

static int call(const struct vfio_file *file, unsigned long request, void *arg)
{
	return file->ops->ioctl(file->opaque, request, arg);
}

int vfio_get_info(const struct vfio_file *file, struct vfio_device_info *ret)
{
	*ret = (struct vfio_device_info){.argsz = sizeof(*ret)};
	return MIN(call(file, VFIO_DEVICE_GET_INFO, ret), 0);
}

static void add_area(struct vfio_region *r, uint64_t offset, uint64_t bytes)
{
	if (r->n_areas < VFIO_MAX_AREAS && range_inside(offset, bytes, 0, r->bytes))
		r->areas[r->n_areas++] = (struct vfio_area){offset, bytes};
}

static void read_sparse(struct vfio_region *r, const uint8_t *info, uint32_t at, uint32_t size)
{
	struct vfio_region_info_cap_sparse_mmap head;
	struct vfio_region_sparse_mmap_area area;

	if (size - at < sizeof(head))
		return;
	memcpy(&head, &info[at], sizeof(head));
	at += (uint32_t)sizeof(head);
	for (uint32_t i = 0; i < head.nr_areas && size - at >= sizeof(area); i++) {
		memcpy(&area, &info[at], sizeof(area));
		at += (uint32_t)sizeof(area);
		add_area(r, area.offset, area.size);
	}
}

/* Capabilities of the info are chained by offsets from its start. Returns whether areas are
 * listed. */
static bool read_caps(struct vfio_region *r, const uint8_t *info, uint32_t at, uint32_t size)
{
	struct vfio_info_cap_header head;
	uint32_t last = 0;

	while (at > last && at < size && size - at >= sizeof(head)) {
		memcpy(&head, &info[at], sizeof(head));
		if (head.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
			read_sparse(r, info, at, size);
			return true;
		}
		last = at;
		at = head.next;
	}
	return false;
}

int vfio_get_region(const struct vfio_file *file, unsigned int index, struct vfio_region *ret)
{
	struct vfio_region_info head = {.argsz = sizeof(head), .index = index};
	cleanup_free uint8_t *info = NULL;
	bool sparse = false;
	uint32_t size;
	int r = call(file, VFIO_DEVICE_GET_REGION_INFO, &head);

	memset(ret, 0, sizeof(*ret));
	if (r < 0)
		return r;
	size = head.argsz;
	if (head.flags & VFIO_REGION_INFO_FLAG_CAPS && size > sizeof(head)) {
		info = calloc(1, size);
		if (!info)
			return -ENOMEM;
		head = (struct vfio_region_info){.argsz = size, .index = index};
		memcpy(info, &head, sizeof(head));
		r = call(file, VFIO_DEVICE_GET_REGION_INFO, info);
		if (r < 0)
			return r;
		memcpy(&head, info, sizeof(head));
	}
	ret->flags = head.flags;
	ret->bytes = head.size;
	ret->offset = head.offset;
	if (!(head.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return 0;
	if (info && head.flags & VFIO_REGION_INFO_FLAG_CAPS)
		sparse = read_caps(ret, info, head.cap_offset, size);
	if (!sparse)
		add_area(ret, 0, ret->bytes);
	return 0;
}

int vfio_get_irq(const struct vfio_file *file, unsigned int index, struct vfio_irq_info *ret)
{
	*ret = (struct vfio_irq_info){.argsz = sizeof(*ret), .index = index};
	return MIN(call(file, VFIO_DEVICE_GET_IRQ_INFO, ret), 0);
}

int vfio_set_irqs(const struct vfio_file *file, unsigned int index, uint32_t flags,
		  unsigned int start, unsigned int count, const int32_t *fds)
{
	_Alignas(struct vfio_irq_set)
		uint8_t arg[sizeof(struct vfio_irq_set) + VFIO_MAX_VECTORS * sizeof(int32_t)];
	size_t bytes = fds ? count * sizeof(int32_t) : 0;
	struct vfio_irq_set head = {
		.argsz = (uint32_t)(sizeof(head) + bytes),
		.flags = flags,
		.index = index,
		.start = start,
		.count = count,
	};

	assert(count <= VFIO_MAX_VECTORS);
	memcpy(arg, &head, sizeof(head));
	if (fds)
		memcpy(&arg[sizeof(head)], fds, bytes);
	return MIN(call(file, VFIO_DEVICE_SET_IRQS, arg), 0);
}

int vfio_disable_irqs(const struct vfio_file *file, unsigned int index)
{
	return vfio_set_irqs(file, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0,
			     0, NULL);
}

int vfio_read(const struct vfio_file *file, const struct vfio_region *region, uint64_t offset,
	      void *buf, unsigned int len)
{
	ssize_t n;

	if (!range_inside(offset, len, 0, region->bytes))
		return -EINVAL;
	n = file->ops->pread(file->opaque, buf, len, region->offset + offset);
	return n < 0 ? (int)n : (size_t)n == len ? 0 : -EIO;
}

int vfio_write(const struct vfio_file *file, const struct vfio_region *region, uint64_t offset,
	       const void *buf, unsigned int len)
{
	ssize_t n;

	if (!range_inside(offset, len, 0, region->bytes))
		return -EINVAL;
	n = file->ops->pwrite(file->opaque, buf, len, region->offset + offset);
	return n < 0 ? (int)n : (size_t)n == len ? 0 : -EIO;
}
