// SPDX-License-Identifier: Apache-2.0
#include "net_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"

/* Where each receive buffer is, by its head. */
static uint64_t buffer_at[8][NET_QUEUE];

static const uint8_t mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};

void nic_start(struct nic *n, unsigned int pairs, uint64_t features)
{
	cr_assert(rig_negotiate(&n->rig, features));
	for (unsigned int i = 0; i < 2 * pairs; i++)
		rig_queue(&n->rig, i, NET_QUEUE);
	if (features & N_CTRL)
		rig_queue(&n->rig, 2 * pairs, 16);
	rig_go(&n->rig);
}

void nic_open_socket(struct nic *n, uint64_t features, enum loop_backend backend)
{
	struct virtio_device *vdev;
	struct err err = ERR_INIT;
	int fds[2];

	rig_open(&n->rig, backend);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	n->peer = fds[1];
	cr_assert_eq(fcntl(n->peer, F_SETFL, O_NONBLOCK), 0);
	struct virtio_net_setup c = {
		.name = "net0",
		.backend = VIRTIO_NET_SOCKET,
		.fds = fds,
		.pairs = 1,
		.mtu = 1500,
		.offload = true,
		.loops = &n->rig.loop,
		.n_loops = 1,
	};

	memcpy(c.mac, mac, 6);
	cr_assert_eq(virtio_net_create(&vdev, &c, &n->rig.log, &err), 0, "%s", err.text);
	rig_attach(&n->rig, vdev);
	nic_start(n, 1, features);
}

void nic_open_tap(struct nic *n, const int *fds, unsigned int pairs, uint64_t features)
{
	struct virtio_device *vdev;
	struct err err = ERR_INIT;

	rig_open(&n->rig, LOOP_AUTO);
	n->peer = -1;
	struct virtio_net_setup c = {
		.name = "net0",
		.backend = VIRTIO_NET_TAP,
		.fds = fds,
		.pairs = pairs,
		.offload = true,
		.links_fd = n->links,
		.loops = &n->rig.loop,
		.n_loops = 1,
	};

	memcpy(c.mac, mac, 6);
	cr_assert_eq(virtio_net_create(&vdev, &c, &n->rig.log, &err), 0, "%s", err.text);
	rig_attach(&n->rig, vdev);
	nic_start(n, pairs, features);
}

void nic_close(struct nic *n)
{
	rig_close(&n->rig);
	if (n->peer >= 0)
		close(n->peer);
}

uint64_t nic_give(struct nic *n, unsigned int queue, uint32_t bytes)
{
	uint64_t at = rig_alloc(&n->rig, bytes, 1);
	struct rig_seg seg = {at, bytes, true};
	int head = rig_add(&n->rig.queues[queue], &seg, 1, false);

	cr_assert_geq(head, 0);
	buffer_at[queue][head] = at;
	return at;
}

void nic_give_many(struct nic *n, unsigned int queue, unsigned int count, uint32_t bytes)
{
	for (unsigned int i = 0; i < count; i++)
		nic_give(n, queue, bytes);
	rig_kick(&n->rig.queues[queue]);
}

void nic_send(struct nic *n, unsigned int queue, const void *frame, size_t len, uint32_t segment)
{
	uint64_t at = rig_alloc(&n->rig, HEADER + len, 1);
	uint32_t total = (uint32_t)(HEADER + len);
	struct rig_seg segs[256];
	unsigned int k = 0;

	memset(rig_at(&n->rig, at), 0, HEADER);
	memcpy((uint8_t *)rig_at(&n->rig, at) + HEADER, frame, len);
	for (uint32_t done = 0; done < total; k++) {
		uint32_t part = segment && segment < total - done ? segment : total - done;

		segs[k] = (struct rig_seg){at + done, part, false};
		done += part;
	}
	cr_assert_geq(rig_add(&n->rig.queues[queue], segs, k, k > 1), 0);
	rig_kick(&n->rig.queues[queue]);
}

size_t nic_receive(struct nic *n, unsigned int queue, uint8_t *packet, size_t max)
{
	struct rig_queue *q = &n->rig.queues[queue];
	struct rig_used used = rig_wait(q);
	unsigned int buffers =
		load_le16((uint8_t *)rig_at(&n->rig, buffer_at[queue][used.id]) + 10);
	size_t len = 0;

	for (unsigned int i = 0; i < buffers; i++) {
		/* All of one packet are published at once. */
		if (i)
			cr_assert(rig_take(q, &used));
		cr_assert_leq(len + used.len, max);
		memcpy(packet + len, rig_at(&n->rig, buffer_at[queue][used.id]), used.len);
		len += used.len;
	}
	return len;
}

uint8_t nic_command_result(struct nic *n, unsigned int queue, const void *bytes, uint32_t len,
			   void *result, uint32_t result_len)
{
	uint64_t out = rig_alloc(&n->rig, len + 1, 1);
	uint64_t in = rig_alloc(&n->rig, result_len + 1, 1);
	uint8_t *ack = (uint8_t *)rig_at(&n->rig, in) + result_len;
	struct rig_seg segs[2];
	unsigned int k = 0;

	memcpy(rig_at(&n->rig, out), bytes, len);
	memset(rig_at(&n->rig, in), 0xee, result_len + 1);
	if (len)
		segs[k++] = (struct rig_seg){out, len, false};
	segs[k++] = (struct rig_seg){in, result_len + 1, true};
	cr_assert_geq(rig_add(&n->rig.queues[queue], segs, k, false), 0);
	rig_kick(&n->rig.queues[queue]);
	cr_assert_eq(rig_wait(&n->rig.queues[queue]).len, result_len + 1);
	if (result_len)
		memcpy(result, rig_at(&n->rig, in), result_len);
	return *ack;
}

uint8_t nic_command(struct nic *n, unsigned int queue, const void *bytes, uint32_t len)
{
	return nic_command_result(n, queue, bytes, len, NULL, 0);
}
