// SPDX-License-Identifier: Apache-2.0
// The life of a virtio device's queues: started, stopped, reset, handed over, and under load.
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/fd.h"
#include "probe.h"
#include "state_rig.h"

Test(queues, requests_are_answered_with_and_without_event_index)
{
	struct rig r = rig_create(NULL);

	for (unsigned int event_idx = 0; event_idx < 2; event_idx++) {
		drv_start(r.d, (uint64_t)event_idx << F_EVENT_IDX, SIZE);
		for (unsigned int i = 0; i < 100; i++) {
			request(&r, i % QUEUES);
			cr_assert_eq(drv_interrupts(r.d, i % QUEUES), 1);
		}
	}
	cr_assert_eq(guest_log_lines(r.g), 0, "%s", guest_last_line(r.g));
	rig_destroy(&r);
}

Test(queues, kicks_before_driver_ok_wait)
{
	struct rig r = rig_create(NULL);

	cr_assert(drv_negotiate(r.d, 0));
	drv_setup_queue(r.d, 0, SIZE);
	offer(&r, 0);
	drv_publish(r.d, 0);
	drv_notify(r.d, 0);
	turns(&r);
	cr_assert_eq(r.p->q[0].starts, 0);
	cr_assert_eq(drv_used_idx(r.d, 0), 0);
	drv_set_status(r.d, 4);
	cr_assert(drv_wait(r.d, 0, NULL, NULL));
	rig_destroy(&r);
}

Test(queues, a_queue_enabled_after_driver_ok_starts_then)
{
	struct rig r = rig_create(NULL);

	cr_assert(drv_negotiate(r.d, 0));
	drv_set_status(r.d, 4);
	turns(&r);
	cr_assert_eq(r.p->q[1].starts, 0);
	drv_setup_queue(r.d, 1, 4);
	request(&r, 1);
	cr_assert_eq(r.p->q[0].starts, 0);
	rig_destroy(&r);
}

/* Reset */

static bool all_held(void *opaque)
{
	struct rig *r = opaque;

	for (unsigned int i = 0; i < QUEUES; i++)
		if (r->p->q[i].held != 2)
			return false;
	return true;
}

static void hold_two_in_each_queue(struct rig *r)
{
	r->p->hold = true;
	for (unsigned int i = 0; i < QUEUES; i++) {
		offer(r, i);
		offer(r, i);
		drv_kick(r->d, i);
	}
	cr_assert(guest_until(r->g, all_held, r));
}

Test(queues, reset_with_requests_in_flight_is_over_when_the_queues_have_stopped)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	r.p->resets = 0;
	hold_two_in_each_queue(&r);
	r.p->hold_stop = true;
	drv_common_write(r.d, STATUS, 0, 1);
	turns(&r);
	cr_assert_neq(drv_status(r.d), 0, "the queues are still stopping");
	cr_assert_eq(r.p->resets, 0);
	/* Nothing can be changed meanwhile. */
	drv_common_write(r.d, STATUS, 1, 1);
	drv_common_write(r.d, QUEUE_SELECT, 0, 2);
	drv_common_write(r.d, QUEUE_SIZE, 2, 2);
	probe_release(r.p);
	drv_reset(r.d);
	cr_assert_eq(r.p->resets, 1);
	cr_assert(r.p->q[0].abandoned);
	for (unsigned int i = 0; i < QUEUES; i++) {
		cr_assert_eq(r.p->q[i].stops, 1);
		cr_assert_eq(drv_used_idx(r.d, i), 0, "abandoned, not answered");
	}
	drv_common_write(r.d, QUEUE_SELECT, 0, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), SIZE);
	cr_assert_eq(drv_common_read(r.d, QUEUE_ENABLE, 2), 0);
	cr_assert_eq(drv_common_read(r.d, QUEUE_VECTOR, 2), 0xffff);
	drv_start(r.d, 0, SIZE);
	request(&r, 2);
	rig_destroy(&r);
}

Test(queues, one_queue_is_reset_and_set_up_again_while_others_go_on)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 1ull << F_RING_RESET, SIZE);
	hold_two_in_each_queue(&r);
	r.p->hold_stop = true;
	drv_common_write(r.d, QUEUE_SELECT, 1, 2);
	drv_common_write(r.d, QUEUE_RESET, 1, 2);
	turns(&r);
	cr_assert_eq(drv_common_read(r.d, QUEUE_RESET, 2), 1, "still going on");
	cr_assert_eq(drv_common_read(r.d, QUEUE_ENABLE, 2), 1);
	probe_release(r.p);
	turns(&r);
	cr_assert_eq(drv_common_read(r.d, QUEUE_RESET, 2), 0);
	cr_assert_eq(drv_common_read(r.d, QUEUE_ENABLE, 2), 0);
	cr_assert_eq(r.p->q[0].stops, 0);
	drv_setup_queue(r.d, 1, 4);
	cr_assert_eq(drv_common_read(r.d, QUEUE_RESET, 2), 0);
	request(&r, 1);
	cr_assert_eq(drv_status(r.d), 15);
	rig_destroy(&r);
}

Test(queues, queue_reset_without_negotiation_does_nothing)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	drv_common_write(r.d, QUEUE_SELECT, 1, 2);
	drv_common_write(r.d, QUEUE_RESET, 1, 2);
	turns(&r);
	cr_assert_eq(drv_common_read(r.d, QUEUE_ENABLE, 2), 1);
	request(&r, 1);
	rig_destroy(&r);
}

Test(queues, a_reset_of_the_bus_above_resets_the_device)
{
	struct guest_config config = {.behind_port = true};
	struct rig r = rig_create(&config);

	drv_start(r.d, 0, SIZE);
	hold_two_in_each_queue(&r);
	r.p->hold_stop = true;
	drv_bus_reset(r.d);
	drv_cfg_write(r.d, 4, 6, 2);
	turns(&r);
	cr_assert_neq(drv_status(r.d), 0);
	probe_release(r.p);
	turns(&r);
	cr_assert_eq(drv_status(r.d), 0);
	cr_assert(r.p->q[0].abandoned);
	drv_start(r.d, 0, SIZE);
	request(&r, 0);
	rig_destroy(&r);
}

/* The machine's operations */

Test(queues, quiesce_answers_what_is_in_flight_and_resume_goes_on)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	for (unsigned int i = 0; i < 5; i++)
		request(&r, 0);
	hold_two_in_each_queue(&r);
	r.d->dev->ops->quiesce(r.d->dev, 0);
	r.d->dev->ops->quiesce(r.d->dev, 1);
	cr_assert_eq(drv_used_idx(r.d, 0), 7);
	cr_assert_eq(drv_used_idx(r.d, 1), 2);
	cr_assert_not(r.p->q[0].abandoned);
	/* What comes now waits. */
	r.p->hold = false;
	offer(&r, 0);
	drv_kick(r.d, 0);
	turns(&r);
	cr_assert_eq(drv_used_idx(r.d, 0), 7);
	r.d->dev->ops->resume(r.d->dev);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert(drv_wait(r.d, 0, NULL, NULL));
	cr_assert_eq(r.p->q[0].starts, 2);
	request(&r, 1 + 1);
	rig_destroy(&r);
}

Test(queues, a_reset_of_the_machine_returns_to_power_on)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	hold_two_in_each_queue(&r);
	r.d->dev->ops->reset(r.d->dev);
	cr_assert_eq(r.p->q[0].stops, 1);
	cr_assert_eq(drv_cfg_read(r.d, 4, 2) & 7, 0, "nothing is decoded");
	r.p->hold = false;
	drv_cfg_write(r.d, 4, 6, 2);
	cr_assert_eq(drv_status(r.d), 0);
	drv_start(r.d, 0, SIZE);
	request(&r, 0);
	rig_destroy(&r);
}

Test(queues, without_bus_mastering_no_queue_runs)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	request(&r, 0);
	drv_cfg_write(r.d, 4, 2, 2);
	turns(&r);
	offer(&r, 0);
	drv_kick(r.d, 0);
	turns(&r);
	cr_assert_eq(drv_used_idx(r.d, 0), 1);
	cr_assert_eq(drv_status(r.d), 15);
	drv_cfg_write(r.d, 4, 6, 2);
	cr_assert(drv_wait(r.d, 0, NULL, NULL));
	rig_destroy(&r);
}

Test(queues, a_queue_can_be_handed_over_with_its_fds)
{
	struct rig r = rig_create(NULL);

	r.p->hand_over = true;
	drv_start(r.d, 1ull << F_EVENT_IDX, SIZE);
	turns(&r);
	cr_assert_eq(r.p->q[QUEUES - 1].starts, 1);
	cr_assert_eq(r.p->fds.layout.desc_iova, r.d->queues[QUEUES - 1].desc);
	cr_assert(r.p->fds.layout.event_idx);
	cr_assert_eq(r.p->fds.next_avail, 0);
	drv_notify(r.d, QUEUES - 1);
	turns(&r);
	cr_assert_eq(r.p->q[QUEUES - 1].kicks, 0);
	cr_assert_eq(fd_event_drain(r.p->fds.kick_fd), 1);
	fd_event_signal(r.p->fds.call_fd);
	cr_assert_eq(drv_interrupts(r.d, QUEUES - 1), 1);
	/* take_back said 7. */
	r.d->dev->ops->quiesce(r.d->dev, 1);
	r.d->dev->ops->resume(r.d->dev);
	turns(&r);
	cr_assert_eq(r.p->fds.next_avail, 7);
	rig_destroy(&r);
}

/* As vhost does: how far the kernel came is read back by the pause. */
Test(queues, a_queue_that_was_handed_over_is_saved_where_the_other_side_stood)
{
	struct rig from = rig_create(NULL), to = rig_create(NULL);

	from.p->hand_over = to.p->hand_over = true;
	drv_start(from.d, 0, SIZE);
	turns(&from);
	state_move(from.d->dev, to.d->dev);
	turns(&to);
	cr_assert_eq(to.p->q[QUEUES - 1].starts, 1);
	cr_assert_eq(to.p->fds.next_avail, 7, "take_back said so");
	cr_assert_eq(to.p->fds.layout.desc_iova, from.d->queues[QUEUES - 1].desc);
	rig_destroy(&to);
	rig_destroy(&from);
}

Test(queues, a_queue_handed_over_without_msix_interrupts_by_the_line)
{
	struct rig r = rig_create(NULL);

	r.p->hand_over = true;
	cr_assert(drv_negotiate(r.d, 0));
	for (unsigned int i = 0; i < QUEUES; i++)
		drv_setup_queue(r.d, i, SIZE);
	drv_set_status(r.d, 4);
	turns(&r);
	fd_event_signal(r.p->fds.call_fd);
	turns(&r);
	cr_assert(drv_intx(r.d));
	cr_assert_eq(drv_bar_read(r.d, r.d->isr, 1), 1);
	drv_reset(r.d);
	rig_destroy(&r);
}

Test(queues, a_queue_that_was_handed_over_follows_its_vector)
{
	struct rig r = rig_create(NULL);
	unsigned int last = QUEUES - 1;

	r.p->hand_over = true;
	drv_start(r.d, 0, SIZE);
	turns(&r);
	int before = r.p->fds.call_fd;

	/* The configuration's vector is free for it. */
	drv_common_write(r.d, QUEUE_SELECT, last, 2);
	drv_common_write(r.d, QUEUE_VECTOR, QUEUES, 2);
	turns(&r);
	cr_assert_neq(r.p->fds.call_fd, before);
	cr_assert_eq(drv_interrupts(r.d, QUEUES), 1, "in case one was lost");
	fd_event_signal(r.p->fds.call_fd);
	cr_assert_eq(drv_interrupts(r.d, QUEUES), 1);
	cr_assert_eq(drv_interrupts(r.d, last), 0);
	/* None: it still has an fd, which raises nothing. */
	drv_common_write(r.d, QUEUE_VECTOR, 0xffff, 2);
	turns(&r);
	fd_event_signal(r.p->fds.call_fd);
	turns(&r);
	cr_assert_eq(drv_interrupts(r.d, QUEUES), 0);
	drv_common_write(r.d, QUEUE_VECTOR, last, 2);
	turns(&r);
	cr_assert_eq(r.p->fds.call_fd, before);
	cr_assert_eq(drv_interrupts(r.d, last), 1);
	/* Another queue's vector is nothing to it. */
	drv_common_write(r.d, QUEUE_SELECT, 0, 2);
	drv_common_write(r.d, QUEUE_VECTOR, QUEUES, 2);
	turns(&r);
	drv_reset(r.d);
	rig_destroy(&r);
}

/* Threads: a driver that resets at any moment, loops of their own, and the machine's quiesce. */

static bool queues_idle(void *opaque)
{
	return drv_status(opaque) == 0;
}

Test(queues, resets_under_load_from_another_thread)
{
	struct guest_config config = {.loops = 2};
	struct rig r = rig_create(&config);
	unsigned int seed = 7;

	guest_run_loops(r.g);
	for (unsigned int round = 0; round < 60; round++) {
		uint64_t features = (round & 1 ? 1ull << F_EVENT_IDX : 0) | 1ull << F_RING_RESET;

		/* Rings come from a fresh place each time; there is room for this many. */
		drv_start(r.d, features, SIZE);
		for (unsigned int i = 0; i < 40; i++) {
			unsigned int queue = (unsigned int)rand_r(&seed) % QUEUES;

			while (r.d->queues[queue].outstanding >= SIZE / 2)
				cr_assert(drv_wait(r.d, queue, NULL, NULL));
			offer(&r, queue);
			drv_kick(r.d, queue);
		}
		if (round % 5 == 1) {
			r.d->dev->ops->quiesce(r.d->dev, 0);
			r.d->dev->ops->quiesce(r.d->dev, 1);
			r.d->dev->ops->resume(r.d->dev);
		}
		if (round % 5 == 2) {
			drv_cfg_write(r.d, 4, 2, 2);
			drv_cfg_write(r.d, 4, 6, 2);
		}
		if (round % 3 == 0) {
			drv_common_write(r.d, QUEUE_SELECT, 1, 2);
			drv_common_write(r.d, QUEUE_RESET, 1, 2);
		} else if (round % 3 == 1) {
			for (unsigned int q = 0; q < QUEUES; q++)
				while (r.d->queues[q].outstanding)
					cr_assert(drv_wait(r.d, q, NULL, NULL));
		}
		drv_common_write(r.d, STATUS, 0, 1);
		cr_assert(guest_until(r.g, queues_idle, r.d));
	}
	cr_assert_eq(guest_log_lines(r.g), 0, "%s", guest_last_line(r.g));
	r.d->dev->ops->quiesce(r.d->dev, 1);
	guest_join_loops(r.g);
	rig_destroy(&r);
}

struct meanwhile {
	struct rig *r;
	unsigned int seed, added, used, kicks, looks;
};

static void add_some(struct meanwhile *m)
{
	while (m->added - m->used < SIZE / 2 && rand_r(&m->seed) % 4) {
		offer(m->r, 0);
		m->added++;
		m->kicks += drv_kick(m->r->d, 0);
	}
}

static void look(struct meanwhile *m)
{
	m->looks++;
	while (rand_r(&m->seed) % 8 && drv_used(m->r->d, 0, NULL, NULL))
		m->used++;
}

static void add_and_look(void *opaque)
{
	struct meanwhile *m = opaque;

	/* It may also find used elements without having been told. */
	if (rand_r(&m->seed) % 4 == 0)
		look(m);
	add_some(m);
}

/* The same driver in one thread, so that every interleaving of interest comes up, every time. */
Test(queues, what_is_added_at_the_end_of_a_batch_is_not_forgotten)
{
	struct rig r = rig_create(NULL);

	for (unsigned int event_idx = 0; event_idx < 2; event_idx++) {
		struct meanwhile m = {.r = &r, .seed = 5};
		unsigned int idle = 0;

		r.p->meanwhile = add_and_look;
		r.p->opaque = &m;
		drv_start(r.d, (uint64_t)event_idx << F_EVENT_IDX, SIZE);
		while (m.used < 20000) {
			unsigned int before = m.used;

			add_some(&m);
			guest_turn(r.g);
			/* Woken, it looks until it has seen everything. */
			if (drv_interrupts(r.d, 0)) {
				while (drv_used_idx(r.d, 0) != r.d->queues[0].used_seen)
					look(&m);
			}
			idle = m.used == before && m.added != m.used ? idle + 1 : 0;
			cr_assert_lt(idle, 10, "asleep after %u of %u", m.used, m.added);
		}
		cr_assert_lt(m.kicks, m.added * 3 / 4, "%u kicks for %u", m.kicks, m.added);
		cr_assert_lt(m.looks, m.added * 2);
	}
	r.p->meanwhile = NULL;
	rig_destroy(&r);
}

/* A driver that looks only when it is interrupted and kicks only when it is asked to, while the
 * device is at work: one notification that is suppressed wrongly, and it sleeps for good. */
Test(queues, no_wake_up_is_lost_in_either_direction)
{
	enum { REQUESTS = 4000 };
	struct rig r = rig_create(NULL);

	r.p->work = true;
	guest_run_loops(r.g);
	for (unsigned int event_idx = 0; event_idx < 2; event_idx++) {
		unsigned int seed = 3, added = 0, used = 0, kicks = 0;

		drv_start(r.d, (uint64_t)event_idx << F_EVENT_IDX, SIZE);
		while (used < REQUESTS) {
			/* One at a time, at every distance from the end of the device's batch. */
			while (added - used < SIZE / 2) {
				offer(&r, 0);
				added++;
				kicks += drv_kick(r.d, 0);
				spin((unsigned int)rand_r(&seed) % 65536);
			}
			while (!drv_used(r.d, 0, NULL, NULL))
				cr_assert(drv_sleep(r.d, 0), "asleep after %u requests", used);
			used++;
			while (rand_r(&seed) % 4 && drv_used(r.d, 0, NULL, NULL))
				used++;
		}
		cr_assert_gt(kicks, 0);
	}
	r.d->dev->ops->quiesce(r.d->dev, 1);
	guest_join_loops(r.g);
	rig_destroy(&r);
}
