/* SPDX-License-Identifier: Apache-2.0 */
/* Port reads without end: each value must be one more than the last, or it says so. A lost or doubled
 * completion at a pause shows here. */
#include "payload.inc"
	.code16
_start:
	cli
	mov $PORT_DATA, %dx
	in %dx, %eax
	mov %eax, %ebx
1:	in %dx, %eax
	inc %ebx
	cmp %ebx, %eax
	jne 2f
	mov %eax, RESULT
	jmp 1b
2:	exit16 0xee
