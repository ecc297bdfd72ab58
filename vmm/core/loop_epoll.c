// SPDX-License-Identifier: Apache-2.0
// The epoll backend of the event loop, for hosts that forbid io_uring.
//
// What can be waited for (streams, polls, watches, timers through one timerfd) is; the rest (reads
// and writes at an offset, fsync, fallocate) is done in the loop's thread in the turn after it was
// asked for. An fd is registered while an op waits for it and not a moment longer: closed fds with
// copies elsewhere would otherwise stay in the set.
#include "core/loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"

enum {
	EVENTS = 64,
	/* A tty accepts at least this much without blocking when it says it is writable. */
	SAFE_WRITE_BYTES = 256,
};

enum place {
	PLACE_FD,      /* in the list of its fd's slot */
	PLACE_READY,   /* to be done in the next iteration */
	PLACE_TIMER,   /* in the list of timers */
	PLACE_WAITING, /* no slot was free */
	PLACE_NOWHERE,
};

/* One fd somebody waits for. */
struct slot {
	int fd;
	uint32_t mask;
	uint32_t generation; /* counts uses, so that an event for a former use is recognised */
	struct list ops;
	struct slot *next; /* in its bucket, or among the free */
};

/* The thread's that runs the loop. */
struct loop_epoll {
	int fd;
	int timer_fd;
	struct list ready;
	struct list timers; /* soonest first */
	struct list waiting;
	struct slot *slots;
	struct slot *free;
	struct slot **buckets;
	unsigned int n; /* of slots and of buckets, a power of two */
	int pass;
};

static struct loop_epoll *ep(struct loop *loop)
{
	return loop->backend;
}

static void epoll_destroy(struct loop *loop)
{
	struct loop_epoll *e = ep(loop);

	if (!e)
		return;
	fd_close(&e->fd);
	fd_close(&e->timer_fd);
	free(e->slots);
	free(e->buckets);
	free(e);
	loop->backend = NULL;
}

static const uint64_t TIMER_KEY = UINT64_MAX;

static int epoll_backend_create(struct loop *loop, unsigned int depth, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = TIMER_KEY};
	struct loop_epoll *e;
	int rc;

	if (!mem_new(e))
		return err_set(err, -ENOMEM, "no memory");
	loop->backend = e;
	list_init(&e->ready);
	list_init(&e->timers);
	list_init(&e->waiting);
	e->n = (unsigned int)power_of_two_up(depth + 16);
	e->slots = calloc(e->n, sizeof(*e->slots));
	e->buckets = calloc(e->n, sizeof(struct slot *));
	e->fd = epoll_create1(EPOLL_CLOEXEC);
	e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (e->fd < 0 || e->timer_fd < 0 || epoll_ctl(e->fd, EPOLL_CTL_ADD, e->timer_fd, &event)) {
		rc = -errno;
		err_set(err, rc, "epoll: %s", err_name(rc));
		goto fail;
	}
	if (!e->slots || !e->buckets) {
		rc = err_set(err, -ENOMEM, "no memory");
		goto fail;
	}
	for (unsigned int i = 0; i < e->n; i++) {
		list_init(&e->slots[i].ops);
		e->slots[i].next = e->free;
		e->free = &e->slots[i];
	}
	return 0;
fail:
	epoll_destroy(loop);
	return rc;
}

static uint64_t key_of(const struct loop_epoll *e, const struct slot *slot)
{
	return (uint64_t)slot->generation << 32 | (uint64_t)(slot - e->slots);
}

static struct slot **bucket_of(struct loop_epoll *e, int fd)
{
	return &e->buckets[(unsigned int)fd & (e->n - 1)];
}

static struct slot *find_slot(struct loop_epoll *e, int fd)
{
	struct slot *slot = *bucket_of(e, fd);

	while (slot && slot->fd != fd)
		slot = slot->next;
	return slot;
}

static uint32_t interest(const struct loop_op *op)
{
	switch ((enum loop_verb)op->verb) {
	case LOOP_POLL:
		return op->n;
	case LOOP_WRITE:
		return EPOLLOUT;
	default:
		return EPOLLIN;
	}
}

/* Bring the kernel's idea of a slot in line with its ops. */
static int update(struct loop_epoll *e, struct slot *slot)
{
	struct epoll_event event = {.data.u64 = key_of(e, slot)};

	list_for_each (item, &slot->ops)
		event.events |= interest(container_of(item, struct loop_op, link));
	if (event.events == slot->mask)
		return 0;
	if (epoll_ctl(e->fd, slot->mask ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, slot->fd, &event))
		return -errno;
	slot->mask = event.events;
	return 0;
}

static void release(struct loop_epoll *e, struct slot *slot)
{
	struct slot **at = bucket_of(e, slot->fd);

	if (slot->mask)
		epoll_ctl(e->fd, EPOLL_CTL_DEL, slot->fd, NULL);
	slot->mask = 0;
	slot->generation++;
	while (*at != slot)
		at = &(*at)->next;
	*at = slot->next;
	slot->next = e->free;
	e->free = slot;
}

static void leave_fd(struct loop_epoll *e, struct loop_op *op)
{
	struct slot *slot = find_slot(e, op->fd);

	assert(slot);
	list_remove(&op->link);
	op->place = PLACE_NOWHERE;
	if (list_empty(&slot->ops))
		release(e, slot);
	else
		update(e, slot);
}

static void make_ready(struct loop_epoll *e, struct loop_op *op)
{
	op->place = PLACE_READY;
	list_append(&e->ready, &op->link);
}

static void wait_fd(struct loop *loop, struct loop_op *op)
{
	struct loop_epoll *e = ep(loop);
	struct slot *slot = find_slot(e, op->fd);
	int rc;

	if (!slot) {
		slot = e->free;
		if (!slot) {
			op->place = PLACE_WAITING;
			list_append(&e->waiting, &op->link);
			return;
		}
		e->free = slot->next;
		slot->fd = op->fd;
		slot->next = *bucket_of(e, op->fd);
		*bucket_of(e, op->fd) = slot;
	}
	op->place = PLACE_FD;
	op->result = e->pass;
	list_append(&slot->ops, &op->link);
	rc = update(e, slot);
	if (!rc)
		return;
	leave_fd(e, op);
	if (rc == -EPERM && op->verb == LOOP_POLL)
		/* A regular file is always ready, poll(2) says. */
		loop_finish_later(loop, op, (int)(op->n & (EPOLLIN | EPOLLOUT)));
	else if (rc == -EPERM && op->verb != LOOP_WATCH)
		make_ready(e, op);
	else
		loop_finish_later(loop, op, rc);
}

static struct timespec now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts;
}

static bool before(const struct loop_op *op, int64_t sec, int64_t nsec)
{
	return op->when.tv_sec < sec || (op->when.tv_sec == sec && op->when.tv_nsec < nsec);
}

static void set_timer(struct loop_epoll *e)
{
	struct itimerspec spec = {{0, 0}, {0, 0}};

	if (!list_empty(&e->timers)) {
		const struct loop_op *op = container_of(e->timers.next, struct loop_op, link);

		spec.it_value.tv_sec = op->when.tv_sec;
		spec.it_value.tv_nsec = (long)op->when.tv_nsec;
	}
	timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void start_timer(struct loop_epoll *e, struct loop_op *op)
{
	struct timespec ts = now();
	struct list *at;

	op->when.tv_sec += ts.tv_sec;
	op->when.tv_nsec += ts.tv_nsec;
	if (op->when.tv_nsec >= 1000000000) {
		op->when.tv_nsec -= 1000000000;
		op->when.tv_sec++;
	}
	for (at = e->timers.next; at != &e->timers; at = at->next) {
		if (!before(container_of(at, struct loop_op, link), op->when.tv_sec,
			    op->when.tv_nsec + 1))
			break;
	}
	list_append(at, &op->link); /* before the first later one */
	op->place = PLACE_TIMER;
	if (e->timers.next == &op->link)
		set_timer(e);
}

static void epoll_start(struct loop *loop, struct loop_op *op)
{
	switch ((enum loop_verb)op->verb) {
	case LOOP_READ:
	case LOOP_WRITE:
		if (op->offset < 0)
			wait_fd(loop, op);
		else
			make_ready(ep(loop), op);
		break;
	case LOOP_FSYNC:
	case LOOP_FALLOCATE:
		make_ready(ep(loop), op);
		break;
	case LOOP_POLL:
	case LOOP_WATCH:
		wait_fd(loop, op);
		break;
	case LOOP_TIMER:
		start_timer(ep(loop), op);
		break;
	}
}

static void epoll_cancel(struct loop *loop, struct loop_op *op)
{
	bool first = op->place == PLACE_TIMER && ep(loop)->timers.next == &op->link;

	if (op->place == PLACE_FD)
		leave_fd(ep(loop), op);
	else
		list_remove(&op->link);
	if (first)
		set_timer(ep(loop));
	op->place = PLACE_NOWHERE;
	loop_finish_later(loop, op, -ECANCELED);
}

/* Transfer without blocking on an fd that epoll called ready. */
static ssize_t transfer_stream(const struct loop_op *op)
{
	bool writes = op->verb == LOOP_WRITE;
	struct iovec one;
	ssize_t n;

	n = writes ? pwritev2(op->fd, op->iov, (int)op->n, -1, RWF_NOWAIT)
		   : preadv2(op->fd, op->iov, (int)op->n, -1, RWF_NOWAIT);
	if (n >= 0 || errno != EOPNOTSUPP)
		return n < 0 ? -errno : n;
	if (!writes) {
		n = readv(op->fd, op->iov, (int)op->n);
	} else {
		one = op->iov[0];
		one.iov_len = MIN(one.iov_len, (size_t)SAFE_WRITE_BYTES);
		n = writev(op->fd, &one, 1);
	}
	return n < 0 ? -errno : n;
}

static int do_file(const struct loop_op *op)
{
	ssize_t n = -1;

	do {
		switch ((enum loop_verb)op->verb) {
		case LOOP_READ:
			n = op->offset < 0 ? readv(op->fd, op->iov, (int)op->n)
					   : preadv(op->fd, op->iov, (int)op->n, op->offset);
			break;
		case LOOP_WRITE:
			n = op->offset < 0 ? writev(op->fd, op->iov, (int)op->n)
					   : pwritev(op->fd, op->iov, (int)op->n, op->offset);
			break;
		case LOOP_FSYNC:
			n = op->n ? fdatasync(op->fd) : fsync(op->fd);
			break;
		case LOOP_FALLOCATE:
			n = fallocate(op->fd, (int)op->n, op->offset, (off_t)op->value);
			break;
		default:
			assert(!"a verb that waits");
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (int)n;
}

static void handle_op(struct loop *loop, struct loop_op *op, uint32_t mask)
{
	struct loop_epoll *e = ep(loop);
	uint64_t value;
	ssize_t n;

	switch ((enum loop_verb)op->verb) {
	case LOOP_WATCH:
		n = read(op->fd, &value, sizeof(value));
		if (n == (ssize_t)sizeof(value)) {
			loop_watch_event(op, value);
		} else if (n >= 0 || (errno != EAGAIN && errno != EINTR)) {
			n = n < 0 ? -errno : -EINVAL;
			leave_fd(e, op);
			loop_finish(loop, op, (int)n);
		}
		break;
	case LOOP_POLL:
		leave_fd(e, op);
		loop_finish(loop, op, (int)(mask & (op->n | EPOLLERR | EPOLLHUP)));
		break;
	default:
		n = transfer_stream(op);
		if (n == -EAGAIN || n == -EINTR)
			break;
		leave_fd(e, op);
		loop_finish(loop, op, (int)n);
	}
}

/* Each op that waits for one of these events gets one try. Callbacks may change the slot in any
 * way, so the search starts anew after each. */
static void handle_slot(struct loop *loop, uint64_t key, uint32_t mask)
{
	struct loop_epoll *e = ep(loop);
	struct slot *slot = &e->slots[(uint32_t)key];

	while (key_of(e, slot) == key) {
		struct loop_op *op = NULL;

		list_for_each (item, &slot->ops) {
			struct loop_op *o = container_of(item, struct loop_op, link);

			if (o->result != e->pass && (mask & (interest(o) | EPOLLERR | EPOLLHUP))) {
				op = o;
				break;
			}
		}
		if (!op)
			break;
		op->result = e->pass;
		handle_op(loop, op, mask);
	}
}

static void run_timers(struct loop *loop)
{
	struct loop_epoll *e = ep(loop);
	struct timespec ts = now();
	uint64_t ignored;

	/* Level: what is not read stays ready; what was not due is set again. */
	if (read(e->timer_fd, &ignored, sizeof(ignored)) < 0 && errno != EAGAIN)
		return;
	while (!list_empty(&e->timers)) {
		struct loop_op *op = container_of(e->timers.next, struct loop_op, link);

		if (!before(op, ts.tv_sec, ts.tv_nsec + 1))
			break;
		list_remove(&op->link);
		op->place = PLACE_NOWHERE;
		loop_finish(loop, op, 0);
	}
	set_timer(e);
}

static void run_ready(struct loop *loop, struct list *now_ready)
{
	uint64_t bytes = 0;
	struct list *item;

	while (bytes < LOOP_INLINE_BYTES && (item = list_pop(now_ready))) {
		struct loop_op *op = container_of(item, struct loop_op, link);
		int result = do_file(op);

		bytes += loop_op_bytes(op);
		op->place = PLACE_NOWHERE;
		loop_finish(loop, op, result);
	}
	/* The rest is first in the next iteration. */
	while (!list_empty(&ep(loop)->ready))
		list_append(now_ready, list_pop(&ep(loop)->ready));
	while ((item = list_pop(now_ready)))
		list_append(&ep(loop)->ready, item);
}

static void retry_waiting(struct loop *loop)
{
	struct loop_epoll *e = ep(loop);

	while (!list_empty(&e->waiting) && e->free) {
		struct loop_op *op = container_of(e->waiting.next, struct loop_op, link);

		list_remove(&op->link);
		wait_fd(loop, op);
	}
}

static int epoll_iterate(struct loop *loop, bool wait)
{
	struct loop_epoll *e = ep(loop);
	struct epoll_event events[EVENTS];
	struct list ready = LIST_INIT(ready), *item;
	int n;

	retry_waiting(loop);
	while ((item = list_pop(&e->ready)))
		list_append(&ready, item);
	wait = wait && list_empty(&ready) && list_empty(&loop->finished);
	/* Ops that start from now on are not tried for this turn's events. */
	e->pass++;
	n = epoll_wait(e->fd, events, EVENTS, wait ? -1 : 0);
	if (n < 0 && errno != EINTR) {
		n = -errno;
		while ((item = list_pop(&ready)))
			list_append(&e->ready, item);
		return n;
	}
	for (int i = 0; i < n; i++) {
		if (events[i].data.u64 == TIMER_KEY)
			run_timers(loop);
		else
			handle_slot(loop, events[i].data.u64, events[i].events);
	}
	run_ready(loop, &ready);
	return 0;
}

static int epoll_flush(struct loop *loop)
{
	struct loop_epoll *e = ep(loop);

	retry_waiting(loop);
	if (!list_empty(&e->ready) || !list_empty(&loop->finished))
		loop_wake(loop);
	return 0;
}

static int epoll_fd(struct loop *loop)
{
	return ep(loop)->fd;
}

const struct loop_backend_ops loop_epoll_ops = {
	.name = "epoll",
	.create = epoll_backend_create,
	.destroy = epoll_destroy,
	.start = epoll_start,
	.cancel = epoll_cancel,
	.turn = epoll_iterate,
	.flush = epoll_flush,
	.fd = epoll_fd,
};
