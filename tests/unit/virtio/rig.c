// SPDX-License-Identifier: Apache-2.0
#include "rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"

static struct rig *rig_of(struct virtio_transport *t)
{
	return container_of(t, struct rig, t);
}

static void count_line(void *opaque, enum log_level level, const char *component, const char *text)
{
	struct rig *rig = opaque;

	(void)level;
	(void)component;
	(void)text;
	rig->log_lines++;
}

static void on_queue(struct virtio_transport *t, unsigned int index)
{
	rig_of(t)->interrupts[index]++;
}

static void on_config(struct virtio_transport *t)
{
	rig_of(t)->config_interrupts++;
}

static int no_fd(struct virtio_transport *t, unsigned int index)
{
	(void)t;
	(void)index;
	return -1;
}

static bool allowed(struct virtio_transport *t)
{
	(void)t;
	return true;
}

static uint32_t requester(struct virtio_transport *t)
{
	(void)t;
	return 8;
}

static void nothing(struct virtio_transport *t)
{
	(void)t;
}

static const struct virtio_transport_ops ops = {
	.queue_interrupt = on_queue,
	.config_interrupt = on_config,
	.queue_interrupt_fd = no_fd,
	.dma_allowed = allowed,
	.requester = requester,
	.reset = nothing,
};

void rig_open(struct rig *rig, enum loop_backend backend)
{
	struct gmem_region_config ram = {
		.name = "ram",
		.size_bytes = RIG_RAM_BYTES,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};
	struct err err = ERR_INIT;

	memset(rig, 0, sizeof(*rig));
	rig->log = (struct log){count_line, rig, LOG_INFO};
	pthread_mutex_init(&rig->lock, NULL);
	cr_assert_eq(gmem_create(&rig->gmem, &rig->log, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_begin(rig->gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_add(rig->gmem, &ram, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(rig->gmem, &err), 0, "%s", err.text);
	rig->ram = gmem_host(rig->gmem, 0, RIG_RAM_BYTES, true);
	rig->brk = 4096;
	cr_assert_eq(dma_space_create(&rig->dma, rig->gmem, NULL, NULL, &err), 0, "%s", err.text);
	struct loop_config loop = {.log = &rig->log, .name = "rig", .backend = backend};

	cr_assert_eq(loop_create(&rig->loop, &loop, &err), 0, "%s", err.text);
}

void rig_attach(struct rig *rig, struct virtio_device *vdev)
{
	struct err err = ERR_INIT;
	uint64_t own = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
		       1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_F_RING_RESET;

	rig->vdev = vdev;
	cr_assert_eq(transport_init(&rig->t, &ops, vdev, &rig->lock, rig->dma, own, &err), 0, "%s",
		     err.text);
}

void rig_settle(struct rig *rig)
{
	for (int i = 0; i < 20; i++)
		cr_assert_eq(loop_iterate(rig->loop, false), 0);
}

static bool any_on(struct rig *rig)
{
	for (unsigned int i = 0; i < rig->vdev->n_queues; i++)
		if (!virtio_queue_still(&rig->vdev->queues[i]))
			return true;
	return false;
}

static void write_status(struct rig *rig, uint8_t value)
{
	pthread_mutex_lock(&rig->lock);
	transport_write_status(&rig->t, value);
	pthread_mutex_unlock(&rig->lock);
}

void rig_reset(struct rig *rig)
{
	write_status(rig, 0);
	while (any_on(rig))
		cr_assert_eq(loop_iterate(rig->loop, true), 0);
	cr_assert_eq(transport_status(&rig->t), 0);
}

void rig_close(struct rig *rig)
{
	if (rig->vdev) {
		rig_reset(rig);
		transport_done(&rig->t);
		rig->vdev->ops->destroy(rig->vdev);
	}
	cr_assert_eq(loop_in_flight(rig->loop), 0);
	loop_destroy(rig->loop);
	dma_space_destroy(rig->dma);
	gmem_destroy(rig->gmem);
	pthread_mutex_destroy(&rig->lock);
}

bool rig_broken(struct rig *rig)
{
	return transport_status(&rig->t) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

bool rig_negotiate(struct rig *rig, uint64_t features)
{
	features |= 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
		    1ull << VIRTIO_RING_F_EVENT_IDX;
	write_status(rig, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write_status(rig, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	pthread_mutex_lock(&rig->lock);
	transport_write_features(&rig->t, 0, (uint32_t)features);
	transport_write_features(&rig->t, 1, (uint32_t)(features >> 32));
	pthread_mutex_unlock(&rig->lock);
	write_status(rig, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				  VIRTIO_CONFIG_S_FEATURES_OK);
	return transport_status(&rig->t) & VIRTIO_CONFIG_S_FEATURES_OK;
}

uint64_t rig_alloc(struct rig *rig, size_t bytes, size_t align)
{
	uint64_t gpa = align_up(rig->brk, align);

	rig->brk = gpa + bytes;
	cr_assert_leq(rig->brk, RIG_RAM_BYTES, "the rig's memory is used up");
	return gpa;
}

void *rig_at(struct rig *rig, uint64_t gpa)
{
	return rig->ram + gpa;
}

void rig_queue(struct rig *rig, unsigned int index, uint16_t size)
{
	struct rig_queue *q = &rig->queues[index];
	struct transport_queue *tq = &rig->t.queues[index];

	*q = (struct rig_queue){.rig = rig, .index = index, .size = size, .free = size};
	q->desc = rig_alloc(rig, 16u * size, 16);
	q->avail = rig_alloc(rig, 6 + 2u * size, 2);
	q->used = rig_alloc(rig, 6 + 8u * size, 4);
	memset(rig_at(rig, q->avail), 0, 6 + 2u * size);
	memset(rig_at(rig, q->used), 0, 6 + 8u * size);
	for (uint16_t i = 0; i < size; i++)
		store_le16((uint8_t *)rig_at(rig, q->desc) + 16u * i + 14, (uint16_t)(i + 1));
	pthread_mutex_lock(&rig->lock);
	transport_queue_set_size(&rig->t, index, size);
	tq->desc = q->desc;
	tq->driver = q->avail;
	tq->device = q->used;
	transport_queue_enable(&rig->t, index);
	pthread_mutex_unlock(&rig->lock);
}

void rig_go(struct rig *rig)
{
	write_status(rig, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				  VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(rig);
}

static uint8_t *desc_at(struct rig_queue *q, uint64_t table, unsigned int i)
{
	return (uint8_t *)rig_at(q->rig, table) + (size_t)16 * i;
}

static void desc_put(uint8_t *d, const struct rig_seg *seg, bool more, uint16_t next)
{
	store_le64(d, seg->gpa);
	store_le32(d + 8, seg->len);
	store_le16(d + 12, (uint16_t)((more ? 1 : 0) | (seg->write ? 2 : 0)));
	if (more)
		store_le16(d + 14, next);
}

int rig_add(struct rig_queue *q, const struct rig_seg *segs, unsigned int n, bool indirect)
{
	unsigned int direct = indirect ? 1 : n;
	uint16_t head = q->free_head, at = head;

	if (q->free < direct)
		return -1;
	for (unsigned int i = 0; i < direct; i++) {
		uint8_t *d = desc_at(q, q->desc, at);
		uint16_t next = load_le16(d + 14);

		if (!indirect)
			desc_put(d, &segs[i], i + 1 < direct, next);
		at = next;
	}
	q->free_head = at;
	q->free = (uint16_t)(q->free - direct);
	if (indirect) {
		uint64_t table = rig_alloc(q->rig, (size_t)16 * n, 16);
		uint8_t *d = desc_at(q, q->desc, head);

		for (unsigned int i = 0; i < n; i++)
			desc_put(desc_at(q, table, i), &segs[i], i + 1 < n, (uint16_t)(i + 1));
		store_le64(d, table);
		store_le32(d + 8, 16 * n);
		store_le16(d + 12, 4);
	}
	uint8_t *avail = rig_at(q->rig, q->avail);

	store_le16(avail + 4 + 2u * (q->avail_idx & (q->size - 1u)), head);
	q->avail_idx++;
	__atomic_store_n((uint16_t *)(void *)(avail + 2), htole16(q->avail_idx), __ATOMIC_SEQ_CST);
	return head;
}

void rig_kick(struct rig_queue *q)
{
	fd_event_signal(q->rig->vdev->queues[q->index].kick_fd);
}

bool rig_take(struct rig_queue *q, struct rig_used *used)
{
	const uint8_t *ring = rig_at(q->rig, q->used);
	uint16_t idx = le16toh(
		__atomic_load_n((const uint16_t *)(const void *)(ring + 2), __ATOMIC_SEQ_CST));
	const uint8_t *elem = ring + 4 + 8u * (q->seen & (q->size - 1u));

	if (idx == q->seen)
		return false;
	used->id = load_le32(elem);
	used->len = load_le32(elem + 4);
	q->seen++;
	/* used_event: interrupt for the next one (2.7.7). */
	store_le16((uint8_t *)rig_at(q->rig, q->avail) + 4 + 2u * q->size, q->seen);
	cr_assert_lt(used->id, q->size);
	uint16_t last = (uint16_t)used->id, n = 1;

	while (load_le16(desc_at(q, q->desc, last) + 12) & 1) {
		last = load_le16(desc_at(q, q->desc, last) + 14);
		n++;
	}
	store_le16(desc_at(q, q->desc, last) + 14, q->free_head);
	store_le16(desc_at(q, q->desc, last) + 12, 0);
	q->free_head = (uint16_t)used->id;
	q->free = (uint16_t)(q->free + n);
	return true;
}

struct rig_used rig_wait(struct rig_queue *q)
{
	struct rig_used used = {0};

	while (!rig_take(q, &used))
		cr_assert_eq(loop_iterate(q->rig->loop, true), 0);
	return used;
}
