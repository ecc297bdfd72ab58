/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel as an ELF file: its segments, its entries, and the relocations that follow it in the
 * payload of a bzImage. From a buffer (unpacked) or a file (a vmlinux).
 *
 * All offsets in struct vmlinux_* are checked: file ranges are inside the source, image ranges
 * inside [0, span_bytes). "Image" is memory from base_gpa on, where the kernel was linked to lie.
 */
#ifndef FIRMWARE_VMLINUX_H
#define FIRMWARE_VMLINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VMLINUX_SEGMENTS_MAX 32

struct elf_source {
	const uint8_t *buf; /* NULL: fd */
	int fd;
	uint64_t bytes;
	bool firmware; /* entered by its PVH note alone; it may call itself a program for i386 */
};

struct vmlinux_segment {
	uint64_t image_offset; /* ascending, no two overlap */
	uint64_t file_offset;
	uint64_t file_bytes; /* the rest, up to mem_bytes, is zero */
	uint64_t mem_bytes;
};

/* What can be kept in a file: no pointers. */
struct vmlinux {
	uint64_t base_gpa;     /* lowest p_paddr */
	uint64_t span_bytes;   /* to the end of the last segment, .bss and .brk included */
	uint64_t base_va;      /* the virtual address of base_gpa */
	uint64_t entry_offset; /* 64-bit entry, in the image */
	uint64_t pvh_entry;    /* gpa of the 32-bit entry; 0: has none */
	uint64_t elf_end;      /* where the ELF file ends in the source */
	uint32_t n_segments;
	uint32_t ecam; /* 1: it does without PCI config ports; known of a payload only */
	struct vmlinux_segment segment[VMLINUX_SEGMENTS_MAX];
};

/* -EINVAL with a text without the file's name, or a read error. */
int vmlinux_parse(struct vmlinux *ret, const struct elf_source *source, struct err *err);

/* Do its segments hold this text? Reads all of the file. */
bool vmlinux_has_text(const struct vmlinux *v, const struct elf_source *source, const char *text);

#endif
