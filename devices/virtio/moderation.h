/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moderation: a queue that streams is visited a little later, and then served many at once.
 *
 * A queue's requests do not say whether somebody waits for each. So a queue is served at once, and
 * its visits, bytes and time are measured; now and then it is tried to come back only after a
 * while:
 *
 *   AT_ONCE ── measured; several visits fit into the longest delay ──► TRIED
 *     ▲  ▲                                                              │ │
 *     │  └── found no more than at once, or bytes came more slowly ─────┘ │ found more
 *     │      (the next trial comes after twice as many visits)            ▼
 *     └── several found no more, or it is time to measure again ────── DELAYED
 *
 * One that asks and waits has no second request for the first visit of a trial to find. Several
 * that do so would wait longer each, so that fewer bytes come in a second: with as many on their
 * way, latency is the reciprocal of the rate (Little's law).
 *
 * The delay is as long as GATHER visits were apart, and never longer than max_ns.
 *
 * Threads: the queue's loop's; anyone may read delay_ns and delayed, and set max_ns.
 */
#ifndef VIRTIO_MODERATION_H
#define VIRTIO_MODERATION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum virtio_moderation_state {
	VIRTIO_MODERATION_AT_ONCE,
	VIRTIO_MODERATION_TRIED,
	VIRTIO_MODERATION_DELAYED,
};

struct virtio_moderation_sum {
	uint64_t start_ns;
	uint64_t bytes;
	unsigned int visits;
};

/* Begins as zeroes: off. */
struct virtio_moderation {
	_Atomic uint64_t max_ns;   /* 0: off */
	_Atomic uint64_t delay_ns; /* in use; 0: it is served at once */
	_Atomic uint64_t delayed;  /* visits that came later, on purpose */

	enum virtio_moderation_state state;
	struct virtio_moderation_sum at_once; /* the last time that it was measured */
	struct virtio_moderation_sum now;     /* of this state */
	unsigned int score;                   /* DELAYED: ends at 0 */
	unsigned int wait;                    /* AT_ONCE: visits until it is measured */
	unsigned int next_wait;
};

static inline bool virtio_moderation_on(const struct virtio_moderation *m)
{
	return atomic_load_explicit(&m->max_ns, memory_order_relaxed) ||
	       m->state != VIRTIO_MODERATION_AT_ONCE;
}

/* A visit has taken all that there was, `bytes` of it (0: there was nothing). `timed`: it came
 * after the delay that the last call asked for. Returns how long the next one should wait; 0: it
 * should come as soon as there is something. */
uint64_t virtio_moderation_visit(struct virtio_moderation *m, uint64_t now_ns, uint64_t bytes,
				 bool timed);
/* The queue starts: nothing is known of it. */
void virtio_moderation_start(struct virtio_moderation *m);

#endif
