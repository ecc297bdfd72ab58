/* SPDX-License-Identifier: Apache-2.0 */
/* Real mode: port accesses of each size, string instructions, a port nobody claims. */
#include "payload.inc"
	.code16
_start:
	cli
	cld
	mov $PORT_DATA, %dx
	mov $0x12, %al
	out %al, %dx
	mov $0x3456, %ax
	out %ax, %dx
	mov $0x789abcde, %eax
	out %eax, %dx
	in %dx, %al
	mov %al, RESULT
	in %dx, %ax
	mov %ax, RESULT + 2
	in %dx, %eax
	mov %eax, RESULT + 4
	mov $text, %si
	mov $5, %cx
	rep outsb
	mov $RESULT + 16, %di
	mov $6, %cx
	rep insw
	mov $0x600, %dx
	in %dx, %eax
	mov %eax, RESULT + 8
	exit16 1
text:	.ascii "hello"
