// SPDX-License-Identifier: Apache-2.0
// virtio-rng: fills what the driver offers, at most RNG_BURST_BYTES at a time, from the kernel.
#include "virtio/rng.h"

#include <errno.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rand.h"

enum {
	RNG_ID = 4,
	RNG_QUEUE_SIZE = 64,
	/* A request may be any size, and a short answer is a good one (virtio 1.3, 5.4.6.1): this
	 * bounds how long the loop is busy with one. */
	RNG_BURST_BYTES = 4096,
	RNG_CHAINS_A_TURN = 16,
};

struct rng {
	struct virtio_device vdev;
	bool running;
	struct loop_op again; /* more is available than one turn's share */
	bool stopping;
	bool deferred;
	struct iovec pieces[VIRTQ_MAX_PIECES];
	struct virtq_chain chain;
};

static struct rng *of_vdev(struct virtio_device *vdev)
{
	return container_of(vdev, struct rng, vdev);
}

static uint32_t fill(struct virtq_chain *chain)
{
	uint32_t done = 0;

	for (unsigned int i = 0; i < chain->n_in && done < RNG_BURST_BYTES; i++) {
		size_t part = MIN(chain->in[i].iov_len, (size_t)(RNG_BURST_BYTES - done));

		if (rand_bytes(chain->in[i].iov_base, part))
			break;
		done += (uint32_t)part;
	}
	return done;
}

static void serve(struct rng *rng)
{
	struct virtq *vq = rng->vdev.queues[0].vq;
	unsigned int budget = RNG_CHAINS_A_TURN;

	do {
		virtq_kick_disable(vq);
		while (budget && virtq_pop(vq, &rng->chain) > 0) {
			virtq_push(vq, &rng->chain, fill(&rng->chain));
			budget--;
		}
		if (!budget) {
			rng->deferred = true;
			loop_defer(rng->vdev.queues[0].loop, &rng->again);
			break;
		}
	} while (virtq_kick_enable(vq));
	virtq_flush(vq);
}

static void again(struct loop_op *op, int result)
{
	struct rng *rng = container_of(op, struct rng, again);

	(void)result;
	rng->deferred = false;
	if (rng->stopping) {
		rng->stopping = false;
		virtio_queue_stopped(&rng->vdev, 0);
	} else if (rng->running) {
		serve(rng);
	}
}

static void rng_queue_start(struct virtio_device *vdev, unsigned int index)
{
	(void)index;
	of_vdev(vdev)->running = true;
}

static void rng_queue_kick(struct virtio_device *vdev, unsigned int index)
{
	(void)index;
	serve(of_vdev(vdev));
}

static void rng_queue_stop(struct virtio_device *vdev, unsigned int index, bool abandon)
{
	struct rng *rng = of_vdev(vdev);

	(void)abandon;
	rng->running = false;
	/* The deferred turn would outlive the queue. */
	if (rng->deferred)
		rng->stopping = true;
	else
		virtio_queue_stopped(vdev, index);
}

static void rng_destroy(struct virtio_device *vdev)
{
	if (vdev)
		free(of_vdev(vdev));
}

static const struct virtio_device_ops rng_ops = {
	.id = RNG_ID,
	.type = "virtio-rng",
	.queue_start = rng_queue_start,
	.queue_kick = rng_queue_kick,
	.queue_stop = rng_queue_stop,
	.destroy = rng_destroy,
};

int virtio_rng_create(struct virtio_device **ret, const struct virtio_rng_setup *config,
		      const struct log *log, struct err *err)
{
	struct rng *rng;

	if (!mem_new(rng))
		return err_set(err, -ENOMEM, "%s: no memory", config->name);
	rng->vdev.ops = &rng_ops;
	rng->vdev.log = log;
	snprintf(rng->vdev.name, sizeof(rng->vdev.name), "%s", config->name);
	rng->vdev.n_queues = 1;
	rng->vdev.queues[0] = (struct virtio_queue){
		.loop = config->loop,
		.max_size = RNG_QUEUE_SIZE,
	};
	rng->again.done = again;
	rng->chain.iov = rng->pieces;
	rng->chain.max_iov = VIRTQ_MAX_PIECES;
	*ret = &rng->vdev;
	return 0;
}
