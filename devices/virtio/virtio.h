/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtio device is to its transport (and the reverse). Nothing here knows PCI; nothing in a
 * device knows PCI, KVM or JSON.
 *
 *   virtio-blk, net, console, rng ── struct virtio_device_ops ──► transport (pci.h)
 *        ▲ struct virtio_device: queues, features, config bytes, status
 *
 * A device type gives: id, features offered, number and size of queues, config space, and what to
 * do when a queue is started, kicked, stopped. The transport owns registers, feature negotiation,
 * status, interrupts and the ioeventfd of each queue.
 *
 * Life of a queue: the driver enables it (and DRIVER_OK is set) → the transport posts to the queue's
 * loop → queue_start there → kicks arrive as `queue_kick` in that thread → reset, queue reset or
 * quiesce: queue_stop, asynchronous: the device finishes or abandons what is in flight (nothing may
 * touch guest memory afterwards) and calls virtio_queue_stopped, exactly once.
 *
 * A driver's reset (write of 0 to status) completes only when all queues have stopped; until then
 * the status register reads non-zero, as the specification lets the driver poll (virtio 1.3, 4.1.4.3.2).
 *
 * Threads: features_ok, config_read and config_write run in a vCPU thread under the device lock;
 * queue_* in the queue's loop's thread.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/device.h"
#include "core/loop.h"
#include "virtio/queue.h"

enum { VIRTIO_MAX_QUEUES = 65 };

struct virtio_device;

struct virtio_device_ops {
	uint16_t id;      /* virtio 1.3, 5: 1 net, 2 block, 3 console, 4 entropy */
	const char *type; /* "virtio-blk" */
	/* The driver accepted `features` (a subset of what is offered, VERSION_1 included): -EINVAL
	 * refuses a combination, FEATURES_OK then stays clear. */
	int (*features_ok)(struct virtio_device *vdev, uint64_t features);
	/* Config space beyond the common part: fill buf from offset. Reads past the end give zeroes. */
	void (*config_read)(struct virtio_device *vdev, uint32_t offset, void *buf,
			    unsigned int len);
	void (*config_write)(struct virtio_device *vdev, uint32_t offset, const void *buf,
			     unsigned int len); /* NULL: ignored */
	/* The queue is ready (virtq_start done), or goes on after a quiesce: between this and
	 * queue_stop it is kicked. */
	void (*queue_start)(struct virtio_device *vdev, unsigned int index);
	/* Kicked, or just started, or resumed: take what is available. */
	void (*queue_kick)(struct virtio_device *vdev, unsigned int index);
	/* A queue with serve_in_vcpu was notified: in the thread of the vCPU, no lock held, perhaps while the
	 * loop's thread is in one of the others, and perhaps when the queue is not started. What the
	 * machine's thread waits for may wait for it. NULL when the device has no such queue. */
	void (*queue_notify)(struct virtio_device *vdev, unsigned int index);
	/* Stop; `abandon` (reset): requests in flight are cancelled and need not be answered; otherwise
	 * (quiesce) they are finished and pushed. Then virtio_queue_stopped. */
	void (*queue_stop)(struct virtio_device *vdev, unsigned int index, bool abandon);
	/* A queue that was handed over interrupts by another fd from now on (the driver changed its
	 * vector): tell who serves it. NULL when the device hands no queue over. */
	int (*queue_call)(struct virtio_device *vdev, unsigned int index, int call_fd);
	/* All queues have stopped and the device was reset: drop negotiated state. Under the device
	 * lock, in whichever thread saw the last queue stop. */
	void (*reset)(struct virtio_device *vdev);
	void (*destroy)(struct virtio_device *vdev);
};

struct virtio_queue {
	struct virtq *vq;
	struct loop *loop;
	uint16_t max_size;
	bool serve_in_vcpu; /* no ioeventfd: a notification is the vCPU's exit, which calls queue_notify */
};

/* Embedded first in each device type's struct. */
struct virtio_device {
	const struct virtio_device_ops *ops;
	char name[32];
	const struct log *log;
	struct log_limit limit;
	uint64_t features_offered;  /* device bits; the transport adds its own (28, 29, 32, 40) */
	uint64_t features_withheld; /* of the transport's */
	uint64_t features;          /* negotiated */
	uint32_t config_bytes;      /* size of the device config space */
	unsigned int n_queues;
	struct virtio_queue queues[VIRTIO_MAX_QUEUES];
	struct virtio_transport *transport; /* set when it is attached */
};

static inline bool virtio_has(const struct virtio_device *vdev, unsigned int feature)
{
	return vdev->features >> feature & 1;
}

/* What a device calls. */

/* The stop of this queue is complete. The queue's thread. */
void virtio_queue_stopped(struct virtio_device *vdev, unsigned int index);
/* The device config space changed: bump the generation and interrupt. Any thread; takes the device
 * lock, so not from features_ok, config_read, config_write or reset. */
void virtio_config_changed(struct virtio_device *vdev);
/* The device cannot go on (malformed request that the spec gives no status for): NEEDS_RESET. The queue's thread. */
void virtio_device_broken(struct virtio_device *vdev, const char *text);
/* For a queue that the kernel or another process serves (vhost): ring layout and position, kick fd
 * and call fd (all stay the transport's). Called from queue_start; the kick fd is then not watched by
 * the loop and queue_kick is not called. take_back, from queue_stop and before virtio_queue_stopped,
 * says how far the other side came (VHOST_GET_VRING_BASE), so that a resume goes on from there. */
struct virtio_queue_fds {
	int kick_fd;
	int call_fd;
	struct virtq_layout layout;
	uint16_t next_avail;
};
int virtio_queue_hand_over(struct virtio_device *vdev, unsigned int index,
			   struct virtio_queue_fds *ret);
void virtio_queue_take_back(struct virtio_device *vdev, unsigned int index, uint16_t next_avail);

#endif
