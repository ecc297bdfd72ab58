/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of virtio-iommu: iommu.c is the device, iommu_request.c decodes requests. */
#ifndef VIRTIO_IOMMU_IMPL_H
#define VIRTIO_IOMMU_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "iommu/viommu.h"
#include "virtio/iommu.h"

enum {
	IOMMU_REQUEST_QUEUE = 0,
	IOMMU_EVENT_QUEUE = 1,
	/* Requests that are taken together. Each is two segments, or some more where they lie
	   badly. */
	IOMMU_BATCH = 256,
	/* ... by count; and by cost: a batch ends with the request by which it maps and unmaps so
	   many bytes. In a vCPU's exit none that is as large by itself is carried out. */
	IOMMU_BATCH_BYTES = 16 << 20,
	IOMMU_SEGMENTS = 8,
	/* Room for the properties of an endpoint: 40 ranges of 24 bytes. */
	IOMMU_PROBE_BYTES = 1024,
	IOMMU_FAULTS = 32, /* that wait for a buffer */
};

enum iommu_bypass { IOMMU_BYPASS_OFF, IOMMU_BYPASS_ON, IOMMU_BYPASS_NOT_ASKED };

struct iommu_taken {
	struct virtq_chain chain;
	struct iovec segments[IOMMU_SEGMENTS];
	uint32_t tail;    /* where the status goes */
	uint32_t written; /* 0: it could not be read, and is given back as it is */
	int request;      /* its place among the requests; -1: decided already */
	uint8_t status;
};

struct iommu_dev {
	struct virtio_device vdev;
	struct viommu *viommu;
	uint64_t poll_ns;

	/* The request queue's: whoever serves it (virtio_queue.serving). */
	struct iommu_taken taken[IOMMU_BATCH];
	struct viommu_request requests[IOMMU_BATCH];
	uint8_t properties[IOMMU_PROBE_BYTES];
	uint64_t poll_end_ns; /* nothing came for so long */

	/* What the driver has written; enum iommu_bypass. Any thread. */
	_Atomic int bypass_asked;

	struct virtq_chain event;
	struct iovec event_segments[IOMMU_SEGMENTS];
	/* Guards what faults of other threads touch. */
	pthread_mutex_t lock;
	bool events_running; /* the event queue may be woken */
	struct viommu_fault faults[IOMMU_FAULTS];
	unsigned int first_fault, n_faults;
};

/* Take what there is of requests, carry it out, answer it: how many chains that were. -EAGAIN: the
 * next one takes too long for a vCPU's exit, in which this is, and is left to the loop. */
int iommu_serve_batch(struct iommu_dev *dev);

#endif
