/* SPDX-License-Identifier: Apache-2.0 */
/* PCI: bridges, assignment of buses and BARs, resets, and functions that come and go under a
 * guest's CPUs. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pci_rig.h"

TestSuite(pci_bridges, .init = rig_set_up, .fini = rig_tear_down);

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
	attach(&port_a, pci_root_bus(pci.root), 1, 0);
	attach(&port_b, pci_root_bus(pci.root), 2, 0);
	attach(&end_a, port_a.pci.secondary, 0, 0);
	cr_assert_eq(pci_attach(&end_b.pci, port_b.pci.secondary, NULL, &err), 0);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0, "%s", err.text);
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

Test(pci_bridges, a_link_leads_to_slot_0_only)
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

Test(pci_bridges, config_accesses_follow_the_bus_numbers_that_the_guest_sets)
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

Test(pci_bridges, assignment_puts_bars_into_windows_with_room_to_spare)
{
	uint64_t at, base, limit;
	unsigned int b;

	two_ports();
	b = cfg_read(0, 2, PRIMARY + 1, 1);
	cr_assert_eq(cfg_read(0, 1, PRIMARY + 1, 1), 1);
	cr_assert_eq(cfg_read(0, 1, PRIMARY + 2, 1), 1, "no number without a bus");
	cr_assert_eq(b, 2);
	cr_assert_eq(cfg_read(0, 2, PRIMARY + 2, 1), pci_root_last_bus(pci.root));

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

Test(pci_bridges, slot_without_power_is_silent_and_has_reset_what_is_in_it)
{
	unsigned int control;
	uint64_t at;

	two_ports();
	control = port_a.pci.express + 0x18u;
	at = bar64(1, 0, BAR);
	cfg_write(0, 1, COMMAND, COMMAND_MEM, 2);
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, at), 0xa1);
	cfg_write(0, 1, control, 1 << 10, 2);
	cr_assert_eq(cfg_read(1, 0, 0, 4), ~0u);
	cr_assert_eq(tag_at(pci.mmio, at), 0xff);
	cr_assert_eq(end_a.reset, 1);
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cfg_write(0, 1, control, 1 << 10 | 1 << 5, 2);
	cr_assert_eq(end_a.reset, 1, "it was off already");
	cfg_write(0, 1, control, 0, 2);
	cr_assert_eq(cfg_read(1, 0, COMMAND, 2), 0, "what was written meanwhile is lost");
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, at), 0xa1, "BARs stay as assigned");
	no_ports();
}

Test(pci_bridges, a_device_behind_a_bridge_shows_while_the_bridge_forwards)
{
	uint64_t at;

	two_ports();
	at = bar64(1, 0, BAR);
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, at), 0xff);
	cfg_write(0, 1, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, at), 0xa1);
	cfg_write(0, 1, 0x20, 0x0000fff0, 4); /* closed */
	cr_assert_eq(tag_at(pci.mmio, at), 0xff);
	no_ports();
}

Test(pci_bridges, assignment_is_the_same_again_and_undoes_what_the_guest_did)
{
	uint8_t before[0x40], after[0x40];

	two_ports();
	memcpy(before, port_b.pci.config, sizeof(before));
	cfg_write(0, 2, COMMAND, COMMAND_MEM | COMMAND_IO, 2);
	for (unsigned int reg = 0x18; reg < 0x34; reg += 4)
		cfg_write(0, 2, reg, 0x12345678, 4);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0);
	memcpy(after, port_b.pci.config, sizeof(after));
	before[0x1b] = after[0x1b]; /* not decoded */
	cr_assert_arr_eq(before, after, sizeof(before));
	no_ports();
}

Test(pci_bridges, assignment_without_room_names_the_space)
{
	struct fn f;

	fn_init(&f, "f", 1);
	fn_bar(&f, 0, PCI_BAR_MEM32, 512 * MiB);
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cr_assert_eq(pci_root_assign(pci.root, &err), -ENOSPC);
	cr_assert_not_null(strstr(err.text, "32-bit MMIO"));
	cr_assert_not_null(strstr(err.text, "524288 KiB"));
	pci_detach(&f.pci);
}

Test(pci_bridges, spare_room_shrinks_before_a_device_is_refused)
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
	attach(&f, pci_root_bus(pci.root), 5, 0);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0, "%s", err.text);
	cr_assert_eq(cfg_read(0, 1, 0x22, 2), cfg_read(0, 1, 0x20, 2) + 0x10, "one to spare");
	pci_detach(&f.pci);
	no_ports();
}

Test(pci_bridges, a_secondary_bus_reset_reaches_what_is_below)
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

Test(pci_bridges, a_reset_bridge_forwards_nothing)
{
	uint64_t at;

	two_ports();
	at = bar64(1, 0, BAR);
	cfg_write(1, 0, COMMAND, COMMAND_MEM, 2);
	cfg_write(0, 1, COMMAND, COMMAND_MEM, 2);
	cr_assert_eq(tag_at(pci.mmio, at), 0xa1);
	pci_device_reset(&port_a.pci);
	cr_assert_eq(tag_at(pci.mmio, at), 0xff);
	no_ports();
}

Test(pci_bridges, a_function_level_reset_resets_one_function)
{
	struct fn f;
	unsigned int cap;

	fn_init(&f, "f", 1);
	cap = pci_add_express(&f.pci, 9);
	attach(&f, pci_root_bus(pci.root), 3, 0);
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

Test(pci_bridges, express_registers_fit_the_port_type)
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
	attach(&f, pci_root_bus(pci.root), 3, 0);
	cr_assert_eq(cfg_read(0, 3, end_cap + 2, 2), 0x0092);
	cr_assert_eq(cfg_read(0, 3, end_cap + 0xc, 4), 0, "an integrated endpoint has no link");
	pci_detach(&f.pci);
}

static void collect(void *opaque, struct pci_device *dev)
{
	strcat(opaque, dev->name);
	strcat(opaque, " ");
}

Test(pci_bridges, walks_are_in_order_of_addresses)
{
	char names[200] = "";

	two_ports();
	pci_root_walk(pci.root, collect, names);
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
		tag = tag_at(pci.mmio, own);
		if (tag != 0xff && tag != 0x5a)
			abort();
		if (tag == 0x5a)
			atomic_fetch_add(&touched, 1);
	}
	return NULL;
}

Test(pci_bridges, devices_come_and_go_while_cpus_use_them)
{
	pthread_t t[2];

	port_init(&port_a, "port-a");
	attach(&port_a, pci_root_bus(pci.root), 1, 0);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0);
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
