/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net transmit: each chain is one packet and goes to the backend from where it lies. The
 * header is the kernel's to check (tap); what it refuses is dropped, as a wire would.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <poll.h>

#include "base/err.h"

static bool sendable(const struct net_tx *tx)
{
	const struct net *net = tx->q.pair->net;
	const struct virtq_chain *chain = &tx->chain;

	return !chain->truncated && chain->out_bytes >= NET_HEADER_BYTES + NET_FRAME_MIN &&
	       chain->out_bytes <= NET_PACKET_MAX &&
	       (atomic_load_explicit(&net->status, memory_order_relaxed) & VIRTIO_NET_S_LINK_UP);
}

/* False when the backend is full: the queue is served again when it is not. */
static bool send_one(struct net_tx *tx)
{
	struct net_pair *pair = tx->q.pair;
	int r = 0;

	if (sendable(tx))
		r = pair->net->backend->transmit(pair, tx->chain.out, tx->chain.n_out,
						 tx->chain.out_bytes);
	/* With no buffers from the guest, nobody reads, who would say it. */
	if (r == -EPIPE || r == -ECONNRESET || r == -EBADFD)
		net_peer_gone(pair->net, err_name(r));
	if (r == -EAGAIN)
		virtq_unpop(tx->q.base->vq, &tx->chain);
	else
		virtq_push(tx->q.base->vq, &tx->chain, 0);
	if (r != -EAGAIN && r <= 0)
		return true;
	net_queue_poll(&tx->q, POLLOUT);
	return false;
}

bool net_tx_serve(struct net_tx *tx)
{
	struct net_pair *pair = tx->q.pair;
	struct virtq *vq = tx->q.base->vq;

	/* The rest of an earlier packet goes first. */
	if (pair->net->backend->drain && pair->net->backend->drain(pair) == -EAGAIN) {
		virtq_kick_disable(vq);
		net_queue_poll(&tx->q, POLLOUT);
		return false;
	}
	tx->chain.iov = tx->segments;
	tx->chain.max_iov = ARRAY_SIZE(tx->segments);
	do {
		virtq_kick_disable(vq);
		while (virtq_pop(vq, &tx->chain) > 0) {
			if (!send_one(tx))
				return false;
			if (!virtio_queue_spend(tx->q.base, tx->chain.out_bytes))
				return true;
		}
		if (virtio_queue_later(tx->q.base))
			return false;
	} while (virtq_kick_enable(vq));
	return false;
}
