// SPDX-License-Identifier: Apache-2.0
#include "queue_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_notify(void *opaque, unsigned int index)
{
	struct rig *r = opaque;

	cr_assert_eq(index, 3);
	r->notified++;
}

static void on_broken(void *opaque, unsigned int index, const char *text)
{
	struct rig *r = opaque;

	cr_assert_eq(index, 3);
	r->broken++;
	snprintf(r->text, sizeof(r->text), "%s", text);
}

static const struct virtq_ops rig_ops = {.notify = on_notify, .broken = on_broken};

struct rig *rig_create_sized(bool event_idx, uint16_t size, const struct guest_config *config)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct err err = ERR_INIT;
	struct virtq_config vq = {.index = 3, .ops = &rig_ops, .opaque = r};

	r->g = guest_create(config);
	vq.dma = guest_dma(r->g);
	cr_assert_eq(virtq_create(&r->q, &vq, &err), 0, "%s", err.text);
	r->layout = (struct virtq_layout){
		.size = size,
		.desc_iova = guest_alloc(r->g, 16u * size, 16),
		.avail_iova = guest_alloc(r->g, 6 + 2u * size, 2),
		.used_iova = guest_alloc(r->g, 6 + 8u * size, 4),
		.event_idx = event_idx,
		.indirect = true,
	};
	r->data = guest_alloc(r->g, 65536, 4096);
	r->table = guest_alloc(r->g, 65536, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(r->chain); i++) {
		r->chain[i].iov = r->iov[i];
		r->chain[i].max_iov = VIRTQ_MAX_SEGMENTS;
	}
	return r;
}

struct rig *rig_create(bool event_idx)
{
	struct rig *r = rig_create_sized(event_idx, SIZE, NULL);

	cr_assert_eq(virtq_start(r->q, &r->layout, 0), 0);
	return r;
}

void rig_destroy(struct rig *r)
{
	cr_assert_eq(atomic_load(&virtq_port(r->q)->opened),
		     atomic_load(&virtq_port(r->q)->closed));
	virtq_destroy(r->q);
	guest_destroy(r->g);
	free(r);
}

void put(struct rig *r, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint64_t words[2] = {addr, len | (uint64_t)flags << 32 | (uint64_t)next << 48};

	memcpy(guest_ptr(r->g, gpa, 16), words, 16);
}

void desc(struct rig *r, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put(r, r->layout.desc_iova + 16u * i, addr, len, flags, next);
}

void table_desc(struct rig *r, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
		uint16_t next)
{
	put(r, r->table + 16u * i, addr, len, flags, next);
}

uint16_t *avail(struct rig *r, unsigned int offset)
{
	return guest_ptr(r->g, r->layout.avail_iova + offset, 2);
}

uint16_t *used(struct rig *r, unsigned int offset)
{
	return guest_ptr(r->g, r->layout.used_iova + offset, 2);
}

uint32_t used_elem(struct rig *r, unsigned int i, unsigned int word)
{
	return *(uint32_t *)guest_ptr(r->g, r->layout.used_iova + 4 + 8u * i + 4u * word, 4);
}

void offer(struct rig *r, uint16_t head)
{
	*avail(r, 4 + 2u * (r->avail_idx % r->layout.size)) = head;
	*avail(r, 2) = ++r->avail_idx;
}

void offer_simple(struct rig *r, uint16_t i)
{
	desc(r, i, r->data, 16, 0, 0);
	offer(r, i);
}
