/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit: an MMIO access of eight bytes; CPUID of topology for the host to compare; rsi as given. */
#include "payload.inc"
	.code64
_start:
	mov $MMIO, %ebx
	mov $0x1122334455667788, %rax
	mov %rax, (%rbx)
	mov (%rbx), %rcx
	mov %rcx, RESULT
	mov %rsi, RESULT + 8
	mov $0xb, %eax
	mov $1, %ecx
	cpuid
	mov %ebx, RESULT + 16
	mov %edx, RESULT + 20
	mov $1, %eax
	xor %ecx, %ecx
	cpuid
	mov %ecx, RESULT + 24
	exit16 3
