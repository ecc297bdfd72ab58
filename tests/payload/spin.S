/* SPDX-License-Identifier: Apache-2.0 */
/* Counts for ever without an exit. */
#include "payload.inc"
	.code16
_start:
	cli
1:	incl RESULT
	jmp 1b
