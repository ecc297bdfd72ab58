// SPDX-License-Identifier: Apache-2.0
// virtio-iommu: who serves the request queue (see iommu.h), faults, the configuration.
#include "virtio/iommu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_ring.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "virtio/iommu_impl.h"

enum {
	IOMMU_ID = 23,
	REQUEST_QUEUE_SIZE = 512, /* a request takes two descriptors */
	EVENT_QUEUE_SIZE = 64,
	BATCHES_A_TURN = 16,
	/* Polled at a stretch; then the loop looks at what else there is for it. */
	POLL_SLICE_NS = 50000,

	CONFIG_BYPASS = offsetof(struct virtio_iommu_config, bypass),
};

static struct iommu_dev *of_vdev(struct virtio_device *vdev)
{
	return container_of(vdev, struct iommu_dev, vdev);
}

/* --- who serves requests: all of this under `serving` --- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Until there are none, or the share of one turn is used up: then true. */
static bool serve(struct iommu_dev *dev)
{
	struct virtq *vq = dev->vdev.queues[IOMMU_REQUEST_QUEUE].vq;
	unsigned int budget = BATCHES_A_TURN;

	do {
		virtq_kick_disable(vq);
		while (budget && iommu_serve_batch(dev))
			budget--;
	} while (budget && virtq_kick_enable(vq));
	virtq_flush(vq);
	return !budget;
}

/* One slice. False: nothing came for the time that it may go on without, and the driver kicks again. */
static bool serve_polling(struct iommu_dev *dev)
{
	struct virtq *vq = dev->vdev.queues[IOMMU_REQUEST_QUEUE].vq;
	uint64_t now = now_ns(), slice_end_ns = now + POLL_SLICE_NS;

	virtq_kick_disable(vq);
	for (; now < slice_end_ns; now = now_ns()) {
		if (iommu_serve_batch(dev)) {
			virtq_flush(vq);
			dev->poll_end_ns = now_ns() + dev->poll_ns;
		} else if (now >= dev->poll_end_ns) {
			return virtq_kick_enable(vq);
		}
	}
	return true;
}

static void turn(struct iommu_dev *dev)
{
	bool more = dev->transport == VIRTIO_IOMMU_POLL ? serve_polling(dev) : serve(dev);

	if (!more || dev->posted)
		return;
	dev->posted = true;
	loop_post(dev->vdev.queues[IOMMU_REQUEST_QUEUE].loop, &dev->again);
}

static void again(struct loop_op *op, int result)
{
	struct iommu_dev *dev = container_of(op, struct iommu_dev, again);
	bool stopped;

	(void)result;
	pthread_mutex_lock(&dev->serving);
	dev->posted = false;
	stopped = dev->stopping;
	dev->stopping = false;
	if (dev->running)
		turn(dev);
	pthread_mutex_unlock(&dev->serving);
	if (stopped)
		virtio_queue_stopped(&dev->vdev, IOMMU_REQUEST_QUEUE);
}

/* Kicked in the loop, or by the write itself in a vCPU's exit. */
static void kicked(struct iommu_dev *dev)
{
	pthread_mutex_lock(&dev->serving);
	if (dev->running) {
		if (dev->transport == VIRTIO_IOMMU_POLL)
			dev->poll_end_ns = now_ns() + dev->poll_ns;
		turn(dev);
	}
	pthread_mutex_unlock(&dev->serving);
}

/* --- faults --- */

static void fault(void *opaque, const struct viommu_fault *fault)
{
	struct iommu_dev *dev = opaque;
	bool post = false;

	pthread_mutex_lock(&dev->lock);
	if (dev->events_running && dev->n_faults < IOMMU_FAULTS) {
		dev->faults[(dev->first_fault + dev->n_faults++) % IOMMU_FAULTS] = *fault;
		post = !dev->events_posted;
		dev->events_posted = true;
		/* Inside, so that a queue that stops finds it posted. */
		if (post)
			loop_post(dev->vdev.queues[IOMMU_EVENT_QUEUE].loop, &dev->events);
	}
	pthread_mutex_unlock(&dev->lock);
}

static bool next_fault(struct iommu_dev *dev, struct viommu_fault *ret)
{
	bool any;

	pthread_mutex_lock(&dev->lock);
	any = dev->n_faults;
	if (any) {
		*ret = dev->faults[dev->first_fault];
		dev->first_fault = (dev->first_fault + 1) % IOMMU_FAULTS;
		dev->n_faults--;
	}
	pthread_mutex_unlock(&dev->lock);
	return any;
}

static bool faults_wait(struct iommu_dev *dev)
{
	bool any;

	pthread_mutex_lock(&dev->lock);
	any = dev->n_faults;
	pthread_mutex_unlock(&dev->lock);
	return any;
}

static void report(struct iommu_dev *dev)
{
	struct virtq *vq = dev->vdev.queues[IOMMU_EVENT_QUEUE].vq;
	struct virtio_iommu_fault out;
	struct viommu_fault f;
	uint32_t written;

	while (faults_wait(dev) && virtq_pop(vq, &dev->event) > 0) {
		if (!next_fault(dev, &f)) {
			virtq_unpop(vq, &dev->event);
			break;
		}
		out = (struct virtio_iommu_fault){
			.reason = (uint8_t)f.reason,
			.flags = htole32(
				(f.write ? VIRTIO_IOMMU_FAULT_F_WRITE : VIRTIO_IOMMU_FAULT_F_READ) |
				(f.has_address ? VIRTIO_IOMMU_FAULT_F_ADDRESS : 0)),
			.endpoint = htole32(f.endpoint),
			.address = htole64(f.address),
		};
		written = 0;
		if (dev->event.in_bytes >= sizeof(out))
			written = (uint32_t)iov_from_buf(dev->event.in, dev->event.n_in, 0, &out,
							 sizeof(out));
		virtq_push(vq, &dev->event, written);
	}
	virtq_flush(vq);
}

static void events(struct loop_op *op, int result)
{
	struct iommu_dev *dev = container_of(op, struct iommu_dev, events);
	bool running;

	(void)result;
	pthread_mutex_lock(&dev->lock);
	dev->events_posted = false;
	running = dev->events_running;
	pthread_mutex_unlock(&dev->lock);
	if (dev->events_stopping) {
		dev->events_stopping = false;
		virtio_queue_stopped(&dev->vdev, IOMMU_EVENT_QUEUE);
	} else if (running) {
		report(dev);
	}
}

/* --- the device --- */

static void dev_queue_start(struct virtio_device *vdev, unsigned int index)
{
	struct iommu_dev *dev = of_vdev(vdev);

	if (index == IOMMU_REQUEST_QUEUE) {
		pthread_mutex_lock(&dev->serving);
		dev->running = true;
		pthread_mutex_unlock(&dev->serving);
		return;
	}
	pthread_mutex_lock(&dev->lock);
	dev->events_running = true;
	pthread_mutex_unlock(&dev->lock);
}

static void dev_queue_kick(struct virtio_device *vdev, unsigned int index)
{
	if (index == IOMMU_REQUEST_QUEUE)
		kicked(of_vdev(vdev));
	else
		report(of_vdev(vdev));
}

static void dev_queue_notify(struct virtio_device *vdev, unsigned int index)
{
	(void)index; /* the request queue alone is served so */
	kicked(of_vdev(vdev));
}

static void dev_queue_stop(struct virtio_device *vdev, unsigned int index, bool abandon)
{
	struct iommu_dev *dev = of_vdev(vdev);
	bool wait;

	if (index == IOMMU_REQUEST_QUEUE) {
		pthread_mutex_lock(&dev->serving);
		dev->running = false;
		wait = dev->stopping = dev->posted;
		pthread_mutex_unlock(&dev->serving);
	} else {
		pthread_mutex_lock(&dev->lock);
		dev->events_running = false;
		if (abandon)
			dev->n_faults = 0;
		wait = dev->events_stopping = dev->events_posted;
		pthread_mutex_unlock(&dev->lock);
	}
	if (!wait)
		virtio_queue_stopped(vdev, index);
}

static void dev_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
			    unsigned int len)
{
	struct iommu_dev *dev = of_vdev(vdev);
	struct virtio_iommu_config config = {0};
	struct viommu_limits limits;

	viommu_limits(dev->viommu, &limits);
	config.page_size_mask = htole64(limits.page_sizes);
	config.input_range.start = htole64(limits.first);
	config.input_range.end = htole64(limits.last);
	config.domain_range.start = htole32(limits.domain_first);
	config.domain_range.end = htole32(limits.domain_last);
	config.probe_size = htole32(IOMMU_PROBE_BYTES);
	config.bypass = viommu_bypass(dev->viommu);
	memset(buf, 0, len);
	if (offset < sizeof(config))
		memcpy(buf, (const char *)&config + offset, MIN(len, sizeof(config) - offset));
}

static void dev_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
			     unsigned int len)
{
	struct iommu_dev *dev = of_vdev(vdev);
	uint8_t value;

	if (offset > CONFIG_BYPASS || CONFIG_BYPASS - offset >= len ||
	    !virtio_has(vdev, VIRTIO_IOMMU_F_BYPASS_CONFIG))
		return;
	value = ((const uint8_t *)buf)[CONFIG_BYPASS - offset];
	/* Other values are not allowed (5.13.4), so nothing is done. */
	if (value <= 1 && value != viommu_bypass(dev->viommu))
		viommu_set_bypass(dev->viommu, value);
}

/* A driver takes over: from here on the endpoints are where a reset puts them (5.13.5). */
static int dev_features_ok(struct virtio_device *vdev, uint64_t features)
{
	(void)features;
	viommu_settle(of_vdev(vdev)->viommu);
	return 0;
}

static void dev_reset(struct virtio_device *vdev)
{
	viommu_abandon(of_vdev(vdev)->viommu);
}

static void dev_destroy(struct virtio_device *vdev)
{
	struct iommu_dev *dev;

	if (!vdev)
		return;
	dev = of_vdev(vdev);
	viommu_set_fault(dev->viommu, NULL, NULL);
	viommu_reset(dev->viommu);
	pthread_mutex_destroy(&dev->lock);
	pthread_mutex_destroy(&dev->serving);
	free(dev);
}

static const struct virtio_device_ops dev_ops = {
	.id = IOMMU_ID,
	.type = "virtio-iommu",
	.features_ok = dev_features_ok,
	.config_read = dev_config_read,
	.config_write = dev_config_write,
	.queue_start = dev_queue_start,
	.queue_kick = dev_queue_kick,
	.queue_notify = dev_queue_notify,
	.queue_stop = dev_queue_stop,
	.reset = dev_reset,
	.destroy = dev_destroy,
};

int virtio_iommu_create(struct virtio_device **ret, const struct virtio_iommu_setup *config,
			const struct log *log, struct err *err)
{
	struct iommu_dev *dev;

	if (!mem_new(dev))
		return err_set(err, -ENOMEM, "%s: no memory", config->name);
	dev->vdev.ops = &dev_ops;
	dev->vdev.log = log;
	snprintf(dev->vdev.name, sizeof(dev->vdev.name), "%s", config->name);
	dev->vdev.features_offered =
		1ull << VIRTIO_IOMMU_F_INPUT_RANGE | 1ull << VIRTIO_IOMMU_F_DOMAIN_RANGE |
		1ull << VIRTIO_IOMMU_F_MAP_UNMAP | 1ull << VIRTIO_IOMMU_F_PROBE |
		1ull << VIRTIO_IOMMU_F_MMIO | 1ull << VIRTIO_IOMMU_F_BYPASS_CONFIG;
	/* With it Linux allocates a table for each request's two descriptors, and that for nothing. */
	dev->vdev.features_withheld = 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	dev->vdev.config_bytes = sizeof(struct virtio_iommu_config);
	dev->vdev.n_queues = 2;
	dev->vdev.queues[IOMMU_REQUEST_QUEUE] = (struct virtio_queue){
		.loop = config->loop,
		.max_size = REQUEST_QUEUE_SIZE,
		.serve_in_vcpu = config->transport == VIRTIO_IOMMU_EXIT,
	};
	dev->vdev.queues[IOMMU_EVENT_QUEUE] = (struct virtio_queue){
		.loop = config->loop,
		.max_size = EVENT_QUEUE_SIZE,
	};
	dev->viommu = config->viommu;
	dev->transport = config->transport;
	dev->poll_ns = config->poll_ns;
	dev->again.done = again;
	dev->events.done = events;
	dev->event.iov = dev->event_pieces;
	dev->event.max_iov = IOMMU_PIECES;
	pthread_mutex_init(&dev->serving, NULL);
	pthread_mutex_init(&dev->lock, NULL);
	viommu_set_fault(dev->viommu, fault, dev);
	*ret = &dev->vdev;
	return 0;
}
