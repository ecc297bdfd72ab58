/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycle of SR-IOV virtual functions: create, set, bind, unbind, destroy. If a step
 * fails, the call undoes its earlier steps.
 *
 * Nothing is bound without being asked: VFs are created without a driver (the PF's
 * sriov_drivers_autoprobe is off during the call and then restored), bind puts the named driver
 * into driver_override first, so that a reset of the PF does not lose the VF to another driver.
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

/* The present user of a function: a process that has it open through VFIO, an interface that is up,
 * a disk that is mounted. who is "" if there is none. */
struct vf_user {
	char who[HOST_USER_BYTES]; /* "VM 'web' (hospes, pid 4711)" */
	char remedy[96];           /* "end it first" */
};
void vf_user(const struct host_device *dev, struct vf_user *ret);

/* The settings of VF `index` as the PF's driver reports them; ret->set names those that it reports.
 * -EOPNOTSUPP: it reports none. */
int vf_get(const char *netdev, unsigned int index, struct vf_settings *ret, struct err *err);

/* Create count VFs. -EBUSY: the PF has VFs already; err names the remedy. The PF's interface, if it
 * has one, must be up. If it has a link, the call returns once the link is back. */
int vf_create(const char *name, unsigned int count, struct err *err);
/* Each setting is read back. */
int vf_set(const char *vf, const struct vf_settings *settings, struct err *err);
/* Bind any PCI function, not only VFs. driver NULL: vfio-pci. No module is loaded: if the driver is
 * missing, err names the command that loads it. -EBUSY: err names the user. */
int vf_bind(const char *bdf, const char *driver, struct err *err);
/* Give the nodes of a device that vfio-pci has to this user: whoever opens them drives the device,
 * and its group. They are the host's again when it is unbound. -ENODEV: vfio-pci does not have
 * it. */
int vf_own(const char *bdf, uid_t uid, struct err *err);
/* Leaves it without a driver. */
int vf_unbind(const char *bdf, struct err *err);
/* Remove all VFs; 0 if there are none. -EBUSY: err names a VF and its user. */
int vf_destroy(const char *name, struct err *err);

#endif
