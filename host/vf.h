/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycle of SR-IOV virtual functions: create, set, bind, unbind, destroy. Each call leaves things
 * as they were when a later step of it fails.
 *
 * Nothing is bound behind anybody's back: VFs are created without a driver (the PF's
 * sriov_drivers_autoprobe is off around the call and put back), bind puts the named driver into
 * driver_override first, so that a reset of the PF does not lose the VF to another driver.
 *
 * Threads: no state; any thread. Calls wait for the kernel, seconds at worst.
 */
#ifndef HOST_VF_H
#define HOST_VF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "host/device.h"

enum vf_link {
	VF_LINK_AUTO, /* as the PF's */
	VF_LINK_ENABLE,
	VF_LINK_DISABLE,
};

enum vf_setting {
	VF_SET_MAC = 1 << 0,
	VF_SET_VLAN = 1 << 1, /* vlan and qos */
	VF_SET_TRUST = 1 << 2,
	VF_SET_SPOOFCHK = 1 << 3,
	VF_SET_RATE = 1 << 4, /* min and max */
	VF_SET_LINK = 1 << 5,
};

struct vf_settings {
	unsigned int set; /* enum vf_setting: which of these count */
	uint8_t mac[6];
	uint16_t vlan; /* 0: none */
	uint8_t qos;
	bool trust, spoofchk;
	uint32_t min_mbps, max_mbps; /* 0: no limit */
	enum vf_link link;
};

/* Who uses a function now: a process that has it open through VFIO, an interface that is up, a disk
 * that is mounted. who is "" when nobody does. */
struct vf_user {
	char who[HOST_USER_BYTES]; /* "VM 'web' (hospes, pid 4711)" */
	char remedy[96];           /* "end it first" */
};
void vf_user(const struct host_device *dev, struct vf_user *ret);

/* What the PF's driver tells about VF `index` of the interface; -EOPNOTSUPP when it tells nothing.
 * ret->set says what it told. */
int vf_get(const char *netdev, unsigned int index, struct vf_settings *ret, struct err *err);

/* count VFs of the PF, which has none now (-EBUSY otherwise, with the way out), and whose interface, if
 * there is one, is up. When that has a link, the call returns when the link is back. */
int vf_create(const char *name, unsigned int count, struct err *err);
/* Each setting is read back. */
int vf_set(const char *vf, const struct vf_settings *settings, struct err *err);
/* driver NULL: vfio-pci. A driver that is not there is not loaded: the message has the line that
 * does. Any PCI function, not only VFs. -EBUSY names who uses it. */
int vf_bind(const char *bdf, const char *driver, struct err *err);
/* Leaves it without a driver. */
int vf_unbind(const char *bdf, struct err *err);
/* -EBUSY names who uses which VF. No VFs: nothing to do. */
int vf_destroy(const char *name, struct err *err);

#endif
