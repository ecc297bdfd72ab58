// SPDX-License-Identifier: Apache-2.0
// A debugger's socket in the machine's loop. See server.h.
#include "gdb/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"

enum {
	BACKLOG = 4,
	PACKETS_AT_ONCE = 64, /* then other work of the loop has its turn */
};

struct watched {
	struct loop_op op;
	bool waits; /* in flight */
};

struct gdb_server {
	struct gdb_server_config config;
	struct sockaddr_un address;
	struct stat bound; /* the socket that was made */
	int listen_fd, client_fd;
	struct watched incoming, input, output;
	struct watched again; /* posted: there is more to do */
	bool closing;
	uint8_t bytes[4096];
	size_t at, n; /* of bytes: those that the session has not had */
	struct gdb_session session;
};

/* --- waiting --- */

static void ready(struct loop_op *op, int result)
{
	struct watched *w = container_of(op, struct watched, op);

	(void)result; /* gdb_server_act looks, whatever it is */
	w->waits = false;
}

static void come_again(struct gdb_server *s)
{
	s->again.waits = true;
	loop_post(s->config.loop, &s->again.op);
}

static void wait_for(struct gdb_server *s, struct watched *w, int fd, unsigned int events)
{
	if (w->waits)
		return;
	w->waits = true;
	loop_poll(s->config.loop, &w->op, fd, events);
}

/* --- the client --- */

static void close_client(struct gdb_server *s)
{
	if (s->input.waits)
		loop_cancel(s->config.loop, &s->input.op);
	if (s->output.waits)
		loop_cancel(s->config.loop, &s->output.op);
	s->closing = s->input.waits || s->output.waits;
	/* The ring keeps the file while it polls. */
	if (s->client_fd >= 0)
		shutdown(s->client_fd, SHUT_RDWR);
	fd_close(&s->client_fd);
}

static void lose_client(struct gdb_server *s)
{
	close_client(s);
	log_info(s->config.log, "gdb", "the debugger has gone");
	s->config.lost(s->config.opaque);
}

/* False: it takes no more now, or has gone. */
static bool send_rest(struct gdb_server *s)
{
	struct gdb_session *session = &s->session;

	while (session->sent < session->n_out) {
		ssize_t n = send(s->client_fd, session->out + session->sent,
				 session->n_out - session->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			wait_for(s, &s->output, s->client_fd, POLLOUT);
			return false;
		}
		if (n < 0) {
			if (session->ended)
				close_client(s);
			else
				lose_client(s);
			return false;
		}
		session->sent += (size_t)n;
	}
	return true;
}

/* False: there is nothing now, or never again. */
static bool receive(struct gdb_server *s)
{
	ssize_t n = recv(s->client_fd, s->bytes, sizeof(s->bytes), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN) {
		wait_for(s, &s->input, s->client_fd, POLLIN);
		return false;
	}
	if (n <= 0) {
		lose_client(s);
		return false;
	}
	s->at = 0;
	s->n = (size_t)n;
	return true;
}

static void serve(struct gdb_server *s)
{
	for (unsigned int i = 0; i < PACKETS_AT_ONCE; i++) {
		if (s->output.waits || !send_rest(s))
			return;
		if (s->session.ended) {
			close_client(s);
			return;
		}
		if (s->at == s->n && (s->input.waits || !receive(s)))
			return;
		s->at += gdb_session_input(&s->session, s->bytes + s->at, s->n - s->at);
	}
	come_again(s);
}

/* --- who may --- */

static bool may_debug(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static void admit(struct gdb_server *s, int fd)
{
	s->client_fd = fd;
	s->at = s->n = 0;
	gdb_session_begin(&s->session, s->config.target);
	log_info(s->config.log, "gdb", "a debugger has come");
	if (s->config.attach(s->config.opaque) < 0)
		close_client(s);
}

static void accept_clients(struct gdb_server *s)
{
	/* A loop, since whoever connects in vain is to hear so. */
	for (unsigned int i = 0; i < BACKLOG && !s->closing; i++) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			break;
		if (s->client_fd < 0 && may_debug(fd))
			admit(s, fd);
		else
			close(fd);
	}
	if (!s->closing)
		wait_for(s, &s->incoming, s->listen_fd, POLLIN);
}

void gdb_server_act(struct gdb_server *s)
{
	if (s->client_fd >= 0)
		serve(s);
	s->closing &= s->input.waits || s->output.waits;
	/* While one goes, the next waits at the door. */
	if (!s->incoming.waits && !s->closing)
		accept_clients(s);
	if (s->client_fd >= 0)
		serve(s);
}

bool gdb_server_has_client(const struct gdb_server *s)
{
	return s->client_fd >= 0 && !s->session.ended;
}

void gdb_server_stopped(struct gdb_server *s, const struct gdb_stop *stop)
{
	if (s->client_fd < 0)
		return;
	gdb_session_stopped(&s->session, stop);
	come_again(s);
}

void gdb_server_exited(struct gdb_server *s, uint8_t status)
{
	if (s->client_fd < 0)
		return;
	gdb_session_exited(&s->session, status);
	/* There may be no further iteration. */
	if (send_rest(s))
		close_client(s);
}

/* --- the socket --- */

/* What a machine that was killed has left is replaced; nothing else is. */
static int bind_path(struct gdb_server *s)
{
	const struct sockaddr *address = (const struct sockaddr *)&s->address;
	struct stat st;
	int fd, rc;

	if (bind(s->listen_fd, address, sizeof(s->address)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	if (lstat(s->address.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = fd < 0 || connect(fd, address, sizeof(s->address)) == 0 ? 0 : -errno;
	fd_close(&fd);
	if (rc != -ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(s->address.sun_path) < 0 ||
			       bind(s->listen_fd, address, sizeof(s->address)) < 0
		       ? -errno
		       : 0;
}

static int listen_at(struct gdb_server *s, const char *path, struct err *err)
{
	size_t n = strlen(path);
	int rc;

	if (!n || n >= sizeof(s->address.sun_path))
		return err_set(err, -ENAMETOOLONG,
			       "gdb '%s': %zu bytes; a socket's path has from 1 to %zu", path, n,
			       sizeof(s->address.sun_path) - 1);
	memcpy(s->address.sun_path, path, n);
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0)
		return err_set(err, -errno, "gdb: cannot make a socket: %s", err_name(errno));
	rc = bind_path(s);
	/* Nobody can connect before it listens. */
	if (!rc && (lstat(path, &s->bound) < 0 || chmod(path, 0600) < 0 ||
		    listen(s->listen_fd, BACKLOG) < 0))
		rc = -errno;
	if (rc == -EADDRINUSE)
		return err_set(err, rc, "gdb '%s': a machine listens there; choose another path",
			       path);
	if (rc == -EEXIST)
		return err_set(err, rc, "gdb '%s': exists and is no socket; choose another path",
			       path);
	return rc ? err_set(err, rc, "gdb '%s': cannot listen there: %s", path, err_name(rc)) : 0;
}

static int take_fd(struct gdb_server *s, int fd, struct err *err)
{
	int listens = 0, family = 0, rc;
	socklen_t size = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 || !listens ||
	    family != AF_UNIX)
		return err_set(err, -EINVAL, "gdb.fd %d: no UNIX socket that listens", fd);
	s->listen_fd = fd_dup(fd);
	if (s->listen_fd < 0)
		return err_set(err, s->listen_fd, "gdb.fd %d: %s", fd, err_name(s->listen_fd));
	rc = fcntl(s->listen_fd, F_GETFL);
	if (rc < 0 || fcntl(s->listen_fd, F_SETFL, rc | O_NONBLOCK) < 0)
		return err_set(err, -errno, "gdb.fd %d: %s", fd, err_name(errno));
	return 0;
}

static void remove_path(struct gdb_server *s)
{
	struct stat now;

	/* Confined, it may be unable to: the next machine replaces what is left. */
	if (s->bound.st_ino && lstat(s->address.sun_path, &now) == 0 &&
	    now.st_ino == s->bound.st_ino && now.st_dev == s->bound.st_dev)
		unlink(s->address.sun_path);
}

int gdb_server_create(struct gdb_server **ret, const struct gdb_server_config *config,
		      struct err *err)
{
	struct gdb_server *s;
	int rc;

	if (!mem_new(s))
		return err_set(err, -ENOMEM, "gdb: no memory");
	s->config = *config;
	s->address.sun_family = AF_UNIX;
	s->listen_fd = s->client_fd = -1;
	s->incoming.op.done = s->input.op.done = ready;
	s->output.op.done = s->again.op.done = ready;
	rc = config->path ? listen_at(s, config->path, err) : take_fd(s, config->fd, err);
	s->config.path = NULL; /* the caller's */
	if (rc) {
		gdb_server_destroy(s);
		return rc;
	}
	wait_for(s, &s->incoming, s->listen_fd, POLLIN);
	*ret = s;
	return 0;
}

void gdb_server_destroy(struct gdb_server *s)
{
	if (!s)
		return;
	close_client(s);
	if (s->incoming.waits)
		loop_cancel(s->config.loop, &s->incoming.op);
	while ((s->incoming.waits || s->input.waits || s->output.waits || s->again.waits) &&
	       loop_iterate(s->config.loop, true) >= 0)
		;
	remove_path(s);
	fd_close(&s->listen_fd);
	free(s);
}
