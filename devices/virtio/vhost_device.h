/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk, a network or a shared folder whose queues a daemon serves (vhost_user.h): what is left
 * here are its registers and its configuration space.
 *
 * A daemon that is gone has lost the requests that it had, which the rings alone do not tell. The
 * device needs a reset then, and no driver gets it to work again: it is to be removed.
 *
 * Create, check and destroy: the machine's thread. Queues: the thread of the loop of each; the
 * loops stay the caller's and outlive the device. 0 or a negative errno, and err says why.
 */
#ifndef VIRTIO_VHOST_DEVICE_H
#define VIRTIO_VHOST_DEVICE_H

#include "virtio/virtio.h"

struct gmem;

enum virtio_vhost_type {
	VIRTIO_VHOST_BLK, /* virtio 1.3, 5.2; its configuration space is the daemon's */
	VIRTIO_VHOST_NET, /* 5.1; one pair, without a control queue */
	VIRTIO_VHOST_FS,  /* 5.11; queue 0 is the one of high priority */
	VIRTIO_VHOST_TYPES,
};

enum { VIRTIO_VHOST_TAG_BYTES = 36 }; /* 5.11.4 */

struct virtio_vhost_setup {
	const char *name;
	enum virtio_vhost_type type;
	int fd;              /* of the daemon's socket; duplicated, and shut down with the device */
	unsigned int queues; /* of a disk; of a folder, beside the one of high priority */
	unsigned int queue_size; /* a power of two */
	bool readonly;           /* of a disk: refuse a daemon that would write */
	uint8_t mac[6];
	uint16_t mtu; /* 0: not offered */
	bool link_down;
	const char *tag;
	struct gmem *gmem;
	struct loop *const *loops; /* queue i belongs to loops[i % n_loops] */
	unsigned int n_loops;
	unsigned int limit_ms; /* as vhost_user_setup has it */
};

int virtio_vhost_create(struct virtio_device **ret, const struct virtio_vhost_setup *setup,
			const struct log *log, struct err *err);
/* Of a network. */
void virtio_vhost_set_link(struct virtio_device *vdev, bool up);
/* By which the daemon says that a configuration changes: readable then; -1: it cannot. Stays the
 * device's. */
int virtio_vhost_changes_fd(const struct virtio_device *vdev);
/* Look what has changed, and notify the guest. May wait for the daemon. */
void virtio_vhost_take_change(struct virtio_device *vdev);
/* Is the daemon gone? Then the device needs a reset, and text says why. */
bool virtio_vhost_gone(struct virtio_device *vdev, char *text, size_t bytes);

#endif
