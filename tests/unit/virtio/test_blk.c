// SPDX-License-Identifier: Apache-2.0
// virtio-blk, one request at a time: every kind and layout, and what is refused.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"
#include "blk_rig.h"

Test(blk, writes_and_reads_back)
{
	struct disk d;

	disk_open(&d);
	struct request w = make(&d, OUT, 8, 4096);

	memset(rig_at(&d.rig, w.data), 0x5a, 4096);
	cr_expect_eq(run(&d, &w, false), OK);
	cr_expect(all(d.fd, 8 * 512, 4096, 0x5a));
	struct request r = make(&d, IN, 8, 4096);

	cr_expect_eq(run(&d, &r, true), OK);
	cr_expect_eq(memcmp(rig_at(&d.rig, r.data), rig_at(&d.rig, w.data), 4096), 0);
	cr_expect_eq(simple(&d, FLUSH, 0, 0), OK);
	disk_close(&d);
}

/* The first of each sixteen is measured, be it refused. */
Test(blk, requests_are_counted_and_some_measured)
{
	enum { REQUESTS = 2 * VIRTIO_BLK_MEASURED + 1 };
	const struct virtio_queue *q;
	uint64_t measured = 0, suppressed;
	struct latency l;
	struct disk d;

	disk_open(&d);
	q = &d.rig.vdev->queues[0];
	for (unsigned int i = 0; i < REQUESTS; i++)
		cr_expect_eq(simple(&d, i % 2 ? IN : OUT, i ? 0 : 1ull << 40, 4096),
			     i ? OK : IOERR);
	virtio_blk_latency(d.rig.vdev, &l);
	for (unsigned int i = 0; i < LATENCY_BUCKETS; i++)
		measured += counter_read(&l.n[i]);
	cr_expect_eq(measured, 3);
	cr_expect_gt(counter_read(&l.total_ns), 0);
	cr_expect_eq(counter_read(&q->counts.requests), REQUESTS);
	cr_expect_geq(counter_read(&q->counts.bytes), (REQUESTS - 1) * 4096ull);
	cr_expect_lt(counter_read(&q->counts.bytes), (REQUESTS + 1) * 4096ull);
	cr_expect_eq(counter_read(&q->counts.kicks), REQUESTS);
	cr_expect_eq(virtq_interrupts(q->vq, &suppressed) + suppressed, REQUESTS);
	disk_close(&d);
}

Test(blk, read_reports_data_and_status_as_written)
{
	struct disk d;

	disk_open(&d);
	struct request r = make(&d, IN, 0, 512);

	post(&d, &r, true);
	rig_kick(&d.rig.queues[0]);
	cr_expect_eq(rig_wait(&d.rig.queues[0]).len, 513);
	struct request w = make(&d, OUT, 0, 512);

	post(&d, &w, false);
	rig_kick(&d.rig.queues[0]);
	cr_expect_eq(rig_wait(&d.rig.queues[0]).len, 1);
	disk_close(&d);
}

Test(blk, header_and_status_may_be_split_anywhere)
{
	struct disk d;

	disk_open(&d);
	fill(d.fd, 0x77);
	/* Header in three segments; data and status in one. */
	struct request r = make(&d, IN, 3, 1024);
	struct rig_seg in[] = {
		{r.header, 1, false}, {r.header + 1, 9, false},  {r.header + 10, 6, false},
		{r.data, 700, true},  {r.data + 700, 325, true},
	};

	rig_add(&d.rig.queues[0], in, 5, true);
	rig_kick(&d.rig.queues[0]);
	cr_expect_eq(rig_wait(&d.rig.queues[0]).len, 1025);
	const uint8_t *data = rig_at(&d.rig, r.data);

	cr_expect_eq(data[0], 0x77);
	cr_expect_eq(data[1023], 0x77);
	cr_expect_eq(data[1024], OK);
	/* Header and data in one segment. */
	uint64_t both = rig_alloc(&d.rig, 16 + 512, 1);

	memcpy(rig_at(&d.rig, both), rig_at(&d.rig, make(&d, OUT, 5, 0).header), 16);
	memset((uint8_t *)rig_at(&d.rig, both) + 16, 0x33, 512);
	uint64_t status = rig_alloc(&d.rig, 1, 1);
	struct rig_seg out[] = {{both, 528, false}, {status, 1, true}};

	rig_add(&d.rig.queues[0], out, 2, false);
	rig_kick(&d.rig.queues[0]);
	rig_wait(&d.rig.queues[0]);
	cr_expect_eq(*(uint8_t *)rig_at(&d.rig, status), OK);
	cr_expect(all(d.fd, 5 * 512, 512, 0x33));
	cr_expect(all(d.fd, 6 * 512, 512, 0x77));
	disk_close(&d);
}

static void make_long_queue(struct virtio_blk_setup *c)
{
	c->queue_size = 512;
}

Test(blk, request_in_too_many_segments_is_an_error_of_its_own)
{
	enum { DATA = 510, SEGMENTS = 1 + DATA + 1 };
	struct rig_seg segs[SEGMENTS];
	struct disk d;

	disk_open_with(&d, LOOP_AUTO, make_long_queue, F_USUAL);
	fill(d.fd, 0x77);
	struct request r = make(&d, IN, 3, 0);
	uint64_t data = rig_alloc(&d.rig, (size_t)2 * DATA, 1);

	segs[0] = (struct rig_seg){r.header, 16, false};
	for (unsigned int i = 0; i < DATA; i++)
		segs[1 + i] = (struct rig_seg){data + 2u * i, 1, true};
	segs[1 + DATA] = (struct rig_seg){r.status, 1, true};
	/* As many descriptors as the queue has, more than the device keeps segments. */
	cr_assert_geq(rig_add(&d.rig.queues[0], segs, SEGMENTS, true), 0);
	rig_kick(&d.rig.queues[0]);
	rig_wait(&d.rig.queues[0]);
	cr_expect_eq(status_of(&d, &r), IOERR);
	cr_expect_not(rig_broken(&d.rig));
	cr_expect_eq(*(uint8_t *)rig_at(&d.rig, data), 0, "no data came");
	cr_expect_eq(simple(&d, IN, 3, 512), OK, "the next one is served");
	disk_close(&d);
}

Test(blk, refuses_what_is_beyond_the_disk_without_wrapping)
{
	struct disk d;
	uint64_t last = DISK_BYTES / 512;

	disk_open(&d);
	cr_expect_eq(simple(&d, IN, last - 1, 512), OK);
	cr_expect_eq(simple(&d, IN, last - 1, 1024), IOERR);
	cr_expect_eq(simple(&d, IN, last, 512), IOERR);
	cr_expect_eq(simple(&d, OUT, UINT64_MAX, 512), IOERR);
	cr_expect_eq(simple(&d, OUT, UINT64_MAX / 512 + 1, 512), IOERR);
	cr_expect_eq(simple(&d, OUT, 1ull << 63, 512), IOERR);
	cr_expect_eq(simple(&d, IN, 0, 513), IOERR);
	disk_close(&d);
}

Test(blk, unknown_types_are_unsupported_and_short_headers_errors)
{
	struct disk d;

	disk_open(&d);
	cr_expect_eq(simple(&d, 2, 0, 512), UNSUPP);
	cr_expect_eq(simple(&d, 0xffffffff, 0, 0), UNSUPP);
	struct request r = make(&d, IN, 0, 512);
	struct rig_seg segs[] = {{r.header, 15, false}, {r.status, 1, true}};

	rig_add(&d.rig.queues[0], segs, 2, false);
	rig_kick(&d.rig.queues[0]);
	rig_wait(&d.rig.queues[0]);
	cr_expect_eq(status_of(&d, &r), IOERR);
	cr_expect_not(rig_broken(&d.rig));
	disk_close(&d);
}

Test(blk, a_request_without_status_byte_needs_a_reset)
{
	struct disk d;

	disk_open(&d);
	struct request r = make(&d, FLUSH, 0, 0);
	struct rig_seg segs[] = {{r.header, 16, false}};

	rig_add(&d.rig.queues[0], segs, 1, false);
	rig_kick(&d.rig.queues[0]);
	rig_settle(&d.rig);
	cr_expect(rig_broken(&d.rig));
	rig_reset(&d.rig);
	cr_assert(rig_negotiate(&d.rig, F_USUAL));
	rig_queue(&d.rig, 0, 64);
	rig_go(&d.rig);
	cr_expect_eq(simple(&d, IN, 0, 512), OK);
	disk_close(&d);
}

Test(blk, get_id_gives_twenty_bytes_or_what_fits)
{
	struct disk d;

	disk_open(&d);
	struct request r = make(&d, GET_ID, 0, 20);

	cr_expect_eq(run(&d, &r, true), OK);
	cr_expect_eq(memcmp(rig_at(&d.rig, r.data), "SERIAL-0123456789-TO", 20), 0);
	struct request s = make(&d, GET_ID, 0, 6);

	memset(rig_at(&d.rig, s.data), 0, 7);
	cr_expect_eq(run(&d, &s, true), OK);
	cr_expect_eq(memcmp(rig_at(&d.rig, s.data), "SERIAL", 7), 0);
	disk_close(&d);
}

Test(blk, discard_and_write_zeroes)
{
	struct disk d;

	disk_open(&d);
	fill(d.fd, 0xff);
	cr_expect_eq(ranges(&d, DISCARD, (const uint64_t[][3]){{8, 8, 0}, {32, 16, 0}}, 2), OK);
	cr_expect(all(d.fd, 8 * 512, 8 * 512, 0));
	cr_expect(all(d.fd, 32 * 512, 16 * 512, 0));
	cr_expect(all(d.fd, 16 * 512, 16 * 512, 0xff));
	/* Without unmap: ZERO_RANGE, which this file system lacks: by writing, more than one
	 * call. */
	cr_expect_eq(ranges(&d, WRITE_ZEROES, (const uint64_t[][3]){{64, 4097, 0}, {1, 1, 0}}, 2),
		     OK);
	cr_expect(all(d.fd, 64 * 512, 4097 * 512, 0));
	cr_expect(all(d.fd, (64 + 4097) * 512, 512, 0xff));
	cr_expect(all(d.fd, 512, 512, 0));
	cr_expect_eq(ranges(&d, WRITE_ZEROES, (const uint64_t[][3]){{6000, 8, 1}}, 1), OK);
	cr_expect(all(d.fd, 6000 * 512, 8 * 512, 0));
	disk_close(&d);
}

Test(blk, range_requests_are_checked_whole_before_any_is_done)
{
	struct disk d;
	uint64_t last = DISK_BYTES / 512;

	disk_open(&d);
	fill(d.fd, 0xff);
	cr_expect_eq(ranges(&d, DISCARD, (const uint64_t[][3]){{0, 8, 0}, {last, 1, 0}}, 2), IOERR);
	cr_expect_eq(ranges(&d, DISCARD, (const uint64_t[][3]){{0, 8, 0}, {~0ull, 8, 0}}, 2),
		     IOERR);
	cr_expect_eq(ranges(&d, DISCARD, (const uint64_t[][3]){{0, 8, 1}}, 1), UNSUPP);
	cr_expect_eq(ranges(&d, WRITE_ZEROES, (const uint64_t[][3]){{0, 8, 2}}, 1), UNSUPP);
	cr_expect_eq(ranges(&d, WRITE_ZEROES, (const uint64_t[][3]){{0, 0xffffffff, 0}}, 1), IOERR);
	struct request odd = make(&d, DISCARD, 0, 17);

	cr_expect_eq(run(&d, &odd, false), IOERR);
	struct request none = make(&d, DISCARD, 0, 0);

	cr_expect_eq(run(&d, &none, false), IOERR);
	struct request many = make(&d, DISCARD, 0, 16 * 33);

	cr_expect_eq(run(&d, &many, false), IOERR);
	cr_expect(all(d.fd, 0, DISK_BYTES, 0xff));
	disk_close(&d);
}

Test(blk, discard_that_was_not_negotiated_is_unsupported)
{
	struct disk d;

	disk_open_with(&d, LOOP_AUTO, NULL, F_FLUSH);
	cr_expect_eq(ranges(&d, DISCARD, (const uint64_t[][3]){{0, 8, 0}}, 1), UNSUPP);
	disk_close(&d);
}

static void make_readonly(struct virtio_blk_setup *c)
{
	c->readonly = true;
}

/* A pipe stands for a file of squashfs and its like: both refuse fsync. */
static void make_unsyncable(struct virtio_blk_setup *c)
{
	int ends[2];

	close(c->fd);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	close(ends[1]);
	c->fd = ends[0];
	c->readonly = true;
}

Test(blk, a_read_only_disk_can_be_flushed_whatever_it_is_on)
{
	struct disk d;

	disk_open_with(&d, LOOP_AUTO, make_unsyncable, F_RO);
	cr_expect_eq(simple(&d, FLUSH, 0, 0), OK);
	disk_close(&d);
}

Test(blk, a_read_only_disk_is_not_written)
{
	struct disk d;

	disk_open_with(&d, LOOP_AUTO, make_readonly, F_RO);
	cr_expect(d.rig.vdev->features_offered & F_RO);
	cr_expect_not(d.rig.vdev->features_offered & (F_DISCARD | F_WRITE_ZEROES));
	struct request w = make(&d, OUT, 0, 512);

	memset(rig_at(&d.rig, w.data), 1, 512);
	cr_expect_eq(run(&d, &w, false), IOERR);
	cr_expect(all(d.fd, 0, 512, 0));
	cr_expect_eq(simple(&d, IN, 0, 512), OK);
	disk_close(&d);
}

Test(blk, a_disk_of_4k_blocks_refuses_smaller_ranges)
{
	struct disk d;

	disk_open_with(&d, LOOP_AUTO, make_4k, F_USUAL);
	cr_expect_eq(simple(&d, IN, 8, 4096), OK);
	cr_expect_eq(simple(&d, IN, 8, 512), IOERR);
	cr_expect_eq(simple(&d, IN, 1, 4096), IOERR);
	disk_close(&d);
}

Test(blk, errors_of_the_file_reach_the_guest)
{
	struct disk d;

	disk_open(&d);
	cr_assert_eq(ftruncate(d.fd, 1 << 20), 0);
	cr_expect_eq(simple(&d, IN, (1 << 20) / 512, 512), IOERR);
	/* Half of it is there: the rest is an error, not silence. */
	cr_expect_eq(simple(&d, IN, (1 << 20) / 512 - 1, 1024), IOERR);
	cr_expect_gt(d.rig.log_lines, 0);
	signal(SIGXFSZ, SIG_IGN);
	struct rlimit limit = {2 << 20, 2 << 20};

	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_expect_eq(simple(&d, OUT, (3 << 20) / 512, 512), IOERR);
	cr_expect_not(rig_broken(&d.rig));
	disk_close(&d);
}

/* A sparse image that has no room for what is written. */
static void make_crowded(struct virtio_blk_setup *c)
{
	close(c->fd);
	c->fd = open("/mnt/disk", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(c->fd, 0);
	cr_assert_eq(ftruncate(c->fd, DISK_BYTES), 0);
}

Test(blk, a_full_file_system_is_an_error_until_there_is_room)
{
	struct disk d;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("disk", "/mnt", "tmpfs", 0, "size=1M"))
		cr_skip_test("no file system of its own");
	disk_open_with(&d, LOOP_AUTO, make_crowded, F_USUAL);
	cr_expect_eq(simple(&d, OUT, 0, 512 << 10), OK);
	cr_expect_eq(simple(&d, OUT, 1024, 1 << 20), IOERR);
	cr_expect_eq(simple(&d, OUT, 0, 512), OK, "what has a place can be written");
	cr_assert_eq(mount(NULL, "/mnt", NULL, MS_REMOUNT, "size=8M"), 0);
	cr_expect_eq(simple(&d, OUT, 1024, 1 << 20), OK);
	cr_expect_eq(simple(&d, FLUSH, 0, 0), OK);
	disk_close(&d);
}

Test(blk, resize_tells_the_guest)
{
	struct disk d;
	struct err err = ERR_INIT;
	uint8_t capacity[8];

	disk_open(&d);
	cr_expect_eq(simple(&d, IN, DISK_BYTES / 512, 512), IOERR);
	cr_assert_eq(ftruncate(d.fd, 2 * DISK_BYTES), 0);
	unsigned int before = d.rig.config_interrupts;

	cr_assert_eq(virtio_blk_resize(d.rig.vdev, 2 * DISK_BYTES, &err), 0);
	cr_expect_eq(d.rig.config_interrupts, before + 1);
	d.rig.vdev->ops->config_read(d.rig.vdev, 0, capacity, 8);
	cr_expect_eq(load_le64(capacity), 2 * DISK_BYTES / 512);
	cr_expect_eq(simple(&d, IN, DISK_BYTES / 512, 512), OK);
	cr_expect_lt(virtio_blk_resize(d.rig.vdev, 1000, &err), 0);
	disk_close(&d);
}

Test(blk, config_space_reads_any_width_and_ends)
{
	struct disk d;
	uint8_t whole[64], part[4];

	disk_open(&d);
	const struct virtio_device_ops *ops = d.rig.vdev->ops;

	ops->config_read(d.rig.vdev, 0, whole, sizeof(whole));
	for (uint32_t at = 0; at < 70; at++) {
		ops->config_read(d.rig.vdev, at, part, 4);
		for (uint32_t i = 0; i < 4; i++)
			cr_expect_eq(part[i], at + i < 60 ? whole[at + i] : 0);
	}
	ops->config_read(d.rig.vdev, UINT32_MAX - 1, part, 4);
	cr_expect_eq(load_le32(whole + 20), 512);
	disk_close(&d);
}

Test(blk, the_driver_chooses_the_cache_mode)
{
	struct disk d;
	uint8_t mode;

	disk_open(&d);
	const struct virtio_device_ops *ops = d.rig.vdev->ops;

	ops->config_read(d.rig.vdev, 32, &mode, 1);
	cr_expect_eq(mode, 1);
	ops->config_write(d.rig.vdev, 32, (const uint8_t[]){0}, 1);
	ops->config_read(d.rig.vdev, 32, &mode, 1);
	cr_expect_eq(mode, 0);
	cr_expect_eq(simple(&d, OUT, 0, 512), OK);
	/* Other fields are not the driver's. */
	ops->config_write(d.rig.vdev, 0, (const uint8_t[]){0, 0, 0, 0}, 4);
	rig_reset(&d.rig);
	ops->config_read(d.rig.vdev, 32, &mode, 1);
	cr_expect_eq(mode, 1);
	disk_close(&d);
}

struct bad {
	const char *what;
	void (*edit)(struct virtio_blk_setup *);
};

static void bad_size(struct virtio_blk_setup *c)
{
	c->size_bytes = 1000;
}
static void bad_empty(struct virtio_blk_setup *c)
{
	c->size_bytes = 0;
}
static void bad_block(struct virtio_blk_setup *c)
{
	c->block_bytes = 1024;
}
static void bad_align(struct virtio_blk_setup *c)
{
	c->align_bytes = 4096;
}
static void bad_queues(struct virtio_blk_setup *c)
{
	c->queues = 65;
}
static void bad_queue_size(struct virtio_blk_setup *c)
{
	c->queue_size = 100;
}

Test(blk, bad_configurations_are_refused_with_the_disk_named)
{
	static const struct bad bad[] = {
		{"size", bad_size},   {"empty", bad_empty},   {"block", bad_block},
		{"align", bad_align}, {"queues", bad_queues}, {"queue size", bad_queue_size},
	};
	struct disk d;

	rig_open(&d.rig, LOOP_AUTO);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct virtio_blk_setup c = usual(&d);
		struct virtio_device *vdev = NULL;
		struct err err = ERR_INIT;

		c.fd = 0; /* ownership does not pass: it stays open */
		bad[i].edit(&c);
		cr_expect_eq(virtio_blk_create(&vdev, &c, &d.rig.log, &err), -EINVAL, "%s",
			     bad[i].what);
		cr_expect(strstr(err.text, "disk0"), "%s: %s", bad[i].what, err.text);
	}
	cr_expect_geq(fcntl(0, F_GETFD), 0);
	rig_close(&d.rig);
}
