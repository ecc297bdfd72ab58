// SPDX-License-Identifier: Apache-2.0
// A function's config space: header, BAR registers, capabilities, reset, INTx.
#include <assert.h>
#include <string.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/pci_impl.h"

static void set16(uint8_t *bytes, unsigned int reg, uint16_t v)
{
	store_le16(&bytes[reg], v);
}

static void set32(uint8_t *bytes, unsigned int reg, uint32_t v)
{
	store_le32(&bytes[reg], v);
}

/* The registers that only bridges have (7.5.1.3). 64-bit prefetchable window, 16-bit I/O window. */
static void init_bridge_header(struct pci_device *dev)
{
	memset(&dev->wmask[PCI_PRIMARY_BUS], 0xff, 3);
	dev->wmask[PCI_IO_BASE] = 0xf0;
	dev->wmask[PCI_IO_LIMIT] = 0xf0;
	set16(dev->w1c, PCI_SEC_STATUS, PCI_STATUS_W1C);
	set16(dev->wmask, PCI_MEMORY_BASE, 0xfff0);
	set16(dev->wmask, PCI_MEMORY_LIMIT, 0xfff0);
	set16(dev->wmask, PCI_PREF_MEMORY_BASE, 0xfff0);
	set16(dev->wmask, PCI_PREF_MEMORY_LIMIT, 0xfff0);
	set16(dev->config, PCI_PREF_MEMORY_BASE, 0x0001);
	set16(dev->config, PCI_PREF_MEMORY_LIMIT, 0x0001);
	set32(dev->wmask, PCI_PREF_BASE_UPPER32, ~0u);
	set32(dev->wmask, PCI_PREF_LIMIT_UPPER32, ~0u);
	/* parity and SERR enable have nothing to enable, but software sets them */
	set16(dev->wmask, PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_BUS_RESET | 3);
}

void pci_device_init(struct pci_device *dev, const struct pci_device_ops *ops, const char *name,
		     const struct pci_ids *ids)
{
	pthread_mutex_t *lock = dev->lock;
	uint8_t *config = dev->config;

	assert(ids->header_type <= 1 && ids->pin <= 4);
	*dev = (struct pci_device){.ops = ops,
				   .name = name,
				   .lock = lock,
				   .next_cap = PCI_CAP_FIRST,
				   .next_ecap = PCI_ECAP_FIRST};
	dev->config = config ? config : dev->own;
	list_init(&dev->caps);
	set16(dev->config, 0, ids->vendor);
	set16(dev->config, 2, ids->device);
	set16(dev->wmask, PCI_COMMAND,
	      PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
		      PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	set16(dev->w1c, PCI_STATUS, PCI_STATUS_W1C);
	dev->config[PCI_REVISION_ID] = ids->revision;
	dev->config[PCI_CLASS_PROG] = (uint8_t)ids->class_code;
	set16(dev->config, PCI_CLASS_PROG + 1, (uint16_t)(ids->class_code >> 8));
	dev->wmask[0x0c] = 0xff; /* cache line size: software's, without meaning (7.5.1.1.7) */
	dev->config[PCI_HEADER_TYPE] = ids->header_type;
	dev->wmask[PCI_INTERRUPT_LINE] = 0xff;
	dev->config[PCI_INTERRUPT_PIN] = ids->pin;
	if (ids->header_type == 1) {
		init_bridge_header(dev);
	} else {
		set16(dev->config, PCI_SUBSYSTEM_VENDOR_ID, ids->subsystem_vendor);
		set16(dev->config, PCI_SUBSYSTEM_VENDOR_ID + 2, ids->subsystem);
	}
}

void pci_set_bar(struct pci_device *dev, unsigned int bar, enum pci_bar_kind kind,
		 uint64_t size_bytes, struct bus_region *region)
{
	bool wide = kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH;
	unsigned int bars = dev->config[PCI_HEADER_TYPE] & 1 ? 2 : PCI_BARS;
	unsigned int reg = pci_bar_register(bar);
	uint64_t mask = ~(size_bytes - 1);
	bool rom = kind == PCI_BAR_ROM;

	assert(rom ? bar == PCI_ROM && bars == PCI_BARS : bar + wide < bars);
	assert(dev->bars[bar].kind == PCI_BAR_NONE && (!rom || size_bytes >= PCI_ROM_MIN_BYTES));
	assert(is_power_of_two(size_bytes) && size_bytes >= (kind == PCI_BAR_IO ? 4 : 16));
	assert(wide || size_bytes <= 1ull << 31);
	assert(!region || region->size_bytes == size_bytes);
	dev->bars[bar] = (struct pci_bar){.kind = kind, .size_bytes = size_bytes, .region = region};
	dev->config[reg] = kind == PCI_BAR_IO               ? 0x1
			   : kind == PCI_BAR_MEM64          ? 0x4
			   : kind == PCI_BAR_MEM64_PREFETCH ? 0xc
							    : 0x0;
	set32(dev->wmask, reg, (uint32_t)mask | (rom ? PCI_ROM_ADDRESS_ENABLE : 0));
	if (wide)
		set32(dev->wmask, reg + 4, (uint32_t)(mask >> 32));
}

unsigned int pci_add_cap(struct pci_device *dev, uint8_t id, unsigned int len)
{
	unsigned int at = dev->next_cap;

	assert(len >= 2 && at + len <= PCI_CAP_END);
	dev->config[at] = id;
	dev->config[dev->last_cap ? dev->last_cap + 1u : PCI_CAPABILITY_LIST] = (uint8_t)at;
	dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	dev->last_cap = (uint16_t)at;
	dev->next_cap = (uint16_t)align_up(at + len, 4);
	return at;
}

unsigned int pci_add_ecap(struct pci_device *dev, uint16_t id, uint8_t version, unsigned int len)
{
	unsigned int at = dev->next_ecap;

	assert(len >= 4 && at + len <= PCI_CONFIG_BYTES);
	/* The list begins at 0x100 and its pointers are in bits 31:20 (7.6.3). */
	set32(dev->config, at, id | (uint32_t)version << 16);
	if (dev->last_ecap)
		set32(dev->config, dev->last_ecap,
		      load_le32(&dev->config[dev->last_ecap]) | at << 20);
	dev->last_ecap = (uint16_t)at;
	dev->next_ecap = (uint16_t)align_up(at + len, 4);
	return at;
}

void pci_cap_hook(struct pci_device *dev, struct pci_cap *cap, const struct pci_cap_ops *ops)
{
	cap->ops = ops;
	list_append(&dev->caps, &cap->link);
}

void pci_cap_unhook(struct pci_cap *cap)
{
	if (cap->ops)
		list_remove(&cap->link);
}

void pci_caps_read(struct pci_device *dev)
{
	list_for_each (item, &dev->caps) {
		struct pci_cap *cap = container_of(item, struct pci_cap, link);

		if (cap->ops->config_read)
			cap->ops->config_read(cap);
	}
}

void pci_caps_written(struct pci_device *dev)
{
	list_for_each (item, &dev->caps) {
		struct pci_cap *cap = container_of(item, struct pci_cap, link);

		cap->ops->config_written(cap);
	}
}

enum { EXP_BYTES = 0x3c }; /* of the PCI Express capability, version 2 (7.5.3) */

/* A link of 5 GT/s and 16 lanes: the fastest that needs no further capability of its own. */
static void add_link(struct pci_device *dev, unsigned int at, bool port)
{
	uint8_t *c = &dev->config[at], *w = &dev->wmask[at];

	/* speed 2, width 16, ASPM optionality; a port reports when the link is up */
	set32(c, PCI_EXP_LNKCAP, 2 | 16 << 4 | 1 << 22 | (port ? 1 << 20 : 0));
	set16(c, PCI_EXP_LNKSTA, 2 | 16 << 4);
	/* ASPM, RCB, common clock, extended synch; a port can disable its link */
	set16(w, PCI_EXP_LNKCTL, port ? 0x00d3 : 0x00cb);
	set32(c, PCI_EXP_LNKCAP2, 0x6); /* 2.5 and 5 GT/s */
	set16(c, PCI_EXP_LNKCTL2, 2);
	set16(w, PCI_EXP_LNKCTL2, 0xf);
}

/* A slot with attention button, power controller and both indicators, so that software can be asked
 * for a device; one may be pulled out without asking, too (6.7). Commands take no time, so there is
 * no completion of them to wait for. The port presses the button and reports presence and link. */
static void add_slot(struct pci_device *dev, unsigned int at)
{
	uint8_t *c = &dev->config[at], *w = &dev->wmask[at];

	set16(c, PCI_EXP_FLAGS, load_le16(&c[PCI_EXP_FLAGS]) | PCI_EXP_FLAGS_SLOT);
	set32(c, PCI_EXP_SLTCAP,
	      PCI_EXP_SLTCAP_ABP | PCI_EXP_SLTCAP_PCP | PCI_EXP_SLTCAP_AIP | PCI_EXP_SLTCAP_PIP |
		      PCI_EXP_SLTCAP_HPS | PCI_EXP_SLTCAP_HPC | PCI_EXP_SLTCAP_NCCS);
	set16(w, PCI_EXP_SLTCTL,
	      PCI_EXP_SLTCTL_ABPE | PCI_EXP_SLTCTL_PDCE | PCI_EXP_SLTCTL_HPIE | PCI_EXP_SLTCTL_AIC |
		      PCI_EXP_SLTCTL_PIC | PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_DLLSCE);
	set16(&dev->w1c[at], PCI_EXP_SLTSTA,
	      PCI_EXP_SLTSTA_ABP | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_DLLSC);
}

bool pci_slot_is_off(const struct pci_device *dev)
{
	const uint8_t *c = &dev->config[dev->express];

	return dev->express && load_le32(&c[PCI_EXP_SLTCAP]) & PCI_EXP_SLTCAP_PCP &&
	       load_le16(&c[PCI_EXP_SLTCTL]) & PCI_EXP_SLTCTL_PCC;
}

unsigned int pci_add_express(struct pci_device *dev, unsigned int port_type)
{
	unsigned int at = pci_add_cap(dev, PCI_CAP_ID_EXP, EXP_BYTES);
	uint8_t *c = &dev->config[at], *w = &dev->wmask[at];
	bool port = port_type == PCI_EXP_TYPE_ROOT_PORT || port_type == PCI_EXP_TYPE_DOWNSTREAM;
	bool endpoint = port_type == PCI_EXP_TYPE_ENDPOINT || port_type == PCI_EXP_TYPE_RC_END;

	set16(c, PCI_EXP_FLAGS, (uint16_t)(2 | port_type << 4));
	/* role-based error reporting; function-level reset where the device has one */
	set32(c, PCI_EXP_DEVCAP, 1u << 15 | (endpoint && dev->ops->reset ? 1u << 28 : 0));
	set16(c, PCI_EXP_DEVCTL, 0x2810); /* defaults of 7.5.3.4 */
	set16(w, PCI_EXP_DEVCTL, 0x78ff);
	set16(&dev->w1c[at], PCI_EXP_DEVSTA, 0x000f);
	set32(c, PCI_EXP_DEVCAP2,
	      1 << 4); /* completion timeouts may be turned off: there are none */
	set16(w, PCI_EXP_DEVCTL2, 1 << 4);
	if (port_type != PCI_EXP_TYPE_RC_END)
		add_link(dev, at, port);
	if (port)
		add_slot(dev, at);
	if (port_type == PCI_EXP_TYPE_ROOT_PORT) {
		set16(w, PCI_EXP_RTCTL, 0x000f);
		set32(&dev->w1c[at], PCI_EXP_RTSTA, 1 << 16);
	}
	dev->express = (uint16_t)at;
	return at;
}

int pci_port_type(const struct pci_device *dev)
{
	return dev->express ? dev->config[dev->express + PCI_EXP_FLAGS] >> 4 : -1;
}

/* A write of "initiate function level reset", which reads as 0 (7.5.3.4). */
bool pci_flr_written(const struct pci_device *dev, unsigned int offset, unsigned int size,
		     uint32_t value)
{
	unsigned int high = dev->express + PCI_EXP_DEVCTL + 1u;

	return dev->express && load_le32(&dev->config[dev->express + PCI_EXP_DEVCAP]) & 1u << 28 &&
	       offset <= high && high < offset + size && value >> 8 * (high - offset) & 0x80;
}

/* Bits that a reset leaves: where things are is hospes's decision, as firmware's would be. */
static uint8_t kept(const struct pci_device *dev, unsigned int reg)
{
	bool bridge = dev->config[PCI_HEADER_TYPE] & 1;

	if (!bridge && reg >= PCI_ROM_ADDRESS && reg < PCI_ROM_ADDRESS + 4)
		return reg == PCI_ROM_ADDRESS ? (uint8_t)~PCI_ROM_ADDRESS_ENABLE : 0xff;
	return reg >= PCI_BASE_ADDRESS_0 && reg < (bridge ? PCI_CAPABILITY_LIST : 0x28) ? 0xff : 0;
}

void pci_device_reset(struct pci_device *dev)
{
	for (unsigned int i = 0; dev->initial && i < PCI_CONFIG_BYTES; i++) {
		uint8_t changes = (dev->wmask[i] | dev->w1c[i]) & (uint8_t)~kept(dev, i);

		if (changes)
			__atomic_store_n(&dev->config[i],
					 (uint8_t)((dev->config[i] & ~changes) |
						   (dev->initial[i] & changes)),
					 __ATOMIC_RELAXED);
	}
	dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	pci_intx_update(dev);
	list_for_each (item, &dev->caps) {
		struct pci_cap *cap = container_of(item, struct pci_cap, link);

		cap->ops->reset(cap);
	}
	if (!dev->root)
		return;
	pci_update(dev, true);
	if (pci_is_bridge(dev)) /* it forwards nothing any more */
		pci_update_below(dev);
}

void pci_intx_update(struct pci_device *dev)
{
	bool off = load_le16(&dev->config[PCI_COMMAND]) & PCI_COMMAND_INTX_DISABLE;

	irq_line_set(&dev->intx, !off && (dev->config[PCI_STATUS] & PCI_STATUS_INTERRUPT));
}

void pci_set_intx(struct pci_device *dev, bool level)
{
	if (level)
		dev->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	pci_intx_update(dev);
}

bool pci_bus_master(const struct pci_device *dev)
{
	return __atomic_load_n(&dev->config[PCI_COMMAND], __ATOMIC_RELAXED) & PCI_COMMAND_MASTER;
}

uint32_t pci_requester_id(const struct pci_device *dev)
{
	return (uint32_t)__atomic_load_n(&dev->addr.bus, __ATOMIC_RELAXED) << 8 |
	       (uint32_t)dev->addr.slot << 3 | dev->addr.function;
}
