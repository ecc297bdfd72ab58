/* SPDX-License-Identifier: Apache-2.0 */
/* PCI: both config mechanisms, registers, BARs that the guest moves, places on a bus. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "core/pci_impl.h"
#include "pci_rig.h"

TestSuite(pci, .init = rig_set_up, .fini = rig_tear_down);

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
	attach(&f, pci_root_bus(pci.root), 3, 0);
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

	bus_write(pci.pio, 0xcf8, &v, 4);
	bus_write(pci.pio, 0xcf8, &b, 1);
	bus_write(pci.pio, 0xcfa, &v, 2);
	bus_read(pci.pio, 0xcf8, &v, 4);
	cr_assert_eq(v, 0x80001800);
	v = 0;
	bus_write(pci.pio, 0xcf8, &v, 4);
	bus_read(pci.pio, 0xcfc, &v, 4);
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

	bus_write(pci.pio, 0xcf9, &v, 1);
	pci_root_set_reset_port(pci.root, &r);
	cr_assert_eq(tag_at(pci.pio, 0xcf9), 0x42);
	bus_write(pci.pio, 0xcf9, &v, 1);
	cr_assert_eq(reset_value, 6);
	v = 0x80000e00;
	reset_value = 0;
	bus_write(pci.pio, 0xcf8, &v, 4);
	cr_assert_eq(reset_value, 0, "a doubleword is an address");
	cr_assert_eq(atomic_load(&r.traps), 2);
}

Test(pci, writes_change_writable_bits_only_and_clear_by_one)
{
	struct fn f;

	fn_init(&f, "f", 1);
	f.pci.config[7] = 0xf9;
	attach(&f, pci_root_bus(pci.root), 3, 0);
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
	attach(&f, pci_root_bus(pci.root), 3, 0);
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
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cfg_write(0, 3, BAR, MMIO32 + 0x5000, 4);
	cfg_write(0, 3, BAR + 8, 0x2000, 4);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x5000), 0xff);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x5000), 0x77);
	cr_assert_eq(tag_at(pci.pio, 0x2000), 0xff, "memory decoding is not I/O decoding");
	cfg_write(0, 3, COMMAND, COMMAND_IO | COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.pio, 0x200f), 0x77);
	/* Moved above 4 GiB in two steps: nothing shows at the address between them. */
	cfg_write(0, 3, BAR + 4, MMIO64 >> 32, 4);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x5000), 0xff);
	cr_assert_eq(tag_at(pci.mmio, MMIO64 + MMIO32 + 0x5000), 0x77, "inside the 64-bit window");
	cfg_write(0, 3, BAR, 0x9000, 4);
	cr_assert_eq(tag_at(pci.mmio, MMIO64 + 0x9000), 0x77);
	cr_assert_eq(tag_at(pci.mmio, MMIO64 + MMIO32 + 0x5000), 0xff);
	cfg_write(0, 3, COMMAND, 0, 2);
	cr_assert_eq(tag_at(pci.mmio, MMIO64 + 0x9000), 0xff);
	pci_detach(&f.pci);
}

Test(pci, a_rom_needs_its_own_enable_bit_too_and_a_reset_takes_it_away)
{
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, PCI_ROM, PCI_BAR_ROM, 64 * KiB);
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cfg_write(0, 3, ROM, 0xfffff800, 4);
	cr_assert_eq(cfg_read(0, 3, ROM, 4), 0xffff0000);
	cfg_write(0, 3, ROM, MMIO32 + 0x50000, 4);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x50000), 0xff);
	cfg_write(0, 3, ROM, MMIO32 + 0x50001, 4);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x50000), 0x77);
	cfg_write(0, 3, COMMAND, 0, 2);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x50000), 0xff);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	pci_device_reset(&f.pci);
	cr_assert_eq(cfg_read(0, 3, ROM, 4), MMIO32 + 0x50000, "it keeps its address alone");
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 0x50000), 0xff);
	pci_detach(&f.pci);
}

static void put_bar(unsigned int slot, uint64_t address)
{
	cfg_write(0, slot, BAR, (uint32_t)address, 4);
	cfg_write(0, slot, BAR + 4, (uint32_t)(address >> 32), 4);
}

/* Linux with pci=noacpi, for one, knows of no windows, and takes the first address above memory. */
Test(pci, a_bar_is_visible_wherever_the_guest_puts_it_but_over_what_is_there)
{
	static const uint64_t good[] = {PCI_RAM_BYTES,    MMIO32 - 4096, ECAM - 4096,
					ECAM + 256 * MiB, APICS - 4096,  4 * GiB,
					MMIO64 - 4096,    PCI_TOP - 4096};
	static const uint64_t bad[] = {
		0,     0x100000,   PCI_RAM_BYTES - 4096, ECAM,    ECAM + 256 * MiB - 4096,
		APICS, 0xfee00000, 4 * GiB - 4096,       PCI_TOP, ~0ull & ~4095ull};
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, 0, PCI_BAR_MEM64, 4 * KiB);
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	for (unsigned int i = 0; i < ARRAY_SIZE(good); i++) {
		put_bar(3, good[i]);
		cr_assert_eq(tag_at(pci.mmio, good[i]), 0x77, "0x%llx",
			     (unsigned long long)good[i]);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		put_bar(3, bad[i]);
		cr_assert_not(f.pci.bars[0].visible, "0x%llx", (unsigned long long)bad[i]);
		cr_assert_not(f.region[0].on);
	}
	cr_assert_eq(cfg_read(0, 0, 0, 2), 0x1b36, "ECAM is still there");
	pci_detach(&f.pci);
}

Test(pci, an_io_bar_is_visible_wherever_the_guest_puts_it_but_over_the_board)
{
	static const uint16_t good[] = {0x100, 0x400, 0xd00, 0xfe0, 0x1000, 0xffe0};
	static const uint16_t bad[] = {0, 0x80, 0xe0};
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, 0, PCI_BAR_IO, 32);
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cfg_write(0, 3, COMMAND, COMMAND_IO, 2);
	for (unsigned int i = 0; i < ARRAY_SIZE(good); i++) {
		cfg_write(0, 3, BAR, good[i], 4);
		cr_assert_eq(tag_at(pci.pio, good[i]), 0x77, "0x%x", good[i]);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		cfg_write(0, 3, BAR, bad[i], 4);
		cr_assert_not(f.pci.bars[0].visible, "0x%x", bad[i]);
	}
	cfg_write(0, 3, BAR, 0xce0, 4);
	cr_assert_eq(tag_at(pci.pio, 0xce0), 0x77);
	cr_assert_neq(tag_at(pci.pio, 0xcf8), 0x77, "what is there stays there");
	cr_assert_eq(cfg_read(0, 0, 0, 2), 0x1b36);
	pci_detach(&f.pci);
}

Test(pci, a_bar_that_is_not_decoded_is_reported_once_unless_it_is_being_sized)
{
	struct fn f;

	fn_init(&f, "f", 0x77);
	fn_bar(&f, 0, PCI_BAR_MEM64, 4 * KiB);
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cfg_write(0, 3, COMMAND, COMMAND_MEM, 2);
	put_bar(3, ~0ull);
	put_bar(3, UINT32_MAX);
	cr_assert_eq(warnings, 0);
	put_bar(3, APICS);
	cr_assert_eq(warnings, 1);
	put_bar(3, 0x100000);
	cr_assert_eq(warnings, 1);
	pci_detach(&f.pci);
}

Test(pci, the_first_of_two_overlapping_bars_keeps_the_addresses)
{
	struct fn a, b;

	fn_init(&a, "a", 0xaa);
	fn_init(&b, "b", 0xbb);
	fn_bar(&a, 0, PCI_BAR_MEM32, 4 * KiB);
	fn_bar(&b, 0, PCI_BAR_MEM32, 16 * KiB);
	attach(&a, pci_root_bus(pci.root), 3, 0);
	attach(&b, pci_root_bus(pci.root), 4, 0);
	for (unsigned int slot = 3; slot <= 4; slot++) {
		cfg_write(0, slot, BAR, MMIO32, 4);
		cfg_write(0, slot, COMMAND, COMMAND_MEM, 2);
	}
	cr_assert_eq(tag_at(pci.mmio, MMIO32), 0xaa);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 4096), 0xbb);
	cfg_write(0, 3, COMMAND, 0, 2);
	cr_assert_eq(tag_at(pci.mmio, MMIO32), 0xbb);
	pci_detach(&a.pci);
	pci_detach(&b.pci);
	cr_assert_eq(tag_at(pci.mmio, MMIO32 + 4096), 0xff, "detached is gone");
}

Test(pci, overlapping_host_mappings_take_turns)
{
	struct fn a, b;

	fn_init(&a, "a", 1);
	fn_init(&b, "b", 2);
	pci_set_bar(&a.pci, 0, PCI_BAR_MEM32, 4 * KiB, NULL);
	pci_set_bar(&b.pci, 0, PCI_BAR_MEM32, 64 * KiB, NULL);
	attach(&a, pci_root_bus(pci.root), 3, 0);
	attach(&b, pci_root_bus(pci.root), 4, 0);
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
	attach(&f[0], pci_root_bus(pci.root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, 0xe, 1), 0);
	attach(&f[1], pci_root_bus(pci.root), 3, 5);
	cr_assert_eq(cfg_read(0, 3, 0xe, 1), 0x80);
	pci_detach(&f[1].pci);
	cr_assert_eq(cfg_read(0, 3, 0xe, 1), 0);
	pci_detach(&f[0].pci);
}

Test(pci, a_function_without_function_0_is_refused_at_assignment)
{
	struct fn f;

	fn_init(&f, "lonely", 1);
	attach(&f, pci_root_bus(pci.root), 3, 2);
	cr_assert_eq(pci_root_assign(pci.root, &err), -EINVAL);
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
	cr_assert_eq(pci_attach(&a.pci, pci_root_bus(pci.root), NULL, &err), 0);
	cr_assert_eq(a.pci.addr.slot, 1, "0 is the host bridge");
	cr_assert_eq(pci_attach(&b.pci, pci_root_bus(pci.root), &three, &err), 0);
	cr_assert_eq(pci_attach(&c.pci, pci_root_bus(pci.root), &three, &err), -EEXIST);
	cr_assert_not_null(strstr(err.text, "'b'"));
	cr_assert_not_null(strstr(err.text, "00:03.0"));
	cr_assert_eq(pci_attach(&c.pci, pci_root_bus(pci.root), &far, &err), -EINVAL);
	cr_assert_eq(pci_attach(&c.pci, pci_root_bus(pci.root), NULL, &err), 0);
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
	attach(&f, pci_root_bus(pci.root), 5, 0);
	attach(&port, pci_root_bus(pci.root), 6, 0);
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
	attach(&f, pci_root_bus(pci.root), 3, 0);
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

static uint64_t reset_ns;

static void slow_reset(struct pci_device *dev)
{
	uint64_t start_ns = clock_ns();

	(void)dev;
	while (clock_ns() - start_ns < reset_ns)
		;
}

Test(pci, resets_by_the_guest_are_paid_for_with_time)
{
	static const struct pci_device_ops ops = {.reset = slow_reset};
	uint64_t before_ns, owed_ns;
	unsigned int express;
	struct fn f;

	fn_init(&f, "slow", 1);
	f.pci.ops = &ops;
	express = pci_add_express(&f.pci, 9);
	attach(&f, pci_root_bus(pci.root), 3, 0);
	before_ns = clock_ns();
	cfg_write(0, 3, express + 8, 0x2810, 2);
	owed_ns = pci.root->held.full_ns - before_ns;
	cr_expect_lt(owed_ns, 1000 * NS_PER_MS, "an ordinary write costs next to nothing");
	reset_ns = 5 * NS_PER_MS;
	before_ns = clock_ns();
	cfg_write(0, 3, express + 8, 0xa810, 2);
	cr_expect_geq(pci.root->held.full_ns - before_ns, 4 * reset_ns);
	pci_detach(&f.pci);
}
