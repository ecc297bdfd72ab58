/* SPDX-License-Identifier: Apache-2.0 */
/* Power management, pvpanic and the clock's ports, reached through a bus. */
#include <sched.h>
#include <unistd.h>

#include "base/clock.h"
#include "harness.h"

enum {
	PM1_STS = PLATFORM_PM_PORT,
	PM1_EN = PLATFORM_PM_PORT + 2,
	PM1_CNT = PLATFORM_PM_PORT + 4,
	PWRBTN = 1 << 8,
	SLP_EN = 1 << 13,
};

static struct device *pm_new(struct harness *h)
{
	struct device *pm;
	struct err err = ERR_INIT;

	harness_init(h);
	cr_assert_eq(pm_create(&pm, &h->env, &h->sink, false, &err), 0, "%s", err.text);
	return pm;
}

static void gone(struct harness *h, struct device *dev)
{
	dev->ops->destroy(dev);
	harness_done(h);
}

Test(pm, acpi_mode_is_always_on)
{
	struct harness h;
	struct device *pm = pm_new(&h);

	cr_assert_eq(in16(&h, PM1_CNT), 1);
	out16(&h, PM1_CNT, 0);
	cr_assert_eq(in16(&h, PM1_CNT), 1);
	gone(&h, pm);
}

Test(pm, power_button_raises_the_sci_when_enabled_until_cleared)
{
	struct harness h;
	struct device *pm = pm_new(&h);

	pm_power_button(pm);
	cr_assert(!h.level[PLATFORM_SCI_GSI]);
	cr_assert_eq(in16(&h, PM1_STS), PWRBTN);
	out16(&h, PM1_EN, PWRBTN);
	cr_assert(h.level[PLATFORM_SCI_GSI]);
	out16(&h, PM1_STS, (uint16_t)~PWRBTN);
	cr_assert(h.level[PLATFORM_SCI_GSI], "only its own bit clears it");
	out16(&h, PM1_STS, PWRBTN);
	cr_assert(!h.level[PLATFORM_SCI_GSI]);
	cr_assert_eq(in16(&h, PM1_STS), 0);
	gone(&h, pm);
}

Test(pm, bytes_do_not_touch_each_other)
{
	struct harness h;
	struct device *pm = pm_new(&h);

	out16(&h, PM1_EN, PWRBTN | 1 << 5);
	out8(&h, PM1_EN, 0);
	cr_assert_eq(in16(&h, PM1_EN), PWRBTN);
	pm_power_button(pm);
	out8(&h, PM1_STS, 0xff);
	cr_assert_eq(in16(&h, PM1_STS), PWRBTN);
	out8(&h, PM1_STS + 1, 0x01);
	cr_assert_eq(in16(&h, PM1_STS), 0);
	gone(&h, pm);
}

Test(pm, sleep_type_of_s5_powers_off_and_others_do_not)
{
	struct harness h;
	struct device *pm = pm_new(&h);

	out16(&h, PM1_CNT, PLATFORM_S5_TYPE << 10);
	cr_assert_eq(h.events[PLATFORM_POWER_OFF], 0, "the type alone does nothing");
	cr_assert_eq(in16(&h, PM1_CNT), PLATFORM_S5_TYPE << 10 | 1);
	out16(&h, PM1_CNT, 1 << 10 | SLP_EN);
	cr_assert_eq(h.events[PLATFORM_POWER_OFF], 0);
	out16(&h, PM1_CNT, PLATFORM_S5_TYPE << 10 | SLP_EN);
	cr_assert_eq(h.events[PLATFORM_POWER_OFF], 1);
	cr_assert_eq(in16(&h, PM1_CNT) & SLP_EN, 0, "SLP_EN reads 0");
	gone(&h, pm);
}

static uint32_t read_timer(struct harness *h)
{
	uint32_t ticks = 0;

	bus_read(h->pio, PLATFORM_PM_PORT + 8, &ticks, sizeof(ticks));
	return ticks;
}

Test(pm, the_timer_counts_at_its_rate)
{
	enum { HZ = 3579545, ENOUGH = HZ / 100 };
	struct harness h;
	struct device *pm = pm_new(&h);
	uint64_t outer_ns = clock_ns(), inner_ns, until_ns;
	uint32_t first = read_timer(&h), ticks;

	inner_ns = clock_ns();
	do {
		until_ns = clock_ns();
		ticks = read_timer(&h) - first;
	} while (ticks < ENOUGH);
	cr_assert_leq(ticks, (clock_ns() - outer_ns) * HZ / NS_PER_S + 1);
	cr_assert_geq(ticks + 1, (until_ns - inner_ns) * HZ / NS_PER_S);
	gone(&h, pm);
}

Test(pm, the_timer_of_a_quiesced_machine_stands_still_and_goes_on_from_there)
{
	struct harness h;
	struct device *pm = pm_new(&h);
	uint32_t stood;

	while (!read_timer(&h))
		;
	pm->ops->quiesce(pm, 0);
	pm->ops->quiesce(pm, 1);
	stood = read_timer(&h);
	for (uint64_t until_ns = clock_ns() + 1000000; clock_ns() < until_ns;)
		cr_assert_eq(read_timer(&h), stood);
	pm->ops->resume(pm);
	while (read_timer(&h) == stood)
		;
	cr_assert_geq(read_timer(&h), stood);
	gone(&h, pm);
}

Test(pm, reset_clears_everything)
{
	struct harness h;
	struct device *pm = pm_new(&h);

	out16(&h, PM1_EN, PWRBTN);
	pm_power_button(pm);
	pm->ops->reset(pm);
	cr_assert(!h.level[PLATFORM_SCI_GSI]);
	cr_assert_eq(in16(&h, PM1_STS), 0);
	cr_assert_eq(in16(&h, PM1_EN), 0);
	gone(&h, pm);
}

Test(pm, leaves_its_ports_and_its_line_when_it_goes)
{
	struct harness h;
	struct device *pm = pm_new(&h);
	uint8_t v;

	out16(&h, PM1_EN, PWRBTN);
	pm_power_button(pm);
	pm->ops->destroy(pm);
	cr_assert(!h.level[PLATFORM_SCI_GSI]);
	cr_assert(!bus_read(h.pio, PM1_STS, &v, 1));
	harness_done(&h);
}

Test(pm, the_firmwares_way_to_turn_off_is_known_where_there_is_firmware)
{
	struct harness h;
	struct device *pm = pm_new(&h);
	struct err err = ERR_INIT;
	uint8_t off = PLATFORM_S5_TYPE << 2 | 1 << 5;

	out8(&h, PM1_STS, off);
	cr_assert_eq(h.events[PLATFORM_POWER_OFF], 0, "status bits, without firmware");
	gone(&h, pm);
	harness_init(&h);
	cr_assert_eq(pm_create(&pm, &h.env, &h.sink, true, &err), 0, "%s", err.text);
	out8(&h, PM1_STS, (uint8_t)(off & ~(1 << 5)));
	out8(&h, PM1_STS + 1, off);
	out16(&h, PM1_STS, off);
	cr_assert_eq(h.events[PLATFORM_POWER_OFF], 0, "a type alone, another byte, a word");
	pm_power_button(pm);
	out16(&h, PM1_STS, PWRBTN);
	cr_assert_eq(in16(&h, PM1_STS), 0, "the status register is one still");
	out8(&h, PM1_STS, off);
	cr_assert_eq(h.events[PLATFORM_POWER_OFF], 1);
	gone(&h, pm);
}

Test(pvpanic, tells_its_events_and_reports_them)
{
	struct harness h;
	struct device *dev;
	struct err err = ERR_INIT;

	harness_init(&h);
	cr_assert_eq(pvpanic_create(&dev, &h.env, &h.sink, &err), 0, "%s", err.text);
	cr_assert_eq(in8(&h, PLATFORM_PANIC_PORT), 3);
	out8(&h, PLATFORM_PANIC_PORT, 0);
	cr_assert_eq(h.events[PLATFORM_PANICKED] + h.events[PLATFORM_CRASH_LOADED], 0);
	out8(&h, PLATFORM_PANIC_PORT, 1);
	cr_assert_eq(h.events[PLATFORM_PANICKED], 1);
	out8(&h, PLATFORM_PANIC_PORT, 2);
	cr_assert_eq(h.events[PLATFORM_CRASH_LOADED], 1);
	gone(&h, dev);
}

static uint8_t cmos(struct harness *h, uint8_t index)
{
	out8(h, PLATFORM_RTC_PORT, index);
	return in8(h, PLATFORM_RTC_PORT + 1);
}

static void cmos_set(struct harness *h, uint8_t index, uint8_t v)
{
	out8(h, PLATFORM_RTC_PORT, index);
	out8(h, PLATFORM_RTC_PORT + 1, v);
}

static struct device *rtc_new(struct harness *h)
{
	struct device *rtc;
	struct err err = ERR_INIT;

	harness_init(h);
	cr_assert_eq(rtc_create(&rtc, &h->env, &err), 0, "%s", err.text);
	return rtc;
}

Test(rtc, index_selects_and_its_top_bit_is_not_part_of_it)
{
	struct harness h;
	struct device *rtc = rtc_new(&h);

	cmos_set(&h, 0x40, 0x12);
	cmos_set(&h, 0x80 | 0x41, 0x34);
	cr_assert_eq(cmos(&h, 0x80 | 0x40), 0x12);
	cr_assert_eq(cmos(&h, 0x41), 0x34);
	cr_assert_eq(in8(&h, PLATFORM_RTC_PORT), 0xff);
	gone(&h, rtc);
}

Test(rtc, periodic_interrupts_come_as_they_are_taken, .timeout = 20)
{
	struct harness h;
	struct device *rtc = rtc_new(&h);

	harness_run(&h);
	cmos_set(&h, 10, 0x26); /* 1024 Hz */
	cmos_set(&h, 11, 0x42);
	for (unsigned int i = 0; i < 20; i++) {
		while (!h.level[PLATFORM_RTC_GSI])
			sched_yield();
		cr_assert_eq(cmos(&h, 12) & 0xc0, 0xc0);
	}
	harness_stop(&h);
	cr_assert_geq(h.edges[PLATFORM_RTC_GSI], 20);
	gone(&h, rtc);
}

Test(rtc, untaken_interrupt_leaves_the_loop_idle, .timeout = 20)
{
	struct harness h;
	struct device *rtc = rtc_new(&h);

	cmos_set(&h, 10, 0x23); /* 8192 Hz */
	cmos_set(&h, 11, 0x42);
	while (!h.level[PLATFORM_RTC_GSI])
		loop_iterate(h.loop, true);
	/* Whatever was in flight ends, and nothing new begins until register C is read. */
	while (loop_in_flight(h.loop))
		loop_iterate(h.loop, true);
	cr_assert_eq(h.edges[PLATFORM_RTC_GSI], 1);
	cmos(&h, 12);
	while (!h.level[PLATFORM_RTC_GSI])
		loop_iterate(h.loop, true);
	gone(&h, rtc);
}

Test(rtc, quiesced_clock_raises_nothing_and_resumes, .timeout = 20)
{
	struct harness h;
	struct device *rtc = rtc_new(&h);

	cmos_set(&h, 10, 0x26);
	cmos_set(&h, 11, 0x42);
	rtc->ops->quiesce(rtc, 0);
	rtc->ops->quiesce(rtc, 1);
	cmos(&h, 12); /* what was pending before */
	loop_iterate(h.loop, false);
	while (loop_in_flight(h.loop))
		loop_iterate(h.loop, true);
	cr_assert(!h.level[PLATFORM_RTC_GSI]);
	rtc->ops->resume(rtc);
	while (!h.level[PLATFORM_RTC_GSI])
		loop_iterate(h.loop, true);
	gone(&h, rtc);
}
