// SPDX-License-Identifier: Apache-2.0
// What kernel and process have in common: rings handed over and taken back, memory followed.
#include "virtio/vhost.h"

#include <errno.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "base/fd.h"

/* --- guest memory --- */

static bool reachable(const struct gmem_region *region)
{
	return !(region->flags & (GMEM_READONLY | GMEM_NO_DMA));
}

static int map(void *opaque, const struct gmem_region *region, struct err *err)
{
	struct vhost *v = opaque;
	int r;

	if (!reachable(region))
		return 0;
	pthread_mutex_lock(&v->lock);
	r = v->ops->map(v, region, err);
	pthread_mutex_unlock(&v->lock);
	return r;
}

static void unmap(void *opaque, const struct gmem_region *region)
{
	struct vhost *v = opaque;

	if (!reachable(region))
		return;
	pthread_mutex_lock(&v->lock);
	v->ops->unmap(v, region);
	pthread_mutex_unlock(&v->lock);
}

static int batch_end(void *opaque, struct err *err)
{
	struct vhost *v = opaque;
	int r;

	pthread_mutex_lock(&v->lock);
	r = v->ops->batch_end(v, err);
	pthread_mutex_unlock(&v->lock);
	return r;
}

static const struct gmem_listener_ops listener_ops = {
	.name = "vhost",
	.map = map,
	.unmap = unmap,
	.batch_end = batch_end,
};

int vhost_listen(struct vhost *v, struct err *err)
{
	int r = gmem_listen(v->gmem, &v->listener, err);

	v->listening = !r;
	return r;
}

/* --- rings --- */

/* What it can of what the driver accepted; the ring's own bits are in the layout too. */
static uint64_t features_for(const struct vhost *v, uint64_t accepted, const struct virtq_layout *l)
{
	uint64_t features = accepted & v->features;

	features &= ~(1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	return features | 1ull << VIRTIO_F_VERSION_1 |
	       (uint64_t)l->event_idx << VIRTIO_RING_F_EVENT_IDX |
	       (uint64_t)l->indirect << VIRTIO_RING_F_INDIRECT_DESC;
}

static int start_ring(struct vhost *v, unsigned int index, uint64_t features,
		      const struct virtio_queue_fds *fds)
{
	const struct virtq_layout *l = &fds->layout;
	size_t size = l->size;
	struct vhost_ring ring = {
		.index = index,
		.layout = *l,
		.next_avail = fds->next_avail,
		.desc = gmem_host(v->gmem, l->desc_iova, 16 * size, false),
		.avail = gmem_host(v->gmem, l->avail_iova, 6 + 2 * size, false),
		.used = gmem_host(v->gmem, l->used_iova, 6 + 8 * size, true),
		.kick_fd = fds->kick_fd,
		.call_fd = fds->call_fd,
		.err_fd = v->err_fd[index],
	};
	int r;

	if (!ring.desc || !ring.avail || !ring.used)
		return -EFAULT;
	/* The features are of all rings; they can be set while none runs. */
	r = v->n_active ? 0 : v->ops->set_features(v, features_for(v, features, l));
	if (!r)
		r = v->ops->start(v, &ring);
	if (r)
		return r;
	v->active[index] = true;
	v->next_avail[index] = fds->next_avail;
	v->n_active++;
	return 0;
}

int vhost_queue_start(struct vhost *v, struct virtio_queue *q, unsigned int ring, uint64_t features)
{
	struct virtio_queue_fds fds;
	int r = virtio_queue_hand_over(q, &fds);

	if (r)
		return r;
	pthread_mutex_lock(&v->lock);
	r = start_ring(v, ring, features, &fds);
	pthread_mutex_unlock(&v->lock);
	if (r)
		virtio_queue_take_back(q, fds.next_avail);
	return r;
}

void vhost_queue_stop(struct vhost *v, struct virtio_queue *q, unsigned int ring)
{
	uint16_t next_avail;
	bool active;

	pthread_mutex_lock(&v->lock);
	active = v->active[ring];
	next_avail = v->next_avail[ring];
	if (active) {
		v->active[ring] = false;
		v->n_active--;
		(void)v->ops->stop(v, ring, &next_avail);
	}
	pthread_mutex_unlock(&v->lock);
	if (active)
		virtio_queue_take_back(q, next_avail);
}

int vhost_queue_set_call(struct vhost *v, unsigned int ring, int call_fd)
{
	int r;

	pthread_mutex_lock(&v->lock);
	r = v->ops->set_call(v, ring, call_fd);
	pthread_mutex_unlock(&v->lock);
	return r;
}

int vhost_error_fd(const struct vhost *v, unsigned int ring)
{
	return v->err_fd[ring];
}

/* --- set up --- */

int vhost_init(struct vhost *v, const struct vhost_ops *ops, const char *name, struct gmem *gmem,
	       unsigned int n_rings, struct err *err)
{
	v->ops = ops;
	v->name = name;
	v->gmem = gmem;
	v->n_rings = n_rings;
	v->listener = (struct gmem_listener){.ops = &listener_ops, .opaque = v};
	pthread_mutex_init(&v->lock, NULL);
	for (unsigned int i = 0; i < n_rings; i++)
		v->err_fd[i] = -1;
	for (unsigned int i = 0; i < n_rings; i++) {
		v->err_fd[i] = fd_eventfd();
		if (v->err_fd[i] < 0)
			return err_set(err, v->err_fd[i], "'%s': vhost: eventfd: %s", name,
				       err_name(v->err_fd[i]));
	}
	return 0;
}

void vhost_done(struct vhost *v)
{
	if (v->listening)
		gmem_unlisten(v->gmem, &v->listener);
	for (unsigned int i = 0; i < v->n_rings; i++)
		fd_close(&v->err_fd[i]);
	pthread_mutex_destroy(&v->lock);
}

void vhost_destroy(struct vhost *v)
{
	if (v)
		v->ops->destroy(v);
}
