/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng (virtio 1.3, 5.4): the host kernel's random numbers.
 *
 * virtio_rng_create gives a device that virtio_pci_create takes over; until then its ops->destroy
 * ends it. 0 or -ENOMEM. The loop stays the caller's and outlives the device. The machine's thread.
 */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "virtio/virtio.h"

struct virtio_rng_setup {
	const char *name; /* copied */
	struct loop *loop;
};

int virtio_rng_create(struct virtio_device **ret, const struct virtio_rng_setup *setup,
		      const struct log *log, struct err *err);

#endif
