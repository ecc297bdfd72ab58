/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk: the device, its config space, and its queues. blk_request.c serves requests.
 */
#include "virtio/blk_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/virtio_ids.h>

#include "base/fd.h"
#include "base/mem.h"
#include "core/state.h"

/* Of the device configuration (virtio 1.3, 5.2.4), up to what is offered. */
#define CONFIG_BYTES ((uint32_t)offsetof(struct virtio_blk_config, max_secure_erase_sectors))
static_assert(CONFIG_BYTES == 60, "virtio 1.3, 5.2.4");

/* What the page cache and today's disks work in: told to the guest as the physical block. */
#define PHYSICAL_BYTES 4096u

static struct blk *blk_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct blk, vdev);
}

/* Queues */

/* The chain has no byte for a status. Where the virtual IOMMU is the reason it is dropped;
 * otherwise it is the one mistake of a driver that cannot be answered. */
static void refuse(struct blk_request *req)
{
	struct virtq *vq = req->queue->base->vq;

	if (!req->chain.truncated)
		(void)virtq_break(vq, "request without status byte");
	virtq_push(vq, &req->chain, 0);
	blk_request_put(req);
}

static bool blk_queue_serve(struct virtio_queue *base)
{
	struct blk_queue *q = base->opaque;

	do {
		virtq_kick_disable(base->vq);
		for (;;) {
			struct blk_request *req = blk_request_get(q);

			if (!req) {
				q->starved = true;
				return false;
			}
			if (virtq_pop(base->vq, &req->chain) <= 0) {
				blk_request_put(req);
				break;
			}
			if (!req->chain.last_in) {
				refuse(req);
				continue;
			}
			virtio_queue_hold(base);
			blk_request_start(req);
			if (!virtio_queue_spend(base, req->bytes))
				return true;
		}
	} while (virtq_kick_enable(base->vq));
	return false;
}

static void release_memory(struct blk_queue *q)
{
	if (q->requests)
		(void)munmap(q->requests, q->requests_bytes);
	if (q->bounce)
		(void)munmap(q->bounce, BLK_BOUNCE_SLOTS * BLK_BOUNCE_BYTES);
	q->requests = NULL;
	q->bounce = NULL;
}

static void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int blk_queue_start(struct virtio_queue *base)
{
	struct blk_queue *q = base->opaque;

	q->n_requests = virtq_size(base->vq);
	q->fresh = 0;
	q->starved = false;
	list_init(&q->free);
	list_init(&q->waiting);
	q->bounce_free = (1u << BLK_BOUNCE_SLOTS) - 1;
	q->requests_bytes = q->n_requests * sizeof(*q->requests);
	q->requests = map_lazily(q->requests_bytes);
	if (!q->requests)
		return -ENOMEM;
	if (q->blk->align_bytes > 1)
		q->bounce = map_lazily(BLK_BOUNCE_SLOTS * BLK_BOUNCE_BYTES);
	return q->blk->align_bytes > 1 && !q->bounce ? -ENOMEM : 0;
}

static void blk_queue_cancel(struct virtio_queue *base)
{
	struct blk_queue *q = base->opaque;
	struct list *item;

	/* A pause waits for what is in flight. */
	if (virtq_state(base->vq) != VIRTQ_ABANDONING || !q->requests)
		return;
	while ((item = list_pop(&q->waiting)))
		blk_request_finish(container_of(item, struct blk_request, link),
				   VIRTIO_BLK_S_IOERR);
	for (unsigned int i = 0; i < q->fresh; i++)
		loop_cancel(base->loop, &q->requests[i].op);
}

static void blk_queue_stopped(struct virtio_queue *base)
{
	release_memory(base->opaque);
}

static const struct virtio_queue_ops blk_queue_ops = {
	.start = blk_queue_start,
	.serve = blk_queue_serve,
	.cancel = blk_queue_cancel,
	.stopped = blk_queue_stopped,
};

static void blk_reset(struct virtio_device *vdev)
{
	struct blk *blk = blk_of(vdev);

	atomic_store(&blk->writeback, blk->cache_writeback);
}

/* Configuration */

static int blk_features_set(struct virtio_device *vdev, uint64_t features)
{
	struct blk *blk = blk_of(vdev);

	/* 5.2.6.2: a driver that cannot flush gets its writes durable one by one. */
	atomic_store(&blk->writeback, blk->cache_writeback && (features >> VIRTIO_BLK_F_FLUSH & 1));
	return 0;
}

static void fill_config(struct blk *blk, struct virtio_blk_config *c)
{
	const struct virtio_device *vdev = &blk->vdev;
	uint32_t seg_max = MIN(vdev->queues[0].max_size, (unsigned int)BLK_SEG_MAX + 2) - 2;
	uint32_t granule = MAX(blk->block_bytes, PHYSICAL_BYTES) >> BLK_SECTOR_BITS;

	*c = (struct virtio_blk_config){
		.capacity = htole64(atomic_load(&blk->sectors)),
		.size_max = htole32(BLK_SLICE_BYTES),
		.seg_max = htole32(MAX(seg_max, 1u)),
		.blk_size = htole32(blk->block_bytes),
		.physical_block_exp = (uint8_t)__builtin_ctz(PHYSICAL_BYTES / blk->block_bytes),
		.min_io_size = htole16((uint16_t)(PHYSICAL_BYTES / blk->block_bytes)),
		.wce = atomic_load(&blk->writeback),
		.num_queues = htole16((uint16_t)vdev->n_queues),
	};
	if (blk->discard) {
		c->max_discard_sectors = htole32(BLK_RANGE_SECTORS_MAX);
		c->max_discard_seg = htole32(BLK_RANGES_MAX);
		c->discard_sector_alignment = htole32(granule);
		c->max_write_zeroes_sectors = htole32(BLK_RANGE_SECTORS_MAX);
		c->max_write_zeroes_seg = htole32(BLK_RANGES_MAX);
		c->write_zeroes_may_unmap = 1;
	}
}

static void blk_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
			    unsigned int len)
{
	struct virtio_blk_config c;

	memset(buf, 0, len);
	fill_config(blk_of(vdev), &c);
	if (offset < CONFIG_BYTES)
		memcpy(buf, (const uint8_t *)&c + offset, MIN(len, CONFIG_BYTES - offset));
}

static void blk_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
			     unsigned int len)
{
	struct blk *blk = blk_of(vdev);
	uint32_t at = offsetof(struct virtio_blk_config, wce);

	/* The one writable field (5.2.5). What was written back before is made durable by the first
	 * request that syncs: fdatasync covers the whole file. */
	if (virtio_has(vdev, VIRTIO_BLK_F_CONFIG_WCE) && offset <= at && at - offset < len)
		atomic_store(&blk->writeback, ((const uint8_t *)buf)[at - offset] & 1);
}

static void blk_destroy(struct virtio_device *vdev)
{
	if (!vdev)
		return;
	struct blk *blk = blk_of(vdev);

	virtio_device_done(vdev);
	if (blk->zeroes)
		(void)munmap((void *)(uintptr_t)blk->zeroes, BLK_ZERO_BYTES);
	fd_close(&blk->fd);
	free(blk);
}

/* Requests in flight end before it is saved. */
static const struct state_field blk_fields[] = {
	STATE_ONE(struct blk, writeback),
	STATE_ONE(struct blk, sectors, .same = true),
};
static const struct state_section blk_section = STATE_SECTION("blk", 1, struct blk, blk_fields);

STATE_DERIVED(struct blk, "has sections of its own", vdev);
STATE_DERIVED(struct blk, "the setup, and made from it", fd, block_bytes, align_bytes, readonly,
	      discard, cache_writeback, zeroes, id);
STATE_DERIVED(struct blk, "what this host's file has refused", no_punch, no_zero_range);
STATE_DERIVED(struct blk, "empty while the queues are off, but for what was measured here", queues);

static const struct virtio_device_ops blk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.type = "virtio-blk",
	.features_set = blk_features_set,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.reset = blk_reset,
	.state = &blk_section,
	.destroy = blk_destroy,
};

static int check_size(const char *name, uint64_t size_bytes, uint32_t block_bytes, struct err *err)
{
	if (!size_bytes || size_bytes % block_bytes || size_bytes > INT64_MAX)
		return err_set(err, -EINVAL,
			       "disk '%s': size %llu is not a multiple of the block size %u", name,
			       (unsigned long long)size_bytes, block_bytes);
	return 0;
}

static int check_setup(const struct virtio_blk_setup *c, struct err *err)
{
	if (c->block_bytes != 512 && c->block_bytes != 4096)
		return err_set(err, -EINVAL, "disk '%s': block size %u is neither 512 nor 4096",
			       c->name, c->block_bytes);
	/* Buffers can be bounced; an offset cannot be made to fit. */
	if (!is_power_of_two(c->align_bytes) || c->align_bytes > c->block_bytes)
		return err_set(err, -EINVAL,
			       "disk '%s': direct access to it works in blocks of %u bytes, its "
			       "block size is %u; give it a block size of 4096, or do not bypass "
			       "the page cache",
			       c->name, c->align_bytes, c->block_bytes);
	if (c->queues < 1 || c->queues > 64)
		return err_set(err, -EINVAL, "disk '%s': %u queues; 1 to 64 can be had", c->name,
			       c->queues);
	if (c->queue_size && (!is_power_of_two(c->queue_size) || c->queue_size < 4 ||
			      c->queue_size > BLK_QUEUE_SIZE_MAX))
		return err_set(err, -EINVAL,
			       "disk '%s': queue size %u is not a power of two from 4 to %u",
			       c->name, c->queue_size, BLK_QUEUE_SIZE_MAX);
	if (c->fd < 0 || !c->n_loops)
		return err_set(err, -EINVAL, "disk '%s': no file or no event loop", c->name);
	return check_size(c->name, c->size_bytes, c->block_bytes, err);
}

static uint64_t feature_bits(const struct virtio_blk_setup *c)
{
	uint64_t f = 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX |
		     1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY;

	if (c->queues > 1)
		f |= 1ull << VIRTIO_BLK_F_MQ;
	if (c->readonly)
		return f | 1ull << VIRTIO_BLK_F_RO;
	/* Without a cache to flush there is nothing to offer (5.2.5). */
	if (c->cache == VIRTIO_BLK_WRITEBACK)
		f |= 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE;
	if (c->discard)
		f |= 1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
	return f;
}

static void init_queue(struct blk *blk, const struct virtio_blk_setup *setup, unsigned int i)
{
	struct virtio_queue *base = &blk->vdev.queues[i];

	base->ops = &blk_queue_ops;
	base->opaque = &blk->queues[i];
	base->loop = setup->loops[i % setup->n_loops];
	base->max_size = (uint16_t)(setup->queue_size ? setup->queue_size : VIRTQ_DEFAULT_SIZE);
	blk->queues[i].blk = blk;
	blk->queues[i].base = base;
}

int virtio_blk_create(struct virtio_device **ret, const struct virtio_blk_setup *setup,
		      const struct log *log, struct err *err)
{
	const char *id = setup->serial ? setup->serial : setup->name;
	struct blk *blk;
	void *zeroes;
	int r = check_setup(setup, err);

	if (r)
		return r;
	blk = calloc(1, sizeof(*blk) + setup->queues * sizeof(blk->queues[0]));
	if (!blk)
		return err_set(err, -ENOMEM, "disk '%s': no memory", setup->name);
	blk->fd = -1; /* the caller's until all is well */
	r = virtio_device_init(&blk->vdev, &blk_ops, setup->name, log, setup->queues, err);
	if (r)
		goto fail;
	zeroes = mmap(NULL, BLK_ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (zeroes == MAP_FAILED) {
		r = err_set(err, -ENOMEM, "disk '%s': no memory", setup->name);
		goto fail;
	}
	blk->zeroes = zeroes;
	blk->fd = setup->fd;
	blk->block_bytes = setup->block_bytes;
	blk->align_bytes = setup->align_bytes;
	blk->readonly = setup->readonly;
	blk->discard = setup->discard && !setup->readonly;
	blk->cache_writeback = setup->cache == VIRTIO_BLK_WRITEBACK;
	atomic_init(&blk->writeback, blk->cache_writeback);
	atomic_init(&blk->sectors, setup->size_bytes >> BLK_SECTOR_BITS);
	/* Padded with zeroes; a full one has no terminator (5.2.6). */
	memcpy(blk->id, id, strnlen(id, sizeof(blk->id)));
	blk->vdev.features_offered = feature_bits(setup);
	blk->vdev.config_bytes = CONFIG_BYTES;
	for (unsigned int i = 0; i < setup->queues; i++)
		init_queue(blk, setup, i);
	*ret = &blk->vdev;
	return 0;
fail:
	blk_destroy(&blk->vdev);
	return r;
}

void virtio_blk_latency(const struct virtio_device *vdev, struct latency *ret)
{
	const struct blk *blk = container_of(vdev, struct blk, vdev);

	*ret = (struct latency){0};
	for (unsigned int i = 0; i < vdev->n_queues; i++) {
		const struct latency *l = &blk->queues[i].latency;

		for (unsigned int b = 0; b < LATENCY_BUCKETS; b++)
			counter_add(&ret->n[b], counter_read(&l->n[b]));
		counter_add(&ret->total_ns, counter_read(&l->total_ns));
	}
}

int virtio_blk_resize(struct virtio_device *vdev, uint64_t size_bytes, struct err *err)
{
	struct blk *blk = blk_of(vdev);
	int r = check_size(vdev->name, size_bytes, blk->block_bytes, err);

	if (r)
		return r;
	virtio_config_begin(vdev);
	atomic_store(&blk->sectors, size_bytes >> BLK_SECTOR_BITS);
	virtio_config_end(vdev, true);
	return 0;
}
