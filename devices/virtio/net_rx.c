/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net receive: packets straight into guest buffers.
 *
 * With mergeable buffers (virtio 1.3, 5.1.6.4) a packet of 64 KiB takes some forty chains. They are
 * taken ahead and kept from packet to packet of one visit, their segments in one array:
 *
 *      slots      [c3][c4][c5][c6]            chains, brackets open
 *      segments   ....|p|p|p|p|p|o|           begin .. end, and the overflow buffer behind them
 *
 * One readv fills as many as the packet needs; those chains are published together, the others wait
 * for the next packet. How many are kept ready follows the packets' size, so that a stream of large
 * ones is not copied and small ones do not drag forty segments through the kernel. What does not
 * fit the ready ones lands in the overflow buffer and is copied from there.
 *
 * What is left goes back when the visit ends, so that no bracket is open while the queue waits for
 * packets (core/dma.h: others wait for brackets).
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

enum {
	NUM_BUFFERS_AT = offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers),
	DECAY_SHIFT = 6,
	DENIED_AT_ONCE = 16
};

static struct virtio_device *vdev_of(const struct net_rx *rx)
{
	return &rx->q.pair->net->vdev;
}

int net_rx_start(struct net_rx *rx)
{
	rx->n_slots = MIN((unsigned int)virtq_size(rx->q.base->vq), (unsigned int)NET_RX_HELD_MAX);
	rx->first = rx->held = rx->begin = rx->end = 0;
	rx->held_bytes = 0;
	rx->pending = 0;
	rx->want_bytes = 1;
	rx->slots = calloc(rx->n_slots, sizeof(*rx->slots));
	rx->segments = malloc(NET_RX_SEGMENTS * sizeof(*rx->segments));
	void *overflow = mmap(NULL, NET_PACKET_MAX, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	rx->overflow = overflow == MAP_FAILED ? NULL : overflow;
	return rx->slots && rx->segments && rx->overflow ? 0 : -ENOMEM;
}

static struct virtq_chain *slot(struct net_rx *rx, unsigned int i)
{
	return &rx->slots[(rx->first + i) % rx->n_slots];
}

/* As if it had not been taken; but when one that came after it is gone (it could not be written),
 * it can only be used, with nothing in it. */
static void put_back(struct net_rx *rx, struct virtq_chain *chain)
{
	if (rx->skipped)
		virtq_push(rx->q.base->vq, chain, 0);
	else
		virtq_unpop(rx->q.base->vq, chain);
}

/* Put back what was taken ahead. */
static void give_back(struct net_rx *rx)
{
	while (rx->held)
		put_back(rx, slot(rx, --rx->held));
	rx->skipped = false;
	rx->first = rx->begin = rx->end = 0;
	rx->held_bytes = 0;
}

void net_rx_release(struct net_rx *rx)
{
	if (rx->overflow)
		(void)munmap(rx->overflow, NET_PACKET_MAX);
	free(rx->slots);
	free(rx->segments);
	rx->overflow = NULL;
	rx->slots = NULL;
	rx->segments = NULL;
	rx->pending = 0;
}

/* Move the segments to the start of their array; the chains follow. */
static void compact(struct net_rx *rx)
{
	unsigned int by = rx->begin;

	if (!by)
		return;
	memmove(rx->segments, rx->segments + by, (rx->end - by) * sizeof(*rx->segments));
	rx->begin = 0;
	rx->end -= by;
	for (unsigned int i = 0; i < rx->held; i++) {
		struct virtq_chain *chain = slot(rx, i);

		chain->iov -= by;
		chain->in -= by;
		chain->out -= by;
	}
}

/* The next that the device may write; those before it come back empty, some at a time. */
static bool pop_writable(struct net_rx *rx, struct virtq_chain *chain)
{
	for (unsigned int i = 0; i < DENIED_AT_ONCE; i++) {
		if (virtq_pop(rx->q.base->vq, chain) <= 0)
			return false;
		if (!chain->denied)
			return true;
		rx->skipped |= rx->held > 0;
		virtq_push(rx->q.base->vq, chain, 0);
	}
	return false;
}

/* Take one more chain: its segments follow those that are there. */
static bool take(struct net_rx *rx)
{
	if (rx->held == rx->n_slots || rx->end - rx->begin >= NET_RX_SEGMENTS_ENOUGH)
		return false;
	if (rx->end + VIRTQ_MAX_SEGMENTS >= NET_RX_SEGMENTS)
		compact(rx);
	struct virtq_chain *chain = slot(rx, rx->held);

	chain->iov = rx->segments + rx->end;
	chain->max_iov = VIRTQ_MAX_SEGMENTS;
	if (!pop_writable(rx, chain))
		return false;
	if (!chain->in_bytes || chain->n_out) {
		virtq_drop(rx->q.base->vq, chain);
		(void)virtq_break(rx->q.base->vq, chain->n_out ? "receive buffer to be read"
							       : "empty receive buffer");
		return false;
	}
	rx->end += chain->n_in;
	rx->held++;
	rx->held_bytes += chain->in_bytes;
	return true;
}

bool net_rx_gather(struct net_rx *rx, size_t want_bytes)
{
	bool mergeable = virtio_has(vdev_of(rx), VIRTIO_NET_F_MRG_RXBUF);

	while (rx->held_bytes < want_bytes && (mergeable || !rx->held) && take(rx))
		;
	return rx->held;
}

static void adapt(struct net_rx *rx, size_t bytes)
{
	if (bytes > rx->want_bytes)
		rx->want_bytes = bytes;
	else
		rx->want_bytes -= (rx->want_bytes - bytes) >> DECAY_SHIFT;
}

/* The first chains hold a packet: say how many, and give them to the driver at once. */
static void publish(struct net_rx *rx, size_t bytes)
{
	unsigned int n = 0;

	for (size_t sum = 0; sum < bytes; n++)
		sum += slot(rx, n)->in_bytes;
	/* The header may be in several segments; the tap leaves this field alone. */
	le16 num_buffers = le16_of((uint16_t)n);

	(void)iov_from_buf(rx->segments + rx->begin, rx->end - rx->begin, NUM_BUFFERS_AT,
			   &num_buffers, sizeof(num_buffers));
	for (; n; n--) {
		struct virtq_chain *chain = slot(rx, 0);
		size_t part = MIN(bytes, (size_t)chain->in_bytes);

		rx->begin += chain->n_in;
		rx->held_bytes -= chain->in_bytes;
		virtq_stage(rx->q.base->vq, chain, (uint32_t)part);
		rx->first = (rx->first + 1) % rx->n_slots;
		rx->held--;
		bytes -= part;
	}
	virtq_publish(rx->q.base->vq);
	if (!rx->held) {
		rx->begin = rx->end = 0;
		rx->skipped = false;
	}
}

/* The packet waits for more buffers, all of it in our memory. */
static void keep(struct net_rx *rx, size_t bytes, size_t direct, const void *rest)
{
	if (direct) {
		/* `rest` is the overflow buffer. */
		memmove(rx->overflow + direct, rx->overflow, bytes - direct);
		(void)iov_to_buf(rx->segments + rx->begin, rx->end - rx->begin, 0, rx->overflow,
				 direct);
		rest = rx->overflow;
	}
	rx->pending = bytes;
	rx->rest = rest;
}

bool net_rx_deliver(struct net_rx *rx, size_t bytes, size_t direct, const void *rest)
{
	bool mergeable = virtio_has(vdev_of(rx), VIRTIO_NET_F_MRG_RXBUF);

	rx->last_bytes = bytes;
	if (bytes > NET_PACKET_MAX)
		return true;
	adapt(rx, bytes);
	rx->pending = 0;
	if (rx->held_bytes < bytes)
		(void)net_rx_gather(rx, bytes);
	if (rx->held_bytes < bytes) {
		/* No driver with enough buffers for a packet of the negotiated features gets here
		 * (5.1.6.3.1): one buffer is too small, or all of the ring is. */
		if (rx->held && (!mergeable || rx->held == rx->n_slots ||
				 rx->end - rx->begin >= NET_RX_SEGMENTS_ENOUGH))
			return true;
		keep(rx, bytes, direct, rest);
		return false;
	}
	if (bytes > direct)
		(void)iov_from_buf(rx->segments + rx->begin, rx->end - rx->begin, direct, rest,
				   bytes - direct);
	publish(rx, bytes);
	return true;
}

/* 1: go on; 0: wait for buffers; negative: as receive() says. */
static int receive_one(struct net_rx *rx)
{
	struct net_pair *pair = rx->q.pair;

	if (rx->pending)
		return net_rx_deliver(rx, rx->pending, 0, rx->rest);
	if (!net_rx_gather(rx, rx->want_bytes) || !virtio_queue_running(rx->q.base))
		return 0;
	return pair->net->backend->receive(pair);
}

static bool may_receive(const struct net_rx *rx)
{
	const struct net_pair *pair = rx->q.pair;

	return virtio_queue_running(rx->q.base) &&
	       atomic_load_explicit(&pair->enabled, memory_order_relaxed) &&
	       (atomic_load_explicit(&pair->net->status, memory_order_relaxed) &
		VIRTIO_NET_S_LINK_UP);
}

/* Packets until there are none (-EAGAIN), no buffers (0), no share of this iteration (1) or an
 * error. */
static int receive_some(struct net_rx *rx)
{
	struct virtio_queue *base = rx->q.base;

	for (;;) {
		virtq_kick_disable(base->vq);
		int r = receive_one(rx);

		if (r < 0 || !virtio_queue_running(base))
			return r;
		if (r) {
			if (!virtio_queue_spend(base, rx->last_bytes))
				return 1;
			continue;
		}
		/* Out of buffers, or of enough of them: the driver's next kick goes on, unless it
		 * was already there. */
		give_back(rx);
		if (!virtq_kick_enable_beyond(base->vq))
			return 0;
	}
}

bool net_rx_serve(struct net_rx *rx)
{
	int r;

	if (!may_receive(rx))
		return false;
	r = receive_some(rx);
	give_back(rx);
	if (!virtio_queue_running(rx->q.base))
		return false;
	if (r == -EAGAIN && virtio_queue_later(rx->q.base))
		return false;
	if (r == -EAGAIN)
		/* Kicks bring nothing while there are no packets. */
		net_queue_poll(&rx->q, POLLIN);
	else if (r < 0 && may_receive(rx)) /* else it was detached in between */
		net_peer_gone(rx->q.pair->net, err_name(r));
	return r > 0;
}
