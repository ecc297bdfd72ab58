/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net: the device. Which file does what: net_impl.h.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/virtio_ids.h>

#include "base/fd.h"
#include "base/mem.h"
#include "core/state.h"

/* Of the device configuration (virtio 1.3, 5.1.4), up to what is offered. */
#define CONFIG_BYTES ((uint32_t)offsetof(struct virtio_net_config, speed))
static_assert(CONFIG_BYTES == 12, "virtio 1.3, 5.1.4");

static struct net *net_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct net, vdev);
}

static bool link_is_up(struct net *net)
{
	return atomic_load_explicit(&net->status, memory_order_relaxed) & VIRTIO_NET_S_LINK_UP;
}

/* Queues */

static bool is_tx(const struct net_queue *q)
{
	return q->base->index & 1;
}

void net_queue_poll(struct net_queue *q, unsigned int events)
{
	virtio_queue_hold(q->base);
	loop_poll(q->base->loop, &q->poll, q->pair->fd, events);
}

static void poll_done(struct loop_op *op, int result)
{
	struct net_queue *q = container_of(op, struct net_queue, poll);

	virtio_queue_release(q->base);
	if (result < 0 && result != -ECANCELED)
		net_peer_gone(q->pair->net, err_name(result));
	else
		/* Cancelled by a stop, which this does not hinder; or the thread that ran the loop
		 * ended (core/loop.h). */
		virtio_queue_again(q->base);
}

static void watch(struct net_queue *q)
{
	struct net_pair *pair = q->pair;

	loop_watch(q->base->loop, &q->watch,
		   pair->vhost ? vhost_error_fd(pair->vhost, is_tx(q)) : pair->wake_fd);
}

/* Another thread changed what this pair may do; or vhost reports an error. */
static void watch_done(struct loop_op *op, int result)
{
	struct net_queue *q = container_of(op, struct net_queue, watch);

	if (result > 0 && q->pair->vhost)
		(void)virtq_break(q->base->vq, "vhost-net met a malformed ring");
	else if (result >= 0)
		virtio_queue_again(q->base);
	else if (result == -ECANCELED && virtio_queue_running(q->base))
		watch(q); /* as above */
	else
		virtio_queue_release(q->base);
}

static bool watches_links(const struct net_queue *q)
{
	return q->base->index == 0 && q->pair->net->links_fd >= 0;
}

static int start_vhost(struct net_pair *pair, struct virtio_queue *base)
{
	int r = vhost_queue_start(pair->vhost, base, base->index & 1, pair->net->vdev.features);

	if (!r)
		fd_event_signal(base->kick_fd);
	return r;
}

static int pair_queue_start(struct virtio_queue *base)
{
	struct net_queue *q = base->opaque;
	struct net_pair *pair = q->pair;
	int r = 0;

	if (pair->vhost)
		r = start_vhost(pair, base);
	else if (is_tx(q))
		return 0;
	else
		r = net_rx_start(&pair->rx);
	if (r)
		return r;
	virtio_queue_hold(base);
	watch(q);
	if (watches_links(q))
		net_links_start(pair->net);
	return 0;
}

static bool pair_queue_serve(struct virtio_queue *base)
{
	struct net_queue *q = base->opaque;

	if (q->poll.in_flight)
		return false;
	return is_tx(q) ? net_tx_serve(&q->pair->tx) : net_rx_serve(&q->pair->rx);
}

static void pair_queue_cancel(struct virtio_queue *base)
{
	struct net_queue *q = base->opaque;

	loop_cancel(base->loop, &q->poll);
	loop_cancel(base->loop, &q->watch);
	if (watches_links(q))
		net_links_cancel(q->pair->net);
	if (q->pair->vhost)
		vhost_queue_stop(q->pair->vhost, base, is_tx(q));
}

static void pair_queue_stopped(struct virtio_queue *base)
{
	struct net_queue *q = base->opaque;

	if (!is_tx(q))
		net_rx_release(&q->pair->rx);
	/* 5.1.6.5.9: one that was reset has what the driver said of all of them. */
	if (virtq_state(base->vq) == VIRTQ_ABANDONING)
		atomic_store(&base->coalescing, atomic_load(&q->pair->net->coalescing[is_tx(q)]));
}

static int pair_queue_set_call(struct virtio_queue *base, int call_fd)
{
	struct net_queue *q = base->opaque;

	return vhost_queue_set_call(q->pair->vhost, is_tx(q), call_fd);
}

static const struct virtio_queue_ops pair_queue_ops = {
	.start = pair_queue_start,
	.serve = pair_queue_serve,
	.cancel = pair_queue_cancel,
	.stopped = pair_queue_stopped,
	.set_call = pair_queue_set_call,
};

static bool serve_nothing(struct virtio_queue *base)
{
	(void)base;
	return false;
}

/* There, but of no use with the features that were negotiated. */
static const struct virtio_queue_ops idle_ops = {
	.serve = serve_nothing,
};

/* The control queue is the last (5.1.2): behind all pairs with MQ, behind the first without. */
static void assign_queues(struct net *net, uint64_t features)
{
	unsigned int ctrl = 2 * (features & NET_BIT(MQ) ? net->n_pairs : 1);

	for (unsigned int i = 0; i <= 2 * net->n_pairs; i++)
		net->vdev.queues[i].ops = i < 2 * net->n_pairs ? &pair_queue_ops : &idle_ops;
	if (features & NET_BIT(CTRL_VQ))
		net->vdev.queues[ctrl].ops = &net_ctrl_ops;
}

/* Pairs and link */

int net_enable_pairs(struct net *net, unsigned int n)
{
	for (unsigned int i = 0; i < net->n_pairs; i++) {
		struct net_pair *pair = &net->pairs[i];
		bool want = i < n;

		if (atomic_load(&pair->enabled) == want)
			continue;
		/* Disabled first and detached then: nobody takes a detached queue for a fault. */
		if (!want)
			atomic_store(&pair->enabled, false);
		int r = net->backend->set_enabled(pair, want);

		if (r) {
			atomic_store(&pair->enabled, !want);
			return r;
		}
		atomic_store(&pair->enabled, want);
		fd_event_signal(pair->wake_fd);
	}
	return 0;
}

void net_set_coalescing(struct net *net, unsigned int index, uint64_t coalescing)
{
	atomic_store(&net->vdev.queues[index].coalescing, coalescing);
	/* What waits to be announced may have waited long enough. */
	fd_event_signal(net->pairs[index / 2].wake_fd);
}

void net_peer_gone(struct net *net, const char *why)
{
	if (!link_is_up(net))
		return;
	log_warn(net->vdev.log, net->vdev.name, "the network is gone: %s; the link is down", why);
	virtio_config_begin(&net->vdev);
	atomic_fetch_and(&net->status, (uint16_t)~VIRTIO_NET_S_LINK_UP);
	virtio_config_end(&net->vdev, true);
}

void virtio_net_set_link(struct virtio_device *vdev, bool up)
{
	struct net *net = net_of(vdev);

	if (up == link_is_up(net))
		return;
	virtio_config_begin(vdev);
	if (up)
		atomic_fetch_or(&net->status, VIRTIO_NET_S_LINK_UP |
						      (virtio_has(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE)
							       ? (uint16_t)VIRTIO_NET_S_ANNOUNCE
							       : (uint16_t)0));
	else
		atomic_fetch_and(&net->status,
				 (uint16_t)~(VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE));
	virtio_config_end(vdev, true);
	net->backend->set_carrier(net, up);
	for (unsigned int i = 0; i < net->n_pairs; i++)
		fd_event_signal(net->pairs[i].wake_fd);
}

/* Configuration */

/* 5.1.3.1: what a feature needs. */
static const struct {
	uint64_t feature;
	uint64_t any_of;
} needs[] = {
	{NET_BIT(GUEST_TSO4), NET_BIT(GUEST_CSUM)},
	{NET_BIT(GUEST_TSO6), NET_BIT(GUEST_CSUM)},
	{NET_BIT(GUEST_ECN), NET_BIT(GUEST_TSO4) | NET_BIT(GUEST_TSO6)},
	{NET_BIT(GUEST_USO4), NET_BIT(GUEST_CSUM)},
	{NET_BIT(GUEST_USO6), NET_BIT(GUEST_CSUM)},
	{NET_BIT(HOST_TSO4), NET_BIT(CSUM)},
	{NET_BIT(HOST_TSO6), NET_BIT(CSUM)},
	{NET_BIT(HOST_ECN), NET_BIT(HOST_TSO4) | NET_BIT(HOST_TSO6)},
	{NET_BIT(HOST_USO), NET_BIT(CSUM)},
	{NET_BIT(CTRL_RX), NET_BIT(CTRL_VQ)},
	{NET_BIT(GUEST_ANNOUNCE), NET_BIT(CTRL_VQ)},
	{NET_BIT(MQ), NET_BIT(CTRL_VQ)},
	{NET_BIT(CTRL_MAC_ADDR), NET_BIT(CTRL_VQ)},
	{NET_BIT(CTRL_GUEST_OFFLOADS), NET_BIT(CTRL_VQ)},
	{NET_BIT(NOTF_COAL), NET_BIT(CTRL_VQ)},
	{NET_BIT(VQ_NOTF_COAL), NET_BIT(CTRL_VQ)},
};

static int net_features_ok(struct virtio_device *vdev, uint64_t features)
{
	(void)vdev;
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++)
		if ((features & needs[i].feature) && !(features & needs[i].any_of))
			return -EINVAL;
	return 0;
}

static int net_features_set(struct virtio_device *vdev, uint64_t features)
{
	struct net *net = net_of(vdev);

	assign_queues(net, features);
	return net->backend->set_offloads(net, features & NET_GUEST_OFFLOADS);
}

static void net_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
			    unsigned int len)
{
	struct net *net = net_of(vdev);
	uint64_t mac = atomic_load(&net->mac);
	struct virtio_net_config c = {
		.status = htole16(atomic_load(&net->status)),
		.max_virtqueue_pairs = htole16((uint16_t)net->n_pairs),
		.mtu = htole16(net->mtu),
	};

	memcpy(c.mac, &mac, sizeof(c.mac));
	memset(buf, 0, len);
	if (offset < CONFIG_BYTES)
		memcpy(buf, (const uint8_t *)&c + offset, MIN(len, CONFIG_BYTES - offset));
}

static void net_reset(struct virtio_device *vdev)
{
	struct net *net = net_of(vdev);

	atomic_store(&net->mac, net->mac_initial);
	atomic_fetch_and(&net->status, (uint16_t)~VIRTIO_NET_S_ANNOUNCE);
	(void)net_enable_pairs(net, 1);
	(void)net->backend->set_offloads(net, 0);
	for (unsigned int way = 0; way < 2; way++)
		atomic_store(&net->coalescing[way], 0);
	for (unsigned int i = 0; i < 2 * net->n_pairs; i++)
		atomic_store(&vdev->queues[i].coalescing, 0);
}

static void net_destroy(struct virtio_device *vdev)
{
	if (!vdev)
		return;
	struct net *net = net_of(vdev);

	for (unsigned int i = 0; i < net->n_pairs; i++)
		vhost_destroy(net->pairs[i].vhost);
	if (net->backend)
		net->backend->close(net);
	for (unsigned int i = 0; i < net->n_pairs; i++) {
		fd_close(&net->pairs[i].fd);
		fd_close(&net->pairs[i].vhost_fd);
		fd_close(&net->pairs[i].wake_fd);
	}
	fd_close(&net->links_fd);
	virtio_device_done(vdev);
	free(net);
}

/* What the driver has set by the control queue, and the link. Packets that are on their way in this
 * process, but in no queue of the guest, are lost, as on any wire. */
struct net_record {
	uint64_t mac;
	uint64_t offloads;
	uint16_t status;
	uint16_t pairs;   /* in use */
	uint16_t n_pairs; /* that there are */
	uint16_t mtu;
	uint64_t coalescing[2];
	uint64_t queue_coalescing[2 * NET_PAIRS_MAX];
};

static const struct state_field net_fields[] = {
	STATE_ONE(struct net_record, mac, .mask = 0xffffffffffff),
	STATE_ONE(struct net_record, offloads, .mask = NET_GUEST_OFFLOADS),
	STATE_ONE(struct net_record, status, .mask = VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE),
	STATE_ONE(struct net_record, pairs, .max = NET_PAIRS_MAX),
	STATE_ONE(struct net_record, n_pairs, .same = true),
	STATE_ONE(struct net_record, mtu, .same = true),
	STATE_ARRAY(struct net_record, coalescing, .since = 2),
	STATE_ARRAY(struct net_record, queue_coalescing, .since = 2),
};

STATE_DERIVED(struct net, "has sections of its own", vdev);
STATE_DERIVED(struct net, "the setup", backend, mac_initial, links_fd, links, away);
STATE_DERIVED(struct net, "written as a struct net_record", n_pairs, mac, status, offloads, mtu,
	      pairs, coalescing);
STATE_DERIVED(struct net_pair, "made by init_pairs", net, index, fd, wake_fd, vhost_fd, vhost);
STATE_DERIVED(struct net_pair, "the first `pairs` of struct net_record", enabled);
STATE_DERIVED(struct net_pair, "of this host's end of the wire", backend);
STATE_DERIVED(struct net_pair, "empty while the queues are off", rx, tx);

static void fill_net(void *record, const void *live, uint32_t i)
{
	const struct net *net =
		container_of((struct virtio_device *)(uintptr_t)live, struct net, vdev);
	struct net_record *r = record;

	(void)i;
	r->mac = atomic_load(&net->mac);
	r->offloads = atomic_load(&net->offloads);
	r->status = atomic_load(&net->status);
	for (unsigned int k = 0; k < net->n_pairs; k++)
		r->pairs += atomic_load(&net->pairs[k].enabled);
	r->n_pairs = (uint16_t)net->n_pairs;
	r->mtu = net->mtu;
	for (unsigned int way = 0; way < 2; way++)
		r->coalescing[way] = atomic_load(&net->coalescing[way]);
	for (unsigned int k = 0; k < 2 * net->n_pairs; k++)
		r->queue_coalescing[k] = atomic_load(&net->vdev.queues[k].coalescing);
}

static void apply_net(void *live, const void *record, uint32_t i)
{
	struct net *net = net_of(live);
	const struct net_record *r = record;
	int ret;

	(void)i;
	assign_queues(net, net->vdev.features);
	atomic_store(&net->mac, r->mac);
	atomic_store(&net->status, r->status);
	for (unsigned int way = 0; way < 2; way++)
		atomic_store(&net->coalescing[way], r->coalescing[way]);
	for (unsigned int k = 0; k < 2 * net->n_pairs; k++)
		atomic_store(&net->vdev.queues[k].coalescing, r->queue_coalescing[k]);
	net->backend->set_carrier(net, link_is_up(net));
	ret = net->backend->set_offloads(net, r->offloads);
	if (!ret)
		ret = net_enable_pairs(net, r->pairs);
	if (ret)
		net_peer_gone(net, err_name(ret));
}

static int check_coalescing(const char *field, const uint64_t *coalescing, unsigned int n,
			    struct err *err)
{
	for (unsigned int i = 0; i < n; i++)
		if ((coalescing[i] & UINT32_MAX) > NET_COALESCING_US_MAX)
			return err_set(err, -EPROTO, "%s[%u] is 0x%llx: more than %u us", field, i,
				       (unsigned long long)coalescing[i], NET_COALESCING_US_MAX);
	return 0;
}

static int check_net(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct virtio_device *vdev = live;
	const struct net_record *r = record;
	int ret;

	(void)i;
	if (r->mac & 1)
		return err_set(err, -EPROTO, "mac is 0x%llx: a multicast address",
			       (unsigned long long)r->mac);
	if (r->offloads & ~vdev->features_offered)
		return err_set(err, -EPROTO, "offloads is 0x%llx; this device offers 0x%llx",
			       (unsigned long long)r->offloads,
			       (unsigned long long)(vdev->features_offered & NET_GUEST_OFFLOADS));
	if (r->pairs < 1 || r->pairs > r->n_pairs)
		return err_set(err, -EPROTO, "pairs is %u, of %u", r->pairs, r->n_pairs);
	ret = check_coalescing("coalescing", r->coalescing, ARRAY_SIZE(r->coalescing), err);
	return ret ? ret
		   : check_coalescing("queue_coalescing", r->queue_coalescing,
				      ARRAY_SIZE(r->queue_coalescing), err);
}

static const struct state_section net_section =
	STATE_SECTION("net", 2, struct net_record, net_fields, .fill = fill_net, .apply = apply_net,
		      .check = check_net);

static const struct virtio_device_ops net_ops = {
	.id = VIRTIO_ID_NET,
	.type = "virtio-net",
	.features_ok = net_features_ok,
	.features_set = net_features_set,
	.config_read = net_config_read,
	.reset = net_reset,
	.state = &net_section,
	.destroy = net_destroy,
};

static int check_config(const struct virtio_net_setup *c, struct err *err)
{
	if (c->pairs < 1 || c->pairs > NET_PAIRS_MAX)
		return err_set(err, -EINVAL, "net '%s': %u queue pairs; 1 to %u can be had",
			       c->name, c->pairs, NET_PAIRS_MAX);
	if (c->queue_size && (!is_power_of_two(c->queue_size) || c->queue_size < 16 ||
			      c->queue_size > NET_QUEUE_SIZE_MAX))
		return err_set(err, -EINVAL,
			       "net '%s': queue size %u is not a power of two from 16 to %u",
			       c->name, c->queue_size, NET_QUEUE_SIZE_MAX);
	/* 5.1.4.1 */
	if (c->mtu && c->mtu < 68)
		return err_set(err, -EINVAL, "net '%s': an MTU of %u; IP needs at least 68",
			       c->name, c->mtu);
	if (c->mac[0] & 1)
		return err_set(
			err, -EINVAL,
			"net '%s': %02x:%02x:%02x:%02x:%02x:%02x is a multicast address; the "
			"first byte of a card's is even",
			c->name, c->mac[0], c->mac[1], c->mac[2], c->mac[3], c->mac[4], c->mac[5]);
	if (c->vhost_fds && (c->backend != VIRTIO_NET_TAP || !c->gmem))
		return err_set(err, -EINVAL, "net '%s': vhost-net serves taps only", c->name);
	if (!c->fds || !c->n_loops)
		return err_set(err, -EINVAL, "net '%s': no backend or no event loop", c->name);
	return 0;
}

static uint64_t feature_bits(const struct virtio_net_setup *c, uint64_t backend)
{
	uint64_t f = NET_BIT(MAC) | NET_BIT(MRG_RXBUF) | NET_BIT(STATUS) | NET_BIT(CTRL_VQ) |
		     NET_BIT(CTRL_RX) | NET_BIT(CTRL_MAC_ADDR) | NET_BIT(GUEST_ANNOUNCE);

	if (c->offload && backend) {
		f |= backend;
		if (backend & NET_GUEST_OFFLOADS)
			f |= NET_BIT(CTRL_GUEST_OFFLOADS);
	}
	/* The host's kernel interrupts as it likes. */
	if (!c->vhost_fds)
		f |= NET_BIT(NOTF_COAL) | NET_BIT(VQ_NOTF_COAL);
	if (c->pairs > 1)
		f |= NET_BIT(MQ);
	if (c->mtu)
		f |= NET_BIT(MTU);
	return f;
}

static void init_queue(struct net *net, const struct virtio_net_setup *c, struct net_queue *q,
		       unsigned int index)
{
	struct virtio_queue *base = &net->vdev.queues[index];

	base->opaque = q;
	base->rate = &net->vdev.rates[index % 2]; /* each way its own */
	base->loop = c->loops[index / 2 % c->n_loops];
	base->moderation.max_ns = c->vhost_fds ? 0 : (uint64_t)c->moderation_us * 1000;
	base->max_size = (uint16_t)(c->queue_size ? c->queue_size : VIRTQ_DEFAULT_SIZE);
	q->pair = &net->pairs[index / 2];
	q->base = base;
	q->poll.done = poll_done;
	q->watch.done = watch_done;
}

static int init_pairs(struct net *net, const struct virtio_net_setup *c, struct err *err)
{
	for (unsigned int i = 0; i < c->pairs; i++) {
		struct net_pair *pair = &net->pairs[i];

		pair->net = net;
		pair->index = i;
		pair->fd = c->fds[i];
		pair->vhost_fd = c->vhost_fds ? c->vhost_fds[i] : -1;
		atomic_init(&pair->enabled, true); /* as a tap is when it is opened */
		init_queue(net, c, &pair->rx.q, 2 * i);
		init_queue(net, c, &pair->tx.q, 2 * i + 1);
		pair->wake_fd = fd_eventfd();
		if (pair->wake_fd < 0)
			return err_set(err, pair->wake_fd, "net '%s': eventfd: %s", c->name,
				       err_name(pair->wake_fd));
	}
	/* Where the control queue is follows from the features (assign_queues); in the place of
	 * pair 1's receive queue it has that one's loop. */
	net->vdev.queues[2 * c->pairs].loop = c->loops[0];
	net->vdev.queues[2 * c->pairs].max_size = 64;
	assign_queues(net, 0);
	return 0;
}

static int open_vhost(struct net *net, const struct virtio_net_setup *c, struct err *err)
{
	for (unsigned int i = 0; c->vhost_fds && i < c->pairs; i++) {
		struct net_pair *pair = &net->pairs[i];
		int r = vhost_kernel_create(&pair->vhost, c->name, pair->vhost_fd, pair->fd,
					    c->gmem, err);

		if (r)
			return r;
		net->vdev.features_offered &= pair->vhost->features | ~NET_BIT(MRG_RXBUF);
	}
	return 0;
}

int virtio_net_create(struct virtio_device **ret, const struct virtio_net_setup *config,
		      const struct log *log, struct err *err)
{
	int r = check_config(config, err);
	uint64_t backend_features = 0;

	if (r)
		return r;
	struct net *net = calloc(1, sizeof(*net) + config->pairs * sizeof(net->pairs[0]));

	if (!net)
		return err_set(err, -ENOMEM, "net '%s': no memory", config->name);
	struct virtio_device *vdev = &net->vdev;

	r = virtio_device_init(vdev, &net_ops, config->name, log, 2 * config->pairs + 1, err);
	if (r) {
		free(net);
		return r;
	}
	vdev->config_bytes = CONFIG_BYTES;
	net->n_pairs = config->pairs;
	for (unsigned int i = 0; i < config->pairs; i++)
		net->pairs[i].fd = net->pairs[i].vhost_fd = net->pairs[i].wake_fd = -1;
	net->backend = config->backend == VIRTIO_NET_TAP ? &net_tap_ops : &net_socket_ops;
	net->mtu = config->mtu;
	net->links_fd = config->links_fd ? config->links_fd : -1;
	net_links_init(net);
	memcpy(&net->mac_initial, config->mac, sizeof(config->mac));
	atomic_init(&net->mac, net->mac_initial);
	atomic_init(&net->status, config->link_down ? 0 : VIRTIO_NET_S_LINK_UP);

	r = init_pairs(net, config, err);
	if (!r)
		r = net->backend->open(net, &backend_features, err);
	if (r)
		goto fail;
	vdev->features_offered = feature_bits(config, backend_features);
	r = open_vhost(net, config, err);
	if (r)
		goto fail;
	/* 5.1.6.5.5: one pair is in use until the driver says more. */
	r = net_enable_pairs(net, 1);
	if (r) {
		err_set(err, r, "net '%s': cannot detach the queues that are not in use: %s",
			config->name, err_name(r));
		goto fail;
	}
	net->backend->set_carrier(net, !config->link_down);
	*ret = vdev;
	return 0;
fail:
	/* The caller keeps the fds. */
	for (unsigned int i = 0; i < config->pairs; i++)
		net->pairs[i].fd = net->pairs[i].vhost_fd = -1;
	net->links_fd = -1;
	net_destroy(vdev);
	return r;
}
