/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console (virtio 1.3, 5.3), one port: bytes between the guest and a pair of fds.
 *
 * Create, resize and destroy: the machine's thread. Queues: the loop's thread. Loop and fds stay
 * the caller's and outlive the device. 0 or -ENOMEM. An fd that fails later is logged (no more
 * input, or the output is lost); the device stays.
 */
#ifndef VIRTIO_CONSOLE_H
#define VIRTIO_CONSOLE_H

#include "virtio/virtio.h"

struct virtio_console_setup {
	const char *name;
	int in_fd;  /* -1: none; not owned */
	int out_fd; /* -1: discard; not owned */
	/* How long the guest waits for whoever reads the output and takes nothing; after that it is
	 * dropped until something is taken. 0: for ever. */
	uint64_t patience_ns;
	struct loop *loop;
};

int virtio_console_create(struct virtio_device **ret, const struct virtio_console_setup *setup,
			  const struct log *log, struct err *err);
/* Bytes that the guest has written, read by anybody or not. The thread of its loop. */
uint64_t virtio_console_output_bytes(const struct virtio_device *vdev);
/* This socket looks on and types from now on (core/viewer.h): what in_fd has waits meanwhile.
 * -EBUSY: another one does already; take: in its place. -EINVAL: no stream socket. On failure
 * nothing has changed. On its bus; thread of its loop, which it turns. */
int virtio_console_view(struct virtio_device *vdev, int fd, bool take, struct err *err);
/* Is there a viewer? */
bool virtio_console_is_viewed(const struct virtio_device *vdev);
/* The terminal's size, for VIRTIO_CONSOLE_F_SIZE. Machine's thread. */
void virtio_console_resize(struct virtio_device *vdev, uint16_t columns, uint16_t rows);

#endif
