// SPDX-License-Identifier: Apache-2.0
// Preflight: the findings about one device, in the order in which passthrough would meet them. Here:
// driver and group; the rest is in explain_host.c, explain_limits.c and explain_function.c.
#include "host/explain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "host/explain_impl.h"

void explain_done(struct explain *explain)
{
	free(explain->findings);
	memset(explain, 0, sizeof(*explain));
}

void explain_add(struct explain_ctx *x, enum explain_level level, const char *topic,
		 const char *fmt, ...)
{
	struct explain *out = x->out;
	struct explain_finding *more =
		reallocarray(out->findings, out->n + 1, sizeof(*out->findings));
	va_list ap;

	if (!more) {
		x->no_memory = true;
		return;
	}
	out->findings = more;
	more += out->n++;
	*more = (struct explain_finding){.level = level, .topic = topic};
	va_start(ap, fmt);
	vsnprintf(more->fact, sizeof(more->fact), fmt, ap);
	va_end(ap);
	out->worst = MAX(out->worst, level);
}

void explain_remedy(struct explain_ctx *x, const char *fmt, ...)
{
	struct explain_finding *last;
	va_list ap;

	if (x->no_memory)
		return;
	last = &x->out->findings[x->out->n - 1];
	assert(last->level != EXPLAIN_OK);
	va_start(ap, fmt);
	vsnprintf(last->remedy, sizeof(last->remedy), fmt, ap);
	va_end(ap);
}

const char *explain_size(uint64_t bytes, char text[EXPLAIN_SIZE_TEXT])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned int unit = 0;
	uint64_t whole = bytes, tenths = 0;

	while (whole >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		tenths = whole % 1024 * 10 / 1024;
		whole /= 1024;
		unit++;
	}
	if (tenths)
		snprintf(text, EXPLAIN_SIZE_TEXT, "%llu.%llu %s", (unsigned long long)whole,
			 (unsigned long long)tenths, units[unit]);
	else
		snprintf(text, EXPLAIN_SIZE_TEXT, "%llu %s", (unsigned long long)whole,
			 units[unit]);
	return text;
}

void explain_line(const char *path, char *text, unsigned int bytes)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, bytes - 1);

	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

bool explain_vfio_driver(const char *driver)
{
	/* vfio-pci, and variants for one device: mlx5_vfio_pci, nvgrace-gpu-vfio-pci, … */
	return strstr(driver, "vfio-pci") || strstr(driver, "vfio_pci");
}

/* A driver that lets its group be given away: it does no DMA, or it is VFIO's (those that set
 * driver_managed_dma in Linux). */
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

/* Somebody has it open: VFIO gives a device, and a group, to one. */
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
			    "%s is in its group %d too and bound to %s: the group is given as a "
			    "whole or not at all",
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
