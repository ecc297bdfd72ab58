// SPDX-License-Identifier: Apache-2.0
// The public functions: a listening socket and its connections behind one epoll descriptor.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "control/connection.h"
#include "control/server.h"

enum {
	CONNECTIONS_MAX = 64,
	STREAMS_MAX = 16, /* of them, readers of events */
	BATCH = 16,       /* sockets served, and accepted, in one iteration */
};

/* For a request to be complete, and for an answer to be taken. */
#define LIMIT_NS 10000000000u
/* While accept fails for want of descriptors or memory. */
#define ACCEPT_RETRY_NS 1000000000u

struct hospes_control {
	struct events events;
	struct connection_env env;
	int epoll_fd, listen_fd, wake_fd, timer_fd; /* -1: not yet */
	bool accepts;                               /* listen_fd is watched */
	uint64_t accepts_again_ns;                  /* when not */
	uint64_t timer_ns;                          /* when it fires; 0: it does not */
	uint64_t limit_ns;
	unsigned int n_connections, n_streams;
	TAILQ_HEAD(connection_list, connection)
	connections; /* the one that spoke last at the end */
};

static int set_error(struct hospes_error *error, int rc, const char *what)
{
	if (!error)
		return rc;
	error->code = rc;
	snprintf(error->text, sizeof(error->text), "%s%s%s", what, rc ? ": " : "",
		 rc ? strerror(-rc) : "");
	return rc;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int hospes_control_create(struct hospes_control **control, struct hospes_error *error)
{
	struct hospes_control *c = calloc(1, sizeof(*c));

	*control = c;
	if (!c)
		return set_error(error, -ENOMEM, "control");
	c->epoll_fd = c->listen_fd = c->wake_fd = c->timer_fd = -1;
	c->limit_ns = LIMIT_NS;
	events_init(&c->events);
	TAILQ_INIT(&c->connections);
	return set_error(error, 0, "");
}

void control_set_limit(struct hospes_control *control, uint64_t limit_ns)
{
	control->limit_ns = limit_ns;
}

void hospes_control_event(struct hospes_control *control, const struct hospes_event *event)
{
	events_add(&control->events, event);
}

/* --- connections --- */

static void drop(struct hospes_control *c, struct connection *connection)
{
	if (connection->state == CONNECTION_STREAMING)
		c->n_streams--;
	/* Closing does not do it where somebody has a copy: a child of this process, until it
	 * executes something. */
	epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
	TAILQ_REMOVE(&c->connections, connection, link);
	c->n_connections--;
	connection_destroy(connection);
}

/* Watch what it waits for now; what was pending for the old choice is looked at again. */
static bool watch(struct hospes_control *c, struct connection *connection, int op)
{
	struct epoll_event event = {.events = connection_wants(connection), .data.ptr = connection};

	if (op == EPOLL_CTL_MOD && event.events == connection->watched)
		return true;
	connection->watched = event.events;
	return epoll_ctl(c->epoll_fd, op, connection->fd, &event) == 0;
}

static void serve(struct hospes_control *c, struct connection *connection, uint32_t revents)
{
	bool streamed = connection->state == CONNECTION_STREAMING;
	bool there;

	connection->may_stream = c->n_streams < STREAMS_MAX;
	there = connection_work(connection, &c->env, revents, now() + c->limit_ns);
	if (!streamed && connection->state == CONNECTION_STREAMING)
		c->n_streams++;
	if (!there || !watch(c, connection, EPOLL_CTL_MOD)) {
		drop(c, connection);
		return;
	}
	if (revents) {
		TAILQ_REMOVE(&c->connections, connection, link);
		TAILQ_INSERT_TAIL(&c->connections, connection, link);
	}
}

/* Say why, as far as the client takes it at once, and close. */
static void turn_away(int fd, int status, const char *code, const char *text, const char *remedy)
{
	struct connection *connection = connection_create(fd);

	if (!connection) {
		close(fd);
		return;
	}
	connection_refuse(connection, status, code, text, remedy, 0);
	connection_work(connection, NULL, EPOLLOUT, 0);
	connection_destroy(connection);
}

static bool reads(const struct connection *connection)
{
	return connection->state == CONNECTION_READING;
}

/* Of those that fit, the one that has been silent for longest; NULL: none. */
static struct connection *find(struct hospes_control *c,
			       bool (*fits)(const struct connection *connection))
{
	struct connection *connection = TAILQ_FIRST(&c->connections);

	while (connection && !fits(connection))
		connection = TAILQ_NEXT(connection, link);
	return connection;
}

/* A newcomer takes the place of who says nothing, or else does not finish a request. False: all are
 * busy. */
static bool make_room(struct hospes_control *c)
{
	struct connection *connection;

	if (c->n_connections < CONNECTIONS_MAX)
		return true;
	connection = find(c, connection_is_idle);
	if (!connection)
		connection = find(c, reads);
	if (!connection)
		return false;
	drop(c, connection);
	return true;
}

static bool may_control(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static void admit(struct hospes_control *c, int fd)
{
	struct connection *connection;

	if (!may_control(fd)) {
		turn_away(fd, 403, "forbidden", "the machine belongs to another user",
			  "connect as the user of the machine, or as root");
		return;
	}
	if (!make_room(c)) {
		turn_away(fd, 503, "busy", "too many connections", "close one of them");
		return;
	}
	connection = connection_create(fd);
	if (!connection) {
		close(fd);
		return;
	}
	TAILQ_INSERT_TAIL(&c->connections, connection, link);
	c->n_connections++;
	if (!watch(c, connection, EPOLL_CTL_ADD))
		drop(c, connection);
}

static int watch_listener(struct hospes_control *c, bool accepts)
{
	struct epoll_event event = {.events = accepts ? EPOLLIN : 0, .data.ptr = &c->listen_fd};

	c->accepts = accepts;
	return epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->listen_fd, &event) ? -errno : 0;
}

static void accept_some(struct hospes_control *c)
{
	for (unsigned int i = 0; i < BATCH; i++) {
		int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			admit(c, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			/* The socket stays readable: look away for a while. */
			c->accepts_again_ns = now() + ACCEPT_RETRY_NS;
			watch_listener(c, false);
		}
		return;
	}
}

/* --- time --- */

static void drop_late(struct hospes_control *c)
{
	struct connection *connection = TAILQ_FIRST(&c->connections), *next;
	uint64_t now_ns = now();

	for (; connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		if (connection->deadline_ns && connection->deadline_ns <= now_ns)
			drop(c, connection);
	}
	if (!c->accepts && c->accepts_again_ns <= now_ns)
		watch_listener(c, true);
}

/* For the earliest deadline; nothing fires while there is none. */
static void set_timer(struct hospes_control *c)
{
	uint64_t first = c->accepts ? 0 : c->accepts_again_ns;
	struct itimerspec spec = {0};

	for (struct connection *connection = TAILQ_FIRST(&c->connections); connection;
	     connection = TAILQ_NEXT(connection, link)) {
		uint64_t deadline = connection->deadline_ns;

		if (deadline && (!first || deadline < first))
			first = deadline;
	}
	if (first == c->timer_ns)
		return;
	c->timer_ns = first;
	spec.it_value.tv_sec = (time_t)(first / 1000000000u);
	spec.it_value.tv_nsec = (long)(first % 1000000000u);
	timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* --- the public functions --- */

static void close_fds(struct hospes_control *c)
{
	int *fds[] = {&c->epoll_fd, &c->listen_fd, &c->wake_fd, &c->timer_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static int add(struct hospes_control *c, int *fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = fd};

	return *fd >= 0 && epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, *fd, &event) == 0 ? 0 : -errno;
}

static int open_fds(struct hospes_control *c, int listen_fd)
{
	int flags = fcntl(listen_fd, F_GETFL), listens = 0, rc;
	socklen_t size = sizeof(listens);

	if (flags < 0 || getsockopt(listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size))
		return -errno;
	if (!listens)
		return -EINVAL;
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->listen_fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, 0);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->epoll_fd < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	rc = add(c, &c->listen_fd);
	if (!rc)
		rc = add(c, &c->wake_fd);
	return rc ? rc : add(c, &c->timer_fd);
}

int hospes_control_serve(struct hospes_control *control, struct hospes_vm *vm, int listen_fd,
			 struct hospes_error *error)
{
	int rc = control->epoll_fd >= 0 ? -EBUSY : open_fds(control, listen_fd);

	if (rc == -EBUSY)
		return set_error(error, rc, "control: it serves already");
	if (rc) {
		close_fds(control);
		return set_error(error, rc, "control: a socket that listens is needed");
	}
	control->accepts = true;
	control->env = (struct connection_env){.vm = vm, .events = &control->events};
	events_wake(&control->events, control->wake_fd);
	return set_error(error, 0, "");
}

int hospes_control_fd(struct hospes_control *control)
{
	return control->epoll_fd >= 0 ? control->epoll_fd : -EINVAL;
}

static void pump_events(struct hospes_control *c)
{
	struct connection *connection = TAILQ_FIRST(&c->connections), *next;

	for (; connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		if (connection->state == CONNECTION_STREAMING)
			serve(c, connection, 0);
	}
}

static void drain(int fd)
{
	uint64_t count;

	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

int hospes_control_iterate(struct hospes_control *control)
{
	struct hospes_control *c = control;
	bool accepts = false, pumps = false, late = false;
	struct epoll_event events[BATCH];
	int n;

	if (c->epoll_fd < 0)
		return -EINVAL;
	n = epoll_wait(c->epoll_fd, events, BATCH, 0);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	/* First the connections: what comes after them may close some. */
	for (int i = 0; i < n; i++) {
		const void *source = events[i].data.ptr;

		if (source == &c->listen_fd)
			accepts = true;
		else if (source == &c->wake_fd)
			pumps = true;
		else if (source == &c->timer_fd)
			late = true;
		else
			serve(c, events[i].data.ptr, events[i].events);
	}
	if (pumps) {
		drain(c->wake_fd);
		pump_events(c);
	}
	if (late) {
		drain(c->timer_fd);
		c->timer_ns = 0;
		drop_late(c);
	}
	if (accepts && c->accepts)
		accept_some(c);
	set_timer(c);
	return 0;
}

void hospes_control_destroy(struct hospes_control *control)
{
	struct hospes_control *c = control;

	if (!c)
		return;
	while (!TAILQ_EMPTY(&c->connections))
		drop(c, TAILQ_FIRST(&c->connections));
	events_wake(&c->events, -1);
	close_fds(c);
	events_done(&c->events);
	free(c);
}
