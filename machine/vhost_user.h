/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices whose queues a vhost-user daemon serves: its socket, as a document names it, and what
 * happens when the daemon goes.
 *
 * Threads: opening has no state; the rest is the machine's thread's.
 */
#ifndef MACHINE_VHOST_USER_H
#define MACHINE_VHOST_USER_H

#include "core/loop.h"
#include "machine/kind.h"

struct virtio_vhost_setup;

/* In a kind's config: one of path and fd, or neither. */
struct config_vhost_user {
	char *path;
	int fd; /* connected; -1 */
};
#define CONFIG_VHOST_USER_FIELDS(type, member)                                                    \
	{"vhost_user", SCHEMA_STRING, .offset = offsetof(type, member.path)},                     \
	{                                                                                         \
		"vhost_user_fd", SCHEMA_FD, .offset = offsetof(type, member.fd), .max = INT32_MAX \
	}

static inline bool config_vhost_user_given(const struct config_vhost_user *c)
{
	return c->path || c->fd >= 0;
}

/* For validate, of a device that has it: not behind the virtual IOMMU, and memory is shared. */
int config_vhost_user_check(const struct config_vhost_user *c, struct config_device *device,
			    struct err *err);
/* For hand_over: connected, with the fd in place of the path. */
int config_vhost_user_hand_over(struct config_vhost_user *c, const struct config_device *device,
				struct err *err);

/* A kind's, while the device is there. Zeroed, it is closed. */
struct vm_daemon {
	struct vm_device *d;
	int fd; /* of the socket; also the virtio device's, by a duplicate */
	struct loop_op watch;
	struct loop_op change, rest; /* its configuration changes; until the next may */
	int changes_fd;
	bool gone; /* it was reported */
};

/* Connect, or duplicate what is connected. */
int vm_daemon_open(struct vm_daemon *daemon, struct vm_device *d, const struct config_vhost_user *c,
		   struct err *err);
/* For create: d->vdev, of which setup says what is the kind's own; name, fd, memory and loops are
 * filled in here. When the daemon goes it needs a reset, and an event says so. */
int vm_daemon_create(struct vm_daemon *daemon, const struct virtio_vhost_setup *setup,
		     struct err *err);
/* d->vdev is gone. Turns the loop. Harmless when it is not open. */
void vm_daemon_close(struct vm_daemon *daemon);
/* Of device_kind's movable: always -EOPNOTSUPP. */
int vm_daemon_refuse_move(const struct vm_device *d, struct err *err);
/* For status: "daemon" in the device's object. */
void vm_daemon_status(const struct vm_daemon *daemon, json_t *item);

#endif
