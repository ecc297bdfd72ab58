/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the machine that come and go: the registers as the ACPI methods use them, as a hostile
 * guest does, and as a stream has them. */
#include <errno.h>
#include <string.h>

#include "harness.h"
#include "state_rig.h"
#include "platform/plug.h"

enum {
	GPE_STS = PLATFORM_CPUS_PORT,
	GPE_EN,
	EVENT = PLATFORM_CPUS_PORT + 4,
	EJECT = PLATFORM_CPUS_PORT + 8,
	ANSWER = PLATFORM_CPUS_PORT + 0xc,
	IN = PLATFORM_CPUS_PORT + 0x20,
	BUSY = 0x82,
};

struct rig {
	struct harness h;
	struct device *dev;
	unsigned int changes;
};

static void changed(void *opaque)
{
	struct rig *r = opaque;

	r->changes++;
}

static void rig_init(struct rig *r, unsigned int max, unsigned int in)
{
	const struct plug_config config = {.name = "cpus",
					   .port = PLATFORM_CPUS_PORT,
					   .first_stays = true,
					   .max = max,
					   .in = in,
					   .changed = changed,
					   .opaque = r};
	struct err err = ERR_INIT;

	harness_init(&r->h);
	r->changes = 0;
	cr_assert_eq(plug_create(&r->dev, &r->h.env, &config, &err), 0, "%s", err.text);
}

static void rig_done(struct rig *r)
{
	r->dev->ops->destroy(r->dev);
	harness_done(&r->h);
}

static uint32_t in32(struct rig *r, uint16_t port)
{
	uint32_t v = 0;

	cr_assert(bus_read(r->h.pio, port, &v, 4));
	return v;
}

static void out32(struct rig *r, uint16_t port, uint32_t v)
{
	cr_assert(bus_write(r->h.pio, port, &v, 4));
}

static bool sci(struct rig *r)
{
	return r->h.level[PLATFORM_SCI_GSI];
}

static void expect(struct rig *r, unsigned int number, bool in, enum plug_event waits,
		   uint8_t refusal)
{
	struct plug_view v = plug_look(r->dev, number);

	cr_expect_eq(v.in, in, "%u is %s", number, v.in ? "in" : "out");
	cr_expect_eq(v.waits, waits, "%u waits for %d", number, (int)v.waits);
	cr_expect_eq(v.refusal, refusal, "%u: 0x%x", number, v.refusal);
}

Test(plug, at_first_those_below_a_number_are_in)
{
	struct rig r;

	rig_init(&r, 255, 37);
	cr_expect_eq(in32(&r, IN), 0xffffffff);
	cr_expect_eq(in32(&r, IN + 4), 0x1f);
	cr_expect_eq(in8(&r.h, IN + 4), 0x1f);
	for (uint16_t i = 8; i < 32; i += 4)
		cr_expect_eq(in32(&r, IN + i), 0);
	cr_expect_eq(in32(&r, EVENT), 0);
	cr_expect_not(plug_is_heard(r.dev));
	rig_done(&r);
}

/* What Linux does, by asl/cpus.asl. */
Test(plug, one_that_comes_is_heard_and_answered)
{
	struct rig r;

	rig_init(&r, 4, 1);
	out8(&r.h, GPE_EN, 1);
	cr_expect(plug_is_heard(r.dev));
	cr_expect_not(sci(&r));
	plug_add(r.dev, 2);
	cr_expect(sci(&r));
	cr_expect_eq(in8(&r.h, GPE_STS), 1);
	cr_expect_eq(in32(&r, IN), 5);
	out8(&r.h, GPE_EN, 0);
	cr_expect_not(sci(&r));
	cr_expect_eq(in32(&r, EVENT), 2 | 1 << 16);
	out32(&r, EVENT, 2 | 1 << 16);
	cr_expect_eq(in32(&r, EVENT), 0);
	out8(&r.h, GPE_STS, 1);
	out8(&r.h, GPE_EN, 1);
	cr_expect_not(sci(&r));
	expect(&r, 2, true, PLUG_COMES, 0);
	cr_expect_eq(r.changes, 0);
	out32(&r, ANSWER, 2 | 0x80 << 8 | 1 << 16);
	expect(&r, 2, true, PLUG_COMES, 0);
	out32(&r, ANSWER, 2 | 1 << 16);
	expect(&r, 2, true, PLUG_NONE, 0);
	cr_expect_eq(r.changes, 1);
	rig_done(&r);
}

Test(plug, one_that_is_asked_for_leaves_when_it_is_ejected)
{
	struct rig r;

	rig_init(&r, 4, 3);
	out8(&r.h, GPE_EN, 1);
	plug_ask(r.dev, 2);
	cr_expect_eq(in32(&r, EVENT), 2 | 3 << 16);
	out32(&r, EVENT, 2 | 3 << 16);
	out32(&r, ANSWER, 2 | 0x84 << 8 | 3 << 16);
	expect(&r, 2, true, PLUG_LEAVES, 0);
	cr_expect_eq(r.changes, 0, "in progress is no answer");
	out32(&r, EJECT, 2);
	expect(&r, 2, false, PLUG_NONE, 0);
	cr_expect_eq(r.changes, 1);
	cr_expect_eq(in32(&r, IN), 3, "at once, since the guest looks");
	out32(&r, ANSWER, 2 | 3 << 16);
	cr_expect_eq(r.changes, 1);
	rig_done(&r);
}

Test(plug, a_refusal_is_kept_until_it_is_asked_again)
{
	struct rig r;

	rig_init(&r, 2, 2);
	plug_ask(r.dev, 1);
	out32(&r, ANSWER, 1 | BUSY << 8 | 3 << 16);
	expect(&r, 1, true, PLUG_NONE, BUSY);
	cr_expect_eq(r.changes, 1);
	plug_ask(r.dev, 1);
	expect(&r, 1, true, PLUG_LEAVES, 0);
	rig_done(&r);
}

Test(plug, success_without_ejection_is_no_answer)
{
	struct rig r;

	rig_init(&r, 2, 2);
	plug_ask(r.dev, 1);
	out32(&r, ANSWER, 1 | 3 << 16);
	expect(&r, 1, true, PLUG_LEAVES, 0);
	cr_expect_eq(r.changes, 0);
	rig_done(&r);
}

Test(plug, events_come_one_by_one_and_none_is_lost)
{
	struct rig r;

	rig_init(&r, 255, 1);
	out8(&r.h, GPE_EN, 1);
	for (unsigned int i = 1; i < 255; i++)
		plug_add(r.dev, i);
	for (uint32_t i = 1; i < 255; i++) {
		cr_expect(sci(&r));
		cr_expect_eq(in32(&r, EVENT), i | 1 << 16);
		out32(&r, EVENT, i | 1 << 16);
	}
	cr_expect_eq(in32(&r, EVENT), 0);
	cr_expect_not(sci(&r));
	/* One that replaces another between the guest's read and its write is still to be heard. */
	plug_ask(r.dev, 7);
	cr_expect_eq(in32(&r, EVENT), 7 | 3 << 16);
	plug_add(r.dev, 7);
	out32(&r, EVENT, 7 | 3 << 16);
	cr_expect_eq(in32(&r, EVENT), 7 | 1 << 16);
	rig_done(&r);
}

Test(plug, what_was_asked_for_can_be_forgotten_but_not_what_has_come)
{
	struct rig r;

	rig_init(&r, 4, 3);
	plug_ask(r.dev, 2);
	plug_add(r.dev, 3);
	plug_forget(r.dev);
	expect(&r, 2, true, PLUG_NONE, 0);
	expect(&r, 3, true, PLUG_NONE, 0);
	cr_expect_eq(in32(&r, EVENT), 3 | 1 << 16);
	rig_done(&r);
}

Test(plug, the_guest_may_give_up_any_but_the_first)
{
	struct rig r;

	rig_init(&r, 4, 3);
	out32(&r, EJECT, 0);
	expect(&r, 0, true, PLUG_NONE, 0);
	out32(&r, EJECT, 1);
	cr_expect_eq(in32(&r, IN), 5);
	cr_expect_eq(r.changes, 1);
	out32(&r, EJECT, 1);
	out32(&r, EJECT, 3);
	cr_expect_eq(r.changes, 1, "those that are out do not leave");
	plug_ask(r.dev, 1);
	expect(&r, 1, false, PLUG_NONE, 0);
	rig_done(&r);
}

Test(plug, where_none_has_to_stay_the_guest_may_give_up_the_first_too)
{
	struct rig r;
	const struct plug_config config = {.name = "memory",
					   .port = PLATFORM_MEMORY_PORT,
					   .max = 32,
					   .changed = changed,
					   .opaque = &r};
	const uint16_t by = PLATFORM_MEMORY_PORT - PLATFORM_CPUS_PORT;
	struct device *memory;
	struct err err = ERR_INIT;

	rig_init(&r, 4, 2);
	cr_assert_eq(plug_create(&memory, &r.h.env, &config, &err), 0, "%s", err.text);
	cr_expect_eq(in32(&r, IN + by), 0u, "none is in at first");
	plug_add(memory, 0);
	plug_add(memory, 31);
	cr_expect_eq(in32(&r, IN + by), 0x80000001u);
	cr_expect_eq(in32(&r, IN), 3u, "the other device is another one");
	cr_expect_eq(in32(&r, EVENT + by), 1u << 16);
	out32(&r, EJECT + by, 0);
	cr_expect_eq(in32(&r, IN + by), 0x80000000u);
	cr_expect_not(plug_look(memory, 0).in);
	out32(&r, EJECT + by, 32);
	memory->ops->destroy(memory);
	rig_done(&r);
}

Test(plug, reset_takes_what_was_asked_for_and_leaves_no_event)
{
	struct rig r;

	rig_init(&r, 4, 3);
	out8(&r.h, GPE_EN, 1);
	plug_ask(r.dev, 1);
	plug_add(r.dev, 3);
	cr_expect(sci(&r));
	r.dev->ops->reset(r.dev);
	cr_expect_not(sci(&r));
	cr_expect_not(plug_is_heard(r.dev));
	cr_expect_eq(in8(&r.h, GPE_EN), 0);
	cr_expect_eq(in32(&r, EVENT), 0);
	cr_expect_eq(in32(&r, IN), 0xd);
	for (unsigned int i = 0; i < 4; i++)
		expect(&r, i, i != 1, PLUG_NONE, 0);
	rig_done(&r);
}

/* Every port, every width, many values: what is there of parts stays within what there can be,
 * and nothing that was not said in a register's own width counts. */
Test(plug, a_hostile_guest_changes_nothing_but_what_it_has)
{
	static const uint32_t values[] = {
		0,          1,          3,          4,          254,        255,
		256,        0xffff,     0x10001,    0x30003,    0x1ff01,    0x30000,
		0x7fffffff, 0x80000001, 0xfffffffe, 0xffffffff, 0x00030103, 0x00018203};
	struct rig r;

	rig_init(&r, 4, 2);
	for (unsigned int width = 1; width <= 4; width *= 2) {
		for (uint16_t port = 0; port + width <= PLATFORM_PLUG_PORTS; port++) {
			for (unsigned int i = 0; i < ARRAY_SIZE(values); i++) {
				uint32_t v = values[i];

				bus_write(r.h.pio, (uint16_t)(PLATFORM_CPUS_PORT + port), &v,
					  width);
				bus_read(r.h.pio, (uint16_t)(PLATFORM_CPUS_PORT + port), &v, width);
				cr_assert_eq(in32(&r, IN) & ~3u, 0u);
				cr_assert_eq(in32(&r, IN) & 1, 1u);
				cr_assert_eq(in32(&r, EVENT), 0);
			}
			cr_assert(width == 4 || r.changes == 0, "width %u, port %u", width, port);
		}
	}
	cr_expect_eq(in8(&r.h, GPE_EN) & ~1, 0);
	rig_done(&r);
}

/* --- state --- */

Test(plug, state_moves)
{
	struct rig from, to;

	rig_init(&from, 40, 3);
	rig_init(&to, 40, 3);
	out8(&from.h, GPE_EN, 1);
	plug_add(from.dev, 33);
	plug_ask(from.dev, 2);
	out32(&from, EVENT, 2 | 3 << 16);
	out32(&from, EJECT, 1);
	state_move(from.dev, to.dev);
	cr_expect(sci(&to));
	cr_expect(plug_is_heard(to.dev));
	cr_expect_geq(to.changes, 1, "the machine's vCPUs follow");
	cr_expect_eq(in32(&to, IN), 5);
	cr_expect_eq(in32(&to, IN + 4), 2);
	cr_expect_eq(in32(&to, EVENT), 33 | 1 << 16);
	expect(&to, 2, true, PLUG_LEAVES, 0);
	rig_done(&to);
	rig_done(&from);
}

/* The record of a part is in, event, waits, refusal; all are before the stream's end. */
static void refuse(unsigned int number, unsigned int member, uint8_t value, const char *why)
{
	struct state_buffer state, before, after;
	struct err err = ERR_INIT;
	struct rig from, to;

	rig_init(&from, 4, 2);
	rig_init(&to, 4, 2);
	state = state_of(from.dev);
	before = state_of(to.dev);
	state.bytes[state.len - 12 - 4 * (4 - number) + member] = value;
	cr_expect_eq(state_put(to.dev, &state, &err), -EPROTO);
	cr_expect_not_null(strstr(err.text, why), "%s", err.text);
	after = state_of(to.dev);
	state_assert_same(&before, &after);
	free(state.bytes);
	free(before.bytes);
	free(after.bytes);
	rig_done(&to);
	rig_done(&from);
}

Test(plug, impossible_states_are_refused)
{
	refuse(0, 0, 0, "number 0 cannot leave");
	refuse(0, 1, 3, "number 0 cannot leave");
	refuse(3, 1, 1, "number 3 is not in the machine");
	refuse(3, 2, 3, "number 3 is not in the machine");
	refuse(1, 1, 2, "number 1 has one that there is not");
	refuse(1, 1, 4, "event is 4");
	refuse(1, 0, 2, "in is 2");
}

Test(plug, the_state_of_a_machine_of_another_size_is_refused)
{
	struct state_buffer state;
	struct err err = ERR_INIT;
	struct rig from, to;

	rig_init(&from, 4, 2);
	rig_init(&to, 5, 2);
	state = state_of(from.dev);
	cr_expect_eq(state_put(to.dev, &state, &err), -EPROTO);
	cr_expect_not_null(strstr(err.text, "max"), "%s", err.text);
	free(state.bytes);
	rig_done(&to);
	rig_done(&from);
}
