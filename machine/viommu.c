// SPDX-License-Identifier: Apache-2.0
// The virtual IOMMU in the machine: made before the devices behind it, its virtio device after
// them; what ACPI says of it; its part of the status.
#include <errno.h>
#include <stdlib.h>

#include "base/num.h"
#include "machine/kind_passthrough.h"
#include "machine/vm.h"
#include "virtio/iommu.h"
#include "virtio/pci.h"

/* The guest's load decides how many there are: none sooner than 0.75 s after another. */
static void on_decision(void *opaque, const char *endpoint, const char *why)
{
	vm_emit_device(opaque, HOSPES_EVENT_STRATEGY, 0, why, endpoint);
}

int vm_viommu_create(struct hospes_vm *vm, struct err *err)
{
	const struct viommu_config config = {
		.log = &vm->log,
		.gmem = vm->gmem,
		.bypass = vm->config.viommu.bypass,
		.loop = vm->viommu_io.loop,
		.decided = on_decision,
		.decided_opaque = vm,
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
		list_append(&vm->plugged, &vm->viommu_dev->link);
	return rc;
}

void vm_viommu_unplug(struct hospes_vm *vm)
{
	if (!vm->viommu_dev)
		return;
	list_remove(&vm->viommu_dev->link);
	vm->viommu_dev->ops->destroy(vm->viommu_dev);
	vm->viommu_dev = NULL;
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
	viommu_destroy(vm->viommu);
	vm->viommu = NULL;
}

/* --- devices behind it --- */

void vm_viommu_fault(struct vm_device *d, const struct iommu_fault *fault, char *history,
		     unsigned int bytes)
{
	const struct viommu_fault told = {
		.write = fault->write,
		.has_address = true,
		.address = fault->iova,
	};

	viommu_hardware_fault(d->endpoint, &told, history, bytes);
}

/* --- what is reported of it --- */

int vm_viommu_describe(struct hospes_vm *vm, struct acpi_viommu *ret, struct err *err)
{
	const struct pci_addr *addr = virtio_pci_addr(vm->viommu_dev);
	struct vm_device *d = NULL;
	uint16_t *endpoints;
	unsigned int n = ports_count(vm);

	while ((d = vm_next_device(vm, d, NULL)))
		n++;
	endpoints = calloc(n + 1, sizeof(*endpoints));
	if (!endpoints)
		return err_set(err, -ENOMEM, "no memory for %u devices", n);
	/* What comes later is known to the guest by its slot. */
	n = ports_describe(vm, endpoints);
	while ((d = vm_next_device(vm, d, NULL))) {
		if (d->endpoint && d->dev && !d->port)
			endpoints[n++] = (uint16_t)vm_device_requester(d);
	}
	*ret = (struct acpi_viommu){
		.requester = (uint16_t)(addr->bus << 8 | addr->slot << 3 | addr->function),
		.endpoints = endpoints,
		.n = n,
	};
	return 0;
}

void vm_viommu_reset(struct hospes_vm *vm)
{
	vm_assert_own_thread(vm);
	if (!vm->viommu)
		return;
	viommu_reset(vm->viommu);
	viommu_set_bypass(vm->viommu, vm->config.viommu.bypass);
}

int vm_viommu_switch(struct hospes_vm *vm, const char *strategy, struct err *err)
{
	struct vm_device *d = NULL;
	bool behind = false;
	int rc;

	vm_assert_own_thread(vm);
	while ((d = vm_next_device(vm, d, &kind_passthrough)))
		behind |= d->endpoint != NULL;
	if (!behind)
		return err_set(err, -ENODEV,
			       "strategy '%s': no passed-through device is behind a virtual "
			       "IOMMU; start the machine with viommu on, for it and the device",
			       strategy);
	rc = viommu_switch(vm->viommu, NULL, strategy, err);
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
	struct viommu_limits limits;
	struct viommu_totals t;
	json_t *item, *requests, *list;

	if (!vm->viommu)
		return NULL;
	viommu_totals(vm->viommu, &t);
	viommu_limits(vm->viommu, &limits);
	item = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "addr",
			 pci_addr_format(virtio_pci_addr(vm->viommu_dev), addr), "bypass",
			 viommu_bypass(vm->viommu), "mappings", (json_int_t)t.mappings,
			 "mapped_bytes", (json_int_t)t.mapped_bytes, "mapped_bytes_limit",
			 (json_int_t)limits.mapped_bytes, "table_pages", (json_int_t)t.tables,
			 "table_pages_limit", (json_int_t)limits.tables, "map_bytes",
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
