// SPDX-License-Identifier: Apache-2.0
// Passed-through devices: the document's keys, and what is known of one before it is in the
// machine.
#include "machine/kind_passthrough.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/num.h"
#include "host/explain.h"
#include "iommu/reserved.h"
#include "machine/vm.h"

/* --- the document --- */

static const char *const on_error_names[] = {
	[VFIO_ON_ERROR_LOG] = "log",
	[VFIO_ON_ERROR_RESET] = "reset",
	[VFIO_ON_ERROR_PAUSE] = "pause",
	[VFIO_ON_ERROR_STOP] = "stop",
	NULL,
};

#define AT(member) .offset = offsetof(struct config_passthrough, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(base.id)},
	{"device", SCHEMA_STRING, AT(device)},
	{"fd", SCHEMA_FD, AT(fd), .max = INT32_MAX},
	{"iommufd", SCHEMA_FD, AT(iommufd), .max = INT32_MAX},
	{"strategy", SCHEMA_CHOICE, AT(strategy)},
	{"ioas", SCHEMA_STRING, AT(ioas)},
	{"on_error", SCHEMA_ENUM, AT(on_error), .names = on_error_names},
	{"rom", SCHEMA_BOOL, AT(rom)},
	{"viommu", SCHEMA_BOOL, AT(base.viommu)},
	{"addr", SCHEMA_PCI, AT(base.addr)},
	{"port", SCHEMA_PCI, AT(port)},
	{NULL},
};
static const struct config_passthrough defaults = {.fd = -1, .iommufd = -1};

/* On bus 0 if the user says so, else its root port is. */
static struct schema_pci *place(struct config_device *device)
{
	return device->addr.set ? &device->addr
				: &container_of(device, struct config_passthrough, base)->port;
}

static const struct config_passthrough *next_config(const struct config *c,
						    const struct config_passthrough *after)
{
	const struct config_device *d =
		config_next(c, after ? &after->base : NULL, &kind_passthrough);

	return d ? container_of(d, struct config_passthrough, base) : NULL;
}

/* Devices that share an address space agree on what is in it. */
static int check_ioas(const struct config *c, const struct config_passthrough *p, struct err *err)
{
	const struct config_passthrough *q = NULL;

	while ((q = next_config(c, q)) && q != p) {
		if (p->device && q->device && strcmp(p->device, q->device) == 0)
			return err_set(err, -EEXIST, "passthrough '%s' and '%s' are both %s",
				       q->base.id, p->base.id, p->device);
		if (p->ioas && q->ioas && strcmp(p->ioas, q->ioas) == 0 &&
		    strcmp(p->strategy, q->strategy) != 0)
			return err_set(err, -EINVAL,
				       "passthrough '%s' and '%s' share ioas '%s', but their "
				       "strategies are %s and %s",
				       q->base.id, p->base.id, p->ioas, q->strategy, p->strategy);
	}
	return 0;
}

/* Afterwards its text has every parameter, so that equal strategies have equal texts. */
static int check_strategy(const struct config *c, struct config_passthrough *p, struct err *err)
{
	struct strategy_choice choice;
	int rc = strategy_parse(&choice,
				p->strategy ? p->strategy : strategy_default(p->base.viommu), err);

	if (rc)
		return err_prefix(err, "passthrough '%s'", p->base.id);
	free(p->strategy);
	p->strategy = strategy_text(&choice);
	if (!p->strategy)
		return err_set(err, -ENOMEM, "no memory");
	if (choice.ops->needs_viommu && !c->viommu.enabled)
		return err_set(err, -EINVAL,
			       "passthrough '%s': strategy %s maps what a virtual IOMMU asks "
			       "for, and this machine has none; use %s, or --viommu on",
			       p->base.id, p->strategy, strategy_default(false));
	if (choice.ops->needs_memfd &&
	    (c->memory.backing == GMEM_HUGETLB_2M || c->memory.backing == GMEM_HUGETLB_1G))
		return err_set(err, -EINVAL,
			       "passthrough '%s': strategy %s needs memory in base pages, and "
			       "memory.backing is a hugetlb one; use auto or memfd",
			       p->base.id, choice.ops->name);
	p->base.viommu |= choice.ops->needs_viommu;
	p->base.shares_memory = choice.ops->needs_memfd;
	return 0;
}

/* A passed-through device behind the virtual IOMMU: the guest's domains are its address spaces. */
static int check_behind(const struct config *c, const struct config_passthrough *p, struct err *err)
{
	if (!p->base.viommu)
		return 0;
	if (p->ioas)
		return err_set(err, -EINVAL,
			       "passthrough '%s': ioas '%s': behind the virtual IOMMU its domains "
			       "are the address spaces; leave ioas out, or viommu=off",
			       p->base.id, p->ioas);
	if (c->iommu.backend == IOMMU_TYPE1)
		return err_set(err, -EINVAL,
			       "passthrough '%s': type1 cannot move a device between the guest's "
			       "domains; use iommu.backend iommufd, or viommu=off",
			       p->base.id);
	return 0;
}

static int validate(struct config *c, struct config_device *device, struct err *err)
{
	struct config_passthrough *p = container_of(device, struct config_passthrough, base);
	int rc;

	if (!p->device && p->fd < 0)
		return err_set(err, -EINVAL,
			       "passthrough '%s': give a device (0000:01:10.0) or an fd",
			       p->base.id);
	if (p->device && !*p->device)
		return err_set(err, -EINVAL, "passthrough '%s': device is empty", p->base.id);
	if (p->base.addr.set && p->port.set)
		return err_set(err, -EINVAL,
			       "passthrough '%s': give either addr (on bus 0) or port (its root "
			       "port's)",
			       p->base.id);
	if (p->iommufd >= 0 && c->iommu.fd >= 0 && p->iommufd != c->iommu.fd)
		return err_set(err, -EINVAL,
			       "passthrough '%s': iommufd %d, but the machine's is %d already; one "
			       "serves all devices",
			       p->base.id, p->iommufd, c->iommu.fd);
	if (p->iommufd >= 0)
		c->iommu.fd = p->iommufd;
	p->iommufd = -1;
	if (p->ioas && (!*p->ioas || strlen(p->ioas) >= CONFIG_ID_BYTES))
		return err_set(err, -EINVAL, "passthrough '%s': ioas '%s': 1 to %d characters",
			       p->base.id, p->ioas, CONFIG_ID_BYTES - 1);
	rc = check_strategy(c, p, err);
	if (!rc)
		rc = check_behind(c, p, err);
	return rc ? rc : check_ioas(c, p, err);
}

/* What the machine's kind of backend wants. A group's fd says not which of its devices is meant, so
 * the address stays. */
static int open_for(struct config_passthrough *p, const struct kind_receiver *to,
		    const struct open_passthrough *found, struct err *err)
{
	const struct iommu_config config = {
		.kind = (enum iommu_kind)to->backend,
		.iommufd = p->iommufd,
		.device = found->bdf,
	};
	struct iommu *iommu;
	int rc = iommu_create(&iommu, &config, err);

	if (rc)
		return rc;
	p->fd = open_passthrough_fd(p, found, iommu_kind_of(iommu), err);
	rc = MIN(p->fd, 0);
	if (!rc && iommu_fd(iommu) >= 0 && !to->has_iommufd && p->iommufd < 0) {
		p->iommufd = fd_dup(iommu_fd(iommu));
		if (p->iommufd < 0)
			rc = err_set(err, p->iommufd, "/dev/iommu: %s", err_name(p->iommufd));
	}
	iommu_destroy(iommu);
	return rc;
}

static int hand_over(struct config_device *device, const struct kind_receiver *to, struct err *err)
{
	struct config_passthrough *p = container_of(device, struct config_passthrough, base);
	struct open_passthrough found;
	char *bdf;
	int rc;

	if (!p->device || p->fd >= 0)
		return 0;
	rc = open_passthrough_find(p, &found, err);
	if (!rc)
		rc = open_for(p, to, &found, err);
	if (rc)
		return rc;
	bdf = strdup(found.bdf);
	if (!bdf)
		return err_set(err, -ENOMEM, "no memory");
	free(p->device);
	p->device = bdf;
	return 0;
}

/* --- before it is in the machine --- */

struct vm_passthrough *passthrough_next(struct hospes_vm *vm, const struct vm_passthrough *after)
{
	struct vm_device *d = vm_next_device(vm, after ? &after->d : NULL, &kind_passthrough);

	return d ? passthrough_of(d) : NULL;
}

/* MSI-X vectors of the devices that come before p. */
static unsigned int vectors_before(const struct vm_passthrough *p)
{
	const struct vm_passthrough *q = NULL;
	unsigned int n = 0;

	while ((q = passthrough_next(p->d.vm, q)) && q != p)
		n += q->found.known ? q->found.host.msix : 0;
	return n;
}

static int preflight(const struct vm_passthrough *p, struct err *err)
{
	struct hospes_vm *vm = p->d.vm;
	const struct explain_request request = {
		.memory_bytes = vm->config.memory.size_bytes,
		.backing = gmem_backing_for((enum gmem_backing)vm->config.memory.backing,
					    config_shares_memory(&vm->config)),
		.kind = (enum iommu_kind)vm->config.iommu.backend,
		.cdev_fd = passthrough_config(p)->fd,
		.iommufd = vm->config.iommu.fd,
		.kvm_fd = vm->kvm.fd,
		.other_vectors = vectors_before(p),
	};
	struct explain explain;
	int rc = explain_device(&explain, p->found.bdf, &request, err);

	if (rc)
		return err_prefix(err, "passthrough '%s'", p->d.config->id);
	for (unsigned int i = 0; i < explain.n; i++) {
		const struct explain_finding *f = &explain.findings[i];
		const char *sep = f->remedy[0] ? "; " : "";

		if (f->level == EXPLAIN_BLOCKER && !rc)
			rc = err_set(err, -EOPNOTSUPP, "%s: %s%s%s", p->name, f->fact, sep,
				     f->remedy);
		else if (f->level != EXPLAIN_OK)
			log_warn(&vm->log, "passthrough", "%s: %s%s%s", p->name, f->fact, sep,
				 f->remedy);
		else
			log_debug(&vm->log, "passthrough", "%s: %s", p->name, f->fact);
	}
	explain_done(&explain);
	return rc;
}

static int open_it(struct vm_device *d, struct err *err)
{
	struct vm_passthrough *p = passthrough_of(d);
	const struct vm_passthrough *q = NULL;
	int rc;

	p->fd = p->holder = -1;
	rc = open_passthrough_find(passthrough_config(p), &p->found, err);
	if (rc)
		return rc;
	snprintf(p->name, sizeof(p->name), "%s", p->found.bdf[0] ? p->found.bdf : d->config->id);
	while ((q = passthrough_next(d->vm, q)) && q != p) {
		if (p->found.bdf[0] && strcmp(p->found.bdf, q->found.bdf) == 0)
			return err_set(err, -EEXIST, "passthrough '%s' and '%s' are both %s",
				       q->d.config->id, d->config->id, p->name);
	}
	return p->found.known ? preflight(p, err) : 0;
}

static uint64_t bars64(const struct host_device *host)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < HOST_BARS; i++) {
		if (host->bars[i].mem64)
			bytes += host->bars[i].size_bytes;
	}
	return bytes;
}

static int layout(struct vm_device *d, struct vm_layout *layout, struct err *err)
{
	const struct vm_passthrough *p = passthrough_of(d);
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	unsigned int bits;
	char what[48];
	int n, rc = 0;

	if (!p->found.known)
		return 0;
	layout->arch.mmio64_bytes += bars64(&p->found.host);
	n = iommu_reserved_read(p->found.bdf, ranges, ARRAY_SIZE(ranges));
	for (int i = 0; i < MIN(n, (int)ARRAY_SIZE(ranges)) && !rc; i++) {
		if (!iommu_reserved_blocks(&ranges[i]))
			continue;
		snprintf(what, sizeof(what), "reserved (%s)", ranges[i].type);
		rc = vm_layout_avoid(layout, ranges[i].first, ranges[i].last, p->name, what);
	}
	bits = host_aperture_bits(p->found.bdf);
	snprintf(what, sizeof(what), "its IOMMU translates %u bits only", bits);
	if (!rc && bits && bits <= 63)
		rc = vm_layout_avoid(layout, 1ull << bits, UINT64_MAX, p->name, what);
	return rc ? err_set(err, rc, "%s: no memory", p->name) : 0;
}

static int movable(struct vm_device *d, struct err *err)
{
	return err_set(err, -EOPNOTSUPP,
		       "passthrough '%s': a device of this host cannot be moved; remove it first "
		       "('hospes ctl NAME remove %s')",
		       d->config->id, d->config->id);
}

const struct device_kind kind_passthrough = {
	.schema = {"passthrough", fields, sizeof(struct config_passthrough), &defaults},
	.key = "passthrough",
	.max = CONFIG_MAX_PASSTHROUGH,
	.bytes = sizeof(struct vm_passthrough),
	.host_device = true,
	.place = place,
	.validate = validate,
	.hand_over = hand_over,
	.open = open_it,
	.layout = layout,
	.create = passthrough_create,
	.close = passthrough_close,
	.movable = movable,
	.status = passthrough_status,
	.act = passthrough_act,
};
