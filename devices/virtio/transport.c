// SPDX-License-Identifier: Apache-2.0
// Status, feature negotiation and the life of the queues (virtio 1.3, 2.1, 2.2, 2.6, 3.1).
#include "virtio/transport.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/probe.h"

static struct virtq *vq_of(struct transport_queue *q)
{
	return q->t->vdev->queues[q->index].vq;
}

static struct loop *loop_of(struct transport_queue *q)
{
	return q->t->vdev->queues[q->index].loop;
}

static bool wanted(const struct transport_queue *q)
{
	struct virtio_transport *t = q->t;

	return q->enable && !q->resetting && (t->status & VIRTIO_S_DRIVER_OK) && !t->paused &&
	       !t->resetting && t->ops->dma_allowed(t);
}

static void queue_post(struct transport_queue *q)
{
	if (loop_post(loop_of(q), &q->work))
		q->posts++;
}

static void queue_update(struct transport_queue *q)
{
	bool running = q->state == TRANSPORT_QUEUE_RUNNING;

	/* One that is stopping looks again by itself when it has stopped. */
	if (q->state != TRANSPORT_QUEUE_STOPPING && wanted(q) != running)
		queue_post(q);
}

void transport_update(struct virtio_transport *t)
{
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		queue_update(&t->queues[i]);
}

/* Who was handed a queue interrupts by itself, so it must hear where to. */
void transport_interrupts_changed(struct virtio_transport *t)
{
	for (unsigned int i = 0; i < t->vdev->n_queues && t->vdev->ops->queue_call; i++)
		if (t->queues[i].state == TRANSPORT_QUEUE_RUNNING)
			queue_post(&t->queues[i]);
}

/* Registers of one queue as after power-on. */
static void queue_forget(struct transport_queue *q)
{
	q->size = q->t->vdev->queues[q->index].max_size;
	q->desc = 0;
	q->driver = 0;
	q->device = 0;
	q->enable = false;
	q->resetting = false;
	q->next_avail = 0;
}

/* The last step of a reset, when every queue is off. */
static void reset_complete(struct virtio_transport *t)
{
	for (unsigned int i = 0; i < t->vdev->n_queues; i++) {
		if (t->queues[i].state != TRANSPORT_QUEUE_OFF)
			return;
	}
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		queue_forget(&t->queues[i]);
	t->status = 0;
	t->accepted = 0;
	t->vdev->features = 0;
	t->resetting = false;
	atomic_store(&t->broken, false);
	if (t->vdev->ops->reset)
		t->vdev->ops->reset(t->vdev);
	t->ops->reset(t);
}

void transport_reset_begin(struct virtio_transport *t)
{
	if (t->resetting)
		return;
	t->resetting = true;
	transport_update(t);
	reset_complete(t);
}

/* The loop's side. */

static void stop_part_done(struct transport_queue *q)
{
	assert(q->stop_waits);
	if (--q->stop_waits)
		return;
	pthread_mutex_lock(q->t->lock);
	queue_post(q);
	pthread_mutex_unlock(q->t->lock);
}

static void watch_kicks(struct transport_queue *q)
{
	q->kick_watched = true;
	loop_watch(loop_of(q), &q->kick, q->kick_fd);
}

static void watch_calls(struct transport_queue *q)
{
	q->call_watched = true;
	loop_watch(loop_of(q), &q->call, q->call_fd);
}

static void kick_done(struct loop_op *op, int result)
{
	struct transport_queue *q = container_of(op, struct transport_queue, kick);

	if (result < 0) {
		q->kick_watched = false;
		if (q->state == TRANSPORT_QUEUE_STOPPING)
			stop_part_done(q);
		else if (result == -ECANCELED)
			/* The thread that ran the loop is gone, another does now. */
			watch_kicks(q);
		else
			virtio_device_broken(q->t->vdev, "its kicks cannot be watched");
		return;
	}
	probe_kick(q->t->vdev->name, q->index);
	if (q->state == TRANSPORT_QUEUE_RUNNING && !atomic_load(&q->t->broken))
		q->t->vdev->ops->queue_kick(q->t->vdev, q->index);
}

static void call_done(struct loop_op *op, int result)
{
	struct transport_queue *q = container_of(op, struct transport_queue, call);

	if (result >= 0) {
		q->t->ops->queue_interrupt(q->t, q->index);
		return;
	}
	q->call_watched = false;
	if (q->state == TRANSPORT_QUEUE_STOPPING)
		stop_part_done(q);
	else if (result == -ECANCELED)
		watch_calls(q);
}

static void queue_start(struct transport_queue *q, const struct virtq_layout *layout,
			uint16_t next_avail)
{
	struct virtio_device *vdev = q->t->vdev;
	int r;

	q->handed_over = false;
	virtq_port(vq_of(q))->requester = q->t->ops->requester(q->t);
	r = virtq_start(vq_of(q), layout, next_avail);
	if (r) {
		virtio_device_broken(vdev, r == -ENOMEM ? "no memory for a queue"
							: "a queue's rings are not in memory");
		return;
	}
	vdev->ops->queue_start(vdev, q->index);
	if (q->handed_over)
		return;
	watch_kicks(q);
	if (!atomic_load(&q->t->broken))
		vdev->ops->queue_kick(vdev, q->index);
}

static void queue_stop(struct transport_queue *q)
{
	/* One for this function, so that parts which end at once do not end the whole. */
	q->stop_waits = 1;
	if (q->kick_watched) {
		q->stop_waits++;
		loop_cancel(loop_of(q), &q->kick);
	}
	if (q->call_watched) {
		q->stop_waits++;
		loop_cancel(loop_of(q), &q->call);
	}
	if (virtq_started(vq_of(q))) {
		q->stop_waits++;
		q->t->vdev->ops->queue_stop(q->t->vdev, q->index, q->abandon);
	}
	stop_part_done(q);
}

/* Under the lock: everything has ended. */
static void queue_stopped(struct transport_queue *q)
{
	struct virtio_transport *t = q->t;

	if (virtq_started(vq_of(q))) {
		q->next_avail = virtq_next_avail(vq_of(q));
		virtq_stop(vq_of(q));
	}
	q->state = TRANSPORT_QUEUE_OFF;
	if (q->resetting)
		queue_forget(q);
	if (t->resetting)
		reset_complete(t);
}

static bool event_idx(const struct virtio_device *vdev)
{
	return virtio_has(vdev, VIRTIO_F_EVENT_IDX);
}

/* An fd that interrupts for this queue as the registers are now. The queue's thread. */
static int find_call_fd(struct transport_queue *q)
{
	struct virtio_transport *t = q->t;
	int fd;

	pthread_mutex_lock(t->lock);
	fd = t->ops->queue_interrupt_fd(t, q->index);
	pthread_mutex_unlock(t->lock);
	if (fd >= 0)
		return fd;
	/* INTx has a register to set first, so this process stays in between. */
	if (q->call_fd < 0)
		q->call_fd = fd_eventfd();
	if (q->call_fd >= 0 && !q->call_watched)
		watch_calls(q);
	return q->call_fd;
}

/* The queue's thread, lock not held. */
static void follow_interrupts(struct transport_queue *q)
{
	struct virtio_device *vdev = q->t->vdev;
	int fd;

	if (!q->handed_over || !vdev->ops->queue_call)
		return;
	fd = find_call_fd(q);
	if (fd == q->given_call_fd)
		return;
	if (fd < 0 || vdev->ops->queue_call(vdev, q->index, fd)) {
		virtio_device_broken(vdev, "a queue's interrupt cannot be moved");
		return;
	}
	q->given_call_fd = fd;
	/* What came on the old one meanwhile may be lost to the driver; one too many is not. */
	fd_event_signal(fd);
}

static void queue_work(struct loop_op *op, int result)
{
	struct transport_queue *q = container_of(op, struct transport_queue, work);
	struct virtio_transport *t = q->t;
	struct virtq_layout layout;
	uint16_t next_avail;

	(void)result;
	pthread_mutex_lock(t->lock);
	q->posts--;
	if (q->state == TRANSPORT_QUEUE_STOPPING && !q->stop_waits)
		queue_stopped(q);
	if (q->state == TRANSPORT_QUEUE_OFF && wanted(q)) {
		q->state = TRANSPORT_QUEUE_RUNNING;
		layout = (struct virtq_layout){
			.size = q->size,
			.desc_iova = q->desc,
			.avail_iova = q->driver,
			.used_iova = q->device,
			.event_idx = event_idx(t->vdev),
			.indirect = virtio_has(t->vdev, VIRTIO_F_INDIRECT_DESC),
		};
		next_avail = q->next_avail;
		pthread_mutex_unlock(t->lock);
		queue_start(q, &layout, next_avail);
		pthread_mutex_lock(t->lock);
	}
	if (q->state == TRANSPORT_QUEUE_RUNNING && !wanted(q)) {
		q->state = TRANSPORT_QUEUE_STOPPING;
		q->abandon = t->resetting || q->resetting;
		pthread_mutex_unlock(t->lock);
		queue_stop(q);
		pthread_mutex_lock(t->lock);
	}
	if (q->state == TRANSPORT_QUEUE_RUNNING) {
		pthread_mutex_unlock(t->lock);
		follow_interrupts(q);
		pthread_mutex_lock(t->lock);
	}
	pthread_cond_broadcast(&t->still);
	pthread_mutex_unlock(t->lock);
}

/* What a device calls. */

void virtio_queue_stopped(struct virtio_device *vdev, unsigned int index)
{
	struct transport_queue *q = &vdev->transport->queues[index];

	assert(q->state == TRANSPORT_QUEUE_STOPPING);
	stop_part_done(q);
}

void virtio_config_changed(struct virtio_device *vdev)
{
	struct virtio_transport *t = vdev->transport;

	/* Before it is attached nobody has read it. */
	if (!t)
		return;
	pthread_mutex_lock(t->lock);
	t->generation++;
	if (t->status & VIRTIO_S_DRIVER_OK && !t->resetting)
		t->ops->config_interrupt(t);
	pthread_mutex_unlock(t->lock);
}

void virtio_device_broken(struct virtio_device *vdev, const char *text)
{
	struct virtio_transport *t = vdev->transport;

	log_guest(vdev->log, &vdev->limit, vdev->name, "%s: needs a reset by its driver", text);
	if (!t)
		return;
	pthread_mutex_lock(t->lock);
	if (!t->resetting && !(t->status & VIRTIO_S_NEEDS_RESET)) {
		atomic_store(&t->broken, true);
		t->status |= VIRTIO_S_NEEDS_RESET;
		/* virtio 1.3, 2.1.2 */
		if (t->status & VIRTIO_S_DRIVER_OK)
			t->ops->config_interrupt(t);
	}
	pthread_mutex_unlock(t->lock);
}

int virtio_queue_hand_over(struct virtio_device *vdev, unsigned int index,
			   struct virtio_queue_fds *ret)
{
	struct transport_queue *q = &vdev->transport->queues[index];
	struct virtio_transport *t = q->t;

	assert(q->state == TRANSPORT_QUEUE_RUNNING && !q->kick_watched);
	q->given_call_fd = find_call_fd(q);
	if (q->given_call_fd < 0)
		return q->given_call_fd;
	pthread_mutex_lock(t->lock);
	ret->layout = (struct virtq_layout){
		.size = q->size,
		.desc_iova = q->desc,
		.avail_iova = q->driver,
		.used_iova = q->device,
		.event_idx = event_idx(vdev),
		.indirect = virtio_has(vdev, VIRTIO_F_INDIRECT_DESC),
	};
	pthread_mutex_unlock(t->lock);
	ret->kick_fd = q->kick_fd;
	ret->call_fd = q->given_call_fd;
	ret->next_avail = virtq_next_avail(vq_of(q));
	q->handed_over = true;
	return 0;
}

void virtio_queue_take_back(struct virtio_device *vdev, unsigned int index, uint16_t next_avail)
{
	struct transport_queue *q = &vdev->transport->queues[index];

	if (!q->handed_over)
		return;
	virtq_set_next(vq_of(q), next_avail);
	q->handed_over = false;
}

static void vq_notify(void *opaque, unsigned int index)
{
	struct virtio_transport *t = opaque;

	t->ops->queue_interrupt(t, index);
}

static void vq_broken(void *opaque, unsigned int index, const char *text)
{
	struct virtio_transport *t = opaque;
	char line[240];

	snprintf(line, sizeof(line), "queue %u: %s", index, text);
	virtio_device_broken(t->vdev, line);
}

static const struct virtq_ops vq_ops = {
	.notify = vq_notify,
	.broken = vq_broken,
};

/* Registers. */

uint8_t transport_status(const struct virtio_transport *t)
{
	/* While a reset goes on, whatever was there, but not 0: a reset of a device that no driver
	 * had touched is over at once. */
	return t->status;
}

static bool features_acceptable(struct virtio_transport *t)
{
	uint64_t must =
		1ull << VIRTIO_F_VERSION_1 | (t->offered & 1ull << VIRTIO_F_ACCESS_PLATFORM);

	/* 2.2.2, 6.2 */
	if (t->accepted & ~t->offered || (t->accepted & must) != must)
		return false;
	return !t->vdev->ops->features_ok || !t->vdev->ops->features_ok(t->vdev, t->accepted);
}

void transport_write_status(struct virtio_transport *t, uint8_t value)
{
	uint8_t set = value & (uint8_t)~t->status &
		      (VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_DRIVER_OK |
		       VIRTIO_S_FEATURES_OK | VIRTIO_S_FAILED);

	if (t->resetting)
		return;
	if (!value) {
		transport_reset_begin(t);
		return;
	}
	/* Bits are only ever added (2.1.1); those that may not be yet stay clear. */
	if (set & VIRTIO_S_FEATURES_OK) {
		if (t->status & VIRTIO_S_DRIVER_OK || !features_acceptable(t))
			set &= (uint8_t)~VIRTIO_S_FEATURES_OK;
		else
			t->vdev->features = t->accepted;
	}
	if (set & VIRTIO_S_DRIVER_OK && !((t->status | set) & VIRTIO_S_FEATURES_OK))
		set &= (uint8_t)~VIRTIO_S_DRIVER_OK;
	t->status |= set;
	if (set & VIRTIO_S_DRIVER_OK)
		transport_update(t);
}

void transport_write_features(struct virtio_transport *t, unsigned int word, uint32_t value)
{
	unsigned int shift = 32 * word;

	/* 2.2.1: not after FEATURES_OK. Bits above the 64 known ones can only be refused. */
	if (t->resetting || t->status & VIRTIO_S_FEATURES_OK || word > 1)
		return;
	t->accepted = (t->accepted & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

bool transport_queue_writable(const struct virtio_transport *t, unsigned int index)
{
	const struct transport_queue *q;

	if (index >= t->vdev->n_queues || t->resetting)
		return false;
	q = &t->queues[index];
	return !q->enable && !q->resetting;
}

void transport_queue_set_size(struct virtio_transport *t, unsigned int index, uint16_t size)
{
	if (transport_queue_writable(t, index) && is_power_of_two(size) &&
	    size <= t->vdev->queues[index].max_size)
		t->queues[index].size = size;
}

void transport_queue_enable(struct virtio_transport *t, unsigned int index)
{
	if (!transport_queue_writable(t, index))
		return;
	t->queues[index].enable = true;
	queue_update(&t->queues[index]);
}

void transport_queue_reset(struct virtio_transport *t, unsigned int index)
{
	struct transport_queue *q;

	if (index >= t->vdev->n_queues || t->resetting || !virtio_has(t->vdev, VIRTIO_F_RING_RESET))
		return;
	q = &t->queues[index];
	if (!q->enable || q->resetting)
		return;
	q->resetting = true;
	if (q->state == TRANSPORT_QUEUE_OFF)
		queue_forget(q);
	else
		queue_update(q);
}

void transport_config_read(struct virtio_transport *t, uint32_t offset, void *buf, unsigned int len)
{
	memset(buf, 0, len);
	if (offset < t->vdev->config_bytes && t->vdev->ops->config_read)
		t->vdev->ops->config_read(t->vdev, offset, buf,
					  MIN(len, t->vdev->config_bytes - offset));
}

void transport_config_write(struct virtio_transport *t, uint32_t offset, const void *buf,
			    unsigned int len)
{
	if (!t->resetting && t->vdev->ops->config_write &&
	    range_inside(offset, len, 0, t->vdev->config_bytes))
		t->vdev->ops->config_write(t->vdev, offset, buf, len);
}

/* The machine's side. */

static bool queue_still(const struct transport_queue *q)
{
	return q->state == TRANSPORT_QUEUE_OFF && !q->posts;
}

/* Wait until every queue is off and nothing is posted. A loop that is ours to turn is turned. */
static void wait_still(struct virtio_transport *t)
{
	pthread_mutex_lock(t->lock);
	for (unsigned int i = 0; i < t->vdev->n_queues; i++) {
		struct transport_queue *q = &t->queues[i];

		while (!queue_still(q)) {
			if (!loop_is_mine(loop_of(q))) {
				pthread_cond_wait(&t->still, t->lock);
				continue;
			}
			pthread_mutex_unlock(t->lock);
			loop_iterate(loop_of(q), true);
			pthread_mutex_lock(t->lock);
		}
	}
	pthread_mutex_unlock(t->lock);
}

void transport_quiesce(struct virtio_transport *t, unsigned int phase)
{
	pthread_mutex_lock(t->lock);
	t->paused = true;
	transport_update(t);
	pthread_mutex_unlock(t->lock);
	if (phase > 0)
		wait_still(t);
}

void transport_resume(struct virtio_transport *t)
{
	pthread_mutex_lock(t->lock);
	t->paused = false;
	transport_update(t);
	pthread_mutex_unlock(t->lock);
}

void transport_reset(struct virtio_transport *t)
{
	pthread_mutex_lock(t->lock);
	transport_reset_begin(t);
	pthread_mutex_unlock(t->lock);
	wait_still(t);
}

int transport_init(struct virtio_transport *t, const struct virtio_transport_ops *ops,
		   struct virtio_device *vdev, pthread_mutex_t *lock, struct dma_space *dma,
		   uint64_t offered, struct err *err)
{
	int r = -ENOMEM;

	t->ops = ops;
	t->vdev = vdev;
	t->lock = lock;
	t->offered = vdev->features_offered | (offered & ~vdev->features_withheld);
	pthread_cond_init(&t->still, NULL);
	t->queues = calloc(vdev->n_queues, sizeof(*t->queues));
	if (!t->queues) {
		err_set(err, r, "no memory for %u queues", vdev->n_queues);
		goto fail;
	}
	for (unsigned int i = 0; i < vdev->n_queues; i++)
		t->queues[i].kick_fd = t->queues[i].call_fd = -1;
	for (unsigned int i = 0; i < vdev->n_queues; i++) {
		struct transport_queue *q = &t->queues[i];
		struct virtq_config config = {
			.index = i,
			.dma = dma,
			.ops = &vq_ops,
			.opaque = t,
		};

		q->t = t;
		q->index = i;
		q->work.done = queue_work;
		q->kick.done = kick_done;
		q->call.done = call_done;
		queue_forget(q);
		q->kick_fd = fd_eventfd();
		if (q->kick_fd < 0) {
			r = err_set(err, q->kick_fd, "eventfd for queue %u: %s", i,
				    err_name(q->kick_fd));
			goto fail;
		}
		r = virtq_create(&vdev->queues[i].vq, &config, err);
		if (r)
			goto fail;
	}
	vdev->transport = t;
	return 0;
fail:
	transport_done(t);
	return r;
}

void transport_done(struct virtio_transport *t)
{
	if (!t->ops)
		return;
	for (unsigned int i = 0; t->queues && i < t->vdev->n_queues; i++) {
		struct transport_queue *q = &t->queues[i];

		assert(queue_still(q));
		virtq_destroy(t->vdev->queues[i].vq);
		t->vdev->queues[i].vq = NULL;
		fd_close(&q->kick_fd);
		fd_close(&q->call_fd);
	}
	free(t->queues);
	t->queues = NULL;
	pthread_cond_destroy(&t->still);
	t->vdev->transport = NULL;
	t->ops = NULL;
}
