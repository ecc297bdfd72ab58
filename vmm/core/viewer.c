// SPDX-License-Identifier: Apache-2.0
// A viewer of a console: a ring of what he has yet to be sent.
#include "core/viewer.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/num.h"

enum { GATHER_NS = 1000000 /* output waits this long for more */ };

static void close_it(struct viewer *v)
{
	uint8_t *ring;

	v->ending = false;
	fd_close(&v->fd);
	pthread_mutex_lock(&v->lock);
	ring = v->ring;
	v->ring = NULL;
	pthread_mutex_unlock(&v->lock);
	free(ring);
}

/* Lock held. */
static void add(struct viewer *v, const uint8_t *bytes, size_t n)
{
	size_t tail = (v->head + v->count) % VIEWER_BYTES, first = MIN(n, VIEWER_BYTES - tail);

	memcpy(v->ring + tail, bytes, first);
	memcpy(v->ring, bytes + first, n - first);
	v->count += n;
}

/* Behind what was lost, and only now is there room to say so. Lock held. */
static void say_lost(struct viewer *v)
{
	char text[80];
	int n;

	if (v->count || !v->lost)
		return;
	n = snprintf(text, sizeof(text), "\r\n[hospes: %" PRIu64 " bytes are missing here]\r\n",
		     v->lost);
	v->lost = 0;
	add(v, (const uint8_t *)text, (size_t)n);
}

/* What can be sent from the ring in one call. Only the loop's thread moves the head, so the span
 * stays. */
static size_t next_span(struct viewer *v, const uint8_t **from)
{
	size_t n;

	pthread_mutex_lock(&v->lock);
	say_lost(v);
	*from = v->ring + v->head;
	n = MIN(v->count, VIEWER_BYTES - v->head);
	pthread_mutex_unlock(&v->lock);
	return n;
}

static void sent(struct viewer *v, size_t n)
{
	pthread_mutex_lock(&v->lock);
	v->head = (v->head + n) % VIEWER_BYTES;
	v->count -= n;
	pthread_mutex_unlock(&v->lock);
}

/* As far as the socket takes it, and no more than a ring full at a time. 0: all; -EAGAIN: not now;
 * or he is gone. */
static int send_all(struct viewer *v)
{
	const uint8_t *from;
	size_t n;

	for (size_t all = 0; all < VIEWER_BYTES && (n = next_span(v, &from)); all += n) {
		ssize_t result = send(v->fd, from, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (result < 0 && errno == EINTR)
			result = 0;
		if (result < 0)
			return -errno;
		n = (size_t)result;
		sent(v, n);
	}
	return 0;
}

static void gather(struct viewer *v)
{
	if (v->op.in_flight || !atomic_load(&v->on))
		return;
	loop_timer(v->loop, &v->op, GATHER_NS);
}

/* Is there more to do? If not, the next byte has to say so. */
static bool is_busy(struct viewer *v)
{
	bool busy;

	pthread_mutex_lock(&v->lock);
	busy = v->busy = v->count || v->lost;
	pthread_mutex_unlock(&v->lock);
	return busy;
}

static void op_done(struct loop_op *op, int result)
{
	struct viewer *v = container_of(op, struct viewer, op);
	int ret;

	(void)result;
	if (v->ending) {
		close_it(v);
		return;
	}
	ret = send_all(v);
	if (ret == -EAGAIN)
		loop_poll(v->loop, op, v->fd, POLLOUT);
	else if (ret)
		atomic_store(&v->on, false); /* the device finds the end of its input */
	else if (is_busy(v))
		gather(v);
}

static void kick_done(struct loop_op *op, int result)
{
	struct viewer *v = container_of(op, struct viewer, kick);

	(void)result;
	pthread_mutex_lock(&v->lock);
	v->posted = false;
	pthread_mutex_unlock(&v->lock);
	gather(v);
}

void viewer_put(struct viewer *v, const void *bytes, size_t n)
{
	size_t room;

	if (!n || !atomic_load(&v->on))
		return;
	pthread_mutex_lock(&v->lock);
	if (v->ring) {
		room = v->lost ? 0 : MIN(n, VIEWER_BYTES - v->count);
		add(v, bytes, room);
		v->lost += n - room;
		if (!v->busy) {
			v->busy = v->posted = true;
			loop_post(v->loop, &v->kick);
		}
	}
	pthread_mutex_unlock(&v->lock);
}

bool viewer_is_there(const struct viewer *v)
{
	struct pollfd end = {.fd = v->fd, .events = POLLRDHUP};

	return v->fd >= 0 && !v->ending && atomic_load(&v->on) && poll(&end, 1, 0) == 0;
}

int viewer_fd(const struct viewer *v)
{
	return v->ending ? -1 : v->fd;
}

void viewer_end(struct viewer *v)
{
	if (v->fd < 0 || v->ending)
		return;
	atomic_store(&v->on, false);
	v->ending = true;
	if (v->op.in_flight)
		loop_cancel(v->loop, &v->op);
	else
		close_it(v);
}

static void wait_for_end(struct viewer *v)
{
	while (v->fd >= 0 && loop_iterate(v->loop, true) >= 0)
		;
}

static int check(int fd, struct err *err)
{
	int type = 0;
	socklen_t n = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM)
		return 0;
	return err_set(err, -EINVAL, "fd %d is no stream socket; use one end of a socketpair", fd);
}

static void say_farewell(struct viewer *v)
{
	static const char text[] = "\r\n[hospes: somebody else has taken this console]\r\n";

	if (v->fd >= 0 && !v->ending && send_all(v) == 0)
		(void)!send(v->fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int viewer_begin(struct viewer *v, int fd, struct err *err)
{
	int ret = check(fd, err), ours;
	uint8_t *ring;

	if (ret)
		return ret;
	ours = fd_dup(fd);
	if (ours < 0)
		return err_set(err, ours, "fd %d: %s", fd, err_name(ours));
	ring = malloc(VIEWER_BYTES);
	if (!ring) {
		fd_close(&ours);
		return err_set(err, -ENOMEM, "no memory for what a viewer has yet to read");
	}
	say_farewell(v);
	viewer_end(v);
	wait_for_end(v);
	pthread_mutex_lock(&v->lock);
	v->ring = ring;
	v->head = v->count = 0;
	v->lost = 0;
	v->busy = false;
	pthread_mutex_unlock(&v->lock);
	v->fd = ours;
	atomic_store(&v->on, true);
	return 0;
}

void viewer_init(struct viewer *v, struct loop *loop)
{
	*v = (struct viewer){.loop = loop, .fd = -1};
	v->kick.done = kick_done;
	v->op.done = op_done;
	pthread_mutex_init(&v->lock, NULL);
}

static bool is_posted(struct viewer *v)
{
	bool posted;

	pthread_mutex_lock(&v->lock);
	posted = v->posted;
	pthread_mutex_unlock(&v->lock);
	return posted;
}

void viewer_done(struct viewer *v)
{
	if (!v->loop)
		return;
	if (v->fd >= 0 && !v->ending && atomic_load(&v->on))
		(void)send_all(v);
	viewer_end(v);
	wait_for_end(v);
	while (is_posted(v) && loop_iterate(v->loop, true) >= 0)
		;
	pthread_mutex_destroy(&v->lock);
	v->loop = NULL;
}
