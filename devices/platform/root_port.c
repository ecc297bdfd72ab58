/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCIe root port: a bridge whose slot tells the guest, by native hot plug, that a device has been
 * plugged in below it, is wanted back, or is gone (PCI Express Base 6.0, 6.7 and 7.5.3). Standard
 * registers and what the slot has are pci.c's; this file has the registers that change by
 * themselves.
 *
 *   plugged in   presence, and the button, since software may wait for it ─► the guest gives power,
 *                the link comes up
 *   wanted back  the button ─► the guest blinks, stops using the device, turns off power and its
 *                indicator: is_off() ─► the machine takes the device
 *   pulled out   presence and link are gone
 *
 * It has one MSI-X vector, for hot plug (and PME, which nothing here raises), and a line otherwise.
 */
#include <linux/pci_regs.h>
#include <errno.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/msix.h"
#include "core/pci.h"
#include "core/state.h"
#include "platform/platform.h"

enum {
	/* The identity of QEMU's generic root port: it promises no more than the class code, and no
	 * guest has a quirk for it. */
	VENDOR = 0x1b36,
	DEVICE = 0x000c,
	CLASS_BRIDGE = 0x060400,

	BAR_BYTES = 4096,
	TABLE_OFFSET = 0,
	PBA_OFFSET = 0x800,

	SLOT_NUMBER_SHIFT = 19,
	SLOT_NUMBERS = 1 << 13,
	/* Slot control at power-on (7.5.3.10). */
	SLOT_ON = PCI_EXP_SLTCTL_ATTN_IND_OFF | PCI_EXP_SLTCTL_PWR_IND_ON | PCI_EXP_SLTCTL_PWR_ON,
	SLOT_OFF =
		PCI_EXP_SLTCTL_ATTN_IND_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF | PCI_EXP_SLTCTL_PWR_OFF,

	ACS_BYTES = 8,
	/* Source validation, translation blocking, request and completion redirect, upstream
	 * forwarding (7.7.11.2): nothing goes from peer to peer here anyway. */
	ACS_BITS = 0x1f,

	/* Advanced Error Reporting (7.8.4), of a port without ECRC and TLP prefixes. */
	AER_BYTES = 0x38,
	/* Data link protocol, poisoned TLP, flow control, completion timeout, completer abort,
	 * unexpected completion, receiver overflow, malformed TLP, unsupported request, ACS
	 * violation: those every port has, and those that come with its ACS and link. */
	AER_UNCORRECTABLE_BITS = 0x37f010,
	/* Of these, fatal unless software says otherwise (7.8.4.4). */
	AER_FATAL_BITS = 0x062010,
	/* Receiver, bad TLP, bad DLLP, replay rollover, replay timeout, advisory non-fatal. */
	AER_CORRECTABLE_BITS = 0x31c1,
	AER_ADVISORY = 1 << 13, /* masked at first (7.8.4.6), for software that knows no AER */
	AER_ROOT_ENABLES = 0x7,
	AER_ROOT_EVENTS = 0x7f,
};

struct root_port {
	struct device dev;
	struct pci_device pci;
	struct pci_root *root;
	struct bus_region bar;
	struct msix *msix;
	unsigned int express; /* offset of the capability */
	void (*turned_off)(void *opaque);
	void *opaque;
	bool bridge, attached;
	bool event; /* an enabled slot event is pending */
	bool off;   /* is_off when the guest last wrote */
};

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct root_port *port = opaque;

	if (offset < TABLE_OFFSET + MSIX_ENTRY_BYTES)
		return msix_table_read(port->msix, offset - TABLE_OFFSET, size);
	if (offset >= PBA_OFFSET && offset < PBA_OFFSET + 8)
		return msix_pba_read(port->msix, offset - PBA_OFFSET, size);
	return 0;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	const struct root_port *port = opaque;

	if (offset < TABLE_OFFSET + MSIX_ENTRY_BYTES)
		msix_table_write(port->msix, offset - TABLE_OFFSET, value, size);
}

static const struct bus_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
	.min = 4,
	.max = 8,
};

static uint16_t get16(const struct root_port *port, unsigned int reg)
{
	return load_le16(&port->pci.config[port->express + reg]);
}

static void set16(struct root_port *port, unsigned int reg, uint16_t v)
{
	store_le16(&port->pci.config[port->express + reg], v);
}

static bool slot_event(const struct root_port *port)
{
	uint16_t control = get16(port, PCI_EXP_SLTCTL), status = get16(port, PCI_EXP_SLTSTA);

	return (control & PCI_EXP_SLTCTL_HPIE) &&
	       ((control & status & (PCI_EXP_SLTSTA_ABP | PCI_EXP_SLTSTA_PDC)) ||
		((control & PCI_EXP_SLTCTL_DLLSCE) && (status & PCI_EXP_SLTSTA_DLLSC)));
}

/* 6.7.3.4: a message when the AND of events and enables goes from false to true; a level for the
 * line. Locks of root and device held. */
static void update_interrupt(struct root_port *port)
{
	bool was = port->event;

	port->event = slot_event(port);
	if (msix_enabled(port->msix)) {
		pci_set_intx(&port->pci, false);
		if (port->event && !was)
			msix_raise(port->msix, 0);
	} else {
		pci_set_intx(&port->pci, port->event);
	}
}

static bool is_present(const struct root_port *port)
{
	return get16(port, PCI_EXP_SLTSTA) & PCI_EXP_SLTSTA_PDS;
}

/* What whoever pulls out a card by hand waits for: power, and the lamp. Linux turns off the lamp
 * last, a second after the power. */
static bool is_off(const struct root_port *port)
{
	return (get16(port, PCI_EXP_SLTCTL) & (PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_PIC)) ==
	       (PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF);
}

/* The link is up while a device is there and has power. Did it change? */
static bool update_link(struct root_port *port)
{
	uint16_t link = get16(port, PCI_EXP_LNKSTA);
	bool up = is_present(port) && !(get16(port, PCI_EXP_SLTCTL) & PCI_EXP_SLTCTL_PCC);

	if (up == !!(link & PCI_EXP_LNKSTA_DLLLA))
		return false;
	set16(port, PCI_EXP_LNKSTA, link ^ PCI_EXP_LNKSTA_DLLLA);
	return true;
}

/* Slot status with these events; the link's follows. Locks as for update_interrupt. */
static void raise_events(struct root_port *port, uint16_t events)
{
	if (update_link(port))
		events |= PCI_EXP_SLTSTA_DLLSC;
	set16(port, PCI_EXP_SLTSTA, get16(port, PCI_EXP_SLTSTA) | events);
	update_interrupt(port);
}

static void config_written(struct pci_device *dev, unsigned int offset, unsigned int size)
{
	struct root_port *port = container_of(dev, struct root_port, pci);
	bool was_off = port->off;

	(void)offset;
	(void)size;
	raise_events(port, 0);
	port->off = is_off(port);
	if (port->off && !was_off && port->turned_off)
		port->turned_off(port->opaque);
}

static const struct pci_device_ops root_port_pci_ops = {
	.config_written = config_written,
};

struct pci_bus *root_port_bus(struct device *dev)
{
	return container_of(dev, struct root_port, dev)->pci.secondary;
}

static void lock_port(struct root_port *port)
{
	pci_root_lock(port->root);
	pthread_mutex_lock(&port->dev.lock);
}

static void unlock_port(struct root_port *port)
{
	pthread_mutex_unlock(&port->dev.lock);
	pci_root_unlock(port->root);
}

void root_port_set_present(struct device *dev, bool present)
{
	struct root_port *port = container_of(dev, struct root_port, dev);

	lock_port(port);
	if (present != is_present(port)) {
		set16(port, PCI_EXP_SLTSTA, get16(port, PCI_EXP_SLTSTA) ^ PCI_EXP_SLTSTA_PDS);
		raise_events(port, present ? PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_ABP
					   : PCI_EXP_SLTSTA_PDC);
	}
	unlock_port(port);
}

void root_port_press(struct device *dev)
{
	struct root_port *port = container_of(dev, struct root_port, dev);

	lock_port(port);
	if ((get16(port, PCI_EXP_SLTCTL) & PCI_EXP_SLTCTL_PIC) != PCI_EXP_SLTCTL_PWR_IND_BLINK)
		raise_events(port, PCI_EXP_SLTSTA_ABP);
	unlock_port(port);
}

bool root_port_is_off(struct device *dev)
{
	struct root_port *port = container_of(dev, struct root_port, dev);
	bool off;

	lock_port(port);
	off = is_off(port);
	unlock_port(port);
	return off;
}

const char *root_port_refusal(struct device *dev)
{
	struct root_port *port = container_of(dev, struct root_port, dev);
	uint16_t control, status;

	lock_port(port);
	control = get16(port, PCI_EXP_SLTCTL);
	status = get16(port, PCI_EXP_SLTSTA);
	unlock_port(port);
	if (!(control & PCI_EXP_SLTCTL_HPIE) || !(control & PCI_EXP_SLTCTL_ABPE))
		return "it does not listen to the slot's attention button: its kernel is not up "
		       "yet, or lacks a driver for native PCIe hot plug (Linux: pciehp)";
	if (status & PCI_EXP_SLTSTA_ABP)
		return "it has not answered the slot's attention button";
	if ((control & PCI_EXP_SLTCTL_AIC) == PCI_EXP_SLTCTL_ATTN_IND_ON ||
	    (control & PCI_EXP_SLTCTL_AIC) == PCI_EXP_SLTCTL_ATTN_IND_BLINK)
		return "it reports a failure by the slot's attention indicator; its kernel log "
		       "has the reason";
	if (control & PCI_EXP_SLTCTL_PCC)
		return "it has turned off the slot's power, but not the power indicator";
	if ((control & PCI_EXP_SLTCTL_PIC) == PCI_EXP_SLTCTL_PWR_IND_BLINK)
		return "it has begun (the power indicator blinks), but not turned off the slot's "
		       "power: a driver or user of the device holds it, or it needs more time";
	return "it has seen the attention button, and not turned off the slot's power";
}

static void root_port_reset(struct device *dev)
{
	struct root_port *port = container_of(dev, struct root_port, dev);
	uint16_t status;

	pci_device_reset(&port->pci);
	pthread_mutex_lock(&dev->lock);
	/* What is in the slot at power-on is no event, and has power. */
	status = get16(port, PCI_EXP_SLTSTA) & PCI_EXP_SLTSTA_PDS;
	set16(port, PCI_EXP_SLTSTA, status);
	set16(port, PCI_EXP_SLTCTL, status ? SLOT_ON : SLOT_OFF);
	update_link(port);
	port->off = is_off(port);
	update_interrupt(port);
	pthread_mutex_unlock(&dev->lock);
}

static void root_port_quiesce(struct device *dev, unsigned int phase)
{
	(void)dev;
	(void)phase;
}

static void root_port_resume(struct device *dev)
{
	(void)dev;
}

static void root_port_destroy(struct device *dev)
{
	struct root_port *port = container_of(dev, struct root_port, dev);

	if (!dev)
		return;
	if (port->attached)
		pci_detach(&port->pci);
	if (port->bridge)
		pci_bridge_done(&port->pci);
	if (port->msix)
		msix_done(port->msix);
	device_done(dev);
	free(port);
}

STATE_DERIVED(struct root_port, "made by root_port_create", dev, root, bar, express, turned_off,
	      opaque, bridge, attached);
STATE_DERIVED(struct root_port, "sections of its own", pci, msix);
STATE_DERIVED(struct root_port, "follow from slot control and status in config space", event, off);

static int root_port_save(struct device *dev, struct state_writer *w, struct err *err)
{
	(void)err;
	pci_device_save(&container_of(dev, struct root_port, dev)->pci, w);
	return 0;
}

static int root_port_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct root_port *port = container_of(dev, struct root_port, dev);
	int ret = pci_device_load(&port->pci, r, err);

	if (!ret)
		ret = state_commit(r, err);
	if (ret)
		return ret;
	pci_device_loaded(&port->pci);
	update_link(port);
	port->off = is_off(port);
	port->event = slot_event(port); /* its message was sent */
	update_interrupt(port);
	return 0;
}

static const struct device_ops root_port_ops = {
	.type = "root-port",
	.reset = root_port_reset,
	.quiesce = root_port_quiesce,
	.resume = root_port_resume,
	.destroy = root_port_destroy,
	.save = root_port_save,
	.load = root_port_load,
};

/* The system is granted AER (_OSC), so a port has it. Interrupt message number 0: the only vector.
 * Nothing emulated reports an error; the status bits are there for what is real below the port. */
static void add_error_reporting(struct pci_device *pci)
{
	unsigned int at = pci_add_ecap(pci, PCI_EXT_CAP_ID_ERR, 2, AER_BYTES);
	uint8_t *c = &pci->config[at], *w = &pci->wmask[at], *w1c = &pci->w1c[at];

	store_le32(&w1c[PCI_ERR_UNCOR_STATUS], AER_UNCORRECTABLE_BITS);
	store_le32(&w[PCI_ERR_UNCOR_STATUS + 4], AER_UNCORRECTABLE_BITS);
	store_le32(&w[PCI_ERR_UNCOR_STATUS + 8], AER_UNCORRECTABLE_BITS);
	store_le32(&c[PCI_ERR_UNCOR_STATUS + 8], AER_FATAL_BITS);
	store_le32(&w1c[PCI_ERR_COR_STATUS], AER_CORRECTABLE_BITS);
	store_le32(&w[PCI_ERR_COR_STATUS + 4], AER_CORRECTABLE_BITS);
	store_le32(&c[PCI_ERR_COR_STATUS + 4], AER_ADVISORY);
	store_le32(&w[PCI_ERR_ROOT_COMMAND], AER_ROOT_ENABLES);
	store_le32(&w1c[PCI_ERR_ROOT_STATUS], AER_ROOT_EVENTS);
}

static void init_config(struct root_port *port, const struct root_port_config *config)
{
	static const struct pci_ids ids = {
		.vendor = VENDOR,
		.device = DEVICE,
		.class_code = CLASS_BRIDGE,
		.header_type = 1,
		.pin = 1,
	};
	struct pci_device *pci = &port->pci;

	pci->lock = &port->dev.lock;
	pci->config = config->page;
	pci_device_init(pci, &root_port_pci_ops, port->dev.name, &ids);
	port->express = pci_add_express(pci, PCI_EXP_TYPE_ROOT_PORT);
	uint8_t *slot_cap = &pci->config[port->express + PCI_EXP_SLTCAP];
	store_le32(slot_cap, load_le32(slot_cap) | (uint32_t)(config->slot_number % SLOT_NUMBERS)
							   << SLOT_NUMBER_SHIFT);
	set16(port, PCI_EXP_SLTCTL, SLOT_OFF);
	port->off = true;

	add_error_reporting(pci);
	unsigned int acs = pci_add_ecap(pci, PCI_EXT_CAP_ID_ACS, 1, ACS_BYTES);
	store_le16(&pci->config[acs + 4], ACS_BITS);
	store_le16(&pci->wmask[acs + 6], ACS_BITS);

	port->bar = (struct bus_region){
		.ops = &bar_ops,
		.opaque = port,
		.name = port->dev.name,
		.size_bytes = BAR_BYTES,
		.lock = &port->dev.lock,
	};
	pci_set_bar(pci, 0, PCI_BAR_MEM32, BAR_BYTES, &port->bar);
}

int root_port_create(struct device **ret, const struct device_env *env, struct pci_root *root,
		     const struct root_port_config *config, struct err *err)
{
	static const struct msix_config msix = {
		.vectors = 1,
		.bar = 0,
		.table_offset = TABLE_OFFSET,
		.pba_offset = PBA_OFFSET,
	};
	struct root_port *port;
	int r;

	if (!mem_new(port))
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	device_init(&port->dev, &root_port_ops, config->name, env->log);
	port->root = root;
	port->turned_off = config->turned_off;
	port->opaque = config->opaque;
	init_config(port, config);
	r = msix_init(&port->msix, &port->pci, env->irq, &msix, err);
	if (r)
		goto fail;
	r = pci_bridge_init(&port->pci, err);
	if (r)
		goto fail;
	port->bridge = true;
	r = pci_attach(&port->pci, pci_root_bus(root), config->addr, err);
	if (r)
		goto fail;
	port->attached = true;
	*ret = &port->dev;
	return 0;
fail:
	root_port_destroy(&port->dev);
	return r;
}
