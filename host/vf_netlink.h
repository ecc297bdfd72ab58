/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PF's settings of its VFs, by rtnetlink (linux/if_link.h, IFLA_VF_*), and
 * the state of an interface's link.
 *
 * Errors: a negative errno; err holds the kernel's answer, and the driver's own text if there is
 * any. The caller adds the device's name and the remedy.
 *
 * Threads: no state; any thread.
 */
#ifndef HOST_VF_NETLINK_H
#define HOST_VF_NETLINK_H

#include <stdbool.h>

#include "base/err.h"
#include "host/vf.h"

struct vf_netlink_link {
	bool up;      /* administratively */
	bool carrier; /* a cable with somebody at the other end */
};

int vf_netlink_link(const char *netdev, struct vf_netlink_link *ret, struct err *err);

/* -EOPNOTSUPP: the driver reports nothing about its VFs. -ENODEV: it has no VF `index`. */
int vf_netlink_get(const char *netdev, unsigned int index, struct vf_settings *ret,
		   struct err *err);
/* One setting per call, so that an error is about that one. */
int vf_netlink_set(const char *netdev, unsigned int index, enum vf_setting which,
		   const struct vf_settings *settings, struct err *err);

/* Changes of links since begin, so that nothing is missed between an act and the wait for its
 * end. */
struct vf_netlink_watch {
	int fd; /* -1: none */
};
int vf_netlink_watch_begin(struct vf_netlink_watch *watch, struct err *err);
/* Until the interface has a carrier; -ETIMEDOUT. */
int vf_netlink_watch_carrier(struct vf_netlink_watch *watch, const char *netdev, int timeout_ms,
			     struct err *err);
void vf_netlink_watch_end(struct vf_netlink_watch *watch);

#endif
