/* SPDX-License-Identifier: Apache-2.0 */
/* What sits on or beside the PCI root: reset ports and root ports with their slots. */
#include "base/fd.h"
#include "base/num.h"
#include "harness.h"

enum {
	CF8 = 0xcf8,
	CF9 = 0xcf9,
	CFC = 0xcfc,
	KBD = 0x64,
	PORT_92 = 0x92,

	LNKSTA = 0x12,
	SLTCAP = 0x14,
	SLTCTL = 0x18,
	SLTSTA = 0x1a,
	PDC = 1 << 3,
	PDS = 1 << 6,
	DLLSC = 1 << 8,
	HPIE = 1 << 5,
	DLLSCE = 1 << 12,
};

static struct pci_root *root_new(struct harness *h)
{
	harness_init(h);
	return harness_root(h);
}

static struct device *reset_new(struct harness *h, struct pci_root *root)
{
	struct err err = ERR_INIT;
	struct device *dev;

	cr_assert_eq(reset_create(&dev, &h->env, root, &h->sink, &err), 0, "%s", err.text);
	return dev;
}

static void all_gone(struct harness *h, struct pci_root *root, struct device *dev)
{
	dev->ops->destroy(dev);
	pci_root_destroy(root);
	harness_done(h);
}

Test(reset, port_cf9_resets_when_rst_cpu_rises)
{
	struct harness h;
	struct pci_root *root = root_new(&h);
	struct device *dev = reset_new(&h, root);

	out8(&h, CF9, 0x02);
	cr_assert_eq(h.events[PLATFORM_RESET], 0);
	cr_assert_eq(in8(&h, CF9), 0x02);
	out8(&h, CF9, 0x06);
	cr_assert_eq(h.events[PLATFORM_RESET], 1);
	out8(&h, CF9, 0x06);
	cr_assert_eq(h.events[PLATFORM_RESET], 1, "it was up already");
	dev->ops->reset(dev);
	cr_assert_eq(in8(&h, CF9), 0);
	out8(&h, CF9, 0x0e);
	cr_assert_eq(h.events[PLATFORM_RESET], 2);
	all_gone(&h, root, dev);
}

Test(reset, config_address_is_not_a_reset)
{
	struct harness h;
	struct pci_root *root = root_new(&h);
	struct device *dev = reset_new(&h, root);
	uint32_t v = 0x80000600;

	bus_write(h.pio, CF8, &v, 4);
	cr_assert_eq(h.events[PLATFORM_RESET], 0);
	v = 0;
	bus_read(h.pio, CF8, &v, 4);
	cr_assert_eq(v, 0x80000600);
	all_gone(&h, root, dev);
}

Test(reset, keyboard_controller_pulses_the_line)
{
	struct harness h;
	struct pci_root *root = root_new(&h);
	struct device *dev = reset_new(&h, root);

	cr_assert_eq(in8(&h, KBD) & 0x02, 0, "its input buffer is empty");
	out8(&h, KBD, 0xff);
	out8(&h, KBD, 0xd1);
	cr_assert_eq(h.events[PLATFORM_RESET], 0);
	out8(&h, KBD, 0xfe);
	cr_assert_eq(h.events[PLATFORM_RESET], 1);
	all_gone(&h, root, dev);
}

Test(reset, port_92_resets_once_per_rise)
{
	struct harness h;
	struct pci_root *root = root_new(&h);
	struct device *dev = reset_new(&h, root);

	cr_assert_eq(in8(&h, PORT_92), 0x02);
	out8(&h, PORT_92, 0x03);
	out8(&h, PORT_92, 0x03);
	cr_assert_eq(h.events[PLATFORM_RESET], 1);
	out8(&h, PORT_92, 0x00);
	out8(&h, PORT_92, 0x01);
	cr_assert_eq(h.events[PLATFORM_RESET], 2);
	all_gone(&h, root, dev);
}

/* A root port at 00:03.0, its config space through the ECAM. */
struct slot {
	struct harness h;
	struct pci_root *root;
	struct device *dev;
	unsigned int express;
};

static uint32_t cfg(struct slot *s, unsigned int reg, unsigned int size)
{
	uint32_t v = 0;

	cr_assert(bus_read(s->h.mmio, ECAM + (3 << 15) + reg, &v, size));
	return v;
}

static void cfg_set(struct slot *s, unsigned int reg, uint32_t v, unsigned int size)
{
	cr_assert(bus_write(s->h.mmio, ECAM + (3 << 15) + reg, &v, size));
}

static unsigned int find_cap(struct slot *s, uint8_t id)
{
	unsigned int at = cfg(s, 0x34, 1);

	while (at && cfg(s, at, 1) != id)
		at = cfg(s, at + 1, 1);
	return at;
}

static void slot_init(struct slot *s)
{
	const struct pci_addr addr = {.slot = 3};
	const struct root_port_config config = {.name = "rp0", .addr = &addr, .slot_number = 7};
	struct err err = ERR_INIT;

	s->root = root_new(&s->h);
	cr_assert_eq(root_port_create(&s->dev, &s->h.env, s->root, &config, &err), 0, "%s",
		     err.text);
	cr_assert_eq(pci_root_assign(s->root, &err), 0, "%s", err.text);
	s->express = find_cap(s, 0x10);
	cr_assert_neq(s->express, 0);
}

static void slot_done(struct slot *s)
{
	all_gone(&s->h, s->root, s->dev);
}

Test(root_port, is_a_bridge_with_a_hot_plug_slot_of_its_number)
{
	struct slot s;

	slot_init(&s);
	cr_assert_eq(cfg(&s, 0x0e, 1) & 0x7f, 1);
	cr_assert_eq(cfg(&s, 0x08, 4) >> 8, 0x060400);
	cr_assert_eq(cfg(&s, s.express + 2, 2) >> 4 & 0xf, 4, "root port");
	cr_assert(cfg(&s, s.express + 2, 2) & 1 << 8, "slot implemented");
	uint32_t slot = cfg(&s, s.express + SLTCAP, 4);
	cr_assert(slot & 1 << 6, "hot-plug capable");
	cr_assert(slot & 1 << 5, "surprise");
	cr_assert_eq(slot >> 19, 7);
	cr_assert_neq(find_cap(&s, 0x11), 0, "MSI-X");
	cr_assert_not_null(root_port_bus(s.dev));
	slot_done(&s);
}

static unsigned int find_ecap(struct slot *s, uint16_t id)
{
	unsigned int at = 0x100;

	while (at && (cfg(s, at, 4) & 0xffff) != id)
		at = cfg(s, at, 4) >> 20;
	return at;
}

Test(root_port, has_access_control_services)
{
	struct slot s;
	unsigned int at;

	slot_init(&s);
	at = find_ecap(&s, 0x0d);
	cr_assert_neq(at, 0);
	cr_assert_eq(cfg(&s, at + 4, 2), 0x1f);
	cfg_set(&s, at + 6, 0xffff, 2);
	cr_assert_eq(cfg(&s, at + 6, 2), 0x1f);
	slot_done(&s);
}

/* PCI Express Base 6.0, 7.8.4: what each register is after reset, and which bits can be written. */
Test(root_port, has_error_reporting_with_the_specified_defaults)
{
	static const struct {
		unsigned int reg;
		uint32_t initial, written_ones;
	} regs[] = {
		{0x04, 0, 0},               /* uncorrectable status: nothing to clear */
		{0x08, 0, 0x37f010},        /* mask */
		{0x0c, 0x062010, 0x37f010}, /* severity */
		{0x10, 0, 0},               /* correctable status */
		{0x14, 0x2000, 0x31c1},     /* mask: advisory non-fatal */
		{0x18, 0, 0},               /* no ECRC, no first error */
		{0x1c, 0, 0},               /* header log */
		{0x2c, 0, 0x7},             /* root command */
		{0x30, 0, 0},               /* root status, message number 0 */
		{0x34, 0, 0},               /* source */
	};
	struct slot s;
	unsigned int at;

	slot_init(&s);
	at = find_ecap(&s, 0x01);
	cr_assert_neq(at, 0);
	cr_assert_eq(cfg(&s, at, 4) >> 16 & 0xf, 2, "version");
	for (unsigned int i = 0; i < ARRAY_SIZE(regs); i++) {
		cr_assert_eq(cfg(&s, at + regs[i].reg, 4), regs[i].initial, "0x%x", regs[i].reg);
		cfg_set(&s, at + regs[i].reg, ~0u, 4);
		cr_assert_eq(cfg(&s, at + regs[i].reg, 4), regs[i].written_ones, "0x%x",
			     regs[i].reg);
	}
	slot_done(&s);
}

Test(root_port, presence_and_link_change_together_and_clear_by_writing_one)
{
	struct slot s;

	slot_init(&s);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), 0);
	root_port_set_present(s.dev, true);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDC | PDS | DLLSC);
	cr_assert(cfg(&s, s.express + LNKSTA, 2) & 1 << 13);
	cfg_set(&s, s.express + SLTSTA, PDC | PDS, 2);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS | DLLSC, "presence is for reading");
	root_port_set_present(s.dev, true);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS | DLLSC, "no change, no event");
	root_port_set_present(s.dev, false);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDC | DLLSC);
	cr_assert_eq(cfg(&s, s.express + LNKSTA, 2) & 1 << 13, 0);
	slot_done(&s);
}

Test(root_port, line_follows_the_enabled_events)
{
	enum { GSI = 16 + 3 };
	struct slot s;

	slot_init(&s);
	root_port_set_present(s.dev, true);
	cr_assert(!s.h.level[GSI]);
	cfg_set(&s, s.express + SLTCTL, DLLSCE | HPIE, 2);
	cr_assert(s.h.level[GSI], "what is pending when it is enabled interrupts");
	cfg_set(&s, s.express + SLTSTA, DLLSC, 2);
	cr_assert(!s.h.level[GSI], "presence is pending, but not enabled");
	cfg_set(&s, s.express + SLTCTL, PDC | HPIE, 2);
	cr_assert(s.h.level[GSI]);
	cfg_set(&s, s.express + SLTCTL, PDC, 2);
	cr_assert(!s.h.level[GSI]);
	slot_done(&s);
}

/* Enable MSI-X and unmask its vector, through the BAR. */
static void enable_msix(struct slot *s)
{
	unsigned int at = find_cap(s, 0x11);
	uint32_t bar = cfg(s, 0x10, 4) & ~0xfu, words[4] = {0xfee00000, 0, 0x41, 0};

	cfg_set(s, 0x04, 6, 2);
	cfg_set(s, at + 2, 0x8000, 2);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert(bus_write(s->h.mmio, bar + 4 * i, &words[i], 4));
}

Test(root_port, message_goes_out_once_per_rise_of_the_events)
{
	struct slot s;

	slot_init(&s);
	enable_msix(&s);
	cr_assert_geq(s.h.irqfd, 0, "the vector is connected");
	cfg_set(&s, s.express + SLTCTL, DLLSCE | PDC | HPIE, 2);
	cr_assert_eq(fd_event_drain(s.h.irqfd), 0);
	root_port_set_present(s.dev, true);
	cr_assert_eq(fd_event_drain(s.h.irqfd), 1);
	cfg_set(&s, s.express + SLTSTA, PDC, 2);
	cr_assert_eq(fd_event_drain(s.h.irqfd), 0, "the link's event is still up");
	cfg_set(&s, s.express + SLTSTA, DLLSC, 2);
	root_port_set_present(s.dev, false);
	cr_assert_eq(fd_event_drain(s.h.irqfd), 1);
	cr_assert(!s.h.level[16 + 3], "the line is silent meanwhile");
	slot_done(&s);
}

Test(root_port, reset_forgets_events_and_keeps_presence)
{
	struct slot s;

	slot_init(&s);
	cfg_set(&s, s.express + SLTCTL, DLLSCE | HPIE, 2);
	root_port_set_present(s.dev, true);
	s.dev->ops->reset(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS);
	cr_assert_eq(cfg(&s, s.express + SLTCTL, 2), 0);
	cr_assert(!s.h.level[16 + 3]);
	slot_done(&s);
}

Test(root_port, second_one_at_the_same_address_is_refused)
{
	const struct pci_addr addr = {.slot = 3};
	const struct root_port_config config = {.name = "rp1", .addr = &addr, .slot_number = 8};
	struct err err = ERR_INIT;
	struct device *dev;
	struct slot s;

	slot_init(&s);
	cr_assert_lt(root_port_create(&dev, &s.h.env, s.root, &config, &err), 0);
	cr_assert_neq(err.text[0], 0);
	slot_done(&s);
}
