/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one door to the kernel's KVM: every ioctl on /dev/kvm, on a VM, on a vCPU and on a device of
 * KVM goes through a table of calls. The library always uses kvm_kernel_calls; tests put a table of
 * their own in its place and have whole machines on a host without KVM (tests/native).
 *
 * Files of KVM are ordinary file descriptors: they are duplicated, mapped (the run area of a vCPU)
 * and closed without this table.
 */
#ifndef CORE_KVM_H
#define CORE_KVM_H

#include <stdint.h>

/* Static and constant. Any thread. */
struct kvm_calls {
	/* ioctl(2), but a failure is a negative errno. */
	int (*ioctl)(int fd, unsigned long request, unsigned long arg);
};

extern const struct kvm_calls kvm_kernel_calls;

/* /dev/kvm, and by which calls it is used. A plain value: whoever opened fd closes it. */
struct kvm {
	int fd;
	const struct kvm_calls *calls;
};

static inline int kvm_call(const struct kvm_calls *calls, int fd, unsigned long request,
			   const void *arg)
{
	return calls->ioctl(fd, request, (uintptr_t)arg);
}

static inline int kvm_call_value(const struct kvm_calls *calls, int fd, unsigned long request,
				 unsigned long value)
{
	return calls->ioctl(fd, request, value);
}

#endif
