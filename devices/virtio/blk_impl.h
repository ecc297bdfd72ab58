/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside virtio-blk: the device and its queues (blk.c), which use requests (blk_request.c). Calls
 * go in this direction only.
 *
 *   free ─take─► parsed ─► transferring ⇄ (waits for a bounce buffer) ─► syncing ─► done ─► free
 *
 * A request that is not free has exactly one loop operation in flight, or is in its queue's
 * `waiting` list, and holds its queue (queue_server.h).
 */
#ifndef VIRTIO_BLK_IMPL_H
#define VIRTIO_BLK_IMPL_H

#include <stdatomic.h>

#include <linux/virtio_blk.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/le.h"
#include "base/list.h"
#include "base/num.h"
#include "virtio/blk.h"

enum {
	BLK_SECTOR_BITS = 9,
	BLK_SECTOR_BYTES = 1 << BLK_SECTOR_BITS,
	BLK_QUEUE_SIZE_MAX = 1024,
	/* Data segments of one request: what a chain holds less header and status. */
	BLK_SEG_MAX = 254,
	/* Ranges of one discard or write-zeroes request, and sectors of one range (1 GiB). */
	BLK_RANGES_MAX = 32,
	BLK_RANGE_SECTORS_MAX = 1 << 21,
	/* For guest buffers that the fd cannot take: segments of this size, so many at once per
	   queue. */
	BLK_BOUNCE_BYTES = 128 << 10,
	BLK_BOUNCE_SLOTS = 8,
	/* Zeroes are written from one read-only area, several times per call. */
	BLK_ZERO_BYTES = 64 << 10,
	BLK_ZERO_SEGMENTS = 16,
	/* A request is transferred in slices of this, so that no single operation of the host's is
	 * as long as the guest likes; what Linux asks for at a time is less. Also the longest
	 * segment offered. */
	BLK_SLICE_BYTES = 4 << 20,
	BLK_RETRIES = 16,
};

static_assert(sizeof(struct virtio_blk_outhdr) == 16, "virtio 1.3, 5.2.6");
static_assert(sizeof(struct virtio_blk_discard_write_zeroes) == 16, "virtio 1.3, 5.2.6");

struct blk_queue;

struct blk_request {
	struct loop_op op;
	struct blk_queue *queue;
	struct list link; /* free or waiting list */
	struct virtq_chain chain;
	uint32_t type;
	bool syncing; /* the data is written; making it durable */
	bool zeroing; /* write zeroes by writing them */
	int mode;     /* of the fallocate in flight */
	uint8_t retries;
	int bounce;        /* slot, or -1 */
	uint64_t began_ns; /* 0: how long it takes is not measured */
	uint8_t *status;
	uint64_t offset; /* of the data on the disk, bytes */
	uint64_t bytes;
	uint64_t done;            /* of `bytes`; of the present range for range requests */
	const struct iovec *data; /* the present slice of what is left to transfer */
	unsigned int n_data;
	unsigned int n_ranges;
	unsigned int range; /* the present one */
	struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES_MAX];
	/* Two arrays at the end: their pages exist only where a request of that many segments has
	 * been. */
	struct iovec segments[VIRTQ_MAX_SEGMENTS];
	struct iovec slice[VIRTQ_MAX_SEGMENTS];
};

struct blk_queue {
	struct blk *blk;
	struct virtio_queue *base;
	bool starved;                 /* no request was free: look again when one is */
	struct blk_request *requests; /* mapping of requests_bytes */
	size_t requests_bytes;
	unsigned int n_requests;
	unsigned int fresh; /* requests from here on were never used */
	struct list free;
	struct list waiting;      /* for a bounce buffer */
	uint8_t *bounce;          /* BLK_BOUNCE_SLOTS buffers, NULL when the fd takes any */
	unsigned int bounce_free; /* bit per slot */
	unsigned int turn;        /* of measuring how long a request takes */
	struct latency latency;
};

struct blk {
	struct virtio_device vdev;
	int fd;
	uint32_t block_bytes;
	uint32_t align_bytes;
	bool readonly;
	bool discard;
	bool cache_writeback;   /* as configured */
	_Atomic bool writeback; /* as the driver set it (CONFIG_WCE) */
	_Atomic bool no_punch;  /* the host refused it once: do not ask again */
	_Atomic bool no_zero_range;
	_Atomic uint64_t sectors;
	const uint8_t *zeroes;
	char id[VIRTIO_BLK_ID_BYTES];
	struct blk_queue queues[]; /* vdev.n_queues */
};

/* blk_request.c. All of it: the thread of the queue's loop. */

/* A free request, for a chain to be popped into; NULL: all are taken. */
struct blk_request *blk_request_get(struct blk_queue *q);
/* Free a request that was not started. */
void blk_request_put(struct blk_request *req);
/* Serve the chain, which has a byte for the status. The request ends, and is free, now or later. */
void blk_request_start(struct blk_request *req);
/* Answer a request that waits for a bounce buffer, and free it. */
void blk_request_finish(struct blk_request *req, uint8_t status);

#endif
