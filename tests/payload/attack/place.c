/* SPDX-License-Identifier: Apache-2.0 */
/* BARs where they do not belong, and MSI-X tables in every order: what chance would take long to
 * hit. */
#include "attack.h"

static void move_bar(const struct function *f, unsigned int bar, uint64_t base)
{
	bool wide = (f->header[4 + bar] & 6) == 4;

	pci_config_write(f->address, 0x10 + 4 * bar, (uint32_t)base);
	if (wide && bar + 1 < MAX_BARS)
		pci_config_write(f->address, 0x14 + 4 * bar, (uint32_t)(base >> 32));
}

/* Reads reach whatever is there now. Writes only where nothing of this guest's own is. */
static void touch(uint64_t base, uint64_t size, bool write)
{
	for (uint64_t at = 0; at < size && at < 8192 && base + at + 8 < 0xfec00000; at += 1024) {
		if (write)
			mem_write(base + at, 0, 4);
		mem_read(base + at, 8);
	}
}

/* Over RAM, over each other function's BARs, over ECAM, the interrupt controllers, the ends. */
static void place_bar(const struct function *f, unsigned int bar)
{
	const uint64_t fixed[] = {0,          GARBAGE_GPA, ram_end - 4096, ecam_gpa,   0xfec00000,
				  0xfee00000, 0xfffff000,  1ull << 32,     1ull << 46, ~0ull << 12};
	uint64_t size = f->bar[bar].size;

	for (unsigned int i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		move_bar(f, bar, fixed[i]);
		touch(fixed[i], size, fixed[i] == GARBAGE_GPA);
	}
	for (unsigned int i = 0; i < n_functions; i++) {
		for (unsigned int other = 0; other < MAX_BARS; other++) {
			const struct bar *b = &functions[i].bar[other];

			if (!b->present || b->io || b->base >> 32)
				continue;
			move_bar(f, bar, b->base);
			touch(b->base, size, false);
			/* Half over it. */
			move_bar(f, bar, b->base + b->size / 2);
			touch(b->base, b->size, false);
		}
	}
	pci_restore(f);
}

static uint64_t entry_gpa(const struct function *f, unsigned int entry)
{
	return f->bar[f->msix_bar].base + f->msix_offset + 16ull * entry;
}

static void msix_step(const struct function *f, unsigned int entry, unsigned int step)
{
	switch (step) {
	case 0: /* the function: enabled, not masked */
		pci_config_write(f->address, f->msix_cap, 0x80000000u);
		break;
	case 1:
		mem_write(entry_gpa(f, entry), 0xfee00000, 4);
		mem_write(entry_gpa(f, entry) + 4, 0, 4);
		mem_write(entry_gpa(f, entry) + 8, 0x40 + entry % 128, 4);
		break;
	case 2:
		mem_write(entry_gpa(f, entry) + 12, 0, 4);
		break;
	default: /* all masked, then disabled */
		mem_write(entry_gpa(f, entry) + 12, 1, 4);
		pci_config_write(f->address, f->msix_cap, 0xc0000000u);
		pci_config_write(f->address, f->msix_cap, 0);
		break;
	}
}

enum { STEPS = 4, ORDERS = 4 * 3 * 2 };

/* The nth order of the steps. */
static void msix_order(const struct function *f, unsigned int entry, unsigned int n)
{
	unsigned int left[STEPS] = {0, 1, 2, 3};

	for (unsigned int count = STEPS; count; n /= count, count--) {
		unsigned int at = n % count;

		msix_step(f, entry, left[at]);
		left[at] = left[count - 1];
	}
}

/* Each step twice, steps left out: what an order that has each once does not have. */
static void msix_disorder(const struct function *f, unsigned int entry)
{
	static const uint8_t steps[] = {2, 2, 0, 0, 1, 1, 3, 3, 0, 2, 3, 2, 0, 3, 3};

	for (unsigned int i = 0; i < sizeof(steps); i++)
		msix_step(f, entry, steps[i]);
}

static unsigned int msix_orders(const struct function *f)
{
	for (unsigned int entry = 0; entry < f->msix_entries; entry++) {
		/* Large tables: their ends. */
		if (entry == 4 && f->msix_entries > 8)
			entry = f->msix_entries - 4;
		for (unsigned int n = 0; n < ORDERS; n++)
			msix_order(f, entry, n);
		msix_disorder(f, entry);
	}
	msix_step(f, 0, 3);
	return ORDERS;
}

void pci_place(void)
{
	unsigned int bars = 0, orders = 0;

	for (unsigned int i = 0; i < n_functions; i++) {
		const struct function *f = &functions[i];

		if (f->msix_bar >= 0 && f->bar[f->msix_bar].present && !f->bar[f->msix_bar].io)
			orders += msix_orders(f);
		for (unsigned int bar = 0; bar < MAX_BARS; bar++) {
			if (!f->bar[bar].present || f->bar[bar].io)
				continue;
			place_bar(f, bar);
			bars++;
		}
	}
	print("attack: placed ");
	print_number(bars);
	print(" BARs, tried ");
	print_number(orders);
	print(" orders of MSI-X\n");
}
