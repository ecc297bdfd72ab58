// SPDX-License-Identifier: Apache-2.0
// The kernel's KVM.
#include "core/kvm.h"

#include <errno.h>
#include <sys/ioctl.h>

static int kernel_ioctl(int fd, unsigned long request, unsigned long arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

const struct kvm_calls kvm_kernel_calls = {.ioctl = kernel_ioctl};
