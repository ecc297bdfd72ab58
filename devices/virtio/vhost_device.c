// SPDX-License-Identifier: Apache-2.0
// A disk, a network or a shared folder whose queues a daemon serves. See vhost_device.h.
#include "virtio/vhost_device.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "virtio/vhost_user.h"

#define BIT(name) (1ull << VIRTIO_##name)

/* Bits that mean something here and need no more than the daemon. */
static const uint64_t blk_features = BIT(BLK_F_SIZE_MAX) | BIT(BLK_F_SEG_MAX) | BIT(BLK_F_RO) |
				     BIT(BLK_F_BLK_SIZE) | BIT(BLK_F_FLUSH) | BIT(BLK_F_TOPOLOGY) |
				     BIT(BLK_F_DISCARD) | BIT(BLK_F_WRITE_ZEROES);
static const uint64_t net_features =
	BIT(NET_F_CSUM) | BIT(NET_F_GUEST_CSUM) | BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6) |
	BIT(NET_F_GUEST_ECN) | BIT(NET_F_GUEST_UFO) | BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6) |
	BIT(NET_F_HOST_ECN) | BIT(NET_F_HOST_UFO) | BIT(NET_F_MRG_RXBUF);

enum {
	/* struct virtio_blk_config up to write_zeroes_may_unmap (virtio 1.3, 5.2.4). */
	BLK_CONFIG_BYTES = 60,
	NET_CONFIG_BYTES = 12,
	FS_CONFIG_BYTES = 40,
};
static_assert(offsetof(struct virtio_blk_config, unused1) == 57, "virtio 1.3, 5.2.4");
static_assert(offsetof(struct virtio_net_config, speed) == NET_CONFIG_BYTES, "virtio 1.3, 5.1.4");
static_assert(sizeof(struct virtio_fs_config) == FS_CONFIG_BYTES, "virtio 1.3, 5.11.4");

struct served_queue {
	struct served *device;
	struct virtio_queue *base;
	struct loop_op watch; /* of the ring's error eventfd */
	struct loop_op kick;  /* the first one, which nobody else announces */
};

struct served {
	struct virtio_device vdev;
	struct vhost *vhost;
	/* Under the device's lock once it is attached. */
	union {
		uint8_t bytes[VHOST_USER_CONFIG_MAX];
		struct virtio_blk_config blk;
		struct virtio_net_config net;
		struct virtio_fs_config fs;
	} config;
	struct served_queue queues[];
};

static struct served *of(struct virtio_device *vdev)
{
	return container_of(vdev, struct served, vdev);
}

/* --- queues --- */

static void watch_done(struct loop_op *op, int result)
{
	struct served_queue *q = container_of(op, struct served_queue, watch);

	if (result >= 0)
		(void)virtq_break(q->base->vq, "the daemon has found it malformed");
	else if (result == -ECANCELED && virtio_queue_running(q->base))
		/* The thread that ran the loop has ended; another runs it now. */
		loop_watch(q->base->loop, &q->watch,
			   vhost_error_fd(q->device->vhost, q->base->index));
	else
		virtio_queue_release(q->base);
}

/* By the loop: the daemon shares the eventfd's flags and counter, and may have seen to it that a
 * write waits. */
static void kick(struct served_queue *q)
{
	static const uint64_t one = 1;

	virtio_queue_hold(q->base);
	loop_write(q->base->loop, &q->kick, q->base->kick_fd, &one, sizeof(one), -1);
}

static void kick_done(struct loop_op *op, int result)
{
	struct served_queue *q = container_of(op, struct served_queue, kick);

	virtio_queue_release(q->base);
	if (result == -ECANCELED && virtio_queue_running(q->base))
		kick(q); /* as above */
}

static int queue_start(struct virtio_queue *base)
{
	struct served_queue *q = base->opaque;
	struct vhost *vhost = q->device->vhost;
	int r = vhost_queue_start(vhost, base, base->index, base->vdev->features);

	if (r)
		return r;
	virtio_queue_hold(base);
	loop_watch(base->loop, &q->watch, vhost_error_fd(vhost, base->index));
	kick(q);
	return 0;
}

static bool queue_serve(struct virtio_queue *base)
{
	(void)base;
	return false;
}

static void queue_cancel(struct virtio_queue *base)
{
	struct served_queue *q = base->opaque;

	loop_cancel(base->loop, &q->watch);
	loop_cancel(base->loop, &q->kick);
	vhost_queue_stop(q->device->vhost, base, base->index);
}

static int queue_set_call(struct virtio_queue *base, int call_fd)
{
	struct served_queue *q = base->opaque;

	return vhost_queue_set_call(q->device->vhost, base->index, call_fd);
}

static const struct virtio_queue_ops queue_ops = {
	.start = queue_start,
	.serve = queue_serve,
	.cancel = queue_cancel,
	.set_call = queue_set_call,
};

/* --- registers --- */

static void config_read(struct virtio_device *vdev, uint32_t offset, void *buf, unsigned int len)
{
	memcpy(buf, of(vdev)->config.bytes + offset, len);
}

/* 5.1.3.1, of what a daemon may have. */
static int net_features_ok(struct virtio_device *vdev, uint64_t features)
{
	bool receives = features & (BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6));
	bool sends = features & (BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6));

	(void)vdev;
	if ((receives && !(features & BIT(NET_F_GUEST_CSUM))) ||
	    (sends && !(features & BIT(NET_F_CSUM))) ||
	    (features & BIT(NET_F_GUEST_ECN) && !receives) ||
	    (features & BIT(NET_F_HOST_ECN) && !sends))
		return -EINVAL;
	return 0;
}

void virtio_vhost_set_link(struct virtio_device *vdev, bool up)
{
	struct virtio_net_config *c = &of(vdev)->config.net;

	virtio_config_begin(vdev);
	c->status = up ? htole16(VIRTIO_NET_S_LINK_UP) : 0;
	virtio_config_end(vdev, true);
}

static void destroy(struct virtio_device *vdev)
{
	if (!vdev)
		return;
	vhost_destroy(of(vdev)->vhost);
	virtio_device_done(vdev);
	free(of(vdev));
}

#define NO_STATE                                                                               \
	"a daemon serves it (vhost_user), whose state cannot be saved yet; remove the device " \
	"first ('hospes ctl NAME remove ID')"

static const struct virtio_device_ops types[VIRTIO_VHOST_TYPES] = {
	[VIRTIO_VHOST_BLK] = {.id = VIRTIO_ID_BLOCK,
			      .type = "virtio-blk",
			      .config_read = config_read,
			      .no_state = NO_STATE,
			      .destroy = destroy},
	[VIRTIO_VHOST_NET] = {.id = VIRTIO_ID_NET,
			      .type = "virtio-net",
			      .features_ok = net_features_ok,
			      .config_read = config_read,
			      .no_state = NO_STATE,
			      .destroy = destroy},
	[VIRTIO_VHOST_FS] = {.id = VIRTIO_ID_FS,
			     .type = "virtio-fs",
			     .config_read = config_read,
			     .no_state = NO_STATE,
			     .destroy = destroy},
};

int virtio_vhost_changes_fd(const struct virtio_device *vdev)
{
	return vhost_user_requests_fd(container_of(vdev, const struct served, vdev)->vhost);
}

void virtio_vhost_take_change(struct virtio_device *vdev)
{
	struct served *s = of(vdev);
	struct virtio_blk_config now = {0};
	struct err err = ERR_INIT;

	if (!vhost_user_config_changed(s->vhost) ||
	    vhost_user_get_config(s->vhost, &now, BLK_CONFIG_BYTES, &err))
		return;
	/* How large it is; the rest is what it was when the driver looked. */
	virtio_config_begin(vdev);
	s->config.blk.capacity = now.capacity;
	virtio_config_end(vdev, true);
}

bool virtio_vhost_gone(struct virtio_device *vdev, char *text, size_t bytes)
{
	char line[200];

	if (!vhost_user_gone(of(vdev)->vhost, text, bytes))
		return false;
	snprintf(line, sizeof(line), "its daemon is gone: %s", text);
	virtio_device_broken(vdev, line);
	return true;
}

/* --- set up --- */

static int set_up_blk(struct served *s, const struct virtio_vhost_setup *setup, struct err *err)
{
	uint64_t can = s->vhost->features;
	int r = vhost_user_get_config(s->vhost, s->config.bytes, BLK_CONFIG_BYTES, err);

	if (r)
		return r;
	if (setup->readonly && !(can & BIT(BLK_F_RO)))
		return err_set(err, -EINVAL,
			       "disk '%s': its daemon would write; start it read-only, or leave "
			       "out readonly",
			       setup->name);
	s->vdev.config_bytes = BLK_CONFIG_BYTES;
	s->vdev.features_offered = can & blk_features;
	if (setup->queues > 1) {
		if (!(can & BIT(BLK_F_MQ)))
			return err_set(err, -EINVAL,
				       "disk '%s': its daemon has one queue, and %u are wanted; "
				       "leave out queues",
				       setup->name, setup->queues);
		s->vdev.features_offered |= BIT(BLK_F_MQ);
	}
	s->config.blk.num_queues = htole16((uint16_t)setup->queues);
	return 0;
}

static void set_up_net(struct served *s, const struct virtio_vhost_setup *setup)
{
	struct virtio_net_config *c = &s->config.net;

	s->vdev.config_bytes = NET_CONFIG_BYTES;
	s->vdev.features_offered =
		(s->vhost->features & net_features) | BIT(NET_F_MAC) | BIT(NET_F_STATUS);
	if (setup->mtu)
		s->vdev.features_offered |= BIT(NET_F_MTU);
	memcpy(c->mac, setup->mac, sizeof(c->mac));
	c->status = setup->link_down ? 0 : htole16(VIRTIO_NET_S_LINK_UP);
	c->max_virtqueue_pairs = htole16(1);
	c->mtu = htole16(setup->mtu);
}

static void set_up_fs(struct served *s, const struct virtio_vhost_setup *setup)
{
	struct virtio_fs_config *c = &s->config.fs;

	s->vdev.config_bytes = FS_CONFIG_BYTES;
	memcpy(c->tag, setup->tag, strnlen(setup->tag, sizeof(c->tag)));
	c->num_request_queues = htole32(setup->queues);
}

static unsigned int count_queues(const struct virtio_vhost_setup *setup)
{
	switch (setup->type) {
	case VIRTIO_VHOST_NET:
		return 2;
	case VIRTIO_VHOST_FS:
		return setup->queues + 1;
	default:
		return setup->queues;
	}
}

static int prepare(struct served *s, const struct virtio_vhost_setup *setup, unsigned int n,
		   const struct log *log, struct err *err)
{
	const struct vhost_user_setup user = {
		.name = s->vdev.name,
		.fd = setup->fd,
		.n_rings = n,
		.config = setup->type == VIRTIO_VHOST_BLK,
		.gmem = setup->gmem,
		.limit_ms = setup->limit_ms,
	};
	int r = virtio_device_init(&s->vdev, &types[setup->type], setup->name, log, n, err);

	if (r)
		return r;
	for (unsigned int i = 0; i < n; i++) {
		s->queues[i] = (struct served_queue){.device = s,
						     .base = &s->vdev.queues[i],
						     .watch.done = watch_done,
						     .kick.done = kick_done};
		s->vdev.queues[i].ops = &queue_ops;
		s->vdev.queues[i].opaque = &s->queues[i];
		s->vdev.queues[i].loop = setup->loops[i % setup->n_loops];
		s->vdev.queues[i].max_size = (uint16_t)setup->queue_size;
	}
	r = vhost_user_create(&s->vhost, &user, err);
	if (r)
		return r;
	if (setup->type == VIRTIO_VHOST_BLK)
		r = set_up_blk(s, setup, err);
	else if (setup->type == VIRTIO_VHOST_NET)
		set_up_net(s, setup);
	else
		set_up_fs(s, setup);
	s->vdev.features_withheld = BIT(F_RING_RESET);
	s->vdev.features_withheld |=
		~s->vhost->features & (BIT(RING_F_EVENT_IDX) | BIT(RING_F_INDIRECT_DESC));
	return r;
}

int virtio_vhost_create(struct virtio_device **ret, const struct virtio_vhost_setup *setup,
			const struct log *log, struct err *err)
{
	unsigned int n = count_queues(setup);
	struct served *s;
	int r;

	if (n > VIRTIO_MAX_QUEUES)
		return err_set(err, -EINVAL, "'%s': %u queues are more than %u", setup->name, n,
			       VIRTIO_MAX_QUEUES);
	s = calloc(1, sizeof(*s) + n * sizeof(s->queues[0]));
	if (!s)
		return err_set(err, -ENOMEM, "'%s': no memory", setup->name);
	r = prepare(s, setup, n, log, err);
	if (r)
		destroy(&s->vdev);
	else
		*ret = &s->vdev;
	return r;
}
