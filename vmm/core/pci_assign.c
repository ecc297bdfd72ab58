// SPDX-License-Identifier: Apache-2.0
// What firmware would do: bus numbers, BARs, bridge windows.
//
// Deterministic: everything is placed by alignment, then size, then address of the device, largest
// first, each from the bottom of its window. Behind a hot-plug port there is room to spare in the
// windows for what is plugged in later, which the guest's own software places. No bus numbers are
// spare: what is plugged in is no bridge, and Linux probes each number without a bus by itself.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/pci_impl.h"

enum space {
	SPACE_IO,
	SPACE_MEM32,
	SPACE_MEM64,
	SPACES,
};

enum { MAX_BUS = 255 };
#define SPARE_MEM32     (2 * MiB)
#define SPARE_MEM64_MAX (32 * GiB)
#define SPARE_IO        (4 * KiB)

static const char *const space_names[SPACES] = {
	[SPACE_IO] = "I/O port",
	[SPACE_MEM32] = "32-bit MMIO",
	[SPACE_MEM64] = "64-bit MMIO",
};

/* A bridge's windows are in units of this (7.5.1.3.6, 7.5.1.3.8). */
static const uint64_t granularity[SPACES] = {
	[SPACE_IO] = 4 * KiB,
	[SPACE_MEM32] = MiB,
	[SPACE_MEM64] = MiB,
};

struct spare {
	uint64_t bytes[SPACES];
};

/* Something to place on one bus, in one space: a BAR, or the window of a bridge. */
struct want {
	struct pci_device *dev;
	unsigned int bar; /* PCI_PLACES: the window of dev */
	uint64_t size, align;
};

static bool is_hotplug_port(const struct pci_device *dev)
{
	int type = pci_port_type(dev);

	return pci_is_bridge(dev) &&
	       (type == PCI_EXP_TYPE_ROOT_PORT || type == PCI_EXP_TYPE_DOWNSTREAM);
}

/* A bridge forwards 64-bit addresses in its prefetchable window only, so what is not prefetchable
 * must live below 4 GiB behind one. */
static enum space space_of(const struct pci_device *dev, enum pci_bar_kind kind)
{
	bool have64 = dev->root->config.windows.mmio64_bytes != 0;

	switch (kind) {
	case PCI_BAR_IO:
		return SPACE_IO;
	case PCI_BAR_MEM64_PREFETCH:
		return have64 ? SPACE_MEM64 : SPACE_MEM32;
	case PCI_BAR_MEM64:
		return have64 && !dev->bus->bridge ? SPACE_MEM64 : SPACE_MEM32;
	default:
		return SPACE_MEM32;
	}
}

static int compare(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->align != y->align)
		return x->align > y->align ? -1 : 1;
	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	if (x->dev->addr.slot != y->dev->addr.slot)
		return x->dev->addr.slot < y->dev->addr.slot ? -1 : 1;
	if (x->dev->addr.function != y->dev->addr.function)
		return x->dev->addr.function < y->dev->addr.function ? -1 : 1;
	return (x->bar > y->bar) - (x->bar < y->bar);
}

static void set_window(struct pci_device *bridge, enum space space, uint64_t base, uint64_t size)
{
	uint64_t limit = base + size - 1;
	uint8_t *c = bridge->config;

	if (!size) { /* closed: the base is above the limit */
		base = space == SPACE_IO ? 0xf000 : 0xfff00000;
		limit = 0;
	}
	switch (space) {
	case SPACE_IO:
		c[PCI_IO_BASE] = (uint8_t)(base >> 8 & 0xf0);
		c[PCI_IO_LIMIT] = (uint8_t)(limit >> 8 & 0xf0);
		break;
	case SPACE_MEM32:
		store_le16(&c[PCI_MEMORY_BASE], (uint16_t)(base >> 16 & 0xfff0));
		store_le16(&c[PCI_MEMORY_LIMIT], (uint16_t)(limit >> 16 & 0xfff0));
		break;
	default:
		store_le16(&c[PCI_PREF_MEMORY_BASE], (uint16_t)((base >> 16 & 0xfff0) | 1));
		store_le16(&c[PCI_PREF_MEMORY_LIMIT], (uint16_t)((limit >> 16 & 0xfff0) | 1));
		store_le32(&c[PCI_PREF_BASE_UPPER32], (uint32_t)(base >> 32));
		store_le32(&c[PCI_PREF_LIMIT_UPPER32], (uint32_t)(limit >> 32));
		break;
	}
}

static int place(struct pci_bus *bus, enum space space, const struct spare *spare, uint64_t base,
		 bool commit, uint64_t *size, uint64_t *align);

static bool is_empty(const struct pci_bus *bus)
{
	for (unsigned int i = 0; i < PCI_DEVFNS; i++) {
		if (bus->functions[i])
			return false;
	}
	return true;
}

/* The port space is small, and few devices ask for any: it is for ports that wait for one. */
static uint64_t spare_bytes(const struct pci_device *dev, enum space space,
			    const struct spare *spare)
{
	if (!is_hotplug_port(dev) || (space == SPACE_IO && !is_empty(dev->secondary)))
		return 0;
	return spare->bytes[space];
}

/* What dev asks of its bus in space. */
static int collect(struct pci_device *dev, enum space space, const struct spare *spare,
		   struct want *wants, unsigned int *n)
{
	uint64_t extra = spare_bytes(dev, space, spare);
	int ret;

	for (unsigned int i = 0; i < PCI_PLACES; i++) {
		const struct pci_bar *b = &dev->bars[i];

		if (b->kind == PCI_BAR_NONE || space_of(dev, b->kind) != space)
			continue;
		/* Whole pages, so that no two devices share one. */
		wants[(*n)++] = (struct want){
			.dev = dev,
			.bar = i,
			.size = b->size_bytes,
			.align = space == SPACE_IO ? b->size_bytes : MAX(b->size_bytes, 4 * KiB)};
	}
	if (pci_is_bridge(dev)) {
		struct want w = {.dev = dev, .bar = PCI_PLACES};

		ret = place(dev->secondary, space, spare, 0, false, &w.size, &w.align);
		if (ret)
			return ret;
		w.size = align_up(w.size, granularity[space]) + extra;
		w.align = MAX(w.align, MAX(granularity[space], extra));
		if (w.size)
			wants[(*n)++] = w;
		else
			set_window(dev, space, 0, 0);
	}
	return 0;
}

/* Lay out bus from base, which is aligned to what an earlier call without commit returned in align;
 * with commit, store it. size is what it takes. */
static int place(struct pci_bus *bus, enum space space, const struct spare *spare, uint64_t base,
		 bool commit, uint64_t *size, uint64_t *align)
{
	uint64_t at = base, inner_size, inner_align;
	unsigned int n = 0, functions = 0;
	struct want *wants;
	int ret;

	for (unsigned int i = 0; i < PCI_DEVFNS; i++)
		functions += bus->functions[i] != NULL;
	wants = calloc(functions + 1u, (PCI_PLACES + 1) * sizeof(*wants));
	ret = wants ? 0 : -ENOMEM;

	for (unsigned int i = 0; i < PCI_DEVFNS && !ret; i++) {
		if (bus->functions[i])
			ret = collect(bus->functions[i], space, spare, wants, &n);
	}
	if (ret)
		goto out;
	if (n)
		qsort(wants, n, sizeof(*wants), compare);
	*align = n ? wants[0].align : 1;
	for (unsigned int i = 0; i < n && !ret; i++) {
		const struct want *w = &wants[i];

		/* Far from wrapping in earnest, but BAR sizes are up to 2^63. */
		if (at > UINT64_MAX - (w->align - 1) ||
		    add_overflows(align_up(at, w->align), w->size, &inner_size)) {
			ret = -ENOSPC;
			break;
		}
		at = align_up(at, w->align);
		if (commit && w->bar < PCI_PLACES) {
			pci_bar_store(w->dev, w->bar, at);
		} else if (commit) {
			set_window(w->dev, space, at, w->size);
			ret = place(w->dev->secondary, space, spare, at, true, &inner_size,
				    &inner_align);
		}
		at += w->size;
	}
	*size = at - base;
out:
	free(wants);
	return ret;
}

static unsigned int number_buses(struct pci_bus *bus, unsigned int number)
{
	unsigned int last = number;

	for (unsigned int i = 0; i < PCI_DEVFNS; i++) {
		struct pci_device *dev = bus->functions[i];

		if (!dev)
			continue;
		__atomic_store_n(&dev->addr.bus, (uint8_t)number, __ATOMIC_RELAXED);
		if (!pci_is_bridge(dev))
			continue;
		dev->config[PCI_PRIMARY_BUS] = (uint8_t)number;
		dev->config[PCI_SECONDARY_BUS] = (uint8_t)(last + 1);
		last = number_buses(dev->secondary, last + 1);
		dev->config[PCI_SUBORDINATE_BUS] = (uint8_t)last;
	}
	return last;
}

struct census {
	unsigned int bridges, ports;
	struct pci_device *orphan; /* a function whose slot has no function 0 */
};

static void count(void *opaque, struct pci_device *dev)
{
	struct census *c = opaque;

	c->bridges += pci_is_bridge(dev);
	c->ports += is_hotplug_port(dev);
	if (!dev->bus->functions[dev->addr.slot << 3])
		c->orphan = dev;
}

/* Everything off, as after a reset: what is programmed anew must not flash up anywhere on the
 * way. */
static void silence(void *opaque, struct pci_device *dev)
{
	(void)opaque;
	/* pci_bus_master reads it from any thread */
	__atomic_and_fetch(&dev->config[PCI_COMMAND],
			   (uint8_t)~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER),
			   __ATOMIC_RELAXED);
	pci_caps_written(dev);
	pci_hide(dev);
}

static uint64_t space_base(const struct pci_windows *w, enum space space)
{
	return space == SPACE_IO      ? w->io_base
	       : space == SPACE_MEM32 ? w->mmio32_gpa
				      : w->mmio64_gpa;
}

static uint64_t space_bytes(const struct pci_windows *w, enum space space)
{
	return space == SPACE_IO      ? w->io_bytes
	       : space == SPACE_MEM32 ? w->mmio32_bytes
				      : w->mmio64_bytes;
}

static int assign_space(struct pci_root *root, enum space space, const struct spare *spare,
			struct err *err)
{
	const struct pci_windows *w = &root->config.windows;
	uint64_t base = space_base(w, space), bytes = space_bytes(w, space);
	uint64_t size, align, start;
	int ret = place(&root->bus0, space, spare, 0, false, &size, &align);

	if (ret == -ENOMEM)
		return err_set(err, ret, "PCI: out of memory");
	if (!ret && !size)
		return 0;
	start = !ret && base <= UINT64_MAX - (align - 1) ? align_up(base, align) : UINT64_MAX;
	if (ret || !range_inside(start, size, base, bytes))
		return err_set(err, -ENOSPC,
			       "PCI: the devices need %llu KiB of %s space (aligned to %llu KiB), "
			       "there are %llu KiB at 0x%llx",
			       ret ? ~0ull : (unsigned long long)(size / KiB), space_names[space],
			       ret ? ~0ull : (unsigned long long)(align / KiB),
			       (unsigned long long)(bytes / KiB), (unsigned long long)base);
	return place(&root->bus0, space, spare, start, true, &size, &align);
}

static struct spare choose_spare(const struct pci_root *root, const struct census *census)
{
	const struct pci_windows *w = &root->config.windows;
	unsigned int ports = MAX(census->ports, 1u);
	struct spare spare = {0};

	spare.bytes[SPACE_MEM32] = SPARE_MEM32;
	if (w->mmio64_bytes / 2 / ports >= MiB)
		spare.bytes[SPACE_MEM64] =
			MIN(SPARE_MEM64_MAX, power_of_two_up(w->mmio64_bytes / 2 / ports / 2 + 1));
	spare.bytes[SPACE_IO] = SPARE_IO;
	return spare;
}

int pci_root_assign(struct pci_root *root, struct err *err)
{
	struct census census = {0};
	struct spare spare;
	int ret = 0;

	pci_root_lock(root);
	pci_root_walk(root, count, &census);
	if (census.orphan)
		ret = err_set(err, -EINVAL,
			      "%s: function %u of PCI slot %02x needs a device at function 0",
			      census.orphan->name, census.orphan->addr.function,
			      census.orphan->addr.slot);
	else if (census.bridges > MAX_BUS)
		ret = err_set(err, -ENOSPC, "PCI: %u bridges, at most %d are possible",
			      census.bridges, MAX_BUS);
	if (ret)
		goto out;
	pci_root_walk(root, silence, NULL);
	root->config_address = 0;
	spare = choose_spare(root, &census);
	root->last_bus = (uint8_t)number_buses(&root->bus0, 0);
	for (enum space space = SPACE_IO; space < SPACES && !ret; space++) {
		uint64_t wished = spare.bytes[space];

		/* Devices that are there come before devices that may come. */
		while ((ret = assign_space(root, space, &spare, err)) == -ENOSPC &&
		       spare.bytes[space]) {
			spare.bytes[space] /= 2;
			if (spare.bytes[space] < granularity[space])
				spare.bytes[space] = 0;
		}
		if (!ret && spare.bytes[space] != wished && root->config.log)
			log_warn(root->config.log, "pci",
				 "%s windows for what is plugged in later have %llu KiB only",
				 space_names[space],
				 (unsigned long long)(spare.bytes[space] / KiB));
	}
out:
	pci_root_unlock(root);
	return ret;
}

uint8_t pci_root_last_bus(struct pci_root *root)
{
	uint8_t last;

	pci_root_lock(root);
	last = root->last_bus;
	pci_root_unlock(root);
	return last;
}
