// SPDX-License-Identifier: Apache-2.0
/* virtio-console: no byte lost or doubled in either direction, whatever the fds, pauses and resets
 * do; with both backends of the loop. And virtio-rng, which is shorter. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "driver.h"
#include "virtio/console.h"
#include "virtio/rng.h"

enum { RX = 0, TX = 1, PATTERN = 251 };

struct rig {
	struct guest *g;
	struct drv *d;
	int in[2];  /* we write in[1], the console reads in[0] */
	int out[2]; /* the console writes out[1], we read out[0] */
	uint64_t data;
	unsigned int sent, received; /* position in the pattern */
};

static uint8_t pattern(unsigned int i)
{
	return (uint8_t)(i % PATTERN);
}

static uint64_t patience_ns; /* of the next one */

static struct rig rig_create(enum loop_backend backend, bool nonblocking)
{
	struct guest_config config = {.backend = backend};
	struct virtio_console_setup console = {.name = "console0"};
	struct virtio_device *vdev;
	struct err err = ERR_INIT;
	struct rig r = {0};

	cr_assert_eq(pipe2(r.in, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(r.out, O_CLOEXEC), 0);
	if (nonblocking) {
		fcntl(r.in[0], F_SETFL, O_NONBLOCK);
		fcntl(r.out[1], F_SETFL, O_NONBLOCK);
	}
	fcntl(r.in[1], F_SETFL, O_NONBLOCK);
	fcntl(r.out[0], F_SETFL, O_NONBLOCK);
	fcntl(r.out[1], F_SETPIPE_SZ, 4096);
	fcntl(r.in[1], F_SETPIPE_SZ, 4096);
	r.g = guest_create(&config);
	console.patience_ns = patience_ns;
	console.loop = guest_loop(r.g, 0);
	console.in_fd = r.in[0];
	console.out_fd = r.out[1];
	cr_assert_eq(virtio_console_create(&vdev, &console, guest_log(r.g), &err), 0);
	r.d = drv_create(r.g, vdev);
	r.data = guest_alloc(r.g, 1 << 20, 4096);
	return r;
}

static void rig_destroy(struct rig *r)
{
	drv_destroy(r->d);
	guest_destroy(r->g);
	for (unsigned int i = 0; i < 2; i++) {
		fd_close(&r->in[i]);
		fd_close(&r->out[i]);
	}
}

static void turns(struct rig *r)
{
	for (unsigned int i = 0; i < 10; i++)
		guest_turn(r->g);
}

/* One chain of two segments, n bytes in all, of the pattern. */
static void say(struct rig *r, unsigned int n)
{
	struct drv_queue *q = &r->d->queues[TX];
	uint64_t at = r->data + 0x4000ull * (q->avail_idx % 32);
	struct drv_sg out[2] = {{at, n / 3}, {at + 0x2000, n - n / 3}};

	for (unsigned int i = 0; i < n; i++) {
		uint64_t gpa = i < n / 3 ? at + i : at + 0x2000 + i - n / 3;

		*(uint8_t *)guest_ptr(r->g, gpa, 1) = pattern(r->sent + i);
	}
	r->sent += n;
	drv_add(r->d, TX, out, 2, NULL, 0);
	drv_kick(r->d, TX);
}

/* Read what the console wrote; every byte must be the next of the pattern. */
static unsigned int drain(struct rig *r, unsigned int max)
{
	uint8_t buf[8192];
	ssize_t n = read(r->out[0], buf, MIN(max, sizeof(buf)));

	for (ssize_t i = 0; i < n; i++)
		cr_assert_eq(buf[i], pattern(r->received + (unsigned int)i), "byte %u",
			     r->received + (unsigned int)i);
	r->received += n > 0 ? (unsigned int)n : 0;
	return n > 0 ? (unsigned int)n : 0;
}

static bool all_received(void *opaque)
{
	struct rig *r = opaque;

	drain(r, 8192);
	return r->received == r->sent;
}

static const enum loop_backend backends[] = {LOOP_IO_URING, LOOP_EPOLL};

#define FOR_ALL(r)                                                                       \
	for (unsigned int variant = 0; variant < 4; variant++)                           \
		for (struct rig r = rig_create(backends[variant / 2], variant % 2); r.g; \
		     rig_destroy(&r), r.g = NULL)

Test(console, output_arrives_whole_and_in_order)
{
	FOR_ALL(r)
	{
		drv_start(r.d, 0, 0);
		for (unsigned int i = 0; i < 200; i++) {
			say(&r, 1 + i * 7 % 3000);
			cr_assert(guest_until(r.g, all_received, &r), "variant %u", variant);
			cr_assert(drv_wait(r.d, TX, NULL, NULL));
		}
	}
}

Test(console, output_waits_for_a_slow_reader)
{
	FOR_ALL(r)
	{
		drv_start(r.d, 0, 32);
		for (unsigned int i = 0; i < 10; i++)
			say(&r, 3000);
		turns(&r);
		cr_assert_lt(drv_used_idx(r.d, TX), 10, "the pipe holds 4096 bytes");
		cr_assert(guest_until(r.g, all_received, &r));
		for (unsigned int i = 0; i < 10; i++)
			cr_assert(drv_wait(r.d, TX, NULL, NULL));
	}
}

static bool all_dropped(void *opaque)
{
	struct rig *r = opaque;

	return drv_used_idx(r->d, TX) == (uint16_t)10;
}

static bool heard_again(void *opaque)
{
	struct rig *r = opaque;
	char buf[8192];
	ssize_t n = read(r->out[0], buf, sizeof(buf));

	/* A byte that the pattern lacks. */
	for (ssize_t i = 0; i < n; i++)
		r->received += (uint8_t)buf[i] == 0xff;
	return r->received >= 100;
}

Test(console, output_that_nobody_takes_is_dropped_and_goes_on_when_it_is_taken, .timeout = 60)
{
	patience_ns = 20000000;
	for (unsigned int variant = 0; variant < 4; variant++) {
		struct rig r = rig_create(backends[variant / 2], variant % 2);

		drv_start(r.d, 0, 32);
		for (unsigned int i = 0; i < 10; i++)
			say(&r, 3000);
		cr_assert(guest_until(r.g, all_dropped, &r), "variant %u", variant);
		while (drain(&r, 8192))
			;
		turns(&r);
		r.received = 0;
		for (unsigned int i = 0; i < 100; i++)
			*(uint8_t *)guest_ptr(r.g, r.data + i, 1) = 0xff;
		drv_add(r.d, TX, &(struct drv_sg){r.data, 100}, 1, NULL, 0);
		drv_kick(r.d, TX);
		cr_assert(guest_until(r.g, heard_again, &r), "variant %u", variant);
		rig_destroy(&r);
	}
}

Test(console, a_pause_in_the_middle_of_output_loses_and_doubles_nothing)
{
	FOR_ALL(r)
	{
		drv_start(r.d, 0, 32);
		for (unsigned int i = 0; i < 10; i++) {
			say(&r, 3000);
			turns(&r);
			r.d->dev->ops->quiesce(r.d->dev, 0);
			r.d->dev->ops->quiesce(r.d->dev, 1);
			drain(&r, 1000);
			r.d->dev->ops->resume(r.d->dev);
			turns(&r);
		}
		cr_assert(guest_until(r.g, all_received, &r));
		for (unsigned int i = 0; i < 10; i++)
			cr_assert(drv_wait(r.d, TX, NULL, NULL));
	}
}

Test(console, a_reset_does_not_wait_for_the_reader)
{
	FOR_ALL(r)
	{
		drv_start(r.d, 0, 32);
		for (unsigned int i = 0; i < 10; i++)
			say(&r, 3000);
		turns(&r);
		drv_reset(r.d);
		while (drain(&r, 8192))
			;
		/* From the beginning of a chain again. */
		r.sent = r.received = 0;
		drv_start(r.d, 0, 32);
		say(&r, 100);
		cr_assert(guest_until(r.g, all_received, &r));
	}
}

Test(console, output_to_nobody_is_dropped)
{
	FOR_ALL(r)
	{
		signal(SIGPIPE, SIG_IGN);
		drv_start(r.d, 0, 32);
		fd_close(&r.out[0]);
		for (unsigned int i = 0; i < 3; i++)
			say(&r, 100);
		for (unsigned int i = 0; i < 3; i++)
			cr_assert(drv_wait(r.d, TX, NULL, NULL));
		cr_assert_eq(drv_status(r.d), 15);
	}
}

/* Input */

static void give_buffer(struct rig *r, uint32_t len)
{
	uint64_t at = r->data + 0x80000 + 0x1000ull * (r->d->queues[RX].avail_idx % 64);
	struct drv_sg in = {at, len};

	drv_add(r->d, RX, NULL, 0, &in, 1);
	drv_kick(r->d, RX);
}

/* Type as many of n bytes as fit. */
static void type(struct rig *r, unsigned int n)
{
	uint8_t buf[4096];
	ssize_t done;

	for (unsigned int i = 0; i < n; i++)
		buf[i] = pattern(r->sent + i);
	done = write(r->in[1], buf, n);
	r->sent += done > 0 ? (unsigned int)done : 0;
}

static void check_buffer(struct rig *r, uint16_t head, uint32_t len)
{
	uint64_t gpa;
	uint8_t *p;

	/* The address is in the descriptor. */
	memcpy(&gpa, guest_ptr(r->g, r->d->queues[RX].desc + 16u * head, 8), 8);
	cr_assert_gt(len, 0);
	p = guest_ptr(r->g, gpa, len);
	for (uint32_t i = 0; i < len; i++)
		cr_assert_eq(p[i], pattern(r->received + i));
	r->received += len;
}

Test(console, input_waits_for_buffers_and_loses_nothing)
{
	FOR_ALL(r)
	{
		unsigned int before;
		uint16_t head;
		uint32_t len;

		drv_start(r.d, 0, 32);
		/* More than the console and the pipe hold together does not fit. */
		do {
			before = r.sent;
			type(&r, 1000);
			turns(&r);
		} while (r.sent != before);
		cr_assert_geq(r.sent, 4096);
		cr_assert_leq(r.sent, 8192);
		cr_assert_eq(drv_used_idx(r.d, RX), 0);
		while (r.received < r.sent) {
			give_buffer(&r, 100);
			cr_assert(drv_wait(r.d, RX, &head, &len));
			check_buffer(&r, head, len);
			cr_assert_eq(drv_interrupts(r.d, RX), 1);
			if (r.received == 5000 || r.received == 2000) {
				r.d->dev->ops->quiesce(r.d->dev, 1);
				r.d->dev->ops->resume(r.d->dev);
			}
		}
	}
}

Test(console, typed_bytes_arrive_at_once)
{
	FOR_ALL(r)
	{
		uint16_t head;
		uint32_t len;

		drv_start(r.d, 1ull << 29, 32);
		for (unsigned int i = 0; i < 8; i++)
			give_buffer(&r, 16);
		for (unsigned int i = 0; i < 100; i++) {
			type(&r, 1);
			cr_assert(drv_wait(r.d, RX, &head, &len));
			cr_assert_eq(len, 1);
			check_buffer(&r, head, len);
			give_buffer(&r, 16);
		}
	}
}

Test(console, the_end_of_input_is_quiet)
{
	FOR_ALL(r)
	{
		drv_start(r.d, 0, 32);
		give_buffer(&r, 16);
		fd_close(&r.in[1]);
		turns(&r);
		cr_assert_eq(drv_used_idx(r.d, RX), 0);
		say(&r, 10);
		cr_assert(guest_until(r.g, all_received, &r));
		cr_assert_eq(guest_log_lines(r.g), 0);
	}
}

/* A viewer */

static int view(struct rig *r, bool take)
{
	struct err err = ERR_INIT;
	int ends[2], rc;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	rc = virtio_console_view(r->d->vdev, ends[0], take, &err);
	close(ends[0]);
	if (rc == 0)
		return ends[1];
	close(ends[1]);
	return rc;
}

static struct {
	int fd;
	unsigned int seen;
} viewer;

static bool all_seen(void *opaque)
{
	const struct rig *r = opaque;
	uint8_t buf[8192];
	ssize_t n = recv(viewer.fd, buf, sizeof(buf), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++)
		cr_assert_eq(buf[i], pattern(viewer.seen + (unsigned int)i),
			     "byte %u of the viewer", viewer.seen + (unsigned int)i);
	viewer.seen += n > 0 ? (unsigned int)n : 0;
	return viewer.seen == r->sent;
}

Test(console, a_viewer_reads_all_output_once_whatever_the_other_reader_and_pauses_do)
{
	FOR_ALL(r)
	{
		viewer.fd = view(&r, false); /* before the driver */
		viewer.seen = 0;
		cr_assert_geq(viewer.fd, 0);
		drv_start(r.d, 0, 32);
		for (unsigned int i = 0; i < 10; i++) {
			say(&r, 3000);
			turns(&r);
			r.d->dev->ops->quiesce(r.d->dev, 0);
			r.d->dev->ops->quiesce(r.d->dev, 1);
			drain(&r, 1000);
			r.d->dev->ops->resume(r.d->dev);
			turns(&r);
		}
		cr_assert(guest_until(r.g, all_received, &r));
		cr_assert(guest_until(r.g, all_seen, &r));
		close(viewer.fd);
		cr_assert_not(virtio_console_is_viewed(r.d->vdev));
		say(&r, 100);
		cr_assert(guest_until(r.g, all_received, &r));
	}
}

static bool given_one(void *opaque)
{
	struct rig *r = opaque;

	return drv_used_idx(r->d, RX) == viewer.seen;
}

Test(console, a_viewer_types_and_what_the_input_has_waits_for_him_to_leave)
{
	FOR_ALL(r)
	{
		uint8_t *at = guest_ptr(r.g, r.data + 0x80000, 1);

		drv_start(r.d, 0, 32);
		for (unsigned int i = 0; i < 3; i++)
			give_buffer(&r, 16);
		turns(&r); /* it reads */
		viewer.fd = view(&r, false);
		cr_assert_eq(view(&r, false), -EBUSY);
		cr_assert_eq(write(r.in[1], "m", 1), 1);
		cr_assert_eq(write(viewer.fd, "v", 1), 1);
		viewer.seen = 1;
		cr_assert(guest_until(r.g, given_one, &r));
		turns(&r);
		cr_assert_eq(drv_used_idx(r.d, RX), 1, "the other one waits");
		cr_assert_eq(at[0], 'v');
		close(viewer.fd);
		viewer.seen = 2;
		cr_assert(guest_until(r.g, given_one, &r));
		cr_assert_eq(at[0x1000], 'm');
		/* Also when the input has ended. */
		fd_close(&r.in[1]);
		turns(&r);
		viewer.fd = view(&r, false);
		cr_assert_eq(write(viewer.fd, "w", 1), 1);
		viewer.seen = 3;
		cr_assert(guest_until(r.g, given_one, &r));
		cr_assert_eq(at[0x2000], 'w');
		cr_assert_eq(guest_log_lines(r.g), 0);
		close(viewer.fd);
	}
}

Test(console, its_size_is_configuration)
{
	struct rig r = rig_create(LOOP_AUTO, false);

	virtio_console_resize(r.d->vdev, 132, 50);
	drv_start(r.d, 0, 0);
	cr_assert_eq(drv_bar_read(r.d, r.d->config, 4), 132 | 50 << 16);
	virtio_console_resize(r.d->vdev, 80, 25);
	cr_assert_eq(drv_bar_read(r.d, r.d->config, 4), 80 | 25 << 16);
	cr_assert_eq(drv_interrupts(r.d, 2), 1);
	rig_destroy(&r);
}

Test(console, a_flood_of_empty_chains_is_taken_by_turns)
{
	FOR_ALL(r)
	{
		struct drv_sg nothing = {0, 0};

		drv_start(r.d, 1ull << 29, 64);
		for (unsigned int round = 0; round < 20; round++) {
			for (unsigned int i = 0; i < 64; i++)
				drv_add(r.d, TX, &nothing, 1, NULL, 0);
			drv_kick(r.d, TX);
			for (unsigned int i = 0; i < 64; i++)
				cr_assert(drv_wait(r.d, TX, NULL, NULL));
		}
		drv_add(r.d, TX, &nothing, 1, NULL, 0);
		drv_kick(r.d, TX);
		drv_reset(r.d);
	}
}

/* rng */

static struct drv *rng_create(struct guest *g)
{
	struct virtio_rng_setup config = {.name = "rng0", .loop = guest_loop(g, 0)};
	struct virtio_device *vdev;
	struct err err = ERR_INIT;

	cr_assert_eq(virtio_rng_create(&vdev, &config, guest_log(g), &err), 0);
	return drv_create(g, vdev);
}

Test(rng, fills_what_is_offered_with_bytes_that_differ)
{
	struct guest *g = guest_create(NULL);
	struct drv *d = rng_create(g);
	uint64_t data = guest_alloc(g, 65536, 4096);
	struct drv_sg in[2] = {{data, 24}, {data + 4096, 40}}, out = {data, 8};
	uint8_t first[24];
	uint32_t len;

	drv_start(d, 1ull << 29, 0);
	drv_add(d, 0, NULL, 0, in, 2);
	drv_kick(d, 0);
	cr_assert(drv_wait(d, 0, NULL, &len));
	cr_assert_eq(len, 64);
	memcpy(first, guest_ptr(g, data, 24), 24);
	drv_add(d, 0, NULL, 0, in, 2);
	drv_kick(d, 0);
	cr_assert(drv_wait(d, 0, NULL, &len));
	cr_assert_neq(memcmp(first, guest_ptr(g, data, 24), 24), 0);
	/* A large one is answered in part, one without room with nothing. */
	in[0].len = 60000;
	drv_add(d, 0, NULL, 0, in, 1);
	drv_add(d, 0, &out, 1, NULL, 0);
	drv_kick(d, 0);
	cr_assert(drv_wait(d, 0, NULL, &len));
	cr_assert_eq(len, 4096);
	cr_assert(drv_wait(d, 0, NULL, &len));
	cr_assert_eq(len, 0);
	drv_destroy(d);
	guest_destroy(g);
}

Test(rng, a_flood_is_served_and_can_be_reset)
{
	struct guest *g = guest_create(NULL);
	struct drv *d = rng_create(g);
	uint64_t data = guest_alloc(g, 4096, 4096);
	struct drv_sg in = {data, 64};

	drv_start(d, 0, 64);
	for (unsigned int i = 0; i < 64; i++)
		drv_add(d, 0, NULL, 0, &in, 1);
	drv_kick(d, 0);
	for (unsigned int i = 0; i < 64; i++)
		cr_assert(drv_wait(d, 0, NULL, NULL));
	for (unsigned int i = 0; i < 64; i++)
		drv_add(d, 0, NULL, 0, &in, 1);
	drv_kick(d, 0);
	guest_turn(g);
	drv_reset(d);
	drv_start(d, 0, 64);
	drv_add(d, 0, NULL, 0, &in, 1);
	drv_kick(d, 0);
	cr_assert(drv_wait(d, 0, NULL, NULL));
	drv_destroy(d);
	guest_destroy(g);
}
