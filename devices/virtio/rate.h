/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much queues may move: so many bytes and so many requests (of a net: packets) in a second, all
 * queues that share a rate together.
 *
 * A request is charged when it is taken, whatever its size, so that a large one is let through
 * and what follows waits the longer: over time the rate holds exactly. A tenth of a second's worth
 * may come at once.
 *
 * Threads: any.
 */
#ifndef VIRTIO_RATE_H
#define VIRTIO_RATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/num.h"

/* Begins as zeroes: no limit. */
struct virtio_rate {
	_Atomic uint64_t bytes_per_s; /* 0: as many as it can */
	_Atomic uint64_t ops_per_s;   /* likewise */
	struct budget bytes;
	struct budget ops;
	_Atomic uint64_t rests; /* times that a queue had to wait */
};

#define VIRTIO_RATE_BURST_NS (NS_PER_S / 10)

enum { VIRTIO_RATE_BYTES_MIN = 1024 };

static inline bool virtio_rate_limits(const struct virtio_rate *rate)
{
	return atomic_load_explicit(&rate->bytes_per_s, memory_order_relaxed) ||
	       atomic_load_explicit(&rate->ops_per_s, memory_order_relaxed);
}

/* How long no request may be taken; 0: one may be. */
static inline uint64_t virtio_rate_wait_ns(const struct virtio_rate *rate)
{
	uint64_t now_ns = clock_ns();

	return MAX(budget_wait_ns(&rate->bytes, now_ns, VIRTIO_RATE_BURST_NS),
		   budget_wait_ns(&rate->ops, now_ns, VIRTIO_RATE_BURST_NS));
}

/* How long nothing more may be taken: as virtio_rate_wait_ns. */
static inline uint64_t virtio_rate_charge(struct virtio_rate *rate, uint64_t bytes)
{
	uint64_t bytes_per_s = atomic_load_explicit(&rate->bytes_per_s, memory_order_relaxed);
	uint64_t ops_per_s = atomic_load_explicit(&rate->ops_per_s, memory_order_relaxed);
	uint64_t now_ns = clock_ns(), bytes_ns = 0, ops_ns = 0;

	if (bytes_per_s)
		bytes_ns = budget_spend(&rate->bytes, now_ns,
					MIN(bytes, 8 * GiB) * NS_PER_S / bytes_per_s,
					VIRTIO_RATE_BURST_NS);
	if (ops_per_s)
		ops_ns = budget_spend(&rate->ops, now_ns, NS_PER_S / ops_per_s,
				      VIRTIO_RATE_BURST_NS);
	return MAX(bytes_ns, ops_ns);
}

/* From now on; what was charged before is forgiven. */
static inline void virtio_rate_set(struct virtio_rate *rate, uint64_t bytes_per_s,
				   uint64_t ops_per_s)
{
	atomic_store(&rate->bytes_per_s, bytes_per_s);
	atomic_store(&rate->ops_per_s, ops_per_s);
	atomic_store(&rate->bytes.full_ns, 0);
	atomic_store(&rate->ops.full_ns, 0);
}

#endif
