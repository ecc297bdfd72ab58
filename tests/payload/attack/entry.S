/* SPDX-License-Identifier: Apache-2.0 */
/* The attack guest's beginning: PVH entry (32-bit, paging off, %ebx: start info), page tables for the
 * first 4 GiB, long mode, attack_main. */
	.section .note.pvh, "a", @note
	.align 4
	.long 4
	.long 8
	.long 18	/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad pvh_entry

	.text
	.code32
	.globl pvh_entry
pvh_entry:
	cli
	cld
	mov $stack_end, %esp
	mov %ebx, %ebp

	/* Four page directories of 2 MiB pages, uncached beyond RAM does not matter in a guest. */
	mov $0x83, %eax
	mov $page_directories, %edi
	xor %edx, %edx
1:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $8, %edi
	add $0x200000, %eax
	jnc 1b

	mov $page_directories + 3, %eax
	mov $page_directory_pointers, %edi
	mov $4, %ecx
2:	mov %eax, (%edi)
	add $0x1000, %eax
	add $8, %edi
	loop 2b
	movl $page_directory_pointers + 3, page_map

	mov $page_map, %eax
	mov %eax, %cr3
	mov $0x20, %eax		/* PAE */
	mov %eax, %cr4
	mov $0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000001, %eax
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $long_entry

	.code64
long_entry:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $stack_end, %rsp
	lidt idt_pointer
	mov %ebp, %edi
	call attack_main
1:	hlt
	jmp 1b

	/* Interrupts are off: what comes is an exception, or an NMI that somebody sent. */
	.globl attack_trap, attack_nmi
attack_trap:
	mov %rsp, %rdi
	and $-16, %rsp
	call attack_exception
1:	hlt
	jmp 1b
attack_nmi:
	iretq

	.data
	.align 8
gdt:	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
	.align 8
idt_pointer:
	.word 256 * 16 - 1
	.quad attack_idt

	.bss
	.align 4096
	.globl page_map, page_directory_pointers
page_map:
	.skip 4096
page_directory_pointers:
	.skip 4096
page_directories:
	.skip 4 * 4096
	.skip 32768
stack_end:
	.section .note.GNU-stack, "", @progbits
