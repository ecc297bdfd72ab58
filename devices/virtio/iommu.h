/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-iommu (virtio 1.3, 5.13): the front end of iommu/viommu.h. All available requests are
 * taken from their queue together, and answered together; faults go to the event queue, or are
 * dropped if the guest provides no buffers for them.
 *
 * The guest's driver waits for each answer (Linux spins), so it matters who serves requests:
 *
 *     exit   the vCPU itself, in the exit that the driver's notification causes: no other thread is
 *            woken, and none needs a CPU. What takes long (large mappings, moves of endpoints) is
 *            the loop's all the same, since whoever pauses the machine waits for the vCPU
 *     loop   the loop's thread, by eventfd: the notification is cheapest for the guest; the answer
 *            takes two switches of threads
 *     poll   the loop's thread, which polls for requests until none has come for a time; until
 *            then the driver need not notify. For hosts with a spare CPU
 *
 * Answers are the same. The loop also carries out what the driver writes to the configuration's
 * `bypass`, which reads as it was until that holds.
 *
 * A request may wait for other queues to close their brackets, so its loop
 * must serve no other device, and their loops must not be a thread that waits for vCPUs.
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
