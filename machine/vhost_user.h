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
	int fd;        /* connected; -1 */
	int keeper_fd; /* beside fd, of whoever started the daemon, as struct vm_daemon says; -1 */
};
#define CONFIG_VHOST_USER_NONE {.fd = -1, .keeper_fd = -1}
#define CONFIG_VHOST_USER_FIELDS(type, member)                                      \
	{"vhost_user", SCHEMA_STRING, .offset = offsetof(type, member.path)},       \
		{"vhost_user_fd", SCHEMA_FD, .offset = offsetof(type, member.fd),   \
		 .max = INT32_MAX},                                                 \
	{                                                                           \
		"keeper_fd", SCHEMA_FD, .offset = offsetof(type, member.keeper_fd), \
			.max = INT32_MAX                                            \
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

/* A kind's, while the device is there. Zeroed, it is closed.
 *
 * Whoever started the daemon may keep it by keeper_fd, one end of a pair of SOCK_SEQPACKET. This
 * end is closed when the device goes, or with this process: then the daemon is to be ended. Each
 * packet that comes is a line for the log; after the last, with which the daemon's end is
 * explained, the other end is closed. */
struct vm_daemon {
	struct vm_device *d;
	int fd; /* of the socket; also the virtio device's, by a duplicate */
	int keeper_fd;
	struct loop_op watch;
	struct loop_op change, rest; /* its configuration changes; until the next may */
	struct loop_op keeper;       /* it has said something */
	struct loop_op keeper_rest;  /* until it may say more, or has to have explained an end */
	int changes_fd;
	bool gone;        /* the daemon */
	bool keeper_over; /* its end is closed */
	bool reported;    /* that the daemon is gone */
	char why[160];    /* it is gone */
	char said[200];   /* by the keeper, last */
};

/* Connect, or duplicate what is connected, and the keeper's. */
int vm_daemon_open(struct vm_daemon *daemon, struct vm_device *d, const struct config_vhost_user *c,
		   struct err *err);
/* For create: d->vdev, of which setup says what is the kind's own; name, fd, memory and loops are
 * filled in here. When the daemon goes it needs a reset, and an event says so, with what its
 * keeper said last. */
int vm_daemon_create(struct vm_daemon *daemon, const struct virtio_vhost_setup *setup,
		     struct err *err);
/* d->vdev is gone. Turns the loop. Harmless when it is not open. */
void vm_daemon_close(struct vm_daemon *daemon);
/* Of device_kind's movable: always -EOPNOTSUPP. */
int vm_daemon_refuse_move(const struct vm_device *d, struct err *err);
/* For status: "daemon" in the device's object. */
void vm_daemon_status(const struct vm_daemon *daemon, json_t *item);

#endif
