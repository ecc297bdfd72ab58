// SPDX-License-Identifier: Apache-2.0
// Passed-through devices: what is known before the machine is laid out, and putting them into it.
#include "machine/passthrough.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/holder.h"
#include "base/num.h"
#include "iommu/reserved.h"
#include "machine/vm.h"
#include "host/explain.h"

enum { AVOID_PER_DEVICE = 32 };

static_assert((int)CONFIG_IOMMU_IOMMUFD == (int)IOMMU_IOMMUFD &&
		      (int)CONFIG_IOMMU_TYPE1 == (int)IOMMU_TYPE1 &&
		      (int)CONFIG_IOMMU_AUTO == (int)IOMMU_AUTO,
	      "backends are numbered alike");
static_assert((int)CONFIG_ON_ERROR_LOG == (int)VFIO_ON_ERROR_LOG &&
		      (int)CONFIG_ON_ERROR_STOP == (int)VFIO_ON_ERROR_STOP &&
		      (int)CONFIG_ON_ERROR_RESET == (int)VFIO_ON_ERROR_RESET,
	      "policies are numbered alike");

/* --- before the layout --- */

static void avoid(struct vm_passthroughs *all, const struct vm_passthrough *p, uint64_t first,
		  uint64_t last, const char *what)
{
	char *text = all->avoid_text[all->n_avoid];

	snprintf(text, sizeof(all->avoid_text[0]), "%s: %s", p->name, what);
	all->avoid[all->n_avoid++] = (struct arch_avoid){first, last, text};
}

static void find_unreachable(struct vm_passthroughs *all, const struct vm_passthrough *p)
{
	struct iommu_reserved ranges[AVOID_PER_DEVICE - 1];
	unsigned int bits = host_aperture_bits(p->found.bdf);
	char what[48];
	int n = iommu_reserved_read(p->found.bdf, ranges, ARRAY_SIZE(ranges));

	for (int i = 0; i < MIN(n, (int)ARRAY_SIZE(ranges)); i++) {
		if (!iommu_reserved_blocks(&ranges[i]))
			continue;
		snprintf(what, sizeof(what), "reserved (%s)", ranges[i].type);
		avoid(all, p, ranges[i].first, ranges[i].last, what);
	}
	if (!bits || bits > 63)
		return;
	snprintf(what, sizeof(what), "its IOMMU translates %u bits only", bits);
	avoid(all, p, 1ull << bits, UINT64_MAX, what);
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

/* MSI-X vectors of the devices that come before p. */
static unsigned int vectors_before(const struct hospes_vm *vm, const struct vm_passthrough *p)
{
	unsigned int n = 0;

	for (const struct vm_passthrough *q = vm->passthrough.items; q != p; q++)
		n += q->found.known ? q->found.host.msix : 0;
	return n;
}

static int preflight(struct hospes_vm *vm, const struct vm_passthrough *p, struct err *err)
{
	const struct explain_request request = {
		.memory_bytes = vm->config.memory.size_bytes,
		.kind = (enum iommu_kind)vm->config.iommu.backend,
		.cdev_fd = p->config->fd,
		.iommufd = vm->config.iommu.fd,
		.kvm_fd = vm->kvm.fd,
		.other_vectors = vectors_before(vm, p),
	};
	struct explain explain;
	int rc = explain_device(&explain, p->found.bdf, &request, err);

	if (rc)
		return err_prefix(err, "passthrough '%s'", p->config->id);
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

static int find_one(struct hospes_vm *vm, struct vm_passthrough *p, struct err *err)
{
	const struct vm_passthroughs *all = &vm->passthrough;
	int rc = open_passthrough_find(p->config, &p->found, err);

	if (rc)
		return rc;
	snprintf(p->name, sizeof(p->name), "%s", p->found.bdf[0] ? p->found.bdf : p->config->id);
	for (const struct vm_passthrough *q = all->items; q != p; q++) {
		if (p->found.bdf[0] && strcmp(p->found.bdf, q->found.bdf) == 0)
			return err_set(err, -EEXIST, "passthrough '%s' and '%s' are both %s",
				       q->config->id, p->config->id, p->name);
	}
	return p->found.known ? preflight(vm, p, err) : 0;
}

int vm_passthrough_prepare(struct hospes_vm *vm, struct arch_layout *layout, struct err *err)
{
	struct vm_passthroughs *all = &vm->passthrough;
	unsigned int n = vm->config.passthrough.n;
	int rc = 0;

	if (!n)
		return 0;
	all->items = calloc(n, sizeof(*all->items));
	all->spaces = calloc(n, sizeof(*all->spaces));
	all->avoid = calloc((size_t)n * AVOID_PER_DEVICE, sizeof(*all->avoid));
	all->avoid_text = calloc((size_t)n * AVOID_PER_DEVICE, sizeof(*all->avoid_text));
	if (!all->items || !all->spaces || !all->avoid || !all->avoid_text)
		return err_set(err, -ENOMEM, "no memory for %u devices", n);
	for (unsigned int i = 0; i < n; i++)
		all->items[i] = (struct vm_passthrough){
			.vm = vm, .config = &vm->config.passthrough.items[i], .fd = -1, .said = -1};
	all->n = n;
	for (unsigned int i = 0; i < n && !rc; i++) {
		struct vm_passthrough *p = &all->items[i];

		rc = find_one(vm, p, err);
		if (rc || !p->found.known)
			continue;
		find_unreachable(all, p);
		layout->mmio64_bytes += bars64(&p->found.host);
	}
	layout->avoid = all->avoid;
	layout->n_avoid = all->n_avoid;
	return rc;
}

/* --- putting them in --- */

static int create_port(struct vm_passthrough *p, struct err *err)
{
	struct hospes_vm *vm = p->vm;
	const struct device_env env = vm_device_env(vm);
	unsigned int index = (unsigned int)(p - vm->passthrough.items);
	char name[48];
	const struct root_port_config config = {
		.name = name,
		.addr = &p->config->port.addr,
		.slot_number = (uint16_t)(CONFIG_MAX_ROOT_PORTS + index + 1),
	};
	int rc;

	if (p->config->addr.set)
		return 0;
	snprintf(name, sizeof(name), "port-%s", p->config->id);
	rc = root_port_create(&p->port, &env, vm->pci, &config, err);
	if (!rc)
		list_append(&vm->devices, &p->port->link);
	return rc;
}

/* For whoever wants the device and may not have it. It works without, too. */
static void report_holder(struct vm_passthrough *p)
{
	const char *name = p->vm->config.name;
	int fd = name && p->found.bdf[0] ? holder_announce(p->found.bdf, name) : -1;

	p->said = fd < 0 ? -1 : fd;
}

/* A group of type1 is opened once; the other devices in it have duplicates. */
static struct vm_passthrough *group_mate(const struct vm_passthrough *p)
{
	struct vm_passthroughs *all = &p->vm->passthrough;

	for (unsigned int i = 0; i < all->n; i++) {
		struct vm_passthrough *q = &all->items[i];

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
			   : open_passthrough_fd(p->config, &p->found, kind, err),
	};
	int fd = config.fd;
	int rc;

	if (fd < 0)
		return mate ? err_set(err, fd, "%s: %s", p->name, err_name(fd)) : fd;
	/* Before the device is bound or opened from its group (core/arch.h). */
	rc = arch_vm_add_vfio(p->vm->arch, fd, err);
	if (rc == -EOPNOTSUPP)
		log_info(&p->vm->log, "passthrough", "%s: %s", p->name, err->text);
	else if (rc)
		goto fail;
	p->registered_with_kvm = !rc;
	rc = iommu_endpoint_create(&p->endpoint, p->vm->passthrough.iommu, &config, err);
	if (!rc) {
		/* The group that both are in keeps one, the first. */
		p->fd = mate ? mate->fd : fd;
		report_holder(p);
		return 0;
	}
	if (p->registered_with_kvm && !mate)
		arch_vm_remove_vfio(p->vm->arch, fd);
	p->registered_with_kvm = false;
fail:
	fd_close(&fd);
	return err_prefix(err, "passthrough '%s'", p->config->id);
}

static int find_space(struct vm_passthrough *p, struct err *err)
{
	struct vm_passthroughs *all = &p->vm->passthrough;
	const char *name = p->config->ioas ? p->config->ioas : p->name;
	struct hw_domain_config config = {
		.name = name,
		/* Behind the guest's IOMMU this is for bypass alone. */
		.strategy = p->config->viommu ? "direct" : p->config->strategy,
		.iommu = all->iommu,
		.gmem = p->vm->gmem,
		.log = &p->vm->log,
	};
	struct vm_space *space;
	int rc;

	for (unsigned int i = 0; i < all->n; i++) {
		const struct vm_passthrough *q = &all->items[i];
		bool same_group = q->space && p->found.host.group >= 0 &&
				  q->found.host.group == p->found.host.group;
		bool same_name = q->space && p->config->ioas && q->config->ioas &&
				 strcmp(p->config->ioas, q->config->ioas) == 0;

		if (!same_group && !same_name)
			continue;
		if (same_group && !same_name && (p->config->ioas || q->config->ioas))
			return err_set(
				err, -EINVAL,
				"%s and %s are both in IOMMU group %d, which has one address "
				"space: give both the same ioas, or neither",
				q->name, p->name, p->found.host.group);
		if (same_group && (p->config->viommu || q->config->viommu))
			return err_set(
				err, -EINVAL,
				"%s and %s are both in IOMMU group %d, which can be in one "
				"domain only, and the guest would not know; viommu=off for both",
				q->name, p->name, p->found.host.group);
		if (same_group && strcmp(p->config->strategy, q->config->strategy) != 0)
			return err_set(err, -EINVAL,
				       "%s and %s are both in IOMMU group %d, but their strategies "
				       "are %s and %s",
				       q->name, p->name, p->found.host.group, q->config->strategy,
				       p->config->strategy);
		p->space = q->space;
		return 0;
	}
	space = &all->spaces[all->n_spaces];
	rc = hw_domain_create(&space->domain, &config, err);
	if (rc)
		return rc;
	snprintf(space->name, sizeof(space->name), "%s", name);
	space->group = p->config->ioas ? -1 : p->found.host.group;
	all->n_spaces++;
	p->space = space;
	return 0;
}

static int create_function(struct vm_passthrough *p, struct err *err)
{
	struct hospes_vm *vm = p->vm;
	const struct device_env env = vm_device_env(vm);
	const struct vfio_pci_config config = {
		.name = p->config->id,
		.bdf = p->name,
		.endpoint = p->endpoint,
		.group_fd = iommu_kind_of(vm->passthrough.iommu) == IOMMU_TYPE1 ? p->fd : -1,
		.group = (unsigned int)p->found.host.group,
		.arch = vm->arch,
		.bus = p->port ? root_port_bus(p->port) : pci_root_bus(vm->pci),
		.addr = p->config->addr.set ? &p->config->addr.addr : NULL,
		.on_error = (enum vfio_on_error)p->config->on_error,
		.rom = p->config->rom,
		/* A character device is open, in this sense, once it is bound; a group has one opener. */
		.fresh = iommu_kind_of(vm->passthrough.iommu) == IOMMU_IOMMUFD || p->config->fd < 0,
		.starts = p->behind ? vm_viommu_on_bus_master : NULL,
		.event = vm_passthrough_event,
		.opaque = p,
	};
	int rc = vfio_pci_create(&p->dev, &env, &config, err);

	if (rc)
		return err_prefix(err, "passthrough '%s'", p->config->id);
	list_append(&vm->devices, &p->dev->link);
	if (p->port) {
		/* It is in its slot at power-on: no event. */
		root_port_set_present(p->port, true);
		p->port->ops->reset(p->port);
	}
	return 0;
}

static int create_one(struct vm_passthrough *p, struct err *err)
{
	enum iommu_kind kind = iommu_kind_of(p->vm->passthrough.iommu);
	int rc = create_port(p, err);

	if (!rc)
		rc = open_device(p, kind, err);
	if (!rc)
		rc = find_space(p, err);
	if (!rc)
		rc = hw_domain_attach(p->space->domain, p->endpoint, err);
	if (rc)
		return rc;
	p->attached = true;
	if (p->config->viommu)
		rc = vm_viommu_add(p, err);
	if (!rc)
		rc = create_function(p, err);
	if (!rc)
		vm_viommu_set_requester_id(p->behind, p->dev);
	if (!rc)
		log_info(&p->vm->log, "passthrough",
			 "%s: in the guest as '%s', address space '%s' (%s)", p->name,
			 p->config->id, p->space->name, p->config->strategy);
	return rc;
}

int vm_passthrough_create(struct hospes_vm *vm, struct err *err)
{
	struct vm_passthroughs *all = &vm->passthrough;
	struct iommu_config config = {
		.log = &vm->log,
		.kind = (enum iommu_kind)vm->config.iommu.backend,
		.iommufd = vm->config.iommu.fd,
	};
	int rc;

	if (!all->n)
		return 0;
	if (all->items[0].found.known)
		config.device = all->items[0].found.bdf;
	rc = iommu_create(&all->iommu, &config, err);
	if (rc)
		return rc;
	log_info(&vm->log, "iommu", "%s", iommu_reason(all->iommu));
	rc = fault_watch_create(&all->faults, vm->loop, &vm->log, vm_passthrough_fault, vm, err);
	if (!rc)
		log_info(&vm->log, "iommu", "DMA faults are told by: %s",
			 fault_source(all->faults));
	for (unsigned int i = 0; i < all->n && !rc; i++)
		rc = create_one(&all->items[i], err);
	return rc;
}

/* --- taking them out --- */

void vm_passthrough_release(struct vm_passthrough *p)
{
	if (p->registered_with_kvm &&
	    (iommu_kind_of(p->vm->passthrough.iommu) != IOMMU_TYPE1 || !group_mate(p)))
		arch_vm_remove_vfio(p->vm->arch, p->fd);
	p->registered_with_kvm = false;
	viommu_remove(p->behind);
	p->behind = NULL;
	if (p->attached)
		hw_domain_detach(p->space->domain, p->endpoint);
	p->attached = false;
	iommu_endpoint_destroy(p->endpoint);
	p->endpoint = NULL;
	fd_close(&p->said);
	p->fd = -1;
}

void vm_passthrough_destroy(struct hospes_vm *vm)
{
	struct vm_passthroughs *all = &vm->passthrough;

	fault_watch_destroy(all->faults);
	for (unsigned int i = 0; i < all->n; i++)
		vm_passthrough_release(&all->items[i]);
	for (unsigned int i = 0; i < all->n_spaces; i++)
		hw_domain_destroy(all->spaces[i].domain);
	iommu_destroy(all->iommu);
	free(all->avoid_text);
	free(all->avoid);
	free(all->spaces);
	free(all->items);
	*all = (struct vm_passthroughs){0};
}
