// SPDX-License-Identifier: Apache-2.0
// Rates: a queue rests when its device has moved what it may, and goes on by itself. Of times only
// the least is asserted, which holds on any machine.
#include <criterion/criterion.h>

#include "base/clock.h"
#include "blk_rig.h"

enum { READ_BYTES = 4096 };

/* Make n reads available at once. */
static void post_reads(struct disk *d, struct request *r, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		r[i] = make(d, IN, i, READ_BYTES);
		cr_assert_geq(post(d, &r[i], true), 0);
	}
	rig_kick(&d->rig.queues[0]);
}

static void wait_for(struct disk *d, unsigned int n)
{
	while (n--)
		rig_wait(&d->rig.queues[0]);
}

static bool all_is_still(struct disk *d)
{
	struct rig_used used;

	rig_settle(&d->rig);
	return !rig_take(&d->rig.queues[0], &used);
}

static unsigned int rests(const struct disk *d)
{
	return (unsigned int)atomic_load(&d->rig.vdev->rates[0].rests);
}

Test(rate, so_many_requests_a_second_and_a_tenth_at_once)
{
	enum { REQUESTS = 20, PER_S = 100 };
	struct request r[REQUESTS];
	struct disk d;
	uint64_t start_ns;

	disk_open(&d);
	virtio_device_set_rate(d.rig.vdev, 0, PER_S);
	start_ns = clock_ns();
	post_reads(&d, r, REQUESTS);
	for (unsigned int i = 0; i < REQUESTS; i++) {
		rig_wait(&d.rig.queues[0]);
		cr_assert_eq(status_of(&d, &r[i]), OK);
	}
	/* The last one began when all before it but a tenth of a second's were paid for. */
	cr_assert_geq(clock_ns() - start_ns, (REQUESTS - PER_S / 10 - 1) * NS_PER_S / PER_S);
	cr_assert_geq(rests(&d), 1);
	disk_close(&d);
}

Test(rate, so_many_bytes_a_second)
{
	enum { REQUESTS = 10, PER_S = 20 * READ_BYTES };
	struct request r[REQUESTS];
	struct disk d;
	uint64_t start_ns;

	disk_open(&d);
	virtio_device_set_rate(d.rig.vdev, PER_S, 0);
	start_ns = clock_ns();
	post_reads(&d, r, REQUESTS);
	wait_for(&d, REQUESTS);
	cr_assert_geq(clock_ns() - start_ns, (REQUESTS - 2 - 1) * NS_PER_S / 20);
	disk_close(&d);
}

/* Of four reads the first is let through, whatever its size: a rest of some seconds follows. */
static void make_it_rest(struct disk *d, struct request r[4])
{
	virtio_device_set_rate(d->rig.vdev, VIRTIO_RATE_BYTES_MIN, 0);
	post_reads(d, r, 4);
	wait_for(d, 1);
	cr_assert(all_is_still(d));
}

Test(rate, a_queue_that_rests_takes_nothing_and_goes_on_when_the_rate_ends)
{
	struct request r[4];
	struct disk d;

	disk_open(&d);
	make_it_rest(&d, r);
	rig_kick(&d.rig.queues[0]);
	cr_assert(all_is_still(&d), "a kick ends no rest");
	cr_assert_eq(rests(&d), 1);
	virtio_device_set_rate(d.rig.vdev, 0, 0);
	wait_for(&d, 3);
	disk_close(&d);
}

Test(rate, a_reset_does_not_wait_for_a_rest)
{
	struct request r[4];
	struct disk d;

	disk_open(&d);
	make_it_rest(&d, r);
	uint64_t start_ns = clock_ns();
	rig_reset(&d.rig);
	cr_assert_eq(virtq_state(d.rig.vdev->queues[0].vq), VIRTQ_OFF);
	/* 4 KiB at 1 KiB a second. */
	cr_assert_lt(clock_ns() - start_ns, 3 * NS_PER_S);
	disk_close(&d);
}

Test(rate, queues_of_one_device_share_it)
{
	static struct virtio_rate rate;

	virtio_rate_set(&rate, 0, 10);
	cr_assert_eq(virtio_rate_wait_ns(&rate), 0);
	for (unsigned int i = 0; i < 5; i++)
		virtio_rate_charge(&rate, 0);
	/* Five are half a second; a tenth may come at once. */
	cr_assert_gt(virtio_rate_wait_ns(&rate), 0);
	cr_assert_leq(virtio_rate_wait_ns(&rate), 4 * NS_PER_S / 10);
	virtio_rate_set(&rate, VIRTIO_RATE_BYTES_MIN, 1);
	cr_assert_eq(virtio_rate_wait_ns(&rate), 0, "what was charged is forgiven");
	/* No size of a request makes it overflow. */
	for (unsigned int i = 0; i < 64; i++)
		virtio_rate_charge(&rate, UINT64_MAX);
	cr_assert_gt(virtio_rate_wait_ns(&rate), 1000 * NS_PER_S);
}
