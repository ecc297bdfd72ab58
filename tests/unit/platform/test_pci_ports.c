/* SPDX-License-Identifier: Apache-2.0 */
/* What sits on or beside the PCI root: reset ports and root ports with their slots. */
#include <string.h>

#include "base/fd.h"
#include "base/num.h"
#include "harness.h"

enum {
	CF8 = 0xcf8,
	CF9 = 0xcf9,
	CFC = 0xcfc,
	KBD = 0x64,
	KBD_DATA = 0x60,
	PORT_92 = 0x92,

	LNKSTA = 0x12,
	SLTCAP = 0x14,
	SLTCTL = 0x18,
	SLTSTA = 0x1a,
	/* Slot status and, at the same bits, their enables in slot control. */
	ABP = 1 << 0,
	PDC = 1 << 3,
	CC = 1 << 4,
	PDS = 1 << 6,
	DLLSC = 1 << 8,
	/* Slot control. */
	CCIE = 1 << 4,
	HPIE = 1 << 5,
	LAMP_ON = 1 << 8, /* of power */
	LAMP_BLINK = 2 << 8,
	LAMP_OFF = 3 << 8,
	ALARM_ON = 1 << 6, /* the attention indicator */
	ALARM_OFF = 3 << 6,
	POWER_OFF = 1 << 10,
	DLLSCE = 1 << 12,
	/* What Linux enables. */
	LISTENS = ABP | HPIE | DLLSCE,

	GSI = 16 + 3,
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

Test(reset, config_ports_that_are_off_leave_the_reset_control)
{
	struct harness h;
	struct pci_root *root;
	struct device *dev;
	uint32_t v = 0x80000000;

	harness_init(&h);
	root = harness_root_of(&h, true);
	dev = reset_new(&h, root);
	bus_write(h.pio, CF8, &v, 4);
	bus_read(h.pio, CF8, &v, 4);
	cr_assert_eq(v, ~0u, "as Linux' probe of the ports expects where there are none");
	v = 0;
	bus_read(h.pio, CFC, &v, 4);
	cr_assert_eq(v, ~0u);
	bus_read(h.mmio, ECAM, &v, 4);
	cr_assert_eq(v, 0x00081b36, "the host bridge, by the ECAM");
	out8(&h, CF9, 0x06);
	cr_assert_eq(h.events[PLATFORM_RESET], 1);
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

/* As Plan 9 does. */
Test(reset, the_keyboard_controllers_output_port_has_the_line_too)
{
	struct harness h;
	struct pci_root *root = root_new(&h);
	struct device *dev = reset_new(&h, root);

	out8(&h, KBD_DATA, 0xde);
	out8(&h, KBD, 0xd1);
	out8(&h, KBD_DATA, 0xdf);
	out8(&h, KBD_DATA, 0xde);
	out8(&h, KBD, 0xd1);
	out8(&h, KBD, 0xaa);
	out8(&h, KBD_DATA, 0xde);
	cr_assert_eq(h.events[PLATFORM_RESET], 0, "data is not for the output port");
	cr_assert_eq(in8(&h, KBD_DATA), 0xff, "there is no keyboard");
	out8(&h, KBD, 0xd1);
	out8(&h, KBD_DATA, 0xde);
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
	unsigned int turned_off; /* how often it was reported */
	_Alignas(4096) uint8_t page[PCI_CONFIG_BYTES];
};

/* A guest that reads the page gets what a trapped read gives. */
static uint32_t cfg(struct slot *s, unsigned int reg, unsigned int size)
{
	uint32_t v = 0, seen = 0;

	memcpy(&seen, &s->page[reg], size);
	cr_assert(bus_read(s->h.mmio, ECAM + (3 << 15) + reg, &v, size));
	cr_assert_eq(seen, v, "register 0x%x", reg);
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

static void turned_off(void *opaque)
{
	struct slot *s = opaque;

	s->turned_off++;
}

static void slot_init(struct slot *s)
{
	const struct pci_addr addr = {.slot = 3};
	const struct root_port_config config = {.name = "rp0",
						.addr = &addr,
						.slot_number = 7,
						.page = s->page,
						.turned_off = turned_off,
						.opaque = s};
	struct err err = ERR_INIT;

	s->turned_off = 0;
	memset(s->page, 0, sizeof(s->page));
	s->root = root_new(&s->h);
	cr_assert_eq(root_port_create(&s->dev, &s->h.env, s->root, &config, &err), 0, "%s",
		     err.text);
	cr_assert_eq(pci_root_assign(s->root, &err), 0, "%s", err.text);
	s->express = find_cap(s, 0x10);
	cr_assert_neq(s->express, 0);
}

/* With a device in it, and a guest that listens. */
static void slot_init_occupied(struct slot *s)
{
	slot_init(s);
	root_port_set_present(s->dev, true);
	s->dev->ops->reset(s->dev);
	cfg_set(s, s->express + SLTCTL, LISTENS | LAMP_ON | ALARM_OFF, 2);
}

static bool link_is_up(struct slot *s)
{
	return cfg(s, s->express + LNKSTA, 2) & 1 << 13;
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
	cr_assert_eq(slot & 0x1f, 0x1b, "button, power controller, two lamps");
	cr_assert(slot & 1 << 18, "commands complete at once");
	cr_assert_eq(cfg(&s, s.express + SLTCTL, 2), POWER_OFF | LAMP_OFF | ALARM_OFF,
		     "an empty slot has no power");
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

Test(root_port, presence_is_announced_by_the_button_and_the_link_waits_for_power)
{
	struct slot s;

	slot_init(&s);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), 0);
	root_port_set_present(s.dev, true);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), ABP | PDC | PDS);
	cr_assert(!link_is_up(&s));
	cfg_set(&s, s.express + SLTSTA, ABP | PDC | PDS, 2);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS, "presence is for reading");
	root_port_set_present(s.dev, true);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS, "no change, no event");
	cfg_set(&s, s.express + SLTCTL, LISTENS | LAMP_BLINK, 2);
	cr_assert(link_is_up(&s));
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS | DLLSC);
	cfg_set(&s, s.express + SLTSTA, DLLSC, 2);
	root_port_set_present(s.dev, false);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDC | DLLSC);
	cr_assert(!link_is_up(&s));
	slot_done(&s);
}

Test(root_port, one_that_is_there_at_power_on_has_power_and_is_no_event)
{
	struct slot s;

	slot_init(&s);
	root_port_set_present(s.dev, true);
	s.dev->ops->reset(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTCTL, 2), LAMP_ON | ALARM_OFF);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS);
	cr_assert(link_is_up(&s));
	cr_assert(!root_port_is_off(s.dev));
	slot_done(&s);
}

Test(root_port, button_interrupts_and_the_guest_that_turns_off_power_and_lamp_is_reported_once)
{
	struct slot s;
	unsigned int control;

	slot_init_occupied(&s);
	control = s.express + SLTCTL;
	root_port_press(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), ABP | PDS);
	cr_assert(s.h.level[GSI]);
	cfg_set(&s, s.express + SLTSTA, ABP, 2);
	cr_assert(!s.h.level[GSI]);
	cfg_set(&s, control, LISTENS | LAMP_BLINK | ALARM_OFF, 2);
	cfg_set(&s, control, LISTENS | LAMP_BLINK | ALARM_OFF | POWER_OFF, 2);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS | DLLSC, "the link goes with the power");
	cr_assert_eq(s.turned_off, 0);
	cr_assert(!root_port_is_off(s.dev));
	cfg_set(&s, control, LISTENS | LAMP_OFF | ALARM_OFF | POWER_OFF, 2);
	cr_assert_eq(s.turned_off, 1);
	cr_assert(root_port_is_off(s.dev));
	cfg_set(&s, control, LISTENS | LAMP_OFF | ALARM_OFF | POWER_OFF, 2);
	cfg_set(&s, s.express + SLTSTA, DLLSC, 2);
	cr_assert_eq(s.turned_off, 1, "it says so once more");
	root_port_set_present(s.dev, false);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDC);
	slot_done(&s);
}

Test(root_port, one_that_only_turns_off_its_lamp_has_not_let_go)
{
	struct slot s;

	slot_init_occupied(&s);
	cfg_set(&s, s.express + SLTCTL, LISTENS | LAMP_OFF, 2);
	cr_assert_eq(s.turned_off, 0);
	cr_assert(!root_port_is_off(s.dev));
	cr_assert(link_is_up(&s));
	slot_done(&s);
}

Test(root_port, guest_that_plays_with_the_power_of_an_empty_slot_causes_no_event_of_its_own)
{
	struct slot s;

	slot_init(&s);
	for (int i = 0; i < 10; i++) {
		cfg_set(&s, s.express + SLTCTL, LISTENS | LAMP_ON, 2);
		cr_assert(!link_is_up(&s));
		cfg_set(&s, s.express + SLTCTL, LISTENS | LAMP_OFF | POWER_OFF, 2);
	}
	cr_assert_eq(s.turned_off, 10);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), 0);
	slot_done(&s);
}

Test(root_port, second_press_does_not_call_off_what_the_guest_has_begun)
{
	struct slot s;

	slot_init_occupied(&s);
	root_port_press(s.dev);
	cfg_set(&s, s.express + SLTSTA, ABP, 2);
	cfg_set(&s, s.express + SLTCTL, LISTENS | LAMP_BLINK, 2);
	root_port_press(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS);
	cfg_set(&s, s.express + SLTCTL, LISTENS | LAMP_ON, 2);
	root_port_press(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS | ABP, "it has given up");
	slot_done(&s);
}

Test(root_port, commands_are_never_reported_as_completed)
{
	struct slot s;

	slot_init_occupied(&s);
	cfg_set(&s, s.express + SLTCTL, 0xffff, 2);
	cr_assert_eq(cfg(&s, s.express + SLTCTL, 2) & CCIE, 0);
	cfg_set(&s, s.express + SLTCTL, HPIE | CCIE, 2);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2) & CC, 0);
	slot_done(&s);
}

Test(root_port, refusal_says_how_far_the_guest_got)
{
	static const struct {
		uint16_t control, answered;
		const char *text;
	} cases[] = {
		{0, 0, "does not listen"},
		{HPIE | DLLSCE, ABP, "does not listen"},
		{LISTENS | LAMP_ON | ALARM_OFF, 0, "has not answered"},
		{LISTENS | LAMP_ON | ALARM_OFF, ABP, "not turned off the slot's power"},
		{LISTENS | LAMP_BLINK | ALARM_OFF, ABP, "has begun"},
		{LISTENS | LAMP_ON | ALARM_ON, ABP, "attention indicator"},
		{LISTENS | LAMP_BLINK | ALARM_OFF | POWER_OFF, ABP, "not the power indicator"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct slot s;

		slot_init_occupied(&s);
		root_port_press(s.dev);
		cfg_set(&s, s.express + SLTSTA, cases[i].answered, 2);
		cfg_set(&s, s.express + SLTCTL, cases[i].control, 2);
		cr_expect(strstr(root_port_refusal(s.dev), cases[i].text), "case %zu: %s", i,
			  root_port_refusal(s.dev));
		slot_done(&s);
	}
}

Test(root_port, line_follows_the_enabled_events)
{
	struct slot s;

	slot_init(&s);
	cfg_set(&s, s.express + SLTCTL, 0, 2);
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
	cfg_set(&s, s.express + SLTSTA, PDC | ABP, 2);
	cr_assert_eq(fd_event_drain(s.h.irqfd), 0, "the link's event is still up");
	cfg_set(&s, s.express + SLTSTA, DLLSC, 2);
	root_port_set_present(s.dev, false);
	cr_assert_eq(fd_event_drain(s.h.irqfd), 1);
	cr_assert(!s.h.level[GSI], "the line is silent meanwhile");
	slot_done(&s);
}

Test(root_port, reset_forgets_events_and_keeps_presence)
{
	struct slot s;

	slot_init(&s);
	cfg_set(&s, s.express + SLTCTL, LISTENS, 2);
	root_port_set_present(s.dev, true);
	s.dev->ops->reset(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTSTA, 2), PDS);
	cr_assert_eq(cfg(&s, s.express + SLTCTL, 2), LAMP_ON | ALARM_OFF);
	cr_assert(!s.h.level[GSI]);
	root_port_set_present(s.dev, false);
	s.dev->ops->reset(s.dev);
	cr_assert_eq(cfg(&s, s.express + SLTCTL, 2), LAMP_OFF | ALARM_OFF | POWER_OFF);
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
