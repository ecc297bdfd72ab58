/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues that another process serves, a daemon: vhost-user (QEMU's docs/interop/vhost-user.rst; the
 * sections that are cited are its) over a connected UNIX stream socket.
 *
 * What it must offer: virtio 1, VHOST_USER_F_PROTOCOL_FEATURES and REPLY_ACK; memory goes to it
 * region by region with CONFIGURE_MEM_SLOTS, else as a table of 8 regions at most. Guest memory is
 * a file in each region. The daemon knows guest memory by the guest's addresses: none of this
 * process is given away.
 *
 * It is not trusted with more than guest memory, the rings and their eventfds. A message and its
 * answer have VHOST_USER_LIMIT_MS together. An answer that is late, malformed, of another size or
 * with a file descriptor (which is never installed), ends the connection: the daemon is gone, for
 * good, and all that is asked of it later fails at once.
 *
 * Threads: as vhost.h has them; vhost_user_gone by any.
 */
#ifndef VIRTIO_VHOST_USER_H
#define VIRTIO_VHOST_USER_H

#include "virtio/vhost.h"

enum {
	VHOST_USER_LIMIT_MS = 5000,
	VHOST_USER_CONFIG_MAX = 256, /* "Virtio device config space" */
};

struct vhost_user_setup {
	const char *name; /* the device's, for messages; stays there */
	int fd; /* connected; duplicated, and at an end also for the caller with the device */
	unsigned int n_rings; /* that it shall serve */
	bool config;          /* it has the configuration space */
	struct gmem *gmem;
	unsigned int limit_ms; /* 0: VHOST_USER_LIMIT_MS */
};

/* Negotiates, and gives it guest memory. On failure err says what it lacks, or did. */
int vhost_user_create(struct vhost **ret, const struct vhost_user_setup *setup, struct err *err);

/* `bytes` of its configuration space from the beginning, at most VHOST_USER_CONFIG_MAX. */
int vhost_user_get_config(struct vhost *v, void *buf, uint32_t bytes, struct err *err);

/* What it asks for by itself: readable when there is something; -1: it cannot. Stays vhost's. */
int vhost_user_requests_fd(const struct vhost *v);
/* Take one, without waiting: true when the configuration space has changed, which is all that it
 * may say. */
bool vhost_user_config_changed(struct vhost *v);

/* Is it gone? Then why, in text. If its socket has ended, this notices. */
bool vhost_user_gone(struct vhost *v, char *text, size_t bytes);

#endif
