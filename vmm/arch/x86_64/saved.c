// SPDX-License-Identifier: Apache-2.0
// vCPUs and the VM as sections of a stream (core/state.h): what KVM's calls return, as it is, since
// these structures are its ABI; the stream says nothing of their insides, and KVM checks them.
//
// The order of loading a vCPU, each after what it depends on:
//   CPUID           what the control registers and MSRs may hold
//   SREGS2          the APIC's base and its mode, EFER
//   NESTED_STATE    wants EFER
//   REGS, XSAVE, XCRS, DEBUGREGS
//   LAPIC           its timer's mode says whether a deadline means anything
//   MSRs            the counter first, the deadline last: it is a value of the counter
//   VCPU_EVENTS     setting registers drops what is pending
//   MP_STATE        events wake a vCPU
// The interrupt controllers of the VM come after all local APICs: the I/O APIC delivers at once
// what it holds pending. Devices come last, and raise their lines again.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/state.h"
#include "x86_64/x86.h"

enum {
	MSRS_MAX = 512,
	XSAVE_BYTES = 16384,
	NESTED_BYTES = 8192,
	MSR_TSC = 0x10,
	MSR_TSC_DEADLINE = 0x6e0,
};

#define KVM_BYTES(type, name) _Alignas(8) uint8_t name[sizeof(struct type)]

struct saved_vcpu {
	uint32_t tsc_khz;
	uint32_t n_cpuid;
	uint32_t xsave_bytes;
	uint32_t n_msrs;
	_Alignas(8) uint8_t cpuid[CPUID_MAX * sizeof(struct kvm_cpuid_entry2)];
	KVM_BYTES(kvm_regs, regs);
	KVM_BYTES(kvm_sregs2, sregs2);
	KVM_BYTES(kvm_xcrs, xcrs);
	KVM_BYTES(kvm_debugregs, debugregs);
	KVM_BYTES(kvm_lapic_state, lapic);
	KVM_BYTES(kvm_vcpu_events, events);
	KVM_BYTES(kvm_mp_state, mp_state);
	_Alignas(8) uint8_t xsave[XSAVE_BYTES];
	_Alignas(8) uint8_t nested[NESTED_BYTES];
	uint32_t msr_index[MSRS_MAX];
	uint64_t msr_value[MSRS_MAX];
};

static const struct state_field vcpu_fields[] = {
	STATE_ONE(struct saved_vcpu, tsc_khz),
	STATE_ONE(struct saved_vcpu, n_cpuid, .max = CPUID_MAX),
	STATE_ONE(struct saved_vcpu, xsave_bytes, .max = XSAVE_BYTES),
	STATE_ONE(struct saved_vcpu, n_msrs, .max = MSRS_MAX),
	STATE_ARRAY(struct saved_vcpu, cpuid),
	STATE_ARRAY(struct saved_vcpu, regs),
	STATE_ARRAY(struct saved_vcpu, sregs2),
	STATE_ARRAY(struct saved_vcpu, xcrs),
	STATE_ARRAY(struct saved_vcpu, debugregs),
	STATE_ARRAY(struct saved_vcpu, lapic),
	STATE_ARRAY(struct saved_vcpu, events),
	STATE_ARRAY(struct saved_vcpu, mp_state),
	STATE_ARRAY(struct saved_vcpu, xsave),
	STATE_ARRAY(struct saved_vcpu, nested),
	STATE_ARRAY(struct saved_vcpu, msr_index),
	STATE_ARRAY(struct saved_vcpu, msr_value),
};
static const struct state_section vcpu_section =
	STATE_SECTION("vcpu", 1, struct saved_vcpu, vcpu_fields);

struct saved_vm {
	_Alignas(8) uint8_t chips[3 * sizeof(struct kvm_irqchip)];
	KVM_BYTES(kvm_pit_state2, pit);
	uint64_t clock_ns;
};

static const struct state_field vm_fields[] = {
	STATE_ARRAY(struct saved_vm, chips),
	STATE_ARRAY(struct saved_vm, pit),
	STATE_ONE(struct saved_vm, clock_ns, .max = INT64_MAX),
};
static const struct state_section vm_section =
	STATE_SECTION("irqchip", 1, struct saved_vm, vm_fields);

/* --- saving a vCPU --- */

static int get_cpuid(struct arch_vcpu *vcpu, struct saved_vcpu *s, struct err *err)
{
	cleanup_free struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	int rc;

	if (!cpuid)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for CPUID", vcpu->index);
	cpuid->nent = CPUID_MAX;
	rc = X86_VCPU_DO(KVM_GET_CPUID2, cpuid);
	if (rc)
		return rc;
	s->n_cpuid = cpuid->nent;
	memcpy(s->cpuid, cpuid->entries, cpuid->nent * sizeof(cpuid->entries[0]));
	return 0;
}

static int get_msrs(struct arch_vcpu *vcpu, struct saved_vcpu *s, struct err *err)
{
	cleanup_free struct kvm_msr_list *list = NULL;
	int rc = x86_msr_list(&vcpu->vm->common.kvm, &list, err);

	if (rc)
		return rc;
	if (list->nmsrs > MSRS_MAX)
		return err_set(err, -E2BIG, "vcpu%u: KVM has %u MSRs; at most %d can be saved",
			       vcpu->index, list->nmsrs, MSRS_MAX);
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		/* KVM names some that this vCPU has not. */
		if (!x86_get_msr(vcpu, list->indices[i], &s->msr_value[s->n_msrs]))
			continue;
		s->msr_index[s->n_msrs++] = list->indices[i];
	}
	return 0;
}

static int get_xsave(struct arch_vcpu *vcpu, struct saved_vcpu *s, struct err *err)
{
	size_t bytes = vcpu->vm->xsave_bytes;

	if (bytes > XSAVE_BYTES)
		return err_set(err, -EOPNOTSUPP,
			       "vcpu%u: %zu bytes of extended state; at most %d can be saved",
			       vcpu->index, bytes, XSAVE_BYTES);
	s->xsave_bytes = (uint32_t)bytes;
	return bytes > sizeof(struct kvm_xsave) ? X86_VCPU_DO(KVM_GET_XSAVE2, s->xsave)
						: X86_VCPU_DO(KVM_GET_XSAVE, s->xsave);
}

static int get_nested(struct arch_vcpu *vcpu, struct saved_vcpu *s, struct err *err)
{
	struct kvm_nested_state *nested = (void *)s->nested;

	if (!x86_vm_has(vcpu->vm, KVM_CAP_NESTED_STATE))
		return 0;
	nested->size = NESTED_BYTES;
	return X86_VCPU_DO(KVM_GET_NESTED_STATE, nested);
}

int arch_vcpu_save(struct arch_vcpu *vcpu, struct state_writer *w, struct err *err)
{
	cleanup_free struct saved_vcpu *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for its state", vcpu->index);
	s->tsc_khz = (uint32_t)MAX(arch_vcpu_call(vcpu, KVM_GET_TSC_KHZ, NULL), 0);
	/* First: it takes in what is pending, as it is seen by the calls after it. */
	if ((rc = X86_VCPU_DO(KVM_GET_MP_STATE, s->mp_state)) || (rc = get_cpuid(vcpu, s, err)) ||
	    (rc = X86_VCPU_DO(KVM_GET_REGS, s->regs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_SREGS2, s->sregs2)) ||
	    (rc = X86_VCPU_DO(KVM_GET_XCRS, s->xcrs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_DEBUGREGS, s->debugregs)) ||
	    (rc = X86_VCPU_DO(KVM_GET_LAPIC, s->lapic)) ||
	    (rc = X86_VCPU_DO(KVM_GET_VCPU_EVENTS, s->events)) || (rc = get_xsave(vcpu, s, err)) ||
	    (rc = get_nested(vcpu, s, err)))
		return rc;
	rc = get_msrs(vcpu, s, err);
	if (!rc)
		state_save(w, &vcpu_section, s, 1);
	return rc;
}

/* --- loading one --- */

/* Features are bits of these; all else in CPUID is a number or a name. */
static const struct {
	uint32_t function, index;
	bool eax, ebx, ecx, edx;
} feature_leaves[] = {
	{0x1, 0, false, false, true, true},         {0x7, 0, false, true, true, true},
	{0x7, 1, true, true, true, true},           {0x7, 2, false, false, false, true},
	{0xd, 0, true, false, false, true},         {0xd, 1, true, false, true, true},
	{0x40000001, 0, true, false, false, true},  {0x80000001, 0, false, false, true, true},
	{0x80000007, 0, false, false, false, true}, {0x80000008, 0, false, true, false, false},
	{0x80000021, 0, true, false, false, false},
};

static const struct kvm_cpuid_entry2 *find_entry(const struct kvm_cpuid_entry2 *entry, uint32_t n,
						 uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < n; i++) {
		if (entry[i].function == function && entry[i].index == index)
			return &entry[i];
	}
	return NULL;
}

static int lacks(const struct arch_vcpu *vcpu, uint32_t function, uint32_t index, const char *name,
		 uint32_t saved, uint32_t here, struct err *err)
{
	if (!(saved & ~here))
		return 0;
	return err_set(err, -ENOTSUP,
		       "vcpu%u: this host's CPUs or KVM lack features that the guest has: CPUID "
		       "0x%x.%u %s, bits 0x%x; use a host that has them",
		       vcpu->index, function, index, name, saved & ~here);
}

/* Bits that are what a guest has switched on, or a topology, and no features. */
static uint32_t of_features(uint32_t function, const char *name, uint32_t value)
{
	enum { OSXSAVE = 1 << 27, OSPKE = 1 << 4, HYPERVISOR = 1u << 31, HTT = 1 << 28 };

	if (function == 1 && !strcmp(name, "ecx"))
		return value & ~((uint32_t)OSXSAVE | (uint32_t)HYPERVISOR | 1u << 24);
	if (function == 1 && !strcmp(name, "edx"))
		return value & ~(uint32_t)HTT;
	if (function == 7 && !strcmp(name, "ecx"))
		return value & ~(uint32_t)OSPKE;
	if (function == 0x80000001 && !strcmp(name, "ecx"))
		return value & ~2u; /* CmpLegacy: a topology */
	return value;
}

static int check_features(const struct arch_vcpu *vcpu, const struct saved_vcpu *s, struct err *err)
{
	const struct kvm_cpuid2 *here = vcpu->vm->cpuid;
	const struct kvm_cpuid_entry2 none = {0};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(feature_leaves) && !rc; i++) {
		uint32_t function = feature_leaves[i].function, index = feature_leaves[i].index;
		const struct kvm_cpuid_entry2 *had, *has;

		had = find_entry((const void *)s->cpuid, s->n_cpuid, function, index);
		has = find_entry(here->entries, here->nent, function, index);
		if (!had)
			continue;
		if (!has)
			has = &none;
		if (feature_leaves[i].eax)
			rc = lacks(vcpu, function, index, "eax", had->eax, has->eax, err);
		if (feature_leaves[i].ebx && !rc)
			rc = lacks(vcpu, function, index, "ebx",
				   of_features(function, "ebx", had->ebx), has->ebx, err);
		if (feature_leaves[i].ecx && !rc)
			rc = lacks(vcpu, function, index, "ecx",
				   of_features(function, "ecx", had->ecx), has->ecx, err);
		if (feature_leaves[i].edx && !rc)
			rc = lacks(vcpu, function, index, "edx",
				   of_features(function, "edx", had->edx), has->edx, err);
	}
	return rc;
}

static int set_cpuid(struct arch_vcpu *vcpu, const struct saved_vcpu *s, struct err *err)
{
	cleanup_free struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	int rc = check_features(vcpu, s, err);

	if (rc)
		return rc;
	if (!cpuid)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for CPUID", vcpu->index);
	cpuid->nent = s->n_cpuid;
	memcpy(cpuid->entries, s->cpuid, s->n_cpuid * sizeof(cpuid->entries[0]));
	return X86_VCPU_DO(KVM_SET_CPUID2, cpuid);
}

/* A counter at another rate: KVM scales it where the hardware can, else catches up in steps. */
static void set_rate(struct arch_vcpu *vcpu, uint32_t khz)
{
	int now = arch_vcpu_call(vcpu, KVM_GET_TSC_KHZ, NULL);

	if (!khz || now == (int)khz)
		return;
	if (kvm_call_value(vcpu->vm->common.kvm.calls, vcpu->fd, KVM_SET_TSC_KHZ, khz) < 0)
		log_warn(
			vcpu->vm->common.log, "vcpu",
			"vcpu%u: its time stamp counter runs at %d kHz here, and at %u kHz where it was "
			"saved",
			vcpu->index, now, khz);
}

static void set_msrs(struct arch_vcpu *vcpu, const struct saved_vcpu *s, uint64_t advance_ns)
{
	uint64_t deadline = 0, now;

	/* Close together, and of the same moment: so KVM keeps the vCPUs' counters in step. */
	for (uint32_t i = 0; i < s->n_msrs; i++) {
		if (s->msr_index[i] == MSR_TSC)
			x86_set_msr(vcpu, MSR_TSC,
				    s->msr_value[i] + advance_ns / 1000000 * s->tsc_khz);
	}
	for (uint32_t i = 0; i < s->n_msrs; i++) {
		uint32_t index = s->msr_index[i];

		if (index == MSR_TSC_DEADLINE)
			deadline = s->msr_value[i];
		if (index == MSR_TSC || index == MSR_TSC_DEADLINE)
			continue;
		/* KVM logs writes that it does not implement, even of the value that it reads. */
		if (x86_get_msr(vcpu, index, &now) && now == s->msr_value[i])
			continue;
		if (x86_set_msr(vcpu, index, s->msr_value[i]))
			log_debug(vcpu->vm->common.log, "vcpu", "vcpu%u: MSR 0x%x stays as it is",
				  vcpu->index, index);
	}
	x86_set_msr(vcpu, MSR_TSC_DEADLINE, deadline);
}

static int set_nested(struct arch_vcpu *vcpu, struct saved_vcpu *s, struct err *err)
{
	struct kvm_nested_state *nested = (void *)s->nested;

	if (!nested->size)
		return 0;
	if (nested->size > NESTED_BYTES)
		return err_set(err, -EPROTO, "vcpu%u: nested state of %u bytes", vcpu->index,
			       nested->size);
	if (!x86_vm_has(vcpu->vm, KVM_CAP_NESTED_STATE))
		return err_set(err, -ENOTSUP,
			       "vcpu%u: this host's KVM knows no state of nested guests",
			       vcpu->index);
	return X86_VCPU_DO(KVM_SET_NESTED_STATE, nested);
}

static int apply(struct arch_vcpu *vcpu, struct saved_vcpu *s, uint64_t advance_ns, struct err *err)
{
	int rc;

	if (s->xsave_bytes > vcpu->vm->xsave_bytes)
		return err_set(err, -ENOTSUP,
			       "vcpu%u: %u bytes of extended state, and this host's KVM takes %zu",
			       vcpu->index, s->xsave_bytes, vcpu->vm->xsave_bytes);
	if ((rc = set_cpuid(vcpu, s, err)))
		return rc;
	set_rate(vcpu, s->tsc_khz);
	if ((rc = X86_VCPU_DO(KVM_SET_SREGS2, s->sregs2)) || (rc = set_nested(vcpu, s, err)) ||
	    (rc = X86_VCPU_DO(KVM_SET_REGS, s->regs)) ||
	    (rc = X86_VCPU_DO(KVM_SET_XSAVE, s->xsave)) ||
	    (rc = X86_VCPU_DO(KVM_SET_XCRS, s->xcrs)) ||
	    (rc = X86_VCPU_DO(KVM_SET_DEBUGREGS, s->debugregs)) ||
	    (rc = X86_VCPU_DO(KVM_SET_LAPIC, s->lapic)))
		return rc;
	set_msrs(vcpu, s, advance_ns);
	if ((rc = X86_VCPU_DO(KVM_SET_VCPU_EVENTS, s->events)))
		return rc;
	return X86_VCPU_DO(KVM_SET_MP_STATE, s->mp_state);
}

int arch_vcpu_load(struct arch_vcpu *vcpu, struct state_reader *r, uint64_t advance_ns,
		   struct err *err)
{
	cleanup_free struct saved_vcpu *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for its state", vcpu->index);
	rc = state_load(r, &vcpu_section, s, 1, err);
	if (!rc)
		rc = state_commit(r, err);
	if (!rc)
		rc = apply(vcpu, s, advance_ns, err);
	vcpu->was_reset = true;
	return rc;
}

/* --- the VM --- */

static int vm_call(struct arch_vm *vm, unsigned long request, void *arg, const char *what,
		   struct err *err)
{
	int rc = x86_vm_call(vm, request, arg);

	return rc < 0 ? err_set(err, rc, "%s: %s", what, err_name(rc)) : 0;
}
#define VM_CALL(request, arg) vm_call(vm, request, arg, #request, err)

int arch_vm_save(struct arch_vm *vm, struct state_writer *w, struct err *err)
{
	struct kvm_clock_data clock = {0};
	struct kvm_irqchip chips[3] = {0};
	struct saved_vm s = {0};
	int rc = VM_CALL(KVM_GET_CLOCK, &clock);

	static_assert(sizeof(chips) == sizeof(s.chips), "all three");
	for (uint32_t i = 0; i < ARRAY_SIZE(chips) && !rc; i++) {
		chips[i].chip_id = i;
		rc = VM_CALL(KVM_GET_IRQCHIP, &chips[i]);
	}
	if (!rc)
		rc = VM_CALL(KVM_GET_PIT2, s.pit);
	if (rc)
		return rc;
	memcpy(s.chips, chips, sizeof(chips));
	s.clock_ns = clock.clock;
	state_save(w, &vm_section, &s, 1);
	return 0;
}

int arch_vm_load(struct arch_vm *vm, struct state_reader *r, uint64_t advance_ns, struct err *err)
{
	struct kvm_irqchip chips[3];
	struct saved_vm s = {0};
	struct kvm_clock_data clock = {0};
	int rc = state_load(r, &vm_section, &s, 1, err);

	if (!rc)
		rc = state_commit(r, err);
	if (rc)
		return rc;
	memcpy(chips, s.chips, sizeof(chips));
	for (uint32_t i = 0; i < ARRAY_SIZE(chips) && !rc; i++) {
		chips[i].chip_id = i;
		rc = VM_CALL(KVM_SET_IRQCHIP, &chips[i]);
	}
	if (!rc)
		rc = VM_CALL(KVM_SET_PIT2, s.pit);
	clock.clock = s.clock_ns + advance_ns;
	return rc ? rc : VM_CALL(KVM_SET_CLOCK, &clock);
}
