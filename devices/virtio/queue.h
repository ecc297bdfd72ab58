/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One split virtqueue (virtio 1.3, 2.7), as a device sees it. Devices use verbs and never touch
 * rings.
 *
 *        driver                                       device
 *   descriptors ─► available ring ── virtq_pop ──► struct virtq_chain {out[], in[]} in host memory
 *                  used ring     ◄── virtq_push ── how many bytes were written
 *                  interrupt     ◄── virtq_flush ─ once per batch, and only if the driver wants it
 *
 * Everything in guest memory is hostile: each descriptor is read once into a local, validated, and
 * only the copy is used; chains and indirect tables are bounded by the queue's size and by
 * VIRTQ_MAX_SEGMENTS; loops end. What is malformed breaks the queue (virtq_broken): the transport
 * sets NEEDS_RESET for that device and nothing else happens.
 *
 * All access goes through the queue's dma port; a chain is one bracket from pop to push.
 *
 * Threads: a queue belongs to one loop's thread from virtq_start to virtq_stop, or to whoever holds
 * a lock of its device's; nothing here locks. Any thread may read its state and set its interrupt.
 * No allocation after virtq_start.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/dma.h"

enum {
	VIRTQ_MAX_SIZE = 32768,
	VIRTQ_DEFAULT_SIZE = 256,
	/* Host segments of one chain: seg_max 254 plus header and status, and what splits at region
	 * boundaries. */
	VIRTQ_MAX_SEGMENTS = 260,
};

/* What the driver set up (iovas when a virtual IOMMU is in front, else gpas). */
struct virtq_layout {
	uint16_t size; /* power of two, at most the maximum offered */
	uint64_t desc_iova;
	uint64_t avail_iova;
	uint64_t used_iova;
	bool event_idx; /* negotiated VIRTIO_RING_F_EVENT_IDX */
	bool indirect;  /* negotiated VIRTIO_RING_F_INDIRECT_DESC */
};

/* A request: segments the device reads (out) and segments it writes (in), in order. The storage is
 * the caller's (made when the queue is activated) and holds the bracket until push.
 *
 * A chain may be legal and still have more segments than max_iov (a virtual IOMMU can put each page
 * of a buffer elsewhere). It is `truncated` then: out and in, and their byte counts, are the first
 * segments of the whole; `last_in` is there all the same, so that the device can refuse the one
 * request.
 *
 * So is one of which a virtual IOMMU lets the device reach a part only, or not in this direction
 * (it has told the guest); `last_in` is NULL when the device may not write that either. Without a
 * virtual IOMMU such a chain breaks the queue. */
struct virtq_chain {
	uint16_t head;
	bool truncated;
	bool denied;      /* truncated, for that reason */
	uint8_t *last_in; /* the last byte the device may write, where many devices put a status;
			     NULL when there is none */
	struct dma_bracket bracket;
	struct iovec *out;
	unsigned int n_out;
	uint64_t out_bytes;
	struct iovec *in;
	unsigned int n_in;
	uint64_t in_bytes;
	struct iovec *iov;    /* caller: array for both, out first */
	unsigned int max_iov; /* caller: its length */
};

struct virtq;

/* The life of a queue. Its owner (queue_server.h) moves it, but that a malformed ring breaks it
 * here. */
enum virtq_state {
	VIRTQ_OFF,        /* no rings */
	VIRTQ_STARTING,   /* its owner is about to call virtq_start */
	VIRTQ_RUNNING,    /* chains are taken and given back */
	VIRTQ_BROKEN,     /* the ring, or what is in it, is malformed: neither any more */
	VIRTQ_FINISHING,  /* it is to stop: those that were taken are given back */
	VIRTQ_ABANDONING, /* it is to be reset: those that were taken are dropped */
};

struct virtq_ops {
	/* Interrupt the driver for this queue; called where no eventfd was set
	 * (virtq_set_interrupt). */
	void (*notify)(void *opaque, unsigned int index);
	/* The ring is malformed: text says how. Called once, when the queue becomes
	 * VIRTQ_BROKEN. */
	void (*broken)(void *opaque, unsigned int index, const char *text);
};

struct virtq_config {
	unsigned int index;
	struct dma_space *dma;
	uint32_t requester;
	const struct virtq_ops *ops;
	void *opaque;
};

int virtq_create(struct virtq **ret, const struct virtq_config *config, struct err *err);
void virtq_destroy(struct virtq *q);

/* Activate with this layout: RUNNING. Checks size, alignment and that the rings are reachable; a
 * failure leaves the state as it was. next_avail is 0 except when state is restored. */
int virtq_start(struct virtq *q, const struct virtq_layout *layout, uint16_t next_avail);
/* Forget the rings: OFF. All chains were pushed or dropped. */
void virtq_stop(struct virtq *q);
/* Somebody else served this queue up to here (vhost): go on from there. Nothing is in flight. */
void virtq_set_next(struct virtq *q, uint16_t next_avail);
enum virtq_state virtq_state(const struct virtq *q);
/* The owner's moves: OFF to STARTING, any but OFF to FINISHING or ABANDONING. */
void virtq_set_state(struct virtq *q, enum virtq_state state);
/* What the driver put into the queue cannot be: BROKEN, and reported, once. Always -EPROTO. */
int virtq_break(struct virtq *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From now on an interrupt is a write to this eventfd, which stays the caller's and must outlive
 * the queue; -1: virtq_ops.notify. */
void virtq_set_interrupt(struct virtq *q, int eventfd);

/* Take the next available chain: 1, 0 when there is none or the queue stops, -EPROTO when it is
 * broken. */
int virtq_pop(struct virtq *q, struct virtq_chain *chain);
/* Put the last popped chain back (net receive: not enough buffers yet); only in reverse order of
 * pop. */
void virtq_unpop(struct virtq *q, struct virtq_chain *chain);
/* Give it back: `written` bytes of the in-segments hold data. Closes the bracket. While the queue
 * is BROKEN or ABANDONING the same as virtq_drop. */
void virtq_push(struct virtq *q, struct virtq_chain *chain, uint32_t written);
/* The same for several chains that become visible at once (mergeable receive buffers): stage each,
 * then publish. */
void virtq_stage(struct virtq *q, struct virtq_chain *chain, uint32_t written);
void virtq_publish(struct virtq *q);
/* Close the bracket without using the chain (reset). */
void virtq_drop(struct virtq *q, struct virtq_chain *chain);
/* After a batch of pushes: interrupt if the driver asked for it. */
void virtq_flush(struct virtq *q);
/* Chains that were given back since the last decision of virtq_flush. */
unsigned int virtq_unflushed(const struct virtq *q);
/* How often it did, and *suppressed: how often the driver had not asked. Any thread. */
uint64_t virtq_interrupts(const struct virtq *q, uint64_t *suppressed);

/* Kick suppression. disable: the driver need not kick. enable: kick again; true when more became
 * available meanwhile (so the caller goes on instead of sleeping). enable_beyond: the same for a
 * caller that has put back all there was, since it was not enough: of interest is only what is
 * added to that. */
void virtq_kick_disable(struct virtq *q);
bool virtq_kick_enable(struct virtq *q);
bool virtq_kick_enable_beyond(struct virtq *q);

/* Is a chain available (without taking it)? */
bool virtq_has_avail(struct virtq *q);
uint16_t virtq_size(const struct virtq *q);
uint16_t virtq_next_avail(const struct virtq *q);
struct dma_port *virtq_port(struct virtq *q);

/* Helpers on segments: copy to/from, from byte offset `skip`; return bytes copied. */
size_t iov_to_buf(const struct iovec *iov, unsigned int n, size_t skip, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, unsigned int n, size_t skip, const void *buf,
		    size_t len);
/* The segments that cover [skip, skip + len): their number in dst, or -E2BIG. */
int iov_slice(struct iovec *dst, unsigned int max, const struct iovec *iov, unsigned int n,
	      size_t skip, size_t len);

#endif
