// SPDX-License-Identifier: Apache-2.0
// When a queue is visited later, on purpose: streams, those who ask and wait, and pauses, with a
// clock of the test's.
#include <criterion/criterion.h>
#include <string.h>

#include "base/num.h"
#include "virtio/moderation.h"

enum { US = 1000, MAX_US = 200, BYTES = 100, CLIENTS_MAX = 16 };

/* Clients that each ask again a while after they were answered; at_ns: when the next request is
 * there. */
struct load {
	struct virtio_moderation m;
	uint64_t now_ns;
	uint64_t again_ns;
	uint64_t at_ns[CLIENTS_MAX];
	unsigned int clients;
	uint64_t delay_ns; /* asked for by the last visit */
	uint64_t visits, requests, longest_ns;
};

static void begin(struct load *l, unsigned int clients, uint64_t again_ns)
{
	memset(l, 0, sizeof(*l));
	l->m.max_ns = MAX_US * US;
	l->now_ns = 12345 * US;
	l->clients = clients;
	l->again_ns = again_ns;
	for (unsigned int i = 0; i < clients; i++)
		l->at_ns[i] = l->now_ns + i * again_ns / clients;
	virtio_moderation_start(&l->m);
}

static uint64_t first_ns(const struct load *l)
{
	uint64_t first = UINT64_MAX;

	for (unsigned int i = 0; i < l->clients; i++)
		first = MIN(first, l->at_ns[i]);
	return first;
}

static void report(struct load *l, unsigned int n, bool timed)
{
	l->delay_ns = virtio_moderation_visit(&l->m, l->now_ns, (uint64_t)n * BYTES, timed);
	l->longest_ns = MAX(l->longest_ns, l->delay_ns);
	l->visits++;
	l->requests += n;
}

static void visit(struct load *l)
{
	bool timed = l->delay_ns;
	unsigned int n = 0;

	l->now_ns = timed ? l->now_ns + l->delay_ns : MAX(l->now_ns, first_ns(l));
	for (unsigned int i = 0; i < l->clients; i++) {
		if (l->at_ns[i] > l->now_ns)
			continue;
		l->at_ns[i] = l->now_ns + l->again_ns;
		n++;
	}
	report(l, n, timed);
}

/* A request each again_ns, whether it is answered or not. */
static void visit_stream(struct load *l)
{
	bool timed = l->delay_ns;
	unsigned int n = 0;

	l->now_ns = timed ? l->now_ns + l->delay_ns : MAX(l->now_ns, l->at_ns[0]);
	for (; l->at_ns[0] <= l->now_ns; l->at_ns[0] += l->again_ns)
		n++;
	report(l, n, timed);
}

static void run(struct load *l, void (*one)(struct load *l), uint64_t requests)
{
	for (uint64_t end = l->requests + requests; l->requests < end;)
		one(l);
}

Test(moderation, a_stream_is_served_many_at_once_and_never_waits_longer_than_it_may)
{
	static const uint64_t apart_us[] = {1, 10, 50};

	for (size_t i = 0; i < ARRAY_SIZE(apart_us); i++) {
		struct load l;

		begin(&l, 1, apart_us[i] * US);
		run(&l, visit_stream, 100000);
		cr_expect_leq(l.longest_ns, MAX_US * US);
		cr_expect_gt(l.requests, l.visits * MIN(8u, MAX_US / apart_us[i]) * 3 / 4,
			     "%llu us: %llu requests by %llu visits",
			     (unsigned long long)apart_us[i], (unsigned long long)l.requests,
			     (unsigned long long)l.visits);
		cr_expect_gt(atomic_load(&l.m.delayed), l.visits / 2);
	}
}

Test(moderation, the_delay_follows_the_rate)
{
	struct load l;

	begin(&l, 1, 10 * US);
	run(&l, visit_stream, 1000);
	cr_assert_eq(l.m.state, VIRTIO_MODERATION_DELAYED);
	cr_expect_eq(atomic_load(&l.m.delay_ns), 80 * US);
	l.again_ns = 20 * US;
	run(&l, visit_stream, 10000);
	cr_expect_eq(l.m.state, VIRTIO_MODERATION_DELAYED);
	/* Measured from a visit that came later to the 32nd at once. */
	cr_expect_geq(atomic_load(&l.m.delay_ns), 150 * US);
	cr_expect_leq(atomic_load(&l.m.delay_ns), 160 * US);
}

Test(moderation, one_that_asks_and_waits_is_served_at_once)
{
	static const uint64_t again_us[] = {5, 30, 90, 500};

	for (size_t i = 0; i < ARRAY_SIZE(again_us); i++) {
		struct load l;

		begin(&l, 1, again_us[i] * US);
		run(&l, visit, 50000);
		/* A trial costs one request its delay, and each comes after twice as many. */
		cr_expect_leq(atomic_load(&l.m.delayed), 14, "%llu us: %llu were delayed",
			      (unsigned long long)again_us[i],
			      (unsigned long long)atomic_load(&l.m.delayed));
	}
}

static uint64_t time_for(unsigned int clients, uint64_t max_us)
{
	struct load l;
	uint64_t start_ns;

	begin(&l, clients, 120 * US);
	l.m.max_ns = max_us * US;
	start_ns = l.now_ns;
	run(&l, visit, 100000);
	return l.now_ns - start_ns;
}

Test(moderation, several_that_ask_and_wait_do_not_wait_longer)
{
	for (unsigned int clients = 1; clients <= CLIENTS_MAX; clients++) {
		uint64_t at_once_ns = time_for(clients, 0), ns = time_for(clients, MAX_US);

		cr_expect_lt(ns, at_once_ns + at_once_ns / 14, "%u: %llu ns, %llu at once", clients,
			     (unsigned long long)ns, (unsigned long long)at_once_ns);
	}
}

Test(moderation, several_that_a_delay_would_slow_are_served_at_once)
{
	struct load l;

	/* Eight of thirteen visits: each asks for the second time in a delay that is nearly twice
	 * as long as it needs. */
	begin(&l, 13, 120 * US);
	run(&l, visit, 100000);
	cr_expect_lt(atomic_load(&l.m.delayed), l.visits / 100);
}

Test(moderation, what_ends_a_pause_is_not_kept_waiting)
{
	struct load l;

	begin(&l, 1, 10 * US);
	run(&l, visit_stream, 1000);
	cr_assert_gt(l.delay_ns, 0);
	l.at_ns[0] = l.now_ns + 50 * 1000 * US;
	visit_stream(&l);
	cr_expect_eq(l.delay_ns, 0, "nothing was there: it asks to be woken");
	cr_expect_eq(l.m.state, VIRTIO_MODERATION_DELAYED, "and goes on as before then");
	visit_stream(&l);
	cr_expect_gt(l.delay_ns, 0);
}

Test(moderation, a_stream_that_becomes_a_dialogue_is_served_at_once_soon)
{
	struct load l;
	unsigned int visits = 0;

	begin(&l, 1, 10 * US);
	run(&l, visit_stream, 1000);
	cr_assert_eq(l.m.state, VIRTIO_MODERATION_DELAYED);
	l.again_ns = 30 * US;
	for (; l.m.state == VIRTIO_MODERATION_DELAYED; visits++)
		visit(&l);
	cr_expect_leq(visits, 16);
	run(&l, visit, 50000);
	cr_expect_eq(l.delay_ns, 0);
}

Test(moderation, a_queue_that_is_seldom_visited_is_never_tried)
{
	struct load l;

	begin(&l, 1, (MAX_US / 2 + 1) * US);
	run(&l, visit_stream, 10000);
	cr_expect_eq(atomic_load(&l.m.delayed), 0);
	cr_expect_eq(l.longest_ns, 0);
}

Test(moderation, what_one_visit_finds_may_be_enough)
{
	struct virtio_moderation m = {.max_ns = MAX_US * US};

	virtio_moderation_start(&m);
	for (unsigned int i = 1; i < 1000; i++)
		cr_assert_eq(virtio_moderation_visit(&m, i * 10ull * US, 1 << 20, false), 0);
}

Test(moderation, it_can_be_off_and_be_switched_off)
{
	struct load l;

	begin(&l, 1, 10 * US);
	l.m.max_ns = 0;
	run(&l, visit_stream, 1000);
	cr_expect_eq(l.longest_ns, 0);
	l.m.max_ns = MAX_US * US;
	run(&l, visit_stream, 1000);
	cr_assert_gt(l.delay_ns, 0);
	l.m.max_ns = 0;
	visit_stream(&l);
	cr_expect_eq(l.delay_ns, 0);
	cr_expect_eq(atomic_load(&l.m.delay_ns), 0);
	cr_expect_not(virtio_moderation_on(&l.m));
}
