// SPDX-License-Identifier: Apache-2.0
// What queues have done.
#include "machine/queues.h"

#include <stdio.h>

#include "base/counter.h"
#include "virtio/blk.h"
#include "virtio/virtio.h"

/* Why it answers later than it could: because it streams, or since the guest wants it. */
static void add_delays(const struct virtio_queue *q, json_t *item)
{
	uint64_t coalescing = atomic_load(&q->coalescing);

	if (atomic_load(&q->moderation.max_ns)) {
		json_object_set_new(
			item, "delay_us",
			json_integer((json_int_t)(atomic_load(&q->moderation.delay_ns) / 1000)));
		json_object_set_new(item, "delayed",
				    json_integer((json_int_t)counter_read(&q->moderation.delayed)));
	}
	if (coalescing)
		json_object_set_new(item, "coalescing",
				    json_pack("{s:I, s:I}", "requests",
					      (json_int_t)(coalescing >> 32), "us",
					      (json_int_t)(coalescing & UINT32_MAX)));
}

static json_t *counts_of(const struct virtio_queue *q)
{
	uint64_t suppressed, interrupts = virtq_interrupts(q->vq, &suppressed);

	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "requests",
			 (json_int_t)counter_read(&q->counts.requests), "bytes",
			 (json_int_t)counter_read(&q->counts.bytes), "kicks",
			 (json_int_t)counter_read(&q->counts.kicks), "interrupts",
			 (json_int_t)interrupts, "suppressed", (json_int_t)suppressed);
}

void vm_device_queues_status(const struct vm_device *d, json_t *item)
{
	json_t *list;

	if (!d->vdev)
		return;
	list = json_array();
	for (unsigned int i = 0; i < d->vdev->n_queues; i++) {
		json_t *counts = counts_of(&d->vdev->queues[i]);

		add_delays(&d->vdev->queues[i], counts);
		json_array_append_new(list, counts);
	}
	json_object_set_new(item, "queues", list);
}

void vm_device_latency_status(const struct vm_device *d, json_t *item)
{
	json_t *up_to = json_object();
	struct latency l;
	uint64_t n = 0;

	if (!d->vdev) {
		json_decref(up_to);
		return;
	}
	virtio_blk_latency(d->vdev, &l);
	for (unsigned int i = 0; i < LATENCY_BUCKETS; i++) {
		uint64_t in = counter_read(&l.n[i]);
		char text[24];

		n += in;
		snprintf(text, sizeof(text), "%llu", 1ull << i);
		if (in)
			json_object_set_new(up_to, i < LATENCY_BUCKETS - 1 ? text : "more",
					    json_integer((json_int_t)in));
	}
	json_object_set_new(item, "latency",
			    json_pack("{s:i, s:I, s:I, s:o}", "each", VIRTIO_BLK_MEASURED,
				      "measured", (json_int_t)n, "ns",
				      (json_int_t)counter_read(&l.total_ns), "us", up_to));
}
