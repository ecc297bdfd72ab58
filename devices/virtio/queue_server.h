/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life and the service of one virtqueue: when it starts, who is asked to serve it, when the
 * driver is interrupted, and when a stop is over. A device gives the verbs; it keeps no state of
 * its own about whether the queue runs (enum virtq_state, in queue.h, is the only one).
 *
 *     wanted ──► STARTING ── start ──► RUNNING ── serve, serve, … ──► not wanted any more
 *                                                                          │ cancel
 *     OFF ◄── stopped ◄── nothing held, nothing posted ◄── FINISHING (pause) or ABANDONING (reset)
 *
 * Service: the driver's kick, or virtio_queue_again, or the end of an iteration whose share did not
 * suffice, calls `serve`. At the end of each iteration in which something was served or released,
 * the server interrupts the driver, once, if the driver wants it: a write to the eventfd of the
 * queue's MSI-X vector, which the queue has from its start.
 *
 * A queue whose device may move no more at present (rate.h) rests: kicks are not answered until a
 * timer, or another rate, ends that. One that streams (moderation.h) rests likewise, for some
 * microseconds.
 *
 * A driver may ask to be interrupted more seldom (`coalescing`).
 *
 * Whatever is in flight for a queue and ends by itself (a request of the host's, a poll) is held:
 * virtio_queue_hold when it begins, virtio_queue_release when it has ended. A stop is over when
 * nothing is held. Chains that are pushed while the queue is ABANDONING are dropped without a
 * trace, so that a request takes the same way to its end in each state.
 *
 * The smallest device gives only `handle` (rng.c).
 *
 * Threads: each queue belongs to its loop's thread; so do all functions here unless they say
 * otherwise. Nothing on the way of a request allocates, and only a queue that is served by vCPUs
 * takes a lock.
 */
#ifndef VIRTIO_QUEUE_SERVER_H
#define VIRTIO_QUEUE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/counter.h"
#include "base/err.h"
#include "core/loop.h"
#include "virtio/moderation.h"
#include "virtio/queue.h"

struct virtio_device;
struct virtio_queue;
struct virtio_rate;

enum {
	/* What one iteration of the loop spends on one queue; the rest is the next iteration's. A
	 * chain costs its bytes, and at least as many as stand for the work of taking it. */
	VIRTIO_SHARE_BYTES = 4 << 20,
	VIRTIO_CHAIN_BYTES_MIN = 16 << 10,
	/* For `handle`, whose cost bytes do not tell. */
	VIRTIO_SHARE_NS = 1000000,
};

struct virtio_queue_ops {
	/* Before the first service: make what requests need. 0, or a negative errno, which breaks
	 * the queue. May hand the queue over (below). NULL: nothing to do. */
	int (*start)(struct virtio_queue *q);
	/* Take what is available. True: more is there than this iteration's share. */
	bool (*serve)(struct virtio_queue *q);
	/* Instead of serve: answer this chain at once. The number of bytes written to it; or a
	 * negative errno, with which it is dropped and the queue breaks. */
	int (*handle)(struct virtio_queue *q, struct virtq_chain *chain);
	/* A stop has begun: end soon what is held. Also where start failed, or was not reached
	 * since the rings are not in memory. NULL: it ends by itself. */
	void (*cancel)(struct virtio_queue *q);
	/* Nothing is held any more: undo start, as far as it came. NULL: nothing to do. */
	void (*stopped)(struct virtio_queue *q);
	/* What the device has posted by virtio_queue_post; now and then also without that. */
	void (*work)(struct virtio_queue *q);
	/* A queue that was handed over interrupts by this eventfd from now on. */
	int (*set_call)(struct virtio_queue *q, int call_fd);
};

/* What the server asks the queues' owner, the transport. */
struct virtio_queue_owner_ops {
	/* Under the lock. */
	bool (*wanted)(const struct virtio_queue *q);
	bool (*resetting)(const struct virtio_queue *q);
	void (*layout)(const struct virtio_queue *q, struct virtq_layout *layout,
		       uint16_t *next_avail);
	/* An eventfd that interrupts for this queue and stays the transport's, or -1. */
	int (*interrupt_fd)(const struct virtio_queue *q);
	/* It is off, and was served up to next_avail. */
	void (*stopped)(struct virtio_queue *q, uint16_t next_avail);
	/* Without the lock. */
	uint32_t (*requester)(const struct virtio_queue *q);
	void (*interrupt)(struct virtio_queue *q); /* where there is no eventfd */
	void (*broken)(struct virtio_queue *q, const char *text);
};

/* Of all queues of a device. */
struct virtio_queue_owner {
	const struct virtio_queue_owner_ops *ops;
	pthread_mutex_t *lock; /* the device's */
	pthread_cond_t still;  /* some queue became still */
	_Atomic bool broken;   /* the device needs a reset: no queue is served or started */
};

struct virtio_queue {
	/* The device's: before the transport is there; ops and opaque also while the queue is
	 * off. */
	const struct virtio_queue_ops *ops;
	void *opaque;
	struct loop *loop;
	uint16_t max_size;
	struct virtio_rate *rate; /* what `serve` takes counts; `handle` is not limited */
	/* No ioeventfd: a notification is the vCPU's exit, in which that vCPU serves the queue. */
	bool serve_in_vcpu;

	/* Fixed. */
	struct virtio_device *vdev;
	unsigned int index;
	struct virtq *vq;
	struct virtio_queue_owner *owner;
	int kick_fd;

	/* Under the owner's lock. */
	unsigned int posts; /* runs of `work` that are to come */

	/* The loop's thread's; with serve_in_vcpu, under `serving`. */
	pthread_mutex_t serving;
	unsigned int held;
	bool more;            /* serve again at the end of this iteration */
	bool later;           /* `rest` is in flight for the sake of moderation */
	bool timed;           /* this visit came after such a rest */
	uint64_t visit_bytes; /* taken since the last call of virtio_queue_later */
	uint64_t unannounced; /* requests since the last interrupt was decided on */
	uint64_t announce_ns; /* when they are announced at the latest; 0: none wait */
	bool handed_over;
	int call_fd;       /* -1 unless a queue was handed over that has no interrupt fd */
	int given_call_fd; /* the eventfd by which the other side interrupts */
	uint64_t share_bytes;
	struct virtq_chain chain; /* `handle`'s */

	struct virtio_moderation moderation; /* of queues whose `serve` calls virtio_queue_later */
	/* When the driver wants to be interrupted: after so many requests (upper half) or so many
	 * microseconds (lower half), whichever comes first (virtio 1.3, 5.1.6.5.9); one of them 0:
	 * at the end of each iteration. It goes before moderation. Any thread. */
	_Atomic uint64_t coalescing;

	/* Since the device was made; by whoever serves it, for anyone. Bytes have headers in them.
	 * What another process or the kernel serves is not counted. */
	struct {
		_Atomic uint64_t requests, bytes, kicks;
	} counts;

	_Atomic bool woken;        /* `wake` is posted */
	_Atomic bool notified;     /* with serve_in_vcpu: nobody has looked since */
	struct loop_op work;       /* posted: what is wanted has changed */
	struct loop_op wake;       /* posted: serve */
	struct loop_op end;        /* deferred: the end of an iteration */
	struct loop_op rest;       /* a timer: until then no request is taken */
	struct loop_op announce;   /* a timer: until then the driver is not interrupted */
	struct loop_op kick, call; /* watches */
};

/* For devices. */

static inline bool virtio_queue_running(const struct virtio_queue *q)
{
	return virtq_state(q->vq) == VIRTQ_RUNNING;
}

/* Something in flight begins, or has ended. The server interrupts the driver, if need be, at the
 * end of the iteration in which something is released. */
void virtio_queue_hold(struct virtio_queue *q);
void virtio_queue_release(struct virtio_queue *q);
/* Serve at the end of this iteration. */
void virtio_queue_again(struct virtio_queue *q);
/* The same soon, from any thread, between `start` and the end of `cancel`. */
void virtio_queue_wake(struct virtio_queue *q);
/* Call `work` soon, whether the queue runs or not: a machine's reset, a pause and the device's end
 * wait for it. Under the owner's lock. */
void virtio_queue_post(struct virtio_queue *q);
/* A chain of `bytes` was taken. False when nothing is left of this iteration's share, or of what
 * the rate allows, and `serve` should return true. */
bool virtio_queue_spend(struct virtio_queue *q, uint64_t bytes);
/* Does the driver use it, as the registers are now? Takes the owner's lock. */
bool virtio_queue_wanted(const struct virtio_queue *q);
/* From `serve`, which took all that there was: true when it need not ask to be woken (by a kick,
 * a poll), as it will be called soon all the same: the queue streams. */
bool virtio_queue_later(struct virtio_queue *q);

/* For a queue that the kernel or another process serves (vhost): ring layout and position, kick fd
 * and call fd (all stay the server's). Called from `start`; the server then neither watches the
 * kick fd nor serves. take_back, from `cancel`, says how far the other side came
 * (VHOST_GET_VRING_BASE), so that the next start goes on from there. */
struct virtio_queue_fds {
	int kick_fd;
	int call_fd;
	struct virtq_layout layout;
	uint16_t next_avail;
};
int virtio_queue_hand_over(struct virtio_queue *q, struct virtio_queue_fds *ret);
void virtio_queue_take_back(struct virtio_queue *q, uint16_t next_avail);

/* For the transport. */

int virtio_queue_init(struct virtio_queue *q, struct virtio_queue_owner *owner,
		      struct dma_space *dma, struct err *err);
/* It is still. */
void virtio_queue_done(struct virtio_queue *q);
/* Under the lock: an answer of `wanted` may have changed. */
void virtio_queue_update(struct virtio_queue *q);
/* Under the lock: the answer of `interrupt_fd` may have changed. */
void virtio_queue_interrupt_changed(struct virtio_queue *q);
/* Under the lock: it is off, and nothing is posted. */
bool virtio_queue_still(const struct virtio_queue *q);
/* A notification of a queue with serve_in_vcpu. Any thread, no lock held. Where another thread
 * serves it, that one looks again when it has done so. */
void virtio_queue_notify(struct virtio_queue *q);

#endif
