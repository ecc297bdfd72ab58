/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of a VFIO device: one function per call (linux/vfio.h). The ops are the seam
 * for tests; vfio_file_init makes the real ones.
 *
 * Threads: no state of its own; the kernel serialises.
 */
#ifndef PASSTHROUGH_VFIO_CALLS_H
#define PASSTHROUGH_VFIO_CALLS_H

#include <linux/vfio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct vfio_file_ops {
	int (*ioctl)(void *opaque, unsigned long request, void *arg); /* >= 0 or -errno */
	ssize_t (*pread)(void *opaque, void *buf, size_t len, uint64_t offset);
	ssize_t (*pwrite)(void *opaque, const void *buf, size_t len, uint64_t offset);
	/* Replaces the mapping at hva; 0 or -errno. */
	int (*map)(void *opaque, void *hva, uint64_t bytes, uint64_t offset, int prot);
};

struct vfio_file {
	const struct vfio_file_ops *ops;
	void *opaque;
	int fd; /* -1 in tests */
};
/* The fd stays the caller's. */
void vfio_file_init(struct vfio_file *file, int fd);

struct vfio_area {
	uint64_t offset, bytes; /* in the region */
};

enum { VFIO_MAX_AREAS = 32 };

struct vfio_region {
	uint32_t flags;  /* VFIO_REGION_INFO_FLAG_ */
	uint64_t bytes;  /* 0: there is none */
	uint64_t offset; /* in the file */
	/* What can be mapped: all of it, the sparse areas, or nothing. Areas beyond the maximum are
	 * left out: accesses to them are trapped. */
	unsigned int n_areas;
	struct vfio_area areas[VFIO_MAX_AREAS];
};

int vfio_get_info(const struct vfio_file *file, struct vfio_device_info *ret);
int vfio_get_region(const struct vfio_file *file, unsigned int index, struct vfio_region *ret);
int vfio_get_irq(const struct vfio_file *file, unsigned int index, struct vfio_irq_info *ret);

enum { VFIO_MAX_VECTORS = 2048 };
/* flags: VFIO_IRQ_SET_ACTION_x with VFIO_IRQ_SET_DATA_EVENTFD and fds, or _DATA_NONE and NULL.
 * -errno. */
int vfio_set_irqs(const struct vfio_file *file, unsigned int index, uint32_t flags,
		  unsigned int start, unsigned int count, const int32_t *fds);
/* Disable all interrupts of the index. */
int vfio_disable_irqs(const struct vfio_file *file, unsigned int index);

/* Exactly len bytes of the region at offset; -EIO when there were fewer. */
int vfio_read(const struct vfio_file *file, const struct vfio_region *region, uint64_t offset,
	      void *buf, unsigned int len);
int vfio_write(const struct vfio_file *file, const struct vfio_region *region, uint64_t offset,
	       const void *buf, unsigned int len);

#endif
