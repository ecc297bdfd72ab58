// SPDX-License-Identifier: Apache-2.0
// Opening taps, vhost-net and the socket of a user-mode network.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "machine/kind_net.h"

static int explain_tap(const struct config_net *net, int error, struct err *err)
{
	switch (error) {
	case EBUSY:
		return err_set(err, -error, "net '%s': tap '%s' is in use by another program",
			       net->base.id, net->tap);
	case EPERM:
		return err_set(
			err, -error,
			"net '%s': tap '%s': permission denied: make it this user's ('sudo ip "
			"tuntap add %s mode tap user $USER'), or hand in an fd",
			net->base.id, net->tap, net->tap);
	case EINVAL:
		return err_set(
			err, -error,
			"net '%s': '%s' is no tap, or was made %s multi_queue; 'sudo ip tuntap "
			"add %s mode tap%s' makes one that fits queues=%u",
			net->base.id, net->tap, net->queues > 1 ? "without" : "with", net->tap,
			net->queues > 1 ? " multi_queue" : "", net->queues);
	default:
		return err_set(err, -error, "net '%s': tap '%s': %s", net->base.id, net->tap,
			       err_name(error));
	}
}

static int open_tap_queue(const struct config_net *net, struct err *err)
{
	struct ifreq ifr = {.ifr_flags = 0};
	cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (net->queues > 1 ? IFF_MULTI_QUEUE : 0);
	int ret;

	if (fd < 0)
		return err_set(err, -errno, "net '%s': /dev/net/tun: %s%s", net->base.id,
			       err_name(errno),
			       errno == ENOENT ? ": load the module (modprobe tun)" : "");
	memcpy(ifr.ifr_name, net->tap, strlen(net->tap) + 1);
	ifr.ifr_flags = (short)flags;
	if (ioctl(fd, TUNSETIFF, &ifr) != 0)
		return explain_tap(net, errno, err);
	ret = fd;
	fd = -1;
	return ret;
}

static int if_ioctl(unsigned long request, struct ifreq *ifr)
{
	cleanup_fd int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return s < 0 || ioctl(s, request, ifr) != 0 ? -errno : 0;
}

static int set_tap_mtu(const struct config_net *net, struct err *err)
{
	struct ifreq ifr = {.ifr_mtu = (int)net->mtu};
	int rc;

	memcpy(ifr.ifr_name, net->tap, strlen(net->tap) + 1);
	rc = if_ioctl(SIOCSIFMTU, &ifr);
	return rc ? err_set(err, rc, "net '%s': tap '%s' cannot have an mtu of %u: %s",
			    net->base.id, net->tap, net->mtu, err_name(rc))
		  : 0;
}

unsigned int open_tap_mtu(int fd, char *name)
{
	struct ifreq ours = {0}, tap = {0}, named = {0};

	if (ioctl(fd, TUNGETIFF, &ours) != 0 || ioctl(fd, SIOCGIFHWADDR, &tap) != 0)
		return 0;
	memcpy(name, ours.ifr_name, IFNAMSIZ);
	name[IFNAMSIZ - 1] = '\0';
	memcpy(named.ifr_name, name, IFNAMSIZ);
	/* One in another namespace may have that name; it does not have that address. */
	if (if_ioctl(SIOCGIFHWADDR, &named) ||
	    memcmp(named.ifr_hwaddr.sa_data, tap.ifr_hwaddr.sa_data, 6) != 0)
		return 0;
	return if_ioctl(SIOCGIFMTU, &named) ? 0 : (unsigned int)named.ifr_mtu;
}

/* A tap that hospes creates is not persistent: it goes with the last fd. */
static int open_tap(const struct config_net *net, int *fds, struct err *err)
{
	bool made = !if_nametoindex(net->tap);

	if (!net->create && made)
		return err_set(
			err, -ENODEV,
			"net '%s': there is no tap '%s': make it by 'sudo ip tuntap add %s mode "
			"tap', or say create=on",
			net->base.id, net->tap, net->tap);
	for (unsigned int i = 0; i < net->queues; i++) {
		fds[i] = open_tap_queue(net, err);
		if (fds[i] < 0)
			return fds[i];
	}
	return made && net->mtu ? set_tap_mtu(net, err) : 0;
}

bool open_net_is_socket(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int check_tap(const struct config_net *net, int fd, struct err *err)
{
	struct ifreq ifr = {0};

	if (ioctl(fd, TUNGETIFF, &ifr) != 0 || !(ifr.ifr_flags & IFF_TAP))
		return err_set(err, -EINVAL, "net '%s': fd %d is no tap, and no socket",
			       net->base.id, net->fd);
	if (!(ifr.ifr_flags & IFF_VNET_HDR) || !(ifr.ifr_flags & IFF_NO_PI))
		return err_set(err, -EINVAL,
			       "net '%s': the tap of fd %d must be opened with IFF_VNET_HDR and "
			       "IFF_NO_PI",
			       net->base.id, net->fd);
	return 0;
}

static int check_socket(const struct config_net *net, int fd, struct err *err)
{
	struct sockaddr_storage peer;
	socklen_t bytes = sizeof(int), peer_bytes = sizeof(peer);
	int type = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_STREAM ||
	    getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) != 0)
		return err_set(err, -EINVAL,
			       "net '%s': the socket of fd %d is no stream that is connected to "
			       "passt",
			       net->base.id, net->fd);
	return 0;
}

/* Of what the document names by number. */
static int duplicate(const struct config_net *net, int *ret, struct err *err)
{
	int flags, rc;

	*ret = fd_dup(net->fd);
	if (*ret < 0)
		return err_set(err, *ret, "net '%s': fd %d: %s", net->base.id, net->fd,
			       err_name(*ret));
	rc = open_net_is_socket(*ret) ? check_socket(net, *ret, err) : check_tap(net, *ret, err);
	if (rc)
		return rc;
	flags = fcntl(*ret, F_GETFL);
	if (flags < 0 || fcntl(*ret, F_SETFL, flags | O_NONBLOCK) != 0)
		return err_set(err, -errno, "net '%s': fd %d: %s", net->base.id, net->fd,
			       err_name(errno));
	return 0;
}

static int connect_socket(const struct config_net *net, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_fd int fd = -1;
	int ret;

	if (strlen(net->socket) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG,
			       "net '%s': socket '%s': longer than %zu characters", net->base.id,
			       net->socket, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, net->socket, strlen(net->socket) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "net '%s': socket: %s", net->base.id, err_name(errno));
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0)
		return err_set(err, -errno,
			       "net '%s': socket '%s': %s; start 'passt --socket %s' first",
			       net->base.id, net->socket, err_name(errno), net->socket);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
		return err_set(err, -errno, "net '%s': socket: %s", net->base.id, err_name(errno));
	ret = fd;
	fd = -1;
	return ret;
}

int open_net(const struct config_net *net, int *fds, struct err *err)
{
	int rc;

	for (unsigned int i = 0; i < net->queues; i++)
		fds[i] = -1;
	if (net->tap) {
		rc = open_tap(net, fds, err);
	} else if (net->socket) {
		fds[0] = connect_socket(net, err);
		rc = fds[0] < 0 ? fds[0] : 0;
	} else {
		rc = duplicate(net, &fds[0], err);
	}
	for (unsigned int i = 0; rc && i < net->queues; i++)
		fd_close(&fds[i]);
	return rc;
}

static int open_one_vhost(const struct config_net *net)
{
	int fd;

	if (net->vhost_fd >= 0)
		return fd_dup(net->vhost_fd);
	fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int open_vhost(const struct config_net *net, int *fds, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < net->queues; i++)
		fds[i] = -1;
	for (unsigned int i = 0; i < net->queues && !rc; i++) {
		int fd = open_one_vhost(net);

		if (fd < 0)
			rc = err_set(err, fd, "net '%s': vhost=on: /dev/vhost-net: %s%s",
				     net->base.id, err_name(fd),
				     fd == -ENOENT ? ": load the module (modprobe vhost_net)" : "");
		else
			fds[i] = fd;
	}
	for (unsigned int i = 0; rc && i < net->queues; i++)
		fd_close(&fds[i]);
	return rc;
}
