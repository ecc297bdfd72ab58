// SPDX-License-Identifier: Apache-2.0
// State of PCI functions and of the root (core/state.h): what the guest can write in config space,
// with MSI and MSI-X. Everything else of config space is the configuration, which has to be the
// same.
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "core/pci_impl.h"
#include "core/state.h"

struct function_record {
	uint8_t initial[PCI_CONFIG_BYTES]; /* as attached: ids, capabilities and where they are */
	uint8_t config[PCI_CONFIG_BYTES];  /* what is writable of it */
};

static const struct state_field function_fields[] = {
	STATE_ARRAY(struct function_record, initial, .same = true),
	STATE_ARRAY(struct function_record, config),
};

STATE_DERIVED(struct pci_device, "written as a struct function_record", config, own, initial);
STATE_DERIVED(struct pci_device, "made by the device and by pci_attach", ops, name, lock, root, bus,
	      wmask, w1c, next_cap, last_cap, last_ecap, next_ecap, express, secondary);
STATE_DERIVED(struct pci_device, "the bus is the secondary number of the bridge above", addr);
STATE_DERIVED(struct pci_device, "follow from the BARs' registers and the bridges above", bars);
STATE_DERIVED(struct pci_device, "have sections of their own", caps);
STATE_DERIVED(struct pci_device, "the device drives it anew from its own state", intx);
STATE_DERIVED(struct pci_bar, "made by pci_set_bar", kind, size_bytes, region);
STATE_DERIVED(struct pci_bar, "follow from the BAR's registers", address, visible, gpa);
STATE_DERIVED(struct pci_bar, "a message is of this process", refused);

static uint8_t writable(const struct pci_device *dev, unsigned int i)
{
	return dev->wmask[i] | dev->w1c[i];
}

static void fill_function(void *record, const void *live, uint32_t n)
{
	struct function_record *f = record;
	const struct pci_device *dev = live;

	(void)n;
	memcpy(f->initial, dev->initial, PCI_CONFIG_BYTES);
	for (unsigned int i = 0; i < PCI_CONFIG_BYTES; i++)
		f->config[i] = dev->config[i] & writable(dev, i);
}

static void apply_function(void *live, const void *record, uint32_t n)
{
	const struct function_record *f = record;
	struct pci_device *dev = live;

	(void)n;
	for (unsigned int i = 0; i < PCI_CONFIG_BYTES; i++)
		/* pci_bus_master reads it from any thread */
		__atomic_store_n(&dev->config[i],
				 (uint8_t)((dev->config[i] & ~writable(dev, i)) | f->config[i]),
				 __ATOMIC_RELAXED);
}

static int check_function(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct function_record *f = record;
	const struct pci_device *dev = live;

	for (i = 0; i < PCI_CONFIG_BYTES; i++) {
		if (f->config[i] & ~writable(dev, i))
			return err_set(err, -EPROTO,
				       "config[%u] is %u; no guest can set bits but 0x%x there", i,
				       f->config[i], writable(dev, i));
	}
	return 0;
}

static const struct state_section function_section =
	STATE_SECTION("pci-function", 1, struct function_record, function_fields,
		      .fill = fill_function, .apply = apply_function, .check = check_function);

void pci_device_save(const struct pci_device *dev, struct state_writer *w)
{
	state_save(w, &function_section, dev, 1);
	list_for_each (item, &dev->caps) {
		const struct pci_cap *cap = container_of(item, struct pci_cap, link);

		cap->ops->save(cap, w);
	}
}

int pci_device_load(struct pci_device *dev, struct state_reader *r, struct err *err)
{
	int ret = state_load(r, &function_section, dev, 1, err);

	list_for_each (item, &dev->caps) {
		struct pci_cap *cap = container_of(item, struct pci_cap, link);

		if (!ret)
			ret = cap->ops->load(cap, r, err);
	}
	return ret;
}

void pci_device_loaded(struct pci_device *dev)
{
	pci_root_lock(dev->root);
	pci_update(dev, false);
	if (pci_is_bridge(dev))
		pci_update_below(dev);
	pci_root_unlock(dev->root);
}

/* The root */

static const struct state_field root_fields[] = {
	STATE_ONE(struct pci_root, config_address, .mask = PCI_CONFIG_ADDRESS_BITS),
};

STATE_DERIVED(struct pci_root, "configuration", config, last_bus);
STATE_DERIVED(struct pci_root, "how long vCPUs have held its lock", held);
STATE_DERIVED(struct pci_root, "made by pci_root_create", lock, ecam, ports, reset_port);
STATE_DERIVED(struct pci_root, "the devices on it have sections of their own", bus0, host);
STATE_DERIVED(struct pci_bus, "follow from what is attached", root, bridge, functions, bridges);

static const struct state_section root_section =
	STATE_SECTION("pci-root", 1, struct pci_root, root_fields);

void pci_root_save(struct pci_root *root, struct state_writer *w)
{
	state_writer_owner(w, "pci-root");
	state_save(w, &root_section, root, 1);
	pci_device_save(&root->host, w);
}

int pci_root_load(struct pci_root *root, struct state_reader *r, struct err *err)
{
	int ret;

	state_reader_begin(r, "pci-root");
	ret = state_load(r, &root_section, root, 1, err);
	if (!ret)
		ret = pci_device_load(&root->host, r, err);
	if (!ret)
		ret = state_commit(r, err);
	if (!ret)
		pci_device_loaded(&root->host);
	return ret;
}
