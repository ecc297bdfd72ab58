/* SPDX-License-Identifier: Apache-2.0 */
/* The MC146818 model. Section numbers are those of Motorola's data sheet where there are any. */
#include "platform/mc146818.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/num.h"

enum {
	REG_SECONDS = 0,
	REG_SECONDS_ALARM = 1,
	REG_MINUTES = 2,
	REG_MINUTES_ALARM = 3,
	REG_HOURS = 4,
	REG_HOURS_ALARM = 5,
	REG_WEEKDAY = 6,
	REG_DAY = 7,
	REG_MONTH = 8,
	REG_YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,

	A_UIP = 1 << 7,
	A_DIVIDER = 7 << 4,
	A_DIVIDER_NORMAL = 2 << 4, /* 32768 Hz */
	A_RATE = 0xf,

	B_SET = 1 << 7,
	B_PIE = 1 << 6,
	B_AIE = 1 << 5,
	B_UIE = 1 << 4,
	B_BINARY = 1 << 2,
	B_24H = 1 << 1,

	C_IRQF = 1 << 7,
	C_PF = 1 << 6,
	C_AF = 1 << 5,
	C_UF = 1 << 4,

	D_VALID = 1 << 7,

	HOURS_PM = 1 << 7,
	ALARM_ANY = 0xc0, /* the two top bits: don't care */

	BASE_HZ = 32768,
	DAY_S = 86400,
};

static const uint64_t second_ns = 1000000000;
/* No date that the registers can hold is farther off (year 25755). */
static const int64_t offset_max_s = 1ll << 40;
/* UIP rises this long before an update. */
static const uint64_t uip_ns = 244141;

static_assert((B_PIE | B_AIE | B_UIE) == (C_PF | C_AF | C_UF), "enables lie over their flags");

static bool is_time(uint8_t index)
{
	switch (index) {
	case REG_SECONDS:
	case REG_MINUTES:
	case REG_HOURS:
	case REG_WEEKDAY:
	case REG_DAY:
	case REG_MONTH:
	case REG_YEAR:
	case MC146818_CENTURY:
		return true;
	default:
		return false;
	}
}

static bool divider_held(const struct mc146818 *m)
{
	return (m->reg[REG_A] & A_DIVIDER) >= 6 << 4;
}

static bool frozen(const struct mc146818 *m)
{
	return (m->reg[REG_B] & B_SET) || divider_held(m);
}

static int64_t guest_seconds(const struct mc146818 *m, uint64_t now_ns)
{
	return (int64_t)((now_ns + m->phase_ns) / second_ns) + m->offset_s;
}

static uint8_t encode(const struct mc146818 *m, int v)
{
	if (m->reg[REG_B] & B_BINARY)
		return (uint8_t)v;
	return (uint8_t)(v / 10 % 10 << 4 | v % 10);
}

static int decode(const struct mc146818 *m, uint8_t v)
{
	if (m->reg[REG_B] & B_BINARY)
		return v;
	return (v >> 4) * 10 + (v & 0xf);
}

static uint8_t encode_hours(const struct mc146818 *m, int hours)
{
	if (m->reg[REG_B] & B_24H)
		return encode(m, hours);
	return encode(m, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? HOURS_PM : 0);
}

static int decode_hours(const struct mc146818 *m, uint8_t v)
{
	if (m->reg[REG_B] & B_24H)
		return decode(m, v);
	return decode(m, v & (uint8_t)~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

/* Put the present time into the time registers. */
static void latch(struct mc146818 *m, uint64_t now_ns)
{
	time_t t = guest_seconds(m, now_ns);
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		memset(&tm, 0, sizeof(tm));
	m->reg[REG_SECONDS] = encode(m, tm.tm_sec);
	m->reg[REG_MINUTES] = encode(m, tm.tm_min);
	m->reg[REG_HOURS] = encode_hours(m, tm.tm_hour);
	m->reg[REG_WEEKDAY] = encode(m, tm.tm_wday + 1);
	m->reg[REG_DAY] = encode(m, tm.tm_mday);
	m->reg[REG_MONTH] = encode(m, tm.tm_mon + 1);
	m->reg[REG_YEAR] = encode(m, (tm.tm_year + 1900) % 100);
	m->reg[MC146818_CENTURY] = encode(m, (tm.tm_year + 1900) / 100);
}

/* Let the clock continue from the time registers, sub_ns into that second. Any value that a guest
 * wrote there gives a date. */
static void commit(struct mc146818 *m, uint64_t now_ns, uint64_t sub_ns)
{
	struct tm tm = {
		.tm_sec = decode(m, m->reg[REG_SECONDS]),
		.tm_min = decode(m, m->reg[REG_MINUTES]),
		.tm_hour = decode_hours(m, m->reg[REG_HOURS]),
		.tm_mday = decode(m, m->reg[REG_DAY]),
		.tm_mon = decode(m, m->reg[REG_MONTH]) - 1,
		.tm_year = decode(m, m->reg[MC146818_CENTURY]) * 100 + decode(m, m->reg[REG_YEAR]) -
			   1900,
	};

	m->phase_ns = (uint32_t)((sub_ns + second_ns - now_ns % second_ns) % second_ns);
	m->offset_s = timegm(&tm) - (int64_t)((now_ns + m->phase_ns) / second_ns);
	m->seen_ns = now_ns;
}

static uint64_t sub_second(const struct mc146818 *m, uint64_t now_ns)
{
	return (now_ns + m->phase_ns) % second_ns;
}

/* Nanoseconds of the periodic rate, 0 for none: rates 1 and 2 are as 8 and 9. */
static uint64_t period_ns(const struct mc146818 *m)
{
	unsigned int rate = m->reg[REG_A] & A_RATE;

	if (!rate || divider_held(m))
		return 0;
	if (rate < 3)
		rate += 7;
	return (second_ns << (rate - 1)) / BASE_HZ;
}

static bool alarm_field(uint8_t alarm, int want, int is)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || want == is;
}

/* The first second after s, and within a day, at which the alarm matches; INT64_MAX when there is
 * none. Steps over hours and minutes that do not match. */
static int64_t next_alarm(const struct mc146818 *m, int64_t s)
{
	uint8_t hour = m->reg[REG_HOURS_ALARM], minute = m->reg[REG_MINUTES_ALARM],
		second = m->reg[REG_SECONDS_ALARM];
	int64_t at = s + 1;

	while (at <= s + DAY_S) {
		int of_day = (int)((at % DAY_S + DAY_S) % DAY_S);

		if (!alarm_field(hour, decode_hours(m, hour), of_day / 3600))
			at += 3600 - of_day % 3600;
		else if (!alarm_field(minute, decode(m, minute), of_day / 60 % 60))
			at += 60 - of_day % 60;
		else if (!alarm_field(second, decode(m, second), of_day % 60))
			at++;
		else
			return at;
	}
	return INT64_MAX;
}

static void flag(struct mc146818 *m, uint8_t flags)
{
	m->reg[REG_C] |= flags;
}

static void update_irqf(struct mc146818 *m)
{
	if (m->reg[REG_C] & m->reg[REG_B] & (C_PF | C_AF | C_UF))
		m->reg[REG_C] |= C_IRQF;
	else
		m->reg[REG_C] &= (uint8_t)~C_IRQF;
}

void mc146818_advance(struct mc146818 *m, uint64_t now_ns)
{
	uint64_t period = period_ns(m);

	/* The host's clock may be set back. */
	if (now_ns < m->seen_ns)
		m->seen_ns = now_ns;
	if (period && now_ns / period != m->seen_ns / period)
		flag(m, C_PF);
	if (!frozen(m)) {
		int64_t from = guest_seconds(m, m->seen_ns), to = guest_seconds(m, now_ns);

		if (to != from)
			flag(m, C_UF);
		if (to > from && next_alarm(m, from) <= to)
			flag(m, C_AF);
	}
	m->seen_ns = now_ns;
	update_irqf(m);
}

bool mc146818_irq(const struct mc146818 *m)
{
	return m->reg[REG_C] & C_IRQF;
}

/* Host time at which the guest's clock shows s and no fraction. */
static uint64_t host_ns(const struct mc146818 *m, int64_t s)
{
	return (uint64_t)(s - m->offset_s) * second_ns - m->phase_ns;
}

uint64_t mc146818_next(const struct mc146818 *m, uint64_t now_ns)
{
	uint8_t wanted = m->reg[REG_B] & (uint8_t)~m->reg[REG_C];
	uint64_t next = MC146818_NEVER, period = period_ns(m);
	int64_t s = guest_seconds(m, now_ns);

	if ((wanted & B_PIE) && period)
		next = MIN(next, (now_ns / period + 1) * period);
	if (frozen(m))
		return next;
	if (wanted & B_UIE)
		next = MIN(next, host_ns(m, s + 1));
	if (wanted & B_AIE) {
		int64_t alarm = next_alarm(m, s);

		if (alarm != INT64_MAX)
			next = MIN(next, host_ns(m, alarm));
	}
	return next;
}

uint8_t mc146818_read(struct mc146818 *m, uint8_t index, uint64_t now_ns)
{
	uint8_t v;

	index %= MC146818_REGISTERS;
	mc146818_advance(m, now_ns);
	if (is_time(index) && !frozen(m))
		latch(m, now_ns);
	v = m->reg[index];
	if (index == REG_A && !frozen(m) && sub_second(m, now_ns) >= second_ns - uip_ns)
		v |= A_UIP;
	if (index == REG_C)
		m->reg[REG_C] = 0;
	return v;
}

/* A and B decide whether the clock runs. */
static void write_control(struct mc146818 *m, uint8_t index, uint8_t value, uint64_t now_ns)
{
	bool was_frozen = frozen(m), was_held = divider_held(m);

	if (!was_frozen)
		latch(m, now_ns);
	if (index == REG_A)
		m->reg[REG_A] = value & (uint8_t)~A_UIP;
	else /* SET clears UIE */
		m->reg[REG_B] = value & B_SET ? value & (uint8_t)~B_UIE : value;
	if (frozen(m) && !was_frozen)
		m->divider_reset = false;
	m->divider_reset |= was_held || divider_held(m);
	/* Out of a divider reset, the first update comes half a second later. */
	if (was_frozen && !frozen(m))
		commit(m, now_ns, m->divider_reset ? second_ns / 2 : sub_second(m, now_ns));
	update_irqf(m);
}

void mc146818_write(struct mc146818 *m, uint8_t index, uint8_t value, uint64_t now_ns)
{
	index %= MC146818_REGISTERS;
	mc146818_advance(m, now_ns);
	switch (index) {
	case REG_A:
	case REG_B:
		write_control(m, index, value, now_ns);
		break;
	case REG_C:
	case REG_D:
		break; /* for reading */
	default:
		if (!is_time(index)) {
			m->reg[index] = value;
		} else if (frozen(m)) {
			m->reg[index] = value;
		} else {
			latch(m, now_ns);
			m->reg[index] = value;
			commit(m, now_ns, sub_second(m, now_ns));
		}
	}
}

void mc146818_init(struct mc146818 *m, uint64_t now_ns)
{
	memset(m, 0, sizeof(*m));
	m->reg[REG_A] = A_DIVIDER_NORMAL | 6; /* 1024 Hz */
	m->reg[REG_B] = B_24H;
	m->reg[REG_D] = D_VALID;
	m->seen_ns = now_ns;
}

void mc146818_reset(struct mc146818 *m, uint64_t now_ns)
{
	mc146818_advance(m, now_ns);
	m->reg[REG_B] &= (uint8_t)~(B_PIE | B_AIE | B_UIE);
	m->reg[REG_C] = 0;
}

/* State */

static const struct state_field mc146818_fields[] = {
	STATE_ARRAY(struct mc146818, reg),
	STATE_ONE(struct mc146818, offset_s),
	STATE_ONE(struct mc146818, phase_ns, .max = 999999999),
	STATE_ONE(struct mc146818, seen_ns),
	STATE_ONE(struct mc146818, divider_reset),
};

/* Values that no guest can write, or that the arithmetic cannot handle. */
static int check_state(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct mc146818 *m = record;
	struct mc146818 same = *m;

	(void)live;
	(void)i;
	update_irqf(&same);
	if (m->reg[REG_C] & ~(C_IRQF | C_PF | C_AF | C_UF) || same.reg[REG_C] != m->reg[REG_C])
		return err_set(err, -EPROTO, "reg[%d] is 0x%x, with 0x%x enabled: impossible",
			       REG_C, m->reg[REG_C], m->reg[REG_B]);
	if (m->reg[REG_A] & A_UIP || m->reg[REG_D] != D_VALID)
		return err_set(err, -EPROTO, "reg[%d] is 0x%x, reg[%d] 0x%x: impossible", REG_A,
			       m->reg[REG_A], REG_D, m->reg[REG_D]);
	if (m->offset_s < -offset_max_s || m->offset_s > offset_max_s)
		return err_set(err, -EPROTO, "offset_s is %lld; at most %lld either way",
			       (long long)m->offset_s, (long long)offset_max_s);
	return 0;
}

const struct state_section mc146818_section =
	STATE_SECTION("mc146818", 1, struct mc146818, mc146818_fields, .check = check_state);
