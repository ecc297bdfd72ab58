/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.3, 5.2): a raw file or block device, through the loop's file verbs.
 *
 * Queues are multi-queue (VIRTIO_BLK_F_MQ), each with its loop. Read-only, flush, discard, write
 * zeroes, get-id, topology. An I/O error reaches the guest as VIRTIO_BLK_S_IOERR and goes to the
 * log once in a while; it never stops the device.
 *
 * Create, resize and destroy: the machine's thread. Queues: the thread of the loop of each; the
 * loops stay the caller's and outlive the device. Strings are copied. On failure (0 or a negative
 * errno, err says why) the fd stays the caller's.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include "base/counter.h"
#include "virtio/virtio.h"

enum virtio_blk_cache {
	VIRTIO_BLK_WRITEBACK,    /* flush is offered; host page cache or O_DIRECT, as the fd is */
	VIRTIO_BLK_WRITETHROUGH, /* every write is on the disk when it is answered */
};

struct virtio_blk_setup {
	const char *name;
	const char *serial;   /* up to 20 bytes for get-id; NULL: the name */
	int fd;               /* opened and locked by the machine; ownership passes on success */
	uint64_t size_bytes;  /* multiple of 512 */
	uint32_t block_bytes; /* logical: 512 or 4096 */
	uint32_t align_bytes; /* of buffers and offsets that the fd needs (O_DIRECT); 1 for none */
	bool readonly;
	bool block_device; /* discard by BLKDISCARD-like fallocate on a block device */
	bool discard;      /* offer discard and write zeroes */
	enum virtio_blk_cache cache;
	unsigned int queues;       /* 1 to 64 */
	unsigned int queue_size;   /* power of two, 0 for the default */
	struct loop *const *loops; /* n_loops: queue i belongs to loops[i % n_loops] */
	unsigned int n_loops;
};

/* One request of so many is measured, from when it is taken to its answer: two looks at the clock
 * for each would be more than its other counts cost together. */
enum { VIRTIO_BLK_MEASURED = 16 };

int virtio_blk_create(struct virtio_device **ret, const struct virtio_blk_setup *setup,
		      const struct log *log, struct err *err);
/* The disk has a new size: the guest is notified. -EINVAL: not a multiple of the block size. */
int virtio_blk_resize(struct virtio_device *vdev, uint64_t size_bytes, struct err *err);
/* How long requests took, of all queues. Any thread. */
void virtio_blk_latency(const struct virtio_device *vdev, struct latency *ret);

#endif
