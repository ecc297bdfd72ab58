/* SPDX-License-Identifier: Apache-2.0 */
/* 32-bit: MMIO accesses of each size, an address nobody claims. */
#include "payload.inc"
	.code32
_start:
	mov $MMIO, %ebx
	movb $0x11, (%ebx)
	movw $0x2233, 2(%ebx)
	movl $0x44556677, 4(%ebx)
	movb (%ebx), %al
	mov %al, RESULT
	movw 2(%ebx), %ax
	mov %ax, RESULT + 2
	movl 4(%ebx), %eax
	mov %eax, RESULT + 4
	movl 0x8000(%ebx), %eax
	mov %eax, RESULT + 8
	exit16 2
