/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-net: the kernel moves packets between a queue pair's rings and its tap; hospes only sets it
 * up and takes it down. One vhost fd (one kernel thread) per pair; its two rings are 0, receive,
 * and 1, transmit. It sees guest memory through the table below, which follows gmem.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "base/fd.h"
#include "base/mem.h"
#include "core/gmem.h"

struct vhost {
	struct net_pair *pair;
	int fd;
	struct gmem *gmem;
	struct gmem_listener listener;
	bool listening;
	struct vhost_memory *table;
	uint32_t room;
	uint64_t features;   /* what it can */
	unsigned int active; /* bit per ring */
	int err_fd[2];
};

static int call(const struct vhost *v, unsigned long request, void *arg)
{
	return ioctl(v->fd, request, arg) < 0 ? -errno : 0;
}

/* Guest memory */

static int table_map(void *opaque, const struct gmem_region *region, struct err *err)
{
	struct vhost *v = opaque;

	if (region->flags & (GMEM_READONLY | GMEM_NO_DMA))
		return 0;
	if (v->table->nregions == v->room) {
		uint32_t room = v->room * 2;
		struct vhost_memory *table =
			realloc(v->table, sizeof(*table) + room * sizeof(table->regions[0]));

		if (!table)
			return err_set(err, -ENOMEM, "vhost: no memory");
		v->table = table;
		v->room = room;
	}
	v->table->regions[v->table->nregions++] = (struct vhost_memory_region){
		.guest_phys_addr = region->gpa,
		.memory_size = region->size_bytes,
		.userspace_addr = (uintptr_t)region->hva,
	};
	return 0;
}

static void table_unmap(void *opaque, const struct gmem_region *region)
{
	struct vhost *v = opaque;

	for (uint32_t i = 0; i < v->table->nregions; i++) {
		if (v->table->regions[i].guest_phys_addr != region->gpa)
			continue;
		v->table->regions[i] = v->table->regions[--v->table->nregions];
		return;
	}
}

static int table_apply(void *opaque, struct err *err)
{
	struct vhost *v = opaque;
	int r = call(v, VHOST_SET_MEM_TABLE, v->table);

	return r ? err_set(err, r, "vhost: memory table of %u regions: %s", v->table->nregions,
			   err_name(r))
		 : 0;
}

static const struct gmem_listener_ops listener_ops = {
	.name = "vhost",
	.map = table_map,
	.unmap = table_unmap,
	.batch_end = table_apply,
};

/* Rings */

static int ring_addresses(const struct vhost *v, const struct virtq_layout *l,
			  struct vhost_vring_addr *addr)
{
	size_t size = l->size;
	void *desc = gmem_host(v->gmem, l->desc_iova, 16 * size, false);
	void *avail = gmem_host(v->gmem, l->avail_iova, 6 + 2 * size, false);
	void *used = gmem_host(v->gmem, l->used_iova, 6 + 8 * size, true);

	if (!desc || !avail || !used)
		return -EFAULT;
	addr->desc_user_addr = (uintptr_t)desc;
	addr->avail_user_addr = (uintptr_t)avail;
	addr->used_user_addr = (uintptr_t)used;
	return 0;
}

static int set_features(struct vhost *v, const struct virtq_layout *l)
{
	uint64_t features = v->pair->net->vdev.features & v->features;

	features &= ~(1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	features |= 1ull << VIRTIO_F_VERSION_1 | (uint64_t)l->event_idx << VIRTIO_RING_F_EVENT_IDX |
		    (uint64_t)l->indirect << VIRTIO_RING_F_INDIRECT_DESC;
	return call(v, VHOST_SET_FEATURES, &features);
}

static int start_ring(struct vhost *v, unsigned int ring, const struct virtio_queue_fds *fds)
{
	struct vhost_vring_state num = {.index = ring, .num = fds->layout.size};
	struct vhost_vring_state base = {.index = ring, .num = fds->next_avail};
	struct vhost_vring_addr addr = {.index = ring};
	struct vhost_vring_file kick = {.index = ring, .fd = fds->kick_fd};
	struct vhost_vring_file irq = {.index = ring, .fd = fds->call_fd};
	struct vhost_vring_file error = {.index = ring, .fd = v->err_fd[ring]};
	struct vhost_vring_file tap = {.index = ring, .fd = v->pair->fd};
	int r;

	/* The features are of both rings; they can be set while none runs. */
	if (!v->active && (r = set_features(v, &fds->layout)))
		return r;
	if ((r = ring_addresses(v, &fds->layout, &addr)) ||
	    (r = call(v, VHOST_SET_VRING_NUM, &num)) ||
	    (r = call(v, VHOST_SET_VRING_BASE, &base)) ||
	    (r = call(v, VHOST_SET_VRING_ADDR, &addr)) ||
	    (r = call(v, VHOST_SET_VRING_KICK, &kick)) ||
	    (r = call(v, VHOST_SET_VRING_CALL, &irq)) || (r = call(v, VHOST_SET_VRING_ERR, &error)))
		return r;
	return call(v, VHOST_NET_SET_BACKEND, &tap);
}

int vhost_start(struct vhost *v, struct net_queue *q)
{
	unsigned int ring = q->base->index & 1;
	struct virtio_queue_fds fds;
	int r = virtio_queue_hand_over(q->base, &fds);

	if (r)
		return r;
	r = start_ring(v, ring, &fds);
	if (r) {
		virtio_queue_take_back(q->base, fds.next_avail);
		return r;
	}
	v->active |= 1u << ring;
	/* Whatever was available before has nobody else to announce it. */
	fd_event_signal(fds.kick_fd);
	return 0;
}

int vhost_set_call(struct vhost *v, const struct net_queue *q, int call_fd)
{
	struct vhost_vring_file irq = {.index = q->base->index & 1, .fd = call_fd};

	return call(v, VHOST_SET_VRING_CALL, &irq);
}

int vhost_error_fd(const struct vhost *v, unsigned int ring)
{
	return v->err_fd[ring];
}

void vhost_stop(struct vhost *v, struct net_queue *q)
{
	unsigned int ring = q->base->index & 1;
	struct vhost_vring_file none = {.index = ring, .fd = -1};
	struct vhost_vring_state base = {.index = ring};

	if (!(v->active & 1u << ring))
		return;
	v->active &= ~(1u << ring);
	/* Returns when the kernel's thread is done with this ring. */
	(void)call(v, VHOST_NET_SET_BACKEND, &none);
	(void)call(v, VHOST_GET_VRING_BASE, &base);
	virtio_queue_take_back(q->base, (uint16_t)base.num);
}

int vhost_create(struct vhost **ret, struct net_pair *pair, struct gmem *gmem, uint64_t *features,
		 struct err *err)
{
	const char *name = pair->net->vdev.name;
	struct vhost *v;
	int r;

	if (!mem_new(v))
		return err_set(err, -ENOMEM, "net '%s': no memory", name);
	v->pair = pair;
	v->fd = pair->vhost_fd;
	v->gmem = gmem;
	v->room = 8;
	v->table = calloc(1, sizeof(*v->table) + v->room * sizeof(v->table->regions[0]));
	v->listener = (struct gmem_listener){.ops = &listener_ops, .opaque = v};
	v->err_fd[0] = fd_eventfd();
	v->err_fd[1] = fd_eventfd();
	if (!v->table || v->err_fd[0] < 0 || v->err_fd[1] < 0) {
		r = err_set(err, -ENOMEM, "net '%s': vhost: no memory or no descriptors", name);
		goto fail;
	}
	r = call(v, VHOST_SET_OWNER, NULL);
	if (!r)
		r = call(v, VHOST_GET_FEATURES, &v->features);
	if (r) {
		err_set(err, r, "net '%s': fd %d is not a fresh /dev/vhost-net: %s", name, v->fd,
			err_name(r));
		goto fail;
	}
	if (!(v->features >> VIRTIO_F_VERSION_1 & 1)) {
		r = err_set(err, -EOPNOTSUPP, "net '%s': this host's vhost-net knows no virtio 1.0",
			    name);
		goto fail;
	}
	r = gmem_listen(gmem, &v->listener, err);
	if (r)
		goto fail;
	v->listening = true;
	*features &= v->features;
	*ret = v;
	return 0;
fail:
	vhost_destroy(v);
	return r;
}

void vhost_destroy(struct vhost *v)
{
	if (!v)
		return;
	if (v->listening)
		gmem_unlisten(v->gmem, &v->listener);
	fd_close(&v->err_fd[0]);
	fd_close(&v->err_fd[1]);
	free(v->table);
	free(v);
}
