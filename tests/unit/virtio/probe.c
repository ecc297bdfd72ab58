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

static int probe_start(struct virtio_queue *base)
{
	struct probe_queue *q = base->opaque;

	cr_assert(!q->running && virtio_queue_running(base));
	q->running = true;
	q->starts++;
	if (q->p->hand_over)
		cr_assert_eq(virtio_queue_hand_over(base, &q->p->fds), 0);
	return 0;
}

static int probe_call(struct virtio_queue *base, int call_fd)
{
	struct probe_queue *q = base->opaque;

	cr_assert(q->p->hand_over && q->running);
	q->p->fds.call_fd = call_fd;
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

static bool probe_serve(struct virtio_queue *base)
{
	struct probe_queue *q = base->opaque;
	struct virtq *vq = base->vq;

	cr_assert(q->running);
	q->kicks++;
	do {
		virtq_kick_disable(vq);
		while (q->held < SIZE && virtq_pop(vq, &q->chain[q->held]) > 0) {
			if (q->p->hold) {
				q->held++;
				virtio_queue_hold(base);
			} else {
				answer(q, &q->chain[q->held]);
			}
		}
		if (q->p->meanwhile)
			q->p->meanwhile(q->p->opaque);
	} while (virtq_kick_enable(vq) && q->held < SIZE);
	if (q->p->meanwhile)
		q->p->meanwhile(q->p->opaque);
	return false;
}

static void finish_stop(struct probe_queue *q)
{
	struct virtio_queue *base = &q->p->vdev.queues[q->index];

	for (; q->held; virtio_queue_release(base))
		answer(q, &q->chain[--q->held]);
	if (q->ending)
		virtio_queue_release(base);
	q->ending = false;
}

static void probe_cancel(struct virtio_queue *base)
{
	struct probe_queue *q = base->opaque;

	/* It may have broken before its start. */
	if (!q->running)
		return;
	q->running = false;
	q->stops++;
	q->abandoned = virtq_state(base->vq) == VIRTQ_ABANDONING;
	q->ending = true;
	virtio_queue_hold(base);
	if (q->p->hand_over)
		virtio_queue_take_back(base, 7);
	if (!q->p->hold_stop)
		finish_stop(q);
}

static const struct virtio_queue_ops probe_queue_ops = {
	.start = probe_start,
	.serve = probe_serve,
	.cancel = probe_cancel,
	.set_call = probe_call,
};

static void release_done(struct loop_op *op, int result)
{
	struct probe_queue *q = container_of(op, struct probe_queue, release);

	(void)result;
	if (q->ending)
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
		cr_assert(!p->q[i].running && !p->q[i].ending);
	p->resets++;
}

static void probe_destroy(struct virtio_device *vdev)
{
	virtio_device_done(vdev);
	free(probe_of(vdev));
}

static const struct virtio_device_ops probe_ops = {
	.id = 42,
	.type = "probe",
	.features_ok = probe_features_ok,
	.config_read = probe_config_read,
	.config_write = probe_config_write,
	.reset = probe_reset,
	.destroy = probe_destroy,
};

static struct probe *probe_create(struct guest *g, unsigned int loops)
{
	struct probe *p = calloc(1, sizeof(*p));

	cr_assert_eq(virtio_device_init(&p->vdev, &probe_ops, "probe0", guest_log(g), QUEUES, NULL),
		     0);
	p->vdev.features_offered = 1ull << PROBE_FEATURE | 1ull << PROBE_HIGH_FEATURE;
	p->vdev.config_bytes = CONFIG_BYTES;
	for (unsigned int i = 0; i < QUEUES; i++) {
		struct probe_queue *q = &p->q[i];

		p->vdev.queues[i].loop = guest_loop(g, i % loops);
		p->vdev.queues[i].max_size = SIZE;
		p->vdev.queues[i].ops = &probe_queue_ops;
		p->vdev.queues[i].opaque = q;
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
