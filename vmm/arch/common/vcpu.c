// SPDX-License-Identifier: Apache-2.0
// A vCPU of KVM, as far as it is the same on every architecture: the area that it shares with its
// thread.
#include <errno.h>
#include <sys/mman.h>

#include "common/common.h"

int arch_run_map(struct arch_run *ret, const struct kvm *kvm, int vcpu_fd, unsigned int index,
		 struct err *err)
{
	int bytes = kvm_call_value(kvm->calls, kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0), rc;

	ret->run = MAP_FAILED;
	if (bytes < (int)sizeof(struct kvm_run))
		return err_set(err, -EINVAL, "vcpu%u: KVM_GET_VCPU_MMAP_SIZE says %d", index,
			       bytes);
	ret->bytes = (size_t)bytes;
	ret->run = mmap(NULL, ret->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
	if (ret->run != MAP_FAILED)
		return 0;
	rc = -errno;
	return err_set(err, rc, "vcpu%u: mmap of its run area: %s", index, err_name(rc));
}

void arch_run_unmap(struct arch_run *run)
{
	if (run->run != MAP_FAILED)
		munmap(run->run, run->bytes);
	run->run = MAP_FAILED;
}
