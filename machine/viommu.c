// SPDX-License-Identifier: Apache-2.0
// The guest's own IOMMU in the machine: made before the devices behind it, its virtio device after
// them; what ACPI says of it; its part of the status.
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "iommu/reserved.h"
#include "machine/vm.h"
#include "virtio/iommu.h"
#include "virtio/pci.h"

/* One for all devices of the host behind it (validate.c). */
static const char *strategy_of(const struct config *c)
{
	for (unsigned int i = 0; i < c->passthrough.n; i++) {
		if (c->passthrough.items[i].viommu)
			return c->passthrough.items[i].strategy;
	}
	return "strict";
}

static_assert((int)CONFIG_VIOMMU_EXIT == VIRTIO_IOMMU_EXIT &&
		      (int)CONFIG_VIOMMU_LOOP == VIRTIO_IOMMU_LOOP &&
		      (int)CONFIG_VIOMMU_POLL == VIRTIO_IOMMU_POLL,
	      "transports are numbered alike");

int vm_viommu_create(struct hospes_vm *vm, struct err *err)
{
	const struct viommu_config config = {
		.log = &vm->log,
		.gmem = vm->gmem,
		.strategy = strategy_of(&vm->config),
		.bypass = vm->config.viommu.bypass,
	};

	return vm->config.viommu.enabled ? viommu_create(&vm->viommu, &config, err) : 0;
}

int vm_viommu_plug(struct hospes_vm *vm, struct err *err)
{
	const struct device_env env = vm_device_env(vm);
	const struct virtio_iommu_setup setup = {
		.name = "viommu",
		.viommu = vm->viommu,
		.loop = vm->viommu_io.loop,
		.transport = (enum virtio_iommu_transport)vm->config.viommu.transport,
		.poll_ns = vm->config.viommu.poll_us * 1000ull,
	};
	const struct virtio_pci_config pci = {
		.addr = &vm->config.viommu.addr.addr,
		.bus = pci_root_bus(vm->pci),
	};
	struct virtio_device *vdev;
	int rc;

	if (!vm->viommu)
		return 0;
	rc = virtio_iommu_create(&vdev, &setup, &vm->log, err);
	if (rc)
		return rc;
	rc = virtio_pci_create(&vm->viommu_dev, &env, &pci, vdev, err);
	if (rc)
		vdev->ops->destroy(vdev);
	else
		list_append(&vm->devices, &vm->viommu_dev->link);
	return rc;
}

void vm_viommu_destroy(struct hospes_vm *vm)
{
	struct viommu_totals t;

	if (!vm->viommu)
		return;
	viommu_totals(vm->viommu, &t);
	log_info(&vm->log, "viommu", "%llu maps, %llu unmaps, %llu refused, %llu faults",
		 (unsigned long long)t.requests[VIOMMU_MAP],
		 (unsigned long long)t.requests[VIOMMU_UNMAP],
		 (unsigned long long)(t.failed[VIOMMU_MAP] + t.failed[VIOMMU_UNMAP]),
		 (unsigned long long)t.faults);
	for (unsigned int i = 0; i < vm->n_named; i++) {
		viommu_remove(vm->named[i].endpoint);
		vm->named[i].endpoint = NULL;
	}
	viommu_destroy(vm->viommu);
	vm->viommu = NULL;
	vm->viommu_dev = NULL;
}

/* --- devices behind it --- */

int vm_viommu_emulated(struct hospes_vm *vm, bool behind, const char *id,
		       struct viommu_endpoint **ret, struct dma_space **space, struct err *err)
{
	return behind ? viommu_add_emulated(ret, vm->viommu, id, space, err) : 0;
}

static uint32_t requester_of_virtio(void *opaque)
{
	const struct pci_addr *addr = virtio_pci_addr(opaque);

	return (uint32_t)(addr->bus << 8 | addr->slot << 3 | addr->function);
}

static uint32_t requester_of_host(void *opaque)
{
	return pci_requester_id(vfio_pci_function(opaque));
}

void vm_viommu_set_requester_id(struct viommu_endpoint *endpoint, struct device *dev)
{
	bool host = strcmp(dev->ops->type, "vfio-pci") == 0;

	if (endpoint)
		viommu_set_id(endpoint, host ? requester_of_host : requester_of_virtio, dev);
}

int vm_viommu_add(struct vm_passthrough *p, struct err *err)
{
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	int n = p->found.bdf[0] ? iommu_reserved_read(p->found.bdf, ranges, IOMMU_RESERVED_MAX) : 0;

	return viommu_add_hardware(&p->behind, p->vm->viommu, p->config->id, p->endpoint,
				   p->space->domain, ranges,
				   (unsigned int)MIN(MAX(n, 0), (int)IOMMU_RESERVED_MAX), err);
}

void vm_viommu_on_bus_master(void *opaque)
{
	const struct vm_passthrough *p = opaque;

	viommu_device_starts(p->behind);
}

void vm_viommu_fault(struct vm_passthrough *p, const struct iommu_fault *fault, char *history,
		     unsigned int bytes)
{
	const struct viommu_fault told = {
		.write = fault->write,
		.has_address = true,
		.address = fault->iova,
	};

	viommu_hardware_fault(p->behind, &told, history, bytes);
}

/* --- what is told of it --- */

void vm_viommu_describe(struct hospes_vm *vm, struct acpi_viommu *ret, uint16_t *endpoints,
			unsigned int max)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < vm->n_named && n < max; i++) {
		if (vm->named[i].endpoint)
			endpoints[n++] = (uint16_t)requester_of_virtio(vm->named[i].dev);
	}
	for (unsigned int i = 0; i < vm->passthrough.n && n < max; i++) {
		const struct vm_passthrough *p = &vm->passthrough.items[i];

		if (p->behind && p->dev)
			endpoints[n++] = (uint16_t)requester_of_host(p->dev);
	}
	*ret = (struct acpi_viommu){
		.requester = (uint16_t)requester_of_virtio(vm->viommu_dev),
		.endpoints = endpoints,
		.n = n,
	};
}

void vm_viommu_reset(struct hospes_vm *vm)
{
	if (!vm->viommu)
		return;
	viommu_reset(vm->viommu);
	viommu_set_bypass(vm->viommu, vm->config.viommu.bypass);
}

int vm_viommu_switch(struct hospes_vm *vm, const char *strategy, struct err *err)
{
	bool behind = false;
	int rc;

	for (unsigned int i = 0; i < vm->passthrough.n; i++)
		behind |= vm->passthrough.items[i].behind != NULL;
	if (!behind)
		return err_set(
			err, -ENODEV,
			"strategy '%s': no passed-through device is behind an IOMMU of the "
			"guest's own; start the machine with viommu on, for it and the device",
			strategy);
	rc = viommu_switch(vm->viommu, strategy, err);
	if (!rc)
		log_info(&vm->log, "viommu", "the strategy is '%s' from now on", strategy);
	return rc;
}

static void add_endpoint(void *opaque, const struct viommu_view *view)
{
	json_t *item =
		json_pack("{s:s, s:s}", "id", viommu_endpoint_name(view->endpoint), "reaches",
			  view->bypass     ? "all of memory"
			  : view->attached ? "its domain"
					   : "nothing");

	if (view->attached)
		json_object_set_new(item, "domain", json_integer(view->domain));
	if (view->attached && !view->bypass) {
		json_object_set_new(item, "guest_mappings",
				    json_integer((json_int_t)view->mappings));
		json_object_set_new(item, "guest_mapped_bytes",
				    json_integer((json_int_t)view->mapped_bytes));
		if (view->hw)
			vm_ledger_status(item, view->hw);
	}
	json_array_append_new(opaque, item);
}

json_t *vm_viommu_status(struct hospes_vm *vm)
{
	static const char *const names[] = {
		[VIOMMU_ATTACH] = "attach",
		[VIOMMU_DETACH] = "detach",
		[VIOMMU_MAP] = "map",
		[VIOMMU_UNMAP] = "unmap",
	};
	char addr[PCI_ADDR_TEXT];
	struct viommu_totals t;
	json_t *item, *requests, *list;

	if (!vm->viommu)
		return NULL;
	viommu_totals(vm->viommu, &t);
	item = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:i}", "addr",
			 pci_addr_format(virtio_pci_addr(vm->viommu_dev), addr), "bypass",
			 viommu_bypass(vm->viommu), "mappings", (json_int_t)t.mappings,
			 "mapped_bytes", (json_int_t)t.mapped_bytes, "map_bytes",
			 (json_int_t)t.map_bytes, "faults", (json_int_t)t.faults, "domains",
			 (int)t.domains);
	requests = json_object();
	for (unsigned int op = VIOMMU_ATTACH; op <= VIOMMU_UNMAP; op++)
		json_object_set_new(requests, names[op],
				    json_pack("{s:I, s:I}", "calls", (json_int_t)t.requests[op],
					      "failed", (json_int_t)t.failed[op]));
	json_object_set_new(item, "requests", requests);
	list = json_array();
	viommu_walk(vm->viommu, add_endpoint, list);
	json_object_set_new(item, "endpoints", list);
	return item;
}
