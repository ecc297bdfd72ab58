// SPDX-License-Identifier: Apache-2.0
// Where BARs are visible: decode enable, what the root keeps, windows of the bridges above.
//
// A BAR is visible when its decoding is on, when nothing of it lies where the root keeps addresses
// for something else, and when every bridge above forwards it (7.5.1.3: as on hardware, a device
// behind a closed window is silent). That is more than the windows in which hospes places BARs:
// a guest without ACPI knows nothing of these. A BAR that the guest programs over RAM shows nothing
// there. Where two BARs overlap, the one that came first keeps the addresses; the platform's ports
// came before all.
#include <errno.h>

#include "base/le.h"
#include "base/num.h"
#include "core/pci_impl.h"

/* Below are the ports of the system board, some of which the kernel answers itself. */
enum { IO_LOWEST = 0x100, IO_BYTES = 0x10000 };

uint64_t pci_bar_address(const struct pci_device *dev, unsigned int bar)
{
	unsigned int reg = pci_bar_register(bar);

	switch (dev->bars[bar].kind) {
	case PCI_BAR_IO:
		return load_le32(&dev->config[reg]) & ~3u;
	case PCI_BAR_MEM32:
		return load_le32(&dev->config[reg]) & ~15u;
	case PCI_BAR_MEM64:
	case PCI_BAR_MEM64_PREFETCH:
		return load_le64(&dev->config[reg]) & ~15ull;
	case PCI_BAR_ROM:
		return load_le32(&dev->config[reg]) & ~(PCI_ROM_MIN_BYTES - 1u);
	default:
		return 0;
	}
}

void pci_bar_store(struct pci_device *dev, unsigned int bar, uint64_t address)
{
	unsigned int reg = pci_bar_register(bar);
	enum pci_bar_kind kind = dev->bars[bar].kind;
	uint32_t low =
		load_le32(&dev->config[reg]) & (kind == PCI_BAR_IO    ? 3u
						: kind == PCI_BAR_ROM ? PCI_ROM_ADDRESS_ENABLE
								      : 15u);

	store_le32(&dev->config[reg], (uint32_t)address | low);
	if (kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH)
		store_le32(&dev->config[reg + 4], (uint32_t)(address >> 32));
	dev->bars[bar].address = address;
}

static bool inside(uint64_t address, uint64_t size, uint64_t base, uint64_t limit)
{
	return base <= limit && address >= base && address <= limit && size - 1 <= limit - address;
}

/* Type 1 header windows (7.5.1.3.6 to 7.5.1.3.9). */
static bool bridge_forwards(const struct pci_device *bridge, bool io, uint64_t address,
			    uint64_t size)
{
	const uint8_t *c = bridge->config;
	uint64_t base, limit;

	if (io) {
		base = (c[PCI_IO_BASE] & 0xf0u) << 8;
		limit = (c[PCI_IO_LIMIT] & 0xf0u) << 8 | 0xfff;
		return (c[PCI_COMMAND] & PCI_COMMAND_IO) && inside(address, size, base, limit);
	}
	if (!(c[PCI_COMMAND] & PCI_COMMAND_MEMORY))
		return false;
	base = (load_le16(&c[PCI_MEMORY_BASE]) & 0xfff0ull) << 16;
	limit = (load_le16(&c[PCI_MEMORY_LIMIT]) & 0xfff0ull) << 16 | 0xfffff;
	if (inside(address, size, base, limit))
		return true;
	base = (load_le16(&c[PCI_PREF_MEMORY_BASE]) & 0xfff0ull) << 16 |
	       (uint64_t)load_le32(&c[PCI_PREF_BASE_UPPER32]) << 32;
	limit = (load_le16(&c[PCI_PREF_MEMORY_LIMIT]) & 0xfff0ull) << 16 | 0xfffff |
		(uint64_t)load_le32(&c[PCI_PREF_LIMIT_UPPER32]) << 32;
	return inside(address, size, base, limit);
}

static bool root_forwards(const struct pci_root *root, bool io, uint64_t address, uint64_t size)
{
	const struct pci_windows *w = &root->config.windows;

	if (io)
		return range_inside(address, size, IO_LOWEST, IO_BYTES - IO_LOWEST);
	for (size_t i = 0; i < ARRAY_SIZE(w->kept); i++) {
		if (ranges_overlap(address, size, w->kept[i].gpa, w->kept[i].bytes))
			return false;
	}
	return range_inside(address, size, 0, w->top);
}

/* Not 0, where a BAR is before anybody places it, and not all ones in a register, by which its size
 * is found. */
static void report_refused(const struct pci_device *dev, unsigned int i, struct pci_bar *bar)
{
	if (bar->refused || !bar->address || bar->address >> 32 == UINT32_MAX ||
	    bar->address + (bar->size_bytes - 1) == UINT32_MAX)
		return;
	bar->refused = true;
	log_warn(dev->root->config.log, "pci",
		 "%s: the guest puts BAR %u at 0x%llx, where memory, interrupt controllers or "
		 "nothing at all are: it is not decoded there",
		 dev->name, i, (unsigned long long)bar->address);
}

static bool decoded(const struct pci_device *dev, unsigned int i, struct pci_bar *bar)
{
	bool io = bar->kind == PCI_BAR_IO;

	if (!(dev->config[PCI_COMMAND] & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return false;
	if (bar->kind == PCI_BAR_ROM && !(dev->config[PCI_ROM_ADDRESS] & PCI_ROM_ADDRESS_ENABLE))
		return false;
	if (!root_forwards(dev->root, io, bar->address, bar->size_bytes)) {
		report_refused(dev, i, bar);
		return false;
	}
	for (const struct pci_device *up = dev->bus->bridge; up; up = up->bus->bridge) {
		if (!bridge_forwards(up, io, bar->address, bar->size_bytes))
			return false;
	}
	return true;
}

struct overlap {
	const struct pci_bar *bar;
	bool found;
};

static void find_overlap(void *opaque, struct pci_device *dev)
{
	struct overlap *o = opaque;

	for (unsigned int i = 0; i < PCI_PLACES; i++) {
		const struct pci_bar *b = &dev->bars[i];

		if (b != o->bar && b->visible && !b->region &&
		    ranges_overlap(b->gpa, b->size_bytes, o->bar->address, o->bar->size_bytes))
			o->found = true;
	}
}

/* Memory regions of the host cannot shadow each other as trapped ones do: the later one waits. */
static bool host_overlap(const struct pci_device *dev, const struct pci_bar *bar)
{
	struct overlap o = {.bar = bar};

	pci_bus_walk(&dev->root->bus0, find_overlap, &o);
	return o.found;
}

static void host_mapped(struct pci_device *dev, unsigned int i, bool on, bool locked)
{
	if (!dev->ops->bar_mapped)
		return;
	if (dev->lock && !locked)
		pthread_mutex_lock(dev->lock);
	dev->ops->bar_mapped(dev, i, dev->bars[i].gpa, on);
	if (dev->lock && !locked)
		pthread_mutex_unlock(dev->lock);
}

static void bar_hide(struct pci_device *dev, unsigned int i, bool locked)
{
	struct pci_bar *bar = &dev->bars[i];
	const struct pci_root_config *config = &dev->root->config;

	if (!bar->visible)
		return;
	bar->visible = false;
	if (bar->region)
		bus_del(bar->kind == PCI_BAR_IO ? config->pio : config->mmio, bar->region);
	else
		host_mapped(dev, i, false, locked);
}

static void bar_show(struct pci_device *dev, unsigned int i, bool locked)
{
	struct pci_bar *bar = &dev->bars[i];
	const struct pci_root_config *config = &dev->root->config;

	if (bar->visible)
		return;
	bar->gpa = bar->address;
	if (bar->region) {
		bar->visible =
			!bus_add_shadowed(bar->kind == PCI_BAR_IO ? config->pio : config->mmio,
					  bar->region, bar->gpa);
	} else {
		bar->visible = true;
		host_mapped(dev, i, true, locked);
	}
}

/* Returns whether a host mapping left its place, which another one may have been waiting for. */
static bool update_one(struct pci_device *dev, bool locked)
{
	bool freed = false;

	for (unsigned int i = 0; i < PCI_PLACES; i++) {
		struct pci_bar *bar = &dev->bars[i];
		bool show;

		if (bar->kind == PCI_BAR_NONE)
			continue;
		bar->address = pci_bar_address(dev, i);
		show = decoded(dev, i, bar);
		if (bar->visible && (!show || bar->gpa != bar->address)) {
			freed |= !bar->region;
			bar_hide(dev, i, locked);
		}
		if (show && !bar->visible && (bar->region || !host_overlap(dev, bar)))
			bar_show(dev, i, locked);
	}
	return freed;
}

static void update_other(void *opaque, struct pci_device *dev)
{
	if (dev != opaque)
		update_one(dev, false);
}

void pci_update(struct pci_device *dev, bool locked)
{
	if (update_one(dev, locked))
		pci_bus_walk(&dev->root->bus0, update_other, dev);
}

static void update_child(void *opaque, struct pci_device *dev)
{
	(void)opaque;
	if (dev->bus->bridge)
		__atomic_store_n(&dev->addr.bus, dev->bus->bridge->config[PCI_SECONDARY_BUS],
				 __ATOMIC_RELAXED);
	pci_update(dev, false);
}

void pci_update_below(struct pci_device *bridge)
{
	pci_bus_walk(bridge->secondary, update_child, NULL);
}

void pci_hide(struct pci_device *dev)
{
	for (unsigned int i = 0; i < PCI_PLACES; i++)
		bar_hide(dev, i, false);
}
