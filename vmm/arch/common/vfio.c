// SPDX-License-Identifier: Apache-2.0
// KVM's view of VFIO: which devices a guest has (Linux Documentation/virt/kvm/devices/vfio.rst).
#include <errno.h>

#include "base/fd.h"
#include "common/common.h"

/* The group of devices by file; older kernels take VFIO group files by the same numbers
 * (KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, _DEL). */
static int set_file(const struct arch_common *c, int fd, uint64_t attr)
{
	const struct kvm_device_attr arg = {
		.group = KVM_DEV_VFIO_FILE,
		.attr = attr,
		.addr = (uintptr_t)&fd,
	};

	return kvm_call(c->kvm.calls, c->vfio_fd, KVM_SET_DEVICE_ATTR, &arg);
}

int arch_vm_add_vfio(struct arch_vm *vm, int fd, struct err *err)
{
	struct arch_common *c = arch_common(vm);
	int rc;

	if (c->vfio_fd < 0) {
		struct kvm_create_device create = {.type = KVM_DEV_TYPE_VFIO};

		rc = arch_vm_call(c, KVM_CREATE_DEVICE, &create);
		if (rc)
			return err_set(err, rc == -ENODEV ? -EOPNOTSUPP : rc,
				       "KVM_CREATE_DEVICE(VFIO): %s",
				       rc == -ENODEV ? "this kernel lacks CONFIG_KVM_VFIO"
						     : err_name(rc));
		c->vfio_fd = (int)create.fd;
	}
	rc = set_file(c, fd, KVM_DEV_VFIO_FILE_ADD);
	/* Groups are added once for all their devices. */
	if (rc && rc != -EEXIST)
		return err_set(err, rc, "KVM_DEV_VFIO_FILE_ADD: %s", err_name(rc));
	return 0;
}

void arch_vm_remove_vfio(struct arch_vm *vm, int fd)
{
	const struct arch_common *c = arch_common(vm);
	int rc;

	if (c->vfio_fd < 0)
		return;
	rc = set_file(c, fd, KVM_DEV_VFIO_FILE_DEL);
	if (rc && rc != -ENOENT)
		log_warn(c->log, "kvm", "KVM_DEV_VFIO_FILE_DEL: %s", err_name(rc));
}
