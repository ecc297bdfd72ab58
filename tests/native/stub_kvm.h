/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KVM that runs no guest: calls for vm_create() (machine/vm.h), for whole machines on a host
 * without KVM. Its files are memfds, so they are duplicated, mapped and closed like the kernel's.
 *
 * It keeps what it is given as data: memory slots, GSI routes, irqfds, ioeventfds, lines, and the
 * state of VMs and vCPUs; reads give back what was written. What Linux refuses (a slot over
 * another, an ioeventfd twice, an irqfd on an eventfd that has one), it refuses with the same
 * errno. KVM_RUN waits until its thread is kicked, and returns -EINTR; while KVM_SET_GUEST_DEBUG
 * has debugging on, it runs a guest whose every byte of memory, from STUB_RUN_START on, is an
 * instruction that does nothing, but for int3. There is no paging. It has no VFIO device
 * (-ENODEV).
 *
 * Threads: any. State: one per process, of the files that are open. A request that it does not know
 * ends the test, since nobody wrote down what the kernel would do.
 */
#ifndef TEST_STUB_KVM_H
#define TEST_STUB_KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/kvm.h"

extern const struct kvm_calls stub_kvm_calls;

/* Where guests that are debugged run round and round. */
enum { STUB_RUN_START = 0x100000, STUB_RUN_BYTES = 0x10000 };

/* What stands for an open /dev/kvm; close it. */
int stub_kvm_open(void);

/* The call number n from now on (0: the next) fails with this errno, once. KVM_RUN is not
 * counted. */
void stub_kvm_fail(unsigned int n, int error);
/* Whether that has happened. */
bool stub_kvm_failed(void);

/* Of all VMs that are open now. */
struct stub_kvm_totals {
	unsigned int vms, vcpus, slots, routes, irqfds, ioeventfds;
	uint64_t slot_bytes;
	uint64_t messages; /* KVM_SIGNAL_MSI so far */
	uint64_t runs;     /* KVM_RUN so far */
};
struct stub_kvm_totals stub_kvm_totals(void);
/* A memory slot covers this address. */
bool stub_kvm_backed(uint64_t gpa);
/* A vCPU writes here, into a memory slot of some VM: it is in the log of one that is logged. At
 * most 64 pages between two looks at it. */
void stub_kvm_write(void *hva, const void *bytes, size_t len);
/* The GSI has an irqfd. */
bool stub_kvm_has_irqfd(uint32_t gsi);

#endif
