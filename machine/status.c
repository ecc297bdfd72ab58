// SPDX-License-Identifier: Apache-2.0
// The status document: state, exits, devices with their addresses, traps of every register region.
#include <stdlib.h>
#include <unistd.h>

#include "base/num.h"
#include "machine/kind_passthrough.h"
#include "machine/rate.h"
#include "machine/vm.h"
#include "virtio/pci.h"

static const char *const state_names[] = {"created", "running", "paused", "stopped"};
static const char *const outcome_names[] = {"none",     "powered off", "reset", "killed",
					    "panicked", "crashed",     "error", "migrated"};

static const char *const exit_names[VCPU_EXIT_KINDS] = {[VCPU_EXIT_IO] = "io",
							[VCPU_EXIT_MMIO] = "mmio",
							[VCPU_EXIT_INTR] = "interrupted",
							[VCPU_EXIT_HLT] = "halted",
							[VCPU_EXIT_OTHER] = "other"};

/* Of each vCPU, and their exits added to `exits`. */
static json_t *vcpu_list(struct hospes_vm *vm, json_t *exits)
{
	uint64_t sum[VCPU_EXIT_KINDS] = {0}, total = 0;
	json_t *list = json_array();

	for (unsigned int i = 0; i < vm->config.cpus.max; i++) {
		json_t *of = json_object(), *item;
		struct vcpu_stats s;

		vcpus_stats(vm->vcpus, i, &s);
		for (unsigned int k = 0; k < VCPU_EXIT_KINDS; k++) {
			sum[k] += s.exits[k];
			total += s.exits[k];
			json_object_set_new(of, exit_names[k],
					    json_pack("{s:I, s:I}", "calls", (json_int_t)s.exits[k],
						      "ns", (json_int_t)s.exit_ns[k]));
		}
		item = json_pack("{s:i, s:b, s:I, s:o}", "index", (int)i, "in",
				 vcpus_is_in(vm->vcpus, i), "cpu_ns", (json_int_t)s.cpu_ns, "exits",
				 of);
		if (s.has_steal)
			json_object_set_new(item, "steal_ns", json_integer((json_int_t)s.steal_ns));
		json_array_append_new(list, item);
	}
	json_object_set_new(exits, "total", json_integer((json_int_t)total));
	for (unsigned int k = 0; k < VCPU_EXIT_KINDS; k++)
		json_object_set_new(exits, exit_names[k], json_integer((json_int_t)sum[k]));
	return list;
}

json_t *vm_device_status(struct vm_device *d)
{
	char addr[PCI_ADDR_TEXT];
	json_t *item = json_pack("{s:s, s:s}", "kind", d->kind->schema.what, "id", d->config->id);

	if (d->dev)
		json_object_set_new(item, "type",
				    json_string(d->vdev ? d->vdev->ops->type : d->dev->ops->type));
	if (d->vdev) {
		json_object_set_new(item, "addr",
				    json_string(pci_addr_format(virtio_pci_addr(d->dev), addr)));
		json_object_set_new(item, "features",
				    json_sprintf("0x%llx", (unsigned long long)d->vdev->features));
	}
	if (d->port)
		json_object_set_new(item, "port", json_string(d->port->dev->name));
	if (d->leave_ns)
		json_object_set_new(item, "leaving", json_true());
	vm_device_rate_status(d, item);
	if (d->kind->status)
		d->kind->status(d, item);
	return item;
}

static json_t *devices(struct hospes_vm *vm)
{
	json_t *list = json_array();
	struct vm_device *d = NULL;

	while ((d = vm_next_device(vm, d, NULL)))
		json_array_append_new(list, vm_device_status(d));
	return list;
}

struct region_list {
	json_t *list;
	const char *bus;
};

static void add_region(void *opaque, const struct bus_region *region)
{
	struct region_list *to = opaque;

	json_array_append_new(to->list, json_pack("{s:s, s:s, s:s#, s:I, s:I}", "name",
						  region->name, "bus", to->bus, "base", "", 0,
						  "size", (json_int_t)region->size_bytes, "traps",
						  (json_int_t)atomic_load(&region->traps)));
	json_object_set_new(json_array_get(to->list, json_array_size(to->list) - 1), "base",
			    json_sprintf("0x%llx", (unsigned long long)region->base));
}

static json_t *regions(struct hospes_vm *vm)
{
	struct region_list to = {.list = json_array(), .bus = "mmio"};

	bus_walk(vm->mmio, add_region, &to);
	to.bus = "pio";
	bus_walk(vm->pio, add_region, &to);
	return to.list;
}

static json_t *layers_and_lacks(const struct sandbox *s, json_t *lacks)
{
	json_t *ret = json_array();

	for (enum sandbox_layer layer = 0; layer < SANDBOX_LAYERS; layer++) {
		const char *name = sandbox_layer_name(layer);

		if (sandbox_has(s, layer))
			json_array_append_new(ret, json_string(name));
		else
			json_object_set_new(lacks, name, json_string(sandbox_lack(s, layer)));
	}
	return ret;
}

static json_t *sandbox_status(const struct sandbox *s)
{
	json_t *lacks = json_object(), *threads = json_object();

	for (enum thread_role role = 0; role < THREAD_ROLES; role++) {
		unsigned int n = sandbox_threads(s, role);

		if (n)
			json_object_set_new(threads, thread_role_name(role),
					    json_integer((json_int_t)n));
	}
	return json_pack("{s:o, s:o, s:o}", "layers", layers_and_lacks(s, lacks), "lacks", lacks,
			 "threads", threads);
}

char *vm_status(struct hospes_vm *vm)
{
	json_t *exits = json_object(), *vcpus = vcpu_list(vm, exits);
	json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "name",
				 vm->config.name ? vm->config.name : "", "state",
				 state_names[atomic_load(&vm->state)], "outcome",
				 outcome_names[atomic_load(&vm->outcome)], "pid", (int)getpid(),
				 "resets", (json_int_t)vm->resets, "memory_bytes",
				 (json_int_t)gmem_ram_bytes(vm->gmem), "loop",
				 loop_backend_name(vm->loop), "exits", exits, "vcpus", vcpus,
				 "devices", devices(vm), "regions", regions(vm));
	json_t *iommu = vm_iommu_status(vm);
	json_t *viommu = vm_viommu_status(vm);
	json_t *debugger = vm_debug_status(vm);
	json_t *dump = vm_dump_status(vm);
	json_t *migration = vm_migrate_status(vm);
	char *text;

	json_object_set_new(root, "cpus", cpus_status(vm));
	json_object_set_new(root, "memory", memory_status(vm));
	json_object_set_new(root, "sandbox", sandbox_status(vm->sandbox));
	if (iommu)
		json_object_set_new(root, "iommu", iommu);
	if (viommu)
		json_object_set_new(root, "viommu", viommu);
	if (debugger)
		json_object_set_new(root, "debugger", debugger);
	if (dump)
		json_object_set_new(root, "dump", dump);
	if (migration)
		json_object_set_new(root, "migration", migration);
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;

	json_decref(root);
	return text;
}
