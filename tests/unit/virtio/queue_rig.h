/* SPDX-License-Identifier: Apache-2.0 */
/* A virtqueue by itself, and its driver's side by hand: descriptors and indices where a test wants
 * them. */
#ifndef TESTS_VIRTIO_QUEUE_RIG_H
#define TESTS_VIRTIO_QUEUE_RIG_H

#include "driver.h"
#include "virtio/queue.h"

enum {
	SIZE = 8,
	NEXT = 1,
	WRITE = 2,
	INDIRECT = 4,
	HIGH = 64 << 20, /* where low memory ends */
};

struct rig {
	struct guest *g;
	struct virtq *q;
	struct virtq_layout layout;
	unsigned int notified;
	unsigned int broken;
	char text[256];
	struct virtq_chain chain[SIZE * 4];
	struct iovec iov[SIZE * 4][VIRTQ_MAX_SEGMENTS];
	uint16_t avail_idx;
	uint64_t data; /* 64 KiB */
	uint64_t table;
};

/* With rings as they lie in memory, not started. */
struct rig *rig_create_sized(bool event_idx, uint16_t size, const struct guest_config *config);
/* SIZE entries, started. */
struct rig *rig_create(bool event_idx);
/* Every bracket that was opened must be closed by now. */
void rig_destroy(struct rig *r);
void put(struct rig *r, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void desc(struct rig *r, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void table_desc(struct rig *r, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
		uint16_t next);
uint16_t *avail(struct rig *r, unsigned int offset);
uint16_t *used(struct rig *r, unsigned int offset);
uint32_t used_elem(struct rig *r, unsigned int i, unsigned int word);
void offer(struct rig *r, uint16_t head);
/* A chain of one readable descriptor, in descriptor i. */
void offer_simple(struct rig *r, uint16_t i);

#endif
