// SPDX-License-Identifier: Apache-2.0
// Preflight: the findings about one device, in the order in which passthrough would meet them.
// Here: driver and group; the rest is in explain_host.c, explain_limits.c and explain_function.c.
#include "host/explain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "host/explain_impl.h"

/* A driver that leaves its group available to VFIO: it does no DMA, or it is VFIO's own (those
 * that set driver_managed_dma in Linux). */
static bool harmless_driver(const char *driver)
{
	return !*driver || explain_vfio_driver(driver) || !strcmp(driver, "pcieport") ||
	       !strcmp(driver, "pci-stub") || !strcmp(driver, "shpchp");
}

static void driver(struct explain_ctx *x)
{
	const struct host_device *d = x->d;

	if (d->class_code >> 8 == 0x0604) {
		explain_add(x, EXPLAIN_BLOCKER, "driver",
			    "a PCI bridge: VFIO takes endpoints only");
		explain_remedy(x, "give the devices behind it");
		return;
	}
	if (x->ours) {
		explain_add(x, EXPLAIN_OK, "driver", "bound to %s", d->driver);
		return;
	}
	explain_add(x, EXPLAIN_BLOCKER, "driver",
		    d->driver[0] ? "bound to %s, not vfio-pci" : "bound to no driver%s", d->driver);
	explain_remedy(x, "hospes vf bind %s", d->bdf);
	if (d->vfs) {
		explain_add(x, EXPLAIN_WARNING, "driver",
			    "its %u virtual functions go away with its driver", d->vfs);
		explain_remedy(x, "hospes vf destroy %s", d->bdf);
	}
}

/* Is it open already? VFIO gives a device, and a group, to one user. */
static void user(struct explain_ctx *x)
{
	char node[HOST_NODE_BYTES], who[HOST_USER_BYTES];

	if (!x->ours || x->request->cdev_fd >= 0)
		return;
	host_vfio_user(x->d, node, who);
	if (!who[0])
		return;
	explain_add(x, EXPLAIN_BLOCKER, "driver", "in use: %s has %s open", who, node);
	explain_remedy(x, "end that process first: 'hospes vf list' shows who uses what");
}

static void member(struct explain_ctx *x, const struct host_device *m)
{
	const struct host_device *d = x->d;

	if (!harmless_driver(m->driver)) {
		explain_add(x, EXPLAIN_BLOCKER, "group",
			    "%s is in its group %d too and bound to %s: VFIO gives a group "
			    "as a whole or not at all",
			    m->bdf, d->group, m->driver);
		explain_remedy(x,
			       "hospes vf bind %s (the host loses it), or a slot whose port "
			       "has ACS ('hospes iommu list')",
			       m->bdf);
		return;
	}
	if (m->class_code >> 8 == 0x0604)
		explain_add(x, EXPLAIN_OK, "group",
			    "%s is in its group %d too: a bridge, which stays", m->bdf, d->group);
	else
		explain_add(x, EXPLAIN_OK, "group",
			    "%s is in its group %d too%s%s: only one VM at a time can have them",
			    m->bdf, d->group, m->driver[0] ? ", bound to " : ", without a driver",
			    m->driver);
}

static void group(struct explain_ctx *x)
{
	struct host_device *members;
	unsigned int n;

	if (x->d->group < 0 || host_group(x->d->group, &members, &n, NULL) < 0)
		return; /* the IOMMU's finding says it */
	if (n == 1)
		explain_add(x, EXPLAIN_OK, "group", "alone in IOMMU group %d", x->d->group);
	for (unsigned int i = 0; i < n; i++) {
		if (strcmp(members[i].bdf, x->d->bdf) != 0)
			member(x, &members[i]);
	}
	free(members);
}

int explain_device(struct explain *ret, const char *bdf, const struct explain_request *request,
		   struct err *err)
{
	static void (*const parts[])(struct explain_ctx *x) = {
		driver,
		user,
		explain_use_by_host,
		group,
		explain_iommu,
		explain_remapping,
		explain_kernel,
		explain_permissions,
		explain_aperture,
		explain_reserved,
		explain_memory,
		explain_pages,
		explain_mappings,
		explain_memlock,
		explain_bars,
		explain_interrupts,
		explain_files,
		explain_resets,
		explain_migration,
		explain_peers,
		explain_quirks,
	};
	struct host_device d;
	struct explain_ctx x = {.out = ret, .d = &d, .request = request};
	int rc = host_read(&d, bdf, err);

	memset(ret, 0, sizeof(*ret));
	if (rc)
		return rc;
	x.ours = explain_vfio_driver(d.driver);
	explain_choose_kind(&x);
	explain_layout(&x);
	for (unsigned int i = 0; i < ARRAY_SIZE(parts); i++)
		parts[i](&x);
	if (x.no_memory) {
		explain_done(ret);
		return err_set(err, -ENOMEM, "%s: no memory for the findings", bdf);
	}
	return 0;
}
