/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's control queue (virtio 1.3, 5.1.6.5). Commands are rare, so each is done where it is
 * found. What is malformed, not negotiated or refused by the host is answered with ERR.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <string.h>

enum { DATA_MAX = 16, RESULT_MAX = 8 };

struct command {
	const struct virtq_chain *chain; /* for what is longer than data */
	size_t bytes;                    /* behind class and command */
	uint8_t data[DATA_MAX];
	size_t result_bytes; /* in front of the acknowledgement */
	uint8_t result[RESULT_MAX];
};

/* 5.1.6.5.1: packets of all kinds are given to the guest anyway, which is what a filter that is
 * full does; only the form is checked. */
static int rx_mode(struct net *net, struct command *c)
{
	(void)net;
	return c->bytes == 1 && c->data[0] <= 1 ? 0 : -EINVAL;
}

static int mac_table_set(struct net *net, struct command *c)
{
	size_t at = 0;

	(void)net;
	for (int table = 0; table < 2; table++) {
		le32 entries;

		if (c->bytes - at < sizeof(entries) ||
		    iov_to_buf(c->chain->out, c->chain->n_out, 2 + at, &entries, sizeof(entries)) !=
			    sizeof(entries))
			return -EINVAL;
		at += sizeof(entries);
		if (le32_get(entries) > (c->bytes - at) / 6)
			return -EINVAL;
		at += (size_t)le32_get(entries) * 6;
	}
	return at == c->bytes ? 0 : -EINVAL;
}

static int mac_addr_set(struct net *net, struct command *c)
{
	uint64_t mac = 0;

	if (c->bytes != 6 || c->data[0] & 1)
		return -EINVAL;
	memcpy(&mac, c->data, 6);
	atomic_store(&net->mac, mac);
	return 0;
}

static int announce_ack(struct net *net, struct command *c)
{
	(void)c;
	virtio_config_begin(&net->vdev);
	atomic_fetch_and(&net->status, (uint16_t)~VIRTIO_NET_S_ANNOUNCE);
	virtio_config_end(&net->vdev, false);
	return 0;
}

static int vq_pairs_set(struct net *net, struct command *c)
{
	unsigned int n = load_le16(c->data);

	if (c->bytes != 2 || n < 1 || n > net->n_pairs)
		return -EINVAL;
	return net_enable_pairs(net, n);
}

static int guest_offloads_set(struct net *net, struct command *c)
{
	uint64_t offloads = load_le64(c->data);

	if (c->bytes != 8 || offloads & ~(net->vdev.features & NET_GUEST_OFFLOADS))
		return -EINVAL;
	return net->backend->set_offloads(net, offloads);
}

/* 5.1.6.5.9: the number of packets, then microseconds. */
static int coalescing_at(const uint8_t *data, uint64_t *coalescing)
{
	uint32_t us = load_le32(data + 4);

	*coalescing = NET_COALESCING(load_le32(data), us);
	return us > NET_COALESCING_US_MAX ? -ERANGE : 0;
}

static int coalesce(struct net *net, const struct command *c, unsigned int way)
{
	uint64_t coalescing;
	int r = c->bytes == 8 ? coalescing_at(c->data, &coalescing) : -EINVAL;

	if (r)
		return r;
	atomic_store(&net->coalescing[way], coalescing);
	for (unsigned int i = way; i < 2 * net->n_pairs; i += 2)
		net_set_coalescing(net, i, coalescing);
	return 0;
}

static int coalesce_tx(struct net *net, struct command *c)
{
	return coalesce(net, c, 1);
}

static int coalesce_rx(struct net *net, struct command *c)
{
	return coalesce(net, c, 0);
}

/* The queue that a command names, which has to be in use; a reserved field follows. */
static struct virtio_queue *named_queue(struct net *net, const struct command *c)
{
	unsigned int index = load_le16(c->data);
	unsigned int pairs = virtio_has(&net->vdev, VIRTIO_NET_F_MQ) ? net->n_pairs : 1;
	struct virtio_queue *q;

	if (index >= 2 * pairs)
		return NULL;
	q = &net->vdev.queues[index];
	return virtio_queue_wanted(q) ? q : NULL;
}

static int coalesce_vq(struct net *net, struct command *c)
{
	struct virtio_queue *q = c->bytes == 12 ? named_queue(net, c) : NULL;
	uint64_t coalescing;
	int r = q ? coalescing_at(c->data + 4, &coalescing) : -EINVAL;

	if (!r)
		net_set_coalescing(net, q->index, coalescing);
	return r;
}

/* The reserved field may be missing: its driver need not send what is not read. */
static int coalescing_of_vq(struct net *net, struct command *c)
{
	struct virtio_queue *q = c->bytes == 2 || c->bytes == 4 ? named_queue(net, c) : NULL;
	uint64_t coalescing;

	if (!q)
		return -EINVAL;
	coalescing = atomic_load(&q->coalescing);
	store_le32(c->result, (uint32_t)(coalescing >> 32));
	store_le32(c->result + 4, (uint32_t)coalescing);
	return 0;
}

static const struct {
	uint8_t class;
	uint8_t first; /* commands from here to last */
	uint8_t last;
	uint8_t feature;
	int (*run)(struct net *net, struct command *c);
	uint8_t result_bytes;
} commands[] = {
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_RX_ALLMULTI,
	 VIRTIO_NET_F_CTRL_RX, rx_mode},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET,
	 VIRTIO_NET_F_CTRL_RX, mac_table_set},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_ADDR_SET,
	 VIRTIO_NET_F_CTRL_MAC_ADDR, mac_addr_set},
	{VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_ANNOUNCE_ACK,
	 VIRTIO_NET_F_GUEST_ANNOUNCE, announce_ack},
	{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
	 VIRTIO_NET_F_MQ, vq_pairs_set},
	{VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
	 VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, guest_offloads_set},
	{VIRTIO_NET_CTRL_NOTF_COAL, VIRTIO_NET_CTRL_NOTF_COAL_TX_SET,
	 VIRTIO_NET_CTRL_NOTF_COAL_TX_SET, VIRTIO_NET_F_NOTF_COAL, coalesce_tx},
	{VIRTIO_NET_CTRL_NOTF_COAL, VIRTIO_NET_CTRL_NOTF_COAL_RX_SET,
	 VIRTIO_NET_CTRL_NOTF_COAL_RX_SET, VIRTIO_NET_F_NOTF_COAL, coalesce_rx},
	{VIRTIO_NET_CTRL_NOTF_COAL, VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET,
	 VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET, VIRTIO_NET_F_VQ_NOTF_COAL, coalesce_vq},
	{VIRTIO_NET_CTRL_NOTF_COAL, VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET,
	 VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET, VIRTIO_NET_F_VQ_NOTF_COAL, coalescing_of_vq, RESULT_MAX},
};

static uint8_t run_command(struct net *net, struct command *c)
{
	const struct virtq_chain *chain = c->chain;
	uint8_t head[2];

	if (iov_to_buf(chain->out, chain->n_out, 0, head, sizeof(head)) < sizeof(head))
		return VIRTIO_NET_ERR;
	c->bytes = chain->out_bytes - sizeof(head);
	(void)iov_to_buf(chain->out, chain->n_out, sizeof(head), c->data,
			 MIN(c->bytes, sizeof(c->data)));
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].class != head[0] || head[1] < commands[i].first ||
		    head[1] > commands[i].last || !virtio_has(&net->vdev, commands[i].feature))
			continue;
		if (chain->in_bytes <= commands[i].result_bytes)
			return VIRTIO_NET_ERR;
		c->result_bytes = commands[i].result_bytes;
		return commands[i].run(net, c) ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
	}
	return VIRTIO_NET_ERR;
}

/* The answer is the first byte to be written, or the one behind the command's result. When the
 * segments ended before it, so does the command: then the last byte is as good, as drivers give
 * room for one only. */
static int answer(struct virtio_queue *q, struct virtq_chain *chain)
{
	struct net *net = container_of(q->vdev, struct net, vdev);
	struct command c = {.chain = chain};
	uint8_t ack;

	if (!chain->last_in && chain->truncated)
		return 0;
	if (!chain->last_in)
		return virtq_break(q->vq, "control command without room for its answer");
	ack = chain->truncated ? VIRTIO_NET_ERR : run_command(net, &c);
	if (!chain->n_in) {
		*chain->last_in = ack;
		return 1;
	}
	(void)iov_from_buf(chain->in, chain->n_in, 0, c.result, c.result_bytes);
	(void)iov_from_buf(chain->in, chain->n_in, c.result_bytes, &ack, 1);
	return (int)c.result_bytes + 1;
}

const struct virtio_queue_ops net_ctrl_ops = {
	.handle = answer,
};
