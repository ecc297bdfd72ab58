/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root ports of a machine, and how a device leaves a guest that runs.
 *
 *   hotplug_remove ─► button pressed ─┬─► the guest turns its slot off ─► removed ─► event
 *                                     ├─► its time is over ─► refused, with the reason ─► event
 *                                     └─► its time is over, and force ─► pulled out ─► event
 *
 * A port is spare (pci.root_ports) or brought by a passed-through device of the document. Once the
 * machine has started, a port stays when its device goes: it is free for the next.
 *
 * Threads: the machine's, asserted where it matters. Not inside a callback of a loop.
 */
#ifndef MACHINE_HOTPLUG_H
#define MACHINE_HOTPLUG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "core/bus.h"
#include "core/loop.h"
#include "core/pci.h"

struct config_device;
struct device;
struct hospes_vm;
struct vm_device;

struct vm_port {
	struct list link; /* of vm_hotplug, in order of creation */
	struct device *dev;
	struct vm_device *user; /* NULL: free */
	bool spare;             /* of the document, not brought by a device */
	bool described;         /* to the guest: what is in it is behind the virtual IOMMU */
	/* Where the registers were of a virtio device that was pulled out: they read 0, until the
	 * guest turns the slot off. Linux's driver resets it all the same, and waits for that. */
	struct bus_region remains;
	bool has_remains;
};

struct vm_hotplug {
	struct list ports;
	uint8_t *pages; /* config spaces of the spare ports, one after the other; NULL: their own */
	bool shown;     /* at their place in the ECAM, for the guest to read */
	struct loop_op timer; /* until the first device's time is over */
	bool timer_set;
};

/* Before and after anything else here; the ports' devices are gone before ports_done. */
void hotplug_init(struct hospes_vm *vm);
void ports_done(struct hospes_vm *vm);

/* The document's, pci.root_ports of them. Their config spaces are memory that the guest reads and
 * does not write: looking for devices below them costs it no exit for what it reads. */
int ports_create_spare(struct hospes_vm *vm, struct err *err);
/* *ret is the machine's, which destroys it. slot_number: unique. */
int port_create(struct vm_port **ret, struct hospes_vm *vm, const char *name,
		const struct pci_addr *addr, uint16_t slot_number, struct err *err);
/* A free one for this device; -ENOSPC names the remedy. */
int port_find(struct vm_port **ret, struct hospes_vm *vm, const struct config_device *device,
	      struct err *err);
/* d goes into this port, which is free; it leaves it, where it has one. */
void port_take(struct vm_port *port, struct vm_device *d);
void port_put(struct vm_device *d);
/* How many ports there are. */
unsigned int ports_count(struct hospes_vm *vm);
/* Before the guest starts: those that are free, or have a device that is behind the virtual IOMMU,
 * are said to be. Returns how many requester IDs were written. */
unsigned int ports_describe(struct hospes_vm *vm, uint16_t *requesters);

/* Remove the device with the guest's consent, for which it has so long; 0 with force: at once. An
 * event says how it ended. */
struct hotplug_removal {
	const char *id;
	uint64_t timeout_ns;
	bool force;
};
int hotplug_remove(struct hospes_vm *vm, const struct hotplug_removal *removal, struct err *err);
/* After an iteration of the loop: what guests have given up, and what has had its time. */
void hotplug_act(struct hospes_vm *vm);
/* A guest that is reset uses nothing: what is leaving, leaves. */
void hotplug_before_reset(struct hospes_vm *vm);
/* Before the loop is destroyed: turn it until timer_set is false. */
void hotplug_cancel(struct hospes_vm *vm);

#endif
