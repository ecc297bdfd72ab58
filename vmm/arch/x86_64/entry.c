// SPDX-License-Identifier: Apache-2.0
// CPU state at the entry of a boot protocol (Linux Documentation/arch/x86/boot.rst, 64-bit
// protocol; Xen's PVH start of day, docs/misc/pvh).
#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "x86_64/x86.h"

enum {
	CR0_PE = 1 << 0,
	CR0_MP = 1 << 1,
	CR0_ET = 1 << 4,
	CR0_NE = 1 << 5,
	CR0_WP = 1 << 16,
	CR0_AM = 1 << 18,
	CR4_PAE = 1 << 5,
	EFER_LME = 1 << 8,
	EFER_LMA = 1 << 10,
	SELECTOR_CODE = 0x10, /* __BOOT_CS and __BOOT_DS */
	SELECTOR_DATA = 0x18,
	SELECTOR_TASK = 0x20, /* two entries in long mode */
	TYPE_CODE = 0xb,      /* execute, read, accessed */
	TYPE_DATA = 0x3,      /* read, write, accessed */
	TYPE_TSS = 0xb,       /* busy */
	GDT_ENTRIES = 8,
};
static const uint64_t CR0_PG = 1ull << 31;

static struct kvm_segment flat(uint16_t selector, uint8_t type, bool long_mode)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.db = type == TYPE_DATA || !long_mode,
		.l = type == TYPE_CODE && long_mode,
		.g = 1,
	};
}

/* Intel SDM 3A, 3.4.5. */
static uint64_t descriptor(const struct kvm_segment *seg)
{
	uint64_t limit = seg->g ? seg->limit >> 12 : seg->limit;

	return (limit & 0xffff) | (seg->base & 0xffffff) << 16 | (uint64_t)seg->type << 40 |
	       (uint64_t)seg->s << 44 | (uint64_t)seg->dpl << 45 | (uint64_t)seg->present << 47 |
	       (limit >> 16 & 0xf) << 48 | (uint64_t)seg->l << 53 | (uint64_t)seg->db << 54 |
	       (uint64_t)seg->g << 55 | (seg->base >> 24 & 0xff) << 56;
}

static int protected_segments(struct arch_vm *vm, const struct arch_entry *entry, bool long_mode,
			      struct kvm_sregs *s, struct err *err)
{
	le64 gdt[GDT_ENTRIES] = {{0}};

	s->cs = flat(SELECTOR_CODE, TYPE_CODE, long_mode);
	s->ds = s->es = s->fs = s->gs = s->ss = flat(SELECTOR_DATA, TYPE_DATA, long_mode);
	s->tr = (struct kvm_segment){
		.limit = 0x67,
		.selector = SELECTOR_TASK,
		.type = TYPE_TSS,
		.present = 1,
	};
	s->ldt = (struct kvm_segment){.unusable = 1};
	s->gdt.base = entry->gdt_gpa;
	s->gdt.limit = sizeof(gdt) - 1;
	s->idt.base = 0;
	s->idt.limit = 0;
	gdt[SELECTOR_CODE / 8] = le64_of(descriptor(&s->cs));
	gdt[SELECTOR_DATA / 8] = le64_of(descriptor(&s->ds));
	gdt[SELECTOR_TASK / 8] = le64_of(descriptor(&s->tr));
	if (gmem_write(vm->common.gmem, entry->gdt_gpa, gdt, sizeof(gdt)))
		return err_set(err, -EFAULT, "no guest memory at 0x%llx for the entry's GDT",
			       (unsigned long long)entry->gdt_gpa);
	return 0;
}

static int real_segments(const struct arch_entry *entry, struct kvm_regs *regs, struct kvm_sregs *s,
			 struct err *err)
{
	struct kvm_segment data = s->ds;

	if (entry->rip > 0xfffff)
		return err_set(err, -EINVAL, "a real-mode entry at 0x%llx is above 1 MiB",
			       (unsigned long long)entry->rip);
	s->cs.selector = (uint16_t)(entry->rip >> 4 & 0xf000);
	s->cs.base = (uint64_t)s->cs.selector << 4;
	regs->rip = entry->rip - s->cs.base;
	data.selector = 0;
	data.base = 0;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	return 0;
}

int x86_entry_apply(struct arch_vm *vm, const struct arch_entry *entry, struct kvm_regs *regs,
		    struct kvm_sregs *sregs, struct err *err)
{
	memset(regs, 0, sizeof(*regs));
	regs->rflags = 2;
	regs->rip = entry->rip;
	regs->rsp = entry->rsp;
	regs->rsi = entry->rsi;
	regs->rbx = entry->rbx;
	switch (entry->mode) {
	case ARCH_ENTRY_LONG:
		sregs->cr0 = CR0_PG | CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM;
		sregs->cr3 = entry->cr3;
		sregs->cr4 = CR4_PAE;
		sregs->efer = EFER_LME | EFER_LMA;
		return protected_segments(vm, entry, true, sregs, err);
	case ARCH_ENTRY_PROT:
		sregs->cr0 = CR0_PE | CR0_ET;
		sregs->cr4 = 0;
		sregs->efer = 0;
		return protected_segments(vm, entry, false, sregs, err);
	case ARCH_ENTRY_REAL:
		return real_segments(entry, regs, sregs, err);
	case ARCH_ENTRY_IMAGE:
		break;
	}
	return err_set(err, -EINVAL, "entry mode %d", (int)entry->mode);
}
