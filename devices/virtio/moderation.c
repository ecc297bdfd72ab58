// SPDX-License-Identifier: Apache-2.0
// When a queue that streams is visited again: see moderation.h.
#include "virtio/moderation.h"

#include "base/counter.h"
#include "base/num.h"

enum {
	MEASURED_VISITS = 32, /* at once, in a row */
	TRIED_VISITS = 8,
	DELAYED_VISITS = 512, /* until it is measured again */
	GATHER = 8,           /* a delay is so many visits long */
	GATHER_MIN = 2,       /* as few as are worth it */
	SCORE_START = 4,
	SCORE_MAX = 8,
	SCORE_MISS = 2,
	WAIT_MIN = 64, /* visits until the next trial; doubled each time that one was in vain */
	WAIT_MAX = 8192,
	/* One visit that finds as much has nothing to gain. */
	ENOUGH_BYTES = 256 << 10,
};

static void begin(struct virtio_moderation *m, enum virtio_moderation_state state, uint64_t now_ns)
{
	m->state = state;
	m->now = (struct virtio_moderation_sum){.start_ns = now_ns};
}

void virtio_moderation_start(struct virtio_moderation *m)
{
	begin(m, VIRTIO_MODERATION_AT_ONCE, 0);
	m->wait = 0;
	m->next_wait = WAIT_MIN;
	atomic_store_explicit(&m->delay_ns, 0, memory_order_relaxed);
}

static uint64_t at_once(struct virtio_moderation *m, uint64_t now_ns, unsigned int wait)
{
	begin(m, VIRTIO_MODERATION_AT_ONCE, now_ns);
	m->wait = wait;
	atomic_store_explicit(&m->delay_ns, 0, memory_order_relaxed);
	return 0;
}

/* Delays do not help. */
static uint64_t in_vain(struct virtio_moderation *m, uint64_t now_ns)
{
	unsigned int wait = m->next_wait;

	m->next_wait = MIN(2 * wait, (unsigned int)WAIT_MAX);
	return at_once(m, now_ns, wait);
}

/* Half as much again as a visit at once finds. */
static bool found_more(const struct virtio_moderation *m, uint64_t bytes, unsigned int visits)
{
	return 2 * bytes * m->at_once.visits > 3 * m->at_once.bytes * visits;
}

/* Bytes come no more slowly, but for a sixteenth that may be chance. */
static bool as_fast(const struct virtio_moderation *m, uint64_t now_ns)
{
	double was_ns = (double)(m->now.start_ns - m->at_once.start_ns);
	double is_ns = (double)(now_ns - m->now.start_ns);

	return 16 * (double)m->now.bytes * was_ns >= 15 * (double)m->at_once.bytes * is_ns;
}

/* 0: a delay would gather nothing. */
static uint64_t delay_for(const struct virtio_moderation *m, uint64_t now_ns, uint64_t max_ns)
{
	uint64_t apart_ns = (now_ns - m->now.start_ns) / m->now.visits;

	if (apart_ns > max_ns / GATHER_MIN || m->now.bytes / m->now.visits >= ENOUGH_BYTES)
		return 0;
	return MAX(1u, MIN(GATHER * apart_ns, max_ns));
}

static uint64_t measure(struct virtio_moderation *m, uint64_t now_ns, uint64_t bytes,
			uint64_t max_ns)
{
	uint64_t delay_ns;

	if (m->wait) {
		m->wait--;
		m->now.start_ns = now_ns;
		return 0;
	}
	/* From visit to visit: the first one only starts the clock. */
	if (!m->now.start_ns) {
		m->now.start_ns = now_ns;
		return 0;
	}
	m->now.bytes += bytes;
	if (++m->now.visits < MEASURED_VISITS)
		return 0;
	delay_ns = delay_for(m, now_ns, max_ns);
	if (!delay_ns)
		return at_once(m, now_ns, 0);
	m->at_once = m->now;
	begin(m, VIRTIO_MODERATION_TRIED, now_ns);
	atomic_store_explicit(&m->delay_ns, delay_ns, memory_order_relaxed);
	return delay_ns;
}

static uint64_t try_it(struct virtio_moderation *m, uint64_t now_ns, uint64_t bytes)
{
	m->now.bytes += bytes;
	m->now.visits++;
	if (!found_more(m, m->now.bytes, m->now.visits))
		return in_vain(m, now_ns);
	if (m->now.visits < TRIED_VISITS)
		return atomic_load_explicit(&m->delay_ns, memory_order_relaxed);
	if (!as_fast(m, now_ns))
		return in_vain(m, now_ns);
	begin(m, VIRTIO_MODERATION_DELAYED, now_ns);
	m->score = SCORE_START;
	m->next_wait = WAIT_MIN;
	return atomic_load_explicit(&m->delay_ns, memory_order_relaxed);
}

static uint64_t go_on(struct virtio_moderation *m, uint64_t now_ns, uint64_t bytes, bool timed)
{
	if (timed && found_more(m, bytes, 1))
		m->score = MIN(m->score + 1, (unsigned int)SCORE_MAX);
	else if (timed)
		m->score -= MIN(m->score, (unsigned int)SCORE_MISS);
	if (!m->score)
		return in_vain(m, now_ns);
	if (++m->now.visits >= DELAYED_VISITS)
		return at_once(m, now_ns, 0);
	/* A pause: whatever ends it is not kept waiting. */
	return bytes ? atomic_load_explicit(&m->delay_ns, memory_order_relaxed) : 0;
}

uint64_t virtio_moderation_visit(struct virtio_moderation *m, uint64_t now_ns, uint64_t bytes,
				 bool timed)
{
	uint64_t max_ns = atomic_load_explicit(&m->max_ns, memory_order_relaxed);

	if (timed)
		counter_add(&m->delayed, 1);
	if (!max_ns)
		return m->state == VIRTIO_MODERATION_AT_ONCE ? 0 : at_once(m, now_ns, 0);
	switch (m->state) {
	case VIRTIO_MODERATION_AT_ONCE:
		return bytes ? measure(m, now_ns, bytes, max_ns) : 0;
	case VIRTIO_MODERATION_TRIED:
		return try_it(m, now_ns, bytes);
	case VIRTIO_MODERATION_DELAYED:
		return go_on(m, now_ns, bytes, timed);
	}
	return 0;
}
