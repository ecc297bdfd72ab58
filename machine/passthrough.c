// SPDX-License-Identifier: Apache-2.0
// Passed-through devices: into the machine, with an address space and a root port, and out of it.
#include "machine/kind_passthrough.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/holder.h"
#include "base/mem.h"
#include "base/num.h"
#include "iommu/reserved.h"
#include "machine/vm.h"

/* --- what they share --- */

static int get_iommu(struct vm_passthrough *p, struct err *err)
{
	struct hospes_vm *vm = p->d.vm;
	struct vm_host_iommu *host = &vm->host_iommu;
	const struct iommu_config config = {
		.log = &vm->log,
		.kind = (enum iommu_kind)vm->config.iommu.backend,
		.iommufd = vm->config.iommu.fd,
		.device = p->found.known ? p->found.bdf : NULL,
	};
	int rc;

	p->uses_iommu = true;
	if (host->users++)
		return 0;
	list_init(&host->spaces);
	rc = iommu_create(&host->iommu, &config, err);
	if (rc)
		return rc;
	log_info(&vm->log, "iommu", "%s", iommu_reason(host->iommu));
	rc = fault_watch_create(&host->faults, vm->loop, &vm->log, passthrough_fault, vm, err);
	if (!rc)
		log_info(&vm->log, "iommu", "DMA faults are reported by: %s",
			 fault_source(host->faults));
	return rc;
}

static void put_iommu(struct vm_passthrough *p)
{
	struct vm_host_iommu *host = &p->d.vm->host_iommu;

	if (p->uses_iommu && !--host->users) {
		fault_watch_destroy(host->faults);
		iommu_destroy(host->iommu);
		*host = (struct vm_host_iommu){0};
	}
	p->uses_iommu = false;
}

static void put_space(struct vm_passthrough *p)
{
	struct vm_space *space = p->space;

	p->space = NULL;
	if (!space || --space->users)
		return;
	hw_domain_destroy(space->domain);
	list_remove(&space->link);
	free(space);
}

/* --- into the machine --- */

/* For whoever wants the device and may not have it. It works without, too. */
static void report_holder(struct vm_passthrough *p)
{
	const char *name = p->d.vm->config.name;
	int fd = name && p->found.bdf[0] ? holder_announce(p->found.bdf, name) : -1;

	p->holder = fd < 0 ? -1 : fd;
}

/* A group of type1 is opened once; the other devices in it have duplicates. */
static struct vm_passthrough *group_mate(const struct vm_passthrough *p)
{
	struct vm_passthrough *q = NULL;

	while ((q = passthrough_next(p->d.vm, q))) {
		if (q != p && q->fd >= 0 && p->found.host.group >= 0 &&
		    q->found.host.group == p->found.host.group)
			return q;
	}
	return NULL;
}

static int open_device(struct vm_passthrough *p, enum iommu_kind kind, struct err *err)
{
	const struct vm_passthrough *mate = kind == IOMMU_TYPE1 ? group_mate(p) : NULL;
	const struct iommu_endpoint_config config = {
		.name = p->name,
		.fd = mate ? fd_dup(mate->fd)
			   : open_passthrough_fd(passthrough_config(p), &p->found, kind, err),
	};
	int fd = config.fd;
	int rc;

	if (fd < 0)
		return mate ? err_set(err, fd, "%s: %s", p->name, err_name(fd)) : fd;
	/* Before the device is bound or opened from its group (core/arch.h). */
	rc = arch_vm_add_vfio(p->d.vm->arch, fd, err);
	if (rc == -EOPNOTSUPP)
		log_info(&p->d.vm->log, "passthrough", "%s: %s", p->name, err->text);
	else if (rc)
		goto fail;
	p->registered_with_kvm = !rc;
	rc = iommu_endpoint_create(&p->endpoint, p->d.vm->host_iommu.iommu, &config, err);
	if (!rc) {
		/* The group that both are in keeps one, the first. */
		p->fd = mate ? mate->fd : fd;
		report_holder(p);
		return 0;
	}
	if (p->registered_with_kvm && !mate)
		arch_vm_remove_vfio(p->d.vm->arch, fd);
	p->registered_with_kvm = false;
fail:
	fd_close(&fd);
	return err_prefix(err, "passthrough '%s'", p->d.config->id);
}

/* May p be in the address space of q? */
static int may_share(const struct vm_passthrough *q, const struct vm_passthrough *p, bool same_name,
		     struct err *err)
{
	const struct config_passthrough *a = passthrough_config(q), *b = passthrough_config(p);
	int group = p->found.host.group;

	if (!same_name && (a->ioas || b->ioas))
		return err_set(err, -EINVAL,
			       "%s and %s are both in IOMMU group %d, which has one address space: "
			       "give both the same ioas, or neither",
			       q->name, p->name, group);
	if (a->base.viommu || b->base.viommu)
		return err_set(err, -EINVAL,
			       "%s and %s are both in IOMMU group %d, which can be in one domain "
			       "only, and the guest would not know; viommu=off for both",
			       q->name, p->name, group);
	if (strcmp(a->strategy, b->strategy) != 0)
		return err_set(err, -EINVAL,
			       "%s and %s are both in IOMMU group %d, but their strategies are %s "
			       "and %s",
			       q->name, p->name, group, a->strategy, b->strategy);
	return 0;
}

static int find_space(struct vm_passthrough *p, struct err *err)
{
	const struct config_passthrough *c = passthrough_config(p);
	int group = p->found.host.group;
	const struct vm_passthrough *q = NULL;

	while ((q = passthrough_next(p->d.vm, q))) {
		const char *ioas = passthrough_config(q)->ioas;
		bool same_group = group >= 0 && q->found.host.group == group;
		bool same_name = c->ioas && ioas && strcmp(c->ioas, ioas) == 0;
		int rc;

		if (!q->space || (!same_group && !same_name))
			continue;
		rc = same_group ? may_share(q, p, same_name, err) : 0;
		if (!rc) {
			p->space = q->space;
			p->space->users++;
		}
		return rc;
	}
	return 0;
}

static int new_space(struct vm_passthrough *p, struct err *err)
{
	const struct config_passthrough *c = passthrough_config(p);
	const struct hw_domain_config config = {
		.name = c->ioas ? c->ioas : p->name,
		/* Behind the virtual IOMMU this is for bypass alone. */
		.strategy = c->base.viommu ? strategy_default(false) : c->strategy,
		.iommu = p->d.vm->host_iommu.iommu,
		.gmem = p->d.vm->gmem,
		.log = &p->d.vm->log,
	};
	struct vm_space *space;
	int rc;

	if (!mem_new(space))
		return err_set(err, -ENOMEM, "%s: no memory", p->name);
	rc = hw_domain_create(&space->domain, &config, err);
	if (rc) {
		free(space);
		return rc;
	}
	snprintf(space->name, sizeof(space->name), "%s", config.name);
	space->users = 1;
	list_append(&p->d.vm->host_iommu.spaces, &space->link);
	p->space = space;
	return 0;
}

static int attach(struct vm_passthrough *p, struct err *err)
{
	int rc = find_space(p, err);

	if (!rc && !p->space)
		rc = new_space(p, err);
	if (!rc)
		rc = hw_domain_attach(p->space->domain, p->endpoint, err);
	p->attached = !rc;
	return rc;
}

static int attach_behind(struct vm_passthrough *p, struct err *err)
{
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	int n = p->found.bdf[0] ? iommu_reserved_read(p->found.bdf, ranges, IOMMU_RESERVED_MAX) : 0;
	const struct viommu_hardware hardware = {
		.name = p->d.config->id,
		.strategy = passthrough_config(p)->strategy,
		.device = p->endpoint,
		.all = p->space->domain,
		.reserved = ranges,
		.n_reserved = (unsigned int)MIN(MAX(n, 0), (int)IOMMU_RESERVED_MAX),
	};

	return viommu_add_hardware(&p->d.endpoint, p->d.vm->viommu, &hardware, err);
}

static void on_bus_master(void *opaque)
{
	const struct vm_passthrough *p = opaque;

	viommu_device_starts(p->d.endpoint);
}

static int create_function(struct vm_passthrough *p, struct err *err)
{
	const struct config_passthrough *c = passthrough_config(p);
	struct hospes_vm *vm = p->d.vm;
	enum iommu_kind kind = iommu_kind_of(vm->host_iommu.iommu);
	const struct device_env env = vm_device_env(vm);
	const struct vfio_pci_config config = {
		.name = c->base.id,
		.bdf = p->name,
		.endpoint = p->endpoint,
		.group_fd = kind == IOMMU_TYPE1 ? p->fd : -1,
		.group = (unsigned int)p->found.host.group,
		.arch = vm->arch,
		.bus = vm_device_bus(&p->d),
		.addr = c->base.addr.set ? &c->base.addr.addr : NULL,
		.on_error = (enum vfio_on_error)c->on_error,
		.rom = c->rom,
		/* A character device is open, in this sense, once it is bound; a group has one
		 * opener. */
		.fresh = kind == IOMMU_IOMMUFD || c->fd < 0,
		.starts = p->d.endpoint ? on_bus_master : NULL,
		.event = passthrough_event,
		.opaque = p,
	};
	int rc = vfio_pci_create(&p->d.dev, &env, &config, err);

	return rc ? err_prefix(err, "passthrough '%s'", c->base.id) : 0;
}

int passthrough_create(struct vm_device *d, struct err *err)
{
	struct vm_passthrough *p = passthrough_of(d);
	const struct config_passthrough *c = passthrough_config(p);
	int rc = get_iommu(p, err);

	if (!rc && !c->base.addr.set)
		rc = vm_device_add_port(d, &c->port.addr, err);
	if (!rc)
		rc = open_device(p, iommu_kind_of(d->vm->host_iommu.iommu), err);
	if (!rc)
		rc = attach(p, err);
	if (!rc && c->base.viommu)
		rc = attach_behind(p, err);
	if (!rc)
		rc = create_function(p, err);
	if (!rc)
		log_info(&d->vm->log, "passthrough",
			 "%s: in the guest as '%s', address space '%s' (%s)", p->name, c->base.id,
			 p->space->name, c->strategy);
	return rc;
}

/* --- out of it --- */

void passthrough_close(struct vm_device *d)
{
	struct vm_passthrough *p = passthrough_of(d);

	if (p->registered_with_kvm &&
	    (iommu_kind_of(d->vm->host_iommu.iommu) != IOMMU_TYPE1 || !group_mate(p)))
		arch_vm_remove_vfio(d->vm->arch, p->fd);
	p->registered_with_kvm = false;
	if (p->attached)
		hw_domain_detach(p->space->domain, p->endpoint);
	p->attached = false;
	iommu_endpoint_destroy(p->endpoint);
	p->endpoint = NULL;
	put_space(p);
	put_iommu(p);
	fd_close(&p->holder);
	p->fd = -1;
}
