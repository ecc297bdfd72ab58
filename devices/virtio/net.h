/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.3, 5.1) over a tap, a stream socket (passt) or vhost-net.
 *
 * Multi-queue with a control queue; checksum and segmentation offload both ways as far as the
 * backend has them; mergeable receive buffers; MAC, MTU, link state.
 *
 * Create, set_link and destroy: the machine's thread. Each pair: the thread of its loop; the loops
 * stay the caller's and outlive the device. On failure (0 or a negative errno, err says why) all
 * fds stay the caller's. A backend that fails later takes the link down; the device stays.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "virtio/virtio.h"

enum virtio_net_backend {
	VIRTIO_NET_TAP,    /* fds[i] is queue pair i of a tap with IFF_VNET_HDR */
	VIRTIO_NET_SOCKET, /* fds[0] is a connected stream socket, frames with 32-bit big-endian
			      length (passt, QEMU) */
};

struct virtio_net_setup {
	const char *name;
	enum virtio_net_backend backend;
	const int *fds;          /* n_pairs (or 1); ownership passes on success */
	unsigned int pairs;      /* 1 to 32 */
	unsigned int queue_size; /* 0 for the default */
	uint8_t mac[6];
	uint16_t mtu;   /* 0: not offered */
	bool link_down; /* initial link state */
	/* How long a queue that streams may wait for more (moderation.h); 0: it does not. */
	unsigned int moderation_us;
	bool offload; /* checksum and segmentation, where the backend has them */
	const int
		*vhost_fds; /* /dev/vhost-net, one per pair, or NULL; ownership passes on success */
	struct gmem *gmem;  /* vhost needs the memory table; else NULL */
	/* Of a tap: a non-blocking AF_NETLINK socket in the group RTMGRP_LINK, which says that
	 * interfaces of this network namespace went (a tap of another one is looked at each
	 * second); 0: none; ownership passes on success. */
	int links_fd;
	struct loop *const *loops; /* pair i belongs to loops[i % n_loops] */
	unsigned int n_loops;
};

int virtio_net_create(struct virtio_device **ret, const struct virtio_net_setup *config,
		      const struct log *log, struct err *err);
/* Link up or down while running. Machine's thread. */
void virtio_net_set_link(struct virtio_device *vdev, bool up);
/* The guest is behind this tap now, and was elsewhere: say so to the switches of its network, by a
 * RARP request with its address (what is sent tells where it came from). Machine's thread. */
void virtio_net_announce(struct virtio_device *vdev);

#endif
