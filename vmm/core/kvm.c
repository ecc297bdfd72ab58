// SPDX-License-Identifier: Apache-2.0
// The kernel's KVM.
#include "core/kvm.h"

#include "base/fd.h"

static int kernel_ioctl(int fd, unsigned long request, unsigned long arg)
{
	return fd_ioctl(fd, request, (const void *)arg);
}

const struct kvm_calls kvm_kernel_calls = {.ioctl = kernel_ioctl};
