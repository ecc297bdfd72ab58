// SPDX-License-Identifier: Apache-2.0
// Sockets of vhost-user daemons, and daemons that go. See vhost_user.h.
#include "machine/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/num.h"
#include "machine/vm.h"
#include "virtio/vhost_device.h"

#define CHANGE_REST_NS (NS_PER_S / 10)
/* A daemon that writes without end shall not keep the machine's thread. */
#define KEEPER_REST_NS (NS_PER_S / 20)
enum { KEEPER_PACKETS = 16 /* at once */ };
/* From a daemon's end to its keeper's word about it. */
#define KEEPER_PATIENCE_NS (2 * (uint64_t)NS_PER_S)

/* --- the document --- */

int config_vhost_user_check(const struct config_vhost_user *c, struct config_device *device,
			    struct err *err)
{
	const char *kind = device->item.schema->what;

	if (c->path && c->fd >= 0)
		return err_set(err, -EINVAL, "%s '%s': give either vhost_user or vhost_user_fd",
			       kind, device->id);
	if (c->keeper_fd >= 0 && c->fd < 0)
		return err_set(err, -EINVAL,
			       "%s '%s': keeper_fd is for a daemon that is given by vhost_user_fd",
			       kind, device->id);
	if (device->viommu)
		return err_set(err, -EINVAL,
			       "%s '%s': a vhost-user daemon does not translate by the virtual "
			       "IOMMU (none has ACCESS_PLATFORM); leave out vhost_user or viommu",
			       kind, device->id);
	device->shares_memory = true;
	return 0;
}

static int connect_daemon(const char *path, const struct config_device *device, int *ret,
			  struct err *err)
{
	const char *kind = device->item.schema->what;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_fd int fd = -1;

	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG,
			       "%s '%s': vhost_user '%s': a socket's name has 1 to %zu characters",
			       kind, device->id, path, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	/* A daemon that has as many clients as it takes shall not keep us waiting. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "%s '%s': socket: %s", kind, device->id,
			       err_name(errno));
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0)
		return err_set(err, -errno,
			       "%s '%s': vhost_user '%s': %s; start its daemon first, for this "
			       "machine alone",
			       kind, device->id, path, err_name(errno));
	*ret = fd;
	fd = -1;
	return 0;
}

static int duplicate(int given, const struct config_device *device, int *ret, struct err *err)
{
	const char *kind = device->item.schema->what;
	struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
	socklen_t bytes = sizeof(int), peer_bytes = sizeof(peer);
	int type = 0, fd = fd_dup(given);

	if (fd < 0)
		return err_set(err, fd, "%s '%s': vhost_user_fd %d: %s", kind, device->id, given,
			       err_name(fd));
	*ret = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_STREAM &&
	    getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0 &&
	    peer.ss_family == AF_UNIX)
		return 0;
	fd_close(ret);
	return err_set(err, -EINVAL,
		       "%s '%s': vhost_user_fd %d is no UNIX stream socket that is connected to a "
		       "daemon",
		       kind, device->id, given);
}

static int duplicate_keeper(int given, const struct config_device *device, int *ret,
			    struct err *err)
{
	const char *kind = device->item.schema->what;
	int type = 0, domain = 0, fd = fd_dup(given);
	socklen_t bytes = sizeof(int);

	if (fd < 0)
		return err_set(err, fd, "%s '%s': keeper_fd %d: %s", kind, device->id, given,
			       err_name(fd));
	*ret = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_SEQPACKET &&
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX)
		return 0;
	fd_close(ret);
	return err_set(err, -EINVAL,
		       "%s '%s': keeper_fd %d is no UNIX socket of type SOCK_SEQPACKET", kind,
		       device->id, given);
}

static int open_daemon(const struct config_vhost_user *c, const struct config_device *device,
		       int *ret, struct err *err)
{
	*ret = -1;
	return c->path ? connect_daemon(c->path, device, ret, err)
		       : duplicate(c->fd, device, ret, err);
}

int config_vhost_user_hand_over(struct config_vhost_user *c, const struct config_device *device,
				struct err *err)
{
	int rc = c->path ? open_daemon(c, device, &c->fd, err) : 0;

	if (rc)
		return rc;
	free(c->path);
	c->path = NULL;
	return 0;
}

/* --- while it is there --- */

static void report(struct vm_daemon *daemon)
{
	struct vm_device *d = daemon->d;
	char text[512];

	if (daemon->reported)
		return;
	daemon->reported = true;
	snprintf(text, sizeof(text),
		 "its daemon is gone: %s%s%s; its requests are lost: remove the device and add it "
		 "again, with a new daemon",
		 daemon->why, *daemon->said ? ": " : "", daemon->said);
	log_warn(&d->vm->log, d->config->id, "%s", text);
	vm_emit_device(d->vm, HOSPES_EVENT_DEVICE_ERROR, 0, text, d->config->id);
}

static void look(struct vm_daemon *daemon)
{
	struct vm_device *d = daemon->d;

	if (daemon->gone || !d->vdev ||
	    !virtio_vhost_gone(d->vdev, daemon->why, sizeof(daemon->why)))
		return;
	daemon->gone = true;
	if (daemon->keeper_fd < 0 || daemon->keeper_over) {
		report(daemon);
		return;
	}
	/* Its keeper says why, soon. */
	if (!daemon->keeper_rest.in_flight)
		loop_timer(d->vm->loop, &daemon->keeper_rest, KEEPER_PATIENCE_NS);
}

/* One line of its keeper's: false when there is none now. */
static bool hear(struct vm_daemon *daemon)
{
	struct vm_device *d = daemon->d;
	char *said = daemon->said;
	ssize_t n = recv(daemon->keeper_fd, said, sizeof(daemon->said) - 1, MSG_DONTWAIT);

	if (n <= 0) {
		daemon->keeper_over = n == 0 || (errno != EAGAIN && errno != EINTR);
		return false;
	}
	said[n] = '\0';
	for (char *c = said; c < said + n; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	log_info(&d->vm->log, d->config->id, "%s", said);
	return true;
}

/* After a rest, so that it is heard 20 times in a second and no more. */
static void keeper_done(struct loop_op *op, int result)
{
	struct vm_daemon *daemon = container_of(op, struct vm_daemon, keeper);
	unsigned int n = 0;

	if (!daemon->d->vdev || result <= 0)
		return;
	while (n < KEEPER_PACKETS && hear(daemon))
		n++;
	if (!daemon->keeper_over && !daemon->keeper_rest.in_flight)
		loop_timer(daemon->d->vm->loop, &daemon->keeper_rest, KEEPER_REST_NS);
	else if (!daemon->keeper_over)
		loop_poll(daemon->d->vm->loop, &daemon->keeper, daemon->keeper_fd, POLLIN);
	else if (daemon->gone)
		report(daemon);
}

static void keeper_rest_done(struct loop_op *op, int result)
{
	struct vm_daemon *daemon = container_of(op, struct vm_daemon, keeper_rest);

	if (!daemon->d->vdev || result < 0)
		return;
	if (daemon->keeper.in_flight) {
		/* The daemon is gone, and its keeper had its time. */
		report(daemon);
		return;
	}
	loop_poll(daemon->d->vm->loop, &daemon->keeper, daemon->keeper_fd, POLLIN);
	if (daemon->gone)
		loop_timer(daemon->d->vm->loop, &daemon->keeper_rest, KEEPER_PATIENCE_NS);
}

static void watch(struct vm_daemon *daemon)
{
	/* What it says is for whoever asked; here it matters only that it is there. */
	loop_poll(daemon->d->vm->loop, &daemon->watch, daemon->fd, POLLRDHUP);
}

static void watch_done(struct loop_op *op, int result)
{
	struct vm_daemon *daemon = container_of(op, struct vm_daemon, watch);

	if (!daemon->d->vdev)
		return;
	look(daemon);
	if (!daemon->gone && (result > 0 || result == -ECANCELED))
		watch(daemon);
}

/* Its answers may take time, which is the machine's: no more than a tenth of it. */
static void change_done(struct loop_op *op, int result)
{
	struct vm_daemon *daemon = container_of(op, struct vm_daemon, change);
	uint64_t start_ns = clock_ns();

	if (!daemon->d->vdev || daemon->gone)
		return;
	if (result > 0)
		virtio_vhost_take_change(daemon->d->vdev);
	loop_timer(daemon->d->vm->loop, &daemon->rest,
		   MAX(9 * (clock_ns() - start_ns), CHANGE_REST_NS));
}

static void rest_done(struct loop_op *op, int result)
{
	struct vm_daemon *daemon = container_of(op, struct vm_daemon, rest);

	(void)result;
	if (daemon->d->vdev && !daemon->gone && daemon->fd >= 0)
		loop_poll(daemon->d->vm->loop, &daemon->change, daemon->changes_fd, POLLIN);
}

int vm_daemon_open(struct vm_daemon *daemon, struct vm_device *d, const struct config_vhost_user *c,
		   struct err *err)
{
	daemon->d = d;
	daemon->watch.done = watch_done;
	daemon->change.done = change_done;
	daemon->rest.done = rest_done;
	daemon->keeper.done = keeper_done;
	daemon->keeper_rest.done = keeper_rest_done;
	daemon->changes_fd = -1;
	daemon->keeper_fd = daemon->fd = -1;
	if (c->keeper_fd >= 0) {
		int rc = duplicate_keeper(c->keeper_fd, d->config, &daemon->keeper_fd, err);

		if (rc)
			return rc;
	}
	return open_daemon(c, d->config, &daemon->fd, err);
}

int vm_daemon_create(struct vm_daemon *daemon, const struct virtio_vhost_setup *setup,
		     struct err *err)
{
	struct vm_device *d = daemon->d;
	struct virtio_vhost_setup all = *setup;
	struct virtio_device *vdev;
	int rc;

	all.name = d->config->id;
	all.fd = daemon->fd;
	all.gmem = d->vm->gmem;
	all.loops = d->vm->io_loops;
	all.n_loops = d->vm->n_io_loops;
	rc = virtio_vhost_create(&vdev, &all, &d->vm->log, err);
	if (!rc)
		rc = vm_device_plug_virtio(d, vdev, err);
	if (rc)
		return rc;
	watch(daemon);
	if (daemon->keeper_fd >= 0)
		loop_poll(d->vm->loop, &daemon->keeper, daemon->keeper_fd, POLLIN);
	if (virtio_vhost_changes_fd(vdev) < 0)
		return 0;
	daemon->changes_fd = fd_dup(virtio_vhost_changes_fd(vdev));
	if (daemon->changes_fd < 0)
		return err_set(err, daemon->changes_fd, "'%s': %s", d->config->id,
			       err_name(daemon->changes_fd));
	loop_poll(d->vm->loop, &daemon->change, daemon->changes_fd, POLLIN);
	return 0;
}

void vm_daemon_close(struct vm_daemon *daemon)
{
	struct loop *loop = daemon->d ? daemon->d->vm->loop : NULL;

	if (!daemon->d)
		return;
	loop_cancel(loop, &daemon->watch);
	loop_cancel(loop, &daemon->change);
	loop_cancel(loop, &daemon->rest);
	loop_cancel(loop, &daemon->keeper);
	loop_cancel(loop, &daemon->keeper_rest);
	while ((daemon->watch.in_flight || daemon->change.in_flight || daemon->rest.in_flight ||
		daemon->keeper.in_flight || daemon->keeper_rest.in_flight) &&
	       loop_iterate(loop, true) >= 0)
		;
	fd_close(&daemon->fd);
	fd_close(&daemon->keeper_fd);
	fd_close(&daemon->changes_fd);
	daemon->d = NULL;
}

void vm_daemon_status(const struct vm_daemon *daemon, json_t *item)
{
	json_object_set_new(item, "daemon", json_string(daemon->gone ? "gone" : "connected"));
}

int vm_daemon_refuse_move(const struct vm_device *d, struct err *err)
{
	return err_set(
		err, -EOPNOTSUPP,
		"%s '%s': what its daemon (vhost_user) has in its own memory cannot be moved; "
		"remove it first ('hospes ctl NAME remove %s')",
		d->kind->schema.what, d->config->id, d->config->id);
}
