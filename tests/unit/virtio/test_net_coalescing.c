// SPDX-License-Identifier: Apache-2.0
// When virtio-net interrupts: as the driver's coalescing says (virtio 1.3, 5.1.6.5.9), and how that
// and moderation get on with resets and pauses. Of times only the least is asserted.
#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/le.h"
#include "base/num.h"
#include "net_rig.h"

#define USUAL (N_MAC | N_MRG | N_STATUS | N_CTRL | N_COAL | N_VQ_COAL)

enum { CTRL = 2, COAL = 6, TX_SET = 0, RX_SET = 1, VQ_SET = 2, VQ_GET = 3, FRAME = 60 };

/* Both long enough for any machine. */
enum { FOREVER_US = 1000000, MANY = 1000 };

static uint8_t set_all(struct nic *n, uint8_t command, uint32_t packets, uint32_t us)
{
	uint8_t c[10] = {COAL, command};

	store_le32(c + 2, packets);
	store_le32(c + 6, us);
	return nic_command(n, CTRL, c, sizeof(c));
}

static uint8_t set_one(struct nic *n, uint16_t queue, uint32_t packets, uint32_t us)
{
	uint8_t c[14] = {COAL, VQ_SET};

	store_le16(c + 2, queue);
	store_le32(c + 6, packets);
	store_le32(c + 10, us);
	return nic_command(n, CTRL, c, sizeof(c));
}

static uint8_t get(struct nic *n, uint16_t queue, uint32_t *packets, uint32_t *us)
{
	uint8_t c[6] = {COAL, VQ_GET}, result[8], ack;

	store_le16(c + 2, queue);
	ack = nic_command_result(n, CTRL, c, sizeof(c), result, sizeof(result));
	*packets = load_le32(result);
	*us = load_le32(result + 4);
	return ack;
}

static void expect(struct nic *n, uint16_t queue, uint32_t packets, uint32_t us)
{
	uint32_t p, u;

	cr_assert_eq(get(n, queue, &p, &u), 0);
	cr_assert(p == packets && u == us, "queue %u: %u packets, %u us", queue, p, u);
}

static uint16_t used_idx(struct nic *n, unsigned int queue)
{
	return le16toh(
		__atomic_load_n((const uint16_t *)rig_at(&n->rig, n->rig.queues[queue].used + 2),
				__ATOMIC_SEQ_CST));
}

/* Until so many more than it has taken are there for the driver, which does not look: one that has
 * looked needs no interrupt. */
static void wait_used(struct nic *n, unsigned int queue, unsigned int more)
{
	while ((uint16_t)(used_idx(n, queue) - n->rig.queues[queue].seen) < more)
		cr_assert_eq(loop_iterate(n->rig.loop, true), 0);
	rig_settle(&n->rig);
}

static void take_all(struct nic *n, unsigned int queue)
{
	struct rig_used used;

	while (rig_take(&n->rig.queues[queue], &used))
		;
}

/* Frames of the peer, of which the guest has not taken `before`. */
static void receive(struct nic *n, unsigned int before, unsigned int frames)
{
	static const uint8_t wire[4 + FRAME] = {0, 0, 0, FRAME};

	for (unsigned int i = 0; i < frames; i++)
		cr_assert_eq(send(n->peer, wire, sizeof(wire), 0), (ssize_t)sizeof(wire));
	wait_used(n, RX, before + frames);
}

static void open_nic(struct nic *n, uint64_t features)
{
	nic_open_socket(n, features, LOOP_AUTO);
	nic_give_many(n, RX, 40, 1526);
	rig_settle(&n->rig);
	n->rig.interrupts[RX] = 0;
}

Test(coalescing, so_many_packets_and_one_interrupt)
{
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_one(&n, RX, 4, FOREVER_US), 0);
	for (unsigned int round = 1; round <= 3; round++) {
		receive(&n, 0, 3);
		cr_expect_eq(n.rig.interrupts[RX], round - 1);
		receive(&n, 3, 1);
		cr_expect_eq(n.rig.interrupts[RX], round);
		take_all(&n, RX);
	}
	nic_close(&n);
}

Test(coalescing, so_long_after_the_first_packet)
{
	enum { WAIT_US = 20000 };
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_all(&n, RX_SET, MANY, WAIT_US), 0);
	for (unsigned int round = 1; round <= 3; round++) {
		uint64_t start_ns = clock_ns();

		receive(&n, 0, 2);
		while (n.rig.interrupts[RX] < round)
			cr_assert_eq(loop_iterate(n.rig.loop, true), 0);
		take_all(&n, RX);
		cr_expect_geq(clock_ns() - start_ns, WAIT_US * 1000);
	}
	nic_close(&n);
}

Test(coalescing, one_of_the_two_is_none)
{
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_all(&n, RX_SET, MANY, 0), 0);
	receive(&n, 0, 1);
	cr_expect_eq(n.rig.interrupts[RX], 1);
	take_all(&n, RX);
	cr_assert_eq(set_all(&n, RX_SET, 0, FOREVER_US), 0);
	receive(&n, 0, 1);
	cr_expect_eq(n.rig.interrupts[RX], 2);
	nic_close(&n);
}

Test(coalescing, what_is_sent_has_its_own)
{
	static const uint8_t frame[FRAME];
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_all(&n, TX_SET, 2, FOREVER_US), 0);
	nic_send(&n, TX, frame, sizeof(frame), 0);
	wait_used(&n, TX, 1);
	cr_expect_eq(n.rig.interrupts[TX], 0);
	receive(&n, 0, 1);
	cr_expect_eq(n.rig.interrupts[RX], 1);
	nic_send(&n, TX, frame, sizeof(frame), 0);
	wait_used(&n, TX, 2);
	cr_expect_eq(n.rig.interrupts[TX], 1);
	nic_close(&n);
}

Test(coalescing, a_new_value_holds_for_what_waits)
{
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_one(&n, RX, MANY, FOREVER_US), 0);
	receive(&n, 0, 1);
	cr_expect_eq(n.rig.interrupts[RX], 0);
	cr_assert_eq(set_one(&n, RX, 0, 0), 0);
	rig_settle(&n.rig);
	cr_expect_eq(n.rig.interrupts[RX], 1);
	nic_close(&n);
}

Test(coalescing, a_pause_announces_what_waits)
{
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_one(&n, RX, MANY, FOREVER_US), 0);
	receive(&n, 0, 1);
	cr_expect_eq(n.rig.interrupts[RX], 0);
	transport_quiesce(&n.rig.t, 0);
	rig_settle(&n.rig);
	transport_quiesce(&n.rig.t, 1);
	cr_expect_eq(n.rig.interrupts[RX], 1);
	transport_resume(&n.rig.t);
	rig_settle(&n.rig);
	expect(&n, RX, MANY, FOREVER_US);
	nic_close(&n);
}

Test(coalescing, a_reset_waits_for_no_timer_and_forgets)
{
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_all(&n, RX_SET, MANY, FOREVER_US), 0);
	receive(&n, 0, 1);
	uint64_t start_ns = clock_ns();

	rig_reset(&n.rig);
	cr_expect_lt(clock_ns() - start_ns, FOREVER_US * 1000ull / 2);
	nic_start(&n, 1, USUAL);
	expect(&n, RX, 0, 0);
	expect(&n, TX, 0, 0);
	nic_close(&n);
}

static void reset_queue(struct nic *n, unsigned int index)
{
	pthread_mutex_lock(&n->rig.lock);
	transport_queue_reset(&n->rig.t, index);
	pthread_mutex_unlock(&n->rig.lock);
	rig_settle(&n->rig);
	cr_assert(virtio_queue_still(&n->rig.vdev->queues[index]));
}

Test(coalescing, a_queue_that_is_reset_has_what_was_said_of_all)
{
	struct nic n;

	open_nic(&n, USUAL | BIT(VIRTIO_F_RING_RESET));
	cr_assert_eq(set_all(&n, RX_SET, 3, 30), 0);
	cr_assert_eq(set_one(&n, RX, 7, 70), 0);
	expect(&n, RX, 7, 70);
	expect(&n, TX, 0, 0);
	reset_queue(&n, RX);
	cr_expect_eq(set_one(&n, RX, 1, 1), 1, "of a queue that is not in use");
	rig_queue(&n.rig, RX, NET_QUEUE);
	rig_settle(&n.rig);
	expect(&n, RX, 3, 30);
	nic_close(&n);
}

struct command_case {
	const char *what;
	uint8_t bytes[20];
	uint32_t len;
};

Test(coalescing, commands_are_checked)
{
	static const struct command_case cases[] = {
		{"all, short", {COAL, RX_SET}, 9},
		{"all, long", {COAL, TX_SET}, 11},
		{"all, more than a second", {COAL, RX_SET, 1, 0, 0, 0, 0x41, 0x42, 0x0f}, 10},
		{"one, short", {COAL, VQ_SET}, 13},
		{"one, long", {COAL, VQ_SET}, 15},
		{"one, the control queue", {COAL, VQ_SET, CTRL}, 14},
		{"one, far away", {COAL, VQ_SET, 0xff, 0xff}, 14},
		{"one, for ever", {COAL, VQ_SET, 0, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255}, 14},
		{"get, of no queue", {COAL, VQ_GET}, 2},
		{"get, no room for it", {COAL, VQ_GET, 0, 0, 0, 0}, 6},
		{"no such command", {COAL, 4}, 10},
	};
	struct nic n;
	uint32_t packets, us;

	open_nic(&n, USUAL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		cr_expect_eq(nic_command(&n, CTRL, cases[i].bytes, cases[i].len), 1, "%s",
			     cases[i].what);
	cr_expect_eq(get(&n, CTRL, &packets, &us), 1);
	cr_expect(packets == 0 && us == 0);
	expect(&n, RX, 0, 0);
	expect(&n, TX, 0, 0);
	nic_close(&n);
}

Test(coalescing, each_command_needs_its_feature)
{
	static const uint8_t unknown[] = {COAL, VQ_GET, 0, 0, 0, 0};
	struct nic n;

	open_nic(&n, USUAL & ~N_COAL);
	cr_expect_eq(set_all(&n, RX_SET, 1, 1), 1);
	cr_expect_eq(set_one(&n, RX, 1, 1), 0);
	rig_reset(&n.rig);
	nic_start(&n, 1, USUAL & ~N_VQ_COAL);
	cr_expect_eq(set_one(&n, RX, 1, 1), 1);
	cr_expect_eq(nic_command(&n, CTRL, unknown, sizeof(unknown)), 1);
	cr_expect_eq(set_all(&n, RX_SET, 1, 1), 0);
	rig_reset(&n.rig);
	cr_expect_not(rig_negotiate(&n.rig, N_MAC | N_COAL));
	rig_reset(&n.rig);
	cr_expect_not(rig_negotiate(&n.rig, N_MAC | N_VQ_COAL));
	nic_close(&n);
}

/* As if it had been found to stream. */
static void make_it_stream(struct nic *n, unsigned int index, uint64_t delay_us)
{
	struct virtio_moderation *m = &n->rig.vdev->queues[index].moderation;

	m->max_ns = delay_us * 1000;
	m->delay_ns = delay_us * 1000;
	m->state = VIRTIO_MODERATION_DELAYED;
	m->score = 8;
	m->at_once = (struct virtio_moderation_sum){.bytes = 1, .visits = 1};
	m->now = (struct virtio_moderation_sum){0};
}

static bool in_rest(const struct nic *n, unsigned int index)
{
	return n->rig.vdev->queues[index].rest.in_flight;
}

/* Without a kick. */
static void add_frame(struct nic *n)
{
	struct rig_seg seg = {rig_alloc(&n->rig, HEADER + FRAME, 1), HEADER + FRAME, false};

	memset(rig_at(&n->rig, seg.gpa), 0, seg.len);
	cr_assert_geq(rig_add(&n->rig.queues[TX], &seg, 1, false), 0);
}

Test(coalescing, a_queue_that_streams_is_visited_without_a_kick)
{
	struct nic n;

	open_nic(&n, USUAL);
	make_it_stream(&n, TX, 1000);
	add_frame(&n);
	rig_kick(&n.rig.queues[TX]);
	for (unsigned int i = 0; i < 5; i++) {
		rig_wait(&n.rig.queues[TX]);
		cr_assert(in_rest(&n, TX));
		add_frame(&n);
	}
	rig_wait(&n.rig.queues[TX]);
	cr_expect_geq(atomic_load(&n.rig.vdev->queues[TX].moderation.delayed), 5);
	make_it_stream(&n, RX, 1000);
	receive(&n, 0, 5);
	cr_assert(in_rest(&n, RX));
	nic_close(&n);
}

Test(coalescing, a_pause_and_a_reset_wait_for_no_delay)
{
	struct nic n;

	open_nic(&n, USUAL);
	make_it_stream(&n, TX, 100 * FOREVER_US);
	make_it_stream(&n, RX, 100 * FOREVER_US);
	add_frame(&n);
	rig_kick(&n.rig.queues[TX]);
	rig_wait(&n.rig.queues[TX]);
	receive(&n, 0, 1);
	cr_assert(in_rest(&n, TX) && in_rest(&n, RX));
	uint64_t start_ns = clock_ns();

	transport_quiesce(&n.rig.t, 0);
	rig_settle(&n.rig);
	transport_quiesce(&n.rig.t, 1);
	cr_assert(!in_rest(&n, TX) && !in_rest(&n, RX));
	transport_resume(&n.rig.t);
	receive(&n, 1, 1);
	nic_close(&n);
	cr_expect_lt(clock_ns() - start_ns, 50ull * FOREVER_US * 1000);
}

Test(coalescing, the_drivers_word_goes_before_moderation)
{
	struct nic n;

	open_nic(&n, USUAL);
	cr_assert_eq(set_all(&n, TX_SET, 1, FOREVER_US), 0);
	make_it_stream(&n, TX, 100 * FOREVER_US);
	for (unsigned int i = 0; i < 3; i++) {
		add_frame(&n);
		rig_kick(&n.rig.queues[TX]);
		wait_used(&n, TX, 1);
		cr_expect_eq(n.rig.interrupts[TX], i + 1);
		take_all(&n, TX);
	}
	cr_expect_not(in_rest(&n, TX));
	nic_close(&n);
}
