// SPDX-License-Identifier: Apache-2.0
// Root ports, and devices that leave a guest that runs.
#include "machine/hotplug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "machine/vm.h"

#define RETRY_NS NS_PER_S /* where a vCPU is held in an exit */

/* --- ports --- */

static void timer_done(struct loop_op *op, int result)
{
	struct vm_hotplug *h = container_of(op, struct vm_hotplug, timer);

	(void)result; /* hotplug_act follows */
	h->timer_set = false;
}

void hotplug_init(struct hospes_vm *vm)
{
	list_init(&vm->hotplug.ports);
	vm->hotplug.timer.done = timer_done;
}

static uint64_t read_remains(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void write_remains(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
}

static const struct bus_ops remains_ops = {
	.read = read_remains,
	.write = write_remains,
	.min = 1,
	.max = 8,
};

static void clear_remains(struct hospes_vm *vm, struct vm_port *port)
{
	if (port->has_remains)
		bus_del(vm->mmio, &port->remains);
	port->has_remains = false;
}

struct registers {
	const struct pci_bus *bus;
	uint64_t gpa, bytes;
};

static void find_registers(void *opaque, struct pci_device *dev)
{
	struct registers *r = opaque;

	for (unsigned int i = 0; i < PCI_BARS && dev->bus == r->bus; i++) {
		const struct pci_bar *bar = &dev->bars[i];

		if (bar->visible && bar->kind != PCI_BAR_IO) {
			r->gpa = bar->gpa;
			r->bytes = bar->size_bytes;
		}
	}
}

/* Of d, which is virtio and has one memory BAR; none while the guest does not decode it. */
static struct registers registers_of(struct vm_device *d)
{
	struct registers r = {.bus = root_port_bus(d->port->dev)};

	pci_root_lock(d->vm->pci);
	pci_root_walk(d->vm->pci, find_registers, &r);
	pci_root_unlock(d->vm->pci);
	return r;
}

/* Where that fails, something else is there already. */
static void leave_remains(struct hospes_vm *vm, struct vm_port *port, const struct registers *r)
{
	port->remains = (struct bus_region){
		.ops = &remains_ops,
		.name = port->dev->name,
		.size_bytes = r->bytes,
	};
	port->has_remains = r->bytes && !bus_add(vm->mmio, &port->remains, r->gpa, NULL);
}

static uint64_t pages_bytes(const struct hospes_vm *vm)
{
	return (uint64_t)vm->config.pci.root_ports * PCI_CONFIG_BYTES;
}

static uint64_t pages_gpa(const struct hospes_vm *vm)
{
	return pci_root_windows(vm->pci)->ecam_gpa + CONFIG_ROOT_PORT_SLOT * 8 * PCI_CONFIG_BYTES;
}

void ports_done(struct hospes_vm *vm)
{
	list_for_each_safe (item, &vm->hotplug.ports) {
		struct vm_port *port = container_of(item, struct vm_port, link);

		clear_remains(vm, port);
		free(port);
	}
	list_init(&vm->hotplug.ports);
	if (vm->hotplug.shown)
		arch_vm_unmap_host(vm->arch, pages_gpa(vm));
	if (vm->hotplug.pages)
		munmap(vm->hotplug.pages, pages_bytes(vm));
	vm->hotplug.pages = NULL;
	vm->hotplug.shown = false;
}

/* In a vCPU thread. */
static void turned_off(void *opaque)
{
	struct hospes_vm *vm = opaque;

	loop_post(vm->loop, &vm->wake);
}

int port_create(struct vm_port **ret, struct hospes_vm *vm, const char *name,
		const struct pci_addr *addr, uint16_t slot_number, struct err *err)
{
	const struct device_env env = vm_device_env(vm);
	bool spare = slot_number <= CONFIG_MAX_ROOT_PORTS;
	struct root_port_config config = {
		.name = name,
		.addr = addr,
		.slot_number = slot_number,
		.turned_off = turned_off,
		.opaque = vm,
	};
	struct vm_port *port;
	int rc;

	if (spare && vm->hotplug.pages)
		config.page = vm->hotplug.pages + (slot_number - 1u) * PCI_CONFIG_BYTES;
	if (!mem_new(port))
		return err_set(err, -ENOMEM, "%s: no memory", name);
	rc = root_port_create(&port->dev, &env, vm->pci, &config, err);
	if (rc) {
		free(port);
		return rc;
	}
	vm_adopt(vm, port->dev);
	port->spare = spare;
	list_append(&vm->hotplug.ports, &port->link);
	*ret = port;
	return 0;
}

/* Functions of one slot of bus 0, so that their config spaces are neighbours (PCI Express Base 6.0,
 * 7.2.2). Without pages, or where KVM does not take them, the guest's reads are exits. */
static void make_pages(struct hospes_vm *vm)
{
	void *p = mmap(NULL, pages_bytes(vm), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	vm->hotplug.pages = p == MAP_FAILED ? NULL : p;
}

static void show_pages(struct hospes_vm *vm)
{
	struct vm_hotplug *h = &vm->hotplug;
	struct err err = ERR_INIT;

	if (!h->pages)
		return;
	h->shown =
		!arch_vm_map_host(vm->arch, pages_gpa(vm), h->pages, pages_bytes(vm), true, &err);
	if (!h->shown)
		log_debug(&vm->log, "pci", "config spaces of root ports: %s", err.text);
}

int ports_create_spare(struct hospes_vm *vm, struct err *err)
{
	int rc = 0;

	if (!vm->config.pci.root_ports)
		return 0;
	make_pages(vm);
	for (unsigned int i = 0; i < vm->config.pci.root_ports && !rc; i++) {
		const struct pci_addr addr = {.slot = CONFIG_ROOT_PORT_SLOT,
					      .function = (uint8_t)i};
		struct vm_port *port;
		char name[16];

		snprintf(name, sizeof(name), "port%u", i);
		rc = port_create(&port, vm, name, &addr, (uint16_t)(i + 1), err);
	}
	if (!rc)
		show_pages(vm);
	return rc;
}

/* One that the guest has turned off first: in another it may still be busy with the device before,
 * and notice the next one late. Then one that leaves those behind the virtual IOMMU to others. */
static unsigned int preference(const struct vm_port *port, bool viommu)
{
	return 2u * root_port_is_off(port->dev) + (port->described == viommu);
}

int port_find(struct vm_port **ret, struct hospes_vm *vm, const struct config_device *device,
	      struct err *err)
{
	struct vm_port *best = NULL;
	unsigned int n = 0;

	list_for_each (item, &vm->hotplug.ports) {
		struct vm_port *port = container_of(item, struct vm_port, link);

		n++;
		if (port->user || (device->viommu && !port->described))
			continue;
		if (!best || preference(port, device->viommu) > preference(best, device->viommu))
			best = port;
	}
	*ret = best;
	return best ? 0
		    : err_set(err, -ENOSPC,
			      "'%s': none of the %u PCIe root ports is free%s; remove a device, "
			      "or start the machine with more (pci.root_ports, --root-ports, at "
			      "most %d)",
			      device->id, n,
			      device->viommu ? " for a device behind the virtual IOMMU" : "",
			      CONFIG_MAX_ROOT_PORTS);
}

void port_take(struct vm_port *port, struct vm_device *d)
{
	clear_remains(d->vm, port);
	port->user = d;
	d->port = port;
}

void port_put(struct vm_device *d)
{
	struct vm_port *port = d->port;

	if (!port)
		return;
	d->port = NULL;
	port->user = NULL;
	/* No guest has seen it. */
	if (!port->spare && atomic_load(&d->vm->state) == HOSPES_CREATED) {
		list_remove(&port->dev->link);
		port->dev->ops->destroy(port->dev);
		list_remove(&port->link);
		free(port);
	}
}

unsigned int ports_count(struct hospes_vm *vm)
{
	unsigned int n = 0;

	list_for_each (item, &vm->hotplug.ports)
		n++;
	return n;
}

unsigned int ports_describe(struct hospes_vm *vm, uint16_t *requesters)
{
	unsigned int n = 0;

	list_for_each (item, &vm->hotplug.ports) {
		struct vm_port *port = container_of(item, struct vm_port, link);

		port->described = !port->user || port->user->endpoint;
		if (port->described)
			requesters[n++] = (uint16_t)(pci_bus_number(root_port_bus(port->dev)) << 8);
	}
	return n;
}

/* --- leaving --- */

static void finish(struct vm_device *d, bool forced)
{
	struct hospes_vm *vm = d->vm;
	struct vm_port *port = d->port;
	struct registers registers = {0};
	char id[CONFIG_ID_BYTES], text[CONFIG_ID_BYTES + 64];

	snprintf(id, sizeof(id), "%s", d->config->id);
	if (forced && port && d->vdev)
		registers = registers_of(d);
	if (vm_device_remove(d)) {
		d->leave_stuck = true;
		d->leave_ns = clock_ns() + RETRY_NS;
		return;
	}
	if (registers.bytes)
		leave_remains(vm, port, &registers);
	snprintf(text, sizeof(text), "'%s': %s", id,
		 forced ? "pulled out without the guest's consent" : "removed");
	log_info(&vm->log, "hotplug", "%s", text);
	vm_emit_device(vm, HOSPES_EVENT_DEVICE_REMOVED, forced, text, id);
}

static void refuse(struct vm_device *d)
{
	struct hospes_vm *vm = d->vm;
	char text[400];

	d->leave_ns = 0;
	snprintf(text, sizeof(text), "'%s': the guest keeps it: %s", d->config->id,
		 atomic_load(&vm->state) == HOSPES_PAUSED ? "it is paused"
							  : root_port_refusal(d->port->dev));
	log_warn(&vm->log, "hotplug", "%s", text);
	vm_emit_device(vm, HOSPES_EVENT_DEVICE_KEPT, 0, text, d->config->id);
}

static bool is_given_up(const struct vm_device *d)
{
	return !d->dev || (d->port && root_port_is_off(d->port->dev));
}

/* d may be gone afterwards. */
static void look_at(struct vm_device *d, uint64_t now_ns)
{
	bool over = now_ns >= d->leave_ns, given_up;

	if (!d->leave_ns || (d->leave_stuck && !over))
		return;
	given_up = is_given_up(d);
	if (given_up || (over && d->leave_force))
		finish(d, !given_up);
	else if (over)
		refuse(d);
}

static uint64_t first_end(struct hospes_vm *vm)
{
	struct vm_device *d = NULL;
	uint64_t first = UINT64_MAX;

	while ((d = vm_next_device(vm, d, NULL))) {
		if (d->leave_ns)
			first = MIN(first, d->leave_ns);
	}
	return first;
}

static void clear_turned_off(struct hospes_vm *vm)
{
	list_for_each (item, &vm->hotplug.ports) {
		struct vm_port *port = container_of(item, struct vm_port, link);

		if (port->has_remains && root_port_is_off(port->dev))
			clear_remains(vm, port);
	}
}

void hotplug_act(struct hospes_vm *vm)
{
	struct vm_hotplug *h = &vm->hotplug;
	struct vm_device *d = vm_next_device(vm, NULL, NULL), *next;
	uint64_t now_ns, first_ns = first_end(vm);

	clear_turned_off(vm);
	if (first_ns == UINT64_MAX || atomic_load(&vm->state) == HOSPES_STOPPED)
		return;
	now_ns = clock_ns();
	for (; d; d = next) {
		next = vm_next_device(vm, d, NULL);
		look_at(d, now_ns);
	}
	first_ns = first_end(vm);
	if (first_ns == UINT64_MAX || h->timer_set)
		return;
	h->timer_set = true;
	loop_timer(vm->loop, &h->timer, first_ns > now_ns ? first_ns - now_ns : 1);
}

void hotplug_before_reset(struct hospes_vm *vm)
{
	struct vm_device *d = vm_next_device(vm, NULL, NULL), *next;

	for (; d; d = next) {
		next = vm_next_device(vm, d, NULL);
		if (d->leave_ns)
			finish(d, false);
	}
	list_for_each (item, &vm->hotplug.ports)
		clear_remains(vm, container_of(item, struct vm_port, link));
}

void hotplug_cancel(struct hospes_vm *vm)
{
	if (vm->hotplug.timer_set)
		loop_cancel(vm->loop, &vm->hotplug.timer);
}

static struct vm_device *find(struct hospes_vm *vm, const char *id, struct err *err)
{
	struct vm_device *d = NULL;

	while ((d = vm_next_device(vm, d, NULL))) {
		if (strcmp(d->config->id, id) == 0)
			return d;
	}
	err_set(err, -ENOENT, "there is no device '%s' in this machine; its status lists them", id);
	return NULL;
}

/* Can the guest be asked for it? */
static int check_removal(const struct vm_device *d, const struct hotplug_removal *removal,
			 struct err *err)
{
	const char *id = d->config->id;

	if (removal->force)
		return 0;
	if (!removal->timeout_ns)
		return err_set(err, -EINVAL,
			       "'%s': give the guest time (Linux takes 6 s), or pull the device "
			       "out by force",
			       id);
	if (!d->port)
		return err_set(err, -EOPNOTSUPP,
			       "'%s' is not behind a PCIe root port, so the guest cannot give it "
			       "up; force takes it away without asking",
			       id);
	if (atomic_load(&d->vm->state) == HOSPES_PAUSED)
		return err_set(err, -EBUSY,
			       "'%s': the guest is paused and cannot give it up; resume the "
			       "machine, or use force",
			       id);
	if (d->leave_ns)
		return err_set(err, -EALREADY, "'%s': the guest is asked for it already", id);
	return 0;
}

int hotplug_remove(struct hospes_vm *vm, const struct hotplug_removal *removal, struct err *err)
{
	struct vm_device *d = find(vm, removal->id, err);
	bool runs = atomic_load(&vm->state) != HOSPES_CREATED;
	int rc;

	vm_assert_own_thread(vm);
	if (!d)
		return -ENOENT;
	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return err_set(err, -EBUSY, "cannot remove '%s': the machine is stopped",
			       removal->id);
	rc = runs && d->dev ? check_removal(d, removal, err) : 0;
	if (rc)
		return rc;
	d->leave_force = removal->force;
	d->leave_stuck = false;
	d->leave_ns = clock_ns() + removal->timeout_ns;
	if (!runs || is_given_up(d) || !d->port || !removal->timeout_ns) {
		finish(d, runs && !is_given_up(d));
	} else {
		root_port_press(d->port->dev);
		/* The timer may be for a later end. */
		hotplug_cancel(vm);
	}
	return 0;
}
