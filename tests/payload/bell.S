/* SPDX-License-Identifier: Apache-2.0 */
/* Rings doorbells that KVM answers itself: by port, by port with a value, by MMIO of any size. */
#include "payload.inc"
	.code32
_start:
	mov $PORT_BELL, %dx
	mov $3, %ecx
1:	outw %ax, %dx
	dec %ecx
	jnz 1b
	mov $PORT_BELL + 4, %dx
	mov $7, %eax
	outl %eax, %dx
	mov $8, %eax
	outl %eax, %dx
	movl $5, MMIO_BELL
	movw $5, MMIO_BELL
	mov $0, %al
	exit16 5
