// SPDX-License-Identifier: Apache-2.0
// virtio-rng: fills what the driver offers, at most RNG_BURST_BYTES at a time, from the kernel.
#include "virtio/rng.h"

#include <errno.h>

#include <linux/virtio_ids.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rand.h"

enum {
	RNG_QUEUE_SIZE = 64,
	/* A request may be of any size, and a short answer is a good one (virtio 1.3, 5.4.6.1):
	 * this bounds how long the loop is busy with one. */
	RNG_BURST_BYTES = 4096,
};

static int fill(struct virtio_queue *q, struct virtq_chain *chain)
{
	size_t done = 0;

	(void)q;
	for (unsigned int i = 0; i < chain->n_in && done < RNG_BURST_BYTES; i++) {
		size_t part = MIN(chain->in[i].iov_len, RNG_BURST_BYTES - done);

		if (rand_bytes(chain->in[i].iov_base, part))
			break;
		done += part;
	}
	return (int)done;
}

static const struct virtio_queue_ops rng_queue_ops = {
	.handle = fill,
};

static void rng_destroy(struct virtio_device *vdev)
{
	if (!vdev)
		return;
	virtio_device_done(vdev);
	free(vdev);
}

static const struct virtio_device_ops rng_ops = {
	.id = VIRTIO_ID_RNG,
	.type = "virtio-rng",
	.destroy = rng_destroy,
};

int virtio_rng_create(struct virtio_device **ret, const struct virtio_rng_setup *setup,
		      const struct log *log, struct err *err)
{
	struct virtio_device *vdev;
	int r;

	if (!mem_new(vdev))
		return err_set(err, -ENOMEM, "%s: no memory", setup->name);
	r = virtio_device_init(vdev, &rng_ops, setup->name, log, 1, err);
	if (r) {
		free(vdev);
		return r;
	}
	vdev->queues[0].ops = &rng_queue_ops;
	vdev->queues[0].loop = setup->loop;
	vdev->queues[0].max_size = RNG_QUEUE_SIZE;
	*ret = vdev;
	return 0;
}
