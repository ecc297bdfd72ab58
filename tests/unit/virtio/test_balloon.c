// SPDX-License-Identifier: Apache-2.0
// virtio-balloon: every request, with and without hardware that has all of memory, and drivers that
// lie.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/virtio_balloon.h>

#include "base/clock.h"
#include "base/le.h"
#include "base/num.h"
#include "core/reclaim.h"
#include "driver.h"
#include "virtio/balloon.h"

enum { INFLATE, DEFLATE, STATS, PAGE = 4096 };

#define F(name) (1ull << VIRTIO_BALLOON_F_##name)
#define AREA    (32 * MiB) /* of the guest's memory, which the rig does not use */

static struct guest *g;
static struct drv *d;
static struct gmem *gmem;
static struct virtio_balloon_status status;
static unsigned int reached, not_mapped;
static char last[160];

static void on_event(void *opaque, enum virtio_balloon_event event, const char *text)
{
	(void)opaque;
	*(event == VIRTIO_BALLOON_REACHED ? &reached : &not_mapped) += 1;
	snprintf(last, sizeof(last), "%s", text);
}

/* Hardware that has all of memory, in granules. */
static uint64_t unreachable;
static int refuse;
static bool slow;           /* a map takes as long as an iteration may */
static uint8_t status_then; /* of the device, at the last map */

static int hw_map(void *opaque, const struct gmem_region *region, struct err *err)
{
	(void)opaque;
	(void)region;
	(void)err;
	return 0;
}

static void hw_unmap(void *opaque, const struct gmem_region *region)
{
	(void)opaque;
	(void)region;
	unreachable = 0;
}

static int hw_leave(void *opaque, const struct gmem_region *region, uint64_t offset, uint64_t len)
{
	(void)opaque;
	(void)region;
	cr_assert(!(offset % RECLAIM_MAX_GRANULE) && len == RECLAIM_MAX_GRANULE);
	unreachable += len;
	return 0;
}

static int hw_restore(void *opaque, const struct gmem_region *region, uint64_t offset, uint64_t len)
{
	(void)opaque;
	(void)region;
	(void)offset;
	status_then = drv_status(d);
	for (uint64_t end = clock_ns() + VIRTIO_SHARE_NS; slow && clock_ns() < end;)
		;
	unreachable -= refuse ? 0 : len;
	return refuse;
}

static const struct gmem_listener_ops hw_ops = {
	.name = "hw",
	.map = hw_map,
	.unmap = hw_unmap,
	.leave = hw_leave,
	.restore = hw_restore,
	.areas = true,
};
static struct gmem_listener hw = {.ops = &hw_ops};
static bool has_hw;

static void add_hw(void)
{
	struct err err = ERR_INIT;

	cr_assert_eq(gmem_listen(gmem, &hw, &err), 0);
	has_hw = true;
}

static void start(unsigned int stats_s, uint64_t features)
{
	struct virtio_balloon_setup setup = {
		.name = "balloon",
		.deflate_on_oom = true,
		.reporting = true,
		.stats_s = stats_s,
		.event = on_event,
	};
	struct virtio_device *vdev;
	struct err err = ERR_INIT;

	g = guest_create(NULL);
	gmem = guest_memory(g);
	cr_assert_eq(reclaim_enable(gmem, RECLAIM_MAX_GRANULE, &err), 0);
	setup.loop = guest_loop(g, 0);
	setup.gmem = gmem;
	cr_assert_eq(virtio_balloon_create(&vdev, &setup, guest_log(g), &err), 0);
	d = drv_create(g, vdev);
	drv_start(d, features, 64);
}

static void stop(void)
{
	refuse = 0;
	drv_destroy(d);
	if (has_hw)
		gmem_unlisten(gmem, &hw);
	guest_destroy(g);
}

TestSuite(balloon, .fini = stop, .timeout = 60);

static const struct virtio_balloon_status *look(void)
{
	virtio_balloon_status(d->vdev, &status);
	return &status;
}

/* Ask for n pages from the first on, going up or down. */
static void ask(unsigned int queue, uint64_t gpa, unsigned int n, int step)
{
	uint64_t list = guest_alloc(g, n * 4ull, 4);
	le32 *pfns = guest_ptr(g, list, n * 4);
	struct drv_sg out = {list, n * 4};

	for (unsigned int i = 0; i < n; i++)
		pfns[i] = le32_of((uint32_t)((int64_t)(gpa / PAGE) + step * (int64_t)i));
	drv_add(d, queue, &out, 1, NULL, 0);
	drv_kick(d, queue);
}

static void must(unsigned int queue, uint64_t gpa, unsigned int n, int step)
{
	ask(queue, gpa, n, step);
	cr_assert(drv_wait(d, queue, NULL, NULL));
}

static char *byte(uint64_t gpa)
{
	return guest_ptr(g, gpa, 1);
}

static void turn(unsigned int n)
{
	while (n--)
		guest_turn(g);
}

Test(balloon, pages_are_discarded_and_come_back_as_zeroes)
{
	start(0, F(MUST_TELL_HOST));
	*byte(AREA) = *byte(AREA + PAGE) = *byte(AREA + 2 * PAGE) = 1;
	must(INFLATE, AREA + PAGE, 2, -1);
	cr_assert_eq(*byte(AREA) + *byte(AREA + PAGE), 0);
	cr_assert_eq(*byte(AREA + 2 * PAGE), 1);
	cr_assert_eq(look()->given_bytes, 2 * PAGE);
	cr_assert_eq(status.out_bytes, 2 * PAGE);
	must(DEFLATE, AREA, 2, 1);
	cr_assert_eq(look()->given_bytes, 0);
}

Test(balloon, beside_hardware_that_has_all_memory_leaves_by_granules)
{
	start(0, F(MUST_TELL_HOST));
	add_hw();
	*byte(AREA) = 1;
	must(INFLATE, AREA, 511, 1);
	cr_assert_eq(*byte(AREA), 1);
	cr_assert_eq(unreachable, 0);
	must(INFLATE, AREA + 511 * PAGE, 512, 1);
	cr_assert_eq(*byte(AREA), 0);
	cr_assert_eq(unreachable, RECLAIM_MAX_GRANULE);
	cr_assert_eq(look()->given_bytes, 1023 * PAGE);
	cr_assert_eq(status.out_bytes, RECLAIM_MAX_GRANULE);
	must(DEFLATE, AREA + 7 * PAGE, 1, 1);
	cr_assert_eq(unreachable, 0);
}

static bool is_reported(void *opaque)
{
	(void)opaque;
	return not_mapped;
}

Test(balloon, a_deflate_is_answered_when_its_memory_is_mapped)
{
	start(0, F(MUST_TELL_HOST));
	add_hw();
	must(INFLATE, AREA, 512, 1);
	refuse = -ENOMEM;
	ask(DEFLATE, AREA, 1, 1);
	cr_assert(guest_until(g, is_reported, NULL));
	cr_assert_not_null(strstr(last, "cannot be mapped"), "%s", last);
	cr_assert(look()->waits);
	turn(10);
	cr_assert_not(drv_used(d, DEFLATE, NULL, NULL));
	must(INFLATE, AREA + 2 * MiB, 1, 1); /* goes on meanwhile */
	refuse = 0;
	cr_assert(drv_wait(d, DEFLATE, NULL, NULL));
	cr_assert_eq(unreachable, 0);
	cr_assert_not(look()->waits);
	cr_assert_eq(not_mapped, 1, "reported once");
}

Test(balloon, a_driver_that_uses_pages_before_it_says_so_gets_no_bookkeeping)
{
	start(0, 0);
	*byte(AREA) = 1;
	must(INFLATE, AREA, 512, 1);
	cr_assert_eq(*byte(AREA), 0);
	cr_assert_eq(look()->given_bytes, 0);
	add_hw();
	*byte(AREA) = 1;
	must(INFLATE, AREA, 512, 1);
	cr_assert_eq(*byte(AREA), 1);
	cr_assert_eq(unreachable, 0);
	must(DEFLATE, AREA, 512, 1);
}

Test(balloon, a_reset_gives_everything_back_before_it_is_over)
{
	start(0, F(MUST_TELL_HOST));
	add_hw();
	for (unsigned int i = 0; i < 4; i++)
		must(INFLATE, AREA + i * RECLAIM_MAX_GRANULE, 512, 1);
	cr_assert_eq(unreachable, 4 * RECLAIM_MAX_GRANULE);
	slow = true;
	drv_reset(d);
	cr_assert_eq(unreachable, 0);
	cr_assert_neq(status_then, 0, "the reset was not over");
	cr_assert_eq(look()->given_bytes, 0);
	drv_start(d, F(MUST_TELL_HOST), 64);
	must(INFLATE, AREA, 512, 1);
	cr_assert_eq(unreachable, RECLAIM_MAX_GRANULE);
}

Test(balloon, a_reset_of_the_machine_does_so_too_and_with_queues_that_are_off)
{
	start(0, F(MUST_TELL_HOST));
	add_hw();
	must(INFLATE, AREA, 512, 1);
	d->dev->ops->reset(d->dev);
	cr_assert_eq(unreachable, 0);
	drv_cfg_write(d, 4, 7, 2);
	drv_start(d, F(MUST_TELL_HOST), 64);
	must(INFLATE, AREA, 512, 1);
	drv_cfg_write(d, 4, 3, 2); /* no bus mastering: the queues stop */
	turn(10);
	d->dev->ops->reset(d->dev);
	cr_assert_eq(unreachable, 0);
	cr_assert_eq(look()->given_bytes, 0);
}

Test(balloon, what_a_reset_could_not_map_comes_before_the_next_driver)
{
	start(0, F(MUST_TELL_HOST));
	add_hw();
	must(INFLATE, AREA, 512, 1);
	refuse = -ENOMEM;
	drv_reset(d);
	cr_assert_eq(not_mapped, 1);
	cr_assert_eq(unreachable, RECLAIM_MAX_GRANULE);
	drv_start(d, F(MUST_TELL_HOST), 64);
	ask(INFLATE, AREA + 2 * MiB, 1, 1);
	turn(10);
	cr_assert_not(drv_used(d, INFLATE, NULL, NULL));
	refuse = 0;
	cr_assert(drv_wait(d, INFLATE, NULL, NULL));
	cr_assert_eq(unreachable, 0);
	cr_assert_eq(look()->given_bytes, PAGE);
}

Test(balloon, a_pause_keeps_what_is_given_and_what_is_asked)
{
	start(0, F(MUST_TELL_HOST));
	add_hw();
	must(INFLATE, AREA, 512, 1);
	refuse = -ENOMEM;
	ask(DEFLATE, AREA, 1, 1);
	cr_assert(guest_until(g, is_reported, NULL));
	d->dev->ops->quiesce(d->dev, 0);
	d->dev->ops->quiesce(d->dev, 1);
	cr_assert_eq(look()->given_bytes, RECLAIM_MAX_GRANULE);
	refuse = 0;
	d->dev->ops->resume(d->dev);
	cr_assert(drv_wait(d, DEFLATE, NULL, NULL));
	cr_assert_eq(unreachable, 0);
}

Test(balloon, reported_memory_is_discarded_unless_hardware_has_all_of_it)
{
	struct drv_sg in[2] = {{AREA, 4 * MiB}, {AREA + 8 * MiB + 100, 3 * PAGE}};

	/* The driver numbers what it negotiated: 2 is for reports. */
	start(0, F(MUST_TELL_HOST) | F(REPORTING));
	*byte(AREA) = *byte(AREA + 4 * MiB - 1) = *byte(AREA + 8 * MiB) = 1;
	*byte(AREA + 8 * MiB + PAGE) = 1;
	drv_add(d, 2, NULL, 0, in, 2);
	drv_kick(d, 2);
	cr_assert(drv_wait(d, 2, NULL, NULL));
	cr_assert_eq(*byte(AREA) + *byte(AREA + 4 * MiB - 1) + *byte(AREA + 8 * MiB + PAGE), 0);
	cr_assert_eq(*byte(AREA + 8 * MiB), 1, "a page of which only a part was reported");
	cr_assert_eq(look()->reported_bytes, 4 * MiB + 2 * PAGE);
	cr_assert_eq(status.given_bytes, 0);
	add_hw();
	*byte(AREA) = 1;
	drv_add(d, 4, NULL, 0, in, 1);
	drv_kick(d, 4);
	cr_assert(drv_wait(d, 4, NULL, NULL));
	cr_assert_eq(*byte(AREA), 1);
	cr_assert_eq(look()->kept_bytes, 4 * MiB);
	cr_assert_eq(unreachable, 0);
}

Test(balloon, the_target_is_in_the_config_and_reaching_it_is_reported_once)
{
	start(0, F(MUST_TELL_HOST));
	virtio_balloon_set(d->vdev, 5 * PAGE);
	cr_assert_eq(drv_interrupts(d, d->n_queues), 1);
	cr_assert_eq(drv_bar_read(d, d->config, 4), 5);
	drv_bar_write(d, d->config, 77, 4); /* is the host's */
	cr_assert_eq(drv_bar_read(d, d->config, 4), 5);
	for (uint32_t actual = 1; actual <= 5; actual++)
		drv_bar_write(d, d->config + 4, actual, 4);
	drv_bar_write(d, d->config + 4, 4, 4);
	drv_bar_write(d, d->config + 4, 5, 4);
	cr_assert_eq(reached, 1);
	cr_assert_str_eq(last, "20480");
	cr_assert_eq(look()->target_bytes, 5 * PAGE);
	cr_assert_eq(status.actual_bytes, 5 * PAGE);
	virtio_balloon_set(d->vdev, 5 * PAGE);
	cr_assert_eq(reached, 2, "it is there");
	drv_reset(d);
	cr_assert_eq(look()->actual_bytes, 0);
	cr_assert_eq(status.target_bytes, 5 * PAGE, "the next driver goes there");
	drv_start(d, F(MUST_TELL_HOST), 64);
	drv_bar_write(d, d->config + 4, 5, 4);
	cr_assert_eq(reached, 3);
}

Test(balloon, statistics_are_asked_for_again_after_their_time)
{
	const struct virtio_balloon_stat stats[] = {
		{VIRTIO_BALLOON_S_MEMFREE, 12345},
		{VIRTIO_BALLOON_S_MEMTOT, 67890},
		{999, 1},
	};
	struct drv_sg out = {0, sizeof(stats) + 3};

	start(1, F(MUST_TELL_HOST) | F(STATS_VQ) | F(REPORTING));
	out.gpa = guest_alloc(g, 64, 8);
	memcpy(guest_ptr(g, out.gpa, sizeof(stats)), stats, sizeof(stats));
	cr_assert_eq(look()->stats_ns, 0);
	drv_add(d, STATS, &out, 1, NULL, 0);
	drv_kick(d, STATS);
	turn(3);
	cr_assert_eq(drv_used_idx(d, STATS), 0, "it is the driver's when new ones are wanted");
	cr_assert_eq(look()->has_stats,
		     1u << VIRTIO_BALLOON_S_MEMFREE | 1u << VIRTIO_BALLOON_S_MEMTOT);
	cr_assert_eq(status.stats[VIRTIO_BALLOON_S_MEMFREE], 12345);
	cr_assert_neq(status.stats_ns, 0);
	cr_assert(drv_wait(d, STATS, NULL, NULL));
	((struct virtio_balloon_stat *)guest_ptr(g, out.gpa, 10))->val = 54321;
	drv_add(d, STATS, &out, 1, NULL, 0);
	drv_kick(d, STATS);
	turn(3);
	cr_assert_eq(look()->stats[VIRTIO_BALLOON_S_MEMFREE], 54321);
	/* A pause in the middle of the wait. */
	d->dev->ops->quiesce(d->dev, 0);
	d->dev->ops->quiesce(d->dev, 1);
	d->dev->ops->resume(d->dev);
	cr_assert(drv_wait(d, STATS, NULL, NULL));
}

Test(balloon, a_driver_that_lies_changes_nothing_but_its_own_pages)
{
	struct drv_sg in = {0, 64};

	start(0, F(MUST_TELL_HOST));
	add_hw();
	must(DEFLATE, AREA, 512, 1); /* never given */
	must(INFLATE, AREA, 512, 1);
	must(INFLATE, AREA, 512, 1); /* twice */
	cr_assert_eq(look()->given_bytes, RECLAIM_MAX_GRANULE);
	must(INFLATE, 64 * MiB, 600, 1); /* no RAM */
	must(INFLATE, UINT32_MAX * (uint64_t)PAGE, 1, 1);
	must(INFLATE, 64 * MiB - PAGE, 2, 1); /* the last page, and beyond */
	must(DEFLATE, 64 * MiB - PAGE, 2, 1);
	must(DEFLATE, UINT32_MAX * (uint64_t)PAGE, 1, 1);
	must(INFLATE, 4 * GiB, 1, 1);
	cr_assert_eq(look()->given_bytes, RECLAIM_MAX_GRANULE + PAGE);
	/* Nothing, or a part of a number; buffers of the wrong direction. */
	drv_add(d, INFLATE, &(struct drv_sg){guest_alloc(g, 8, 8), 3}, 1, NULL, 0);
	in.gpa = guest_alloc(g, 64, 8);
	drv_add(d, INFLATE, NULL, 0, &in, 1);
	drv_add(d, DEFLATE, NULL, 0, &in, 1);
	drv_kick(d, INFLATE);
	drv_kick(d, DEFLATE);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert(drv_wait(d, INFLATE, NULL, NULL));
	cr_assert(drv_wait(d, DEFLATE, NULL, NULL));
	must(DEFLATE, AREA, 512, 1);
	must(DEFLATE, AREA, 512, 1);
	cr_assert_eq(unreachable, 0);
}

Test(balloon, the_pages_of_its_own_rings_cost_the_driver_its_rings_only)
{
	start(0, F(MUST_TELL_HOST));
	ask(INFLATE, 0, 512, 1); /* all that the rig has in use */
	turn(20);
	drv_reset(d);
	guest_free_from(g, MiB);
	drv_start(d, F(MUST_TELL_HOST), 64);
	must(INFLATE, AREA, 1, 1);
	cr_assert_eq(look()->given_bytes, PAGE);
}

/* One descriptor of 16 MiB: 4 Mi page numbers, all the same granule, so that the hardware would be
 * changed by each other one. */
Test(balloon, a_request_without_end_is_served_in_shares)
{
	struct drv_sg out = {AREA, 16 * MiB};
	unsigned int turns = 0;

	start(0, F(MUST_TELL_HOST));
	add_hw();
	memset(guest_ptr(g, AREA, 16 * MiB), 0xff, 16 * MiB);
	drv_add(d, INFLATE, &out, 1, NULL, 0);
	drv_kick(d, INFLATE);
	for (; !drv_used(d, INFLATE, NULL, NULL); turns++) {
		must(DEFLATE, AREA, 1, 1); /* the other queue is served in between */
		cr_assert_lt(turns, 1000000);
	}
	cr_assert_gt(turns, 2);
	/* A reset does not wait for the end of one. */
	drv_add(d, INFLATE, &out, 1, NULL, 0);
	drv_kick(d, INFLATE);
	turn(2);
	drv_reset(d);
}
