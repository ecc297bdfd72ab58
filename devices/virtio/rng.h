/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng (virtio 1.3, 5.4): the host kernel's random numbers. */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "virtio/virtio.h"

struct virtio_rng_setup {
	const char *name;
	struct loop *loop;
};

int virtio_rng_create(struct virtio_device **ret, const struct virtio_rng_setup *config,
		      const struct log *log, struct err *err);

#endif
