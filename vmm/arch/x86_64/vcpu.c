// SPDX-License-Identifier: Apache-2.0
// One vCPU of KVM: creation, reset, and its registers as text. See core/arch.h.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "x86_64/cpuid.h"
#include "x86_64/x86.h"

/* The rate of the host's counter, as the kernel knows it now (see vm.c); 0 when it will not say. */
static uint32_t set_tsc(struct arch_vcpu *vcpu)
{
	int rc = arch_vcpu_call(vcpu, KVM_SET_TSC_KHZ, NULL);

	if (rc)
		log_debug(vcpu->vm->common.log, "vcpu", "vcpu%u: KVM_SET_TSC_KHZ: %s", vcpu->index,
			  err_name(rc));
	return (uint32_t)MAX(arch_vcpu_call(vcpu, KVM_GET_TSC_KHZ, NULL), 0);
}

static int set_cpuid(struct arch_vcpu *vcpu, struct err *err)
{
	struct arch_vm *vm = vcpu->vm;
	struct cpuid_params params = {
		.topology = vm->topology,
		.index = vcpu->index,
		.phys_bits = vm->phys_bits,
		.tsc_khz = set_tsc(vcpu),
		.tsc_deadline = vm->tsc_deadline,
	};
	cleanup_free struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + (CPUID_MAX + CPUID_SPARE) * sizeof(cpuid->entries[0]));
	int rc;

	if (!cpuid)
		return err_set(err, -ENOMEM, "vcpu%u: no memory for CPUID", vcpu->index);
	cpuid_build(cpuid, vm->cpuid, &params);
	rc = arch_vcpu_call(vcpu, KVM_SET_CPUID2, cpuid);
	return rc ? err_set(err, rc, "vcpu%u: KVM_SET_CPUID2: %s", vcpu->index, err_name(rc)) : 0;
}

int arch_vcpu_create(struct arch_vcpu **ret, struct arch_vm *vm, unsigned int index,
		     struct err *err)
{
	struct arch_vcpu *vcpu;
	int rc;

	if (!mem_new(vcpu))
		return err_set(err, -ENOMEM, "vcpu%u: no memory", index);
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->area.run = MAP_FAILED;
	vcpu->fd = -1;
	rc = arch_vm_call_value(&vm->common, KVM_CREATE_VCPU, arch_cpu_id(&vm->topology, index));
	if (rc < 0) {
		err_set(err, rc, "vcpu%u: KVM_CREATE_VCPU: %s", index, err_name(rc));
		goto fail;
	}
	vcpu->fd = rc;
	rc = arch_run_map(&vcpu->area, &vm->common.kvm, vcpu->fd, index, err);
	if (rc)
		goto fail;
	rc = set_cpuid(vcpu, err);
	if (!rc)
		rc = x86_state_save(vcpu, &vcpu->power_on, err);
	if (rc)
		goto fail;
	*ret = vcpu;
	return 0;
fail:
	arch_vcpu_destroy(vcpu);
	return rc;
}

void arch_vcpu_destroy(struct arch_vcpu *vcpu)
{
	if (!vcpu)
		return;
	arch_run_unmap(&vcpu->area);
	fd_close(&vcpu->fd);
	x86_state_done(&vcpu->power_on);
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
	struct x86_state state = vcpu->power_on; /* borrows its buffers */
	int rc = 0;

	if (entry) {
		rc = x86_entry_apply(vcpu->vm, entry, &state.regs, &state.sregs, err);
		state.mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
	}
	if (!rc)
		rc = x86_state_load(vcpu, &state, err);
	vcpu->was_reset = true;
	return rc;
}

void arch_vcpu_resumed(struct arch_vcpu *vcpu)
{
	/* EINVAL: the guest does not use kvmclock. */
	(void)arch_vcpu_call(vcpu, KVM_KVMCLOCK_CTRL, NULL);
}

/* --- registers as text --- */

struct text {
	char *at;
	size_t left;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at, t->left, fmt, ap);
	va_end(ap);
	n = n < 0 ? 0 : (int)MIN((size_t)n, t->left - 1);
	t->at += n;
	t->left -= (size_t)n;
}

static void put_segment(struct text *t, const char *name, const struct kvm_segment *s)
{
	put(t, "%s %04x base %llx limit %x type %x s %u dpl %u p %u l %u db %u g %u\n", name,
	    s->selector, s->base, s->limit, s->type, s->s, s->dpl, s->present, s->l, s->db, s->g);
}

static void put_code(struct text *t, struct arch_vcpu *vcpu, uint64_t linear)
{
	struct kvm_translation tr = {.linear_address = linear};
	uint8_t code[16];

	if (arch_vcpu_call(vcpu, KVM_TRANSLATE, &tr) || !tr.valid ||
	    gmem_read(vcpu->vm->common.gmem, tr.physical_address, code, sizeof(code))) {
		put(t, "code at %llx: not readable\n", (unsigned long long)linear);
		return;
	}
	put(t, "code at %llx (gpa %llx):", (unsigned long long)linear, tr.physical_address);
	for (size_t i = 0; i < sizeof(code); i++)
		put(t, " %02x", code[i]);
	put(t, "\n");
}

static void put_events(struct text *t, struct arch_vcpu *vcpu)
{
	struct kvm_vcpu_events e = {0};
	struct kvm_mp_state mp;

	if (!arch_vcpu_call(vcpu, KVM_GET_VCPU_EVENTS, &e))
		put(t,
		    "exception %u vector %u error %x, interrupt %u vector %u, nmi %u/%u, smm %u\n",
		    e.exception.injected, e.exception.nr, e.exception.error_code,
		    e.interrupt.injected, e.interrupt.nr, e.nmi.injected, e.nmi.pending, e.smi.smm);
	if (!arch_vcpu_call(vcpu, KVM_GET_MP_STATE, &mp))
		put(t, "mp state %u\n", mp.mp_state);
}

int arch_vcpu_dump(struct arch_vcpu *vcpu, char *text, unsigned int bytes)
{
	struct text t = {text, bytes};
	struct kvm_sregs s = {0};
	struct kvm_regs r = {0};

	if (!bytes)
		return 0;
	*text = '\0';
	if (arch_vcpu_call(vcpu, KVM_GET_REGS, &r) || arch_vcpu_call(vcpu, KVM_GET_SREGS, &s)) {
		put(&t, "vCPU %u: its registers cannot be read\n", vcpu->index);
		return (int)(t.at - text);
	}
	put(&t, "vCPU %u: rip %016llx rflags %08llx\n", vcpu->index, r.rip, r.rflags);
	put(&t, "rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", r.rax, r.rbx, r.rcx, r.rdx);
	put(&t, "rsi %016llx rdi %016llx rsp %016llx rbp %016llx\n", r.rsi, r.rdi, r.rsp, r.rbp);
	put(&t, "r8  %016llx r9  %016llx r10 %016llx r11 %016llx\n", r.r8, r.r9, r.r10, r.r11);
	put(&t, "r12 %016llx r13 %016llx r14 %016llx r15 %016llx\n", r.r12, r.r13, r.r14, r.r15);
	put(&t, "cr0 %llx cr2 %llx cr3 %llx cr4 %llx cr8 %llx efer %llx apic base %llx\n", s.cr0,
	    s.cr2, s.cr3, s.cr4, s.cr8, s.efer, s.apic_base);
	put_segment(&t, "cs", &s.cs);
	put_segment(&t, "ss", &s.ss);
	put_segment(&t, "ds", &s.ds);
	put_segment(&t, "tr", &s.tr);
	put(&t, "gdt %llx + %x idt %llx + %x\n", s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit);
	put_events(&t, vcpu);
	put_code(&t, vcpu, s.cs.l ? r.rip : s.cs.base + r.rip);
	return (int)(t.at - text);
}
