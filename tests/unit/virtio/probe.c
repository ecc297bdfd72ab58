// SPDX-License-Identifier: Apache-2.0
#include "probe.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct probe *probe_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct probe, vdev);
}

static int probe_features_ok(struct virtio_device *vdev, uint64_t features)
{
	(void)features;
	return probe_of(vdev)->refuse ? -EINVAL : 0;
}

static void probe_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
			      unsigned int len)
{
	cr_assert(offset + len <= CONFIG_BYTES);
	memcpy(buf, probe_of(vdev)->config + offset, len);
}

static void probe_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
			       unsigned int len)
{
	cr_assert(offset + len <= CONFIG_BYTES);
	memcpy(probe_of(vdev)->config + offset, buf, len);
}

static void probe_start(struct virtio_device *vdev, unsigned int index)
{
	struct probe *p = probe_of(vdev);
	struct probe_queue *q = &p->q[index];

	cr_assert(!q->running && virtq_started(vdev->queues[index].vq));
	q->running = true;
	q->starts++;
	if (p->hand_over)
		cr_assert_eq(virtio_queue_hand_over(vdev, index, &p->fds), 0);
}

static int probe_call(struct virtio_device *vdev, unsigned int index, int call_fd)
{
	struct probe *p = probe_of(vdev);

	cr_assert(p->hand_over && p->q[index].running);
	p->fds.call_fd = call_fd;
	return 0;
}

void spin(unsigned int n)
{
	while (n--)
		atomic_signal_fence(memory_order_seq_cst);
}

static void answer(struct probe_queue *q, struct virtq_chain *c)
{
	uint64_t n = c->out_bytes;

	if (q->p->work)
		spin(40000);
	virtq_push(q->p->vdev.queues[q->index].vq, c,
		   (uint32_t)iov_from_buf(c->in, c->n_in, 0, &n, sizeof(n)));
}

static void probe_kick(struct virtio_device *vdev, unsigned int index)
{
	struct probe_queue *q = &probe_of(vdev)->q[index];
	struct virtq *vq = vdev->queues[index].vq;

	cr_assert(q->running);
	q->kicks++;
	do {
		virtq_kick_disable(vq);
		while (q->held < SIZE && virtq_pop(vq, &q->chain[q->held]) > 0) {
			if (q->p->hold)
				q->held++;
			else
				answer(q, &q->chain[q->held]);
		}
		if (q->p->meanwhile)
			q->p->meanwhile(q->p->opaque);
	} while (virtq_kick_enable(vq) && q->held < SIZE);
	if (q->p->meanwhile)
		q->p->meanwhile(q->p->opaque);
	virtq_flush(vq);
}

static void finish_stop(struct probe_queue *q)
{
	struct virtq *vq = q->p->vdev.queues[q->index].vq;

	while (q->held) {
		if (q->abandoned)
			virtq_drop(vq, &q->chain[--q->held]);
		else
			answer(q, &q->chain[--q->held]);
	}
	if (!q->abandoned)
		virtq_flush(vq);
	q->stopping = false;
	virtio_queue_stopped(&q->p->vdev, q->index);
}

static void probe_stop(struct virtio_device *vdev, unsigned int index, bool abandon)
{
	struct probe *p = probe_of(vdev);
	struct probe_queue *q = &p->q[index];

	cr_assert(q->running);
	q->running = false;
	q->stops++;
	q->abandoned = abandon;
	q->stopping = true;
	if (p->hand_over)
		virtio_queue_take_back(vdev, index, 7);
	if (!p->hold_stop)
		finish_stop(q);
}

static void release_done(struct loop_op *op, int result)
{
	struct probe_queue *q = container_of(op, struct probe_queue, release);

	(void)result;
	if (q->stopping)
		finish_stop(q);
}

void probe_release(struct probe *p)
{
	p->hold = false;
	p->hold_stop = false;
	for (unsigned int i = 0; i < QUEUES; i++)
		loop_post(p->vdev.queues[i].loop, &p->q[i].release);
}

static void probe_reset(struct virtio_device *vdev)
{
	struct probe *p = probe_of(vdev);

	for (unsigned int i = 0; i < QUEUES; i++)
		cr_assert(!p->q[i].running && !p->q[i].stopping);
	p->resets++;
}

static void probe_destroy(struct virtio_device *vdev)
{
	free(probe_of(vdev));
}

static const struct virtio_device_ops probe_ops = {
	.id = 42,
	.type = "probe",
	.features_ok = probe_features_ok,
	.config_read = probe_config_read,
	.config_write = probe_config_write,
	.queue_start = probe_start,
	.queue_kick = probe_kick,
	.queue_stop = probe_stop,
	.queue_call = probe_call,
	.reset = probe_reset,
	.destroy = probe_destroy,
};

static struct probe *probe_create(struct guest *g, unsigned int loops)
{
	struct probe *p = calloc(1, sizeof(*p));

	p->vdev.ops = &probe_ops;
	p->vdev.log = guest_log(g);
	strcpy(p->vdev.name, "probe0");
	p->vdev.features_offered = 1ull << PROBE_FEATURE | 1ull << PROBE_HIGH_FEATURE;
	p->vdev.config_bytes = CONFIG_BYTES;
	p->vdev.n_queues = QUEUES;
	for (unsigned int i = 0; i < QUEUES; i++) {
		struct probe_queue *q = &p->q[i];

		p->vdev.queues[i].loop = guest_loop(g, i % loops);
		p->vdev.queues[i].max_size = SIZE;
		q->p = p;
		q->index = i;
		q->release.done = release_done;
		for (unsigned int k = 0; k < SIZE; k++) {
			q->chain[k].iov = q->iov[k];
			q->chain[k].max_iov = ARRAY_SIZE(q->iov[k]);
		}
	}
	return p;
}

struct rig rig_create(const struct guest_config *config)
{
	struct rig r;

	r.g = guest_create(config);
	r.p = probe_create(r.g, config && config->loops ? config->loops : 1);
	r.d = drv_create(r.g, &r.p->vdev);
	r.data = guest_alloc(r.g, 65536, 4096);
	return r;
}

void rig_destroy(struct rig *r)
{
	drv_destroy(r->d);
	guest_destroy(r->g);
}

void turns(struct rig *r)
{
	for (unsigned int i = 0; i < 8; i++)
		guest_turn(r->g);
}

void offer(struct rig *r, unsigned int queue)
{
	/* Queues of different loops write at the same time. */
	struct drv_sg out = {r->data, 100}, in = {r->data + 4096 + 8ull * queue, 8};

	drv_add(r->d, queue, &out, 1, &in, 1);
}

void request(struct rig *r, unsigned int queue)
{
	uint32_t len;

	offer(r, queue);
	drv_kick(r->d, queue);
	cr_assert(drv_wait(r->d, queue, NULL, &len));
	cr_assert_eq(len, 8);
	cr_assert_eq(*(uint64_t *)guest_ptr(r->g, r->data + 4096 + 8ull * queue, 8), 100);
}
