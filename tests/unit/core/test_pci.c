/* SPDX-License-Identifier: Apache-2.0 */
/* PCI: both config mechanisms, BARs that the guest moves, bridges, assignment, resets. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "core/pci.h"

#define ECAM   0xe0000000ull
#define MMIO32 0xc0000000ull
#define MMIO64 (1ull << 40)

enum {
	COMMAND = 4,
	COMMAND_IO = 1,
	COMMAND_MEM = 2,
	COMMAND_INTX_OFF = 0x400,
	BAR = 0x10,
	ROM = 0x30,
	PRIMARY = 0x18,
	BRIDGE_CONTROL = 0x3e,
	INTX_GSI = 16,
};

static struct bus *mmio, *pio;
static struct irq_chip *chip;
static struct pci_root *root;
static struct err err;
static bool level[24];

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	(void)routes;
	(void)n;
	return 0;
}

static int set_line(void *opaque, uint32_t gsi, bool high)
{
	(void)opaque;
	level[gsi] = high;
	return 0;
}

static const struct irq_chip_ops chip_ops = {
	.set_routes = set_routes, .set_line = set_line, .pins = 24, .max_gsi = 64};

static void set_up(void)
{
	struct pci_root_config c = {.windows = {.ecam_gpa = ECAM,
						.mmio32_gpa = MMIO32,
						.mmio32_bytes = 256 * MiB,
						.mmio64_gpa = MMIO64,
						.mmio64_bytes = 256 * GiB,
						.io_base = 0x1000,
						.io_bytes = 0xf000},
				    .intx_gsi = INTX_GSI};

	cr_assert_eq(bus_create(&mmio, BUS_MMIO, &err), 0);
	cr_assert_eq(bus_create(&pio, BUS_PIO, &err), 0);
	cr_assert_eq(irq_chip_create(&chip, &chip_ops, NULL, &err), 0);
	c.mmio = mmio;
	c.pio = pio;
	c.irq = chip;
	cr_assert_eq(pci_root_create(&root, &c, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	pci_root_destroy(root);
	irq_chip_destroy(chip);
	bus_destroy(pio);
	bus_destroy(mmio);
}

TestSuite(pci, .init = set_up, .fini = tear_down);

/* A function with a trapped BAR of each kind that is asked for. */
struct fn {
	struct pci_device pci;
	pthread_mutex_t lock;
	struct bus_region region[PCI_PLACES];
	uint8_t tag;
	unsigned int written, reset;
	uint64_t mapped; /* of a host mapping, 0 when not visible */
};

static uint64_t tag_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)offset;
	(void)size;
	return ((struct fn *)opaque)->tag;
}

static void no_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
}

static const struct bus_ops tag_ops = {.read = tag_read, .write = no_write, .min = 1, .max = 1};

static void written(struct pci_device *dev, unsigned int offset, unsigned int size)
{
	(void)offset;
	(void)size;
	((struct fn *)dev)->written++;
}

static void was_reset(struct pci_device *dev)
{
	((struct fn *)dev)->reset++;
}

static void bar_mapped(struct pci_device *dev, unsigned int bar, uint64_t gpa, bool on)
{
	struct fn *f = (struct fn *)dev;

	(void)bar;
	cr_assert_eq(f->mapped, on ? 0 : gpa, "on and off in turn, at one place");
	f->mapped = on ? gpa : 0;
}

static const struct pci_device_ops fn_ops = {
	.config_written = written, .bar_mapped = bar_mapped, .reset = was_reset};

static void fn_init(struct fn *f, const char *name, uint8_t tag)
{
	const struct pci_ids ids = {.vendor = 0x1234,
				    .device = 0x5678,
				    .subsystem_vendor = 0x1af4,
				    .subsystem = tag,
				    .revision = 3,
				    .class_code = 0x020000,
				    .pin = 1};

	*f = (struct fn){.tag = tag};
	pthread_mutex_init(&f->lock, NULL);
	pci_device_init(&f->pci, &fn_ops, name, &ids);
	f->pci.lock = &f->lock;
}

static void fn_bar(struct fn *f, unsigned int bar, enum pci_bar_kind kind, uint64_t size)
{
	f->region[bar] = (struct bus_region){
		.ops = &tag_ops, .opaque = f, .name = f->pci.name, .size_bytes = size};
	pci_set_bar(&f->pci, bar, kind, size, &f->region[bar]);
}

static void attach(struct fn *f, struct pci_bus *bus, unsigned int slot, unsigned int function)
{
	const struct pci_addr a = {.slot = (uint8_t)slot, .function = (uint8_t)function};

	cr_assert_eq(pci_attach(&f->pci, bus, &a, &err), 0, "%s", err.text);
}

static void port_init(struct fn *f, const char *name)
{
	const struct pci_ids ids = {
		.vendor = 0x1234, .device = 1, .class_code = 0x060400, .header_type = 1, .pin = 1};

	*f = (struct fn){0};
	pthread_mutex_init(&f->lock, NULL);
	pci_device_init(&f->pci, &fn_ops, name, &ids);
	f->pci.lock = &f->lock;
	pci_add_express(&f->pci, 4);
	cr_assert_eq(pci_bridge_init(&f->pci, &err), 0);
}

static uint64_t ecam(unsigned int bus, unsigned int slot, unsigned int function, unsigned int reg)
{
	return ECAM + (bus << 20 | slot << 15 | function << 12 | reg);
}

static uint32_t cfg_read(unsigned int bus, unsigned int slot, unsigned int reg, unsigned int size)
{
	uint32_t v = 0;

	cr_assert(bus_read(mmio, ecam(bus, slot, 0, reg), &v, size));
	return v;
}

static void cfg_write(unsigned int bus, unsigned int slot, unsigned int reg, uint32_t v,
		      unsigned int size)
{
	cr_assert(bus_write(mmio, ecam(bus, slot, 0, reg), &v, size));
}

static uint32_t port_read(unsigned int bus, unsigned int slot, unsigned int reg, unsigned int size)
{
	uint32_t address = 1u << 31 | bus << 16 | slot << 11 | (reg & 0xfc), v = 0;

	cr_assert(bus_write(pio, 0xcf8, &address, 4));
	bus_read(pio, 0xcfc + (reg & 3), &v, size);
	return v;
}

static uint8_t tag_at(struct bus *bus, uint64_t addr)
{
	uint8_t v = 0;

	bus_read(bus, addr, &v, 1);
	return v;
}

Test(pci, addresses_are_parsed_in_three_forms)
{
	struct pci_addr a;
	char text[PCI_ADDR_TEXT];
	static const char *const bad[] = {
		"",         "4",     "04",        "20.0",         "04.8",
		"1:04.0.0", "04.0 ", "-4.0",      "0001:00:04.0", "100:04.0",
		"zz.0",     "04.",   "0:0:0:4.0", " 4.0"};

	cr_assert_eq(pci_addr_parse(&a, "04.1", &err), 0);
	cr_assert(a.bus == 0 && a.slot == 4 && a.function == 1);
	cr_assert_eq(pci_addr_parse(&a, "3a:1f.7", &err), 0);
	cr_assert(a.bus == 0x3a && a.slot == 0x1f && a.function == 7);
	cr_assert_str_eq(pci_addr_format(&a, text), "3a:1f.7");
	cr_assert_eq(pci_addr_parse(&a, "0000:01:0a.2", &err), 0);
	cr_assert(a.bus == 1 && a.slot == 10 && a.function == 2);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_eq(pci_addr_parse(&a, bad[i], &err), -EINVAL, "'%s'", bad[i]);
}

Test(pci, absent_functions_read_all_ones)
{
	cr_assert_eq(cfg_read(0, 5, 0, 4), ~0u);
	cr_assert_eq(cfg_read(7, 0, 0, 4), ~0u);
	cr_assert_eq(port_read(0, 5, 0, 4), ~0u);
	cfg_write(0, 5, 4, 7, 2);
	cr_assert_eq(cfg_read(0, 0, 8, 4) >> 8, 0x060000, "bus 0 begins with a host bridge");
}

Test(pci, both_mechanisms_reach_the_same_registers_in_every_size)
{
	struct fn f;

	fn_init(&f, "f", 1);
	attach(&f, pci_root_bus(root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, 0, 4), 0x56781234);
	cr_assert_eq(port_read(0, 3, 0, 4), 0x56781234);
	for (unsigned int reg = 0; reg < 64; reg++) {
		cr_assert_eq(port_read(0, 3, reg, 1), cfg_read(0, 3, reg, 1));
		if (reg % 2 == 0)
			cr_assert_eq(port_read(0, 3, reg, 2), cfg_read(0, 3, reg, 2));
	}
	cr_assert_eq(cfg_read(0, 3, 0x2e, 2), 1);
	cr_assert_eq(cfg_read(0, 3, 2, 1), 0x78);
	pci_detach(&f.pci);
	cr_assert_eq(cfg_read(0, 3, 0, 4), ~0u);
}

Test(pci, the_address_port_takes_doublewords_only_and_can_be_off)
{
	uint32_t v = 0x80001800;
	uint8_t b = 0x55;

	bus_write(pio, 0xcf8, &v, 4);
	bus_write(pio, 0xcf8, &b, 1);
	bus_write(pio, 0xcfa, &v, 2);
	bus_read(pio, 0xcf8, &v, 4);
	cr_assert_eq(v, 0x80001800);
	v = 0;
	bus_write(pio, 0xcf8, &v, 4);
	bus_read(pio, 0xcfc, &v, 4);
	cr_assert_eq(v, ~0u, "not enabled: no config cycle, though 00:00.0 exists");
}

static uint8_t reset_value;

static void reset_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)opaque;
	cr_assert(offset == 0 && size == 1);
	reset_value = (uint8_t)value;
}

static uint64_t reset_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0x42;
}

Test(pci, the_reset_port_gets_single_bytes_at_0xcf9)
{
	static const struct bus_ops ops = {.read = reset_read, .write = reset_write};
	struct bus_region r = {.ops = &ops, .name = "reset", .size_bytes = 1};
	uint32_t v = 6;

	bus_write(pio, 0xcf9, &v, 1);
	pci_root_set_reset_port(root, &r);
	cr_assert_eq(tag_at(pio, 0xcf9), 0x42);
	bus_write(pio, 0xcf9, &v, 1);
	cr_assert_eq(reset_value, 6);
	v = 0x80000e00;
	reset_value = 0;
	bus_write(pio, 0xcf8, &v, 4);
	cr_assert_eq(reset_value, 0, "a doubleword is an address");
	cr_assert_eq(atomic_load(&r.traps), 2);
}

Test(pci, writes_change_writable_bits_only_and_clear_by_one)
{
	struct fn f;

	fn_init(&f, "f", 1);
	f.pci.config[7] = 0xf9;
	attach(&f, pci_root_bus(root), 3, 0);
	cfg_write(0, 3, 0, 0, 4);
	cr_assert_eq(cfg_read(0, 3, 0, 4), 0x56781234);
	cfg_write(0, 3, 4, 0xffff, 2);
	cr_assert_eq(cfg_read(0, 3, 4, 2), 0x0547);
	cfg_write(0, 3, 6, 0x0900, 2);
	cr_assert_eq(cfg_read(0, 3, 6, 2), 0xf000);
	cr_assert_eq(f.written, 3);
	cr_assert(pci_bus_master(&f.pci));
	pci_detach(&f.pci);
}

Test(pci, a_bar_tells_its_size_and_keeps_its_type_bits)
{
	struct fn f;

	fn_init(&f, "f", 1);
	fn_bar(&f, 0, PCI_BAR_IO, 32);
	fn_bar(&f, 1, PCI_BAR_MEM32, 64 * KiB);
	fn_bar(&f, 2, PCI_BAR_MEM64, 16 * KiB);
	fn_bar(&f, 4, PCI_BAR_MEM64_PREFETCH, 8 * GiB);
	attach(&f, pci_root_bus(root), 3, 0);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		cfg_write(0, 3, BAR + 4 * i, ~0u, 4);
	cr_assert_eq(cfg_read(0, 3, BAR, 4), 0xffffffe1);
	cr_assert_eq(cfg_read(0, 3, BAR + 4, 4), 0xffff0000);
	cr_assert_eq(cfg_read(0, 3, BAR + 8, 4), 0xffffc004);
	cr_assert_eq(cfg_read(0, 3, BAR + 12, 4), 0xffffffff);
	cr_assert_eq(cfg_read(0, 3, BAR + 16, 4), 0x0000000c);
	cr_assert_eq(cfg_read(0, 3, BAR + 20, 4), 0xfffffffe);
	pci_detach(&f.pci);
}

Test(pci, a_bar_is_visible_while_decoded_and_follows_its_register)
{
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, 0, PCI_BAR_MEM64, 4 * KiB);
	fn_bar(&f, 2, PCI_BAR_IO, 16);
	attach(&f, pci_root_bus(root), 3, 0);
	cfg_write(0, 3, BAR, MMIO32 + 0x5000, 4);
	cfg_write(0, 3, BAR + 8, 0x2000, 4);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x5000), 0xff);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x5000), 0x77);
	cr_assert_eq(tag_at(pio, 0x2000), 0xff, "memory decoding is not I/O decoding");
	cfg_write(0, 3, COMMAND, COMMAND_IO | COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pio, 0x200f), 0x77);
	/* Moved above 4 GiB in two steps: nothing shows at the address between them. */
	cfg_write(0, 3, BAR + 4, MMIO64 >> 32, 4);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x5000), 0xff);
	cr_assert_eq(tag_at(mmio, MMIO64 + MMIO32 + 0x5000), 0x77, "inside the 64-bit window");
	cfg_write(0, 3, BAR, 0x9000, 4);
	cr_assert_eq(tag_at(mmio, MMIO64 + 0x9000), 0x77);
	cr_assert_eq(tag_at(mmio, MMIO64 + MMIO32 + 0x5000), 0xff);
	cfg_write(0, 3, COMMAND, 0, 2);
	cr_assert_eq(tag_at(mmio, MMIO64 + 0x9000), 0xff);
	pci_detach(&f.pci);
}

Test(pci, a_rom_needs_its_own_enable_bit_too_and_a_reset_takes_it_away)
{
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, PCI_ROM, PCI_BAR_ROM, 64 * KiB);
	attach(&f, pci_root_bus(root), 3, 0);
	cfg_write(0, 3, ROM, 0xfffff800, 4);
	cr_assert_eq(cfg_read(0, 3, ROM, 4), 0xffff0000);
	cfg_write(0, 3, ROM, MMIO32 + 0x50000, 4);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x50000), 0xff);
	cfg_write(0, 3, ROM, MMIO32 + 0x50001, 4);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x50000), 0x77);
	cfg_write(0, 3, COMMAND, 0, 2);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x50000), 0xff);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	pci_device_reset(&f.pci);
	cr_assert_eq(cfg_read(0, 3, ROM, 4), MMIO32 + 0x50000, "it keeps its address alone");
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(mmio, MMIO32 + 0x50000), 0xff);
	pci_detach(&f.pci);
}

Test(pci, a_bar_over_ram_or_half_outside_a_window_is_not_visible)
{
	static const uint64_t bad[] = {0,    0x100000,      MMIO32 - 4096,      MMIO32 + 256 * MiB,
				       ECAM, MMIO64 - 4096, MMIO64 + 256 * GiB, ~0ull & ~4095ull};
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, 0, PCI_BAR_MEM64, 4 * KiB);
	attach(&f, pci_root_bus(root), 3, 0);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		cfg_write(0, 3, BAR, (uint32_t)bad[i], 4);
		cfg_write(0, 3, BAR + 4, (uint32_t)(bad[i] >> 32), 4);
		cr_assert_not(f.pci.bars[0].visible, "0x%llx", (unsigned long long)bad[i]);
		cr_assert_not(f.region[0].on);
	}
	cr_assert_eq(cfg_read(0, 0, 0, 2), 0x1b36, "ECAM is still there");
	pci_detach(&f.pci);
}

Test(pci, the_first_of_two_overlapping_bars_keeps_the_addresses)
{
	struct fn a, b;

	fn_init(&a, "a", 0xaa);
	fn_init(&b, "b", 0xbb);
	fn_bar(&a, 0, PCI_BAR_MEM32, 4 * KiB);
	fn_bar(&b, 0, PCI_BAR_MEM32, 16 * KiB);
	attach(&a, pci_root_bus(root), 3, 0);
	attach(&b, pci_root_bus(root), 4, 0);
	for (unsigned int slot = 3; slot <= 4; slot++) {
		cfg_write(0, slot, BAR, MMIO32, 4);
		cfg_write(0, slot, COMMAND, COMMAND_MEM, 2);
	}
	cr_assert_eq(tag_at(mmio, MMIO32), 0xaa);
	cr_assert_eq(tag_at(mmio, MMIO32 + 4096), 0xbb);
	cfg_write(0, 3, COMMAND, 0, 2);
	cr_assert_eq(tag_at(mmio, MMIO32), 0xbb);
	pci_detach(&a.pci);
	pci_detach(&b.pci);
	cr_assert_eq(tag_at(mmio, MMIO32 + 4096), 0xff, "detached is gone");
}

Test(pci, overlapping_host_mappings_take_turns)
{
	struct fn a, b;

	fn_init(&a, "a", 1);
	fn_init(&b, "b", 2);
	pci_set_bar(&a.pci, 0, PCI_BAR_MEM32, 4 * KiB, NULL);
	pci_set_bar(&b.pci, 0, PCI_BAR_MEM32, 64 * KiB, NULL);
	attach(&a, pci_root_bus(root), 3, 0);
	attach(&b, pci_root_bus(root), 4, 0);
	for (unsigned int slot = 3; slot <= 4; slot++) {
		cfg_write(0, slot, BAR, MMIO32 + 0x10000, 4);
		cfg_write(0, slot, COMMAND, COMMAND_MEM, 2);
	}
	cr_assert_eq(a.mapped, MMIO32 + 0x10000);
	cr_assert_eq(b.mapped, 0);
	cfg_write(0, 3, BAR, MMIO32 + 0x80000, 4);
	cr_assert_eq(a.mapped, MMIO32 + 0x80000);
	cr_assert_eq(b.mapped, MMIO32 + 0x10000);
	cfg_write(0, 3, BAR, MMIO32 + 0x11000, 4);
	cr_assert_eq(a.mapped, 0);
	pci_detach(&b.pci);
	cr_assert_eq(b.mapped, 0);
	cr_assert_eq(a.mapped, MMIO32 + 0x11000);
	pci_detach(&a.pci);
}

Test(pci, the_multi_function_bit_comes_and_goes)
{
	struct fn f[2];

	fn_init(&f[0], "f0", 1);
	fn_init(&f[1], "f1", 2);
	attach(&f[0], pci_root_bus(root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, 0xe, 1), 0);
	attach(&f[1], pci_root_bus(root), 3, 5);
	cr_assert_eq(cfg_read(0, 3, 0xe, 1), 0x80);
	pci_detach(&f[1].pci);
	cr_assert_eq(cfg_read(0, 3, 0xe, 1), 0);
	pci_detach(&f[0].pci);
}

Test(pci, a_function_without_function_0_is_refused_at_assignment)
{
	struct fn f;

	fn_init(&f, "lonely", 1);
	attach(&f, pci_root_bus(root), 3, 2);
	cr_assert_eq(pci_root_assign(root, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "lonely"));
	pci_detach(&f.pci);
}

Test(pci, slots_are_given_in_order_and_conflicts_named)
{
	const struct pci_addr three = {.slot = 3}, far = {.slot = 32};
	struct fn a, b, c;

	fn_init(&a, "a", 1);
	fn_init(&b, "b", 2);
	fn_init(&c, "c", 3);
	cr_assert_eq(pci_attach(&a.pci, pci_root_bus(root), NULL, &err), 0);
	cr_assert_eq(a.pci.addr.slot, 1, "0 is the host bridge");
	cr_assert_eq(pci_attach(&b.pci, pci_root_bus(root), &three, &err), 0);
	cr_assert_eq(pci_attach(&c.pci, pci_root_bus(root), &three, &err), -EEXIST);
	cr_assert_not_null(strstr(err.text, "'b'"));
	cr_assert_not_null(strstr(err.text, "00:03.0"));
	cr_assert_eq(pci_attach(&c.pci, pci_root_bus(root), &far, &err), -EINVAL);
	cr_assert_eq(pci_attach(&c.pci, pci_root_bus(root), NULL, &err), 0);
	cr_assert_eq(c.pci.addr.slot, 2);
	pci_detach(&a.pci);
	pci_detach(&b.pci);
	pci_detach(&c.pci);
}

Test(pci, intx_is_swizzled_and_gated)
{
	struct fn f, port, behind;

	fn_init(&f, "f", 1);
	port_init(&port, "port");
	fn_init(&behind, "behind", 2);
	attach(&f, pci_root_bus(root), 5, 0);
	attach(&port, pci_root_bus(root), 6, 0);
	attach(&behind, port.pci.secondary, 0, 0);
	cr_assert_eq(cfg_read(0, 5, 0x3c, 1), INTX_GSI + 1, "(slot + pin) %% 4");
	pci_set_intx(&f.pci, true);
	cr_assert(level[INTX_GSI + 1]);
	cr_assert_eq(cfg_read(0, 5, 6, 2) & 8, 8);
	cfg_write(0, 5, COMMAND, COMMAND_INTX_OFF, 2);
	cr_assert_not(level[INTX_GSI + 1]);
	cr_assert_eq(cfg_read(0, 5, 6, 2) & 8, 8, "pending shows all the same");
	cfg_write(0, 5, COMMAND, 0, 2);
	cr_assert(level[INTX_GSI + 1]);
	pci_set_intx(&f.pci, false);
	cr_assert_not(level[INTX_GSI + 1]);
	pci_set_intx(&behind.pci, true);
	cr_assert(level[INTX_GSI + 2], "slot 0 behind slot 6");
	pci_detach(&behind.pci);
	cr_assert_not(level[INTX_GSI + 2], "who leaves lets go");
	pci_detach(&port.pci);
	pci_detach(&f.pci);
	pci_bridge_done(&port.pci);
}

Test(pci, capabilities_are_chained)
{
	struct fn f;
	unsigned int a, b, x, y;

	fn_init(&f, "f", 1);
	a = pci_add_cap(&f.pci, 0x09, 5);
	b = pci_add_cap(&f.pci, 0x11, 12);
	x = pci_add_ecap(&f.pci, 0x0001, 2, 0x40);
	y = pci_add_ecap(&f.pci, 0x0003, 1, 12);
	attach(&f, pci_root_bus(root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, 6, 2) & 0x10, 0x10);
	cr_assert_eq(cfg_read(0, 3, 0x34, 1), a);
	cr_assert_eq(cfg_read(0, 3, a, 2), 0x09 | b << 8);
	cr_assert_eq(cfg_read(0, 3, b, 2), 0x11);
	cr_assert_eq(x, 0x100);
	cr_assert_eq(cfg_read(0, 3, x, 4), 0x00020001 | y << 20);
	cr_assert_eq(cfg_read(0, 3, y, 4), 0x00010003);
	cfg_write(0, 3, b + 4, ~0u, 4);
	cr_assert_eq(cfg_read(0, 3, b + 4, 4), 0, "read-only until the device says otherwise");
	pci_detach(&f.pci);
}

/* --- bridges --- */

static struct fn port_a, port_b, end_a, end_b;

static void two_ports(void)
{
	port_init(&port_a, "port-a");
	port_init(&port_b, "port-b");
	fn_init(&end_a, "end-a", 0xa1);
	fn_init(&end_b, "end-b", 0xb1);
	fn_bar(&end_a, 0, PCI_BAR_MEM64, 16 * KiB);
	fn_bar(&end_b, 0, PCI_BAR_MEM64_PREFETCH, 16 * KiB);
	fn_bar(&end_b, 2, PCI_BAR_IO, 64);
	attach(&port_a, pci_root_bus(root), 1, 0);
	attach(&port_b, pci_root_bus(root), 2, 0);
	attach(&end_a, port_a.pci.secondary, 0, 0);
	cr_assert_eq(pci_attach(&end_b.pci, port_b.pci.secondary, NULL, &err), 0);
	cr_assert_eq(pci_root_assign(root, &err), 0, "%s", err.text);
}

static void no_ports(void)
{
	pci_detach(&end_a.pci);
	pci_detach(&end_b.pci);
	pci_detach(&port_a.pci);
	pci_detach(&port_b.pci);
	pci_bridge_done(&port_a.pci);
	pci_bridge_done(&port_b.pci);
}

Test(pci, a_link_leads_to_slot_0_only)
{
	const struct pci_addr one = {.slot = 1};
	struct fn f;

	two_ports();
	fn_init(&f, "f", 1);
	cr_assert_eq(pci_attach(&f.pci, port_a.pci.secondary, &one, &err), -EINVAL);
	cr_assert_eq(pci_attach(&f.pci, port_a.pci.secondary, NULL, &err), -ENOSPC);
	cr_assert_not_null(strstr(err.text, "port-a"));
	no_ports();
}

Test(pci, config_accesses_follow_the_bus_numbers_that_the_guest_sets)
{
	unsigned int b;

	two_ports();
	b = cfg_read(0, 2, PRIMARY + 1, 1);
	cr_assert_eq(cfg_read(1, 0, 0x2e, 2), 0xa1);
	cr_assert_eq(cfg_read(b, 0, 0x2e, 2), 0xb1);
	cr_assert_eq(pci_requester_id(&end_b.pci), b << 8);
	cfg_write(0, 2, PRIMARY, 0x22200000 | 0x002000,
		  4); /* primary 0, secondary 0x20, sub. 0x20 */
	cr_assert_eq(cfg_read(b, 0, 0, 4), ~0u);
	cr_assert_eq(cfg_read(0x20, 0, 0x2e, 2), 0xb1);
	cr_assert_eq(pci_requester_id(&end_b.pci), 0x2000);
	cfg_write(0, 2, PRIMARY, 0, 4);
	cr_assert_eq(cfg_read(0x20, 0, 0, 4), ~0u);
	/* Both claim everything: the first one wins, and nothing loops. */
	cfg_write(0, 1, PRIMARY, 0x00ff0100, 4);
	cfg_write(0, 2, PRIMARY, 0x00ff0100, 4);
	cr_assert_eq(cfg_read(1, 0, 0x2e, 2), 0xa1);
	cr_assert_eq(cfg_read(0x80, 0, 0, 4), ~0u);
	no_ports();
}

static uint64_t bar64(unsigned int bus, unsigned int slot, unsigned int reg)
{
	return (cfg_read(bus, slot, reg, 4) & ~15u) | (uint64_t)cfg_read(bus, slot, reg + 4, 4)
							      << 32;
}

Test(pci, assignment_puts_bars_into_windows_with_room_to_spare)
{
	uint64_t at, base, limit;
	unsigned int b;

	two_ports();
	b = cfg_read(0, 2, PRIMARY + 1, 1);
	cr_assert_eq(cfg_read(0, 1, PRIMARY + 1, 1), 1);
	cr_assert_gt(cfg_read(0, 1, PRIMARY + 2, 1), 1, "numbers to spare");
	cr_assert_eq(b, cfg_read(0, 1, PRIMARY + 2, 1) + 1u);
	cr_assert_eq(cfg_read(0, 2, PRIMARY + 2, 1), pci_root_last_bus(root));

	/* Not prefetchable: 32-bit, behind a bridge */
	at = bar64(1, 0, BAR);
	base = (uint64_t)(cfg_read(0, 1, 0x20, 2) & 0xfff0) << 16;
	limit = (uint64_t)(cfg_read(0, 1, 0x22, 2) & 0xfff0) << 16 | 0xfffff;
	cr_assert(at && range_inside(at, 16 * KiB, base, limit - base + 1));
	cr_assert(range_inside(base, limit - base + 1, MMIO32, 256 * MiB));
	cr_assert_geq(limit - base + 1, 3 * MiB);

	at = bar64(b, 0, BAR);
	base = (uint64_t)(cfg_read(0, 2, 0x24, 2) & 0xfff0) << 16 |
	       (uint64_t)cfg_read(0, 2, 0x28, 4) << 32;
	limit = (uint64_t)(cfg_read(0, 2, 0x26, 2) & 0xfff0) << 16 | 0xfffff |
		(uint64_t)cfg_read(0, 2, 0x2c, 4) << 32;
	cr_assert(at && range_inside(at, 16 * KiB, base, limit - base + 1));
	cr_assert(range_inside(base, limit - base + 1, MMIO64, 256 * GiB));
	cr_assert_geq(limit - base + 1, 1 * GiB);

	cr_assert_neq(cfg_read(b, 0, BAR + 8, 4) & ~3u, 0);
	cr_assert_eq(cfg_read(0, 1, COMMAND, 2) | cfg_read(1, 0, COMMAND, 2), 0,
		     "decoding is the guest's to turn on");
	no_ports();
}

Test(pci, a_device_behind_a_bridge_shows_while_the_bridge_forwards)
{
	uint64_t at;

	two_ports();
	at = bar64(1, 0, BAR);
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(mmio, at), 0xff);
	cfg_write(0, 1, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(mmio, at), 0xa1);
	cfg_write(0, 1, 0x20, 0x0000fff0, 4); /* closed */
	cr_assert_eq(tag_at(mmio, at), 0xff);
	no_ports();
}

Test(pci, assignment_is_the_same_again_and_undoes_what_the_guest_did)
{
	uint8_t before[0x40], after[0x40];

	two_ports();
	memcpy(before, port_b.pci.config, sizeof(before));
	cfg_write(0, 2, COMMAND, COMMAND_MEM | COMMAND_IO, 2);
	for (unsigned int reg = 0x18; reg < 0x34; reg += 4)
		cfg_write(0, 2, reg, 0x12345678, 4);
	cr_assert_eq(pci_root_assign(root, &err), 0);
	memcpy(after, port_b.pci.config, sizeof(after));
	before[0x1b] = after[0x1b]; /* not decoded */
	cr_assert_arr_eq(before, after, sizeof(before));
	no_ports();
}

Test(pci, assignment_without_room_names_the_space)
{
	struct fn f;

	fn_init(&f, "f", 1);
	fn_bar(&f, 0, PCI_BAR_MEM32, 512 * MiB);
	attach(&f, pci_root_bus(root), 3, 0);
	cr_assert_eq(pci_root_assign(root, &err), -ENOSPC);
	cr_assert_not_null(strstr(err.text, "32-bit MMIO"));
	cr_assert_not_null(strstr(err.text, "524288 KiB"));
	pci_detach(&f.pci);
}

Test(pci, spare_room_shrinks_before_a_device_is_refused)
{
	struct fn f;

	two_ports();
	fn_init(&f, "f", 0x33);
	/* Fits if the ports keep 1 MiB to spare, not 2. */
	fn_bar(&f, 0, PCI_BAR_MEM32, 128 * MiB);
	fn_bar(&f, 1, PCI_BAR_MEM32, 64 * MiB);
	fn_bar(&f, 2, PCI_BAR_MEM32, 32 * MiB);
	fn_bar(&f, 3, PCI_BAR_MEM32, 16 * MiB);
	fn_bar(&f, 4, PCI_BAR_MEM32, 8 * MiB);
	fn_bar(&f, 5, PCI_BAR_MEM32, 4 * MiB);
	attach(&f, pci_root_bus(root), 5, 0);
	cr_assert_eq(pci_root_assign(root, &err), 0, "%s", err.text);
	cr_assert_eq(cfg_read(0, 1, 0x22, 2), cfg_read(0, 1, 0x20, 2) + 0x10, "one to spare");
	pci_detach(&f.pci);
	no_ports();
}

Test(pci, a_secondary_bus_reset_reaches_what_is_below)
{
	two_ports();
	cfg_write(1, 0, COMMAND, 7, 2);
	cfg_write(1, 0, 0x3c, 99, 1);
	cfg_write(0, 1, BRIDGE_CONTROL, 0x40, 2);
	cr_assert_eq(end_a.reset, 1);
	cr_assert_eq(end_b.reset, 0);
	cr_assert_eq(cfg_read(1, 0, COMMAND, 2), 0);
	cr_assert_eq(cfg_read(1, 0, 0x3c, 1), INTX_GSI + 1, "as at the start");
	cr_assert_neq(bar64(1, 0, BAR), 0, "BARs stay as assigned");
	cfg_write(0, 1, BRIDGE_CONTROL, 0x40, 2);
	cr_assert_eq(end_a.reset, 1, "on the rising edge");
	no_ports();
}

Test(pci, a_reset_bridge_forwards_nothing)
{
	uint64_t at;

	two_ports();
	at = bar64(1, 0, BAR);
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cfg_write(0, 1, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(mmio, at), 0xa1);
	pci_device_reset(&port_a.pci);
	cr_assert_eq(tag_at(mmio, at), 0xff);
	no_ports();
}

Test(pci, a_function_level_reset_resets_one_function)
{
	struct fn f;
	unsigned int cap;

	fn_init(&f, "f", 1);
	cap = pci_add_express(&f.pci, 9);
	attach(&f, pci_root_bus(root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, cap + 4, 4) >> 28 & 1, 1);
	cfg_write(0, 3, COMMAND, 7, 2);
	cfg_write(0, 3, cap + 8, 0x8000, 2);
	cr_assert_eq(f.reset, 1);
	cr_assert_eq(cfg_read(0, 3, COMMAND, 2), 0);
	cr_assert_eq(cfg_read(0, 3, cap + 8, 2), 0x2810, "back to its default; the bit reads 0");
	cfg_write(0, 3, cap + 9, 0x80, 1);
	cr_assert_eq(f.reset, 2);
	pci_detach(&f.pci);
}

Test(pci, express_registers_fit_the_port_type)
{
	unsigned int root_cap, end_cap;
	struct fn f;

	two_ports();
	root_cap = port_a.pci.express;
	cr_assert_eq(cfg_read(0, 1, root_cap, 1), 0x10);
	cr_assert_eq(cfg_read(0, 1, root_cap + 2, 2), 0x0142, "version 2, root port, slot");
	cr_assert_neq(cfg_read(0, 1, root_cap + 0xc, 4) & 0x3ff, 0, "a link");
	cr_assert_eq(cfg_read(0, 1, root_cap + 0x14, 4) & 0x60, 0x60, "hot plug");
	no_ports();
	fn_init(&f, "f", 1);
	end_cap = pci_add_express(&f.pci, 9);
	attach(&f, pci_root_bus(root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, end_cap + 2, 2), 0x0092);
	cr_assert_eq(cfg_read(0, 3, end_cap + 0xc, 4), 0, "an integrated endpoint has no link");
	pci_detach(&f.pci);
}

static void collect(void *opaque, struct pci_device *dev)
{
	strcat(opaque, dev->name);
	strcat(opaque, " ");
}

Test(pci, walks_are_in_order_of_addresses)
{
	char names[200] = "";

	two_ports();
	pci_root_walk(root, collect, names);
	cr_assert_str_eq(names, "host-bridge port-a port-b end-a end-b ");
	no_ports();
}

/* --- threads --- */

static atomic_bool stop;
static atomic_uint touched;

/* A guest's CPU that programs and uses whatever is at bus 1. */
static void *cpu(void *opaque)
{
	uint64_t own = MMIO32 + ((uint64_t)opaque << 20);

	while (!atomic_load(&stop)) {
		uint32_t id = cfg_read(1, 0, 0, 4);
		uint8_t tag;

		if (id != ~0u && id != 0x56781234)
			abort();
		cfg_write(1, 0, BAR, (uint32_t)own, 4);
		cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
		tag = tag_at(mmio, own);
		if (tag != 0xff && tag != 0x5a)
			abort();
		if (tag == 0x5a)
			atomic_fetch_add(&touched, 1);
	}
	return NULL;
}

Test(pci, devices_come_and_go_while_cpus_use_them)
{
	pthread_t t[2];

	port_init(&port_a, "port-a");
	attach(&port_a, pci_root_bus(root), 1, 0);
	cr_assert_eq(pci_root_assign(root, &err), 0);
	cfg_write(0, 1, COMMAND, COMMAND_MEM, 2);
	cfg_write(0, 1, 0x20, (uint32_t)(MMIO32 >> 16 | (MMIO32 + 15 * MiB)), 4);
	for (uint64_t i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, cpu, (void *)i), 0);
	for (unsigned int round = 0; round < 100; round++) {
		struct fn *f = malloc(sizeof(*f));
		unsigned int before = atomic_load(&touched);

		fn_init(f, "guest", 0x5a);
		fn_bar(f, 0, PCI_BAR_MEM32, 4 * KiB);
		attach(f, port_a.pci.secondary, 0, 0);
		while (round % 10 == 0 && atomic_load(&touched) == before)
			sched_yield();
		pci_detach(&f->pci);
		memset(f, 0xee, sizeof(*f));
		free(f);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	pci_detach(&port_a.pci);
	pci_bridge_done(&port_a.pci);
}
