// SPDX-License-Identifier: Apache-2.0
// The socket of a migration. See stream.h.
#include "machine/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/num.h"

#define TICK_NS (NS_PER_S / 2)

static void in_done(struct loop_op *op, int result)
{
	(void)result; /* reading says more */
	container_of(op, struct vm_stream, in)->in_waits = false;
}

static void out_done(struct loop_op *op, int result)
{
	(void)result;
	container_of(op, struct vm_stream, out)->out_waits = false;
}

static void again_done(struct loop_op *op, int result)
{
	(void)result;
	container_of(op, struct vm_stream, again)->again_waits = false;
}

static void timer_done(struct loop_op *op, int result)
{
	struct vm_stream *s = container_of(op, struct vm_stream, timer);

	(void)result;
	s->timer_waits = !s->over;
	if (s->timer_waits)
		loop_timer(s->loop, op, TICK_NS);
}

static int check_socket(int fd, struct err *err)
{
	int type = 0, on = 1, flags = fcntl(fd, F_GETFL);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(type), peer_len = sizeof(peer);

	if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    type != SOCK_STREAM || getpeername(fd, (struct sockaddr *)&peer, &peer_len) < 0)
		return err_set(err, -EINVAL,
			       "migration: fd %d is no connected stream socket; 'hospes ctl NAME "
			       "migrate ADDRESS' connects one and sends it",
			       fd);
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_set(err, -errno, "migration: fd %d: %s", fd, err_name(-errno));
	/* A frame that is answered does not wait for the next. A UNIX socket does not know it. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return 0;
}

int stream_open(struct vm_stream *s, struct loop *loop, int fd, struct err *err)
{
	int rc;

	*s = (struct vm_stream){.loop = loop, .fd = -1, .over = true};
	rc = check_socket(fd, err);
	if (!rc)
		rc = wire_reader_init(&s->reader, err);
	if (rc)
		return rc;
	s->fd = fd_dup(fd);
	if (s->fd < 0) {
		wire_reader_done(&s->reader);
		return err_set(err, s->fd, "migration: %s", err_name(s->fd));
	}
	s->over = false;
	s->in.done = in_done;
	s->out.done = out_done;
	s->again.done = again_done;
	s->timer.done = timer_done;
	s->moved_ns = clock_ns();
	s->timer_waits = true;
	loop_timer(loop, &s->timer, TICK_NS);
	return 0;
}

void stream_shut(struct vm_stream *s)
{
	if (s->over)
		return;
	s->over = true;
	shutdown(s->fd, SHUT_RDWR);
	if (s->in_waits)
		loop_cancel(s->loop, &s->in);
	if (s->out_waits)
		loop_cancel(s->loop, &s->out);
	if (s->timer_waits)
		loop_cancel(s->loop, &s->timer);
}

bool stream_is_busy(const struct vm_stream *s)
{
	return s->in_waits || s->out_waits || s->again_waits || s->timer_waits;
}

void stream_close(struct vm_stream *s, bool turn)
{
	stream_shut(s);
	while (turn && stream_is_busy(s) && loop_iterate(s->loop, true) >= 0)
		;
	fd_close(&s->fd);
	wire_reader_done(&s->reader);
}

void stream_again(struct vm_stream *s)
{
	if (!s->again_waits && !s->over) {
		s->again_waits = true;
		loop_post(s->loop, &s->again);
	}
}

int stream_write(struct vm_stream *s, struct send *send)
{
	while (!send_is_empty(send)) {
		struct msghdr m = {.msg_iov = &send->iov[send->at],
				   .msg_iovlen = send->n_iov - send->at};
		ssize_t n = sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (!s->out_waits) {
				s->out_waits = true;
				loop_poll(s->loop, &s->out, s->fd, POLLOUT);
			}
			return 0;
		}
		if (n < 0)
			return errno == EPIPE ? -ECONNRESET : -errno;
		send_gone(send, (size_t)n);
		s->moved_ns = clock_ns();
	}
	return 1;
}

int stream_read(struct vm_stream *s, struct wire_frame *frame, struct err *err)
{
	int rc = wire_reader_take(&s->reader, frame, err);
	uint8_t *at;
	size_t room;
	ssize_t n;

	if (rc || s->in_waits)
		return rc;
	at = wire_reader_free(&s->reader, &room);
	do
		n = recv(s->fd, at, room, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN) {
		s->in_waits = true;
		loop_poll(s->loop, &s->in, s->fd, POLLIN);
		return 0;
	}
	if (n <= 0)
		return err_set(err, n < 0 ? -errno : -ECONNRESET,
			       "migration: the other side is gone (%s)",
			       n < 0 ? err_name(-errno) : "it has closed the connection");
	wire_reader_filled(&s->reader, (size_t)n);
	s->moved_ns = clock_ns();
	rc = wire_reader_take(&s->reader, frame, err);
	if (!rc)
		stream_again(s); /* there may be more by now */
	return rc;
}

void stream_say(struct vm_stream *s, enum wire_kind kind, const char *text)
{
	size_t n = text ? MIN(strlen(text), (size_t)WIRE_TEXT_MAX) : 0;
	struct wire_head head = wire_head(kind, 0, n);
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)text, n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n ? 2 : 1};

	/* A socket that takes nothing now has a peer that does not listen. */
	if (!s->over)
		(void)!sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

uint64_t stream_still_ns(const struct vm_stream *s)
{
	return clock_ns() - s->moved_ns;
}
