/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and opening a PCI device of the host. Nothing is bound or unbound: what is in the way is
 * said, with the line to type.
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

struct open_passthrough {
	char bdf[HOST_BDF_BYTES]; /* "" when there is an fd and nothing tells whose */
	bool known;               /* host is what sysfs says of it */
	struct host_device host;
};

/* Which device is meant. Opens no device. Without sysfs an fd is enough (for type1 with the device's
 * address). */
int open_passthrough_find(const struct config_passthrough *p, struct open_passthrough *ret,
			  struct err *err);

/* What iommu_endpoint_create wants for this backend (iommufd or type1): the caller's new fd, or a
 * negative errno. An fd in the document is duplicated, and no path opened. */
int open_passthrough_fd(const struct config_passthrough *p, const struct open_passthrough *device,
			enum iommu_kind kind, struct err *err);

#endif
