/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a debugger asks of vCPUs: registers, addresses, breakpoints, steps. Implemented in
 * vmm/arch/<arch>/debug.c; nothing above knows which architecture it is.
 *
 * Threads: whoever has the vCPUs paused. Nothing here may be called while the vCPU can run.
 */
#ifndef CORE_DEBUG_H
#define CORE_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct arch_vm;
struct arch_vcpu;

enum {
	DEBUG_REGS = 80,          /* registers, at most */
	DEBUG_REGS_BYTES = 1024,  /* of all of them, at most */
	DEBUG_HARD = 4,           /* hardware breakpoints that a vCPU has */
	DEBUG_TEXT = 8192,        /* of the description of the registers */
	DEBUG_TRAP_BYTES = 1,     /* the instruction that a software breakpoint is */
	DEBUG_STATUS_BYTES = 336, /* of an ELF core's NT_PRSTATUS */
};

enum debug_break {
	DEBUG_BREAK_SOFT,    /* an instruction in memory */
	DEBUG_BREAK_EXECUTE, /* in hardware */
	DEBUG_BREAK_WRITE,
	DEBUG_BREAK_READ,
	DEBUG_BREAK_ACCESS,
};

struct debug_point {
	enum debug_break kind;
	uint64_t gva;
	unsigned int bytes; /* 1, 2, 4 or 8, and gva is a multiple; 1 for EXECUTE */
};

/* What a vCPU stops for; all zero: nothing. */
struct debug_setup {
	bool on;   /* stop at a trap instruction; all that follows needs it */
	bool step; /* stop after one instruction, which no interrupt of the guest comes before */
	unsigned int n_hard;
	struct debug_point hard[DEBUG_HARD];
};

/* Why a vCPU stopped (VCPU_DEBUG). */
enum debug_cause {
	DEBUG_STEPPED,
	DEBUG_TRAPPED, /* at a trap instruction, which is its next one; perhaps the guest's own */
	DEBUG_HIT,     /* hard[hard] of the setup. Behind the access, but before EXECUTE's
			* instruction */
};
struct debug_stop {
	enum debug_cause cause;
	uint64_t gva; /* of the next instruction */
	unsigned int hard;
};

/* A register's place among all. */
struct debug_reg {
	uint16_t offset, bytes;
};

extern const uint8_t arch_debug_trap[DEBUG_TRAP_BYTES];

/* -EOPNOTSUPP and a message: this KVM lets nobody debug a guest. */
int arch_debug_check(const struct arch_vm *vm, struct err *err);
/* 0, or a negative errno with the former setup in force. */
int arch_debug_set(struct arch_vcpu *vcpu, const struct debug_setup *setup);
/* Give the guest the trap that it stopped at, as its next event: it was not for the debugger. */
int arch_debug_give_trap(struct arch_vcpu *vcpu, const struct debug_setup *setup);
void arch_debug_why(const struct arch_vcpu *vcpu, const struct debug_setup *setup,
		    struct debug_stop *ret);

/* The places of all registers, by their numbers. Returns how many there are. */
unsigned int arch_debug_regs(struct debug_reg regs[DEBUG_REGS]);
/* gdb's description of them (XML, "Target Descriptions" in its manual), in the order of their
 * numbers. */
void arch_debug_describe(char text[DEBUG_TEXT]);
int arch_debug_get_regs(struct arch_vcpu *vcpu, uint8_t regs[DEBUG_REGS_BYTES]);
/* -EINVAL: a register was changed that cannot be, or KVM refuses the value. */
int arch_debug_set_regs(struct arch_vcpu *vcpu, const uint8_t regs[DEBUG_REGS_BYTES]);

/* What an ELF core says of a vCPU (struct elf_prstatus), and of which machine it is. */
extern const uint16_t arch_debug_elf_machine;
int arch_debug_status(struct arch_vcpu *vcpu, uint8_t status[DEBUG_STATUS_BYTES]);

/* Where the vCPU finds a virtual address now. -EFAULT: nowhere. What holds for it holds for its
 * page of 4 KiB. */
int arch_debug_translate(struct arch_vcpu *vcpu, uint64_t gva, uint64_t *gpa);
/* Does it wait for an interrupt, or to be started? */
bool arch_debug_waits(struct arch_vcpu *vcpu);

#endif
