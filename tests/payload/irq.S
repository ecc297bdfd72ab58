/* SPDX-License-Identifier: Apache-2.0 */
/* Takes an MSI (vector 0x41, edge) and the I/O APIC's pin 10 (vector 0x42, level): each writes its
 * vector to the data port, where the harness lowers the line. */
#include "payload.inc"
	.set LAPIC, 0xfee00000
	.set IOAPIC, 0xfec00000
	.code32
_start:
	lidt table_at
	mov $0xff, %al /* the PICs, which see line 10 too */
	out %al, $0x21
	out %al, $0xa1
	movl $0x1ff, LAPIC + 0xf0
	movl $0x10 + 2 * 10, IOAPIC
	movl $0x8042, IOAPIC + 0x10
	movl $0x11 + 2 * 10, IOAPIC
	movl $0, IOAPIC + 0x10
	mov $PORT_EXIT, %dx
	mov $6, %al
	out %al, %dx
wait:	sti
1:	hlt
	jmp 1b

msi:	lock incl RESULT
	mov $0x41, %al
	jmp 2f
line:	lock incl RESULT + 4
	mov $0x42, %al
2:	mov $PORT_DATA, %dx
	out %al, %dx
	movl $0, LAPIC + 0xb0
	/* Not iret: KVM's emulator has it in real mode only, and some KVMs emulate all of this. */
	add $12, %esp
	jmp wait

	.balign 8
table:	.fill 0x41, 8, 0
	.word msi, 0x10, 0x8e00, 0
	.word line, 0x10, 0x8e00, 0
table_end:
table_at:
	.word table_end - table - 1
	.long table
