/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-iommu (virtio 1.3, 5.13): the face that iommu/viommu.h has to a guest. Requests are taken
 * from their queue as many at a time as there are, and answered together; faults go to the event
 * queue, or are dropped when the guest gives no buffers for them.
 *
 * The guest's driver waits for each answer (Linux spins), so it matters by whom requests are served:
 *
 *     exit   in the exit that the driver's notification is, by the vCPU itself: no other thread is
 *            woken, none need have a CPU
 *     loop   in the loop's thread, by eventfd: what a notification costs the guest is least, the way to
 *            the answer is two switches of threads
 *     poll   in the loop's thread, which looks for requests by itself until none has come for a time:
 *            meanwhile the driver need not notify. For machines that have a CPU to spare
 *
 * Answers are the same. A request may wait for other queues to close what they have open, so its loop
 * must serve no other device, and neither may their loops be a thread that waits for vCPUs.
 */
#ifndef VIRTIO_IOMMU_H
#define VIRTIO_IOMMU_H

#include "virtio/virtio.h"

struct viommu;

enum virtio_iommu_transport {
	VIRTIO_IOMMU_EXIT,
	VIRTIO_IOMMU_LOOP,
	VIRTIO_IOMMU_POLL,
};

/* (virtio_iommu_config is the guest's, in the kernel's header.) */
struct virtio_iommu_setup {
	const char *name;
	struct viommu *viommu; /* stays the caller's, and outlives the device */
	struct loop *loop;
	enum virtio_iommu_transport transport;
	uint64_t poll_ns; /* POLL: how long it goes on without a request */
};

int virtio_iommu_create(struct virtio_device **ret, const struct virtio_iommu_setup *setup,
			const struct log *log, struct err *err);

#endif
