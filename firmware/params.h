/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's boot parameters: the zero page (Documentation/arch/x86/boot.rst and zero-page.rst)
 * or the PVH start info (xen/include/public/arch-x86/hvm/start_info.h), with the page tables of the
 * 64-bit entry. All of it lies in the first 576 KiB:
 *
 *   0x00500  GDT          0x09000 … 0x1ffff  page tables
 *   0x06000  random seed  0x20000 … 0x2ffff  command line
 *   0x07000  zero page, or start info with its lists
 *   0x08000  … stack
 */
#ifndef FIRMWARE_PARAMS_H
#define FIRMWARE_PARAMS_H

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/arch.h"
#include "core/gmem.h"
#include "firmware/memmap.h"

#define PARAMS_END_GPA     0x90000ull
#define PARAMS_CMDLINE_MAX 0xffffu /* bytes, without the final zero */
#define PARAMS_STACK_TOP   0x8ff0ull

struct params {
	const struct setup_header *header; /* NULL: a kernel without one (vmlinux) */
	const struct memmap *memmap;       /* merged */
	const char *cmdline;               /* at most PARAMS_CMDLINE_MAX */
	uint64_t rsdp_gpa;
	uint64_t initrd_gpa, initrd_bytes; /* bytes 0: none */
	uint64_t kernel_gpa, kernel_bytes; /* where it was placed: mapped by the page tables */
	uint64_t code32_start;             /* of the decompressor; 0: not used */
	bool kaslr;
};

/* The 64-bit protocol: fills in all of entry but rip. */
int params_write_linux(const struct params *params, struct gmem *gmem, struct arch_entry *entry,
		       struct err *err);
/* PVH: likewise. */
int params_write_pvh(const struct params *params, struct gmem *gmem, struct arch_entry *entry,
		     struct err *err);

#endif
