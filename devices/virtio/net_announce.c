// SPDX-License-Identifier: Apache-2.0
// A guest that has come from another host says where it is now: itself, where its driver can
// (virtio 1.3, 5.1.6.5.4: gratuitous ARP for each of its addresses), and in any case by a RARP
// request (RFC 903) from its MAC address, which switches learn from.
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio/net_impl.h"

enum { FRAME_BYTES = 60 /* the least that Ethernet has, without its checksum */ };

struct rarp {
	uint8_t to[6], from[6];
	uint8_t ethertype[2];
	uint8_t hardware[2], protocol[2], lengths[2], operation[2];
	uint8_t sender[6], sender_ip[4], target[6], target_ip[4];
	uint8_t padding[18];
};
static_assert(sizeof(struct rarp) == FRAME_BYTES, "RFC 903");

static void say_rarp(struct net *net)
{
	uint8_t header[NET_HEADER_BYTES] = {0};
	struct rarp frame = {
		.ethertype = {0x80, 0x35},
		.hardware = {0, 1},
		.protocol = {8, 0},
		.lengths = {6, 4},
		.operation = {0, 3},
	};
	uint64_t mac = atomic_load(&net->mac);
	const struct iovec iov[2] = {{header, sizeof(header)}, {&frame, sizeof(frame)}};

	memset(frame.to, 0xff, sizeof(frame.to));
	memcpy(frame.from, &mac, sizeof(frame.from));
	memcpy(frame.sender, &mac, sizeof(frame.sender));
	memcpy(frame.target, &mac, sizeof(frame.target));
	/* One packet in one call, as any thread may; a tap that is full has nothing to learn. */
	(void)!writev(net->pairs[0].fd, iov, 2);
}

void virtio_net_announce(struct virtio_device *vdev)
{
	struct net *net = container_of(vdev, struct net, vdev);

	if (!(atomic_load(&net->status) & VIRTIO_NET_S_LINK_UP))
		return;
	if (net->backend == &net_tap_ops)
		say_rarp(net);
	if (!virtio_has(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return;
	virtio_config_begin(vdev);
	atomic_fetch_or(&net->status, VIRTIO_NET_S_ANNOUNCE);
	virtio_config_end(vdev, true);
}
