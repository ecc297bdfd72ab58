/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and opening a PCI device that is passed through. Nothing is bound or unbound: what is
 * in the way is reported, with the line to type.
 *
 * Threads: no state; any thread.
 */
#ifndef MACHINE_OPEN_PASSTHROUGH_H
#define MACHINE_OPEN_PASSTHROUGH_H

#include <stdbool.h>

#include "base/err.h"
#include "iommu/ioas.h"
#include "machine/config.h"
#include "host/device.h"

/* A passed-through PCI device. */
struct config_passthrough {
	struct config_device
		base; /* addr: on bus 0; else behind a root port of its own, at `port` */
	struct schema_pci port;
	/* "0000:01:10.0", a path in sysfs, "/dev/vfio/devices/vfio0"; NULL: fd says. */
	char *device;
	int fd;         /* an open /dev/vfio/devices/vfioN (type1: /dev/vfio/N); -1: opened here */
	int iommufd;    /* moved to config_iommu.fd by validation */
	char *strategy; /* when memory is mapped for it: "NAME,key=value,…", validated */
	char *ioas;     /* devices with the same name share an address space; NULL: its own */
	int on_error;   /* enum vfio_on_error */
	bool rom;       /* show its expansion ROM */
};

struct open_passthrough {
	char bdf[HOST_BDF_BYTES]; /* "" when there is an fd and nothing tells whose */
	bool known;               /* host is what sysfs says of it */
	struct host_device host;
};

/* Which device is meant. Opens no device. Without sysfs an fd is enough (for type1 with the
 * device's address). */
int open_passthrough_find(const struct config_passthrough *p, struct open_passthrough *ret,
			  struct err *err);

/* What iommu_endpoint_create wants for this backend (iommufd or type1): the caller's new fd, or a
 * negative errno. An fd in the document is duplicated, and no path opened. */
int open_passthrough_fd(const struct config_passthrough *p, const struct open_passthrough *device,
			enum iommu_kind kind, struct err *err);

#endif
