/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the PCI framework share: registers, the root, and who calls whom. */
#ifndef CORE_PCI_IMPL_H
#define CORE_PCI_IMPL_H

#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "core/pci.h"

/* What <linux/pci_regs.h> lacks of headers of type 0 and 1 (PCI Express Base 6.0, 7.5.1). */
enum {
	PCI_STATUS_W1C = 0xf900, /* parity, SERR, master and target abort */
	PCI_ROM_MIN_BYTES = 2048,

	PCI_CAP_FIRST = 0x40,
	PCI_CAP_END = 0x100,
	PCI_ECAP_FIRST = 0x100,

	PCI_DEVFNS = 256,
};

/* Enable, bus, device, function, doubleword: other bits of the address port are reserved. */
#define PCI_CONFIG_ADDRESS_BITS 0x80fffffcu

/* Under the root's lock. */
struct pci_bus {
	struct pci_root *root;     /* NULL until the bridge is attached */
	struct pci_device *bridge; /* NULL: bus 0 */
	struct pci_device *functions[PCI_DEVFNS];
	uint64_t bridges[PCI_DEVFNS / 64]; /* bit devfn: functions[devfn] is one */
};

struct pci_root {
	struct pci_root_config config;
	/* Recursive: a hook may call what takes it. Guards the hierarchy, and where BARs are. */
	pthread_mutex_t lock;
	struct pci_bus bus0;
	struct pci_device host; /* 00:00.0 */
	uint32_t config_address;
	uint8_t last_bus; /* that was assigned */
	/* Resets of functions are done under the lock and take up to a second each: vCPUs that
	 * write config space pay for the time that they have had it. */
	struct budget held;
	struct bus_region ecam;
	struct bus_region ports; /* 0xcf8 to 0xcff */
	struct bus_region *reset_port;
};

static inline bool pci_is_bridge(const struct pci_device *dev)
{
	return dev->secondary != NULL;
}

/* Which kind of PCI Express port dev is; -1 without that capability. */
int pci_port_type(const struct pci_device *dev);

/* Is the power of dev's slot turned off? Then nothing below it answers. False: it has no slot. */
bool pci_slot_is_off(const struct pci_device *dev);

/* Walk bus and what is below in order of addresses. */
void pci_bus_walk(struct pci_bus *bus, void (*fn)(void *opaque, struct pci_device *dev),
		  void *opaque);

/* After command, BARs, windows or bus numbers changed: make visible what is to be visible now.
 * locked: the caller holds dev's lock (and dev is no bridge with devices below). Root lock held. */
void pci_update(struct pci_device *dev, bool locked);
/* The same for everything behind a bridge, and its bus numbers. */
void pci_update_below(struct pci_device *bridge);
/* Make nothing of dev visible. */
void pci_hide(struct pci_device *dev);

static inline unsigned int pci_bar_register(unsigned int bar)
{
	return bar == PCI_ROM ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + 4 * bar;
}

/* The address in a BAR's registers, and storing one there. */
uint64_t pci_bar_address(const struct pci_device *dev, unsigned int bar);
void pci_bar_store(struct pci_device *dev, unsigned int bar, uint64_t address);

/* Does this write ask for a function-level reset? value: its bytes, the first lowest. */
bool pci_flr_written(const struct pci_device *dev, unsigned int offset, unsigned int size,
		     uint32_t value);

/* Around config accesses; written also when bus mastering changed, which gates messages. Device
 * lock held, or vCPUs out. */
void pci_caps_read(struct pci_device *dev);
void pci_caps_written(struct pci_device *dev);

/* Bring the INTx pin to what status and command say. */
void pci_intx_update(struct pci_device *dev);

#endif
