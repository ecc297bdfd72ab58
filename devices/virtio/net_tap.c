/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's backend over a tap with IFF_VNET_HDR: packets carry the virtio header, so checksums
 * and segmentation are the kernel's work, and it checks what the guest wrote there. One fd per
 * queue pair (IFF_MULTI_QUEUE).
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/if_tun.h>

/* Linux 6.2; the number is the interface, whatever header is installed. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static int tap_ioctl(int fd, unsigned long request, const void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static int set_offload_flags(struct net *net, unsigned int flags)
{
	/* Of the interface, not of the queue: one fd will do (its argument is the value itself). */
	return ioctl(net->pairs[0].fd, TUNSETOFFLOAD, (unsigned long)flags) < 0 ? -errno : 0;
}

static int check_fd(struct net *net, const struct net_pair *pair, struct err *err)
{
	struct ifreq ifr = {0};
	int header_bytes = NET_HEADER_BYTES;
	int r = tap_ioctl(pair->fd, TUNGETIFF, &ifr);

	if (r)
		return err_set(err, r, "net '%s': fd %d is not a tap: %s", net->vdev.name, pair->fd,
			       err_name(r));
	if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_VNET_HDR))
		return err_set(err, -EINVAL,
			       "net '%s': interface '%.15s' must be a tap opened with IFF_VNET_HDR",
			       net->vdev.name, ifr.ifr_name);
	if (net->n_pairs > 1 && !(ifr.ifr_flags & IFF_MULTI_QUEUE))
		return err_set(
			err, -EINVAL,
			"net '%s': %u queue pairs need a tap with IFF_MULTI_QUEUE, '%.15s' is not",
			net->vdev.name, net->n_pairs, ifr.ifr_name);
	r = tap_ioctl(pair->fd, TUNSETVNETHDRSZ, &header_bytes);
	if (r)
		return err_set(err, r, "net '%s': '%.15s' cannot have a header of %d bytes: %s",
			       net->vdev.name, ifr.ifr_name, header_bytes, err_name(r));
	int flags = fcntl(pair->fd, F_GETFL);

	if (flags < 0 || fcntl(pair->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_set(err, -errno, "net '%s': fd %d: %s", net->vdev.name, pair->fd,
			       err_name(-errno));
	return 0;
}

static int tap_open(struct net *net, uint64_t *features, struct err *err)
{
	for (unsigned int i = 0; i < net->n_pairs; i++) {
		int r = check_fd(net, &net->pairs[i], err);

		if (r)
			return r;
	}
	/* Towards the host the kernel takes anything that the header can express; towards the
	 * guest, what the interface can be set to. */
	*features = NET_BIT(CSUM) | NET_BIT(HOST_TSO4) | NET_BIT(HOST_TSO6) | NET_BIT(HOST_ECN);
	if (!set_offload_flags(net, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
		*features |= NET_BIT(GUEST_CSUM) | NET_BIT(GUEST_TSO4) | NET_BIT(GUEST_TSO6) |
			     NET_BIT(GUEST_ECN);
	if (!set_offload_flags(net, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6))
		*features |= NET_BIT(GUEST_USO4) | NET_BIT(GUEST_USO6) | NET_BIT(HOST_USO);
	(void)set_offload_flags(net, 0);
	return 0;
}

static int tap_set_offloads(struct net *net, uint64_t features)
{
	static const struct {
		uint64_t need;
		unsigned int flags;
	} table[] = {
		{NET_BIT(GUEST_CSUM), TUN_F_CSUM},
		{NET_BIT(GUEST_TSO4), TUN_F_TSO4},
		{NET_BIT(GUEST_TSO6), TUN_F_TSO6},
		{NET_BIT(GUEST_ECN), TUN_F_TSO_ECN},
		/* The kernel has them only together. */
		{NET_BIT(GUEST_USO4) | NET_BIT(GUEST_USO6), TUN_F_USO4 | TUN_F_USO6},
	};
	unsigned int flags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if ((features & table[i].need) == table[i].need)
			flags |= table[i].flags;
	return set_offload_flags(net, flags);
}

static int tap_set_enabled(struct net_pair *pair, bool on)
{
	struct ifreq ifr = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	return tap_ioctl(pair->fd, TUNSETQUEUE, &ifr);
}

/* The host's end of the wire; kernels before 5.0 do not have it, and nothing is lost. */
static void tap_set_carrier(struct net *net, bool up)
{
	int on = up;

	(void)tap_ioctl(net->pairs[0].fd, TUNSETCARRIER, &on);
}

static int tap_check(struct net *net)
{
	struct ifreq ifr = {0}, tap = {0};
	int fd = net->pairs[0].fd, r = tap_ioctl(fd, TUNGETIFF, &ifr);

	if (r)
		return r == -EBADFD ? -ENODEV : r;
	/* One of that name may be in this namespace too; it does not have that address. */
	return tap_ioctl(fd, SIOCGIFHWADDR, &tap) ||
	       tap_ioctl(net->links_fd, SIOCGIFHWADDR, &ifr) ||
	       memcmp(ifr.ifr_hwaddr.sa_data, tap.ifr_hwaddr.sa_data, 6) != 0;
}

static int tap_receive(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;
	unsigned int n = rx->end - rx->begin;
	size_t ready = rx->held_bytes;

	/* gather() leaves room behind the segments. */
	rx->segments[rx->end] = (struct iovec){rx->overflow, NET_PACKET_MAX};
	ssize_t got = readv(pair->fd, rx->segments + rx->begin, (int)n + (ready < NET_PACKET_MAX));

	if (got <= NET_HEADER_BYTES) {
		if (got >= 0)
			return -EAGAIN;
		return errno == EINTR ? 1 : -errno;
	}
	return net_rx_deliver(rx, (size_t)got, MIN((size_t)got, ready), rx->overflow);
}

static int tap_transmit(struct net_pair *pair, const struct iovec *iov, unsigned int n,
			uint64_t bytes)
{
	(void)bytes;
	for (;;) {
		if (writev(pair->fd, iov, (int)n) >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

static void tap_close(struct net *net)
{
	(void)net;
}

const struct net_backend_ops net_tap_ops = {
	.open = tap_open,
	.close = tap_close,
	.set_offloads = tap_set_offloads,
	.set_enabled = tap_set_enabled,
	.set_carrier = tap_set_carrier,
	.check = tap_check,
	.receive = tap_receive,
	.transmit = tap_transmit,
};
