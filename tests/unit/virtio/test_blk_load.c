// SPDX-License-Identifier: Apache-2.0
// virtio-blk with many requests: random ones against a model, bounce buffers, resets and pauses
// under load.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

/* A pipe nobody has written to: reads do not end. */
static int pipe_fds[2];

static void on_a_pipe(struct virtio_blk_setup *c)
{
	cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
	close(c->fd);
	c->fd = pipe_fds[0];
	c->queue_size = 16;
}

static void timer_over(struct loop_op *op, int result)
{
	(void)op;
	cr_assert_eq(result, 0);
}

Test(blk_load, a_loop_whose_queue_is_full_sleeps)
{
	struct loop_op timer = {.done = timer_over};
	unsigned int iterations = 0;
	struct request r[16];
	struct disk d;
	uint8_t data[512] = {1};

	disk_open_with(&d, LOOP_AUTO, on_a_pipe, F_USUAL);
	if (strcmp(loop_backend_name(d.rig.loop), "io_uring") != 0) {
		disk_close(&d);
		cr_skip_test("without io_uring a disk cannot be a pipe");
	}
	for (int i = 0; i < 16; i++) {
		r[i] = make(&d, IN, (uint64_t)i, 512);
		struct rig_seg segs[] = {
			{r[i].header, 16, false}, {r[i].data, 512, true}, {r[i].status, 1, true}};

		cr_assert_geq(rig_add(&d.rig.queues[0], segs, 3, true), 0);
	}
	rig_kick(&d.rig.queues[0]);
	rig_settle(&d.rig);
	loop_timer(d.rig.loop, &timer, 20000000);
	for (; timer.in_flight; iterations++)
		cr_assert_eq(loop_iterate(d.rig.loop, true), 0);
	cr_expect_lt(iterations, 10);
	for (int i = 0; i < 17; i++)
		cr_assert_eq(write(pipe_fds[1], data, sizeof(data)), (ssize_t)sizeof(data));
	for (int i = 0; i < 16; i++)
		rig_wait(&d.rig.queues[0]);
	/* And it is served again. */
	cr_expect_eq(simple(&d, IN, 0, 512), OK);
	disk_close(&d);
	close(pipe_fds[1]);
}

enum { LARGE_BYTES = 24 << 20, SHARE_BYTES = 4 << 20 };

static void large(struct virtio_blk_setup *c)
{
	cr_assert_eq(ftruncate(c->fd, LARGE_BYTES), 0);
	c->size_bytes = LARGE_BYTES;
}

/* Run the loop until byte `at` of guest memory is what the disk holds. */
static void until_read(struct disk *d, uint64_t at)
{
	const volatile uint8_t *byte = rig_at(&d->rig, at);

	while (*byte != 0x5a)
		cr_assert_eq(loop_iterate(d->rig.loop, false), 0);
}

static void fill_large(struct disk *d)
{
	uint8_t *map = mmap(NULL, LARGE_BYTES, PROT_WRITE, MAP_SHARED, d->fd, 0);

	cr_assert_neq(map, MAP_FAILED);
	memset(map, 0x5a, LARGE_BYTES);
	munmap(map, LARGE_BYTES);
}

Test(blk_load, a_request_is_transferred_in_slices)
{
	static const enum loop_backend backends[] = {LOOP_AUTO, LOOP_EPOLL};

	for (unsigned int b = 0; b < 2; b++) {
		struct disk d;

		disk_open_with(&d, backends[b], large, F_USUAL);
		fill_large(&d);
		struct request r = make(&d, IN, 0, 12 << 20);

		post(&d, &r, true);
		rig_kick(&d.rig.queues[0]);
		until_read(&d, r.data);
		cr_expect_eq(*(uint8_t *)rig_at(&d.rig, r.data + SHARE_BYTES), 0);
		rig_wait(&d.rig.queues[0]);
		cr_expect_eq(status_of(&d, &r), OK);
		for (size_t i = 0; i < 12 << 20; i++)
			cr_assert_eq(*(uint8_t *)rig_at(&d.rig, r.data + i), 0x5a, "byte %zu", i);
		disk_close(&d);
	}
}

Test(blk_load, an_iteration_without_io_uring_reads_its_share_and_no_more)
{
	struct request r[8];
	unsigned int done = 0;
	struct disk d;

	disk_open_with(&d, LOOP_EPOLL, large, F_USUAL);
	fill_large(&d);
	for (unsigned int i = 0; i < 8; i++) {
		r[i] = make(&d, IN, 0, 2 << 20);
		post(&d, &r[i], true);
	}
	rig_kick(&d.rig.queues[0]);
	until_read(&d, r[0].data);
	for (unsigned int i = 0; i < 8; i++)
		done += status_of(&d, &r[i]) != PENDING;
	cr_expect_eq(done, SHARE_BYTES / (2 << 20));
	for (unsigned int i = 0; i < 8; i++)
		rig_wait(&d.rig.queues[0]);
	disk_close(&d);
}

/* A host that punches no holes, and makes zeroes only by word of mouth. */
static void forbid_punch(void)
{
#define ARG(n) offsetof(struct seccomp_data, args[n])
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(1)),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, FALLOC_FL_PUNCH_HOLE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

Test(blk_load, two_refused_punches_at_once_do_not_switch_off_zero_range)
{
	struct request r[2];
	struct disk d;

	disk_open_with(&d, LOOP_EPOLL, NULL, F_USUAL);
	fill(d.fd, 0x33);
	forbid_punch();
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t *p;

		r[i] = make(&d, WRITE_ZEROES, 0, 16);
		p = rig_at(&d.rig, r[i].data);
		store_le64(p, 8 * i);
		store_le32(p + 8, 8);
		store_le32(p + 12, 1); /* unmap */
		post(&d, &r[i], false);
	}
	rig_kick(&d.rig.queues[0]);
	for (unsigned int i = 0; i < 2; i++)
		rig_wait(&d.rig.queues[0]);
	/* Had it been by writing, they would be zeroes. */
	cr_expect(all(d.fd, 0, 8192, 0x33));
	disk_close(&d);
}

struct resizer {
	struct disk d;
	_Atomic bool end;
};

static void *resize_on_and_on(void *opaque)
{
	struct resizer *r = opaque;
	struct err err = ERR_INIT;

	for (uint64_t i = 1; !r->end; i++)
		cr_assert_eq(virtio_blk_resize(r->d.rig.vdev, i << 20, &err), 0);
	return NULL;
}

/* As a driver does: generation, capacity, generation. */
Test(blk_load, a_capacity_that_changes_has_a_new_generation)
{
	static struct resizer r;
	uint64_t last = 0, capacity;
	uint8_t generation, last_generation = 0;
	pthread_t thread;

	disk_open(&r.d);
	cr_assert_eq(pthread_create(&thread, NULL, resize_on_and_on, &r), 0);
	for (int i = 0; i < 200000; i++) {
		pthread_mutex_lock(&r.d.rig.lock);
		generation = r.d.rig.t.generation;
		transport_config_read(&r.d.rig.t, 0, &capacity, sizeof(capacity));
		pthread_mutex_unlock(&r.d.rig.lock);
		if (i && generation == last_generation && capacity != last)
			/* It may also have gone round: 256 changes in between. */
			cr_expect_eq((capacity - last) >> 11 & 0xff, 0);
		last = capacity;
		last_generation = generation;
	}
	r.end = true;
	pthread_join(thread, NULL);
	disk_close(&r.d);
}
