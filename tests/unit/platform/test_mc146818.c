/* SPDX-License-Identifier: Apache-2.0 */
/* The clock's registers, with time in the test's hands. */
#include <criterion/criterion.h>
#include <time.h>

#include "platform/mc146818.h"

#define S 1000000000ull

/* 2026-11-20 12:34:56 UTC, a Friday */
#define NOW (1795178096ull * S)

static void read_all(struct mc146818 *m, uint64_t now, uint8_t v[10])
{
	for (uint8_t i = 0; i < 10; i++)
		v[i] = mc146818_read(m, i, now);
}

Test(mc146818, shows_the_hosts_utc_in_bcd)
{
	struct mc146818 m;
	uint8_t v[10];

	mc146818_init(&m, NOW);
	read_all(&m, NOW, v);
	cr_assert_eq(v[0], 0x56);
	cr_assert_eq(v[2], 0x34);
	cr_assert_eq(v[4], 0x12);
	cr_assert_eq(v[6], 6, "Sunday is 1");
	cr_assert_eq(v[7], 0x20);
	cr_assert_eq(v[8], 0x11);
	cr_assert_eq(v[9], 0x26);
	cr_assert_eq(mc146818_read(&m, MC146818_CENTURY, NOW), 0x20);
	cr_assert_eq(mc146818_read(&m, 13, NOW), 0x80);
	cr_assert_eq(mc146818_read(&m, 0, NOW + 4 * S), 0x00);
	cr_assert_eq(mc146818_read(&m, 2, NOW + 4 * S), 0x35);
}

Test(mc146818, binary_and_twelve_hour_modes)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 11, 0x06, NOW);
	cr_assert_eq(mc146818_read(&m, 0, NOW), 56);
	mc146818_write(&m, 11, 0x00, NOW);
	cr_assert_eq(mc146818_read(&m, 4, NOW), 0x92, "12 p.m.");
	cr_assert_eq(mc146818_read(&m, 4, NOW + 3600 * S), 0x81);
	cr_assert_eq(mc146818_read(&m, 4, NOW + 12 * 3600 * S), 0x12, "midnight is 12 a.m.");
	mc146818_write(&m, 4, 0x83, NOW);
	mc146818_write(&m, 11, 0x02, NOW);
	cr_assert_eq(mc146818_read(&m, 4, NOW), 0x15);
}

Test(mc146818, set_holds_the_clock_and_makes_an_offset)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 11, 0x82, NOW);
	mc146818_write(&m, 9, 0x99, NOW + S);
	mc146818_write(&m, MC146818_CENTURY, 0x19, NOW + S);
	mc146818_write(&m, 8, 0x12, NOW + S);
	mc146818_write(&m, 7, 0x31, NOW + S);
	mc146818_write(&m, 4, 0x23, NOW + S);
	mc146818_write(&m, 2, 0x59, NOW + S);
	mc146818_write(&m, 0, 0x58, NOW + S);
	cr_assert_eq(mc146818_read(&m, 0, NOW + 10 * S), 0x58, "held");
	mc146818_write(&m, 11, 0x02, NOW + 10 * S);
	cr_assert_eq(mc146818_read(&m, 0, NOW + 10 * S), 0x58);
	cr_assert_eq(mc146818_read(&m, 0, NOW + 12 * S), 0x00);
	cr_assert_eq(mc146818_read(&m, 9, NOW + 12 * S), 0x00);
	cr_assert_eq(mc146818_read(&m, MC146818_CENTURY, NOW + 12 * S), 0x20);
	cr_assert_eq(mc146818_read(&m, 8, NOW + 12 * S), 0x01);
}

Test(mc146818, first_update_after_a_divider_reset_comes_half_a_second_later)
{
	struct mc146818 m;
	uint64_t t = NOW + 123456789;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 11, 0x82, t);
	mc146818_write(&m, 10, 0x76, t);
	mc146818_write(&m, 0, 0x10, t);
	mc146818_write(&m, 10, 0x26, t);
	mc146818_write(&m, 11, 0x02, t);
	cr_assert_eq(mc146818_read(&m, 0, t + S / 2 - 1), 0x10);
	cr_assert_eq(mc146818_read(&m, 0, t + S / 2), 0x11);
}

Test(mc146818, update_in_progress_shows_just_before_the_second)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	cr_assert_eq(mc146818_read(&m, 10, NOW) & 0x80, 0);
	cr_assert_eq(mc146818_read(&m, 10, NOW + S - 300000) & 0x80, 0);
	cr_assert_eq(mc146818_read(&m, 10, NOW + S - 200000) & 0x80, 0x80);
	mc146818_write(&m, 11, 0x82, NOW);
	cr_assert_eq(mc146818_read(&m, 10, NOW + S - 200000) & 0x80, 0, "none while held");
}

Test(mc146818, update_interrupt_each_second_until_c_is_read)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	cr_assert_eq(mc146818_next(&m, NOW), MC146818_NEVER);
	mc146818_write(&m, 11, 0x12, NOW);
	cr_assert_eq(mc146818_next(&m, NOW), NOW + S);
	mc146818_advance(&m, NOW + S - 1);
	cr_assert(!mc146818_irq(&m));
	mc146818_advance(&m, NOW + S);
	cr_assert(mc146818_irq(&m));
	cr_assert_eq(mc146818_next(&m, NOW + S), MC146818_NEVER, "pending already");
	cr_assert_eq(mc146818_read(&m, 12, NOW + S) & 0xb0, 0x90);
	cr_assert(!mc146818_irq(&m));
	cr_assert_eq(mc146818_read(&m, 12, NOW + S), 0x00);
	cr_assert_eq(mc146818_next(&m, NOW + S), NOW + 2 * S);
}

Test(mc146818, flags_rise_without_their_enables_and_raise_nothing)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	cr_assert_eq(mc146818_read(&m, 12, NOW + 2 * S) & 0x90, 0x10);
	cr_assert(!mc146818_irq(&m));
}

Test(mc146818, periodic_interrupt_at_its_rate)
{
	struct mc146818 m;
	unsigned int n = 0;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 10, 0x26, NOW); /* 1024 Hz */
	mc146818_write(&m, 11, 0x42, NOW);
	for (uint64_t t = NOW; (t = mc146818_next(&m, t)) <= NOW + S; n++) {
		mc146818_advance(&m, t);
		cr_assert(mc146818_irq(&m));
		cr_assert_eq(mc146818_read(&m, 12, t) & 0xc0, 0xc0);
	}
	cr_assert_geq(n, 1023);
	cr_assert_leq(n, 1025);
	mc146818_write(&m, 10, 0x20, NOW + S);
	cr_assert_eq(mc146818_next(&m, NOW + S), MC146818_NEVER, "rate 0 is off");
}

Test(mc146818, alarm_at_a_time_and_with_fields_that_match_anything)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 1, 0x00, NOW);
	mc146818_write(&m, 3, 0x00, NOW);
	mc146818_write(&m, 5, 0x08, NOW); /* 08:00:00, tomorrow */
	mc146818_write(&m, 11, 0x22, NOW);
	uint64_t eight = NOW + (19 * 3600 + 25 * 60 + 4) * S;
	cr_assert_eq(mc146818_next(&m, NOW), eight);
	mc146818_advance(&m, eight - 1);
	cr_assert(!mc146818_irq(&m));
	mc146818_advance(&m, eight);
	cr_assert(mc146818_irq(&m));
	cr_assert_eq(mc146818_read(&m, 12, eight) & 0xa0, 0xa0);
	cr_assert_eq(mc146818_next(&m, eight), eight + 86400 * S);
	mc146818_write(&m, 5, 0xff, eight); /* every hour */
	cr_assert_eq(mc146818_next(&m, eight), eight + 3600 * S);
	mc146818_write(&m, 3, 0xc0, eight); /* every minute */
	cr_assert_eq(mc146818_next(&m, eight), eight + 60 * S);
	mc146818_write(&m, 1, 0xff, eight);
	cr_assert_eq(mc146818_next(&m, eight), eight + S);
}

Test(mc146818, alarm_that_cannot_match_never_rings)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 5, 0x77, NOW);
	mc146818_write(&m, 11, 0x22, NOW);
	mc146818_advance(&m, NOW + 200000 * S);
	cr_assert_eq(mc146818_read(&m, 12, NOW + 200000 * S) & 0x20, 0);
}

Test(mc146818, memory_keeps_what_is_written_and_c_and_d_do_not)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	for (unsigned int i = 14; i < 128; i++)
		if (i != MC146818_CENTURY)
			mc146818_write(&m, (uint8_t)i, (uint8_t)(i * 3), NOW);
	for (unsigned int i = 14; i < 128; i++)
		if (i != MC146818_CENTURY)
			cr_assert_eq(mc146818_read(&m, (uint8_t)i, NOW), (uint8_t)(i * 3));
	mc146818_write(&m, 13, 0x00, NOW);
	cr_assert_eq(mc146818_read(&m, 13, NOW), 0x80);
	mc146818_write(&m, 12, 0xff, NOW);
	cr_assert_eq(mc146818_read(&m, 12, NOW), 0x00);
}

Test(mc146818, reset_ends_interrupts_and_keeps_time_and_memory)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 0x40, 0x77, NOW);
	mc146818_write(&m, 9, 0x30, NOW);
	mc146818_write(&m, 11, 0x72, NOW);
	mc146818_advance(&m, NOW + S);
	cr_assert(mc146818_irq(&m));
	mc146818_reset(&m, NOW + S);
	cr_assert(!mc146818_irq(&m));
	cr_assert_eq(mc146818_next(&m, NOW + S), MC146818_NEVER);
	cr_assert_eq(mc146818_read(&m, 0x40, NOW + S), 0x77);
	cr_assert_eq(mc146818_read(&m, 9, NOW + S), 0x30);
}

Test(mc146818, survives_the_host_being_set_back)
{
	struct mc146818 m;

	mc146818_init(&m, NOW);
	mc146818_write(&m, 11, 0x12, NOW);
	mc146818_advance(&m, NOW - 1000 * S);
	cr_assert_eq(mc146818_next(&m, NOW - 1000 * S), NOW - 999 * S);
}

/* Whatever registers a guest writes, there is a time, and the next interrupt lies ahead. */
Test(mc146818, garbage_in_any_register_stays_bounded)
{
	struct mc146818 m;
	uint32_t x = 12345;
	uint64_t now = NOW;

	mc146818_init(&m, now);
	for (unsigned int i = 0; i < 300000; i++) {
		x = x * 1664525 + 1013904223;
		now += x >> 8;
		mc146818_write(&m, (uint8_t)(x >> 24) % 0x34, (uint8_t)(x >> 16), now);
		mc146818_read(&m, (uint8_t)(x >> 12) % 0x34, now);
		uint64_t next = mc146818_next(&m, now);
		cr_assert(next == MC146818_NEVER || (next > now && next <= now + 86402 * S),
			  "step %u: next %lu, now %lu", i, next, now);
	}
}
