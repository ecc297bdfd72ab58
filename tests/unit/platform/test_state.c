/* SPDX-License-Identifier: Apache-2.0 */
/* The platform's devices after a load: they go on as a twin does that was never saved. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "state_rig.h"
#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "line.h"
#include "platform/mc146818.h"

#define PORT0 (ECAM + (1 << 15)) /* config space of the root port */

enum {
	RTC_INDEX = PLATFORM_RTC_PORT,
	RTC_DATA,
	PM = PLATFORM_PM_PORT,
	CF9 = 0xcf9,
	PORT_92 = 0x92,
	EXPRESS = 0x40, /* of the root port: its first capability */
	SLTCTL = EXPRESS + 0x18,
	SLTSTA = EXPRESS + 0x1a,
	MSIX = 0x7c,
	BAR_GPA = 0xc0100000,
};

struct machine {
	struct line line; /* the serial port, and the harness of all */
	struct pci_root *root;
	struct device *rtc, *pm, *reset, *pvpanic, *port;
};

static void machine_init(struct machine *m)
{
	struct harness *h = &m->line.h;
	const struct root_port_config port = {.name = "port0", .slot_number = 1};
	struct err err = ERR_INIT;

	line_init(&m->line, true, true);
	m->root = harness_root(h);
	cr_assert_eq(rtc_create(&m->rtc, &h->env, &err), 0, "%s", err.text);
	cr_assert_eq(pm_create(&m->pm, &h->env, &h->sink, false, &err), 0, "%s", err.text);
	cr_assert_eq(pvpanic_create(&m->pvpanic, &h->env, &h->sink, &err), 0, "%s", err.text);
	cr_assert_eq(reset_create(&m->reset, &h->env, m->root, &h->sink, &err), 0, "%s", err.text);
	cr_assert_eq(root_port_create(&m->port, &h->env, m->root, &port, &err), 0, "%s", err.text);
}

static void machine_done(struct machine *m)
{
	struct device *const all[] = {m->rtc, m->pm, m->pvpanic, m->reset, m->port};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i]->ops->destroy(all[i]);
	pci_root_destroy(m->root);
	line_done(&m->line);
}

static void turn(struct machine *m)
{
	for (int i = 0; i < 20; i++)
		cr_assert_eq(loop_iterate(m->line.h.loop, false), 0);
}

static uint32_t mem_read(struct machine *m, uint64_t gpa, unsigned int size)
{
	uint32_t v = 0;

	cr_assert(bus_read(m->line.h.mmio, gpa, &v, size), "nothing at 0x%llx",
		  (unsigned long long)gpa);
	return v;
}

static void mem_write(struct machine *m, uint64_t gpa, uint32_t v, unsigned int size)
{
	cr_assert(bus_write(m->line.h.mmio, gpa, &v, size));
}

/* The twin is never saved; `from` is, and `to` goes on. */
static struct machine twin, from, to;

static void set_up(void)
{
	machine_init(&twin);
	machine_init(&from);
	machine_init(&to);
}

static void tear_down(void)
{
	machine_done(&to);
	machine_done(&from);
	machine_done(&twin);
}

TestSuite(platform_state, .init = set_up, .fini = tear_down, .timeout = 30);

/* Each port reads the same in both, in this order. */
static void assert_same_ports(const uint16_t *ports, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t want = in8(&twin.line.h, ports[i]), got = in8(&to.line.h, ports[i]);

		cr_assert_eq(got, want, "port 0x%x: 0x%x, the twin's 0x%x", ports[i], got, want);
	}
}

/* --- serial --- */

/* A line in use: interrupts on, six bytes received and one more than the FIFO holds on its way. */
static void serial_work(struct machine *m)
{
	static const char input[] = "0123456789abcdefghij";

	out8(&m->line.h, LCR, 0x83);
	out8(&m->line.h, PORT, 0x01);
	out8(&m->line.h, LCR, 0x03);
	out8(&m->line.h, SCR, 0x5a);
	out8(&m->line.h, FCR, 0x81);
	out8(&m->line.h, MCR, 0x0b);
	out8(&m->line.h, IER, 0x05);
	cr_assert_eq(write(m->line.in[1], input, 20), 20);
	while (!(in8(&m->line.h, LSR) & 1))
		turn(m);
	turn(m);
	cr_assert_eq(in8(&m->line.h, PORT), '0');
	cr_assert_eq(in8(&m->line.h, PORT), '1');
}

Test(platform_state, serial_goes_on_with_fifo_registers_and_interrupt)
{
	static const uint16_t ports[] = {IIR,  LSR,  IER,  LCR,  MCR,  SCR,  PORT, PORT, PORT,
					 PORT, PORT, PORT, PORT, PORT, PORT, PORT, PORT, PORT,
					 PORT, PORT, PORT, PORT, PORT, PORT, LSR,  IIR};

	serial_work(&twin);
	serial_work(&from);
	state_move(from.line.dev, to.line.dev);
	cr_assert_eq(to.line.h.level[GSI], twin.line.h.level[GSI]);
	cr_assert(to.line.h.level[GSI]);
	assert_same_ports(ports, ARRAY_SIZE(ports));
	cr_assert_eq(to.line.h.level[GSI], twin.line.h.level[GSI]);
}

Test(platform_state, serial_output_that_was_not_sent_is_sent_once_by_the_other)
{
	char got[64];
	ssize_t n;

	out8(&from.line.h, MCR, 0x0b);
	for (const char *p = "not yet sent"; *p; p++)
		out8(&from.line.h, PORT, (uint8_t)*p);
	state_move(from.line.dev, to.line.dev);
	from.line.dev->ops->destroy(from.line.dev);
	cr_assert_eq(fcntl(from.line.out[0], F_SETFL, O_NONBLOCK), 0);
	cr_assert_lt(read(from.line.out[0], got, sizeof(got)), 0, "the first one sent it too");
	for (const char *p = ", and more"; *p; p++)
		out8(&to.line.h, PORT, (uint8_t)*p);
	to.line.dev->ops->destroy(to.line.dev);
	n = read(to.line.out[0], got, sizeof(got));
	cr_assert_eq(n, 22);
	cr_assert_eq(memcmp(got, "not yet sent, and more", 22), 0);

	struct err err = ERR_INIT;
	struct serial_config config = {
		.name = "serial0", .port = PORT, .gsi = GSI, .in_fd = -1, .out_fd = -1};

	cr_assert_eq(serial_create(&from.line.dev, &from.line.h.env, &config, &err), 0);
	cr_assert_eq(serial_create(&to.line.dev, &to.line.h.env, &config, &err), 0);
}

Test(platform_state, serial_that_was_saved_goes_on_itself_after_resume)
{
	char got[8];
	struct state_buffer state;

	out8(&from.line.h, PORT, 'x');
	state_quiesce(from.line.dev);
	state = state_of(from.line.dev);
	free(state.bytes);
	from.line.dev->ops->resume(from.line.dev);
	cr_assert_eq(write(from.line.in[1], "y", 1), 1);
	out8(&from.line.h, FCR, 0x01);
	out8(&from.line.h, MCR, 0x0b);
	while (!(in8(&from.line.h, LSR) & 1))
		cr_assert_eq(loop_iterate(from.line.h.loop, true), 0);
	cr_assert_eq(in8(&from.line.h, PORT), 'y');
	while (loop_iterate(from.line.h.loop, false),
	       !poll(&(struct pollfd){from.line.out[0], POLLIN, 0}, 1, 1))
		;
	cr_assert_eq(read(from.line.out[0], got, sizeof(got)), 1);
}

Test(platform_state, serial_refuses_what_would_stop_it_and_stays_as_it_was)
{
	struct state_buffer good, bad, after;
	struct err err = ERR_INIT;
	uint8_t *name;

	serial_work(&from);
	state_quiesce(from.line.dev);
	state_quiesce(to.line.dev);
	good = state_of(from.line.dev);
	bad = state_of(to.line.dev);
	/* fifo_head is behind 11 bytes of registers and 16 of the FIFO. */
	name = memmem(good.bytes, good.len, "serial0serial", 13);
	cr_assert_not_null(name);
	store_le32(name + 13 + 4 + 27, 16);
	cr_assert_eq(state_put(to.line.dev, &good, &err), -EPROTO);
	cr_assert_str_eq(err.text, "serial0: section 'serial': fifo_head is 16; at most 15");
	after = state_of(to.line.dev);
	state_assert_same(&bad, &after);
	free(good.bytes);
	free(bad.bytes);
	free(after.bytes);
}

/* --- clock --- */

static void rtc_set(struct machine *m, uint8_t reg, uint8_t v)
{
	out8(&m->line.h, RTC_INDEX, reg);
	out8(&m->line.h, RTC_DATA, v);
}

static uint8_t rtc_get(struct machine *m, uint8_t reg)
{
	out8(&m->line.h, RTC_INDEX, reg);
	return in8(&m->line.h, RTC_DATA);
}

Test(platform_state, alarm_that_was_set_before_is_raised_after)
{
	rtc_set(&from, 0x0b, 0x82);
	rtc_set(&from, 0x04, 0x23);
	rtc_set(&from, 0x02, 0x59);
	rtc_set(&from, 0x00, 0x58);
	rtc_set(&from, 0x05, 0x23);
	rtc_set(&from, 0x03, 0x59);
	rtc_set(&from, 0x01, 0x59);
	rtc_set(&from, 0x0b, 0x22); /* it runs, alarm on */
	state_move(from.rtc, to.rtc);
	cr_assert_eq(rtc_get(&to, 0x04), 0x23);
	while (!to.line.h.level[PLATFORM_RTC_GSI])
		cr_assert_eq(loop_iterate(to.line.h.loop, true), 0);
	cr_assert_eq(rtc_get(&to, 0x0c) & 0xa0, 0xa0);
	cr_assert(!to.line.h.level[PLATFORM_RTC_GSI]);
	cr_assert(!from.line.h.level[PLATFORM_RTC_GSI], "the one that was saved raised it");
}

Test(platform_state, clock_interrupt_that_was_not_taken_is_still_up)
{
	rtc_set(&from, 0x0a, 0x26);
	rtc_set(&from, 0x0b, 0x42);
	while (!from.line.h.level[PLATFORM_RTC_GSI])
		cr_assert_eq(loop_iterate(from.line.h.loop, true), 0);
	out8(&from.line.h, RTC_INDEX, 0x0c);
	state_move(from.rtc, to.rtc);
	cr_assert(to.line.h.level[PLATFORM_RTC_GSI]);
	cr_assert_eq(in8(&to.line.h, RTC_DATA), 0xc0, "the index came too, and the flag");
	while (!to.line.h.level[PLATFORM_RTC_GSI]) /* the next period */
		cr_assert_eq(loop_iterate(to.line.h.loop, true), 0);
}

static int put_clock(struct mc146818 *m, const struct mc146818 *state, struct err *err)
{
	struct state_buffer buffer = {0};
	struct state_reader *r;
	struct state_writer w;
	int ret;

	state_writer_begin(&w, state_buffer_sink, &buffer);
	state_writer_owner(&w, "rtc");
	state_save(&w, &mc146818_section, state, 1);
	cr_assert_eq(state_writer_end(&w, err), 0);
	cr_assert_eq(state_reader_open(&r, buffer.bytes, buffer.len, err), 0);
	state_reader_begin(r, "rtc");
	ret = state_load(r, &mc146818_section, m, 1, err);
	if (!ret)
		ret = state_commit(r, err);
	state_reader_close(r);
	free(buffer.bytes);
	return ret;
}

Test(platform_state, clock_refuses_registers_that_no_guest_can_write)
{
	struct mc146818 good, bad, m;
	struct err err = ERR_INIT;

	mc146818_init(&good, 1000);
	m = good;
	bad = good;
	bad.reg[12] = 0x80;
	cr_assert_eq(put_clock(&m, &bad, &err), -EPROTO);
	cr_assert_str_eq(err.text, "rtc: section 'mc146818': reg[12] is 0x80, with 0x2 enabled: "
				   "impossible");
	bad = good;
	bad.reg[13] = 0;
	cr_assert_eq(put_clock(&m, &bad, &err), -EPROTO);
	bad = good;
	bad.offset_s = INT64_MAX;
	cr_assert_eq(put_clock(&m, &bad, &err), -EPROTO);
	cr_assert_arr_eq(m.reg, good.reg, sizeof(m.reg));
	cr_assert_eq(m.offset_s, good.offset_s);
	cr_assert_eq(put_clock(&m, &good, &err), 0, "%s", err.text);
}

/* --- power management, reset, panic --- */

static void pm_work(struct machine *m)
{
	out16(&m->line.h, PM + 2, 0x0120);
	out16(&m->line.h, PM + 4, 0x1402);
	pm_power_button(m->pm);
	out8(&m->line.h, CF9, 0x0a);
	out8(&m->line.h, PORT_92, 0x02);
}

Test(platform_state, power_button_that_was_not_taken_is_still_pressed)
{
	static const uint16_t ports[] = {PM, PM + 1, PM + 2, PM + 3, PM + 4, PM + 5, CF9, PORT_92};

	pm_work(&twin);
	pm_work(&from);
	state_move(from.pm, to.pm);
	state_move(from.reset, to.reset);
	state_move(from.pvpanic, to.pvpanic);
	cr_assert(to.line.h.level[PLATFORM_SCI_GSI]);
	assert_same_ports(ports, ARRAY_SIZE(ports));
	out16(&to.line.h, PM, 0x0100);
	cr_assert(!to.line.h.level[PLATFORM_SCI_GSI]);
	out8(&to.line.h, CF9, 0x0e);
	cr_assert_eq(to.line.h.events[PLATFORM_RESET], 1, "0xcf9 rose from what it was");
}

Test(platform_state, bits_that_no_guest_can_set_are_refused)
{
	struct state_buffer state, before, after;
	struct err err = ERR_INIT;

	state_quiesce(from.pm);
	state = state_of(from.pm);
	before = state_of(to.pm);
	/* sts is the first of three words, before the timer's 4 bytes and the stream's end of 12.
	 */
	store_le16(state.bytes + state.len - 12 - 4 - 6, 0x0001);
	cr_assert_eq(state_put(to.pm, &state, &err), -EPROTO);
	cr_assert_str_eq(err.text, "pm: section 'pm': sts is 1; its bits are 256");
	after = state_of(to.pm);
	state_assert_same(&before, &after);
	free(state.bytes);
	free(before.bytes);
	free(after.bytes);
}

Test(platform_state, device_without_state_refuses_some)
{
	struct state_buffer state;
	struct err err = ERR_INIT;
	uint8_t *at;

	state = state_of(from.pm);
	at = memmem(state.bytes, state.len, "pmpm", 4);
	memcpy(at, "pnpm", 4);
	cr_assert_eq(state_put(to.pvpanic, &state, &err), -EPROTO);
	free(state.bytes);
}

/* --- root port --- */

/* Its driver listens by MSI-X, its slot is empty. */
static void port_work(struct machine *m)
{
	uint32_t cap = mem_read(m, PORT0 + 0x34, 1);

	while (cap && mem_read(m, PORT0 + cap, 1) != 0x11)
		cap = mem_read(m, PORT0 + cap + 1, 1);
	cr_assert_eq(cap, MSIX);
	mem_write(m, PORT0 + 0x18, 0x00010100, 4); /* buses */
	mem_write(m, PORT0 + 0x10, BAR_GPA, 4);
	mem_write(m, PORT0 + 4, 0x0006, 2);
	mem_write(m, PORT0 + SLTCTL, 1 << 3 | 1 << 5 | 1 << 12, 2);
	mem_write(m, BAR_GPA, 0xfee00000, 4);
	mem_write(m, BAR_GPA + 8, 0x41, 4);
	mem_write(m, BAR_GPA + 12, 0, 4);
	mem_write(m, PORT0 + MSIX + 2, 0x8000, 2);
}

Test(platform_state, hot_plug_event_before_is_still_there_and_one_after_interrupts)
{
	port_work(&from);
	port_work(&twin);
	state_move(from.port, to.port);
	for (unsigned int reg = 0; reg < PCI_CONFIG_BYTES; reg += 4)
		cr_assert_eq(mem_read(&to, PORT0 + reg, 4), mem_read(&twin, PORT0 + reg, 4),
			     "register 0x%x", reg);
	cr_assert_eq(mem_read(&to, BAR_GPA + 8, 4), 0x41, "the BAR is where it was");
	cr_assert_geq(to.line.h.irqfd, 0, "the vector has its route");
	cr_assert_eq(fd_event_drain(to.line.h.irqfd), 0);
	root_port_set_present(to.port, true);
	cr_assert_eq(fd_event_drain(to.line.h.irqfd), 1);
}

Test(platform_state, event_that_was_signalled_is_not_signalled_again)
{
	port_work(&from);
	root_port_set_present(from.port, true);
	cr_assert_eq(fd_event_drain(from.line.h.irqfd), 1);
	root_port_set_present(to.port, true); /* of its configuration */
	state_move(from.port, to.port);
	cr_assert_eq(fd_event_drain(to.line.h.irqfd), 0);
	cr_assert_eq(mem_read(&to, PORT0 + SLTSTA, 2), mem_read(&from, PORT0 + SLTSTA, 2));
}

Test(platform_state, masked_vector_that_was_raised_is_delivered_when_it_is_unmasked)
{
	port_work(&from);
	mem_write(&from, BAR_GPA + 12, 1, 4);
	root_port_set_present(from.port, true);
	root_port_set_present(to.port, true);
	state_move(from.port, to.port);
	cr_assert_eq(to.line.h.irqfd, -1);
	cr_assert_eq(mem_read(&to, BAR_GPA + 0x800, 4), 1, "its pending bit");
	mem_write(&to, BAR_GPA + 12, 0, 4);
	cr_assert_geq(to.line.h.irqfd, 0);
	cr_assert_eq(fd_event_drain(to.line.h.irqfd), 1);
}

Test(platform_state, line_of_a_port_without_msix_is_up_again)
{
	mem_write(&from, PORT0 + SLTCTL, 1 << 3 | 1 << 5 | 1 << 12, 2);
	root_port_set_present(from.port, true);
	root_port_set_present(to.port, true);
	cr_assert(from.line.h.level[17]);
	state_move(from.port, to.port);
	cr_assert(to.line.h.level[17]);
	mem_write(&to, PORT0 + SLTSTA, 1 << 3 | 1 << 8, 2);
	cr_assert(!to.line.h.level[17]);
}

Test(platform_state, other_function_is_refused_by_the_register)
{
	struct root_port_config config = {.name = "port0", .slot_number = 2};
	struct state_buffer state, before, after;
	struct err err = ERR_INIT;

	to.port->ops->destroy(to.port);
	cr_assert_eq(root_port_create(&to.port, &to.line.h.env, to.root, &config, &err), 0);
	port_work(&from);
	state = state_of(from.port);
	before = state_of(to.port);
	cr_assert_eq(state_put(to.port, &state, &err), -EPROTO);
	cr_assert_str_eq(err.text,
			 "port0: section 'pci-function': initial[86] is 12; this machine is "
			 "configured with 20");
	after = state_of(to.port);
	state_assert_same(&before, &after);
	free(state.bytes);
	free(before.bytes);
	free(after.bytes);
}

Test(platform_state, refused_msix_leaves_config_space_too)
{
	struct state_buffer state, before, after;
	struct err err = ERR_INIT;
	uint8_t *at;

	port_work(&from);
	state = state_of(from.port);
	before = state_of(to.port);
	at = memmem(state.bytes, state.len, "port0msix", 9);
	at[9 + 4 + 12] = 2; /* a reserved bit of the vector's control */
	cr_assert_eq(state_put(to.port, &state, &err), -EPROTO);
	cr_assert_str_eq(err.text,
			 "port0: section 'msix': entry has vector control 0x2; its bits are "
			 "0x1");
	after = state_of(to.port);
	state_assert_same(&before, &after);
	free(state.bytes);
	free(before.bytes);
	free(after.bytes);
}

Test(platform_state, address_port_and_host_bridge_come_back)
{
	struct state_buffer buffer = {0};
	struct err err = ERR_INIT;
	struct state_reader *r;
	struct state_writer w;
	uint32_t v = 0x80000800;

	bus_write(from.line.h.pio, 0xcf8, &v, 4);
	mem_write(&from, ECAM + 4, 0x0002, 2);
	state_writer_begin(&w, state_buffer_sink, &buffer);
	pci_root_save(from.root, &w);
	cr_assert_eq(state_writer_end(&w, &err), 0);
	cr_assert_eq(state_reader_open(&r, buffer.bytes, buffer.len, &err), 0);
	cr_assert_eq(pci_root_load(to.root, r, &err), 0, "%s", err.text);
	cr_assert_eq(state_reader_end(r, &err), 0);
	state_reader_close(r);
	free(buffer.bytes);
	v = 0;
	bus_read(to.line.h.pio, 0xcf8, &v, 4);
	cr_assert_eq(v, 0x80000800);
	cr_assert_eq(mem_read(&to, ECAM + 4, 2), 2);
}
