// SPDX-License-Identifier: Apache-2.0
// Reset: nothing of one guest is left in the device when another gets it.
//
// The kernel knows the best way for the function itself (VFIO_DEVICE_RESET: FLR, power management,
// or the bus when it is alone there). Where it knows none, the bus or slot can be reset as a whole,
// if all that is on it is ours: the kernel names the set (VFIO_DEVICE_GET_PCI_HOT_RESET_INFO), and
// takes ownership as given by the iommufd (character devices) or wants to see the groups.
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "passthrough/vfio_pci_impl.h"

enum {
	MAX_SET = 256, /* functions of a bus */
	TRIES = 100,   /* of 10 ms, while somebody else holds the device */
};

struct hot_set {
	struct vfio_pci_hot_reset_info head;
	struct vfio_pci_dependent_device devices[MAX_SET];
};

static int get_set(struct vfio_pci *v, struct hot_set *set)
{
	int ret;

	memset(set, 0, sizeof(*set));
	set->head.argsz = sizeof(*set);
	ret = v->file.ops->ioctl(v->file.opaque, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, set);
	return MIN(ret, 0);
}

/* The first member that is not ours keeps us from resetting the set. */
static int check_owned(struct vfio_pci *v, const struct hot_set *set, struct err *err)
{
	bool by_id = set->head.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID;

	if (by_id && set->head.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED)
		return 0;
	for (uint32_t i = 0; i < set->head.count && i < MAX_SET; i++) {
		const struct vfio_pci_dependent_device *d = &set->devices[i];
		char bdf[24];

		if (by_id ? d->devid != (uint32_t)VFIO_PCI_DEVID_NOT_OWNED
			  : v->config.group_fd >= 0 && d->group_id == v->config.group)
			continue;
		snprintf(bdf, sizeof(bdf), "%04x:%02x:%02x.%x", d->segment, d->bus, d->devfn >> 3u,
			 d->devfn & 7u);
		return err_set(err, -EPERM,
			       "it can be reset only together with %s, which this machine has not: "
			       "bind that to vfio-pci and pass it through too",
			       bdf);
	}
	return by_id || v->config.group_fd >= 0
		       ? 0
		       : err_set(err, -EPERM, "its bus can be reset only by who holds the group");
}

static int hot_reset(struct vfio_pci *v, struct err *err)
{
	struct {
		struct vfio_pci_hot_reset head;
		int32_t fd;
	} arg = {.fd = v->config.group_fd};
	struct hot_set *set = calloc(1, sizeof(*set));
	int ret;

	if (!set)
		return err_set(err, -ENOMEM, "out of memory");
	ret = get_set(v, set);
	if (ret) {
		err_set(err, ret, "cannot be reset: the kernel knows no way (%s)", err_name(ret));
		goto out;
	}
	ret = check_owned(v, set, err);
	if (ret)
		goto out;
	/* A set of one group needs that group once; by iommufd, none at all. */
	arg.head.count = set->head.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID ? 0 : 1;
	arg.head.argsz = (uint32_t)(sizeof(arg.head) + arg.head.count * sizeof(arg.fd));
	ret = MIN(v->file.ops->ioctl(v->file.opaque, VFIO_DEVICE_PCI_HOT_RESET, &arg), 0);
	if (ret)
		err_set(err, ret, "VFIO_DEVICE_PCI_HOT_RESET of %u functions: %s", set->head.count,
			err_name(ret));
out:
	free(set);
	return ret;
}

void vfio_reset_probe(struct vfio_pci *v, struct err *err)
{
	struct vfio_device_info info;
	struct hot_set *set;

	v->resets = 0;
	if (!vfio_get_info(&v->file, &info) && info.flags & VFIO_DEVICE_FLAGS_RESET)
		v->resets |= VFIO_RESET_FUNCTION;
	set = calloc(1, sizeof(*set));
	if (set && !get_set(v, set) && !check_owned(v, set, err))
		v->resets |= VFIO_RESET_HOT;
	else if (err && !err->code)
		err_set(err, -EOPNOTSUPP, "the kernel knows no way");
	free(set);
}

/* The kernel tries for the device's lock and does not wait. */
static int function_reset(struct vfio_pci *v)
{
	int ret = -EAGAIN;

	for (unsigned int i = 0; i < TRIES && ret == -EAGAIN; i++) {
		if (i)
			poll(NULL, 0, 10);
		ret = MIN(v->file.ops->ioctl(v->file.opaque, VFIO_DEVICE_RESET, NULL), 0);
	}
	return ret;
}

static int reset(struct vfio_pci *v, struct err *err)
{
	int ret = -EOPNOTSUPP;

	if (v->resets & VFIO_RESET_FUNCTION) {
		ret = function_reset(v);
		if (ret)
			err_set(err, ret, "VFIO_DEVICE_RESET: %s", err_name(ret));
	}
	if (ret && v->resets & VFIO_RESET_HOT)
		ret = hot_reset(v, err);
	else if (ret == -EOPNOTSUPP)
		err_set(err, ret, "it cannot be reset");
	if (ret && !vfio_answers(v))
		return 0;
	return ret ? err_prefix(err, "%s", v->bdf) : 0;
}

int vfio_reset(struct vfio_pci *v, struct err *err)
{
	if (atomic_load(&v->gone))
		return 0;
	vfio_irqs_off(v);
	v->pm_state = 0;
	/* The kernel puts the command register back as it finds it. */
	vfio_command_set(v, false);
	return reset(v, err);
}

int vfio_reset_in_place(struct vfio_pci *v, struct err *err)
{
	return atomic_load(&v->gone) ? 0 : reset(v, err);
}
