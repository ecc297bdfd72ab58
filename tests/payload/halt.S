/* SPDX-License-Identifier: Apache-2.0 */
/* Says that it is here, then sleeps for ever with interrupts off. */
#include "payload.inc"
	.code16
_start:
	cli
	exit16 4
