/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts that one thread at a time makes and any thread reads: no locked instruction.
 */
#ifndef BASE_COUNTER_H
#define BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/num.h"

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline uint64_t counter_read(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

enum { LATENCY_BUCKETS = 24 };

/* How long things took. Bucket i has those of at most 2^i µs that are in none before it; the last
 * has the rest, from 4 s on. Begins as zeroes. */
struct latency {
	_Atomic uint64_t n[LATENCY_BUCKETS];
	_Atomic uint64_t total_ns;
};

static inline void latency_add(struct latency *l, uint64_t ns)
{
	uint64_t us = ns / 1000 + (ns % 1000 != 0);
	unsigned int i = us <= 1 ? 0 : 64 - (unsigned int)__builtin_clzll(us - 1);

	counter_add(&l->n[MIN(i, LATENCY_BUCKETS - 1u)], 1);
	counter_add(&l->total_ns, ns);
}

#endif
