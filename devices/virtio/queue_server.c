// SPDX-License-Identifier: Apache-2.0
// The life of a virtqueue from start to stop, and its service: see queue_server.h.
#include "virtio/queue_server.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/probe.h"
#include "virtio/rate.h"
#include "virtio/virtio.h"

static bool stopping(const struct virtio_queue *q)
{
	enum virtq_state state = virtq_state(q->vq);

	return state == VIRTQ_FINISHING || state == VIRTQ_ABANDONING;
}

/* --- service --- */

static bool may_serve(const struct virtio_queue *q)
{
	return virtio_queue_running(q) && !q->handed_over &&
	       !atomic_load_explicit(&q->owner->broken, memory_order_relaxed);
}

static void count_request(struct virtio_queue *q, uint64_t bytes)
{
	q->unannounced++;
	counter_add(&q->counts.requests, 1);
	counter_add(&q->counts.bytes, bytes);
}

/* Chain by chain, for devices that answer at once. */
static bool handle_chains(struct virtio_queue *q)
{
	uint64_t end_ns = clock_ns() + VIRTIO_SHARE_NS;

	do {
		virtq_kick_disable(q->vq);
		while (virtq_pop(q->vq, &q->chain) > 0) {
			int written = q->ops->handle(q, &q->chain);

			if (written < 0) {
				virtq_drop(q->vq, &q->chain);
				virtq_break(q->vq, "a request that has no answer");
				return false;
			}
			virtq_push(q->vq, &q->chain, (uint32_t)written);
			count_request(q, (uint64_t)written);
			if (clock_ns() >= end_ns)
				return true;
		}
	} while (virtq_kick_enable(q->vq));
	return false;
}

static bool serve_share(struct virtio_queue *q)
{
	q->share_bytes = VIRTIO_SHARE_BYTES;
	return q->ops->serve ? q->ops->serve(q) : handle_chains(q);
}

/* What is left of it is the loop's. */
static void serve_locked(struct virtio_queue *q)
{
	counter_add(&q->counts.kicks, atomic_exchange(&q->notified, false));
	if (!may_serve(q))
		return;
	if (serve_share(q))
		virtio_queue_wake(q);
	virtq_flush(q->vq);
}

/* No vCPU waits here for what another thread does for the guest. */
void virtio_queue_notify(struct virtio_queue *q)
{
	atomic_store(&q->notified, true);
	while (atomic_load(&q->notified) && !atomic_load(&q->woken) &&
	       pthread_mutex_trylock(&q->serving) == 0) {
		serve_locked(q);
		pthread_mutex_unlock(&q->serving);
	}
}

static void serve_beside_vcpus(struct virtio_queue *q)
{
	pthread_mutex_lock(&q->serving);
	serve_locked(q);
	pthread_mutex_unlock(&q->serving);
	if (atomic_load(&q->notified) && virtio_queue_running(q))
		virtio_queue_wake(q);
}

/* How long the driver need not be interrupted yet; 0: it is to be. */
static uint64_t announce_in_ns(struct virtio_queue *q, uint64_t coalescing)
{
	uint64_t us = coalescing & UINT32_MAX, now_ns;

	if (!us || q->unannounced >= coalescing >> 32 || stopping(q))
		return 0;
	now_ns = clock_ns();
	if (!q->announce_ns)
		q->announce_ns = now_ns + us * 1000;
	return q->announce_ns > now_ns ? q->announce_ns - now_ns : 0;
}

/* The end of a batch: the driver is interrupted now, or when its coalescing says. */
static void announce(struct virtio_queue *q)
{
	uint64_t coalescing = atomic_load_explicit(&q->coalescing, memory_order_relaxed);
	uint64_t ns = coalescing && virtq_unflushed(q->vq) ? announce_in_ns(q, coalescing) : 0;

	if (ns) {
		if (!q->announce.in_flight)
			loop_timer(q->loop, &q->announce, ns);
		return;
	}
	q->announce_ns = 0;
	q->unannounced = 0;
	virtq_flush(q->vq);
}

/* Is it to wait, for the sake of the rate or of moderation? */
static bool rests(struct virtio_queue *q)
{
	uint64_t ns;

	if (q->rest.in_flight)
		return true;
	ns = virtio_rate_limits(q->rate) ? virtio_rate_wait_ns(q->rate) : 0;
	if (!ns)
		return false;
	atomic_fetch_add_explicit(&q->rate->rests, 1, memory_order_relaxed);
	loop_timer(q->loop, &q->rest, ns);
	return true;
}

static void serve(struct virtio_queue *q)
{
	if (q->serve_in_vcpu) {
		serve_beside_vcpus(q);
		return;
	}
	if (!may_serve(q) || rests(q))
		return;
	if (serve_share(q) && !rests(q))
		q->more = true;
	loop_defer(q->loop, &q->end);
}

void virtio_queue_hold(struct virtio_queue *q)
{
	q->held++;
}

void virtio_queue_release(struct virtio_queue *q)
{
	assert(q->held);
	q->held--;
	loop_defer(q->loop, &q->end);
}

void virtio_queue_again(struct virtio_queue *q)
{
	q->more = true;
	loop_defer(q->loop, &q->end);
}

void virtio_queue_wake(struct virtio_queue *q)
{
	if (!atomic_exchange(&q->woken, true))
		loop_post(q->loop, &q->wake);
}

bool virtio_queue_later(struct virtio_queue *q)
{
	uint64_t bytes = q->visit_bytes, ns;
	bool timed = q->timed;

	q->visit_bytes = 0;
	q->timed = false;
	if (!virtio_moderation_on(&q->moderation) || q->rest.in_flight ||
	    atomic_load_explicit(&q->coalescing, memory_order_relaxed))
		return false;
	ns = virtio_moderation_visit(&q->moderation, clock_ns(), bytes, timed);
	if (!ns)
		return false;
	q->later = true;
	loop_timer(q->loop, &q->rest, ns);
	return true;
}

bool virtio_queue_spend(struct virtio_queue *q, uint64_t bytes)
{
	count_request(q, bytes);
	q->visit_bytes += bytes;
	q->share_bytes -= MIN(q->share_bytes, MAX(bytes, (uint64_t)VIRTIO_CHAIN_BYTES_MIN));
	if (!virtio_rate_limits(q->rate))
		return q->share_bytes;
	return !virtio_rate_charge(q->rate, bytes) && q->share_bytes;
}

/* --- life: all of it in the loop's thread, under the owner's lock unless it says otherwise --- */

static void post_work(struct virtio_queue *q)
{
	if (loop_post(q->loop, &q->work))
		q->posts++;
}

void virtio_queue_post(struct virtio_queue *q)
{
	post_work(q);
}

void virtio_queue_update(struct virtio_queue *q)
{
	bool on = virtq_state(q->vq) != VIRTQ_OFF;

	/* One that is stopping looks again by itself when it has stopped. */
	if (!stopping(q) && q->owner->ops->wanted(q) != on)
		post_work(q);
}

bool virtio_queue_wanted(const struct virtio_queue *q)
{
	bool wanted;

	pthread_mutex_lock(q->owner->lock);
	wanted = q->owner->ops->wanted(q);
	pthread_mutex_unlock(q->owner->lock);
	return wanted;
}

bool virtio_queue_still(const struct virtio_queue *q)
{
	return virtq_state(q->vq) == VIRTQ_OFF && !q->posts;
}

void virtio_queue_interrupt_changed(struct virtio_queue *q)
{
	virtq_set_interrupt(q->vq, q->owner->ops->interrupt_fd(q));
	/* Whoever was handed the queue interrupts by itself, so it must be given the new
	 * eventfd. */
	if (q->ops->set_call && virtio_queue_running(q))
		post_work(q);
}

static int make_chain(struct virtio_queue *q)
{
	if (!q->ops->handle)
		return 0;
	q->chain.max_iov = VIRTQ_MAX_SEGMENTS;
	q->chain.iov = calloc(VIRTQ_MAX_SEGMENTS, sizeof(*q->chain.iov));
	return q->chain.iov ? 0 : -ENOMEM;
}

/* Without the lock. */
static void start_rings(struct virtio_queue *q, const struct virtq_layout *layout,
			uint16_t next_avail)
{
	int r;

	q->more = q->later = q->timed = false;
	q->visit_bytes = q->unannounced = q->announce_ns = 0;
	virtio_moderation_start(&q->moderation);
	q->handed_over = false;
	virtq_port(q->vq)->requester = q->owner->ops->requester(q);
	r = virtq_start(q->vq, layout, next_avail);
	if (r) {
		virtq_break(q->vq, r == -ENOMEM ? "no memory for its rings"
						: "its rings are not in memory");
		return;
	}
	r = make_chain(q);
	if (!r && q->ops->start)
		r = q->ops->start(q);
	if (r)
		virtq_break(q->vq, "the host cannot serve it: %s", err_name(r));
}

static void start(struct virtio_queue *q)
{
	struct virtq_layout layout;
	uint16_t next_avail;

	virtq_set_state(q->vq, VIRTQ_STARTING);
	q->owner->ops->layout(q, &layout, &next_avail);
	virtq_set_interrupt(q->vq, q->owner->ops->interrupt_fd(q));
	pthread_mutex_unlock(q->owner->lock);
	/* A vCPU that notifies meanwhile leaves that to the service below. */
	if (q->serve_in_vcpu)
		pthread_mutex_lock(&q->serving);
	start_rings(q, &layout, next_avail);
	if (q->serve_in_vcpu)
		pthread_mutex_unlock(&q->serving);
	if (virtio_queue_running(q) && !q->handed_over) {
		loop_watch(q->loop, &q->kick, q->kick_fd);
		serve(q);
	}
	pthread_mutex_lock(q->owner->lock);
}

static void stop(struct virtio_queue *q)
{
	bool abandon = q->owner->ops->resetting(q) || virtq_state(q->vq) == VIRTQ_BROKEN;

	virtq_set_state(q->vq, abandon ? VIRTQ_ABANDONING : VIRTQ_FINISHING);
	pthread_mutex_unlock(q->owner->lock);
	/* A vCPU that serves it now has left it then. */
	if (q->serve_in_vcpu) {
		pthread_mutex_lock(&q->serving);
		pthread_mutex_unlock(&q->serving);
	}
	loop_cancel(q->loop, &q->kick);
	loop_cancel(q->loop, &q->call);
	loop_cancel(q->loop, &q->rest);
	loop_cancel(q->loop, &q->announce);
	if (q->ops->cancel)
		q->ops->cancel(q);
	pthread_mutex_lock(q->owner->lock);
}

static bool nothing_held(const struct virtio_queue *q)
{
	return !q->held && !q->kick.in_flight && !q->call.in_flight && !q->rest.in_flight &&
	       !q->announce.in_flight && !q->end.deferred && !atomic_load(&q->woken);
}

static void stopped(struct virtio_queue *q)
{
	uint16_t next_avail;

	pthread_mutex_unlock(q->owner->lock);
	if (q->ops->stopped)
		q->ops->stopped(q);
	free(q->chain.iov);
	q->chain.iov = NULL;
	next_avail = virtq_next_avail(q->vq);
	pthread_mutex_lock(q->owner->lock);
	virtq_stop(q->vq);
	q->owner->ops->stopped(q, next_avail);
}

/* Take each step that can be taken now. */
static void advance(struct virtio_queue *q)
{
	for (;;) {
		bool wanted = q->owner->ops->wanted(q);

		if (virtq_state(q->vq) == VIRTQ_OFF) {
			if (!wanted || atomic_load(&q->owner->broken))
				return;
			start(q);
		} else if (stopping(q)) {
			if (!nothing_held(q))
				return;
			stopped(q);
		} else if (!wanted) {
			stop(q);
		} else {
			return;
		}
	}
}

/* Without the lock. The last thing that its caller does: a queue that is off may be gone. */
static void stop_if_nothing_held(struct virtio_queue *q)
{
	if (!stopping(q) || !nothing_held(q))
		return;
	pthread_mutex_lock(q->owner->lock);
	advance(q);
	pthread_cond_broadcast(&q->owner->still);
	pthread_mutex_unlock(q->owner->lock);
}

static void iteration_end(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, end);

	(void)result;
	announce(q);
	if (q->more) {
		q->more = false;
		serve(q);
	}
	stop_if_nothing_held(q);
}

static void wake_done(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, wake);

	(void)result;
	/* An exchange, not a store: what the other thread did before it woke us is visible here. */
	(void)atomic_exchange(&q->woken, false);
	serve(q);
	stop_if_nothing_held(q);
}

/* Also where the rate has changed, or another thread runs the loop now: it looks again. */
static void rest_done(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, rest);

	q->timed = q->later && !result;
	q->later = false;
	serve(q);
	stop_if_nothing_held(q);
}

/* As rest_done. A queue that stops announces at once. */
static void announce_done(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, announce);

	if (result)
		q->announce_ns = 0;
	announce(q);
	stop_if_nothing_held(q);
}

static void kick_done(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, kick);

	if (result >= 0) {
		probe_kick(q->vdev->name, q->index);
		counter_add(&q->counts.kicks, 1);
		serve(q);
	} else if (stopping(q)) {
		stop_if_nothing_held(q);
	} else if (result == -ECANCELED) {
		/* The thread that ran the loop has ended; another runs it now. */
		loop_watch(q->loop, &q->kick, q->kick_fd);
	} else {
		virtq_break(q->vq, "its kicks cannot be watched");
	}
}

/* --- queues that somebody else serves --- */

static void watch_calls(struct virtio_queue *q)
{
	loop_watch(q->loop, &q->call, q->call_fd);
}

static void call_done(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, call);

	if (result >= 0)
		q->owner->ops->interrupt(q);
	else if (stopping(q))
		stop_if_nothing_held(q);
	else if (result == -ECANCELED)
		watch_calls(q);
}

/* An eventfd that interrupts for this queue as the registers are now. */
static int find_call_fd(struct virtio_queue *q)
{
	int fd;

	pthread_mutex_lock(q->owner->lock);
	fd = q->owner->ops->interrupt_fd(q);
	pthread_mutex_unlock(q->owner->lock);
	if (fd >= 0)
		return fd;
	/* INTx has a register to set first, so this process stays in between. */
	if (q->call_fd < 0)
		q->call_fd = fd_eventfd();
	if (q->call_fd >= 0 && !q->call.in_flight)
		watch_calls(q);
	return q->call_fd;
}

static void follow_interrupts(struct virtio_queue *q)
{
	int fd;

	if (!virtio_queue_running(q) || !q->handed_over || !q->ops->set_call)
		return;
	fd = find_call_fd(q);
	if (fd == q->given_call_fd)
		return;
	if (fd < 0 || q->ops->set_call(q, fd)) {
		virtq_break(q->vq, "its interrupt cannot be moved");
		return;
	}
	q->given_call_fd = fd;
	/* An interrupt on the old one may have been lost meanwhile; one too many does no harm. */
	fd_event_signal(fd);
}

int virtio_queue_hand_over(struct virtio_queue *q, struct virtio_queue_fds *ret)
{
	uint16_t ignored;

	assert(virtio_queue_running(q) && !q->kick.in_flight);
	q->given_call_fd = find_call_fd(q);
	if (q->given_call_fd < 0)
		return q->given_call_fd;
	pthread_mutex_lock(q->owner->lock);
	q->owner->ops->layout(q, &ret->layout, &ignored);
	pthread_mutex_unlock(q->owner->lock);
	ret->kick_fd = q->kick_fd;
	ret->call_fd = q->given_call_fd;
	ret->next_avail = virtq_next_avail(q->vq);
	q->handed_over = true;
	return 0;
}

void virtio_queue_take_back(struct virtio_queue *q, uint16_t next_avail)
{
	if (!q->handed_over)
		return;
	virtq_set_next(q->vq, next_avail);
	q->handed_over = false;
}

static void work_done(struct loop_op *op, int result)
{
	struct virtio_queue *q = container_of(op, struct virtio_queue, work);

	(void)result;
	pthread_mutex_lock(q->owner->lock);
	advance(q);
	pthread_mutex_unlock(q->owner->lock);
	follow_interrupts(q);
	loop_cancel(q->loop, &q->rest);
	if (q->ops->work)
		q->ops->work(q);
	pthread_mutex_lock(q->owner->lock);
	q->posts--;
	pthread_cond_broadcast(&q->owner->still);
	pthread_mutex_unlock(q->owner->lock);
}

/* --- set up --- */

static void interrupt(void *opaque, unsigned int index)
{
	struct virtio_queue *q = opaque;

	(void)index;
	q->owner->ops->interrupt(q);
}

static void broken(void *opaque, unsigned int index, const char *text)
{
	struct virtio_queue *q = opaque;

	(void)index;
	q->owner->ops->broken(q, text);
}

static const struct virtq_ops vq_ops = {
	.notify = interrupt,
	.broken = broken,
};

int virtio_queue_init(struct virtio_queue *q, struct virtio_queue_owner *owner,
		      struct dma_space *dma, struct err *err)
{
	const struct virtq_config config = {
		.index = q->index,
		.dma = dma,
		.ops = &vq_ops,
		.opaque = q,
	};

	q->owner = owner;
	q->work.done = work_done;
	q->wake.done = wake_done;
	q->end.done = iteration_end;
	q->rest.done = rest_done;
	q->announce.done = announce_done;
	q->kick.done = kick_done;
	q->call.done = call_done;
	pthread_mutex_init(&q->serving, NULL);
	q->call_fd = -1;
	q->kick_fd = fd_eventfd();
	if (q->kick_fd < 0)
		return err_set(err, q->kick_fd, "eventfd for queue %u: %s", q->index,
			       err_name(q->kick_fd));
	return virtq_create(&q->vq, &config, err);
}

void virtio_queue_done(struct virtio_queue *q)
{
	if (!q->owner)
		return;
	assert(!q->vq || virtio_queue_still(q));
	virtq_destroy(q->vq);
	q->vq = NULL;
	fd_close(&q->kick_fd);
	fd_close(&q->call_fd);
	pthread_mutex_destroy(&q->serving);
	q->owner = NULL;
}
