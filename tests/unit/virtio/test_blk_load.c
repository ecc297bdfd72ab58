// SPDX-License-Identifier: Apache-2.0
// virtio-blk with many requests: random ones against a model, bounce buffers, resets and pauses under load.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"
#include "blk_rig.h"

static void make_bounce(struct virtio_blk_setup *c)
{
	c->align_bytes = 512;
}

/* Random requests of every kind and layout, several at once, against a copy in memory. Requests in
 * flight together touch disjoint parts, as a file system's do. */
static void random_ops(enum loop_backend backend, void (*edit)(struct virtio_blk_setup *))
{
	static uint8_t model[DISK_BYTES];
	enum { SLOTS = 12, ROUNDS = 150, PART = DISK_BYTES / 512 / SLOTS };
	struct disk d;
	unsigned int seed = 12345;

	disk_open_with(&d, backend, edit, F_USUAL);
	memset(model, 0, sizeof(model));
	struct rig_queue *q = &d.rig.queues[0];
	uint64_t floor = d.rig.brk;

	for (int round = 0; round < ROUNDS; round++) {
		struct request r[SLOTS];
		uint64_t sector[SLOTS];
		uint32_t type[SLOTS];

		d.rig.brk = floor;
		for (unsigned int s = 0; s < SLOTS; s++) {
			static const uint32_t types[] = {IN, OUT, OUT, DISCARD, WRITE_ZEROES};
			uint32_t n = 1 + (uint32_t)rand_r(&seed) % 130;

			type[s] = types[(uint32_t)rand_r(&seed) % 5];
			sector[s] = s * PART + (uint32_t)rand_r(&seed) % (PART - n);
			(void)rig_alloc(&d.rig, (size_t)rand_r(&seed) % 600, 1);
			uint32_t len = n * 512;
			bool is_range = type[s] == DISCARD || type[s] == WRITE_ZEROES;

			r[s] = make(&d, type[s], sector[s], is_range ? 16 : len);
			uint8_t *data = rig_at(&d.rig, r[s].data);
			size_t at = sector[s] * 512;

			if (type[s] == OUT) {
				for (uint32_t i = 0; i < len; i++)
					data[i] = (uint8_t)rand_r(&seed);
				memcpy(model + at, data, len);
			} else if (is_range) {
				store_le64(data, sector[s]);
				store_le32(data + 8, n);
				store_le32(data + 12, type[s] == WRITE_ZEROES && n & 1);
				memset(model + at, 0, len);
			}
			uint32_t cut = (uint32_t)rand_r(&seed) % r[s].len;
			struct rig_seg segs[] = {
				{r[s].header, 16, false},
				{r[s].data, cut, type[s] == IN},
				{r[s].data + cut, r[s].len - cut, type[s] == IN},
				{r[s].status, 1, true},
			};

			cr_assert_geq(rig_add(q, segs, 4, s & 1), 0);
		}
		rig_kick(q);
		for (unsigned int s = 0; s < SLOTS; s++)
			rig_wait(q);
		for (unsigned int s = 0; s < SLOTS; s++) {
			cr_assert_eq(status_of(&d, &r[s]), OK);
			if (type[s] == IN)
				cr_assert_eq(memcmp(rig_at(&d.rig, r[s].data),
						    model + sector[s] * 512, r[s].len),
					     0, "round %d slot %u", round, s);
		}
	}
	uint8_t *disk = mmap(NULL, DISK_BYTES, PROT_READ, MAP_SHARED, d.fd, 0);

	cr_expect_eq(memcmp(disk, model, DISK_BYTES), 0);
	munmap(disk, DISK_BYTES);
	disk_close(&d);
}

Test(blk_load, random_requests_agree_with_a_model)
{
	random_ops(LOOP_AUTO, NULL);
}

Test(blk_load, random_requests_agree_with_a_model_over_epoll)
{
	random_ops(LOOP_EPOLL, NULL);
}

Test(blk_load, random_requests_agree_with_a_model_through_bounce_buffers)
{
	random_ops(LOOP_AUTO, make_bounce);
}

static void make_writethrough(struct virtio_blk_setup *c)
{
	c->cache = VIRTIO_BLK_WRITETHROUGH;
}

Test(blk_load, write_through_offers_no_cache_and_works)
{
	struct disk d;

	disk_open_with(&d, LOOP_AUTO, make_writethrough, 0);
	cr_expect_not(d.rig.vdev->features_offered & (F_FLUSH | F_CONFIG_WCE));
	cr_expect_eq(simple(&d, OUT, 0, 512), OK);
	disk_close(&d);
}

Test(blk_load, direct_io_with_unaligned_buffers)
{
	struct disk d;
	char path[] = "/var/tmp/hospes-test-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, DISK_BYTES), 0);
	int direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	unlink(path);
	if (direct < 0)
		cr_skip_test("no O_DIRECT on this file system");
	struct err err = ERR_INIT;
	struct virtio_device *vdev;

	rig_open(&d.rig, LOOP_AUTO);
	d.fd = fd;
	struct virtio_blk_setup c = usual(&d);

	c.fd = direct;
	make_4k(&c);
	cr_assert_eq(virtio_blk_create(&vdev, &c, &d.rig.log, &err), 0, "%s", err.text);
	rig_attach(&d.rig, vdev);
	cr_assert(rig_negotiate(&d.rig, F_USUAL));
	rig_queue(&d.rig, 0, 64);
	rig_go(&d.rig);
	/* Larger than a bounce buffer, at an odd address. */
	(void)rig_alloc(&d.rig, 3, 1);
	struct request w = make(&d, OUT, 16, 300 << 10);
	uint8_t *data = rig_at(&d.rig, w.data);

	for (uint32_t i = 0; i < w.len; i++)
		data[i] = (uint8_t)(i * 7);
	cr_expect_eq(run(&d, &w, false), OK);
	struct request r = make(&d, IN, 16, 300 << 10);

	cr_expect_eq(run(&d, &r, true), OK);
	cr_expect_eq(memcmp(rig_at(&d.rig, r.data), data, w.len), 0);
	disk_close(&d);
}

Test(blk_load, many_unaligned_requests_share_few_bounce_buffers)
{
	struct disk d;
	struct request r[20];

	disk_open_with(&d, LOOP_AUTO, make_bounce, F_USUAL);
	fill(d.fd, 0x42);
	for (int i = 0; i < 20; i++) {
		(void)rig_alloc(&d.rig, 1, 1);
		r[i] = make(&d, IN, (uint64_t)i * 300, 140 << 10);
		cr_assert_geq(post(&d, &r[i], true), 0);
	}
	rig_kick(&d.rig.queues[0]);
	for (int i = 0; i < 20; i++)
		rig_wait(&d.rig.queues[0]);
	for (int i = 0; i < 20; i++) {
		const uint8_t *data = rig_at(&d.rig, r[i].data);

		cr_expect_eq(status_of(&d, &r[i]), OK);
		cr_expect_eq(data[0], 0x42);
		cr_expect_eq(data[(140 << 10) - 1], 0x42);
	}
	disk_close(&d);
}

/* A reset with requests in flight (and some waiting for bounce buffers): afterwards guest memory is
 * not touched, and the device works again. */
static void reset_under_load(enum loop_backend backend, void (*edit)(struct virtio_blk_setup *))
{
	struct disk d;

	disk_open_with(&d, backend, edit, F_USUAL);
	fill(d.fd, 0x11);
	uint64_t floor = d.rig.brk;

	for (int round = 0; round < 50; round++) {
		d.rig.brk = floor + 1;
		for (int i = 0; i < 20; i++) {
			struct request r = make(&d, i & 1 ? OUT : IN, (uint64_t)i * 300, 64 << 10);

			if (i & 1)
				memset(rig_at(&d.rig, r.data), 0x11, r.len);
			cr_assert_geq(post(&d, &r, !(i & 1)), 0);
		}
		rig_kick(&d.rig.queues[0]);
		for (int turn = 0; turn < round % 4; turn++)
			loop_iterate(d.rig.loop, false);
		rig_reset(&d.rig);
		memset(d.rig.ram + floor, 0xcc, d.rig.brk - floor);
		rig_settle(&d.rig);
		for (uint64_t at = floor; at < d.rig.brk; at++)
			cr_assert_eq(d.rig.ram[at], 0xcc);
		cr_assert(rig_negotiate(&d.rig, F_USUAL));
		d.rig.brk = floor - (64 * 16 + 6 + 128 + 6 + 512 + 32);
		rig_queue(&d.rig, 0, 64);
		d.rig.brk = MAX(d.rig.brk, floor);
		rig_go(&d.rig);
		cr_assert_eq(simple(&d, IN, 0, 512), OK);
	}
	cr_expect(all(d.fd, 0, DISK_BYTES, 0x11));
	disk_close(&d);
}

Test(blk_load, reset_under_load)
{
	reset_under_load(LOOP_AUTO, NULL);
}

Test(blk_load, reset_under_load_with_bounce_buffers)
{
	reset_under_load(LOOP_AUTO, make_bounce);
}

Test(blk_load, reset_under_load_over_epoll)
{
	reset_under_load(LOOP_EPOLL, NULL);
}

Test(blk_load, quiesce_finishes_what_is_in_flight_and_resume_goes_on)
{
	struct disk d;
	struct request r[20];

	disk_open(&d);
	for (int i = 0; i < 20; i++) {
		r[i] = make(&d, IN, (uint64_t)i * 8, 4096);
		post(&d, &r[i], true);
	}
	rig_kick(&d.rig.queues[0]);
	loop_iterate(d.rig.loop, true);
	transport_quiesce(&d.rig.t, 0);
	while (!virtio_queue_still(&d.rig.vdev->queues[0]))
		loop_iterate(d.rig.loop, true);
	transport_quiesce(&d.rig.t, 1);
	for (int i = 0; i < 20; i++)
		cr_expect_eq(status_of(&d, &r[i]), OK);
	struct request later = make(&d, IN, 0, 512);

	for (int i = 0; i < 20; i++)
		rig_wait(&d.rig.queues[0]);
	post(&d, &later, true);
	rig_kick(&d.rig.queues[0]);
	rig_settle(&d.rig);
	cr_expect_eq(status_of(&d, &later), PENDING);
	transport_resume(&d.rig.t);
	rig_wait(&d.rig.queues[0]);
	cr_expect_eq(status_of(&d, &later), OK);
	disk_close(&d);
}

Test(blk_load, one_interrupt_for_a_batch)
{
	struct disk d;

	disk_open_with(&d, LOOP_EPOLL, NULL, F_USUAL);
	for (int i = 0; i < 16; i++) {
		struct request r = make(&d, FLUSH, 0, 0);

		post(&d, &r, false);
	}
	rig_kick(&d.rig.queues[0]);
	for (int i = 0; i < 16; i++)
		rig_wait(&d.rig.queues[0]);
	rig_settle(&d.rig);
	cr_expect_leq(d.rig.interrupts[0], 2);
	cr_expect_geq(d.rig.interrupts[0], 1);
	disk_close(&d);
}
