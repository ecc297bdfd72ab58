// SPDX-License-Identifier: Apache-2.0
// The event loop: every test runs on both backends.
#include "core/loop.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "core/loop_impl.h"
#include "deny.h"

static const enum loop_backend backends[] = {LOOP_IO_URING, LOOP_EPOLL};

#define BOTH(name)                                                                         \
	ParameterizedTestParameters(loop, name)                                            \
	{                                                                                  \
		return cr_make_param_array(enum loop_backend, (void *)(uintptr_t)backends, \
					   ARRAY_SIZE(backends));                          \
	}                                                                                  \
	ParameterizedTest(enum loop_backend *backend, loop, name, .timeout = 60)

struct seen {
	struct loop_op op;
	struct loop *loop;
	int result;
	unsigned int calls;
	uint64_t sum;
	unsigned int cancel_at; /* cancel itself at this call, 0 never */
	struct seen *cancel_other;
	unsigned int order;
};
static unsigned int order;

static void seen_done(struct loop_op *op, int result)
{
	struct seen *s = container_of(op, struct seen, op);

	s->result = result;
	s->calls++;
	s->order = ++order;
	if (result > 0)
		s->sum += (uint64_t)result;
	if (s->cancel_at == s->calls)
		loop_cancel(s->loop, op);
	if (s->cancel_other)
		loop_cancel(s->loop, &s->cancel_other->op);
}

static void seen_init(struct seen *s, struct loop *loop)
{
	memset(s, 0, sizeof(*s));
	s->op.done = seen_done;
	s->loop = loop;
	s->result = INT_MIN;
}

static struct loop *make(enum loop_backend backend, unsigned int depth)
{
	struct loop_config config = {.name = "test", .depth = depth, .backend = backend};
	struct loop *loop = NULL;
	struct err err = ERR_INIT;
	int rc = loop_create(&loop, &config, &err);

	if (rc && backend == LOOP_IO_URING)
		cr_skip("io_uring: %s", err.text);
	cr_assert_eq(rc, 0, "%s", err.text);
	cr_assert_eq(loop_in_flight(loop), 0u);
	return loop;
}

/* Turn until the op has had `calls` calls. */
static void until(struct loop *loop, const struct seen *s, unsigned int calls)
{
	while (s->calls < calls)
		cr_assert_eq(loop_iterate(loop, true), 0);
}

static int temp_file(void)
{
	int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	return fd;
}

BOTH(file_read_and_write_report_bytes_and_short_reads)
{
	struct loop *loop = make(*backend, 0);
	char in[8192], out[8192] = {0};
	struct iovec iov[2] = {{out, 3000}, {out + 3000, 5192}};
	struct seen s;
	int fd = temp_file();

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (char)(i * 7);
	seen_init(&s, loop);
	loop_write(loop, &s.op, fd, in, 6000, 100);
	cr_assert_eq(s.calls, 0u, "done inside the verb");
	until(loop, &s, 1);
	cr_assert_eq(s.result, 6000);
	loop_readv(loop, &s.op, fd, iov, 2, 100);
	until(loop, &s, 2);
	cr_assert_eq(s.result, 6000);
	cr_assert_eq(memcmp(in, out, 6000), 0);
	loop_read(loop, &s.op, fd, out, 10, 100000);
	until(loop, &s, 3);
	cr_assert_eq(s.result, 0);
	loop_fsync(loop, &s.op, fd, true);
	until(loop, &s, 4);
	cr_assert_eq(s.result, 0);
	loop_fallocate(loop, &s.op, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
	until(loop, &s, 5);
	cr_assert(s.result == 0 || s.result == -EOPNOTSUPP, "%d", s.result);
	loop_read(loop, &s.op, -1, out, 10, 0);
	until(loop, &s, 6);
	cr_assert_eq(s.result, -EBADF);
	cr_assert_eq(loop_in_flight(loop), 0u);
	close(fd);
	loop_destroy(loop);
}

BOTH(a_pipe_read_waits_for_data)
{
	struct loop *loop = make(*backend, 0);
	struct seen s, w;
	char buf[16] = "";
	int fd[2];

	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	seen_init(&s, loop);
	seen_init(&w, loop);
	loop_read(loop, &s.op, fd[0], buf, sizeof(buf), -1);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(loop_iterate(loop, false), 0);
	cr_assert_eq(s.calls, 0u);
	cr_assert_eq(loop_in_flight(loop), 1u);
	loop_write(loop, &w.op, fd[1], "hello", 5, -1);
	until(loop, &s, 1);
	until(loop, &w, 1);
	cr_assert_eq(w.result, 5);
	cr_assert_eq(s.result, 5);
	cr_assert_str_eq(buf, "hello");
	close(fd[1]);
	loop_read(loop, &s.op, fd[0], buf, sizeof(buf), -1);
	until(loop, &s, 2);
	cr_assert_eq(s.result, 0, "end of file");
	close(fd[0]);
	loop_destroy(loop);
}

BOTH(a_full_pipe_takes_what_fits_later)
{
	struct loop *loop = make(*backend, 0);
	static char big[1 << 20];
	struct seen w;
	int fd[2];

	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	seen_init(&w, loop);
	/* A write larger than the pipe must not block the loop. */
	while (w.result == INT_MIN || w.result > 0) {
		unsigned int calls = w.calls;

		loop_write(loop, &w.op, fd[1], big, 65536, -1);
		for (int i = 0; i < 4 && w.calls == calls; i++)
			cr_assert_eq(loop_iterate(loop, false), 0);
		if (w.calls == calls)
			break;
	}
	cr_assert_eq(loop_in_flight(loop), 1u);
	cr_assert_geq(read(fd[0], big, sizeof(big)), 4096);
	unsigned int calls = w.calls;
	until(loop, &w, calls + 1);
	cr_assert_gt(w.result, 0);
	close(fd[0]);
	close(fd[1]);
	loop_destroy(loop);
}

BOTH(a_watch_delivers_each_count_and_goes_on)
{
	struct loop *loop = make(*backend, 0);
	struct seen s;
	int fd = fd_eventfd();

	seen_init(&s, loop);
	loop_watch(loop, &s.op, fd);
	for (unsigned int i = 1; i <= 50; i++) {
		fd_event_signal(fd);
		fd_event_signal(fd);
		until(loop, &s, i);
		cr_assert_eq(s.result, 2);
		cr_assert_eq(fd_event_drain(fd), 0u, "not cleared");
		cr_assert_eq(loop_in_flight(loop), 1u);
	}
	loop_cancel(loop, &s.op);
	cr_assert_eq(s.calls, 50u, "done inside cancel");
	until(loop, &s, 51);
	cr_assert_eq(s.result, -ECANCELED);
	cr_assert_eq(loop_in_flight(loop), 0u);
	fd_event_signal(fd);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(loop_iterate(loop, false), 0);
	cr_assert_eq(s.calls, 51u);
	close(fd);
	loop_destroy(loop);
}

BOTH(a_watch_saturates)
{
	struct loop *loop = make(*backend, 0);
	struct seen s;
	uint64_t much = 1ull << 40;
	int fd = fd_eventfd();

	seen_init(&s, loop);
	cr_assert_eq(write(fd, &much, 8), 8);
	loop_watch(loop, &s.op, fd);
	until(loop, &s, 1);
	cr_assert_eq(s.result, INT_MAX);
	loop_cancel(loop, &s.op);
	until(loop, &s, 2);
	close(fd);
	loop_destroy(loop);
}

BOTH(a_watch_may_cancel_itself_in_its_callback)
{
	struct loop *loop = make(*backend, 0);
	struct seen s;
	int fd = fd_eventfd();

	seen_init(&s, loop);
	s.cancel_at = 2;
	loop_watch(loop, &s.op, fd);
	for (unsigned int i = 1; i <= 2; i++) {
		fd_event_signal(fd);
		until(loop, &s, i);
	}
	cr_assert_eq(s.result, 1);
	until(loop, &s, 3);
	cr_assert_eq(s.result, -ECANCELED);
	cr_assert_eq(loop_in_flight(loop), 0u);
	close(fd);
	loop_destroy(loop);
}

BOTH(an_event_and_a_cancel_together_deliver_the_event_and_one_end)
{
	struct loop *loop = make(*backend, 0);
	int fd = fd_eventfd();

	for (int i = 0; i < 200; i++) {
		struct seen s;

		seen_init(&s, loop);
		loop_watch(loop, &s.op, fd);
		if (i & 1)
			cr_assert_eq(loop_iterate(loop, false), 0);
		fd_event_signal(fd);
		if (i & 2)
			cr_assert_eq(loop_flush(loop), 0);
		loop_cancel(loop, &s.op);
		loop_cancel(loop, &s.op);
		while (s.op.in_flight)
			cr_assert_eq(loop_iterate(loop, true), 0);
		cr_assert_eq(s.result, -ECANCELED);
		/* Either delivered or left in the counter, never both, never lost. */
		cr_assert_eq(s.sum + fd_event_drain(fd), 1u);
	}
	cr_assert_eq(loop_in_flight(loop), 0u);
	close(fd);
	loop_destroy(loop);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

BOTH(timers_fire_in_order_and_not_early)
{
	struct loop *loop = make(*backend, 0);
	struct seen late, soon, never;
	uint64_t start = now_ns();

	seen_init(&late, loop);
	seen_init(&soon, loop);
	seen_init(&never, loop);
	loop_timer(loop, &never.op, 3600ull * 1000000000u);
	loop_timer(loop, &late.op, 20000000);
	loop_timer(loop, &soon.op, 1000000);
	until(loop, &late, 1);
	cr_assert_geq(now_ns() - start, 20000000u);
	cr_assert_eq(soon.calls, 1u);
	cr_assert_lt(soon.order, late.order);
	cr_assert_eq(late.result, 0);
	cr_assert_eq(never.calls, 0u);
	loop_cancel(loop, &never.op);
	until(loop, &never, 1);
	cr_assert_eq(never.result, -ECANCELED);
	loop_timer(loop, &soon.op, 0);
	until(loop, &soon, 2);
	cr_assert_eq(soon.result, 0);
	cr_assert_eq(loop_in_flight(loop), 0u);
	loop_destroy(loop);
}

BOTH(poll_reports_the_mask_once)
{
	struct loop *loop = make(*backend, 0);
	struct seen in, out;
	int sv[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	seen_init(&in, loop);
	seen_init(&out, loop);
	loop_poll(loop, &in.op, sv[0], POLLIN);
	loop_poll(loop, &out.op, sv[0], POLLOUT);
	until(loop, &out, 1);
	cr_assert(out.result & POLLOUT);
	cr_assert_eq(in.calls, 0u);
	cr_assert_eq(write(sv[1], "x", 1), 1);
	until(loop, &in, 1);
	cr_assert(in.result & POLLIN);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(loop_iterate(loop, false), 0);
	cr_assert_eq(in.calls, 1u);
	/* Level: what is still ready is reported again when asked again. */
	loop_poll(loop, &in.op, sv[0], POLLIN);
	until(loop, &in, 2);
	cr_assert(in.result & POLLIN);
	cr_assert_eq(read(sv[0], (char[1]){0}, 1), 1);
	loop_poll(loop, &in.op, sv[0], POLLIN);
	cr_assert_eq(loop_iterate(loop, false), 0);
	loop_cancel(loop, &in.op);
	until(loop, &in, 3);
	cr_assert_eq(in.result, -ECANCELED);
	close(sv[0]);
	close(sv[1]);
	loop_destroy(loop);
}

BOTH(cancelled_reads_end_once)
{
	struct loop *loop = make(*backend, 0);
	struct seen a, b, file;
	char buf[4];
	int fd[2], disk = temp_file();

	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	cr_assert_eq(write(disk, "disk", 4), 4);
	seen_init(&a, loop);
	seen_init(&b, loop);
	seen_init(&file, loop);
	/* Before it was submitted, after it, and one that completes at once. */
	loop_read(loop, &a.op, fd[0], buf, 4, -1);
	loop_cancel(loop, &a.op);
	cr_assert_eq(a.calls, 0u);
	until(loop, &a, 1);
	cr_assert_eq(a.result, -ECANCELED);
	loop_read(loop, &b.op, fd[0], buf, 4, -1);
	cr_assert_eq(loop_iterate(loop, false), 0);
	loop_cancel(loop, &b.op);
	until(loop, &b, 1);
	cr_assert_eq(b.result, -ECANCELED);
	loop_read(loop, &file.op, disk, buf, 4, 0);
	cr_assert_eq(loop_flush(loop), 0);
	loop_cancel(loop, &file.op);
	until(loop, &file, 1);
	cr_assert(file.result == 4 || file.result == -ECANCELED);
	loop_cancel(loop, &file.op); /* harmless */
	/* The same op again at once: the old cancellation does not hit it. */
	cr_assert_eq(write(fd[1], "next", 4), 4);
	loop_read(loop, &b.op, fd[0], buf, 4, -1);
	until(loop, &b, 2);
	cr_assert_eq(b.result, 4);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(loop_iterate(loop, false), 0);
	cr_assert_eq(a.calls + b.calls + file.calls, 4u);
	cr_assert_eq(loop_in_flight(loop), 0u);
	close(fd[0]);
	close(fd[1]);
	close(disk);
	loop_destroy(loop);
}

BOTH(a_callback_may_cancel_another_op_that_is_ready_too)
{
	struct loop *loop = make(*backend, 0);
	struct seen a, b;
	int fa = fd_eventfd(), fb = fd_eventfd();

	seen_init(&a, loop);
	seen_init(&b, loop);
	a.cancel_other = &b;
	b.cancel_other = &a;
	fd_event_signal(fa);
	fd_event_signal(fb);
	loop_poll(loop, &a.op, fa, POLLIN);
	loop_poll(loop, &b.op, fb, POLLIN);
	while (loop_in_flight(loop))
		cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_eq(a.calls, 1u);
	cr_assert_eq(b.calls, 1u);
	close(fa);
	close(fb);
	loop_destroy(loop);
}

enum { MANY = 600 };

BOTH(more_operations_than_the_depth_are_no_error)
{
	static struct seen many[MANY];
	struct loop *loop = make(*backend, 4);
	unsigned int calls = 0, before;
	char buf[1];
	int fd[2], disk = temp_file();

	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	cr_assert_eq(write(disk, "x", 1), 1);
	for (unsigned int i = 0; i < MANY; i++) {
		seen_init(&many[i], loop);
		if (i & 1)
			loop_read(loop, &many[i].op, disk, buf, 1, 0);
		else
			loop_poll(loop, &many[i].op, fd[0], POLLIN);
	}
	cr_assert_eq(loop_in_flight(loop), (unsigned int)MANY);
	for (unsigned int i = 0; i < MANY; i += 4)
		loop_cancel(loop, &many[i].op);
	while (loop_in_flight(loop) > MANY / 4)
		cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_eq(write(fd[1], "x", 1), 1);
	while (loop_in_flight(loop))
		cr_assert_eq(loop_iterate(loop, true), 0);
	for (unsigned int i = 0; i < MANY; i++) {
		before = calls;
		calls += many[i].calls;
		cr_assert_eq(calls, before + 1);
		cr_assert_eq(many[i].result,
			     i & 1        ? 1
			     : i % 4 == 0 ? -ECANCELED
					  : POLLIN,
			     "%u: %d", i, many[i].result);
	}
	close(fd[0]);
	close(fd[1]);
	close(disk);
	loop_destroy(loop);
}

struct poster {
	struct loop *loop;
	struct loop_op op;
	_Atomic unsigned int ran;
	_Atomic unsigned int queued;
	unsigned int plain; /* written by the loop only: TSan checks the hand-over */
};

enum { POSTERS = 4, POSTS = 5000 };

static void posted(struct loop_op *op, int result)
{
	struct poster *p = container_of(op, struct poster, op);

	cr_assert_eq(result, 0);
	cr_assert(loop_is_mine(p->loop));
	p->plain++;
	p->ran++;
}

static void *poster_main(void *opaque)
{
	struct poster *p = opaque;

	for (int i = 0; i < POSTS; i++) {
		if (loop_post(p->loop, &p->op))
			p->queued++;
		/* Each must be seen without anything else happening: no lost wake-up. */
		if (i % 8 == 0)
			while (p->ran < p->queued)
				sched_yield();
	}
	while (p->ran < p->queued)
		sched_yield();
	cr_assert(!loop_is_mine(p->loop));
	return NULL;
}

static void *loop_main(void *opaque)
{
	cr_assert_eq(loop_run(opaque), 0);
	return NULL;
}

BOTH(posts_from_other_threads_all_run)
{
	struct loop *loop = make(*backend, 0);
	struct poster posters[POSTERS] = {{0}};
	pthread_t threads[POSTERS], runner;

	cr_assert(loop_is_mine(loop), "nobody runs it");
	pthread_create(&runner, NULL, loop_main, loop);
	for (int i = 0; i < POSTERS; i++) {
		posters[i].loop = loop;
		posters[i].op.done = posted;
		pthread_create(&threads[i], NULL, poster_main, &posters[i]);
	}
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	loop_stop(loop);
	pthread_join(runner, NULL);
	for (int i = 0; i < POSTERS; i++) {
		cr_assert_eq(posters[i].ran, posters[i].queued);
		cr_assert_eq(posters[i].plain, posters[i].queued);
	}
	loop_destroy(loop);
}

BOTH(stop_may_come_before_run)
{
	struct loop *loop = make(*backend, 0);

	loop_stop(loop);
	cr_assert_eq(loop_run(loop), 0);
	loop_destroy(loop);
}

BOTH(another_thread_may_take_over_after_the_first_ended)
{
	struct loop *loop = make(*backend, 0);
	struct poster p = {.loop = loop, .op.done = posted};
	struct seen watch, timer;
	pthread_t runner;
	int fd = fd_eventfd();

	seen_init(&watch, loop);
	seen_init(&timer, loop);
	loop_watch(loop, &watch.op, fd);
	loop_timer(loop, &timer.op, 3600ull * 1000000000u);
	pthread_create(&runner, NULL, loop_main, loop);
	loop_post(loop, &p.op);
	while (!p.ran)
		sched_yield();
	loop_stop(loop);
	pthread_join(runner, NULL);
	loop_cancel(loop, &watch.op);
	loop_cancel(loop, &timer.op);
	while (loop_in_flight(loop))
		cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_eq(watch.result, -ECANCELED);
	cr_assert_eq(timer.result, -ECANCELED);
	/* Posting still wakes it: the watch behind it was armed by the thread that is gone. */
	pthread_create(&runner, NULL, loop_main, loop);
	loop_post(loop, &p.op);
	while (p.ran < 2)
		sched_yield();
	loop_stop(loop);
	pthread_join(runner, NULL);
	close(fd);
	loop_destroy(loop);
}

static void *signaller(void *opaque)
{
	fd_event_signal(*(int *)opaque);
	return NULL;
}

static void wait_readable(struct loop *loop)
{
	struct pollfd p = {.fd = loop_fd(loop), .events = POLLIN};
	int n;

	do
		n = poll(&p, 1, 30000);
	while (n < 0 && errno == EINTR);
	cr_assert_eq(n, 1, "the loop's fd stayed silent");
}

BOTH(an_embedder_is_woken_through_the_fd)
{
	struct loop *loop = make(*backend, 0);
	struct poster p = {.loop = loop, .op.done = posted};
	struct seen s, timer, file;
	char buf[1];
	pthread_t thread;
	int fd = fd_eventfd(), disk = temp_file();

	seen_init(&s, loop);
	seen_init(&timer, loop);
	seen_init(&file, loop);
	loop_watch(loop, &s.op, fd);
	for (unsigned int i = 1; i <= 20; i++) {
		cr_assert_eq(loop_iterate(loop, false), 0);
		cr_assert_eq(loop_flush(loop), 0);
		pthread_create(&thread, NULL, signaller, &fd);
		while (s.calls < i) {
			wait_readable(loop);
			cr_assert_eq(loop_iterate(loop, false), 0);
			cr_assert_eq(loop_flush(loop), 0);
		}
		pthread_join(thread, NULL);
	}
	loop_post(loop, &p.op);
	cr_assert_eq(loop_flush(loop), 0);
	while (!p.ran) {
		wait_readable(loop);
		cr_assert_eq(loop_iterate(loop, false), 0);
	}
	loop_timer(loop, &timer.op, 1000000);
	loop_read(loop, &file.op, disk, buf, 1, 0);
	while (!timer.calls || !file.calls) {
		cr_assert_eq(loop_flush(loop), 0);
		wait_readable(loop);
		cr_assert_eq(loop_iterate(loop, false), 0);
	}
	loop_cancel(loop, &s.op);
	while (loop_in_flight(loop)) {
		cr_assert_eq(loop_flush(loop), 0);
		wait_readable(loop);
		cr_assert_eq(loop_iterate(loop, false), 0);
	}
	close(fd);
	close(disk);
	loop_destroy(loop);
}

struct batch {
	struct seen flush;
	struct seen events[3];
	unsigned int defers;
};
static struct batch *the_batch;

static void batch_event(struct loop_op *op, int result)
{
	(void)op;
	(void)result;
	the_batch->flush.order = 0;
	loop_defer(the_batch->flush.loop, &the_batch->flush.op);
}

BOTH(deferred_work_runs_once_after_the_completions_at_hand)
{
	struct loop *loop = make(*backend, 0);
	struct batch b = {0};
	int fd[3];

	the_batch = &b;
	seen_init(&b.flush, loop);
	for (int i = 0; i < 3; i++) {
		fd[i] = fd_eventfd();
		seen_init(&b.events[i], loop);
		b.events[i].op.done = batch_event;
		fd_event_signal(fd[i]);
		loop_poll(loop, &b.events[i].op, fd[i], POLLIN);
	}
	cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_eq(loop_in_flight(loop), 0u);
	cr_assert_eq(b.flush.calls, 1u);
	cr_assert_eq(b.flush.result, 0);
	loop_defer(loop, &b.flush.op);
	cr_assert_eq(loop_iterate(loop, true), 0, "must not sleep on deferred work");
	cr_assert_eq(b.flush.calls, 2u);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	loop_destroy(loop);
}

Test(loop, auto_falls_back_and_absurd_depth_is_refused)
{
	struct loop_config config = {.name = "test", .depth = 1u << 30};
	struct loop *loop = NULL;
	struct err err = ERR_INIT;

	cr_assert_eq(loop_create(&loop, &config, &err), -EINVAL);
	cr_assert(strstr(err.text, "depth"));
	config.depth = 0;
	cr_assert_eq(loop_create(&loop, &config, &err), 0, "%s", err.text);
	cr_assert(!strcmp(loop_backend_name(loop), "io_uring") ||
		  !strcmp(loop_backend_name(loop), "epoll"));
	loop_destroy(loop);
	loop_destroy(NULL);
}

static unsigned int told;

static void hear(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	(void)component;
	cr_assert_leq(level, LOG_INFO);
	if (strstr(text, "io_uring") && strstr(text, "epoll"))
		told++;
}

Test(loop, where_io_uring_is_forbidden_epoll_serves_and_the_log_says_so)
{
	struct log log = {.fn = hear, .level = LOG_INFO};
	struct loop_config config = {.name = "test", .log = &log};
	struct loop *loop = NULL;
	struct err err = ERR_INIT;
	struct seen s;
	int fds = count_fds();

	cr_assert_eq(deny(SYS_io_uring_setup, 0, EPERM), 0);
	cr_assert_eq(loop_create(&loop, &config, &err), 0, "%s", err.text);
	cr_assert_str_eq(loop_backend_name(loop), "epoll");
	cr_assert_eq(told, 1u);
	seen_init(&s, loop);
	loop_timer(loop, &s.op, 1000);
	until(loop, &s, 1);
	loop_destroy(loop);
	config.backend = LOOP_IO_URING;
	cr_assert_eq(loop_create(&loop, &config, &err), -EPERM);
	cr_assert(strstr(err.text, "not permitted"), "%s", err.text);
	cr_assert_eq(count_fds(), fds);
}

static const long creation_calls[] = {SYS_eventfd2, SYS_epoll_create1, SYS_timerfd_create,
				      SYS_epoll_ctl};

ParameterizedTestParameters(loop, each_system_call_of_create_may_fail)
{
	return cr_make_param_array(long, (void *)(uintptr_t)creation_calls,
				   ARRAY_SIZE(creation_calls));
}

ParameterizedTest(long *nr, loop, each_system_call_of_create_may_fail)
{
	struct loop_config config = {.name = "test", .backend = LOOP_EPOLL};
	struct loop *loop = NULL;
	struct err err = ERR_INIT;
	int fds = count_fds();

	cr_assert_eq(deny(*nr, 0, EMFILE), 0);
	cr_assert_eq(loop_create(&loop, &config, &err), -EMFILE, "%ld", *nr);
	cr_assert(strstr(err.text, "loop 'test'"), "%s", err.text);
	cr_assert_null(loop);
	cr_assert_eq(count_fds(), fds, "a descriptor is left");
}

/* The answer to one entry that loop_uring.c never makes, put into the ring that it owns. */
static int foreign(struct loop *loop, void (*prepare)(struct io_uring_sqe *sqe))
{
	struct io_uring *ring = loop->backend; /* struct loop_uring begins with it */
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int result;

	prepare(sqe);
	io_uring_sqe_set_data(sqe, ring);
	cr_assert_geq(io_uring_submit(ring), 0);
	do {
		cr_assert_eq(io_uring_wait_cqe(ring, &cqe), 0);
		result = io_uring_cqe_get_data(cqe) == ring ? cqe->res : INT_MIN;
		io_uring_cqe_seen(ring, cqe);
	} while (result == INT_MIN);
	return result;
}

static void prepare_open(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
}

static void prepare_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_rw(IORING_OP_SOCKET, sqe, AF_UNIX, NULL, 0, SOCK_STREAM);
}

static void prepare_send(struct io_uring_sqe *sqe)
{
	io_uring_prep_send(sqe, 1, "", 1, 0);
}

static void prepare_linked(struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_add(sqe, 0, POLLOUT);
	sqe->flags |= IOSQE_IO_LINK;
}

Test(loop, the_ring_does_nothing_that_the_loop_does_not)
{
	struct loop *loop = make(LOOP_IO_URING, 0);
	struct io_uring *ring = loop->backend;
	int fd = 0;

	cr_expect_eq(foreign(loop, prepare_open), -EACCES);
	cr_expect_eq(foreign(loop, prepare_socket), -EACCES);
	cr_expect_eq(foreign(loop, prepare_send), -EACCES);
	cr_expect_eq(foreign(loop, prepare_linked), -EACCES);
	cr_expect_eq(io_uring_register_files(ring, &fd, 1), -EACCES);
	loop_destroy(loop);
}
