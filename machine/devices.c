// SPDX-License-Identifier: Apache-2.0
// The devices of the document's kinds: into the machine and out of it, at boot and while it runs.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/hotplug.h"
#include "machine/vm.h"
#include "platform/platform.h"
#include "virtio/pci.h"

struct vm_device *vm_next_device(struct hospes_vm *vm, const struct vm_device *after,
				 const struct device_kind *kind)
{
	const struct list *i = after ? &after->link : &vm->devices;

	vm_assert_own_thread(vm);
	while ((i = i->next) != &vm->devices) {
		struct vm_device *d = container_of(i, struct vm_device, link);

		if (!kind || d->kind == kind)
			return d;
	}
	return NULL;
}

struct vm_device *vm_find_device(struct hospes_vm *vm, const char *kind, const char *id,
				 struct err *err)
{
	struct vm_device *d = NULL;

	while ((d = vm_next_device(vm, d, NULL))) {
		if ((!kind || strcmp(d->kind->schema.what, kind) == 0) &&
		    strcmp(d->config->id, id) == 0)
			return d;
	}
	err_set(err, -ENOENT, "there is no %s '%s' in this machine", kind ? kind : "device", id);
	return NULL;
}

void vm_act(struct hospes_vm *vm)
{
	struct vm_device *d = NULL;

	while ((d = vm_next_device(vm, d, NULL))) {
		if (d->kind->act)
			d->kind->act(d);
	}
	hotplug_act(vm);
}

/* --- the layout --- */

int vm_layout_avoid(struct vm_layout *layout, uint64_t first, uint64_t last, const char *who,
		    const char *what)
{
	unsigned int n = layout->arch.n_avoid;
	struct arch_avoid *grown = realloc(layout->avoid, (n + 1) * sizeof(*grown));
	char *text;

	if (!grown)
		return -ENOMEM;
	layout->avoid = grown;
	layout->arch.avoid = grown;
	if (asprintf(&text, "%s: %s", who, what) < 0)
		return -ENOMEM;
	grown[n] = (struct arch_avoid){first, last, text};
	layout->arch.n_avoid++;
	return 0;
}

void vm_layout_done(struct vm_layout *layout)
{
	for (unsigned int i = 0; i < layout->arch.n_avoid; i++)
		free((void *)layout->avoid[i].what);
	free(layout->avoid);
}

/* --- for kinds --- */

static uint32_t requester_of_virtio(const struct device *dev)
{
	const struct pci_addr *addr = virtio_pci_addr(dev);

	return (uint32_t)(addr->bus << 8 | addr->slot << 3 | addr->function);
}

uint32_t vm_device_requester(const struct vm_device *d)
{
	return d->vdev ? requester_of_virtio(d->dev) : pci_requester_id(vfio_pci_function(d->dev));
}

static uint32_t requester(void *opaque)
{
	return vm_device_requester(opaque);
}

int vm_device_plug_virtio(struct vm_device *d, struct virtio_device *vdev, struct err *err)
{
	struct device_env env = vm_device_env(d->vm);
	const struct virtio_pci_config config = {
		.addr = d->config->addr.set ? &d->config->addr.addr : NULL,
		.bus = vm_device_bus(d),
		.platform_dma = d->config->viommu,
	};
	int rc = 0;

	if (d->config->viommu)
		rc = viommu_add_emulated(&d->endpoint, d->vm->viommu, d->config->id, &env.dma, err);
	if (!rc)
		rc = virtio_pci_create(&d->dev, &env, &config, vdev, err);
	if (rc) {
		vdev->ops->destroy(vdev);
		return err_prefix(err, "%s '%s'", d->kind->schema.what, d->config->id);
	}
	d->vdev = vdev;
	return 0;
}

struct pci_bus *vm_device_bus(const struct vm_device *d)
{
	return d->port ? root_port_bus(d->port->dev) : pci_root_bus(d->vm->pci);
}

int vm_device_add_port(struct vm_device *d, const struct pci_addr *addr, struct err *err)
{
	char name[CONFIG_ID_BYTES + 8];
	struct vm_port *port;
	int rc;

	if (d->port)
		return 0;
	snprintf(name, sizeof(name), "port-%s", d->config->id);
	rc = port_create(&port, d->vm, name, addr, (uint16_t)(CONFIG_MAX_ROOT_PORTS + d->index + 1),
			 err);
	if (!rc)
		port_take(port, d);
	return rc;
}

/* --- out of the machine --- */

/* Off its bus and gone. The guest's requests to the virtual IOMMU find devices by their numbers:
 * this one no more, before it goes. */
static void unplug(struct vm_device *d)
{
	if (!d->dev)
		return;
	if (d->endpoint)
		viommu_set_id(d->endpoint, NULL, NULL);
	list_remove(&d->dev->link);
	d->dev->ops->destroy(d->dev);
	d->dev = NULL;
	d->vdev = NULL;
}

static void quiesce(struct vm_device *d)
{
	for (unsigned int phase = 0; phase < 2; phase++) {
		if (d->dev->ops->quiesce)
			d->dev->ops->quiesce(d->dev, phase);
	}
}

int vm_device_release(struct vm_device *d)
{
	struct hospes_vm *vm = d->vm;
	bool running = d->dev && atomic_load(&vm->state) == HOSPES_RUNNING;

	vm_assert_own_thread(vm);
	if (running && vm_pause_vcpus(vm, NULL))
		return -ETIMEDOUT;
	if (running)
		quiesce(d);
	/* Requests may run meanwhile, which ask the device for its number. */
	if (d->endpoint)
		viommu_set_id(d->endpoint, NULL, NULL);
	unplug(d);
	viommu_remove(d->endpoint);
	d->endpoint = NULL;
	if (d->kind->close)
		d->kind->close(d);
	if (d->port)
		root_port_set_present(d->port->dev, false);
	if (running)
		vcpus_resume(vm->vcpus);
	return 0;
}

int vm_device_remove(struct vm_device *d)
{
	if (!d)
		return 0;
	if (vm_device_release(d))
		return -ETIMEDOUT;
	port_put(d);
	list_remove(&d->link);
	config_device_remove(d->config);
	free(d);
	return 0;
}

void vm_remove_devices(struct hospes_vm *vm)
{
	vm_assert_own_thread(vm);
	vm_viommu_unplug(vm);
	for (struct list *i = vm->devices.prev; i != &vm->devices; i = i->prev)
		unplug(container_of(i, struct vm_device, link));
	for (struct list *i = vm->devices.prev, *before = i->prev; i != &vm->devices;
	     i = before, before = i->prev)
		vm_device_remove(container_of(i, struct vm_device, link));
	while (!list_empty(&vm->plugged)) {
		struct device *dev = container_of(vm->plugged.prev, struct device, link);

		list_remove(&dev->link);
		dev->ops->destroy(dev);
	}
	ports_done(vm);
}

/* --- into it --- */

static unsigned int free_index(struct hospes_vm *vm, const struct device_kind *kind)
{
	struct vm_device *d = NULL;
	unsigned int index = 0;

	while ((d = vm_next_device(vm, d, kind))) {
		if (d->index == index) {
			index++;
			d = NULL; /* they are in no order */
		}
	}
	return index;
}

/* What it has is undone by vm_device_remove, also after a failure: then *ret is NULL. */
static int open_device(struct hospes_vm *vm, struct config_device *config, struct vm_port *port,
		       struct vm_device **ret, struct err *err)
{
	const struct device_kind *kind = device_kind_of(config);
	struct vm_device *d = calloc(1, kind->bytes);
	int rc;

	*ret = NULL;
	if (!d)
		return err_set(err, -ENOMEM, "'%s': no memory", config->id);
	d->vm = vm;
	d->kind = kind;
	d->config = config;
	d->index = free_index(vm, kind);
	if (port)
		port_take(port, d);
	list_append(&vm->devices, &d->link);
	rc = kind->open ? kind->open(d, err) : 0;
	if (rc)
		vm_device_remove(d);
	else
		*ret = d;
	return rc;
}

static int plug_device(struct vm_device *d, struct err *err)
{
	int rc = d->kind->create(d, err);

	if (rc)
		return rc;
	vm_adopt(d->vm, d->dev);
	if (d->endpoint)
		viommu_set_id(d->endpoint, requester, d);
	if (!d->port)
		return 0;
	root_port_set_present(d->port->dev, true);
	/* It is in its slot at power-on: no event. */
	if (atomic_load(&d->vm->state) == HOSPES_CREATED)
		d->port->dev->ops->reset(d->port->dev);
	return 0;
}

static int find_shared(void *opaque, const struct gmem_region *region)
{
	(void)opaque;
	return region->fd >= 0;
}

static int check_addition(struct hospes_vm *vm, const struct device_kind *kind, struct err *err)
{
	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return err_set(err, -EBUSY, "cannot add a %s: the machine is stopped",
			       kind->schema.what);
	if (kind->shares_memory && !gmem_walk(vm->gmem, find_shared, NULL))
		return err_set(err, -EINVAL,
			       "cannot add a %s: it needs guest memory that can be shared; start "
			       "the machine with memory.backing memfd",
			       kind->schema.what);
	return 0;
}

int vm_device_add(struct hospes_vm *vm, struct config_device *config, struct vm_device **ret,
		  struct err *err)
{
	bool hot_plug = atomic_load(&vm->state) != HOSPES_CREATED;
	struct vm_port *port = NULL;
	struct vm_device *d;
	int rc;

	*ret = NULL;
	vm_assert_own_thread(vm);
	rc = check_addition(vm, device_kind_of(config), err);
	if (!rc)
		rc = config_device_add(&vm->config, config, hot_plug, err);
	if (rc) {
		config_device_free(config);
		return rc;
	}
	if (hot_plug && config_device_is_pci(config)) {
		rc = port_find(&port, vm, config, err);
		if (rc) {
			config_device_remove(config);
			return rc;
		}
	}
	rc = open_device(vm, config, port, &d, err);
	if (rc)
		return rc;
	rc = plug_device(d, err);
	if (rc) {
		vm_device_remove(d);
		return rc;
	}
	if (atomic_load(&vm->state) == HOSPES_PAUSED)
		quiesce(d);
	*ret = d;
	return 0;
}

int vm_open_devices(struct hospes_vm *vm, struct vm_layout *layout, struct err *err)
{
	struct config_device *config = NULL;
	struct vm_device *d;
	int rc = 0;

	while (!rc && (config = config_next(&vm->config, config, NULL))) {
		rc = open_device(vm, config, NULL, &d, err);
		if (!rc && d->kind->layout)
			rc = d->kind->layout(d, layout, err);
	}
	return rc;
}

int vm_plug_devices(struct hospes_vm *vm, struct err *err)
{
	struct vm_device *d = NULL;
	int rc = 0;

	while (!rc && (d = vm_next_device(vm, d, NULL)))
		rc = plug_device(d, err);
	return rc;
}
