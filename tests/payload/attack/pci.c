/* SPDX-License-Identifier: Apache-2.0 */
/* Config space and BARs: what is there, and garbage for it. */
#include "attack.h"

struct function functions[MAX_FUNCTIONS];
unsigned int n_functions;

uint32_t pci_config_read(uint32_t address, unsigned int reg)
{
	port_write(0xcf8, 0x80000000u | address | (reg & 0xfc), 4);
	return port_read(0xcfc, 4);
}

void pci_config_write(uint32_t address, unsigned int reg, uint32_t value)
{
	port_write(0xcf8, 0x80000000u | address | (reg & 0xfc), 4);
	port_write(0xcfc, value, 4);
}

static bool is_bridge(const struct function *f)
{
	return (f->header[3] >> 16 & 0x7f) == 1;
}

static void scan_bar(struct function *f, unsigned int *bar)
{
	unsigned int i = *bar, reg = 0x10 + 4 * i;
	uint32_t low = f->header[4 + i], mask;
	uint64_t base, size;

	pci_config_write(f->address, reg, ~0u);
	mask = pci_config_read(f->address, reg);
	pci_config_write(f->address, reg, low);
	if (!mask)
		return;
	if (mask & 1) {
		base = low & ~3u;
		size = (uint16_t)(~(mask & ~3u) + 1);
	} else {
		base = low & ~15u;
		size = 0xffffffff00000000u | (mask & ~15u);
		if ((mask & 6) == 4) {
			pci_config_write(f->address, reg + 4, ~0u);
			size = (uint64_t)pci_config_read(f->address, reg + 4) << 32 | (mask & ~15u);
			pci_config_write(f->address, reg + 4, f->header[5 + i]);
			base |= (uint64_t)f->header[5 + i] << 32;
			++*bar;
		}
		size = ~size + 1;
	}
	if (!base || !size || (!(mask & 1) && base >> 32 && !map_high(base)))
		return;
	f->bar[i] = (struct bar){true, mask & 1, base, size};
}

static void scan_virtio(struct function *f, uint8_t cap)
{
	uint32_t head = pci_config_read(f->address, cap);
	int bar = (int)(pci_config_read(f->address, cap + 4u) & 0xff);
	uint32_t offset = pci_config_read(f->address, cap + 8u);
	uint32_t length = pci_config_read(f->address, cap + 12u);

	switch (head >> 24) {
	case 1:
		f->common.bar = bar;
		f->common.offset = offset;
		f->common.length = length;
		f->virtio = true;
		break;
	case 2:
		/* One way and the other, with every second function. */
		if (f->notify_multiplier && n_functions % 2)
			break;
		f->notify.bar = bar;
		f->notify.offset = offset;
		f->notify.length = length;
		f->notify_multiplier = pci_config_read(f->address, cap + 16u);
		break;
	case 5:
		f->window_cap = cap;
		break;
	default:
		break;
	}
}

static void scan_caps(struct function *f)
{
	uint8_t cap = (uint8_t)pci_config_read(f->address, 0x34);

	for (unsigned int n = 0; cap && n < 48; n++) {
		uint32_t head = pci_config_read(f->address, cap);

		if ((head & 0xff) == 0x11) {
			uint32_t table = pci_config_read(f->address, cap + 4u);

			f->msix_cap = cap;
			f->msix_bar = (int)(table & 7);
			f->msix_offset = table & ~7u;
			f->msix_entries = (head >> 16 & 0x7ff) + 1;
		} else if ((head & 0xff) == 0x09 && (f->header[0] & 0xffff) == 0x1af4) {
			scan_virtio(f, cap);
		}
		cap = (uint8_t)(head >> 8);
	}
}

static void scan_function(uint32_t address)
{
	struct function *f = &functions[n_functions];

	if ((uint16_t)pci_config_read(address, 0) == 0xffff || n_functions == MAX_FUNCTIONS)
		return;
	*f = (struct function){.address = address, .msix_bar = -1};
	for (unsigned int i = 0; i < HEADER_BYTES / 4; i++)
		f->header[i] = pci_config_read(address, 4 * i);
	for (unsigned int i = 0; i < (is_bridge(f) ? 2 : MAX_BARS); i++)
		scan_bar(f, &i);
	scan_caps(f);
	/* Decoding on, bus master on; that is how it is restored too. */
	f->header[1] = (f->header[1] & 0xffff0000u) | 7;
	pci_restore(f);
	n_functions++;
}

void pci_scan(void)
{
	for (uint32_t bus = 0; bus < 8; bus++)
		for (uint32_t devfn = 0; devfn < 256; devfn++)
			scan_function(bus << 16 | devfn << 8);
}

void pci_restore(const struct function *f)
{
	for (unsigned int i = HEADER_BYTES / 4 - 1; i >= 1; i--)
		pci_config_write(f->address, 4 * i, f->header[i]);
}

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* A message whose delivery mode is NMI, SMI or INIT is none of the devices' doing. */
static uint64_t tame_message(const struct function *f, uint64_t offset, uint64_t value,
			     unsigned int size)
{
	for (unsigned int i = 0; i < size; i++) {
		uint64_t at = offset + i - f->msix_offset;

		if (at < 16ull * f->msix_entries && at % 16 == 9)
			value &= ~(7ull << 8 * i);
	}
	return value;
}

void bar_write(const struct function *f, unsigned int bar, uint64_t offset, uint64_t value,
	       unsigned int size)
{
	const struct bar *b = &f->bar[bar];

	if ((int)bar == f->msix_bar)
		value = tame_message(f, offset, value, size);
	/* Ring addresses stay out of the guest's own memory. */
	if (f->virtio && (int)bar == f->common.bar &&
	    overlaps(offset, size, f->common.offset + 0x20, 0x18)) {
		if (size != 4 || offset % 4)
			return;
		if (!((offset - f->common.offset) & 4) && (uint32_t)value < GARBAGE_GPA)
			value |= GARBAGE_GPA;
	}
	if (b->io)
		port_write((uint16_t)(b->base + offset), (uint32_t)value, size > 4 ? 4 : size);
	else
		mem_write(b->base + offset, value, size);
}

uint64_t bar_read(const struct function *f, unsigned int bar, uint64_t offset, unsigned int size)
{
	const struct bar *b = &f->bar[bar];

	if (b->io)
		return port_read((uint16_t)(b->base + offset), size > 4 ? 4 : size);
	return mem_read(b->base + offset, size);
}

static void sweep_config(const struct function *f, unsigned int size)
{
	for (unsigned int reg = 0; reg < 4096; reg += size) {
		if (f->window_cap && overlaps(reg, size, f->window_cap + 16u, 4))
			continue;
		mem_write(ecam_gpa + ((uint64_t)f->address << 4) + reg, nasty(), size);
	}
	pci_restore(f);
}

void pci_sweep(void)
{
	for (unsigned int i = 0; i < n_functions; i++) {
		const struct function *f = &functions[i];

		for (unsigned int bar = 0; bar < MAX_BARS; bar++) {
			uint64_t size = f->bar[bar].present ? f->bar[bar].size : 0;

			for (uint64_t offset = 0; offset < size && offset < 32768; offset += 4) {
				bar_read(f, bar, offset, 4);
				bar_write(f, bar, offset, nasty(), 4);
			}
		}
		sweep_config(f, 4);
		sweep_config(f, 1);
	}
	print("\nattack: wrote every register\n");
}

/* Garbage into config space, by either way, at any width and alignment; then the header as it
 * was. */
void attack_config(void)
{
	const struct function *f = &functions[below(n_functions)];

	for (unsigned int n = 1 + below(12); n; n--) {
		unsigned int size = 1u << below(4), reg = below(below(2) ? 256 : 4096);
		uint64_t gpa = ecam_gpa + ((uint64_t)f->address << 4) + reg;
		uint64_t value = nasty();

		/* The window's data register writes to BARs: as bar_write has it, so not at all. */
		if (f->window_cap && overlaps(reg, 8, f->window_cap + 16u, 4))
			continue;
		if (reg + size > 4096)
			continue;
		switch (below(4)) {
		case 0:
			mem_read(gpa, size);
			break;
		case 1:
			mem_write(gpa, value, size);
			break;
		case 2:
			port_write(0xcf8, 0x80000000u | f->address | (reg & 0xfc), 4);
			port_read((uint16_t)(0xcfc + reg % 4), size > 4 ? 4 : size);
			break;
		default:
			port_write(0xcf8, 0x80000000u | f->address | (reg & 0xfc), 4);
			port_write((uint16_t)(0xcfc + reg % 4), (uint32_t)value,
				   size > 4 ? 4 : size);
			break;
		}
	}
	/* Functions that are not there, in any address form. */
	port_write(0xcf8, (uint32_t)rnd(), 4);
	port_read(0xcfc, 4);
	mem_read(ecam_gpa + below(256 << 20), 1u << below(4));
	if (f->msix_cap)
		pci_config_write(f->address, f->msix_cap, below(2) ? 0x80000000u : 0);
	pci_restore(f);
}

void attack_bar(void)
{
	const struct function *f = &functions[below(n_functions)];
	unsigned int bar = below(MAX_BARS);
	const struct bar *b = &f->bar[bar];

	if (!b->present)
		return;
	for (unsigned int n = 1 + below(16); n; n--) {
		unsigned int size = 1u << below(4);
		uint64_t offset = below((uint32_t)(b->size > 0x80000000u ? 0x80000000u : b->size));

		if (below(4))
			offset &= ~(uint64_t)(size - 1);
		if (offset + size > b->size)
			continue;
		if (below(3))
			bar_write(f, bar, offset, nasty(), size);
		else
			bar_read(f, bar, offset, size);
	}
}
