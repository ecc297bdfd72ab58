/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of vmm/arch/x86_64. Private to the folder. */
#ifndef X86_64_X86_H
#define X86_64_X86_H

#include <linux/kvm.h>

#include "common/common.h"

enum {
	CPUID_MAX = 256, /* entries asked of KVM */
	/* Four pages that KVM needs on Intel hosts without unrestricted guests: below the reset
	 * vector's ROM and outside all windows of arch_platform_init. */
	IDENTITY_MAP_GPA = 0xfeffc000,
	TSS_GPA = 0xfeffd000,
};

struct arch_vm {
	struct arch_common common;
	struct arch_topology topology;
	unsigned int phys_bits;
	bool tsc_deadline;
	bool triple_fault_event;
	struct kvm_cpuid2 *cpuid; /* supported */
	size_t xsave_bytes;
	/* Power-on state, for arch_vm_reset. */
	struct kvm_irqchip chips[3];
	struct kvm_pit_state2 pit;
};

/* Calls on the VM: at least 0, or a negative errno. */
static inline int x86_vm_call(const struct arch_vm *vm, unsigned long request, const void *arg)
{
	return arch_vm_call(&vm->common, request, arg);
}
/* A capability's value; 0 when there is none. */
static inline int x86_vm_has(const struct arch_vm *vm, unsigned long cap)
{
	return MAX(arch_vm_call_value(&vm->common, KVM_CHECK_EXTENSION, cap), 0);
}
/* All entries KVM supports; free() it. */
int x86_supported_cpuid(const struct kvm *kvm, struct kvm_cpuid2 **ret, struct err *err);

/* The layout as a function of what the host offers: arch_platform_init without the host. */
int x86_layout(struct arch_platform *ret, unsigned int phys_bits, bool amd,
	       const struct arch_layout *layout, struct err *err);

/* One vCPU's state as KVM made it, to return to on reset. */
struct x86_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	void *xsave;           /* vm->xsave_bytes */
	struct kvm_msrs *msrs; /* those that could be read */
};

struct arch_vcpu {
	struct arch_vm *vm;
	unsigned int index;
	int fd;
	struct arch_run area;
	bool was_reset;
	struct x86_state power_on;
};

/* state.c */
int x86_state_save(struct arch_vcpu *vcpu, struct x86_state *ret, struct err *err);
int x86_state_load(struct arch_vcpu *vcpu, const struct x86_state *state, struct err *err);
void x86_state_done(struct x86_state *state);
/* Set one MSR; 0 or a negative errno. */
int x86_set_msr(struct arch_vcpu *vcpu, uint32_t index, uint64_t value);
/* An ioctl on the vCPU, with a message when it fails. */
int x86_vcpu_do(struct arch_vcpu *vcpu, unsigned long request, void *arg, const char *what,
		struct err *err);
#define X86_VCPU_DO(request, arg) x86_vcpu_do(vcpu, request, arg, #request, err)
/* The MSRs that KVM names; free() it. */
int x86_msr_list(const struct kvm *kvm, struct kvm_msr_list **ret, struct err *err);
/* False: it cannot be read. */
bool x86_get_msr(struct arch_vcpu *vcpu, uint32_t index, uint64_t *value);

/* debug.c: where 64-bit page tables of 4 or 5 levels have this address, whoever may use it. 0 or
 * -EFAULT. */
int x86_walk(const struct gmem *gmem, uint64_t cr3, unsigned int levels, uint64_t gva,
	     uint64_t *gpa);

/* entry.c: change power-on registers into those of an entry mode; writes the GDT. */
int x86_entry_apply(struct arch_vm *vm, const struct arch_entry *entry, struct kvm_regs *regs,
		    struct kvm_sregs *sregs, struct err *err);

#endif
