// SPDX-License-Identifier: Apache-2.0
// A guest that writes what it likes to PCI config space, by both mechanisms, and to MSI-X tables.
//
// Machine: a root port (00:01.0) with an endpoint behind it (host-mapped and trapped BARs, MSI-X),
// and two functions on bus 0 (00:02.0 with MSI-X and BARs of each kind, 00:02.1). Oracle, after
// every step:
//
// - bits that this file does not list as writable keep their value; what is listed reads back;
// - both mechanisms read the same; absent functions read all ones;
// - a BAR is visible exactly where it is programmed, when decoded and where the root lets BARs be
// (and
//   the bridge's), never over RAM; host mappings never overlap;
// - a vector is connected exactly when MSI-X is on, neither mask is set and its message is one the
//   kernel takes; GSIs are held only while MSI-X is on; a signal is pending or delivered, never
//   lost.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pci_host.h"
#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "core/msi.h"
#include "core/msix.h"
#include "core/pci.h"

enum {
	VECTORS = 5,
	MSI_VECTORS = 4,
	GSIS = PINS + 2 * VECTORS + MSI_VECTORS,
	DEVICES = 4,
	MSIX_CONTROL = 0x42,
	MSI_CONTROL = 0x42, /* of another function */
	MSI_PENDING = 0x54,
	STEP_BYTES = 10,
	MAX_STEPS = 400,
	COMMAND = 4,
	INT_LINE = 0x3c,
};

struct fn {
	struct pci_device pci;
	struct bus_region region[PCI_PLACES];
	struct msix *msix;
	struct msi *msi;
	uint8_t snapshot[PCI_CONFIG_BYTES];
	uint8_t writable[PCI_CONFIG_BYTES]; /* as this file understands the specification */
	uint8_t w1c[PCI_CONFIG_BYTES];
	uint64_t mapped[PCI_PLACES]; /* host mappings, 0: not visible */
	unsigned int raised[VECTORS];
	unsigned int express;
};

static struct pci_host pci;
static struct fn fns[DEVICES];
enum { PORT, BEHIND, MULTI0, MULTI1 };
static int gsi_fd[GSIS];
static unsigned int delivered;

/* --- a kernel that refuses what KVM would --- */

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	check(n >= PINS && n <= GSIS);
	for (unsigned int i = 0; i < n; i++) {
		check(routes[i].gsi < GSIS && (routes[i].msi || routes[i].gsi == i));
		if (routes[i].msi && routes[i].address >> 32 & 0xff)
			return -22;
	}
	return 0;
}

static int set_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	(void)opaque;
	check(resample_fd == -1 && gsi >= PINS && gsi < GSIS && gsi_fd[gsi] == (on ? -1 : fd));
	gsi_fd[gsi] = on ? fd : -1;
	if (on) /* what was signalled before is injected at once */
		delivered += (unsigned int)fd_event_drain(fd);
	return 0;
}

static int set_line(void *opaque, uint32_t gsi, bool level)
{
	(void)opaque;
	(void)level;
	check(gsi >= 16 && gsi < 20);
	return 0;
}

static const struct irq_chip_ops chip_ops = {.set_routes = set_routes,
					     .set_irqfd = set_irqfd,
					     .set_line = set_line,
					     .pins = PINS,
					     .max_gsi = GSIS};

/* --- devices --- */

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct bus_region *region = opaque;

	check(offset < region->size_bytes && size <= region->size_bytes - offset);
	return 0;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)value;
	bar_read(opaque, offset, size);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

static void bar_mapped(struct pci_device *dev, unsigned int bar, uint64_t gpa, bool on)
{
	struct fn *f = container_of(dev, struct fn, pci);

	check(f->mapped[bar] == (on ? 0 : gpa));
	f->mapped[bar] = on ? gpa : 0;
}

static void was_reset(struct pci_device *dev)
{
	struct fn *f = container_of(dev, struct fn, pci);

	memset(f->raised, 0, sizeof(f->raised));
}

static const struct pci_device_ops fn_ops = {.bar_mapped = bar_mapped, .reset = was_reset};

static void allow(uint8_t *mask, unsigned int reg, unsigned int bytes, uint64_t bits)
{
	memcpy(&mask[reg], &bits, bytes);
}

static unsigned int bar_register(unsigned int i)
{
	return i == PCI_ROM ? 0x30 : 0x10 + 4 * i;
}

static void add_bar(struct fn *f, unsigned int bar, enum pci_bar_kind kind, uint64_t size,
		    bool trapped)
{
	bool wide = kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH;

	f->region[bar] = (struct bus_region){.ops = &bar_ops,
					     .opaque = &f->region[bar],
					     .name = f->pci.name,
					     .size_bytes = size};
	pci_set_bar(&f->pci, bar, kind, size, trapped ? &f->region[bar] : NULL);
	allow(f->writable, bar_register(bar), wide ? 8 : 4,
	      ~(size - 1) | (kind == PCI_BAR_ROM ? 1 : 0));
}

static void init_fn(struct fn *f, const char *name, bool bridge)
{
	const struct pci_ids ids = {.vendor = 0x1234,
				    .device = 0x1111,
				    .class_code = bridge ? 0x060400 : 0x020000,
				    .header_type = bridge,
				    .pin = 1};

	memset(f, 0, sizeof(*f));
	pci_device_init(&f->pci, &fn_ops, name, &ids);
	allow(f->writable, COMMAND, 2, 0x0547);
	allow(f->w1c, COMMAND + 2, 2, 0xf900);
	f->writable[0x0c] = 0xff;
	f->writable[INT_LINE] = 0xff;
	if (!bridge)
		return;
	allow(f->writable, 0x18, 3, 0xffffff);
	allow(f->writable, 0x1c, 2, 0xf0f0);
	allow(f->w1c, 0x1e, 2, 0xf900);
	allow(f->writable, 0x20, 8, 0xfff0fff0fff0fff0);
	allow(f->writable, 0x28, 8, ~0ull);
	allow(f->writable, 0x3e, 2, 0x43);
}

static void add_msix(struct fn *f)
{
	const struct msix_config c = {.vectors = VECTORS, .table_offset = 0, .pba_offset = 0x800};

	check(!msix_init(&f->msix, &f->pci, pci.chip, &c, NULL));
	allow(f->writable, MSIX_CONTROL, 2, 0xc000);
}

static void add_msi(struct fn *f)
{
	const struct msi_config c = {.vectors = MSI_VECTORS, .wide = true, .maskable = true};

	check(!msi_init(&f->msi, &f->pci, pci.chip, &c, NULL));
	allow(f->writable, MSI_CONTROL, 2, 0x0071);
	allow(f->writable, 0x44, 8, ~3ull);
	allow(f->writable, 0x4c, 2, 0xffff);
	allow(f->writable, 0x50, 4, (1 << MSI_VECTORS) - 1);
}

static void add_express(struct fn *f, unsigned int type)
{
	unsigned int at = pci_add_express(&f->pci, type);

	f->express = at;
	allow(f->writable, at + 0x08, 2, 0x78ff);
	allow(f->w1c, at + 0x0a, 2, 0x000f);
	allow(f->writable, at + 0x28, 2, 0x0010);
	if (type == 9)
		return;
	allow(f->writable, at + 0x10, 2, type == 4 ? 0x00d3 : 0x00cb);
	allow(f->writable, at + 0x30, 2, 0x000f);
	if (type != 4)
		return;
	allow(f->writable, at + 0x18, 2, 0x17e9);
	allow(f->w1c, at + 0x1a, 2, 0x0109);
	allow(f->writable, at + 0x1c, 2, 0x000f);
	allow(f->w1c, at + 0x20, 4, 0x10000);
}

static void attach(struct fn *f, struct pci_bus *bus, uint8_t slot, uint8_t function)
{
	const struct pci_addr addr = {.slot = slot, .function = function};

	check(!pci_attach(&f->pci, bus, &addr, NULL));
	memcpy(f->snapshot, f->pci.config, sizeof(f->snapshot));
}

static void set_up(void)
{
	for (unsigned int i = 0; i < GSIS; i++)
		gsi_fd[i] = -1;
	pci_host_init(&pci, &chip_ops, NULL);
	init_fn(&fns[PORT], "port", true);
	add_express(&fns[PORT], 4);
	check(!pci_bridge_init(&fns[PORT].pci, NULL));
	init_fn(&fns[BEHIND], "behind", false);
	add_msix(&fns[BEHIND]);
	add_express(&fns[BEHIND], 0);
	add_bar(&fns[BEHIND], 0, PCI_BAR_MEM64_PREFETCH, 64 * KiB, false);
	add_bar(&fns[BEHIND], 2, PCI_BAR_MEM32, 4 * KiB, true);
	add_bar(&fns[BEHIND], PCI_ROM, PCI_BAR_ROM, 64 * KiB, true);
	init_fn(&fns[MULTI0], "multi0", false);
	add_msix(&fns[MULTI0]);
	add_express(&fns[MULTI0], 9);
	add_bar(&fns[MULTI0], 0, PCI_BAR_IO, 64, true);
	add_bar(&fns[MULTI0], 1, PCI_BAR_MEM32, 8 * KiB, true);
	add_bar(&fns[MULTI0], 2, PCI_BAR_MEM64, 16 * KiB, false);
	add_bar(&fns[MULTI0], 4, PCI_BAR_MEM64_PREFETCH, 8 * GiB, true);
	init_fn(&fns[MULTI1], "multi1", false);
	add_msi(&fns[MULTI1]);
	add_bar(&fns[MULTI1], 0, PCI_BAR_MEM64, 64 * KiB, true);
	add_bar(&fns[MULTI1], PCI_ROM, PCI_BAR_ROM, 2 * KiB, true);
	attach(&fns[PORT], pci_root_bus(pci.root), 1, 0);
	attach(&fns[BEHIND], fns[PORT].pci.secondary, 0, 0);
	attach(&fns[MULTI0], pci_root_bus(pci.root), 2, 0);
	attach(&fns[MULTI1], pci_root_bus(pci.root), 2, 1);
	fns[MULTI0].snapshot[0x0e] = 0x80;
	check(!pci_root_assign(pci.root, NULL));
}

static void tear_down(void)
{
	for (unsigned int i = DEVICES; i-- > 0;) {
		pci_detach(&fns[i].pci);
		msix_done(fns[i].msix);
		msi_done(fns[i].msi);
	}
	pci_bridge_done(&fns[PORT].pci);
	check(!irq_chip_msi_in_use(pci.chip));
	for (unsigned int i = 0; i < GSIS; i++)
		check(gsi_fd[i] == -1);
	pci_host_done(&pci);
}

/* --- the oracle --- */

static bool inside(uint64_t at, uint64_t size, uint64_t first, uint64_t last)
{
	return at >= first && at <= last && size - 1 <= last - at;
}

static bool bridge_passes(const uint8_t *c, bool io, uint64_t at, uint64_t size)
{
	uint64_t mem = load_le16(c + 0x20), mem_end = load_le16(c + 0x22);
	uint64_t pref = load_le16(c + 0x24), pref_end = load_le16(c + 0x26);

	if (io)
		return (c[COMMAND] & 1) && inside(at, size, (c[0x1c] >> 4) * 0x1000ull,
						  (c[0x1d] >> 4) * 0x1000ull + 0xfff);
	mem = (mem >> 4) << 20;
	mem_end = (mem_end >> 4 << 20) + 0xfffff;
	pref = (pref >> 4 << 20) + ((uint64_t)load_le32(c + 0x28) << 32);
	pref_end = (pref_end >> 4 << 20) + 0xfffff + ((uint64_t)load_le32(c + 0x2c) << 32);
	return (c[COMMAND] & 2) &&
	       (inside(at, size, mem, mem_end) || inside(at, size, pref, pref_end));
}

/* The port's slot has a power controller (PCI Express Base 6.0, 7.5.3.9 and 7.5.3.10), and the
 * guest has turned it off: nothing is seen behind it. */
static bool slot_is_off(void)
{
	const uint8_t *c = &fns[PORT].pci.config[fns[PORT].express];

	return load_le32(c + 0x14) & 2 && load_le16(c + 0x18) & 0x400;
}

static void check_bar(const struct fn *f, unsigned int i)
{
	const struct pci_bar *b = &f->pci.bars[i];
	const uint8_t *c = f->pci.config;
	bool io = b->kind == PCI_BAR_IO;
	bool wide = b->kind == PCI_BAR_MEM64 || b->kind == PCI_BAR_MEM64_PREFETCH;
	bool rom = b->kind == PCI_BAR_ROM;
	uint64_t at = load_le32(c + bar_register(i)), size = b->size_bytes;
	bool show;

	if (b->kind == PCI_BAR_NONE)
		return;
	if (wide)
		at |= (uint64_t)load_le32(c + 0x14 + 4 * i) << 32;
	at &= io ? ~3ull : rom ? ~2047ull : ~15ull;
	check(is_aligned(at, size));
	if (io)
		show = (c[COMMAND] & 1) && inside(at, size, 0x100, 0xffff);
	else
		show = (c[COMMAND] & 2) && (inside(at, size, PCI_RAM_BYTES, ECAM - 1) ||
					    inside(at, size, ECAM + 256 * MiB, APICS - 1) ||
					    inside(at, size, 4 * GiB, PCI_TOP - 1));
	show = show && (!rom || c[0x30] & 1);
	if (f == &fns[BEHIND])
		show = show && !slot_is_off() && bridge_passes(fns[PORT].pci.config, io, at, size);
	if (b->region) {
		check(b->visible == show && f->region[i].on == show);
		check(!show || f->region[i].base == at);
		return;
	}
	check(!f->mapped[i] || f->mapped[i] == at);
	check(!f->mapped[i] || show);
	if (!show || f->mapped[i])
		return;
	/* Not shown though it might be: then because it would overlap another one. */
	for (unsigned int d = 0; d < DEVICES; d++) {
		for (unsigned int j = 0; j < PCI_PLACES; j++) {
			if (fns[d].mapped[j] &&
			    ranges_overlap(fns[d].mapped[j], fns[d].pci.bars[j].size_bytes, at,
					   size))
				return;
		}
	}
	check(!"a host mapping is visible nowhere");
}

static bool overlap_ok(void)
{
	uint64_t a = fns[BEHIND].mapped[0], b = fns[MULTI0].mapped[2];

	return !a || !b || !ranges_overlap(a, 64 * KiB, b, 16 * KiB);
}

static void check_msix(struct fn *f)
{
	uint16_t control = load_le16(&f->pci.config[MSIX_CONTROL]);
	bool on = control & 0x8000;
	/* without bus mastering it sends nothing */
	bool mask_all = control & 0x4000 || !(f->pci.config[4] & 1 << 2);
	uint64_t pba = msix_pba_read(f->msix, 0, 8);

	check(msix_enabled(f->msix) == on && pba < 1 << VECTORS);
	for (unsigned int v = 0; v < VECTORS; v++) {
		uint64_t address = msix_table_read(f->msix, v * 16, 8);
		uint32_t vc = (uint32_t)msix_table_read(f->msix, v * 16 + 12, 4);
		unsigned int found = 0;

		check((vc & ~1u) == 0);
		for (unsigned int g = 0; g < GSIS; g++)
			found += gsi_fd[g] == msix_fd(f->msix, v);
		check(found <= 1);
		if (!on || mask_all || (vc & 1) || (address >> 32 & 0xff))
			check(!found);
		else
			check(found);
		if (found)
			delivered += (unsigned int)fd_event_drain(msix_fd(f->msix, v));
		/* connected: what is signalled is taken; otherwise it waits */
		check(found || (pba >> v & 1) == (f->raised[v] != 0));
		if (found)
			f->raised[v] = 0;
	}
}

/* Either all that the guest enabled have a route or, where the kernel refuses the message, none
 * has. */
static void check_msi(struct fn *f)
{
	const uint8_t *c = f->pci.config;
	uint16_t control = load_le16(&c[MSI_CONTROL]);
	unsigned int n = control & 1 ? MIN(1u << (control >> 4 & 7), (unsigned int)MSI_VECTORS) : 0;
	bool sends = (c[4] & 1 << 2) && !(load_le64(&c[0x44]) >> 32 & 0xff);

	check(msi_enabled(f->msi) == n);
	for (unsigned int v = 0; v < MSI_VECTORS; v++) {
		unsigned int found = 0;

		for (unsigned int g = 0; g < GSIS; g++)
			found += gsi_fd[g] == msi_fd(f->msi, v);
		check(found == (v < n && sends && !(load_le32(&c[0x50]) >> v & 1)));
		if (found)
			delivered += (unsigned int)fd_event_drain(msi_fd(f->msi, v));
	}
}

/* In words, since this is nearly all of the work. */
static void check_read_only(const struct fn *f)
{
	for (unsigned int i = 0; i < PCI_CONFIG_BYTES; i += 8) {
		uint64_t changed = load_le64(&f->pci.config[i]) ^ load_le64(&f->snapshot[i]);

		if (changed)
			check(!(changed & ~(load_le64(&f->writable[i]) | load_le64(&f->w1c[i]))));
	}
}

static void check_all(void)
{
	unsigned int in_use = irq_chip_msi_in_use(pci.chip);

	for (unsigned int d = 0; d < DEVICES; d++) {
		struct fn *f = &fns[d];

		/* Pending bits change by themselves. */
		if (f->msi)
			f->snapshot[MSI_PENDING] =
				f->pci.config[MSI_PENDING] & ((1 << MSI_VECTORS) - 1);
		check_read_only(f);
		for (unsigned int i = 0; i < PCI_PLACES; i++)
			check_bar(f, i);
		if (f->msix)
			check_msix(f);
		if (f->msi)
			check_msi(f);
	}
	check(overlap_ok());
	if (!msix_enabled(fns[BEHIND].msix) && !msix_enabled(fns[MULTI0].msix) &&
	    !msi_enabled(fns[MULTI1].msi))
		check(!in_use);
}

/* --- steps --- */

/* Who answers at this place, by the bus numbers that the port has now. */
static struct fn *who(unsigned int bus, unsigned int devfn)
{
	const uint8_t *port = fns[PORT].pci.config;

	if (bus == 0)
		return devfn == 8    ? &fns[PORT]
		       : devfn == 16 ? &fns[MULTI0]
		       : devfn == 17 ? &fns[MULTI1]
				     : NULL;
	if (devfn == 0 && port[0x19] == bus && port[0x1a] >= bus && !slot_is_off())
		return &fns[BEHIND];
	return NULL;
}

static void ecam_read(unsigned int bus, unsigned int devfn, unsigned int reg, unsigned int size)
{
	const struct fn *f = who(bus, devfn);
	uint64_t address = 1ull << 31 | bus << 16 | devfn << 8 | (reg & 0xfc), v = 0, w = 0;

	check(bus_read(pci.mmio, ECAM + (bus << 20 | devfn << 12 | reg), &v, size));
	if (f)
		check(!memcmp(&v, &f->pci.config[reg], size));
	else if (bus || devfn)
		check(v == (size == 8 ? ~0ull : (1ull << 8 * size) - 1));
	if (reg >= 256 || size > 4 - reg % 4)
		return;
	bus_write(pci.pio, 0xcf8, &address, 4);
	bus_read(pci.pio, 0xcfc + reg % 4, &w, size);
	check(v == w);
}

static void ecam_write(unsigned int bus, unsigned int devfn, unsigned int reg, unsigned int size,
		       uint64_t value)
{
	struct fn *f = who(bus, devfn);
	uint8_t before[8];
	bool resets;

	if (f)
		memcpy(before, &f->pci.config[reg], size);
	bus_write(pci.mmio, ECAM + (bus << 20 | devfn << 12 | reg), &value, size);
	if (!f)
		return;
	/* A reset changes what was just written: then only the general laws hold. */
	resets = f->express && reg <= f->express + 9 && reg + size > f->express + 9;
	for (unsigned int i = 0; i < size && !resets; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * i), w = f->writable[reg + i];
		uint8_t want = (uint8_t)((before[i] & ~w) | (byte & w));

		check(f->pci.config[reg + i] == (want & (uint8_t)~(byte & f->w1c[reg + i])));
	}
}

static void size_bars(struct fn *f)
{
	uint32_t ones = ~0u, v;

	for (unsigned int i = 0; i < PCI_PLACES; i++) {
		uint64_t at = ECAM + ((uint64_t)f->pci.addr.slot << 15) +
			      ((uint64_t)f->pci.addr.function << 12) + bar_register(i);

		if (f->pci.bars[i].kind == PCI_BAR_NONE)
			continue;
		bus_write(pci.mmio, at, &ones, 4);
		bus_read(pci.mmio, at, &v, 4);
		v &= f->pci.bars[i].kind == PCI_BAR_IO ? ~3u : i == PCI_ROM ? ~2047u : ~15u;
		check(v == (uint32_t)~(f->pci.bars[i].size_bytes - 1));
	}
}

static void step(const uint8_t *s)
{
	static const uint8_t devfns[] = {0, 8, 16, 17, 0, 8, 16, 9};
	unsigned int bus = s[1] & 0x80 ? s[1] : s[1] & 3, devfn = devfns[s[2] & 7];
	unsigned int reg = load_le16(s + 3) & (s[2] & 0x80 ? 0xfff : 0x7f),
		     size = 1u << (s[0] >> 6);
	uint64_t value = load_le32(s + 5);
	struct fn *f = &fns[s[1] % DEVICES];

	reg = (unsigned int)align_down(reg, s[2] & 0x40 ? size : 1);
	reg = MIN(reg, PCI_CONFIG_BYTES - size);
	switch (s[0] & 15) {
	case 0:
	case 1:
		ecam_read(bus, devfn, reg, size);
		break;
	case 2: /* a BAR to a place where something may be */
		value = (value & 0xfffffff) | (s[9] & 1 ? MMIO32 : 0);
		ecam_write(bus, devfn, 0x10 + 4 * (reg % 6), 4, value);
		break;
	case 3:
		ecam_write(bus, devfn, COMMAND, 2, value & 0xffff);
		break;
	case 4:
		ecam_write(bus, devfn, MSIX_CONTROL, 2, value & 0xffff);
		break;
	case 5: /* any port of the mechanism, any size, aligned or not */
		bus_write(pci.pio, 0xcf0 + reg % 20, &value, size);
		break;
	case 6:
		bus_read(pci.pio, 0xcf0 + reg % 20, &value, size);
		break;
	case 7:
		if (f->msix)
			msix_table_write(f->msix, align_down(reg, size < 8 ? 4 : 8),
					 value | (uint64_t)(s[9] & 1) << 32, size < 8 ? 4 : 8);
		break;
	case 8:
		if (f->msix) {
			msix_raise(f->msix, s[2] % VECTORS);
			f->raised[s[2] % VECTORS]++;
		}
		if (f->msi)
			msi_raise(f->msi, s[2] % MSI_VECTORS);
		break;
	case 9:
		size_bars(&fns[s[1] & 1 ? MULTI0 : MULTI1]);
		break;
	case 10:
		bus_read(pci.mmio, (s[9] & 1 ? MMIO64 : MMIO32) + value % (256 * MiB), &value,
			 size);
		break;
	case 11:
		pci_device_reset(&f->pci);
		was_reset(&f->pci);
		f->snapshot[6] &= (uint8_t)~8;
		break;
	case 12:
		check(!pci_root_assign(pci.root, NULL));
		break;
	case 13:
		pci_set_intx(&fns[MULTI1].pci, value & 1);
		fns[MULTI1].snapshot[6] =
			(uint8_t)((fns[MULTI1].snapshot[6] & ~8) | (value & 1 ? 8 : 0));
		break;
	default:
		ecam_write(bus, devfn, reg, size, value | value << 32);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	set_up();
	for (unsigned int i = 0; i < MAX_STEPS && size >= STEP_BYTES; i++) {
		step(data);
		check_all();
		data += STEP_BYTES;
		size -= STEP_BYTES;
	}
	tear_down();
	return 0;
}
