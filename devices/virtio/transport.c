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

static struct virtio_transport *transport_of(const struct virtio_queue *q)
{
	return q->vdev->transport;
}

static struct transport_queue *registers_of(const struct virtio_queue *q)
{
	return &transport_of(q)->queues[q->index];
}

void transport_update(struct virtio_transport *t)
{
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		virtio_queue_update(&t->vdev->queues[i]);
}

void transport_interrupts_changed(struct virtio_transport *t)
{
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		virtio_queue_interrupt_changed(&t->vdev->queues[i]);
}

static bool queue_off(const struct virtio_transport *t, unsigned int index)
{
	return virtq_state(t->vdev->queues[index].vq) == VIRTQ_OFF;
}

/* Registers of one queue as after power-on. */
static void queue_forget(struct virtio_transport *t, unsigned int index)
{
	t->queues[index] = (struct transport_queue){.size = t->vdev->queues[index].max_size};
}

/* The last step of a reset, when every queue is off. */
static void reset_complete(struct virtio_transport *t)
{
	for (unsigned int i = 0; i < t->vdev->n_queues; i++) {
		if (!queue_off(t, i))
			return;
	}
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		queue_forget(t, i);
	t->status = 0;
	t->accepted = 0;
	t->vdev->features = 0;
	t->resetting = false;
	atomic_store(&t->owner.broken, false);
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

/* What the queue server asks. */

static bool queue_wanted(const struct virtio_queue *q)
{
	struct virtio_transport *t = transport_of(q);
	const struct transport_queue *r = registers_of(q);

	return r->enable && !r->resetting && (t->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
	       !t->paused && !t->resetting && t->ops->dma_allowed(t);
}

static bool queue_resetting(const struct virtio_queue *q)
{
	return transport_of(q)->resetting || registers_of(q)->resetting;
}

static void queue_layout(const struct virtio_queue *q, struct virtq_layout *layout,
			 uint16_t *next_avail)
{
	const struct transport_queue *r = registers_of(q);

	*layout = (struct virtq_layout){
		.size = r->size,
		.desc_iova = r->desc,
		.avail_iova = r->driver,
		.used_iova = r->device,
		.event_idx = virtio_has(q->vdev, VIRTIO_RING_F_EVENT_IDX),
		.indirect = virtio_has(q->vdev, VIRTIO_RING_F_INDIRECT_DESC),
	};
	*next_avail = r->next_avail;
}

static int queue_interrupt_fd(const struct virtio_queue *q)
{
	struct virtio_transport *t = transport_of(q);

	return t->ops->queue_interrupt_fd(t, q->index);
}

static void queue_stopped(struct virtio_queue *q, uint16_t next_avail)
{
	struct virtio_transport *t = transport_of(q);

	registers_of(q)->next_avail = next_avail;
	if (registers_of(q)->resetting)
		queue_forget(t, q->index);
	if (t->resetting)
		reset_complete(t);
}

static uint32_t queue_requester(const struct virtio_queue *q)
{
	struct virtio_transport *t = transport_of(q);

	return t->ops->requester(t);
}

static void queue_interrupt(struct virtio_queue *q)
{
	struct virtio_transport *t = transport_of(q);

	t->ops->queue_interrupt(t, q->index);
}

static void queue_broken(struct virtio_queue *q, const char *text)
{
	char line[240];

	snprintf(line, sizeof(line), "queue %u: %s", q->index, text);
	virtio_device_broken(q->vdev, line);
}

static const struct virtio_queue_owner_ops owner_ops = {
	.wanted = queue_wanted,
	.resetting = queue_resetting,
	.layout = queue_layout,
	.interrupt_fd = queue_interrupt_fd,
	.stopped = queue_stopped,
	.requester = queue_requester,
	.interrupt = queue_interrupt,
	.broken = queue_broken,
};

/* What a device calls. */

int virtio_device_init(struct virtio_device *vdev, const struct virtio_device_ops *ops,
		       const char *name, const struct log *log, unsigned int n_queues,
		       struct err *err)
{
	vdev->ops = ops;
	vdev->log = log;
	snprintf(vdev->name, sizeof(vdev->name), "%s", name);
	vdev->queues = calloc(n_queues, sizeof(*vdev->queues));
	if (!vdev->queues)
		return err_set(err, -ENOMEM, "%s: no memory for %u queues", name, n_queues);
	vdev->n_queues = n_queues;
	for (unsigned int i = 0; i < n_queues; i++) {
		vdev->queues[i].vdev = vdev;
		vdev->queues[i].index = i;
		vdev->queues[i].rate = &vdev->rates[0];
	}
	return 0;
}

void virtio_device_done(struct virtio_device *vdev)
{
	free(vdev->queues);
	vdev->queues = NULL;
}

void virtio_device_set_rate(struct virtio_device *vdev, uint64_t bytes_per_s, uint64_t ops_per_s)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(vdev->rates); i++)
		virtio_rate_set(&vdev->rates[i], bytes_per_s, ops_per_s);
	if (!vdev->transport)
		return;
	/* Those that rest look again. */
	pthread_mutex_lock(vdev->transport->owner.lock);
	for (unsigned int i = 0; i < vdev->n_queues; i++)
		virtio_queue_post(&vdev->queues[i]);
	pthread_mutex_unlock(vdev->transport->owner.lock);
}

void virtio_config_begin(struct virtio_device *vdev)
{
	/* Before it is attached nobody reads. */
	if (vdev->transport)
		pthread_mutex_lock(vdev->transport->owner.lock);
}

void virtio_config_end(struct virtio_device *vdev, bool notify)
{
	struct virtio_transport *t = vdev->transport;

	if (!t)
		return;
	t->generation++;
	if (notify && t->status & VIRTIO_CONFIG_S_DRIVER_OK && !t->resetting)
		t->ops->config_interrupt(t);
	pthread_mutex_unlock(t->owner.lock);
}

void virtio_device_broken(struct virtio_device *vdev, const char *text)
{
	struct virtio_transport *t = vdev->transport;

	log_guest(vdev->log, &vdev->limit, vdev->name, "%s: needs a reset by its driver", text);
	if (!t)
		return;
	pthread_mutex_lock(t->owner.lock);
	if (!t->resetting && !(t->status & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		atomic_store(&t->owner.broken, true);
		t->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
		/* virtio 1.3, 2.1.2 */
		if (t->status & VIRTIO_CONFIG_S_DRIVER_OK)
			t->ops->config_interrupt(t);
	}
	pthread_mutex_unlock(t->owner.lock);
}

/* Registers. */

uint8_t transport_status(const struct virtio_transport *t)
{
	/* While a reset goes on, whatever was there, but not 0: a reset of a device that no driver
	 * had touched is over at once. */
	return t->status;
}

bool transport_features_acceptable(const struct virtio_transport *t)
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
	uint8_t set =
		value & (uint8_t)~t->status &
		(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |
		 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED);

	if (t->resetting)
		return;
	if (!value) {
		transport_reset_begin(t);
		return;
	}
	/* Bits are only ever added (2.1.1); those that may not be yet stay clear. */
	if (set & VIRTIO_CONFIG_S_FEATURES_OK) {
		if (t->status & VIRTIO_CONFIG_S_DRIVER_OK || !transport_features_acceptable(t) ||
		    (t->vdev->ops->features_set &&
		     t->vdev->ops->features_set(t->vdev, t->accepted)))
			set &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
		else
			t->vdev->features = t->accepted;
	}
	if (set & VIRTIO_CONFIG_S_DRIVER_OK && !((t->status | set) & VIRTIO_CONFIG_S_FEATURES_OK))
		set &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
	t->status |= set;
	if (set & VIRTIO_CONFIG_S_DRIVER_OK)
		transport_update(t);
}

void transport_write_features(struct virtio_transport *t, unsigned int word, uint32_t value)
{
	unsigned int shift = 32 * word;

	/* 2.2.1: not after FEATURES_OK. Bits above the 64 known ones can only be refused. */
	if (t->resetting || t->status & VIRTIO_CONFIG_S_FEATURES_OK || word > 1)
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
	virtio_queue_update(&t->vdev->queues[index]);
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
	if (queue_off(t, index))
		queue_forget(t, index);
	else
		virtio_queue_update(&t->vdev->queues[index]);
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

/* Wait until every queue is off and nothing is posted. A loop that is ours to run is run. */
static void wait_still(struct virtio_transport *t)
{
	pthread_mutex_lock(t->owner.lock);
	for (unsigned int i = 0; i < t->vdev->n_queues; i++) {
		const struct virtio_queue *q = &t->vdev->queues[i];

		while (!virtio_queue_still(q)) {
			if (!loop_is_mine(q->loop)) {
				pthread_cond_wait(&t->owner.still, t->owner.lock);
				continue;
			}
			pthread_mutex_unlock(t->owner.lock);
			loop_iterate(q->loop, true);
			pthread_mutex_lock(t->owner.lock);
		}
	}
	pthread_mutex_unlock(t->owner.lock);
}

void transport_quiesce(struct virtio_transport *t, unsigned int phase)
{
	pthread_mutex_lock(t->owner.lock);
	t->paused = true;
	transport_update(t);
	pthread_mutex_unlock(t->owner.lock);
	if (phase > 0)
		wait_still(t);
}

void transport_resume(struct virtio_transport *t)
{
	pthread_mutex_lock(t->owner.lock);
	t->paused = false;
	transport_update(t);
	pthread_mutex_unlock(t->owner.lock);
}

void transport_reset(struct virtio_transport *t)
{
	pthread_mutex_lock(t->owner.lock);
	transport_reset_begin(t);
	pthread_mutex_unlock(t->owner.lock);
	wait_still(t);
}

int transport_init(struct virtio_transport *t, const struct virtio_transport_ops *ops,
		   struct virtio_device *vdev, pthread_mutex_t *lock, struct dma_space *dma,
		   uint64_t offered, struct err *err)
{
	int r = 0;

	t->ops = ops;
	t->vdev = vdev;
	t->offered = vdev->features_offered | (offered & ~vdev->features_withheld);
	t->owner.ops = &owner_ops;
	t->owner.lock = lock;
	pthread_cond_init(&t->owner.still, NULL);
	t->queues = calloc(vdev->n_queues, sizeof(*t->queues));
	if (!t->queues)
		r = err_set(err, -ENOMEM, "no memory for %u queues", vdev->n_queues);
	for (unsigned int i = 0; i < vdev->n_queues && !r; i++) {
		queue_forget(t, i);
		r = virtio_queue_init(&vdev->queues[i], &t->owner, dma, err);
	}
	if (r) {
		transport_done(t);
		return r;
	}
	vdev->transport = t;
	return 0;
}

void transport_done(struct virtio_transport *t)
{
	if (!t->ops)
		return;
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		virtio_queue_done(&t->vdev->queues[i]);
	free(t->queues);
	t->queues = NULL;
	pthread_cond_destroy(&t->owner.still);
	t->vdev->transport = NULL;
	t->ops = NULL;
}
