/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device as its transport sees it, and the reverse. Nothing here knows PCI; nothing in a
 * device knows PCI, KVM or JSON.
 *
 *   virtio-blk, net, console, rng ── struct virtio_device_ops ──► transport (pci.h)
 *        │ struct virtio_device: features, config bytes
 *        └ struct virtio_queue_ops, per queue ─────────────────► queue server (queue_server.h)
 *
 * A device type gives: id, features offered, number and size of queues, config space, and for each
 * queue how requests are served. The transport owns registers, feature negotiation and status; the
 * queue server owns the life of each queue, its ioeventfd and its interrupt.
 *
 * A driver's reset (write of 0 to status) completes only when all queues have stopped; until then
 * the status register reads non-zero, as the specification lets the driver poll
 * (virtio 1.3, 4.1.4.3.2).
 *
 * Threads: the functions of virtio_device_ops run in a vCPU thread under the device lock; those of
 * virtio_queue_ops in the queue's loop's thread.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "virtio/queue_server.h"
#include "virtio/rate.h"

struct state_section;

enum { VIRTIO_MAX_QUEUES = 65 };

struct virtio_device_ops {
	uint16_t id;      /* virtio 1.3, 5: 1 net, 2 block, 3 console, 4 entropy */
	const char *type; /* "virtio-blk" */
	/* The driver accepted `features` (a subset of what is offered, VERSION_1 included): -EINVAL
	 * refuses a combination, FEATURES_OK then stays clear. Changes nothing. May be NULL. */
	int (*features_ok)(struct virtio_device *vdev, uint64_t features);
	/* They are accepted: take them into use. Negative: refused all the same. May be NULL. */
	int (*features_set)(struct virtio_device *vdev, uint64_t features);
	/* Config space beyond the common part: fill buf from offset. Reads past the end give
	 * zeroes. */
	void (*config_read)(struct virtio_device *vdev, uint32_t offset, void *buf,
			    unsigned int len);
	void (*config_write)(struct virtio_device *vdev, uint32_t offset, const void *buf,
			     unsigned int len); /* NULL: ignored */
	/* All queues have stopped and the device was reset: drop negotiated state. Under the device
	 * lock, in whichever thread saw the last queue stop. */
	void (*reset)(struct virtio_device *vdev);
	/* The device's own state (core/state.h), of one record, whose `live` is its struct
	 * virtio_device. Loaded behind features and queues, while these are off. NULL: it has
	 * none. */
	const struct state_section *state;
	/* Why its state cannot be saved, for the user; NULL: it can. */
	const char *no_state;
	void (*destroy)(struct virtio_device *vdev); /* ends with virtio_device_done; takes NULL */
};

/* Embedded first in each device type's struct. */
struct virtio_device {
	/* Constant once it is attached. */
	const struct virtio_device_ops *ops;
	char name[32];
	const struct log *log;
	uint64_t features_offered;  /* device bits; the transport adds its own (28, 29, 32, 40) */
	uint64_t features_withheld; /* of the transport's */
	uint32_t config_bytes;      /* size of the device config space */
	unsigned int n_queues;
	struct virtio_queue *queues;
	struct virtio_transport *transport; /* set when it is attached */
	/* --- */
	struct log_limit limit;      /* any thread */
	struct virtio_rate rates[2]; /* all queues have the first, unless the device says else */
	uint64_t features; /* negotiated; written under the device's lock while no queue runs */
};

static inline bool virtio_has(const struct virtio_device *vdev, unsigned int feature)
{
	return vdev->features >> feature & 1;
}

/* What a device calls. */

/* First of all: name and log, and n_queues queues, whose ops, loop and max_size the device sets
 * next. */
int virtio_device_init(struct virtio_device *vdev, const struct virtio_device_ops *ops,
		       const char *name, const struct log *log, unsigned int n_queues,
		       struct err *err);
void virtio_device_done(struct virtio_device *vdev);

/* What the driver reads of the device's configuration changes between these two: begin takes the
 * device lock, end gives it back with a new generation, so that nobody reads half a change
 * (virtio 1.3, 2.5.1); notify: it interrupts. Any thread that does not hold that lock (so not
 * features_ok, config_read, config_write or reset), and also before a transport is there. */
void virtio_config_begin(struct virtio_device *vdev);
void virtio_config_end(struct virtio_device *vdev, bool notify);
/* What each of its rates allows from now on, see rate.h. Any thread that does not hold the device
 * lock. */
void virtio_device_set_rate(struct virtio_device *vdev, uint64_t bytes_per_s, uint64_t ops_per_s);
/* The device cannot go on: NEEDS_RESET. Any thread that does not hold the device lock. */
void virtio_device_broken(struct virtio_device *vdev, const char *text);

#endif
