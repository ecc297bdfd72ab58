/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap that is deleted while nobody reads it: vhost does not say so, nor does a guest that gives
 * no buffers. The kernel's announcement is for all interfaces of this namespace, so each one has
 * this tap looked at. Nobody announces one in another namespace: it is looked at each second.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/err.h"

static const uint64_t look_ns = 1000000000;

static struct virtio_queue *queue_of(struct net *net)
{
	return net->pairs[0].rx.q.base;
}

/* False: it is of no more use. */
static bool look(struct net *net)
{
	struct virtio_queue *q = queue_of(net);
	int r = net->backend->check(net);

	if (r < 0) {
		net_peer_gone(net, err_name(r));
	} else if (r > 0 && !net->away.in_flight) {
		virtio_queue_hold(q);
		loop_timer(q->loop, &net->away, look_ns);
	}
	return r >= 0;
}

static void away_done(struct loop_op *op, int result)
{
	struct net *net = container_of(op, struct net, away);

	if (!result && virtio_queue_running(queue_of(net)))
		look(net);
	virtio_queue_release(queue_of(net));
}

static void links_changed(struct loop_op *op, int result)
{
	struct net *net = container_of(op, struct net, links);
	struct virtio_queue *q = queue_of(net);
	uint8_t message[4096];

	/* What it says, or that there was too much of it, does not matter. */
	while (result > 0 &&
	       (recv(net->links_fd, message, sizeof(message), 0) >= 0 || errno == ENOBUFS))
		;
	if (virtio_queue_running(q) && look(net))
		loop_poll(q->loop, op, net->links_fd, POLLIN);
	else
		virtio_queue_release(q);
}

void net_links_init(struct net *net)
{
	net->links.done = links_changed;
	net->away.done = away_done;
}

void net_links_start(struct net *net)
{
	struct virtio_queue *q = queue_of(net);

	if (!look(net))
		return;
	virtio_queue_hold(q);
	loop_poll(q->loop, &net->links, net->links_fd, POLLIN);
}

void net_links_cancel(struct net *net)
{
	loop_cancel(queue_of(net)->loop, &net->links);
	loop_cancel(queue_of(net)->loop, &net->away);
}
