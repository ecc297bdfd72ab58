// SPDX-License-Identifier: Apache-2.0
// virtio-iommu: who serves the request queue (see iommu.h), faults, the configuration.
#include "virtio/iommu.h"

#include <errno.h>
#include <string.h>

#include <linux/virtio_ids.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_ring.h>

#include "base/clock.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/vcpu_gate.h"
#include "virtio/iommu_impl.h"

enum {
	REQUEST_QUEUE_SIZE = 512, /* a request takes two descriptors */
	EVENT_QUEUE_SIZE = 64,
	/* Polled at a stretch; then the loop looks at what else there is for it. */
	POLL_SLICE_NS = 50000,

	CONFIG_BYPASS = offsetof(struct virtio_iommu_config, bypass),
};

static struct iommu_dev *of_vdev(struct virtio_device *vdev)
{
	return container_of(vdev, struct iommu_dev, vdev);
}

/* --- requests: in the loop's thread, or in the exit of the vCPU whose notification it is --- */

/* Until there are none, or the time is over that a vCPU may be kept in its exit. */
static bool serve_requests(struct virtio_queue *q)
{
	struct iommu_dev *dev = of_vdev(q->vdev);
	uint64_t end_ns = clock_ns() + VIRTIO_SHARE_NS;
	int n;

	do {
		virtq_kick_disable(q->vq);
		while ((n = iommu_serve_batch(dev)))
			if (n < 0 || clock_ns() >= end_ns || vcpu_wanted_out())
				return true;
	} while (virtq_kick_enable(q->vq));
	return false;
}

/* One slice. False: nothing came for the time that it may go on without, and the driver kicks
 * again. */
static bool serve_polling(struct virtio_queue *q)
{
	struct iommu_dev *dev = of_vdev(q->vdev);
	uint64_t now = clock_ns(), slice_end_ns = now + POLL_SLICE_NS;

	virtq_kick_disable(q->vq);
	for (; now < slice_end_ns; now = clock_ns()) {
		if (iommu_serve_batch(dev)) {
			virtq_flush(q->vq);
			dev->poll_end_ns = clock_ns() + dev->poll_ns;
		} else if (now >= dev->poll_end_ns) {
			return virtq_kick_enable(q->vq);
		}
	}
	return true;
}

/* What the driver has written to the configuration: it may map all of memory. */
static void set_bypass(struct virtio_queue *q)
{
	struct iommu_dev *dev = of_vdev(q->vdev);
	int asked = atomic_exchange(&dev->bypass_asked, IOMMU_BYPASS_NOT_ASKED);

	if (asked != IOMMU_BYPASS_NOT_ASKED)
		viommu_set_bypass(dev->viommu, asked == IOMMU_BYPASS_ON);
}

static const struct virtio_queue_ops request_ops = {
	.serve = serve_requests,
	.work = set_bypass,
};

static const struct virtio_queue_ops polled_request_ops = {
	.serve = serve_polling,
	.work = set_bypass,
};

/* --- faults --- */

static void fault(void *opaque, const struct viommu_fault *fault)
{
	struct iommu_dev *dev = opaque;

	pthread_mutex_lock(&dev->lock);
	if (dev->events_running && dev->n_faults < IOMMU_FAULTS) {
		dev->faults[(dev->first_fault + dev->n_faults++) % IOMMU_FAULTS] = *fault;
		/* Inside, so that a queue that stops is not woken any more. */
		virtio_queue_wake(&dev->vdev.queues[IOMMU_EVENT_QUEUE]);
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

static bool report(struct virtio_queue *q)
{
	struct iommu_dev *dev = of_vdev(q->vdev);
	struct virtio_iommu_fault out;
	struct viommu_fault f;
	uint32_t written;

	while (faults_wait(dev) && virtq_pop(q->vq, &dev->event) > 0) {
		if (!next_fault(dev, &f)) {
			virtq_unpop(q->vq, &dev->event);
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
		virtq_push(q->vq, &dev->event, written);
	}
	return false;
}

static void events_run(struct virtio_queue *q, bool running)
{
	struct iommu_dev *dev = of_vdev(q->vdev);

	pthread_mutex_lock(&dev->lock);
	dev->events_running = running;
	if (virtq_state(q->vq) == VIRTQ_ABANDONING)
		dev->n_faults = 0;
	pthread_mutex_unlock(&dev->lock);
}

static int events_start(struct virtio_queue *q)
{
	events_run(q, true);
	return 0;
}

static void events_cancel(struct virtio_queue *q)
{
	events_run(q, false);
}

static const struct virtio_queue_ops event_ops = {
	.start = events_start,
	.serve = report,
	.cancel = events_cancel,
};

/* --- the device --- */

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
	/* Other values are not allowed (5.13.4), so nothing is done. It reads as it was until it
	 * holds. */
	if (value > 1)
		return;
	atomic_store(&dev->bypass_asked, value);
	virtio_queue_post(&vdev->queues[IOMMU_REQUEST_QUEUE]);
}

/* A driver takes over: from here on the endpoints are where a reset puts them (5.13.5). */
static int dev_features_set(struct virtio_device *vdev, uint64_t features)
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
	virtio_device_done(vdev);
	free(dev);
}

static const struct virtio_device_ops dev_ops = {
	.no_state = "the state of a virtual IOMMU, its domains and mappings, cannot be saved yet",
	.id = VIRTIO_ID_IOMMU,
	.type = "virtio-iommu",
	.features_set = dev_features_set,
	.config_read = dev_config_read,
	.config_write = dev_config_write,
	.reset = dev_reset,
	.destroy = dev_destroy,
};

int virtio_iommu_create(struct virtio_device **ret, const struct virtio_iommu_setup *setup,
			const struct log *log, struct err *err)
{
	struct virtio_queue *requests, *events;
	struct iommu_dev *dev;
	int r;

	if (!mem_new(dev))
		return err_set(err, -ENOMEM, "%s: no memory", setup->name);
	r = virtio_device_init(&dev->vdev, &dev_ops, setup->name, log, 2, err);
	if (r) {
		free(dev);
		return r;
	}
	dev->vdev.features_offered =
		1ull << VIRTIO_IOMMU_F_INPUT_RANGE | 1ull << VIRTIO_IOMMU_F_DOMAIN_RANGE |
		1ull << VIRTIO_IOMMU_F_MAP_UNMAP | 1ull << VIRTIO_IOMMU_F_PROBE |
		1ull << VIRTIO_IOMMU_F_MMIO | 1ull << VIRTIO_IOMMU_F_BYPASS_CONFIG;
	/* With it Linux allocates a table for each request's two descriptors, and that for
	 * nothing. */
	dev->vdev.features_withheld = 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	dev->vdev.config_bytes = sizeof(struct virtio_iommu_config);
	requests = &dev->vdev.queues[IOMMU_REQUEST_QUEUE];
	requests->ops = setup->transport == VIRTIO_IOMMU_POLL ? &polled_request_ops : &request_ops;
	requests->loop = setup->loop;
	requests->max_size = REQUEST_QUEUE_SIZE;
	requests->serve_in_vcpu = setup->transport == VIRTIO_IOMMU_EXIT;
	events = &dev->vdev.queues[IOMMU_EVENT_QUEUE];
	events->ops = &event_ops;
	events->loop = setup->loop;
	events->max_size = EVENT_QUEUE_SIZE;
	dev->viommu = setup->viommu;
	atomic_init(&dev->bypass_asked, IOMMU_BYPASS_NOT_ASKED);
	dev->poll_ns = setup->poll_ns;
	dev->event.iov = dev->event_segments;
	dev->event.max_iov = IOMMU_SEGMENTS;
	pthread_mutex_init(&dev->lock, NULL);
	viommu_set_fault(dev->viommu, fault, dev);
	*ret = &dev->vdev;
	return 0;
}
