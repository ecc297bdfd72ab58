// SPDX-License-Identifier: Apache-2.0
// A vCPU's state as a whole: saved once when KVM has made it, loaded again at each reset. So reset
// means what KVM means by power-on, without a table of architectural defaults of our own.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "x86_64/x86.h"

enum {
	MSR_TSC = 0x10,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MISC_ENABLE_FAST_STRINGS = 1,
	MTRR_ENABLED_WRITE_BACK = 0x806,
};

int x86_vcpu_do(struct arch_vcpu *vcpu, unsigned long request, void *arg, const char *what,
		struct err *err)
{
	int rc = arch_vcpu_call(vcpu, request, arg);

	return rc < 0 ? err_set(err, rc, "vcpu%u: %s: %s", vcpu->index, what, err_name(rc)) : 0;
}

int x86_set_msr(struct arch_vcpu *vcpu, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = {.head.nmsrs = 1, .entry = {.index = index, .data = value}};
	int n = arch_vcpu_call(vcpu, KVM_SET_MSRS, &msrs);

	return n == 1 ? 0 : n < 0 ? n : -EINVAL;
}

bool x86_get_msr(struct arch_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = {.head.nmsrs = 1, .entry = {.index = index}};

	if (arch_vcpu_call(vcpu, KVM_GET_MSRS, &msrs) != 1)
		return false;
	*value = msrs.entry.data;
	return true;
}

int x86_msr_list(const struct kvm *kvm, struct kvm_msr_list **ret, struct err *err)
{
	struct kvm_msr_list probe = {.nmsrs = 0}, *list;
	int rc;

	if (kvm_call(kvm->calls, kvm->fd, KVM_GET_MSR_INDEX_LIST, &probe) != -E2BIG)
		return err_set(err, -EINVAL, "KVM_GET_MSR_INDEX_LIST: unexpected answer");
	list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
	if (!list)
		return err_set(err, -ENOMEM, "no memory for MSRs");
	list->nmsrs = probe.nmsrs;
	rc = kvm_call(kvm->calls, kvm->fd, KVM_GET_MSR_INDEX_LIST, list);
	if (rc) {
		free(list);
		return err_set(err, rc, "KVM_GET_MSR_INDEX_LIST: %s", err_name(rc));
	}
	*ret = list;
	return 0;
}

/* Of the MSRs that KVM names, those this vCPU has: KVM_GET_MSRS stops at the first it has not. */
static int save_msrs(struct arch_vcpu *vcpu, struct x86_state *ret, struct err *err)
{
	cleanup_free struct kvm_msr_list *list = NULL;
	int rc = x86_msr_list(&vcpu->vm->common.kvm, &list, err);

	if (rc)
		return rc;
	ret->msrs = calloc(1, sizeof(*ret->msrs) + list->nmsrs * sizeof(struct kvm_msr_entry));
	if (!ret->msrs)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for MSRs", vcpu->index);
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		struct kvm_msr_entry *e = &ret->msrs->entries[ret->msrs->nmsrs];

		e->index = list->indices[i];
		/* The TSC runs, and the deadline belongs to the timer: see load. */
		if (e->index != MSR_TSC && e->index != MSR_TSC_DEADLINE &&
		    x86_get_msr(vcpu, e->index, (uint64_t *)&e->data))
			ret->msrs->nmsrs++;
	}
	return 0;
}

int x86_state_save(struct arch_vcpu *vcpu, struct x86_state *ret, struct err *err)
{
	bool big = vcpu->vm->xsave_bytes > sizeof(struct kvm_xsave);
	int rc;

	ret->xsave = calloc(1, vcpu->vm->xsave_bytes);
	if (!ret->xsave)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for its state", vcpu->index);
	if ((rc = X86_VCPU_DO(KVM_GET_REGS, &ret->regs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_SREGS, &ret->sregs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_XCRS, &ret->xcrs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_DEBUGREGS, &ret->debugregs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_LAPIC, &ret->lapic)) ||
	    (rc = X86_VCPU_DO(KVM_GET_VCPU_EVENTS, &ret->events)) ||
	    (rc = X86_VCPU_DO(KVM_GET_MP_STATE, &ret->mp_state)) ||
	    (rc = big ? X86_VCPU_DO(KVM_GET_XSAVE2, ret->xsave)
		      : X86_VCPU_DO(KVM_GET_XSAVE, ret->xsave)))
		return rc;
	return save_msrs(vcpu, ret, err);
}

/* Write those that differ: KVM logs writes it does not implement, even of the value that it reads.
 * In one call while it works; KVM stops at those that can be read but not written. */
static int load_msrs(struct arch_vcpu *vcpu, const struct kvm_msrs *want, struct err *err)
{
	size_t bytes = sizeof(*want) + want->nmsrs * sizeof(struct kvm_msr_entry);
	cleanup_free struct kvm_msrs *now = malloc(bytes), *part = malloc(bytes);
	uint32_t n = 0, done = 0;
	int rc;

	if (!now || !part)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for MSRs", vcpu->index);
	memcpy(now, want, bytes);
	rc = arch_vcpu_call(vcpu, KVM_GET_MSRS, now);
	if (rc != (int)want->nmsrs)
		return err_set(err, rc < 0 ? rc : -EIO, "vcpu%u: MSRs cannot be read again",
			       vcpu->index);
	for (uint32_t i = 0; i < want->nmsrs; i++) {
		if (now->entries[i].data != want->entries[i].data)
			now->entries[n++] = want->entries[i];
	}
	while (done < n) {
		part->nmsrs = n - done;
		part->pad = 0;
		memcpy(part->entries, now->entries + done,
		       part->nmsrs * sizeof(struct kvm_msr_entry));
		rc = MAX(arch_vcpu_call(vcpu, KVM_SET_MSRS, part), 0);
		if ((uint32_t)rc < part->nmsrs) {
			log_debug(vcpu->vm->common.log, "vcpu", "vcpu%u: MSR 0x%x stays as it is",
				  vcpu->index, part->entries[rc].index);
			done++;
		}
		done += (uint32_t)rc;
	}
	return 0;
}

/* The order matters: the APIC's base (sregs) before its registers, CPUID-dependent control
 * registers before the MSRs they permit, the multiprocessing state after pending events are
 * cleared. */
int x86_state_load(struct arch_vcpu *vcpu, const struct x86_state *state, struct err *err)
{
	struct kvm_vcpu_events events = state->events;
	struct x86_state *s =
		(struct x86_state *)(uintptr_t)state; /* ioctl's argument is not const */
	int rc;

	events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
		       KVM_VCPUEVENT_VALID_SHADOW | (state->events.flags & KVM_VCPUEVENT_VALID_SMM);
	if (vcpu->vm->triple_fault_event)
		events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	if ((rc = X86_VCPU_DO(KVM_SET_SREGS, &s->sregs)) ||
	    (rc = X86_VCPU_DO(KVM_SET_REGS, &s->regs)) ||
	    (rc = X86_VCPU_DO(KVM_SET_XSAVE, s->xsave)) ||
	    (rc = X86_VCPU_DO(KVM_SET_XCRS, &s->xcrs)) ||
	    (rc = X86_VCPU_DO(KVM_SET_DEBUGREGS, &s->debugregs)))
		return rc;
	if (vcpu->was_reset && (rc = load_msrs(vcpu, state->msrs, err)))
		return rc;
	if ((rc = X86_VCPU_DO(KVM_SET_LAPIC, &s->lapic)))
		return rc;
	/* After the APIC: its timer mode decides whether a deadline means anything. */
	x86_set_msr(vcpu, MSR_TSC_DEADLINE, 0);
	x86_set_msr(vcpu, MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRINGS);
	x86_set_msr(vcpu, MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK);
	if (vcpu->was_reset)
		/* Equal writes close together make KVM synchronise the vCPUs' counters. */
		x86_set_msr(vcpu, MSR_TSC, 0);
	if ((rc = X86_VCPU_DO(KVM_SET_VCPU_EVENTS, &events)))
		return rc;
	return X86_VCPU_DO(KVM_SET_MP_STATE, &s->mp_state);
}

void x86_state_done(struct x86_state *state)
{
	free(state->xsave);
	free(state->msrs);
	state->xsave = NULL;
	state->msrs = NULL;
}
