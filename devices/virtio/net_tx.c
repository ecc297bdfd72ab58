/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net transmit: each chain is one packet and goes to the backend from where it lies. The
 * header is the kernel's to check (tap); what it refuses is dropped, as a wire would.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <poll.h>

static bool sendable(const struct net_tx *tx)
{
	const struct net *net = tx->q.pair->net;
	const struct virtq_chain *chain = &tx->chain;

	return !chain->truncated && chain->out_bytes >= NET_HEADER_BYTES + NET_FRAME_MIN &&
	       chain->out_bytes <= NET_PACKET_MAX &&
	       (atomic_load_explicit(&net->status, memory_order_relaxed) & NET_S_LINK_UP);
}

/* False when the backend is full: visited again when it is not. */
static bool send_one(struct net_tx *tx)
{
	struct net_pair *pair = tx->q.pair;
	int r = 0;

	if (sendable(tx))
		r = pair->net->backend->transmit(pair, tx->chain.out, tx->chain.n_out,
						 tx->chain.out_bytes);
	if (r == -EAGAIN)
		virtq_unpop(tx->q.vq, &tx->chain);
	else
		virtq_push(tx->q.vq, &tx->chain, 0);
	if (r == -EAGAIN || r > 0) {
		loop_poll(pair->loop, &tx->q.poll, pair->fd, POLLOUT);
		return false;
	}
	return true;
}

void net_tx_visit(struct net_tx *tx)
{
	struct net_pair *pair = tx->q.pair;
	const struct net_backend_ops *backend = pair->net->backend;
	unsigned int budget = NET_BUDGET;

	if (!tx->q.running || tx->q.poll.in_flight)
		return;
	loop_defer(pair->loop, &tx->q.turn);
	/* What is left of before goes first. */
	if (backend->drain && backend->drain(pair) == -EAGAIN) {
		virtq_kick_disable(tx->q.vq);
		loop_poll(pair->loop, &tx->q.poll, pair->fd, POLLOUT);
		return;
	}
	do {
		virtq_kick_disable(tx->q.vq);
		for (;;) {
			if (!budget--) {
				net_queue_again(&tx->q);
				return;
			}
			tx->chain.iov = tx->pieces;
			tx->chain.max_iov = ARRAY_SIZE(tx->pieces);
			if (virtq_pop(tx->q.vq, &tx->chain) <= 0)
				break;
			if (!send_one(tx))
				return;
		}
	} while (virtq_kick_enable(tx->q.vq));
}
