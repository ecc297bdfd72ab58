/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device without PCI, KVM or threads: guest memory, an identity DMA space, one loop that
 * the test turns, the real transport core with a register file of the test's, and the driver's side
 * of the split rings (virtio 1.3, 2.7).
 */
#ifndef TESTS_VIRTIO_RIG_H
#define TESTS_VIRTIO_RIG_H

#include "core/gmem.h"
#include "core/loop.h"
#include "virtio/transport.h"

enum { RIG_RAM_BYTES = 32 << 20, RIG_QUEUES_MAX = 8 };

struct rig;

struct rig_seg {
	uint64_t gpa;
	uint32_t len;
	bool write; /* by the device */
};

struct rig_used {
	uint32_t id;
	uint32_t len;
};

struct rig_queue {
	struct rig *rig;
	unsigned int index;
	uint16_t size;
	uint64_t desc, avail, used;
	uint16_t avail_idx;
	uint16_t seen; /* used index the test has consumed */
	uint16_t free_head;
	uint16_t free;
};

struct rig {
	struct log log;
	unsigned int log_lines;
	struct gmem *gmem;
	struct dma_space *dma;
	struct loop *loop;
	pthread_mutex_t lock;
	struct virtio_transport t;
	struct virtio_device *vdev;
	uint8_t *ram;
	uint64_t brk;
	unsigned int interrupts[VIRTIO_MAX_QUEUES];
	unsigned int config_interrupts;
	struct rig_queue queues[RIG_QUEUES_MAX];
};

/* Memory, loop and log, for the device's constructor. */
void rig_open(struct rig *rig, enum loop_backend backend);
/* The device is the rig's from here on. */
void rig_attach(struct rig *rig, struct virtio_device *vdev);
void rig_close(struct rig *rig);

/* Negotiate these (and VERSION_1, INDIRECT, EVENT_IDX); whether FEATURES_OK stuck. */
bool rig_negotiate(struct rig *rig, uint64_t features);
/* A queue of this size with fresh rings; before rig_go. */
void rig_queue(struct rig *rig, unsigned int index, uint16_t size);
void rig_go(struct rig *rig);
/* The driver's reset; turns the loop until it is over. */
void rig_reset(struct rig *rig);
bool rig_broken(struct rig *rig);

uint64_t rig_alloc(struct rig *rig, size_t bytes, size_t align);
void *rig_at(struct rig *rig, uint64_t gpa);

/* Make a chain available: its head. indirect: through a table. -1: no room. */
int rig_add(struct rig_queue *q, const struct rig_seg *segs, unsigned int n, bool indirect);
void rig_kick(struct rig_queue *q);
/* The next used element, without waiting: false when there is none. Frees its descriptors. */
bool rig_take(struct rig_queue *q, struct rig_used *used);
/* The same, turning the loop until there is one. */
struct rig_used rig_wait(struct rig_queue *q);
/* Turn the loop until nothing happens. */
void rig_settle(struct rig *rig);

#endif
