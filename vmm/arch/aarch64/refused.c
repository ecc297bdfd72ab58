// SPDX-License-Identifier: Apache-2.0
// What arch_has() says that machines on arm64 lack as yet: nobody gets here, and whoever does is
// refused.
#include <errno.h>

#include "aarch64/arm64.h"
#include "core/debug.h"
#include "core/state.h"

static int no_state(struct err *err)
{
	return err_set(err, -EOPNOTSUPP, "snapshots of guests on arm64 are not there yet");
}

int arch_vcpu_save(struct arch_vcpu *vcpu, struct state_writer *w, struct err *err)
{
	(void)vcpu;
	(void)w;
	return no_state(err);
}

int arch_vcpu_load(struct arch_vcpu *vcpu, struct state_reader *r, uint64_t advance_ns,
		   struct err *err)
{
	(void)vcpu;
	(void)r;
	(void)advance_ns;
	return no_state(err);
}

int arch_vm_save(struct arch_vm *vm, struct state_writer *w, struct err *err)
{
	(void)vm;
	(void)w;
	return no_state(err);
}

int arch_vm_load(struct arch_vm *vm, struct state_reader *r, uint64_t advance_ns, struct err *err)
{
	(void)vm;
	(void)r;
	(void)advance_ns;
	return no_state(err);
}

const uint8_t arch_debug_trap[DEBUG_TRAP_BYTES];
const uint16_t arch_debug_elf_machine = 183; /* EM_AARCH64 */

int arch_debug_check(const struct arch_vm *vm, struct err *err)
{
	(void)vm;
	return err_set(err, -EOPNOTSUPP, "debugging of guests on arm64 is not there yet");
}

int arch_debug_set(struct arch_vcpu *vcpu, const struct debug_setup *setup)
{
	(void)vcpu;
	(void)setup;
	return -EOPNOTSUPP;
}

int arch_debug_give_trap(struct arch_vcpu *vcpu, const struct debug_setup *setup)
{
	(void)vcpu;
	(void)setup;
	return -EOPNOTSUPP;
}

void arch_debug_why(const struct arch_vcpu *vcpu, const struct debug_setup *setup,
		    struct debug_stop *ret)
{
	(void)vcpu;
	(void)setup;
	*ret = (struct debug_stop){.cause = DEBUG_TRAPPED};
}

unsigned int arch_debug_regs(struct debug_reg regs[DEBUG_REGS])
{
	(void)regs;
	return 0;
}

void arch_debug_describe(char text[DEBUG_TEXT])
{
	*text = '\0';
}

int arch_debug_get_regs(struct arch_vcpu *vcpu, uint8_t regs[DEBUG_REGS_BYTES])
{
	(void)vcpu;
	(void)regs;
	return -EOPNOTSUPP;
}

int arch_debug_set_regs(struct arch_vcpu *vcpu, const uint8_t regs[DEBUG_REGS_BYTES])
{
	(void)vcpu;
	(void)regs;
	return -EOPNOTSUPP;
}

int arch_debug_status(struct arch_vcpu *vcpu, uint8_t status[DEBUG_STATUS_BYTES])
{
	(void)vcpu;
	(void)status;
	return -EOPNOTSUPP;
}

int arch_debug_translate(struct arch_vcpu *vcpu, uint64_t gva, uint64_t *gpa)
{
	(void)vcpu;
	(void)gva;
	(void)gpa;
	return -EFAULT;
}

bool arch_debug_waits(struct arch_vcpu *vcpu)
{
	struct kvm_mp_state mp = {0};

	return !arch_vcpu_call(vcpu, KVM_GET_MP_STATE, &mp) && mp.mp_state == KVM_MP_STATE_STOPPED;
}
