// SPDX-License-Identifier: Apache-2.0
// Debugging of a vCPU by KVM_SET_GUEST_DEBUG: its registers as gdb numbers them, debug registers,
// single steps. See core/debug.h.
#include "core/debug.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include "base/num.h"
#include "x86_64/x86.h"

const uint8_t arch_debug_trap[DEBUG_TRAP_BYTES] = {0xcc}; /* int3 */

enum { EXCEPTION_BP = 3 };

/* --- registers --- */

struct values {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	uint16_t tags; /* of the FPU, two bits each; KVM has one */
};

enum group { GROUP_CORE, GROUP_SSE, GROUP_SEGMENTS, GROUP_CONTROL };

/* The names and their order are gdb's ("i386 Features"), but for those of the last. */
static const struct {
	const char *name, *types;
} groups[] = {
	[GROUP_CORE] = {"org.gnu.gdb.i386.core",
			"<flags id=\"i386_eflags\" size=\"4\">"
			"<field name=\"CF\" start=\"0\" end=\"0\"/>"
			"<field name=\"PF\" start=\"2\" end=\"2\"/>"
			"<field name=\"AF\" start=\"4\" end=\"4\"/>"
			"<field name=\"ZF\" start=\"6\" end=\"6\"/>"
			"<field name=\"SF\" start=\"7\" end=\"7\"/>"
			"<field name=\"TF\" start=\"8\" end=\"8\"/>"
			"<field name=\"IF\" start=\"9\" end=\"9\"/>"
			"<field name=\"DF\" start=\"10\" end=\"10\"/>"
			"<field name=\"OF\" start=\"11\" end=\"11\"/>"
			"<field name=\"NT\" start=\"14\" end=\"14\"/>"
			"<field name=\"AC\" start=\"18\" end=\"18\"/></flags>"},
	[GROUP_SSE] = {"org.gnu.gdb.i386.sse",
		       "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
		       "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
		       "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
		       "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
		       "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
		       "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
		       "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
		       "<field name=\"v2_double\" type=\"v2d\"/>"
		       "<field name=\"v16_int8\" type=\"v16i8\"/>"
		       "<field name=\"v8_int16\" type=\"v8i16\"/>"
		       "<field name=\"v4_int32\" type=\"v4i32\"/>"
		       "<field name=\"v2_int64\" type=\"v2i64\"/>"
		       "<field name=\"uint128\" type=\"uint128\"/></union>"},
	[GROUP_SEGMENTS] = {"org.gnu.gdb.i386.segments", ""},
	[GROUP_CONTROL] = {"org.hospes.x86.control", ""},
};

struct row {
	const char *name, *type;
	uint16_t bytes;      /* for gdb */
	uint16_t from, kept; /* in struct values: where, and how many bytes; what is beyond is 0 */
	uint8_t group;
	bool constant; /* gdb may not change it */
};

#define KEPT(member) \
	.from = offsetof(struct values, member), .kept = sizeof(((struct values *)0)->member)
#define INTEGER(name_, member) {#name_, "int64", 8, KEPT(regs.member)}
#define SELECTOR(name_)        {#name_, "int32", 4, KEPT(sregs.name_.selector), .constant = true}
#define STACK(n)               {"st" #n, "i387_ext", 10, .from = offsetof(struct values, fpu.fpr[n]), .kept = 10}
#define FPU(name_, member)     {#name_, "int", 4, KEPT(member)}
#define VECTOR(n)              {"xmm" #n, "vec128", 16, KEPT(fpu.xmm[n]), .group = GROUP_SSE}
#define CONTROL(name_)         {#name_, "int64", 8, KEPT(sregs.name_), .group = GROUP_CONTROL}

static const struct row rows[] = {
	INTEGER(rax, rax),
	INTEGER(rbx, rbx),
	INTEGER(rcx, rcx),
	INTEGER(rdx, rdx),
	INTEGER(rsi, rsi),
	INTEGER(rdi, rdi),
	{"rbp", "data_ptr", 8, KEPT(regs.rbp)},
	{"rsp", "data_ptr", 8, KEPT(regs.rsp)},
	INTEGER(r8, r8),
	INTEGER(r9, r9),
	INTEGER(r10, r10),
	INTEGER(r11, r11),
	INTEGER(r12, r12),
	INTEGER(r13, r13),
	INTEGER(r14, r14),
	INTEGER(r15, r15),
	{"rip", "code_ptr", 8, KEPT(regs.rip)},
	{"eflags", "i386_eflags", 4, .from = offsetof(struct values, regs.rflags), .kept = 4},
	SELECTOR(cs),
	SELECTOR(ss),
	SELECTOR(ds),
	SELECTOR(es),
	SELECTOR(fs),
	SELECTOR(gs),
	STACK(0),
	STACK(1),
	STACK(2),
	STACK(3),
	STACK(4),
	STACK(5),
	STACK(6),
	STACK(7),
	FPU(fctrl, fpu.fcw),
	FPU(fstat, fpu.fsw),
	FPU(ftag, tags),
	{"fiseg", "int", 4, .constant = true}, /* not kept in 64-bit mode */
	{"fioff", "int", 4, .from = offsetof(struct values, fpu.last_ip), .kept = 4},
	{"foseg", "int", 4, .constant = true},
	{"fooff", "int", 4, .from = offsetof(struct values, fpu.last_dp), .kept = 4},
	FPU(fop, fpu.last_opcode),
	VECTOR(0),
	VECTOR(1),
	VECTOR(2),
	VECTOR(3),
	VECTOR(4),
	VECTOR(5),
	VECTOR(6),
	VECTOR(7),
	VECTOR(8),
	VECTOR(9),
	VECTOR(10),
	VECTOR(11),
	VECTOR(12),
	VECTOR(13),
	VECTOR(14),
	VECTOR(15),
	{"mxcsr", "int", 4, KEPT(fpu.mxcsr), .group = GROUP_SSE},
	{"fs_base", "int64", 8, KEPT(sregs.fs.base), .group = GROUP_SEGMENTS},
	{"gs_base", "int64", 8, KEPT(sregs.gs.base), .group = GROUP_SEGMENTS},
	CONTROL(cr0),
	CONTROL(cr2),
	CONTROL(cr3),
	CONTROL(cr4),
	CONTROL(cr8),
	CONTROL(efer),
};

static_assert(ARRAY_SIZE(rows) <= DEBUG_REGS, "debug.h has room for all");

unsigned int arch_debug_regs(struct debug_reg regs[DEBUG_REGS])
{
	unsigned int at = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		regs[i] = (struct debug_reg){(uint16_t)at, rows[i].bytes};
		at += rows[i].bytes;
	}
	return ARRAY_SIZE(rows);
}

void arch_debug_describe(char text[DEBUG_TEXT])
{
	int at = snprintf(text, DEBUG_TEXT,
			  "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
			  "<target><architecture>i386:x86-64</architecture>");
	unsigned int i = 0;

	for (unsigned int group = 0; group < ARRAY_SIZE(groups); group++) {
		at += snprintf(text + at, (size_t)(DEBUG_TEXT - at), "<feature name=\"%s\">%s",
			       groups[group].name, groups[group].types);
		for (; i < ARRAY_SIZE(rows) && rows[i].group == group; i++)
			at += snprintf(text + at, (size_t)(DEBUG_TEXT - at),
				       "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>",
				       rows[i].name, rows[i].bytes * 8u, rows[i].type);
		at += snprintf(text + at, (size_t)(DEBUG_TEXT - at), "</feature>");
	}
	at += snprintf(text + at, (size_t)(DEBUG_TEXT - at), "</target>");
	assert(at < DEBUG_TEXT && i == ARRAY_SIZE(rows));
}

/* The FPU's tag word: 3 is an empty register. KVM says of each only whether it is. */
static uint16_t tags_of(uint8_t used)
{
	uint16_t tags = 0;

	for (unsigned int i = 0; i < 8; i++)
		tags |= (uint16_t)(used >> i & 1 ? 0 : 3u << 2 * i);
	return tags;
}

static uint8_t used_of(uint16_t tags)
{
	uint8_t used = 0;

	for (unsigned int i = 0; i < 8; i++)
		used |= (uint8_t)((tags >> 2 * i & 3) != 3 ? 1u << i : 0);
	return used;
}

static int get_values(const struct arch_vcpu *vcpu, struct values *v)
{
	int rc = arch_vcpu_call(vcpu, KVM_GET_REGS, &v->regs);

	if (!rc)
		rc = arch_vcpu_call(vcpu, KVM_GET_SREGS, &v->sregs);
	if (!rc)
		rc = arch_vcpu_call(vcpu, KVM_GET_FPU, &v->fpu);
	v->tags = rc ? 0 : tags_of(v->fpu.ftwx);
	return rc;
}

static void put_values(const struct values *v, uint8_t regs[DEBUG_REGS_BYTES])
{
	memset(regs, 0, DEBUG_REGS_BYTES);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		memcpy(regs, (const uint8_t *)v + rows[i].from, rows[i].kept);
		regs += rows[i].bytes;
	}
}

int arch_debug_get_regs(struct arch_vcpu *vcpu, uint8_t regs[DEBUG_REGS_BYTES])
{
	struct values v = {0};
	int rc = get_values(vcpu, &v);

	if (!rc)
		put_values(&v, regs);
	return rc;
}

int arch_debug_set_regs(struct arch_vcpu *vcpu, const uint8_t regs[DEBUG_REGS_BYTES])
{
	struct values v = {0}, old;
	const uint8_t *at = regs;
	int rc = get_values(vcpu, &v);

	if (rc)
		return rc;
	old = v;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint8_t *value = (uint8_t *)&v + rows[i].from;

		if (!rows[i].constant)
			memcpy(value, at, rows[i].kept);
		else if (memcmp(value, at, rows[i].kept) != 0)
			return -EINVAL;
		at += rows[i].bytes;
	}
	v.fpu.ftwx = used_of(v.tags);
	/* What may be refused comes first. KVM gives these a meaning beyond the values, so that
	 * nothing is set that has not changed. */
	if (memcmp(&v.sregs, &old.sregs, sizeof(v.sregs)) != 0)
		rc = arch_vcpu_call(vcpu, KVM_SET_SREGS, &v.sregs);
	if (!rc && memcmp(&v.fpu, &old.fpu, sizeof(v.fpu)) != 0)
		rc = arch_vcpu_call(vcpu, KVM_SET_FPU, &v.fpu);
	if (!rc && memcmp(&v.regs, &old.regs, sizeof(v.regs)) != 0)
		rc = arch_vcpu_call(vcpu, KVM_SET_REGS, &v.regs);
	return rc;
}

const uint16_t arch_debug_elf_machine = EM_X86_64;

int arch_debug_status(struct arch_vcpu *vcpu, uint8_t status[DEBUG_STATUS_BYTES])
{
	struct elf_prstatus s = {.pr_pid = (pid_t)vcpu->index + 1};
	struct user_regs_struct regs;
	struct values v = {0};
	int rc = get_values(vcpu, &v);

	static_assert(sizeof(s) == DEBUG_STATUS_BYTES, "debug.h has the size");
	static_assert(sizeof(regs) == sizeof(s.pr_reg), "it holds these registers");
	if (rc)
		return rc;
	regs = (struct user_regs_struct){
		.r15 = v.regs.r15,
		.r14 = v.regs.r14,
		.r13 = v.regs.r13,
		.r12 = v.regs.r12,
		.rbp = v.regs.rbp,
		.rbx = v.regs.rbx,
		.r11 = v.regs.r11,
		.r10 = v.regs.r10,
		.r9 = v.regs.r9,
		.r8 = v.regs.r8,
		.rax = v.regs.rax,
		.rcx = v.regs.rcx,
		.rdx = v.regs.rdx,
		.rsi = v.regs.rsi,
		.rdi = v.regs.rdi,
		.orig_rax = ~0ull, /* in no system call */
		.rip = v.regs.rip,
		.cs = v.sregs.cs.selector,
		.eflags = v.regs.rflags,
		.rsp = v.regs.rsp,
		.ss = v.sregs.ss.selector,
		.fs_base = v.sregs.fs.base,
		.gs_base = v.sregs.gs.base,
		.ds = v.sregs.ds.selector,
		.es = v.sregs.es.selector,
		.fs = v.sregs.fs.selector,
		.gs = v.sregs.gs.selector,
	};
	memcpy(&s.pr_reg, &regs, sizeof(regs));
	memcpy(status, &s, sizeof(s));
	return 0;
}

/* --- stops --- */

int arch_debug_check(const struct arch_vm *vm, struct err *err)
{
	if (x86_vm_has(vm, KVM_CAP_SET_GUEST_DEBUG))
		return 0;
	return err_set(err, -EOPNOTSUPP, "this host's KVM cannot debug guests; leave out --gdb");
}

/* DR7 (Intel SDM 3, 17.2.4): a bit that enables each, and four that say what it is. */
static uint64_t dr7_of(const struct debug_setup *setup)
{
	static const uint8_t kind_bits[] = {
		[DEBUG_BREAK_EXECUTE] = 0, [DEBUG_BREAK_WRITE] = 1, [DEBUG_BREAK_ACCESS] = 3};
	static const uint8_t length_bits[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
	uint64_t dr7 = 1 << 10;

	for (unsigned int i = 0; i < setup->n_hard; i++) {
		const struct debug_point *p = &setup->hard[i];
		uint64_t bits = kind_bits[p->kind] | (uint64_t)length_bits[p->bytes] << 2;

		dr7 |= 2ull << 2 * i | bits << (16 + 4 * i);
	}
	return dr7;
}

static int set(struct arch_vcpu *vcpu, const struct debug_setup *setup, uint32_t more)
{
	struct kvm_guest_debug debug = {0};

	if (setup->on)
		debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | more;
	if (setup->on && setup->step)
		debug.control |= KVM_GUESTDBG_SINGLESTEP |
				 ((unsigned int)x86_vm_has(vcpu->vm, KVM_CAP_SET_GUEST_DEBUG2) &
				  KVM_GUESTDBG_BLOCKIRQ);
	if (setup->on && setup->n_hard) {
		debug.control |= KVM_GUESTDBG_USE_HW_BP;
		for (unsigned int i = 0; i < setup->n_hard; i++)
			debug.arch.debugreg[i] = setup->hard[i].gva;
		debug.arch.debugreg[7] = dr7_of(setup);
	}
	return arch_vcpu_call(vcpu, KVM_SET_GUEST_DEBUG, &debug);
}

int arch_debug_set(struct arch_vcpu *vcpu, const struct debug_setup *setup)
{
	return set(vcpu, setup, 0);
}

int arch_debug_give_trap(struct arch_vcpu *vcpu, const struct debug_setup *setup)
{
	return set(vcpu, setup, KVM_GUESTDBG_INJECT_BP);
}

void arch_debug_why(const struct arch_vcpu *vcpu, const struct debug_setup *setup,
		    struct debug_stop *ret)
{
	const struct kvm_debug_exit_arch *exit = &vcpu->area.run->debug.arch;

	*ret = (struct debug_stop){.cause = DEBUG_STEPPED, .gva = exit->pc};
	if (exit->exception == EXCEPTION_BP) {
		ret->cause = DEBUG_TRAPPED;
		return;
	}
	for (unsigned int i = setup->n_hard; i-- > 0;) {
		if (exit->dr6 & 1u << i) {
			ret->cause = DEBUG_HIT;
			ret->hard = i;
		}
	}
}

/* --- addresses --- */

#define CR0_PG   (1ull << 31)
#define CR4_LA57 (1ull << 12)
#define EFER_LMA (1ull << 10)
enum { ENTRY_PRESENT = 1 << 0, ENTRY_LARGE = 1 << 7, LARGEST_LEVEL = 3 };
#define ENTRY_ADDRESS 0x000ffffffffff000ull

int x86_walk(const struct gmem *gmem, uint64_t cr3, unsigned int levels, uint64_t gva,
	     uint64_t *gpa)
{
	unsigned int unused = 64 - (12 + 9 * levels);
	uint64_t entry = cr3;

	if ((uint64_t)((int64_t)(gva << unused) >> unused) != gva)
		return -EFAULT; /* not canonical */
	for (unsigned int level = levels; level > 0; level--) {
		unsigned int shift = 12 + 9 * (level - 1);
		uint64_t at = (entry & ENTRY_ADDRESS) + (gva >> shift & 511) * sizeof(entry);
		uint64_t within = (1ull << shift) - 1;

		if (gmem_read(gmem, at, &entry, sizeof(entry)) != 0 || !(entry & ENTRY_PRESENT))
			return -EFAULT;
		if (level == 1 || (level <= LARGEST_LEVEL && entry & ENTRY_LARGE)) {
			*gpa = (entry & ENTRY_ADDRESS & ~within) | (gva & within);
			return 0;
		}
	}
	return -EFAULT;
}

/* KVM_TRANSLATE asks as the guest's kernel would, which SMAP keeps from the pages of programs: in
 * 64-bit mode the tables are read here. */
int arch_debug_translate(struct arch_vcpu *vcpu, uint64_t gva, uint64_t *gpa)
{
	struct kvm_translation t = {.linear_address = gva};
	struct kvm_sregs s = {0};
	int rc = arch_vcpu_call(vcpu, KVM_GET_SREGS, &s);

	if (!rc && s.cr0 & CR0_PG && s.efer & EFER_LMA)
		return x86_walk(vcpu->vm->common.gmem, s.cr3, s.cr4 & CR4_LA57 ? 5 : 4, gva, gpa);
	if (!rc)
		rc = arch_vcpu_call(vcpu, KVM_TRANSLATE, &t);
	*gpa = t.physical_address;
	return rc ? rc : t.valid ? 0 : -EFAULT;
}

bool arch_debug_waits(struct arch_vcpu *vcpu)
{
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};

	return arch_vcpu_call(vcpu, KVM_GET_MP_STATE, &mp) == 0 &&
	       mp.mp_state != KVM_MP_STATE_RUNNABLE;
}
