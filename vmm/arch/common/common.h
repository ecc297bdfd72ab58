/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM does alike on every architecture: memory slots, VFIO's device, ioeventfd, irqfd. Each
 * architecture's struct arch_vm has a struct arch_common in it. Private to vmm/arch.
 */
#ifndef COMMON_COMMON_H
#define COMMON_COMMON_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/num.h"
#include "core/arch.h"

struct memslot {
	uint64_t gpa;
	uint64_t bytes;
	void *hva;
	uint32_t slot;
	bool ram; /* that vCPUs write: not a ROM, nor memory of a device */
};

struct arch_common {
	/* Constant. */
	const struct log *log;
	struct kvm kvm; /* the file is the caller's */
	int fd;
	struct gmem *gmem;
	struct bus *mmio;
	struct bus *pio;
	/* Where ports are in memory; 0: they are reached by instructions of their own. */
	uint64_t pio_gpa;

	struct gmem_listener listener;
	bool listening;
	pthread_mutex_t slot_lock; /* guards the slots, and orders the calls that change them */
	struct memslot *slots;     /* used ones */
	unsigned int n_slots, max_slots;
	uint8_t *slot_used; /* by number */
	int vfio_fd;        /* KVM's device for VFIO, to which VFIO's files are added; -1. The
			     * machine's thread's */
};

/* Each architecture's. */
struct arch_common *arch_common(struct arch_vm *vm);

/* Before anything can fail; done takes it in any state, and closes fd. */
void arch_common_init(struct arch_common *c, const struct arch_vm_config *config);
void arch_common_done(struct arch_common *c);
/* A VM of this type: into fd. */
int arch_common_create(struct arch_common *c, unsigned long type, struct err *err);
/* When the VM is as far as it takes memory: follow the map of guest memory, and the ioeventfds of
 * both buses. */
int arch_common_listen(struct arch_common *c, struct err *err);

struct arch_need {
	unsigned int cap;
	const char *name;
};
/* Has it KVM's API of 12, and each of these capabilities? -EOPNOTSUPP names the first that is
 * missing, and `since` which kernel has them. */
int arch_check_kvm(const struct kvm *kvm, const struct arch_need *need, size_t n, const char *since,
		   struct err *err);
/* A capability's value; 0 when there is none. */
static inline int arch_kvm_has(const struct kvm *kvm, unsigned long cap)
{
	return MAX(kvm_call_value(kvm->calls, kvm->fd, KVM_CHECK_EXTENSION, cap), 0);
}

/* Calls on the VM and on /dev/kvm: at least 0, or a negative errno. */
static inline int arch_vm_call(const struct arch_common *c, unsigned long request, const void *arg)
{
	return kvm_call(c->kvm.calls, c->fd, request, arg);
}
static inline int arch_vm_call_value(const struct arch_common *c, unsigned long request,
				     unsigned long value)
{
	return kvm_call_value(c->kvm.calls, c->fd, request, value);
}
/* One call of the set-up; the error names it. */
int arch_vm_do(const struct arch_common *c, unsigned long request, const void *arg,
	       const char *what, struct err *err);

/* slots.c: follow the map of guest memory. */
int arch_slots_listen(struct arch_common *c, struct err *err);

/* Of irq_chip_ops. */
int arch_set_irqfd(const struct arch_common *c, uint32_t gsi, int fd, int resample_fd, bool on);
/* flags: of struct kvm_msi. */
int arch_send_msi(const struct arch_common *c, uint64_t address, uint32_t data, uint32_t flags,
		  uint32_t devid);

/* layout.c: the 64-bit window for BARs, as large as it can be between `end` of RAM and the top of
 * guest address space, at least ARCH_WINDOW_MIN. 0: none fits. */
#define ARCH_WINDOW_MIN (1 * GiB)
uint64_t arch_window_bytes(const struct arch_layout *layout, uint64_t end, uint64_t top);

/* vcpu.c: the area that KVM shares with whoever runs a vCPU; run is MAP_FAILED when there is
 * none. */
struct arch_run {
	struct kvm_run *run;
	size_t bytes;
};
int arch_run_map(struct arch_run *ret, const struct kvm *kvm, int vcpu_fd, unsigned int index,
		 struct err *err);
void arch_run_unmap(struct arch_run *run);

#endif
