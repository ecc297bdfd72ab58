// SPDX-License-Identifier: Apache-2.0
// One vCPU of KVM on arm64: creation, reset, entry, and its registers as text. See core/arch.h.
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "aarch64/arm64.h"
#include "base/fd.h"
#include "base/mem.h"

/* The number of a core register (Linux Documentation/virt/kvm/api.rst, 4.68), all of 64 bits. */
#define CORE_REG(field) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))

static int set_reg(const struct arch_vcpu *vcpu, uint64_t id, uint64_t value)
{
	const struct kvm_one_reg arg = {.id = id, .addr = (uintptr_t)&value};

	return arch_vcpu_call(vcpu, KVM_SET_ONE_REG, &arg);
}

static int get_reg(const struct arch_vcpu *vcpu, uint64_t id, uint64_t *value)
{
	const struct kvm_one_reg arg = {.id = id, .addr = (uintptr_t)value};

	return arch_vcpu_call(vcpu, KVM_GET_ONE_REG, &arg);
}

int arch_vcpu_create(struct arch_vcpu **ret, struct arch_vm *vm, unsigned int index,
		     struct err *err)
{
	struct arch_vcpu *vcpu;
	int rc;

	if (index >= vm->topology.cpus || vm->vcpu_fds[index] < 0)
		return err_set(err, -EINVAL, "vcpu%u: this machine has none, or one already",
			       index);
	if (!mem_new(vcpu))
		return err_set(err, -ENOMEM, "vcpu%u: no memory", index);
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->fd = vm->vcpu_fds[index];
	vm->vcpu_fds[index] = -1;
	rc = arch_run_map(&vcpu->area, &vm->common.kvm, vcpu->fd, index, err);
	if (rc)
		arch_vcpu_destroy(vcpu);
	else
		*ret = vcpu;
	return rc;
}

void arch_vcpu_destroy(struct arch_vcpu *vcpu)
{
	if (!vcpu)
		return;
	arch_run_unmap(&vcpu->area);
	fd_close(&vcpu->fd);
	free(vcpu);
}

int arch_vcpu_call(const struct arch_vcpu *vcpu, unsigned long request, const void *arg)
{
	return kvm_call(vcpu->vm->common.kvm.calls, vcpu->fd, request, arg);
}

struct kvm_run *arch_vcpu_run(const struct arch_vcpu *vcpu)
{
	return vcpu->area.run;
}

int arch_vcpu_reset(struct arch_vcpu *vcpu, const struct arch_entry *entry, struct err *err)
{
	struct kvm_vcpu_init init = vcpu->vm->init;
	int rc;

	if (entry && entry->mode != ARCH_ENTRY_IMAGE)
		return err_set(err, -EINVAL, "entry mode %d is not arm64's", (int)entry->mode);
	/* All but the first wait for PSCI's CPU_ON. */
	if (!entry)
		init.features[0] |= 1u << KVM_ARM_VCPU_POWER_OFF;
	rc = arch_vcpu_call(vcpu, KVM_ARM_VCPU_INIT, &init);
	if (!rc && entry)
		rc = set_reg(vcpu, CORE_REG(regs.pc), entry->pc);
	if (!rc && entry)
		rc = set_reg(vcpu, CORE_REG(regs.regs[0]), entry->fdt_gpa);
	return rc ? err_set(err, rc, "vcpu%u: KVM_ARM_VCPU_INIT and its first registers: %s",
			    vcpu->index, err_name(rc))
		  : 0;
}

void arch_vcpu_resumed(struct arch_vcpu *vcpu)
{
	/* A guest's watchdogs look at stolen time, which it has none of. */
	(void)vcpu;
}

int arch_vcpu_dump(struct arch_vcpu *vcpu, char *text, unsigned int bytes)
{
	static const struct {
		const char *name;
		uint64_t id;
	} regs[] = {
		{"pc", CORE_REG(regs.pc)},
		{"pstate", CORE_REG(regs.pstate)},
		{"sp_el0", CORE_REG(regs.sp)},
		{"sp_el1", CORE_REG(sp_el1)},
		{"elr_el1", CORE_REG(elr_el1)},
		{"esr_el1", ARM64_SYS_REG(3, 0, 5, 2, 0)},
		{"far_el1", ARM64_SYS_REG(3, 0, 6, 0, 0)},
		{"sctlr_el1", ARM64_SYS_REG(3, 0, 1, 0, 0)},
		{"ttbr0_el1", ARM64_SYS_REG(3, 0, 2, 0, 0)},
		{"ttbr1_el1", ARM64_SYS_REG(3, 0, 2, 0, 1)},
		{"vbar_el1", ARM64_SYS_REG(3, 0, 12, 0, 0)},
	};
	struct kvm_mp_state mp = {0};
	unsigned int used = 0;
	uint64_t value;

#define PUT(...) \
	(used += used < bytes ? (unsigned int)snprintf(text + used, bytes - used, __VA_ARGS__) : 0)
	if (!bytes)
		return 0;
	*text = '\0';
	if (arch_vcpu_call(vcpu, KVM_GET_MP_STATE, &mp)) {
		PUT("vCPU %u: its registers cannot be read\n", vcpu->index);
		return (int)MIN(used, bytes - 1);
	}
	PUT("vCPU %u: %s\n", vcpu->index, mp.mp_state == KVM_MP_STATE_STOPPED ? "off" : "on");
	for (unsigned int i = 0; i < 31; i++) {
		/* The ids of x0 to x30 follow each other, two words apart. */
		if (!get_reg(vcpu, CORE_REG(regs.regs[0]) + 2ul * i, &value))
			PUT("x%-2u %016llx%c", i, (unsigned long long)value,
			    i % 4 == 3 ? '\n' : ' ');
	}
	PUT("\n");
	for (unsigned int i = 0; i < ARRAY_SIZE(regs); i++) {
		if (!get_reg(vcpu, regs[i].id, &value))
			PUT("%s %016llx%c", regs[i].name, (unsigned long long)value,
			    i % 3 == 2 ? '\n' : ' ');
	}
	PUT("\n");
#undef PUT
	return (int)MIN(used, bytes - 1);
}
