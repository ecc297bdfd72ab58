/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel address space layout randomisation, done by the host.
 *
 * The build of a relocatable kernel appends to the ELF file the addresses of all fields that hold
 * an absolute address, as 32-bit values (sign-extended virtual addresses), in lists that each begin
 * with a zero (arch/x86/boot/compressed/misc.c, handle_relocations):
 *
 *   | ELF file | 0 64-bit fields | 0 inverse 32-bit fields (until Linux 6.14) | 0 32-bit fields |
 *
 * The virtual offset and the physical place are independent of each other: fields hold virtual
 * addresses, and the kernel finds out by itself where in memory it runs.
 */
#ifndef FIRMWARE_KASLR_H
#define FIRMWARE_KASLR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "firmware/vmlinux.h"

/* The window at __START_KERNEL_map in which the kernel's text may lie. */
#define KASLR_WINDOW (1ull << 30)
#define KASLR_MAP    0xffffffff80000000ull

/* Offsets of fields in the image, as 32-bit words at any alignment. Every field is inside the
 * image's span (a 64-bit one is at most span - 8). */
struct reloc_list {
	uint8_t *word;
	uint32_t n;
};

enum reloc_kind {
	RELOC_64,      /* += delta, 64 bits */
	RELOC_32,      /* += delta, 32 bits */
	RELOC_INVERSE, /* -= delta, 32 bits */
	RELOC_KINDS,
};

struct relocs {
	struct reloc_list list[RELOC_KINDS];
};

/* Find the lists behind the ELF file in buf (all of it, `bytes` long), check them and turn their
 * addresses into offsets, in place. An image without relocations gives empty lists; lists that make
 * no sense are -EINVAL with a text. */
int relocs_parse(struct relocs *ret, const struct vmlinux *v, uint8_t *buf, uint64_t bytes,
		 struct err *err);

static inline bool relocs_any(const struct relocs *r)
{
	return r->list[RELOC_64].n || r->list[RELOC_32].n;
}

/* Is every field inside an image of span_bytes? For lists that come from a file. */
bool relocs_inside(const struct relocs *r, uint64_t span_bytes);

/* Move the image at `image` (checked: relocs_inside) by `delta` in virtual address space. */
void relocs_apply(const struct relocs *r, uint8_t *image, uint64_t delta);

/* A fresh random virtual offset, 0 included, a multiple of align. 0 or a negative errno. */
int kaslr_choose_virtual(const struct vmlinux *v, uint64_t align, uint64_t *delta);

/* A uniform random number below n (not 0). */
int kaslr_random_below(uint64_t n, uint64_t *ret);

/* Does the command line hold this word by itself? As the kernel reads it. */
bool cmdline_has(const char *cmdline, const char *word);

#endif
