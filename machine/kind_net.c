// SPDX-License-Identifier: Apache-2.0
// Networks: the document's keys, and virtio-net over a tap, a socket or vhost.
#include "machine/kind_net.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/rand.h"
#include "host/links.h"
#include "machine/queues.h"
#include "machine/vm.h"
#include "virtio/net.h"
#include "virtio/vhost_device.h"

struct vm_net {
	struct vm_device d;
	bool is_socket;             /* else a tap */
	unsigned int n;             /* fds of each sort that are ours, until the device has them */
	int fds[CONFIG_NET_QUEUES]; /* or -1 */
	int vhost_fds[CONFIG_NET_QUEUES];
	int links_fd; /* likewise */
	struct vm_daemon daemon;
};

#define AT(member) .offset = offsetof(struct config_net, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(base.id)},
	{"tap", SCHEMA_STRING, AT(tap)},
	{"create", SCHEMA_BOOL, AT(create)},
	{"fd", SCHEMA_FD, AT(fd), .max = INT32_MAX},
	{"socket", SCHEMA_STRING, AT(socket)},
	CONFIG_VHOST_USER_FIELDS(struct config_net, daemon),
	{"mac", SCHEMA_MAC, AT(mac)},
	{"queues", SCHEMA_UINT, AT(queues), .min = 1, .max = CONFIG_NET_QUEUES},
	{"queue_size", SCHEMA_UINT, AT(queue_size), .min = 64, .max = 1024},
	{"mtu", SCHEMA_UINT, AT(mtu), .min = 0, .max = 65535},
	{"vhost", SCHEMA_BOOL, AT(vhost)},
	{"vhost_fd", SCHEMA_FD, AT(vhost_fd), .max = INT32_MAX},
	{"offload", SCHEMA_BOOL, AT(offload)},
	{"link", SCHEMA_BOOL, AT(link)},
	CONFIG_RATE_FIELDS(struct config_net, rate),
	{"moderation_us", SCHEMA_UINT, AT(moderation_us), .max = CONFIG_NET_MODERATION_US_MAX},
	{"viommu", SCHEMA_BOOL, AT(base.viommu)},
	{"addr", SCHEMA_PCI, AT(base.addr)},
	{NULL},
};
static const struct config_net defaults = {.fd = -1,
					   .vhost_fd = -1,
					   .daemon = CONFIG_VHOST_USER_NONE,
					   .queues = 1,
					   .queue_size = 256,
					   .moderation_us = CONFIG_NET_MODERATION_US,
					   .offload = true,
					   .link = true};

static struct config_net *config_of(struct config_device *device)
{
	return container_of(device, struct config_net, base);
}

/* FNV-1a: spreads names over the locally administered addresses; not a secret. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	return (hash ^ 0xff) * 0x100000001b3ull;
}

static void default_mac(const struct config *c, struct config_net *net)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	if (c->name)
		hash = hash_text(hash, c->name);
	else
		rand_bytes(&hash, sizeof(hash));
	hash = hash_text(hash, net->base.id);
	net->mac.set = true;
	net->mac.byte[0] = 0x02; /* locally administered, one station */
	for (int i = 1; i < 6; i++)
		net->mac.byte[i] = (uint8_t)(hash >> (8 * i));
}

static bool has_daemon(const struct config_net *n)
{
	return config_vhost_user_given(&n->daemon);
}

/* What is the daemon's to say. */
static int check_daemon(struct config_net *n, struct err *err)
{
	const char *key = n->queues > 1 ? "queues"
			  : n->vhost    ? "vhost"
			  : !n->offload ? "offload"
					: NULL;

	if (key)
		return err_set(err, -EINVAL,
			       "net '%s': with vhost_user its daemon decides; leave out %s",
			       n->base.id, key);
	return config_vhost_user_check(&n->daemon, &n->base, err);
}

static int check_backend(struct config_net *n, struct err *err)
{
	int ways = (n->tap != NULL) + (n->fd >= 0) + (n->socket != NULL) + has_daemon(n);
	const char *id = n->base.id;

	if (ways != 1)
		return err_set(err, -EINVAL, "net '%s': give one of tap, fd, socket, vhost_user",
			       id);
	if (has_daemon(n))
		return check_daemon(n, err);
	if (n->tap &&
	    (!*n->tap || strlen(n->tap) >= IFNAMSIZ || strchr(n->tap, '/') || strchr(n->tap, '%')))
		return err_set(err, -EINVAL,
			       "net '%s': '%s' is no interface name (1 to %d characters)", id,
			       n->tap, IFNAMSIZ - 1);
	if (!n->tap && n->queues > 1)
		return err_set(err, -EINVAL, "net '%s': %u queues need a tap by name", id,
			       n->queues);
	if (n->socket && n->vhost)
		return err_set(err, -EINVAL, "net '%s': vhost needs a tap", id);
	if (n->vhost_fd >= 0 && (!n->vhost || n->queues > 1))
		return err_set(err, -EINVAL,
			       "net '%s': vhost_fd %d serves one queue of a net with vhost=on", id,
			       n->vhost_fd);
	if (n->base.viommu && n->vhost)
		return err_set(err, -EINVAL,
			       "net '%s': the host kernel's queues (vhost) do not translate by the "
			       "virtual IOMMU; leave out vhost or viommu",
			       id);
	return 0;
}

static int validate(struct config *c, struct config_device *device, struct err *err)
{
	struct config_net *n = config_of(device);
	struct config_device *other = NULL;
	int rc = check_backend(n, err);

	if (!rc)
		rc = config_rate_check(&n->rate, device, n->vhost || has_daemon(n), err);
	if (rc)
		return rc;
	if (!is_power_of_two(n->queue_size))
		return err_set(err, -EINVAL, "net '%s': queue_size %u is not a power of two",
			       device->id, n->queue_size);
	if (n->mtu && n->mtu < 68)
		return err_set(err, -EINVAL, "net '%s': mtu %u; IPv4 needs at least 68", device->id,
			       n->mtu);
	if (!n->mac.set)
		default_mac(c, n);
	while ((other = config_next(c, other, &kind_net)) && other != device) {
		if (memcmp(config_of(other)->mac.byte, n->mac.byte, 6) == 0)
			return err_set(err, -EEXIST, "net '%s' and net '%s' have the same mac",
				       other->id, device->id);
	}
	return 0;
}

static int hand_over(struct config_device *device, const struct kind_receiver *to, struct err *err)
{
	struct config_net *n = config_of(device);
	int rc = check_backend(n, err);

	(void)to;
	if (!rc && has_daemon(n))
		return config_vhost_user_hand_over(&n->daemon, device, err);
	if (!rc && n->queues > 1)
		rc = err_set(err, -EOPNOTSUPP,
			     "net '%s': queues %u: one that comes later has one queue; leave out "
			     "queues",
			     device->id, n->queues);
	if (!rc && n->fd < 0)
		rc = open_net(n, &n->fd, err);
	if (!rc && n->vhost && n->vhost_fd < 0)
		rc = open_vhost(n, &n->vhost_fd, err);
	if (rc)
		return rc;
	free(n->tap);
	free(n->socket);
	n->tap = n->socket = NULL;
	n->create = false;
	return 0;
}

static struct vm_net *of(struct vm_device *d)
{
	return container_of(d, struct vm_net, d);
}

/* A tap that somebody else made is his to change. */
static void check_mtu(struct vm_device *d, const struct config_net *c, int fd)
{
	char name[IFNAMSIZ];
	unsigned int mtu = c->mtu && !of(d)->is_socket ? open_tap_mtu(fd, name) : 0;

	if (mtu && mtu != c->mtu)
		log_warn(&d->vm->log, d->config->id,
			 "the guest gets mtu %u, its tap '%s' has %u: large packets will be lost; "
			 "'sudo ip link set %s mtu %u'",
			 c->mtu, name, mtu, name, c->mtu);
}

static int open_it(struct vm_device *d, struct err *err)
{
	const struct config_net *c = config_of(d->config);
	struct vm_net *net = of(d);
	int rc;

	memset(net->fds, 0xff, sizeof(net->fds));
	memset(net->vhost_fds, 0xff, sizeof(net->vhost_fds));
	net->n = c->queues;
	net->links_fd = -1;
	if (has_daemon(c))
		return vm_daemon_open(&net->daemon, d, &c->daemon, err);
	rc = open_net(c, net->fds, err);
	if (rc)
		return rc;
	net->is_socket = open_net_is_socket(net->fds[0]);
	if (net->is_socket && c->vhost)
		return err_set(err, -EINVAL, "net '%s': vhost needs a tap", d->config->id);
	check_mtu(d, c, net->fds[0]);
	if (!net->is_socket) {
		net->links_fd = host_links_open();
		if (net->links_fd < 0)
			rc = err_set(err, net->links_fd,
				     "net '%s': cannot watch its tap: netlink: %s", d->config->id,
				     err_name(net->links_fd));
	}
	return rc || !c->vhost ? rc : open_vhost(c, net->vhost_fds, err);
}

static int create_served(struct vm_device *d, struct err *err)
{
	const struct config_net *c = config_of(d->config);
	struct virtio_vhost_setup setup = {
		.type = VIRTIO_VHOST_NET,
		.queue_size = c->queue_size,
		.mtu = (uint16_t)c->mtu,
		.link_down = !c->link,
	};

	memcpy(setup.mac, c->mac.byte, sizeof(setup.mac));
	return vm_daemon_create(&of(d)->daemon, &setup, err);
}

static int create(struct vm_device *d, struct err *err)
{
	const struct config_net *c = config_of(d->config);
	struct vm_net *net = of(d);
	struct virtio_net_setup config = {
		.name = d->config->id,
		.backend = net->is_socket ? VIRTIO_NET_SOCKET : VIRTIO_NET_TAP,
		.fds = net->fds,
		.pairs = c->queues,
		.queue_size = c->queue_size,
		.mtu = (uint16_t)c->mtu,
		.link_down = !c->link,
		.offload = c->offload,
		.moderation_us = c->moderation_us,
		.vhost_fds = c->vhost ? net->vhost_fds : NULL,
		.links_fd = net->is_socket ? 0 : net->links_fd,
		.gmem = d->vm->gmem,
		.loops = d->vm->io_loops,
		.n_loops = d->vm->n_io_loops,
	};
	struct virtio_device *vdev;
	int rc;

	if (has_daemon(c))
		return create_served(d, err);
	memcpy(config.mac, c->mac.byte, sizeof(config.mac));
	rc = virtio_net_create(&vdev, &config, &d->vm->log, err);
	if (rc)
		return rc;
	net->n = 0;
	net->links_fd = -1;
	config_rate_apply(&c->rate, vdev);
	return vm_device_plug_virtio(d, vdev, err);
}

int net_set_link(struct vm_device *d, bool up, struct err *err)
{
	if (!d->vdev)
		return err_set(err, -ENODEV, "net '%s': it has left the machine", d->config->id);
	if (has_daemon(config_of(d->config)))
		virtio_vhost_set_link(d->vdev, up);
	else
		virtio_net_set_link(d->vdev, up);
	return 0;
}

static void close_it(struct vm_device *d)
{
	struct vm_net *net = of(d);

	for (unsigned int i = 0; i < net->n; i++) {
		fd_close(&net->fds[i]);
		fd_close(&net->vhost_fds[i]);
	}
	fd_close(&net->links_fd);
	vm_daemon_close(&net->daemon);
	net->n = 0;
}

static int movable(struct vm_device *d, struct err *err)
{
	if (has_daemon(config_of(d->config)))
		return vm_daemon_refuse_move(d, err);
	if (config_of(d->config)->vhost)
		return err_set(
			err, -EOPNOTSUPP,
			"net '%s': what the host's kernel (vhost) writes for it is not known; "
			"start the machine without vhost",
			d->config->id);
	return 0;
}

static void arrived(struct vm_device *d)
{
	if (d->vdev && !has_daemon(config_of(d->config)))
		virtio_net_announce(d->vdev);
}

/* Where somebody else serves the queues there is nothing to say of them. */
static void status(struct vm_device *d, json_t *item)
{
	const struct config_net *c = config_of(d->config);

	if (has_daemon(c))
		vm_daemon_status(&of(d)->daemon, item);
	else if (!c->vhost)
		vm_device_queues_status(d, item);
}

const struct device_kind kind_net = {
	.schema = {"net", fields, sizeof(struct config_net), &defaults},
	.key = "nets",
	.max = 32,
	.bytes = sizeof(struct vm_net),
	.validate = validate,
	.hand_over = hand_over,
	.open = open_it,
	.create = create,
	.close = close_it,
	.movable = movable,
	.arrived = arrived,
	.status = status,
};
