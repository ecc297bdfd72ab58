/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues that somebody else serves: the host's kernel (vhost_kernel.c), or another process by the
 * vhost-user protocol (vhost_user.c). Both see guest memory, are given rings, and say how far they
 * came when they give one back.
 *
 *   a device's queue ── start, stop, set_call ──► vhost.c ── struct vhost_ops ──► kernel or process
 *   guest memory ───── listener ────────────────►
 *
 * Threads: create and destroy, the machine's. A queue is started and stopped by its loop's thread;
 * memory changes by the machine's. `lock` serialises them, and is taken behind the lock of the
 * map.
 */
#ifndef VIRTIO_VHOST_H
#define VIRTIO_VHOST_H

#include <pthread.h>

#include "core/gmem.h"
#include "virtio/virtio.h"

struct vhost;

/* A ring as it is started. The addresses in this process are checked; those of the guest are in
 * the layout. */
struct vhost_ring {
	unsigned int index;
	struct virtq_layout layout;
	uint16_t next_avail;
	const void *desc, *avail;
	void *used;
	int kick_fd, call_fd, err_fd; /* stay the caller's */
};

/* Under the lock; 0 or a negative errno. */
struct vhost_ops {
	const char *name; /* as a listener of guest memory */
	/* What the driver accepted, VERSION_1 included, while no ring runs. */
	int (*set_features)(struct vhost *v, uint64_t features);
	/* As those of a listener; of memory that devices may write. */
	int (*map)(struct vhost *v, const struct gmem_region *region, struct err *err);
	void (*unmap)(struct vhost *v, const struct gmem_region *region);
	int (*batch_end)(struct vhost *v, struct err *err);
	/* It serves the ring once its kick fd is signalled. */
	int (*start)(struct vhost *v, const struct vhost_ring *ring);
	int (*set_call)(struct vhost *v, unsigned int ring, int call_fd);
	/* It is done with the ring, and came so far. A failure leaves *next_avail. */
	int (*stop)(struct vhost *v, unsigned int ring, uint16_t *next_avail);
	void (*destroy)(struct vhost *v);
};

/* Embedded first in each one's struct. */
struct vhost {
	const struct vhost_ops *ops; /* this, name, gmem and features are constant */
	const char *name;            /* the device's */
	struct gmem *gmem;
	uint64_t features; /* it can */
	struct gmem_listener listener;
	bool listening;
	pthread_mutex_t lock; /* guards the rest, and what is ops' own */
	unsigned int n_rings;
	unsigned int n_active;
	bool active[VIRTIO_MAX_QUEUES];
	uint16_t next_avail[VIRTIO_MAX_QUEUES]; /* where an active ring was started */
	int err_fd[VIRTIO_MAX_QUEUES];
};

/* For create: the lock, and an eventfd for each ring, by which it reports a malformed one. */
int vhost_init(struct vhost *v, const struct vhost_ops *ops, const char *name, struct gmem *gmem,
	       unsigned int n_rings, struct err *err);
/* It follows guest memory from here on. */
int vhost_listen(struct vhost *v, struct err *err);
/* For ops->destroy; from any stage. No ring runs. */
void vhost_done(struct vhost *v);

/* NULL is allowed. */
void vhost_destroy(struct vhost *v);

/* From a queue's start, cancel and set_call (queue_server.h). features: the driver's. The caller
 * signals the kick fd then: whatever was available before has nobody else to announce it. */
int vhost_queue_start(struct vhost *v, struct virtio_queue *q, unsigned int ring,
		      uint64_t features);
void vhost_queue_stop(struct vhost *v, struct virtio_queue *q, unsigned int ring);
int vhost_queue_set_call(struct vhost *v, unsigned int ring, int call_fd);
/* Signalled when a ring is found malformed; stays vhost's. */
int vhost_error_fd(const struct vhost *v, unsigned int ring);

/* The kernel's vhost-net, for a queue pair and its tap: ring 0 receives, ring 1 transmits. The fds
 * stay the caller's. -EOPNOTSUPP: it knows no virtio 1. */
int vhost_kernel_create(struct vhost **ret, const char *name, int vhost_fd, int tap_fd,
			struct gmem *gmem, struct err *err);

#endif
