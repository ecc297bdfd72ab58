/* SPDX-License-Identifier: Apache-2.0 */
/* A fault with no interrupt table: the CPU shuts down. */
#include "payload.inc"
	.code32
_start:
	lidt none
	mov $0xfff8, %ax
	mov %ax, %ds
none:	.word 0
	.long 0
