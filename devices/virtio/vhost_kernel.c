// SPDX-License-Identifier: Apache-2.0
// vhost-net: the kernel moves packets between a queue pair's rings and its tap. One vhost fd (one
// kernel thread) per pair. It sees guest memory through the table below.
#include <errno.h>
#include <stddef.h>
#include <sys/ioctl.h>

#include <linux/vhost.h>
#include <linux/virtio_config.h>

#include "base/mem.h"
#include "base/num.h"
#include "virtio/vhost.h"

struct vhost_kernel {
	struct vhost base;
	int fd, tap_fd;
	struct vhost_memory *table;
	uint32_t room;
};

static struct vhost_kernel *of(struct vhost *v)
{
	return container_of(v, struct vhost_kernel, base);
}

static int call(const struct vhost_kernel *k, unsigned long request, void *arg)
{
	return ioctl(k->fd, request, arg) < 0 ? -errno : 0;
}

/* --- guest memory --- */

static int map(struct vhost *v, const struct gmem_region *region, struct err *err)
{
	struct vhost_kernel *k = of(v);

	if (k->table->nregions == k->room) {
		uint32_t room = k->room * 2;
		struct vhost_memory *table =
			realloc(k->table, sizeof(*table) + room * sizeof(table->regions[0]));

		if (!table)
			return err_set(err, -ENOMEM, "vhost: no memory");
		k->table = table;
		k->room = room;
	}
	k->table->regions[k->table->nregions++] = (struct vhost_memory_region){
		.guest_phys_addr = region->gpa,
		.memory_size = region->size_bytes,
		.userspace_addr = (uintptr_t)region->hva,
	};
	return 0;
}

static void unmap(struct vhost *v, const struct gmem_region *region)
{
	struct vhost_kernel *k = of(v);

	for (uint32_t i = 0; i < k->table->nregions; i++) {
		if (k->table->regions[i].guest_phys_addr != region->gpa)
			continue;
		k->table->regions[i] = k->table->regions[--k->table->nregions];
		return;
	}
}

static int batch_end(struct vhost *v, struct err *err)
{
	struct vhost_kernel *k = of(v);
	int r = call(k, VHOST_SET_MEM_TABLE, k->table);

	return r ? err_set(err, r, "vhost: memory table of %u regions: %s", k->table->nregions,
			   err_name(r))
		 : 0;
}

/* --- rings --- */

static int set_features(struct vhost *v, uint64_t features)
{
	return call(of(v), VHOST_SET_FEATURES, &features);
}

static int set_call(struct vhost *v, unsigned int ring, int call_fd)
{
	struct vhost_vring_file irq = {.index = ring, .fd = call_fd};

	return call(of(v), VHOST_SET_VRING_CALL, &irq);
}

static int start(struct vhost *v, const struct vhost_ring *ring)
{
	const struct vhost_kernel *k = of(v);
	struct vhost_vring_state num = {.index = ring->index, .num = ring->layout.size};
	struct vhost_vring_state base = {.index = ring->index, .num = ring->next_avail};
	struct vhost_vring_addr addr = {
		.index = ring->index,
		.desc_user_addr = (uintptr_t)ring->desc,
		.avail_user_addr = (uintptr_t)ring->avail,
		.used_user_addr = (uintptr_t)ring->used,
	};
	struct vhost_vring_file kick = {.index = ring->index, .fd = ring->kick_fd};
	struct vhost_vring_file error = {.index = ring->index, .fd = ring->err_fd};
	struct vhost_vring_file tap = {.index = ring->index, .fd = k->tap_fd};
	int r;

	if ((r = call(k, VHOST_SET_VRING_NUM, &num)) ||
	    (r = call(k, VHOST_SET_VRING_BASE, &base)) ||
	    (r = call(k, VHOST_SET_VRING_ADDR, &addr)) ||
	    (r = call(k, VHOST_SET_VRING_KICK, &kick)) ||
	    (r = set_call(v, ring->index, ring->call_fd)) ||
	    (r = call(k, VHOST_SET_VRING_ERR, &error)))
		return r;
	return call(k, VHOST_NET_SET_BACKEND, &tap);
}

static int stop(struct vhost *v, unsigned int ring, uint16_t *next_avail)
{
	struct vhost_vring_file none = {.index = ring, .fd = -1};
	struct vhost_vring_state base = {.index = ring};
	int r;

	/* Returns when the kernel's thread is done with this ring. */
	(void)call(of(v), VHOST_NET_SET_BACKEND, &none);
	r = call(of(v), VHOST_GET_VRING_BASE, &base);
	if (!r)
		*next_avail = (uint16_t)base.num;
	return r;
}

static void destroy(struct vhost *v)
{
	vhost_done(v);
	free(of(v)->table);
	free(of(v));
}

static const struct vhost_ops kernel_ops = {
	.name = "vhost",
	.set_features = set_features,
	.map = map,
	.unmap = unmap,
	.batch_end = batch_end,
	.start = start,
	.set_call = set_call,
	.stop = stop,
	.destroy = destroy,
};

static int prepare(struct vhost_kernel *k, struct err *err)
{
	const char *name = k->base.name;
	int r = call(k, VHOST_SET_OWNER, NULL);

	if (!r)
		r = call(k, VHOST_GET_FEATURES, &k->base.features);
	if (r)
		return err_set(err, r, "net '%s': fd %d is not a fresh /dev/vhost-net: %s", name,
			       k->fd, err_name(r));
	if (!(k->base.features >> VIRTIO_F_VERSION_1 & 1))
		return err_set(err, -EOPNOTSUPP,
			       "net '%s': this host's vhost-net knows no virtio 1.0", name);
	return vhost_listen(&k->base, err);
}

int vhost_kernel_create(struct vhost **ret, const char *name, int vhost_fd, int tap_fd,
			struct gmem *gmem, struct err *err)
{
	struct vhost_kernel *k;
	int r;

	if (!mem_new(k))
		return err_set(err, -ENOMEM, "net '%s': no memory", name);
	k->fd = vhost_fd;
	k->tap_fd = tap_fd;
	k->room = 8;
	r = vhost_init(&k->base, &kernel_ops, name, gmem, 2, err);
	k->table = calloc(1, sizeof(*k->table) + k->room * sizeof(k->table->regions[0]));
	if (!r && !k->table)
		r = err_set(err, -ENOMEM, "net '%s': no memory", name);
	if (!r)
		r = prepare(k, err);
	if (r)
		destroy(&k->base);
	else
		*ret = &k->base;
	return r;
}
