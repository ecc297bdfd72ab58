/* SPDX-License-Identifier: Apache-2.0 */
/* The monotonic clock, and limits of what happens per time. Any thread. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline struct timespec clock_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S),
				 .tv_nsec = (long)(ns % NS_PER_S)};
}

/* A budget that fills with time: what happens costs some of it, up to burst_ns may be spent at
 * once. Begins as zeroes, which is full. */
struct budget {
	_Atomic uint64_t full_ns; /* when it is full again */
};

/* Spend cost_ns. Returns how long the caller has to wait for it: 0 while the budget lasts. */
static inline uint64_t budget_spend(struct budget *budget, uint64_t now_ns, uint64_t cost_ns,
				    uint64_t burst_ns)
{
	uint64_t was = atomic_load(&budget->full_ns), next;

	do
		next = (was > now_ns ? was : now_ns) + cost_ns;
	while (!atomic_compare_exchange_weak(&budget->full_ns, &was, next));
	return next - now_ns > burst_ns ? next - now_ns - burst_ns : 0;
}

/* How long whoever wants to spend something has to wait; 0: it need not. */
static inline uint64_t budget_wait_ns(const struct budget *budget, uint64_t now_ns,
				      uint64_t burst_ns)
{
	uint64_t full_ns = atomic_load(&budget->full_ns);

	return full_ns > now_ns + burst_ns ? full_ns - now_ns - burst_ns : 0;
}

/* Spend it if it is there: false, and nothing is spent, where the caller would have to wait. */
static inline bool budget_take(struct budget *budget, uint64_t now_ns, uint64_t cost_ns,
			       uint64_t burst_ns)
{
	uint64_t was = atomic_load(&budget->full_ns), next;

	do {
		next = (was > now_ns ? was : now_ns) + cost_ns;
		if (next - now_ns > burst_ns)
			return false;
	} while (!atomic_compare_exchange_weak(&budget->full_ns, &was, next));
	return true;
}

#endif
