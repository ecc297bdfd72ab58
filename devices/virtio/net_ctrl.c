/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's control queue (virtio 1.3, 5.1.6.5). Commands are rare, so each is done where it is
 * found. What is malformed, not negotiated or refused by the host is answered with ERR.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <string.h>

enum { DATA_MAX = 16 };

struct command {
	const struct virtq_chain *chain; /* for what is longer than data */
	size_t bytes;                    /* behind class and command */
	uint8_t data[DATA_MAX];
};

/* 5.1.6.5.1: packets of all kinds are given to the guest anyway, which is what a filter that is
 * full does; only the form is checked. */
static int rx_mode(struct net *net, const struct command *c)
{
	(void)net;
	return c->bytes == 1 && c->data[0] <= 1 ? 0 : -EINVAL;
}

static int mac_table_set(struct net *net, const struct command *c)
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

static int mac_addr_set(struct net *net, const struct command *c)
{
	uint64_t mac = 0;

	if (c->bytes != 6 || c->data[0] & 1)
		return -EINVAL;
	memcpy(&mac, c->data, 6);
	atomic_store(&net->mac, mac);
	return 0;
}

static int announce_ack(struct net *net, const struct command *c)
{
	(void)c;
	virtio_config_begin(&net->vdev);
	atomic_fetch_and(&net->status, (uint16_t)~VIRTIO_NET_S_ANNOUNCE);
	virtio_config_end(&net->vdev, false);
	return 0;
}

static int vq_pairs_set(struct net *net, const struct command *c)
{
	unsigned int n = load_le16(c->data);

	if (c->bytes != 2 || n < 1 || n > net->n_pairs)
		return -EINVAL;
	return net_enable_pairs(net, n);
}

static int guest_offloads_set(struct net *net, const struct command *c)
{
	uint64_t offloads = load_le64(c->data);

	if (c->bytes != 8 || offloads & ~(net->vdev.features & NET_GUEST_OFFLOADS))
		return -EINVAL;
	return net->backend->set_offloads(net, offloads);
}

static const struct {
	uint8_t class;
	uint8_t first; /* commands from here to last */
	uint8_t last;
	uint8_t feature;
	int (*run)(struct net *net, const struct command *c);
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
};

static uint8_t run_command(struct net *net, const struct virtq_chain *chain)
{
	struct command c = {.chain = chain};
	uint8_t head[2];

	if (iov_to_buf(chain->out, chain->n_out, 0, head, sizeof(head)) < sizeof(head))
		return VIRTIO_NET_ERR;
	c.bytes = chain->out_bytes - sizeof(head);
	(void)iov_to_buf(chain->out, chain->n_out, sizeof(head), c.data,
			 MIN(c.bytes, sizeof(c.data)));
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].class == head[0] && commands[i].first <= head[1] &&
		    head[1] <= commands[i].last && virtio_has(&net->vdev, commands[i].feature))
			return commands[i].run(net, &c) ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
	return VIRTIO_NET_ERR;
}

/* The answer is the first byte to be written. When the segments ended before it, so does the
 * command: then the last byte is as good, as drivers give room for one only. */
static int answer(struct virtio_queue *q, struct virtq_chain *chain)
{
	struct net *net = container_of(q->vdev, struct net, vdev);
	uint8_t ack;

	if (!chain->last_in && chain->truncated)
		return 0;
	if (!chain->last_in)
		return virtq_break(q->vq, "control command without room for its answer");
	ack = chain->truncated ? VIRTIO_NET_ERR : run_command(net, chain);
	if (chain->n_in)
		*(uint8_t *)chain->in[0].iov_base = ack;
	else
		*chain->last_in = ack;
	return 1;
}

const struct virtio_queue_ops net_ctrl_ops = {
	.handle = answer,
};
