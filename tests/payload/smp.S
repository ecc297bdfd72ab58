/* SPDX-License-Identifier: Apache-2.0 */
/* The boot processor starts the other one by INIT and SIPI; that one says so. */
#include "payload.inc"
	.set LAPIC, 0xfee00000
	.code32
_start:
	movl $0x1ff, LAPIC + 0xf0
	movl $1 << 24, LAPIC + 0x310
	movl $0x4500, LAPIC + 0x300
	movl $1 << 24, LAPIC + 0x310
	movl $0x4602, LAPIC + 0x300
1:	hlt
	jmp 1b
	.org 0x1000 /* 0x2000: the start-up vector 2 */
	.code16
	cli
	xor %ax, %ax
	mov %ax, %ds
	incl RESULT
	exit16 7
